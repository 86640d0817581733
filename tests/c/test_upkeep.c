/* Upkeep: lifetimes, idle time-outs, health checks, and the deadlines of all that. */
#include "upkeep_helpers.h"

/* ---- lifetime and idle time-out ------------------------------------------------ */

static void
nothing_is_ever_due_in_an_empty_pool(void)
{
    pool_start(pool_config());
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_upkeep();
    struct caller *c1 = pool_acquire(1);
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_create_failed(c1, MGP_FAULT_CALLER);
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_end();
}

static void
idle_session_is_closed_when_its_lifetime_is_over(void)
{
    struct mgp_config config = pool_config();
    config.health_interval_ns = 1000 * SECOND;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + LIFETIME);
    pool_advance(LIFETIME - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_advance(1);
    pool_upkeep();
    CHECK_EFFECTS("close s1 ttl_expired");
    CHECK(pool_counts().sessions_reaped == 1);
    pool_close_ended(s1);
    CHECK(pool_counts().keys == 0);
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_end();
}

static void
lifetimes_of_sessions_made_together_differ_by_the_jitter(void)
{
    struct mgp_config config = pool_config();
    config.lifetime_jitter = 0.1;
    config.max_sessions_per_key = 100;
    pool_start(config);
    int64_t least_ns = INT64_MAX, most_ns = 0;
    for (int i = 0; i < 100; i++) {
        struct mgp_session_times times;
        mgp_session_read_times(pool_open(1)->opened->session, &times);
        int64_t lifetime_ns = times.expires_ns - times.created_ns;
        least_ns = lifetime_ns < least_ns ? lifetime_ns : least_ns;
        most_ns = lifetime_ns > most_ns ? lifetime_ns : most_ns;
    }
    CHECK(least_ns >= LIFETIME * 9 / 10 && least_ns < LIFETIME * 91 / 100);
    CHECK(most_ns <= LIFETIME && most_ns > LIFETIME * 99 / 100);
    pool_end();
}

static void
session_in_use_outlives_its_lifetime_until_it_comes_back(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_advance(2 * LIFETIME);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_end();
}

static void
session_unused_for_the_idle_timeout_is_closed_least_recently_used_first(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.health_interval_ns = 10000 * SECOND;
    pool_start(config);
    (void)pool_open_idle(1); /* s1 */
    pool_advance(100 * SECOND);
    struct opened *s2 = pool_open_idle(2);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + 500 * SECOND);
    pool_advance(499 * SECOND);
    pool_release(pool_acquire(1), MGP_VERDICT_GOOD); /* s1 is used again */
    pool_advance(101 * SECOND - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_advance(1);
    pool_upkeep();
    CHECK_EFFECTS("close s2 idle_timeout");
    CHECK(pool_counts().sessions_reaped == 1 && pool_evictions(MGP_EVICTION_IDLE_TIMEOUT) == 1);
    pool_close_ended(s2);
    CHECK(pool_counts().keys == 1);
    pool_end();
}

static void
idle_timeout_of_zero_still_hands_over_to_waiters(void)
{
    struct mgp_config config = config_per_key(1);
    config.idle_timeout_ns = 0;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_upkeep();
    CHECK_EFFECTS("close s1 idle_timeout");
    pool_end();
}

static void
work_is_done_in_slices_of_the_budget(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 100;
    pool_start(config);
    open_idle_sessions(1, 100);
    pool_advance(LIFETIME);
    for (size_t closed = 1; closed <= 100; closed++) {
        bool has_more = pool_upkeep_step();
        CHECK(has_more == (closed < 100));
        CHECK(pool_counts().closing == closed);
    }
    CHECK(!mgp_pool_upkeep(pool, now_ns, 0));
    pool_end();
}

/* ---- background checks ----------------------------------------------------------- */

