/* The settings of one pool. Times are in nanoseconds of the caller's monotonic
 * clock. A limit of 0 means unlimited where its line says so. */
#ifndef MGP_CORE_CONFIG_H
#define MGP_CORE_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/siphash.h"

struct mgp_config {
    uint32_t max_sessions_per_key;      /* >= 1; creating + active + idle + checking +
                                         * closing, but for those that were retired */
    uint32_t max_total_sessions;        /* the same sum over all keys; 0: unlimited */
    uint32_t max_total_keys;            /* 0: unlimited */
    uint32_t max_waiters_per_key;       /* 0: unlimited */
    uint32_t max_leases_per_session;    /* >= 1; 1: a session serves one caller at a time */
    uint32_t max_creating_per_endpoint; /* and as many checks; 0: unlimited */
    uint32_t max_remembered_endpoints;  /* endpoints that only remember failures */
    uint32_t breaker_threshold;         /* >= 1 consecutive failures open the breaker */
    int64_t breaker_reset_ns;           /* how long it stays open the first time */
    int64_t lifetime_ns;                /* of a session, from its creation on */
    double lifetime_jitter;             /* 0 .. 1: each lifetime is shortened by up to this part */
    int64_t idle_timeout_ns;            /* an idle session unused for so long is closed */
    int64_t health_interval_ns;         /* an idle session unverified for so long needs a check */
    uint32_t checks_per_second;         /* bound on background health checks; 0: none */
    uint32_t min_idle_per_key;          /* kept ready for a key in use; 0: none */
    bool replaces_sessions;             /* before they end; see ahead.c */
    int64_t leak_detection_ns;          /* a tracked checkout of so long is reported; 0: none is */
    uint64_t random_seed;               /* for jitter */
    struct mgp_siphash_key hash_key;    /* of the key, endpoint and group tables */
};

/* Durations above this bound are clamped to it, so that sums of times cannot overflow. */
#define MGP_DURATION_MAX_NS (INT64_MAX / 16)

#endif
