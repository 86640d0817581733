/* Durations without end: whoever wants a session to live for ever says so with the largest number. */
#include "pool_fixture.h"

#define YEAR (INT64_C(365) * 24 * 3600 * SECOND)

static struct mgp_config
endless(void)
{
    struct mgp_config config = pool_config();
    config.breaker_threshold = 1;
    config.breaker_reset_ns = INT64_MAX;
    config.lifetime_ns = INT64_MAX;
    config.idle_timeout_ns = INT64_MAX;
    config.health_interval_ns = INT64_MAX;
    return config;
}

static void
session_of_endless_durations_is_never_due(void)
{
    pool_start(endless());
    struct caller *c1 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    for (int round = 0; round < 2; round++) {
        pool_advance(5 * YEAR);
        pool_upkeep();
        CHECK_EFFECTS("");
        struct caller *again = pool_acquire(1);
        CHECK(again->answer == MGP_ANSWER_SESSION && again->opened == c1->opened);
        pool_release(again, MGP_VERDICT_GOOD);
    }
    pool_end();
}

static void
breaker_of_an_endless_reset_stays_open(void)
{
    pool_start(endless());
    struct caller *c1 = pool_acquire(1);
    pool_create_failed(c1, MGP_FAULT_ENDPOINT);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 1);
    pool_advance(10 * YEAR);
    pool_upkeep();
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
endless_durations_may_come_later(void)
{
    struct mgp_config config = endless();
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    mgp_pool_configure(pool, &config);
    pool_release(c1, MGP_VERDICT_GOOD);
    struct opened *idle = pool_open_idle(2);
    pool_advance(3600 * SECOND);
    pool_upkeep();
    CHECK(pool_view(2).idle == 1 && idle->gone == 0);
    pool_end();
}

int
main(void)
{
    RUN(session_of_endless_durations_is_never_due);
    RUN(breaker_of_an_endless_reset_stays_open);
    RUN(endless_durations_may_come_later);
    return harness_end();
}