static void
idle_session_is_checked_at_the_health_interval(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + INTERVAL);
    pool_advance(INTERVAL - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_advance(1);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    CHECK(pool_view(1).checking == 1 && pool_view(1).idle == 0);
    CHECK(pool_total(MGP_WORD_SIZE) == 1 && pool_total(MGP_WORD_ACTIVE_SESSIONS) == 0);
    CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == 1);
    pool_advance(SECOND);
    pool_checked(s1, true);
    CHECK_EFFECTS("");
    CHECK(pool_view(1).idle == 1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + INTERVAL);
    CHECK(pool_try_acquire(1)->opened == s1);
    CHECK(pool_total(MGP_WORD_HEALTH_CHECK_FAILURES) == 0);
    pool_end();
}

static void
session_that_fails_its_check_is_closed(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    pool_upkeep();
    pool_checked(s1, false);
    CHECK_EFFECTS("probe s1, close s1 health_check");
    CHECK(pool_total(MGP_WORD_HEALTH_CHECK_FAILURES) == 1);
    CHECK(pool_evictions(MGP_EVICTION_HEALTH_CHECK) == 1);
    CHECK(pool_counts().sessions_reaped == 0);
    pool_end();
}

static void
only_keys_used_within_two_intervals_are_checked(void)
{
    pool_start(pool_config_long_lived());
    (void)pool_open_idle(1); /* s1 */
    (void)pool_open_idle(2); /* s2 */
    struct opened *s2 = pool_session(2);
    pool_advance(INTERVAL - 1);
    pool_release(pool_acquire(2), MGP_VERDICT_GOOD);
    pool_advance(INTERVAL + 1);
    pool_upkeep();
    CHECK_EFFECTS("probe s2"); /* nobody uses key 1 any more */
    CHECK(pool_view(1).idle == 1);
    pool_checked(s2, true);
    /* But whoever comes back to it gets a session that was checked. */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_end();
}

static void
background_checks_are_rate_limited(void)
{
    struct mgp_config config = config_per_key(100);
    config.checks_per_second = 4;
    pool_start(config);
    open_idle_sessions(1, 10);
    pool_advance(INTERVAL);
    for (uint64_t checks = 1; checks <= 10; checks++) {
        pool_upkeep();
        CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == checks);
        if (checks < 10) {
            CHECK(mgp_pool_next_deadline(pool) == now_ns + SECOND / 4);
        }
        pool_advance(SECOND / 4 - 1);
        pool_upkeep();
        CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == checks);
        pool_advance(1);
    }
    pool_end();
}

static void
check_is_no_use_of_a_session(void)
{
    struct mgp_session_times times;
    pool_start(pool_config_long_lived());
    int64_t start_ns = now_ns;
    struct opened *s1 = pool_open_idle(1);
    for (int i = 0; i < 3; i++) {
        pool_advance(INTERVAL);
        pool_upkeep();
        CHECK_EFFECTS(i < 1 ? "probe s1" : "");
        if (i < 1) {
            pool_checked(s1, true);
        }
    }
    /* It was no use of the key either: that was not used for two intervals. */
    mgp_session_read_times(s1->session, &times);
    CHECK(times.last_used_ns == start_ns);
    pool_end();
}

static void
checks_do_not_keep_an_unused_session_from_its_idle_timeout(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.idle_timeout_ns = 3 * INTERVAL;
    pool_start(config);
    open_idle_sessions(1, 2);
    for (int i = 0; i < 3; i++) {
        for (int half = 0; half < 2; half++) {
            pool_advance(INTERVAL / 2);
            struct caller *caller = pool_acquire(1);
            CHECK(caller->opened->number == 2);
            pool_release(caller, MGP_VERDICT_GOOD);
        }
        pool_upkeep();
        if (i < 2) {
            CHECK_EFFECTS("probe s1");
            pool_checked(pool_session(1), true);
        }
    }
    CHECK_EFFECTS("close s1 idle_timeout");
    pool_end();
}

static void
checked_session_does_not_come_before_more_recently_used_ones(void)
{
    pool_start(pool_config_long_lived());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1), *c3 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_advance(SECOND);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_advance(10 * SECOND);
    pool_release(c3, MGP_VERDICT_GOOD);
    pool_advance(INTERVAL - 10 * SECOND);
    pool_upkeep(); /* s1 and s2 are due, one after the other */
    pool_advance(SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1, probe s2");
    pool_checked(c2->opened, true);
    pool_checked(c1->opened, true);
    CHECK(pool_acquire(1)->opened == c3->opened);
    CHECK(pool_acquire(1)->opened == c2->opened);
    CHECK(pool_acquire(1)->opened == c1->opened);
    pool_end();
}

