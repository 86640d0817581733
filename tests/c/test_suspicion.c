/* Suspicion: sessions whose endpoint may have lost them, and those in doubt. */
#include "upkeep_helpers.h"

static void
after_suspicion_each_older_idle_session_is_checked_once_before_its_next_hand_out(void)
{
    pool_start(config_per_key(3));
    open_idle_sessions(1, 3);
    (void)pool_open_idle(101); /* s4, of another endpoint */
    struct caller *c5 = pool_acquire(1);
    CHECK(c5->opened->number == 3);
    pool_suspect(c5->opened);
    pool_upkeep();
    CHECK_EFFECTS(""); /* none is closed unchecked */
    CHECK(pool_try_acquire(101) != NULL);
    CHECK(pool_try_acquire(1) == NULL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c7 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c8 */
    CHECK_EFFECTS("probe s2, probe s1");
    pool_checked(pool_session(1), true);
    CHECK_EFFECTS("grant c7");
    pool_checked(pool_session(2), true);
    CHECK_EFFECTS("grant c8");
    pool_end();
}

static void
session_that_passed_after_suspicion_is_not_checked_again(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_suspect(s1);
    struct caller *c2 = pool_acquire(1);
    CHECK_EFFECTS("probe s1");
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK(pool_try_acquire(1)->opened == s1);
    pool_end();
}

static void
suspicion_during_a_check_asks_for_another(void)
{
    pool_start(config_per_key(1));
    struct opened *s1 = pool_open_idle(1);
    pool_suspect(s1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2 */
    CHECK_EFFECTS("probe s1");
    pool_suspect(s1);
    pool_checked(s1, true);
    CHECK_EFFECTS("probe s1");
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
session_in_use_during_suspicion_is_checked_when_it_comes_back(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    pool_suspect(c1->opened);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2 */
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("probe s1");
    pool_checked(c1->opened, true);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
session_opened_after_suspicion_comes_before_those_that_need_a_check(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    struct caller *c2 = pool_acquire(1);
    struct caller *c3 = pool_open(1);
    pool_suspect(s1);
    struct caller *c4 = pool_open(1);
    pool_release(c4, MGP_VERDICT_GOOD);
    pool_advance(SECOND);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK(pool_try_acquire(1)->opened == c4->opened);
    CHECK_EFFECTS("");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_end();
}

static void
doubted_session_alone_is_checked_before_its_next_hand_out(void)
{
    pool_start(config_per_key(3));
    open_idle_sessions(1, 3);
    pool_doubt(pool_session(3));
    CHECK(pool_try_acquire(1) == NULL);
    CHECK(pool_acquire(1)->opened->number == 2);
    CHECK(pool_acquire(1)->opened->number == 1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c6 */
    CHECK_EFFECTS("probe s3");
    pool_checked(pool_session(3), true);
    CHECK_EFFECTS("grant c6");
    pool_end();
}

static void
session_doubted_in_use_is_checked_when_it_comes_back(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    pool_doubt(c1->opened);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2 */
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("probe s1");
    pool_doubt(c1->opened); /* during the check, too */
    pool_checked(c1->opened, true);
    CHECK_EFFECTS("probe s1");
    pool_checked(c1->opened, true);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
longer_lease_of_a_shared_session_does_not_make_it_suspect_again(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.max_leases_per_session = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    pool_suspect(c1->opened);
    struct caller *c2 = pool_acquire(1); /* leased, and used with success, after that */
    CHECK(c2->opened == c1->opened);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(pool_try_acquire(1) != NULL);
    pool_end();
}

static void
without_background_checks_a_session_is_checked_at_hand_out_alone(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.checks_per_second = 0;
    pool_start(config);
    open_idle_sessions(1, 1);
    for (int i = 0; i < 3; i++) {
        pool_advance(INTERVAL);
        pool_upkeep();
        CHECK_EFFECTS("");
    }
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_end();
}

int
main(void)
{
    RUN(after_suspicion_each_older_idle_session_is_checked_once_before_its_next_hand_out);
    RUN(session_that_passed_after_suspicion_is_not_checked_again);
    RUN(suspicion_during_a_check_asks_for_another);
    RUN(session_in_use_during_suspicion_is_checked_when_it_comes_back);
    RUN(session_opened_after_suspicion_comes_before_those_that_need_a_check);
    RUN(doubted_session_alone_is_checked_before_its_next_hand_out);
    RUN(session_doubted_in_use_is_checked_when_it_comes_back);
    RUN(longer_lease_of_a_shared_session_does_not_make_it_suspect_again);
    RUN(without_background_checks_a_session_is_checked_at_hand_out_alone);
    return harness_end();
}
