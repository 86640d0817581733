/* Sessions that are healthy, but not wanted any more. */
#include "pool_fixture.h"

#define INTERVAL (60 * SECOND)

static void
retired_idle_session_is_closed_at_once(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_retire(s1);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(s1);
    pool_end();
}

static void
retired_session_in_use_is_closed_when_its_last_lease_ends_and_not_handed_out_before(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.max_sessions_per_key = 1;
    config.max_leases_per_session = 3;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    CHECK(c2->opened == c1->opened);
    pool_retire(c1->opened);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(c1->opened);
    pool_create(c3);
    pool_end();
}

static void
retired_session_keeps_no_place_of_its_key_from_its_first_moment_to_its_last(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_WAIT);
    pool_retire(c1->opened);
    CHECK_EFFECTS("grant c2"); /* a place */
    pool_take(c2);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* the new session does take it */
    pool_create(c2);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    CHECK(pool_counts().closing == 1);
    pool_retire(c2->opened); /* an old one that closes for ever is in nobody's way */
    CHECK_EFFECTS("grant c3");
    pool_close_ended(c1->opened);
    pool_end();
}

static void
retired_session_counts_in_the_pool_until_it_is_closed(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.max_sessions_per_key = 1;
    config.max_total_sessions = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_WAIT);
    pool_retire(c1->opened);
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c2");
    pool_end();
}

static void
retired_session_under_a_check_is_closed_after_it(void)
{
    pool_start(pool_config_long_lived());
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
    RUN(retired_session_keeps_no_place_of_its_key_from_its_first_moment_to_its_last);
    RUN(retired_session_counts_in_the_pool_until_it_is_closed);
    RUN(retired_session_under_a_check_is_closed_after_it);
    return harness_end();
}