static void
session_that_needs_a_check_does_not_hide_a_fresh_one(void)
{
    pool_start(pool_config_long_lived());
    open_idle_sessions(1, 2);
    pool_advance(INTERVAL);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_checked(pool_session(1), true);
    /* s2 was used more recently, but nobody looked at it for too long. */
    CHECK(pool_acquire(1)->opened->number == 1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s2");
    pool_end();
}

static void
idle_timeout_during_a_check_is_acted_on_after_it(void)
{
    struct mgp_config config = pool_config_long_lived();
    config.idle_timeout_ns = INTERVAL + SECOND;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_advance(2 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_checked(s1, true);
    CHECK(mgp_pool_next_deadline(pool) <= now_ns);
    pool_upkeep();
    CHECK_EFFECTS("close s1 idle_timeout");
    pool_end();
}

static void
lifetime_that_ends_during_a_check_closes_the_session_after_it(void)
{
    struct mgp_config config = pool_config();
    config.lifetime_ns = INTERVAL + SECOND;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    pool_upkeep();
    pool_advance(SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_checked(s1, true);
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_end();
}

/* ---- checks at hand-out ------------------------------------------------------------ */

static void
session_not_checked_in_time_is_checked_at_hand_out(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    CHECK(pool_try_acquire(1) == NULL);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    CHECK(c2->opened == s1 && pool_total(MGP_WORD_HITS) == 1);
    pool_end();
}

static void
caller_with_a_failed_check_creates_instead_of_trying_all_idle_sessions(void)
{
    pool_start(pool_config_long_lived());
    open_idle_sessions(1, 5);
    pool_advance(INTERVAL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c6 */
    CHECK_EFFECTS("probe s5");
    pool_checked(pool_session(5), false);
    CHECK_EFFECTS("close s5 health_check, grant c6");
    CHECK(pool_view(1).creating == 1 && pool_view(1).checking == 0);
    pool_end();
}

static void
caller_with_a_failed_check_in_a_full_key_waits_for_the_place_of_that_session(void)
{
    pool_start(config_per_key(5));
    open_idle_sessions(1, 5);
    pool_advance(INTERVAL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c6 */
    CHECK_EFFECTS("probe s5");
    pool_checked(pool_session(5), false);
    CHECK_EFFECTS("close s5 health_check");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c7: its own check */
    CHECK_EFFECTS("probe s4");
    pool_close_ended(pool_session(5));
    CHECK_EFFECTS("gone s5, grant c6");
    pool_checked(pool_session(4), true);
    CHECK_EFFECTS("grant c7");
    pool_end();
}

static void
each_waiter_gets_a_check_of_its_own(void)
{
    pool_start(config_per_key(3));
    open_idle_sessions(1, 3);
    pool_advance(INTERVAL);
    for (int i = 0; i < 4; i++) {
        CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    }
    CHECK_EFFECTS("probe s3, probe s2, probe s1");
    CHECK(pool_view(1).waiters == 4 && pool_view(1).creating == 0);
    pool_end();
}

static void
oldest_waiter_gets_the_first_session_that_passes(void)
{
    pool_start(pool_config_long_lived());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2 */
    CHECK_EFFECTS("probe s1");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c3: a place, which the oldest takes */
    CHECK_EFFECTS("grant c2");
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c3");
    pool_end();
}

static void
released_session_does_not_wait_for_the_check_of_another(void)
{
    pool_start(config_per_key(2));
    struct opened *s1 = pool_open_idle(1);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->opened == s1);
    struct caller *c3 = pool_open(1);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_advance(INTERVAL);
    struct caller *c4 = pool_acquire(1);
    CHECK_EFFECTS("probe s1");
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c4");
    pool_take(c4);
    CHECK(c4->opened == c3->opened);
    pool_checked(s1, true);
    CHECK(pool_view(1).idle == 1);
    pool_end();
}

static void
cancelled_waiters_check_goes_on_for_the_next(void)
{
    pool_start(config_per_key(1));
    struct opened *s1 = pool_open_idle(1);
    pool_advance(INTERVAL);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    CHECK_EFFECTS("probe s1");
    pool_cancel(c2, MGP_CANCEL_BY_TIMEOUT);
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c3");
    pool_cancel(c3, MGP_CANCEL_BY_CALLER);
    CHECK(pool_view(1).idle == 1);
    CHECK(pool_try_acquire(1) != NULL);
    pool_end();
}

static void
expired_session_is_closed_not_checked(void)
{
    struct mgp_config config = config_per_key(2);
    config.lifetime_ns = LIFETIME;
    pool_start(config);
    open_idle_sessions(1, 2);
    pool_advance(INTERVAL);
    struct caller *c3 = pool_acquire(1);
    CHECK_EFFECTS("probe s2");
    pool_advance(LIFETIME);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c4 */
    CHECK_EFFECTS("close s1 ttl_expired");
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    pool_end();
}

static void
with_an_interval_of_zero_each_hand_out_of_an_idle_session_is_checked(void)
{
    struct mgp_config config = config_per_key(1);
    config.health_interval_ns = 0;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    for (int i = 0; i < 3; i++) {
        CHECK(pool_try_acquire(1) == NULL);
        struct caller *first = pool_acquire(1);
        CHECK(first->answer == MGP_ANSWER_WAIT);
        pool_checked(s1, true);
        CHECK(first->is_granted);
        pool_take(first);
        struct caller *second = pool_acquire(1);
        pool_release(first, MGP_VERDICT_GOOD); /* handed over, not idle */
        CHECK(second->is_granted);
        pool_take(second);
        pool_release(second, MGP_VERDICT_GOOD);
    }
    CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == 3);
    pool_upkeep();
    CHECK(pool_total(MGP_WORD_HEALTH_CHECKS) == 3); /* nor in the background */
    pool_end();
}

int
main(void)
{
    RUN(nothing_is_ever_due_in_an_empty_pool);
    RUN(idle_session_is_closed_when_its_lifetime_is_over);
    RUN(lifetimes_of_sessions_made_together_differ_by_the_jitter);
    RUN(session_in_use_outlives_its_lifetime_until_it_comes_back);
    RUN(session_unused_for_the_idle_timeout_is_closed_least_recently_used_first);
    RUN(idle_timeout_of_zero_still_hands_over_to_waiters);
    RUN(work_is_done_in_slices_of_the_budget);
    RUN(idle_session_is_checked_at_the_health_interval);
    RUN(session_that_fails_its_check_is_closed);
    RUN(only_keys_used_within_two_intervals_are_checked);
    RUN(background_checks_are_rate_limited);
    RUN(check_is_no_use_of_a_session);
    RUN(checks_do_not_keep_an_unused_session_from_its_idle_timeout);
    RUN(checked_session_does_not_come_before_more_recently_used_ones);
    RUN(session_that_needs_a_check_does_not_hide_a_fresh_one);
    RUN(idle_timeout_during_a_check_is_acted_on_after_it);
    RUN(lifetime_that_ends_during_a_check_closes_the_session_after_it);
    RUN(session_not_checked_in_time_is_checked_at_hand_out);
    RUN(caller_with_a_failed_check_creates_instead_of_trying_all_idle_sessions);
    RUN(caller_with_a_failed_check_in_a_full_key_waits_for_the_place_of_that_session);
    RUN(each_waiter_gets_a_check_of_its_own);
    RUN(oldest_waiter_gets_the_first_session_that_passes);
    RUN(released_session_does_not_wait_for_the_check_of_another);
    RUN(cancelled_waiters_check_goes_on_for_the_next);
    RUN(expired_session_is_closed_not_checked);
    RUN(with_an_interval_of_zero_each_hand_out_of_an_idle_session_is_checked);
    return harness_end();
}
