/* Sessions that are healthy, but not wanted any more. */
#include "pool_fixture.h"

#define INTERVAL (60 * SECOND)

static struct mgp_config
config_long_lived(void)
{
    struct mgp_config config = pool_config();
    config.lifetime_ns = 100000 * SECOND;
    return config;
}

static void
retired_idle_session_is_closed_at_once(void)
{
    pool_start(config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_retire(s1);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(s1);
    pool_end();
}

static void
retired_session_in_use_is_closed_when_its_last_lease_ends_and_not_handed_out_before(void)
{
    struct mgp_config config = config_long_lived();
    config.max_sessions_per_key = 1;
    config.max_leases_per_session = 3;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    CHECK(c2->opened == c1->opened);
    pool_retire(c1->opened);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(c1->opened);
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
retired_session_under_a_check_is_closed_after_it(void)
{
    pool_start(config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_retire(s1);
    CHECK_EFFECTS("");
    pool_checked(s1, true);
    CHECK_EFFECTS("close s1 manual");
    pool_end();
}

int
main(void)
{
    RUN(retired_idle_session_is_closed_at_once);
    RUN(retired_session_in_use_is_closed_when_its_last_lease_ends_and_not_handed_out_before);
    RUN(retired_session_under_a_check_is_closed_after_it);
    return harness_end();
}
