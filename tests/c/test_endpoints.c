/* What is remembered of an endpoint, and for how long; what others saw of it. Keys 1 ... 99 are of
 * endpoint 0, 101 ... 199 of endpoint 1. */
#include "circuit_helpers.h"

static void
failures_are_remembered_without_a_key_and_forgotten_in_time(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    fail_to_open(1);
    CHECK(pool_counts().keys == 0 && pool_counts().endpoints == 1);
    CHECK(breaker_of("endpoint-0", &view) && view.failures == 1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + 10 * RESET);
    pool_advance(10 * RESET - 1);
    pool_upkeep();
    CHECK(pool_counts().endpoints == 1);
    pool_advance(1);
    pool_upkeep();
    CHECK(pool_counts().endpoints == 0);
    CHECK(mgp_pool_next_deadline(pool) == INT64_MAX);
    pool_end();
}

static void
open_breaker_that_is_forgotten_is_no_longer_counted_as_open(void)
{
    pool_start(pool_config());
    trip(1);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    pool_advance(10 * RESET);
    pool_upkeep();
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
breaker_stays_open_for_a_key_that_comes_back(void)
{
    pool_start(pool_config());
    trip(1);
    CHECK(pool_counts().keys == 0);
    CHECK(pool_acquire(2)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_counts().keys == 0 && pool_counts().endpoints == 1);
    pool_advance(RESET);
    struct caller *trial = pool_acquire(2);
    CHECK(trial->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(3)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_create_failed(trial, MGP_FAULT_ENDPOINT);
    CHECK(pool_acquire(3)->status == MGP_ERR_CIRCUIT_OPEN);
    pool_end();
}

static void
table_of_remembered_endpoints_is_bounded_and_the_oldest_failure_goes_first(void)
{
    struct mgp_endpoint_view view;
    struct mgp_config config = pool_config();
    config.max_remembered_endpoints = 2;
    pool_start(config);
    /* Endpoint 1 fails first, but its key lives on after the others failed. */
    struct opened *s1 = pool_open_idle(101);
    struct caller *hit = pool_acquire(101);
    fail_to_open(101);
    pool_advance(SECOND);
    fail_to_open(201);
    pool_advance(SECOND);
    fail_to_open(301);
    pool_advance(SECOND);
    CHECK(pool_counts().endpoints == 3);
    pool_release(hit, MGP_VERDICT_DISCARD);
    pool_close_ended(s1);
    CHECK(pool_counts().endpoints == 2);
    CHECK(!breaker_of("endpoint-1", &view));
    CHECK(breaker_of("endpoint-2", &view) && breaker_of("endpoint-3", &view));
    fail_to_open(401);
    CHECK(!breaker_of("endpoint-2", &view) && breaker_of("endpoint-4", &view));
    pool_end();
}

static void
endpoint_without_failures_is_dropped_with_its_last_key(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    struct opened *s2 = pool_open_idle(2);
    pool_broken(s1);
    pool_close_ended(s1);
    CHECK(pool_counts().endpoints == 1);
    pool_broken(s2);
    pool_close_ended(s2);
    CHECK(pool_counts().endpoints == 0);
    pool_end();
}

static void
endpoint_is_dropped_while_it_is_still_to_be_swept(void)
{
    struct mgp_config config = pool_config();
    config.max_remembered_endpoints = 0;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    trip(2);
    pool_broken(s1);
    CHECK_EFFECTS("close s1 broken");
    pool_close_ended(s1);
    CHECK(pool_counts().endpoints == 0);
    pool_upkeep();
    pool_end();
}

static void
note(bool is_failure)
{
    struct mgp_key_spec *spec = pool_spec(1);
    if (is_failure) {
        CHECK(mgp_pool_note_failure(pool, now_ns, spec->endpoint, spec->row) == MGP_OK);
    } else {
        mgp_pool_note_success(pool, now_ns, spec->endpoint);
    }
    pool_check();
}

static void
what_others_saw_of_an_endpoint_without_keys_counts(void)
{
    struct mgp_endpoint_view view;
    pool_start(pool_config());
    note(false); /* of an endpoint that is not known */
    CHECK(!breaker_of("endpoint-0", &view) && pool_counts().endpoints == 0);
    for (int i = 0; i < THRESHOLD - 1; i++) {
        note(true);
    }
    note(false);
    CHECK(!breaker_of("endpoint-0", &view) && pool_counts().endpoints == 0);
    for (int i = 0; i < THRESHOLD; i++) {
        note(true);
    }
    note(true); /* does not count while it is open */
    CHECK(breaker_of("endpoint-0", &view) && view.failures == THRESHOLD && view.is_open);
    CHECK(pool_acquire(1)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 1);
    pool_upkeep();
    pool_advance(RESET);
    note(true); /* the trial */
    CHECK(breaker_of("endpoint-0", &view) && view.failures == THRESHOLD + 1);
    CHECK(view.open_until_ns > now_ns + RESET && view.open_until_ns <= now_ns + 2 * RESET);
    pool_advance(2 * RESET);
    note(false);
    CHECK(!breaker_of("endpoint-0", &view));
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
what_others_saw_of_an_endpoint_reaches_its_sessions_and_waiters(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *creating = pool_acquire(1); /* key 1 is full, and has nothing active */
    struct caller *waiting = pool_acquire(1);
    (void)pool_open_idle(2);
    CHECK(waiting->answer == MGP_ANSWER_WAIT);
    for (int i = 0; i < THRESHOLD; i++) {
        note(true);
    }
    pool_upkeep();
    CHECK_EFFECTS("fail c2 circuit_open, probe s1");
    pool_checked(pool_session(1), false);
    pool_create_failed(creating, MGP_FAULT_ENDPOINT);
    pool_close_ended(pool_session(1));
    CHECK_EFFECTS("close s1 circuit_breaker, gone s1");
    note(false); /* whoever saw it */
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 0);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

int
main(void)
{
    RUN(failures_are_remembered_without_a_key_and_forgotten_in_time);
    RUN(open_breaker_that_is_forgotten_is_no_longer_counted_as_open);
    RUN(breaker_stays_open_for_a_key_that_comes_back);
    RUN(table_of_remembered_endpoints_is_bounded_and_the_oldest_failure_goes_first);
    RUN(endpoint_without_failures_is_dropped_with_its_last_key);
    RUN(endpoint_is_dropped_while_it_is_still_to_be_swept);
    RUN(what_others_saw_of_an_endpoint_without_keys_counts);
    RUN(what_others_saw_of_an_endpoint_reaches_its_sessions_and_waiters);
    return harness_end();
}
