/* The circuit breaker of an endpoint, as callers meet it. Keys 1 ... 99 are of endpoint 0,
 * 101 ... 199 of endpoint 1. */
#include "circuit_helpers.h"

static void
threshold_of_failures_opens_the_circuit(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    for (int i = 0; i < THRESHOLD - 1; i++) {
        fail_to_open(1);
    }
    CHECK(breaker_of("endpoint-0", &view) && view.failures == THRESHOLD - 1 && !view.is_open);
    fail_to_open(2); /* of any key of the endpoint */
    CHECK(breaker_of("endpoint-0", &view) && view.failures == THRESHOLD && view.is_open);
    CHECK(view.open_until_ns == now_ns + RESET);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_acquire(3)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_CREATE); /* another endpoint */
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN)) == 2);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 1);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    pool_end();
}

static void
success_between_failures_keeps_the_circuit_closed(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    for (int i = 0; i < THRESHOLD - 1; i++) {
        fail_to_open(1);
    }
    (void)pool_open(1);
    CHECK(!breaker_of("endpoint-0", &view));
    for (int i = 0; i < THRESHOLD - 1; i++) {
        fail_to_open(1);
    }
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
callers_own_faults_do_not_count(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    for (int i = 0; i < 10 * THRESHOLD; i++) {
        struct caller *caller = pool_acquire(1);
        pool_create_failed(caller, MGP_FAULT_CALLER);
    }
    CHECK(!breaker_of("endpoint-0", &view));
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    CHECK(pool_total(MGP_WORD_CREATE_FAILURES) == 10 * THRESHOLD);
    pool_end();
}

static void
opening_has_the_idle_sessions_of_that_endpoint_checked_in_the_background(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);            /* s1 */
    (void)pool_open_idle(2);            /* s2 */
    (void)pool_open_idle(101);          /* s3, of another endpoint */
    struct caller *used = pool_open(3); /* s4, in use */
    trip(4);
    CHECK(mgp_pool_next_deadline(pool) <= now_ns);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    CHECK(mgp_pool_next_deadline(pool) == now_ns + SECOND / 10); /* checks_per_second */
    pool_advance(SECOND / 10);
    pool_upkeep();
    CHECK_EFFECTS("probe s2");
    pool_release(used, MGP_VERDICT_GOOD);
    pool_advance(SECOND / 10);
    pool_upkeep();
    CHECK_EFFECTS(""); /* it came back after the opening */
    pool_checked(pool_session(1), true);
    pool_checked(pool_session(2), false);
    CHECK_EFFECTS("close s2 circuit_breaker");
    CHECK(pool_evictions(MGP_EVICTION_CIRCUIT_BREAKER) == 1);
    CHECK(pool_total(MGP_WORD_HEALTH_CHECK_FAILURES) == 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    /* Those that answered serve again, which does not close the breaker. */
    CHECK(pool_try_acquire(1)->opened == pool_session(1));
    CHECK(pool_acquire(3)->opened == used->opened);
    CHECK(pool_acquire(4)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    pool_end();
}

static void
each_opening_makes_suspects_anew(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);
    trip(4);
    pool_upkeep();
    pool_checked(pool_session(1), true);
    pool_advance(RESET);
    pool_upkeep();
    CHECK_EFFECTS("probe s1, probe s1"); /* that of the health interval */
    pool_checked(pool_session(1), true);
    struct caller *trial = pool_acquire(4);
    pool_create_failed(trial, MGP_FAULT_ENDPOINT);
    CHECK(pool_try_acquire(1) == NULL);
    pool_advance(SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_end();
}

static void
without_background_checks_suspects_are_checked_at_hand_out(void)
{
    struct mgp_config config = pool_config();
    config.checks_per_second = 0;
    pool_start(config);
    (void)pool_open_idle(1);
    trip(4);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_end();
}

static void
suspect_is_checked_for_a_caller_before_its_turn_in_the_background(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);
    trip(4);
    CHECK(pool_try_acquire(1) == NULL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c8 */
    CHECK_EFFECTS("probe s1");
    pool_upkeep();
    pool_checked(pool_session(1), true);
    CHECK_EFFECTS("grant c8");
    pool_end();
}

static void
caller_whose_suspects_all_fail_is_refused_then(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_advance(1);
    pool_release(c2, MGP_VERDICT_GOOD);
    trip(4);
    struct caller *c9 = pool_acquire(1);
    CHECK(c9->number == 9 && c9->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s2");
    pool_checked(pool_session(2), false);
    CHECK_EFFECTS("close s2 circuit_breaker, probe s1"); /* its place would be of no use */
    pool_checked(pool_session(1), false);
    CHECK_EFFECTS("close s1 circuit_breaker, fail c9 circuit_open");
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
caller_who_finds_only_sessions_that_are_over_is_refused_at_once(void)
{
    struct mgp_config config = pool_config();
    config.idle_timeout_ns = 10 * SECOND;
    pool_start(config);
    (void)pool_open_idle(1);
    trip(4);
    pool_advance(10 * SECOND);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK_EFFECTS("close s1 idle_timeout");
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN)) == 2);
    pool_end();
}

static void
waiters_of_keys_with_nothing_active_fail_at_once(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *active = pool_open(1);              /* c1 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2: waits for c1 */
    struct caller *creating = pool_acquire(2);         /* c3 */
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c4: nothing active */
    struct caller *closing = pool_open(3);             /* c5 */
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_WAIT); /* c6: waits for the close */
    pool_release(closing, MGP_VERDICT_DISCARD);
    CHECK_EFFECTS("close s2 manual");
    trip(4);
    CHECK_EFFECTS("fail c4 circuit_open, fail c6 circuit_open");
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN)) == 3);
    pool_release(active, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_create_failed(creating, MGP_FAULT_ENDPOINT);
    CHECK_EFFECTS("");
    pool_end();
}

