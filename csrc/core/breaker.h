/* Circuit breaker of one endpoint.
 *
 *   CLOSED --threshold consecutive failures--> OPEN --reset time over, next trial--> HALF_OPEN
 *   OPEN, HALF_OPEN --any creation succeeds--> CLOSED
 *   HALF_OPEN --trial fails--> OPEN, for twice as long (with jitter, at most 10 times the base)
 *   HALF_OPEN --trial ends without a verdict--> OPEN, reset time over: the next may try
 *
 * Exactly one creation is the trial of a half-open breaker. It bars creations and nothing
 * else. Failures that come too late to count are not reported here: see endpoint.c.
 * Each function but the last two is one transition. No allocation, O(1). */
#ifndef MGP_CORE_BREAKER_H
#define MGP_CORE_BREAKER_H

#include <stdbool.h>
#include <stdint.h>

enum mgp_breaker_state { MGP_BREAKER_CLOSED, MGP_BREAKER_OPEN, MGP_BREAKER_HALF_OPEN };

/* A breaker stays open for at most this many times its base. */
#define MGP_BREAKER_MAX_BACKOFF 10

struct mgp_breaker {
    enum mgp_breaker_state state;
    uint32_t failures;       /* consecutive, since the last success */
    uint32_t backoff;        /* the open time is reset_ns * backoff, less jitter */
    int64_t open_until_ns;   /* valid while OPEN */
    int64_t last_failure_ns; /* valid while failures > 0 */
};

void mgp_breaker_init(struct mgp_breaker *breaker);

/* A creation begins; the breaker must permit it. True when it is the trial. */
bool mgp_breaker_begin(struct mgp_breaker *breaker);
/* A creation succeeded, whoever began it. True when this closed the breaker. */
bool mgp_breaker_succeed(struct mgp_breaker *breaker);
/* A creation failed in a way that counts. `jitter` in [0, 1) shortens a reopening
 * by up to a tenth. True when this opened, or reopened, the breaker. */
bool mgp_breaker_fail(struct mgp_breaker *breaker, bool is_trial, int64_t now_ns,
                      uint32_t threshold, int64_t reset_ns, double jitter);
/* A creation ended without a verdict about the endpoint. */
void mgp_breaker_undecided(struct mgp_breaker *breaker, bool is_trial, int64_t now_ns);

/* Whether new creations are refused now. */
bool mgp_breaker_refuses(const struct mgp_breaker *breaker, int64_t now_ns);
/* Whether it is OPEN or HALF_OPEN. */
bool mgp_breaker_is_open(const struct mgp_breaker *breaker);

#endif
