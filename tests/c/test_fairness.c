/* What comes free goes to whoever has waited longest among those whom it would help: the
 * kinds of what comes free, and of what keeps callers waiting. Keys 1 ... 99 are of endpoint
 * 0, 101 ... 199 of endpoint 1. */
#include "pool_fixture.h"

static struct mgp_config
config_limits(uint32_t per_key, uint32_t total, uint32_t creating)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = per_key;
    config.max_total_sessions = total;
    config.max_creating_per_endpoint = creating;
    return config;
}

/* ---- places in the pool --------------------------------------------------------------- */

static void
places_go_to_who_waited_longest_whatever_its_key(void)
{
    pool_start(config_limits(10, 3, 0));
    struct caller *c1 = pool_open(1);
    (void)pool_open(2); /* c2 */
    struct caller *c3 = pool_open(3);
    (void)pool_acquire(1); /* c4 */
    (void)pool_acquire(1); /* c5 */
    (void)pool_acquire(2); /* c6 */
    (void)pool_acquire(1); /* c7 */
    struct caller *closed[] = {c3, c1};
    for (size_t i = 0; i < 2; i++) {
        pool_release(closed[i], MGP_VERDICT_DISCARD);
        pool_close_ended(closed[i]->opened);
    }
    CHECK_EFFECTS("close s3 manual, gone s3, grant c4, close s1 manual, gone s1, grant c5");
    struct caller *c4 = pool_caller(4);
    pool_take(c4);
    pool_create_failed(c4, MGP_FAULT_CALLER); /* its place does not stay with its key */
    CHECK_EFFECTS("grant c6");
    pool_end();
}

/* The key closes each session after one use and always has waiters, so that closes are always
 * under way: none of them was begun for the caller of the other key. */
static void
closes_of_a_busy_key_are_no_supply_for_another(void)
{
    pool_start(config_limits(2, 3, 0));
    struct caller *c1 = pool_open(1);
    (void)pool_open(1); /* c2 */
    (void)pool_open_idle(2);
    (void)pool_acquire(1); /* c4 */
    pool_release(c1, MGP_VERDICT_DISCARD);
    CHECK_EFFECTS("close s1 manual");
    struct caller *c5 = pool_acquire(3);
    CHECK(c5->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s3 capacity");
    pool_close_ended(pool_session(3));
    CHECK_EFFECTS("gone s3, grant c5"); /* c4 came before, but its key has no room yet */
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c4");
    pool_end();
}

static void
place_of_a_closed_session_goes_to_an_older_waiter_of_another_key(void)
{
    pool_start(config_limits(1, 2, 0));
    struct caller *c1 = pool_open(1);
    (void)pool_open_idle(2);                           /* c2 */
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_WAIT); /* c3 */
    CHECK_EFFECTS("close s2 capacity");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c4 */
    pool_release(c1, MGP_VERDICT_DISCARD);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 manual, gone s1, grant c3"); /* the place for c3 was still to come */
    pool_close_ended(pool_session(2));
    CHECK_EFFECTS("gone s2, grant c4");
    pool_end();
}

static void
arrivals_do_not_cost_a_starved_key_its_turn(void)
{
    pool_start(config_limits(10, 3, 0));
    (void)pool_open(1); /* c1 */
    (void)pool_open(2); /* c2 */
    struct caller *c3 = pool_open(3);
    (void)pool_acquire(1); /* c4 */
    (void)pool_acquire(2); /* c5 */
    (void)pool_acquire(1);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s3 capacity");
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("gone s3, grant c4");
    pool_end();
}

static void
who_stood_behind_one_that_gave_up_has_the_turn_of_its_own_arrival(void)
{
    pool_start(config_limits(10, 3, 0));
    (void)pool_open(1);               /* c1 */
    (void)pool_open(2);               /* c2 */
    struct caller *c3 = pool_open(3); /* c3 */
    struct caller *c4 = pool_acquire(1);
    (void)pool_acquire(2); /* c5 */
    (void)pool_acquire(1); /* c6 */
    pool_cancel(c4, MGP_CANCEL_BY_TIMEOUT);
    pool_release(c3, MGP_VERDICT_DISCARD);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s3 manual, gone s3, grant c5");
    pool_end();
}

