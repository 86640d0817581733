/* The one table of series. Everything that names a series is made from it: the
 * words of a row, the snapshot, the Collector, the text exposition, docs/metrics.md
 * (checked by a test). A stem is the series' name without "mcp_session_pool_" and
 * "_total".
 *
 * X(ID, stem, kind, labels, help)
 *   kind    COUNTER    never falls
 *           GAUGE      what is now
 *           AGE        a gauge in seconds: how long ago the moment in its word was, which is in
 *                      nanoseconds of the monotonic clock; 0 where the word is 0
 *           DURATION   a gauge in seconds: the nanoseconds in its word; of processes only
 *           HISTOGRAM  of durations; see histogram.h
 *   labels  GATEWAY: by gateway_id; EVICTION, REJECTION, UNPOOLED: by gateway_id and reason;
 *           BUCKET: by gateway_id and le
 *
 * A series by reason takes one word of the row for each reason, in enum order. One by
 * bucket takes MGP_BUCKETS_MAX + 1 words for its buckets, and one for the sum. */
#ifndef MGP_METRICS_SERIES_H
#define MGP_METRICS_SERIES_H

#include <stddef.h>
#include <stdint.h>

/* Why the pool closed an open session. The last is for readers of shared counters only: what a
 * process had open when it ended, see mgp_row_end(). */
#define MGP_EVICTION_REASONS(X)                                                                    \
    X(TTL_EXPIRED, "ttl_expired")                                                                  \
    X(CIRCUIT_BREAKER, "circuit_breaker")                                                          \
    X(MANUAL, "manual")                                                                            \
    X(IDLE_TIMEOUT, "idle_timeout")                                                                \
    X(HEALTH_CHECK, "health_check")                                                                \
    X(BROKEN, "broken")                                                                            \
    X(CAPACITY, "capacity")                                                                        \
    X(LEAKED, "leaked")                                                                            \
    X(PROCESS_ENDED, "process_ended")

/* Why an acquire was refused at once. */
#define MGP_REJECTION_REASONS(X)                                                                   \
    X(CIRCUIT_OPEN, "circuit_open")                                                                \
    X(EXHAUSTED, "exhausted")                                                                      \
    X(QUEUE_FULL, "queue_full")

/* Why a call without a downstream session went the gateway's own way. */
#define MGP_UNPOOLED_REASONS(X)                                                                    \
    X(SWITCHED_OFF, "switched_off")                                                                \
    X(NO_USER, "no_user")                                                                          \
    X(EXCEPTED, "excepted")

/* Finite bounds of a histogram, at most; the bucket of +Inf comes on top. */
#define MGP_BUCKETS_MAX 16

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
    X(OLDEST_WAITER_SECONDS, "oldest_waiter_seconds", AGE, GATEWAY,                                \
      "How long the longest waiting caller has waited by now.")                                    \
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
      "Acquires that carried no identity.")                                                        \
    X(REPLACEMENTS, "replacements", COUNTER, GATEWAY,                                              \
      "Sessions opened in the place of one that neared the end of its lifetime.")                  \
    X(LONG_CHECKOUTS, "long_checkouts", COUNTER, GATEWAY,                                          \
      "Checkouts that lasted for leak_detection_seconds or longer.")                               \
    X(REPLAYS, "replays", COUNTER, GATEWAY,                                                        \
      "Requests sent once more on a fresh session: the server had not executed them.")             \
    X(UNPOOLED_CALLS, "unpooled_calls", COUNTER, UNPOOLED,                                         \
      "Calls without a downstream session that went the gateway's own way, by reason.")            \
    X(ACQUIRE_WAIT_SECONDS, "acquire_wait_seconds", HISTOGRAM, BUCKET,                             \
      "How long acquires waited that had to wait and were answered.")                              \
    X(CREATE_SECONDS, "create_seconds", HISTOGRAM, BUCKET,                                         \
      "How long the creation of a session took, where it succeeded.")                              \
    X(USE_SECONDS, "use_seconds", HISTOGRAM, BUCKET,                                               \
      "How long sessions were checked out, each checkout by itself.")

/* What a process knows as a whole, without gateway: X(ID, stem, kind, combine, help) */
#define MGP_PROCESS_SERIES_TABLE(X)                                                                \
    X(LABEL_OVERFLOW, "label_overflow", COUNTER, TOTAL,                                            \
      "Gateways that were counted in the row __overflow__.")                                       \
    X(MAX_SESSIONS_PER_KEY, "max_sessions_per_key", GAUGE, MAX,                                    \
      "Limit on sessions of one key: the largest of the pools.")                                   \
    X(MAX_TOTAL_SESSIONS, "max_total_sessions", GAUGE, LIMIT,                                      \
      "Limit on sessions: the sum over the pools; 0 is unlimited.")                                \
    X(MAX_TOTAL_KEYS, "max_total_keys", GAUGE, LIMIT,                                              \
      "Limit on keys: the sum over the pools; 0 is unlimited.")                                    \
    X(ACQUIRE_TIMEOUT_SECONDS, "acquire_timeout_seconds", DURATION, MAX,                           \
      "How long an acquire waits: the longest of the pools in use; 0 where one has no time-out.")  \
    X(PROCESSES, "processes", GAUGE, SUM, "Processes with pools that are counted here.")

