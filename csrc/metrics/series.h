/* The one table of series. Everything that names a series is made from it: the
 * words of a row, the snapshot, the Collector, docs/metrics.md (checked by a
 * test). A stem is the series' name without "mcp_session_pool_" and "_total".
 *
 * X(ID, stem, kind, labels, help)
 *   kind    COUNTER (never falls) or GAUGE
 *   labels  GATEWAY: by gateway_id; EVICTION, REJECTION: by gateway_id and reason
 *
 * A series by reason takes one word of the row for each reason, in enum order. */
#ifndef MGP_METRICS_SERIES_H
#define MGP_METRICS_SERIES_H

#include <stddef.h>

/* Why the pool closed an open session. */
#define MGP_EVICTION_REASONS(X)                                                                    \
    X(TTL_EXPIRED, "ttl_expired")                                                                  \
    X(CIRCUIT_BREAKER, "circuit_breaker")                                                          \
    X(MANUAL, "manual")                                                                            \
    X(IDLE_TIMEOUT, "idle_timeout")                                                                \
    X(HEALTH_CHECK, "health_check")                                                                \
    X(BROKEN, "broken")                                                                            \
    X(CAPACITY, "capacity")                                                                        \
    X(LEAKED, "leaked")

/* Why an acquire was refused at once. */
#define MGP_REJECTION_REASONS(X)                                                                   \
    X(CIRCUIT_OPEN, "circuit_open")                                                                \
    X(EXHAUSTED, "exhausted")                                                                      \
    X(QUEUE_FULL, "queue_full")

#define MGP_SERIES_TABLE(X)                                                                        \
    X(HITS, "hits", COUNTER, GATEWAY, "Acquires answered with a session that was already open.")   \
    X(MISSES, "misses", COUNTER, GATEWAY, "Acquires answered with a newly created session.")       \
    X(EVICTIONS, "evictions", COUNTER, EVICTION, "Open sessions that the pool closed, by reason.") \
    X(HEALTH_CHECK_FAILURES, "health_check_failures", COUNTER, GATEWAY,                            \
      "Health checks that found a session unusable.")                                              \
    X(ACTIVE_SESSIONS, "active_sessions", GAUGE, GATEWAY, "Sessions checked out now.")             \
    X(SIZE, "size", GAUGE, GATEWAY, "Sessions open now: active and idle.")                         \
    X(IDLE_SESSIONS, "idle_sessions", GAUGE, GATEWAY, "Sessions open and not checked out now.")    \
    X(WAITERS, "waiters", GAUGE, GATEWAY, "Callers waiting for a session now.")                    \
    X(KEYS, "keys", GAUGE, GATEWAY, "Pool keys held now.")                                         \
    X(SESSION_CREATIONS_IN_PROGRESS, "session_creations_in_progress", GAUGE, GATEWAY,              \
      "Sessions being created now.")                                                               \
    X(CREATES, "creates", COUNTER, GATEWAY, "Sessions created.")                                   \
    X(CREATE_FAILURES, "create_failures", COUNTER, GATEWAY,                                        \
      "Creations of a session that failed or timed out.")                                          \
    X(HEALTH_CHECKS, "health_checks", COUNTER, GATEWAY, "Health checks made.")                     \
    X(ACQUIRE_TIMEOUTS, "acquire_timeouts", COUNTER, GATEWAY,                                      \
      "Acquires that gave up waiting after the acquire time-out.")                                 \
    X(ACQUIRE_CANCELLATIONS, "acquire_cancellations", COUNTER, GATEWAY,                            \
      "Acquires cancelled by their caller before they were answered.")                             \
    X(ACQUIRE_REJECTIONS, "acquire_rejections", COUNTER, REJECTION,                                \
      "Acquires refused at once, by reason.")                                                      \
    X(CIRCUIT_BREAKER_TRIPS, "circuit_breaker_trips", COUNTER, GATEWAY,                            \
      "Times a circuit breaker opened.")                                                           \
    X(CIRCUIT_BREAKERS_OPEN, "circuit_breakers_open", GAUGE, GATEWAY,                              \
      "Circuit breakers open or half-open now.")                                                   \
    X(ANONYMOUS_ACQUIRES, "anonymous_acquires", COUNTER, GATEWAY,                                  \
      "Acquires that carried no identity.")

#define MGP_X(ID, value) MGP_EVICTION_##ID,
enum mgp_eviction_reason { MGP_EVICTION_REASONS(MGP_X) MGP_EVICTION_REASON_COUNT };
#undef MGP_X

#define MGP_X(ID, value) MGP_REJECTION_##ID,
enum mgp_rejection_reason { MGP_REJECTION_REASONS(MGP_X) MGP_REJECTION_REASON_COUNT };
#undef MGP_X

enum mgp_series_kind { MGP_SERIES_COUNTER, MGP_SERIES_GAUGE };
enum mgp_series_labels { MGP_LABELS_GATEWAY, MGP_LABELS_EVICTION, MGP_LABELS_REJECTION };

/* How many words of a row a series takes. */
enum {
    MGP_LABELS_GATEWAY_WORDS = 1,
    MGP_LABELS_EVICTION_WORDS = MGP_EVICTION_REASON_COUNT,
    MGP_LABELS_REJECTION_WORDS = MGP_REJECTION_REASON_COUNT,
};

/* MGP_WORD_<ID> is the first word of a series in its row. */
#define MGP_X(ID, stem, kind, labels, help)                                                        \
    MGP_WORD_##ID, MGP_WORD_##ID##_LAST = MGP_WORD_##ID + MGP_LABELS_##labels##_WORDS - 1,
enum mgp_word { MGP_SERIES_TABLE(MGP_X) MGP_WORD_COUNT };
#undef MGP_X

struct mgp_series {
    const char *stem;
    enum mgp_series_kind kind;
    enum mgp_series_labels labels;
    const char *help;
    size_t first_word;
    size_t word_count;
};

extern const struct mgp_series mgp_series_table[];
extern const size_t mgp_series_count;
extern const char *const mgp_eviction_reason_names[MGP_EVICTION_REASON_COUNT];
extern const char *const mgp_rejection_reason_names[MGP_REJECTION_REASON_COUNT];

#endif