static void
place_that_was_granted_and_given_up_goes_to_the_oldest_of_all(void)
{
    pool_start(config_limits(10, 3, 0));
    (void)pool_open(1); /* c1 */
    (void)pool_open(2); /* c2 */
    struct caller *c3 = pool_open(3);
    struct caller *c4 = pool_acquire(1);
    (void)pool_acquire(2); /* c5 */
    (void)pool_acquire(1); /* c6 */
    pool_release(c3, MGP_VERDICT_DISCARD);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s3 manual, gone s3, grant c4");
    pool_cancel(c4, MGP_CANCEL_BY_CALLER);
    CHECK_EFFECTS("grant c5");
    pool_end();
}

/* ---- sessions that come back to a busy key ---------------------------------------------- */

static void
session_of_a_busy_key_makes_place_for_who_came_before_its_waiters(void)
{
    pool_start(config_limits(2, 3, 0));
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    (void)pool_open(2);                                /* c3: for a long time */
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c4 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c5 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c6 */
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 capacity");
    pool_release(c2, MGP_VERDICT_GOOD); /* for c4 one is closed already */
    CHECK_EFFECTS("grant c5");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c4");
    pool_end();
}

static void
session_goes_to_its_own_key_where_that_came_first(void)
{
    pool_start(config_limits(2, 2, 0));
    struct caller *c1 = pool_open(1);
    (void)pool_open(2);                                /* c2 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c3 */
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c4 */
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c3");
    pool_end();
}

static void
as_many_sessions_are_passed_on_as_came_before(void)
{
    pool_start(config_limits(4, 5, 0));
    struct caller *busy[4];
    for (size_t i = 0; i < 4; i++) {
        busy[i] = pool_open(1);
    }
    (void)pool_open(2);    /* c5 */
    (void)pool_acquire(2); /* c6 */
    (void)pool_acquire(2); /* c7 */
    (void)pool_acquire(1); /* c8 */
    (void)pool_acquire(2); /* c9 */
    (void)pool_acquire(1); /* c10 */
    for (size_t i = 0; i < 4; i++) {
        pool_release(busy[i], MGP_VERDICT_GOOD);
    }
    /* c6, c7; c8 itself; c9. */
    CHECK_EFFECTS("close s1 capacity, close s2 capacity, grant c8, close s4 capacity");
    for (size_t i = 0; i < 4; i++) {
        if (i != 2) {
            pool_close_ended(busy[i]->opened);
        }
    }
    CHECK_EFFECTS("gone s1, grant c6, gone s2, grant c7, gone s4, grant c9");
    pool_end();
}

static void
checked_session_makes_place_for_who_came_before(void)
{
    pool_start(config_limits(2, 2, 0));
    (void)pool_open_idle(1); /* c1 */
    pool_advance(60 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    (void)pool_open(101);                                /* c2 */
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_WAIT); /* c3: nothing to close now */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);   /* c4: for the check */
    pool_checked(pool_session(1), true);
    CHECK_EFFECTS("close s1 capacity");
    pool_close_ended(pool_session(1));
    CHECK_EFFECTS("gone s1, grant c3");
    pool_end();
}

static void
unwanted_creation_makes_place_for_who_came_before(void)
{
    pool_start(config_limits(1, 2, 0));
    struct caller *c1 = pool_acquire(1);
    (void)pool_open_idle(2);                           /* c2 */
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_WAIT); /* c3 */
    CHECK_EFFECTS("close s1 capacity");
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c4: its key is full until then */
    pool_close_ended(pool_session(1));
    CHECK_EFFECTS("gone s1, grant c3");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c5 */
    pool_unwanted(c1);
    (void)pool_created(c1);
    CHECK_EFFECTS("close s2 capacity");
    pool_close_ended(pool_session(2));
    CHECK_EFFECTS("gone s2, grant c4");
    pool_end();
}

/* ---- creations at one endpoint --------------------------------------------------------- */

static void
creations_at_an_endpoint_go_to_who_waited_longest(void)
{
    pool_start(config_limits(2, 0, 1));
    struct caller *c1 = pool_acquire(1);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c2 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c3 */
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_WAIT); /* c4 */
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c5 */
    pool_create(c1);
    CHECK_EFFECTS("grant c2");
    for (int number = 2; number <= 4; number++) {
        pool_take(pool_caller(number));
        pool_create_failed(pool_caller(number), MGP_FAULT_CALLER);
    }
    CHECK_EFFECTS("grant c3, grant c4, grant c5");
    pool_end();
}