/* The one series without a word: 1 for each row whose gateway has a name that is known. */
#define MGP_GATEWAY_INFO_STEM "gateway_info"
#define MGP_GATEWAY_INFO_HELP "1 for each gateway whose name is known."

#define MGP_X(ID, value) MGP_EVICTION_##ID,
enum mgp_eviction_reason { MGP_EVICTION_REASONS(MGP_X) MGP_EVICTION_REASON_COUNT };
#undef MGP_X

#define MGP_X(ID, value) MGP_REJECTION_##ID,
enum mgp_rejection_reason { MGP_REJECTION_REASONS(MGP_X) MGP_REJECTION_REASON_COUNT };
#undef MGP_X

#define MGP_X(ID, value) MGP_UNPOOLED_##ID,
enum mgp_unpooled_reason { MGP_UNPOOLED_REASONS(MGP_X) MGP_UNPOOLED_REASON_COUNT };
#undef MGP_X

enum mgp_series_kind {
    MGP_SERIES_COUNTER,
    MGP_SERIES_GAUGE,
    MGP_SERIES_AGE,
    MGP_SERIES_DURATION,
    MGP_SERIES_HISTOGRAM,
};
enum mgp_series_labels {
    MGP_LABELS_GATEWAY,
    MGP_LABELS_EVICTION,
    MGP_LABELS_REJECTION,
    MGP_LABELS_UNPOOLED,
    MGP_LABELS_BUCKET,
};

/* How many words of a row a series takes. */
enum {
    MGP_LABELS_GATEWAY_WORDS = 1,
    MGP_LABELS_EVICTION_WORDS = MGP_EVICTION_REASON_COUNT,
    MGP_LABELS_REJECTION_WORDS = MGP_REJECTION_REASON_COUNT,
    MGP_LABELS_UNPOOLED_WORDS = MGP_UNPOOLED_REASON_COUNT,
    MGP_LABELS_BUCKET_WORDS = MGP_BUCKETS_MAX + 2,
};

/* MGP_WORD_<ID> is the first word of a series in its row. */
#define MGP_X(ID, stem, kind, labels, help)                                                        \
    MGP_WORD_##ID, MGP_WORD_##ID##_LAST = MGP_WORD_##ID + MGP_LABELS_##labels##_WORDS - 1,
enum mgp_word { MGP_SERIES_TABLE(MGP_X) MGP_WORD_COUNT };
#undef MGP_X

/* The word of one reason. The casts are for clang 22, which warns of sums of two enumerations. */
#define MGP_EVICTION_WORD(reason) ((size_t)MGP_WORD_EVICTIONS + (size_t)(reason))
#define MGP_REJECTION_WORD(reason) ((size_t)MGP_WORD_ACQUIRE_REJECTIONS + (size_t)(reason))

#define MGP_X(ID, stem, kind, combine, help) MGP_PROCESS_##ID,
enum mgp_process_word { MGP_PROCESS_SERIES_TABLE(MGP_X) MGP_PROCESS_WORD_COUNT };
#undef MGP_X

/* How the words of several processes become one. Only TOTAL looks at finished ones. */
enum mgp_combine {
    MGP_COMBINE_TOTAL,  /* the sum, finished processes too: counters and histograms */
    MGP_COMBINE_SUM,    /* the sum over those that live: gauges */
    MGP_COMBINE_MAX,    /* the largest */
    MGP_COMBINE_OLDEST, /* a moment in nanoseconds: the smallest that is not 0 (none) */
    MGP_COMBINE_LIMIT,  /* the sum, but MGP_UNLIMITED when any is; 0 where there is no pool */
};

/* The value of a LIMIT word that stands for "unlimited"; it is shown as 0. */
#define MGP_UNLIMITED UINT64_MAX

struct mgp_series {
    const char *stem;
    enum mgp_series_kind kind;
    enum mgp_series_labels labels;
    const char *help;
    size_t first_word;
    size_t word_count;
};

struct mgp_process_series {
    const char *stem;
    enum mgp_series_kind kind;
    enum mgp_combine combine;
    const char *help;
};

extern const struct mgp_series mgp_series_table[];
extern const size_t mgp_series_count;
extern const struct mgp_process_series mgp_process_series_table[MGP_PROCESS_WORD_COUNT];
extern const char *const mgp_eviction_reason_names[MGP_EVICTION_REASON_COUNT];
extern const char *const mgp_rejection_reason_names[MGP_REJECTION_REASON_COUNT];
extern const char *const mgp_unpooled_reason_names[MGP_UNPOOLED_REASON_COUNT];

/* The values of the label `reason`, in the order of the words; NULL for series without it. */
const char *const *mgp_series_reasons(enum mgp_series_labels labels);

/* How the words of this series combine. */
enum mgp_combine mgp_series_combine(const struct mgp_series *series);

/* A value as it is shown: an unlimited limit is 0. */
uint64_t mgp_process_value(enum mgp_process_word word, uint64_t value);

/* A digest of everything that gives the words their meaning: stems, kinds, labels, names of
 * reasons, bounds of buckets. Two processes whose digests differ cannot be added up. */
uint64_t mgp_series_fingerprint(void);

#endif