static void
releases_go_to_waiters_while_it_is_open(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    struct caller *c3 = pool_acquire(1), *c4 = pool_acquire(1);
    trip(2);
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(c3->opened == c1->opened);
    /* Nothing is created in place of one that broke; and when nothing is active any more,
     * who still waits fails. */
    pool_release(c3, MGP_VERDICT_BROKEN);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s1 broken, gone s1");
    pool_release(c2, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s2 broken, fail c4 circuit_open");
    CHECK(c4->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
waiter_whose_session_is_under_a_check_waits_on_while_it_is_open(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(60 * SECOND);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    trip(2);
    CHECK_EFFECTS("");
    pool_checked(s1, true);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");

    pool_advance(RESET);
    c2 = pool_acquire(1);
    CHECK_EFFECTS("probe s1");
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE); /* the trial */
    pool_checked(s1, false);
    CHECK_EFFECTS("close s1 health_check, fail c9 circuit_open");
    pool_end();
}

static void
half_open_lets_exactly_one_try(void)
{
    pool_start(pool_config());
    trip(1);
    pool_advance(RESET - 1);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_advance(1);
    struct caller *trial = pool_acquire(1);
    CHECK(trial->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_acquire(2)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_advance(1000 * SECOND);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    pool_create(trial);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
failed_trial_opens_it_again_for_twice_as_long(void)
{
    static const int64_t backoffs[] = {2, 4, 8, 10, 10};
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    trip(1);
    for (size_t i = 0; i < sizeof(backoffs) / sizeof(backoffs[0]); i++) {
        CHECK(breaker_of("endpoint-0", &view) && view.is_open);
        pool_advance(view.open_until_ns - now_ns);
        fail_to_open(1);
        CHECK(breaker_of("endpoint-0", &view) && view.is_open);
        CHECK(view.open_until_ns <= now_ns + backoffs[i] * RESET);
        CHECK(view.open_until_ns >= now_ns + backoffs[i] * RESET * 9 / 10);
        CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 2 + i);
        CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    }
    pool_end();
}

static void
trial_without_a_verdict_lets_the_next_try(void)
{
    pool_start(pool_config());
    trip(1);
    pool_advance(RESET);
    struct caller *trial = pool_acquire(1);
    pool_create_failed(trial, MGP_FAULT_CALLER);
    trial = pool_acquire(2);
    CHECK(trial->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 1);
    pool_end();
}

static void
trial_that_was_granted_but_cancelled_lets_the_next_try(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_open(2);
    struct caller *c3 = pool_acquire(1), *c4 = pool_acquire(2);
    trip(3);
    pool_advance(RESET);
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1, grant c3"); /* the trial */
    pool_release(c2, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s2 broken, fail c4 circuit_open");
    pool_cancel(c3, MGP_CANCEL_BY_TIMEOUT);
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_CREATE);
    CHECK(c4->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
unwanted_trial_still_decides(void)
{
    pool_start(pool_config());
    trip(1);
    pool_advance(RESET);
    struct caller *trial = pool_acquire(1);
    pool_unwanted(trial);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    struct opened *opened = pool_created(trial);
    CHECK(pool_acquire(1)->opened == opened);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    pool_end();
}

static void
failure_that_began_before_the_opening_does_not_count(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    struct caller *early = pool_acquire(1);
    trip(2);
    pool_create_failed(early, MGP_FAULT_ENDPOINT);
    CHECK(breaker_of("endpoint-0", &view) && view.failures == THRESHOLD);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 1);
    pool_end();
}

static void
failure_that_began_before_the_newest_success_does_not_count(void)
{
    struct mgp_endpoint_view view;
    struct mgp_config config = pool_config();
    config.breaker_threshold = 1;
    pool_start(config);
    struct caller *early = pool_acquire(1);
    (void)pool_open(1);
    struct caller *later = pool_acquire(1);
    pool_create_failed(early, MGP_FAULT_ENDPOINT);
    CHECK(!breaker_of("endpoint-0", &view));
    pool_create_failed(later, MGP_FAULT_ENDPOINT);
    CHECK(breaker_of("endpoint-0", &view) && view.is_open);
    pool_end();
}

static void
success_closes_it_whoever_began_it(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    struct caller *early = pool_acquire(1);
    struct caller *other = pool_acquire(1);
    trip(2);
    pool_create(early);
    CHECK(!breaker_of("endpoint-0", &view));
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    trip(2);
    pool_advance(RESET);
    struct caller *trial = pool_acquire(2);
    CHECK(trial->answer == MGP_ANSWER_CREATE);
    pool_create(other); /* while half-open */
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_CREATE);
    pool_create_failed(trial, MGP_FAULT_ENDPOINT); /* it began before that */
    CHECK(!breaker_of("endpoint-0", &view));
    pool_end();
}

static void
trial_of_before_decides_nothing_about_a_later_one(void)
{
    pool_start(pool_config());
    struct caller *early = pool_acquire(1);
    trip(2);
    pool_advance(RESET);
    struct caller *first = pool_acquire(2);
    CHECK(first->answer == MGP_ANSWER_CREATE);
    pool_create(early); /* closes it */
    trip(3);
    pool_advance(RESET);
    struct caller *second = pool_acquire(2);
    CHECK(second->answer == MGP_ANSWER_CREATE);
    pool_create_failed(first, MGP_FAULT_CALLER);
    CHECK(pool_acquire(2)->status == MGP_ERR_CIRCUIT_OPEN); /* the second still tries */
    pool_create(second);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
sessions_of_before_serve_while_it_is_open(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    trip(2);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(pool_view(1).idle == 1);
    struct caller *c8 = pool_try_acquire(1);
    CHECK(c8 != NULL && c8->opened == c1->opened);
    struct caller *c9 = pool_acquire(1); /* one is in use, and will come back */
    CHECK(c9->answer == MGP_ANSWER_WAIT);
    CHECK(pool_acquire(2)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_release(c8, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c9");
    pool_take(c9);
    pool_release(c9, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s1 broken");
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
waiter_is_let_try_as_soon_as_the_time_is_over(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(1); /* c2 */
    struct caller *c3 = pool_acquire(1);
    trip(2);
    pool_upkeep();
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1"); /* there is a place, but the breaker is open */
    CHECK(mgp_pool_next_deadline(pool) == now_ns + RESET);
    pool_advance(RESET);
    pool_upkeep();
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(3)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
waiters_of_all_keys_may_create_when_it_closes(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(1); /* c2 */
    struct caller *c3 = pool_open(2);
    (void)pool_open(2); /* c4 */
    CHECK(pool_acquire(1)->number == 5 && pool_acquire(2)->number == 6);
    trip(3);
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    pool_release(c3, MGP_VERDICT_BROKEN);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s1 broken, gone s1, close s3 broken, gone s3");
    pool_advance(RESET);
    pool_upkeep();
    CHECK_EFFECTS("grant c5"); /* the trial */
    struct caller *trial = pool_caller(5);
    pool_take(trial);
    pool_create(trial);
    CHECK_EFFECTS("grant c6");
    pool_end();
}

static void
breaker_that_is_open_for_no_time_lets_the_oldest_waiter_try_at_once(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    config.max_creating_per_endpoint = 1;
    config.breaker_threshold = 1;
    config.breaker_reset_ns = 0;
    pool_start(config);
    struct caller *active = pool_open(1);   /* c1 */
    struct caller *full = pool_acquire(1);  /* c2: waits for c1 */
    struct caller *first = pool_acquire(3); /* c3 */
    struct caller *next = pool_acquire(2);  /* c4: could create as soon as c3 has ended */
    CHECK(full->answer == MGP_ANSWER_WAIT && next->answer == MGP_ANSWER_WAIT);
    pool_create_failed(first, MGP_FAULT_ENDPOINT);
    CHECK_EFFECTS("grant c4"); /* and key 2 has no queue any more, while the queues are walked */
    pool_release(active, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
no_victim_is_closed_for_waiters_that_an_open_breaker_refuses(void)
{
    struct mgp_config config = pool_config();
    config.max_total_sessions = 3;
    config.breaker_threshold = 1;
    pool_start(config);
    (void)pool_open(1); /* c1 */
    struct caller *c2 = pool_open(101);
    struct caller *c3 = pool_acquire(2);
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_WAIT); /* c4 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);   /* c5 */
    pool_create_failed(c3, MGP_FAULT_ENDPOINT);
    CHECK_EFFECTS("grant c4");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS(""); /* c5 could not use its place */
    CHECK(pool_view(101).idle == 1);
    pool_end();
}

int
main(void)
{
    RUN(threshold_of_failures_opens_the_circuit);
    RUN(success_between_failures_keeps_the_circuit_closed);
    RUN(callers_own_faults_do_not_count);
    RUN(opening_has_the_idle_sessions_of_that_endpoint_checked_in_the_background);
    RUN(each_opening_makes_suspects_anew);
    RUN(without_background_checks_suspects_are_checked_at_hand_out);
    RUN(suspect_is_checked_for_a_caller_before_its_turn_in_the_background);
    RUN(caller_whose_suspects_all_fail_is_refused_then);
    RUN(caller_who_finds_only_sessions_that_are_over_is_refused_at_once);
    RUN(waiters_of_keys_with_nothing_active_fail_at_once);
    RUN(releases_go_to_waiters_while_it_is_open);
    RUN(waiter_whose_session_is_under_a_check_waits_on_while_it_is_open);
    RUN(half_open_lets_exactly_one_try);
    RUN(failed_trial_opens_it_again_for_twice_as_long);
    RUN(trial_without_a_verdict_lets_the_next_try);
    RUN(trial_that_was_granted_but_cancelled_lets_the_next_try);
    RUN(unwanted_trial_still_decides);
    RUN(failure_that_began_before_the_opening_does_not_count);
    RUN(failure_that_began_before_the_newest_success_does_not_count);
    RUN(success_closes_it_whoever_began_it);
    RUN(trial_of_before_decides_nothing_about_a_later_one);
    RUN(sessions_of_before_serve_while_it_is_open);
    RUN(waiter_is_let_try_as_soon_as_the_time_is_over);
    RUN(waiters_of_all_keys_may_create_when_it_closes);
    RUN(breaker_that_is_open_for_no_time_lets_the_oldest_waiter_try_at_once);
    RUN(no_victim_is_closed_for_waiters_that_an_open_breaker_refuses);
    return harness_end();
}