static void
turn_is_kept_between_the_limits_of_endpoint_and_pool(void)
{
    pool_start(config_limits(2, 3, 1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(2);
    struct caller *c3 = pool_open(101);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);   /* c4: denied by its endpoint, too */
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_WAIT); /* c5: by the pool alone */
    pool_create(c2);                                     /* now c4 is denied by the pool alone */
    CHECK_EFFECTS("");
    pool_release(c3, MGP_VERDICT_DISCARD);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s2 manual, gone s2, grant c4");
    pool_release(c1, MGP_VERDICT_DISCARD);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 manual, gone s1, grant c5");
    pool_end();
}

static void
failed_creation_serves_an_older_waiter_of_its_own_key_first(void)
{
    pool_start(config_limits(1, 0, 1));
    struct caller *c1 = pool_acquire(1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2: its key is full */
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c3: denied by the endpoint */
    pool_create_failed(c1, MGP_FAULT_CALLER);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
place_that_the_oldest_may_not_use_goes_to_the_next(void)
{
    pool_start(config_limits(2, 3, 1));
    (void)pool_open(1);                                  /* c1 */
    (void)pool_acquire(2);                               /* c2: creates */
    struct caller *c3 = pool_open(101);                  /* c3 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);   /* c4 */
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_WAIT); /* c5 */
    pool_release(c3, MGP_VERDICT_DISCARD);
    pool_close_ended(c3->opened);
    CHECK_EFFECTS("close s2 manual, gone s2, grant c5");
    pool_end();
}

static void
no_more_idle_sessions_are_closed_than_creations_may_begin(void)
{
    pool_start(config_limits(10, 5, 1));
    (void)pool_open(1); /* c1 */
    for (int key = 101; key <= 104; key++) {
        (void)pool_open_idle(key);
    }
    for (int i = 0; i < 3; i++) {
        CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c6, c7, c8 */
    }
    CHECK_EFFECTS("close s2 capacity");
    pool_close_ended(pool_session(2));
    CHECK_EFFECTS("gone s2, grant c6"); /* c7 may not create before c6 has done so */
    pool_take(pool_caller(6));
    pool_create(pool_caller(6));
    CHECK_EFFECTS("close s3 capacity");
    pool_end();
}

static void
newcomer_does_not_overtake_who_waits_for_the_end_of_a_breakers_time(void)
{
    struct mgp_config config = config_limits(2, 0, 0);
    config.breaker_threshold = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(1); /* c2 */
    struct caller *c3 = pool_acquire(2);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c4 */
    pool_create_failed(c3, MGP_FAULT_ENDPOINT);
    pool_upkeep();
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1");
    pool_advance(config.breaker_reset_ns);
    CHECK(pool_acquire(2)->status == MGP_ERR_CIRCUIT_OPEN); /* before any upkeep */
    CHECK_EFFECTS("grant c4");
    pool_end();
}

static void
limits_that_grew_serve_who_waits_before_a_newcomer(void)
{
    struct mgp_config config = config_limits(2, 2, 0);
    pool_start(config);
    (void)pool_open(1);                                /* c1 */
    (void)pool_open(2);                                /* c2 */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c3 */
    config.max_total_sessions = 3;
    mgp_pool_configure(pool, &config);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_WAIT); /* c4 */
    CHECK_EFFECTS("grant c3");
    pool_end();
}

int
main(void)
{
    RUN(places_go_to_who_waited_longest_whatever_its_key);
    RUN(closes_of_a_busy_key_are_no_supply_for_another);
    RUN(place_of_a_closed_session_goes_to_an_older_waiter_of_another_key);
    RUN(arrivals_do_not_cost_a_starved_key_its_turn);
    RUN(who_stood_behind_one_that_gave_up_has_the_turn_of_its_own_arrival);
    RUN(place_that_was_granted_and_given_up_goes_to_the_oldest_of_all);
    RUN(session_of_a_busy_key_makes_place_for_who_came_before_its_waiters);
    RUN(session_goes_to_its_own_key_where_that_came_first);
    RUN(as_many_sessions_are_passed_on_as_came_before);
    RUN(checked_session_makes_place_for_who_came_before);
    RUN(unwanted_creation_makes_place_for_who_came_before);
    RUN(creations_at_an_endpoint_go_to_who_waited_longest);
    RUN(turn_is_kept_between_the_limits_of_endpoint_and_pool);
    RUN(failed_creation_serves_an_older_waiter_of_its_own_key_first);
    RUN(place_that_the_oldest_may_not_use_goes_to_the_next);
    RUN(no_more_idle_sessions_are_closed_than_creations_may_begin);
    RUN(newcomer_does_not_overtake_who_waits_for_the_end_of_a_breakers_time);
    RUN(limits_that_grew_serve_who_waits_before_a_newcomer);
    return harness_end();
}
