/* The table of series as a build would have it in which two reasons have swapped their names.
 * Compiled under other names, for test_rows.c. */
#include "../../csrc/metrics/series.h"

#undef MGP_EVICTION_REASONS
#define MGP_EVICTION_REASONS(X)                                                                    \
    X(TTL_EXPIRED, "manual")                                                                       \
    X(CIRCUIT_BREAKER, "circuit_breaker")                                                          \
    X(MANUAL, "ttl_expired")                                                                       \
    X(IDLE_TIMEOUT, "idle_timeout")                                                                \
    X(HEALTH_CHECK, "health_check")                                                                \
    X(BROKEN, "broken")                                                                            \
    X(CAPACITY, "capacity")                                                                        \
    X(LEAKED, "leaked")                                                                            \
    X(PROCESS_ENDED, "process_ended")

#define mgp_series_table renamed_series_table
#define mgp_series_count renamed_series_count
#define mgp_process_series_table renamed_process_series_table
#define mgp_eviction_reason_names renamed_eviction_reason_names
#define mgp_rejection_reason_names renamed_rejection_reason_names
#define mgp_unpooled_reason_names renamed_unpooled_reason_names
#define mgp_series_reasons renamed_series_reasons
#define mgp_series_combine renamed_series_combine
#define mgp_process_value renamed_process_value
#define mgp_series_fingerprint renamed_series_fingerprint

extern const struct mgp_series mgp_series_table[];
extern const size_t mgp_series_count;
extern const struct mgp_process_series mgp_process_series_table[MGP_PROCESS_WORD_COUNT];
extern const char *const mgp_eviction_reason_names[MGP_EVICTION_REASON_COUNT];
extern const char *const mgp_rejection_reason_names[MGP_REJECTION_REASON_COUNT];
extern const char *const mgp_unpooled_reason_names[MGP_UNPOOLED_REASON_COUNT];

#include "../../csrc/metrics/series.c"
