/* The limits on all sessions and on all keys: what makes room, who waits, and who is refused. */
#include "pool_fixture.h"

static struct mgp_config
config_total(uint32_t max_total_sessions)
{
    struct mgp_config config = pool_config();
    config.max_total_sessions = max_total_sessions;
    return config;
}

static struct mgp_config
config_keys(uint32_t max_total_keys)
{
    struct mgp_config config = pool_config();
    config.max_total_keys = max_total_keys;
    return config;
}

/* ---- the limit in total ------------------------------------------------------- */

static void
total_limit_closes_the_least_recently_used_idle_session_of_any_key(void)
{
    pool_start(config_total(3));
    (void)pool_open_idle(1); /* s1 */
    pool_advance(SECOND);
    struct opened *s2 = pool_open_idle(2);
    pool_advance(SECOND);
    (void)pool_open_idle(3);
    pool_advance(SECOND);
    pool_release(pool_acquire(1), MGP_VERDICT_GOOD); /* s1 was used since */
    struct caller *caller = pool_acquire(4);
    CHECK(caller->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s2 capacity");
    /* Not before its close has ended. */
    CHECK(pool_view(4).creating == 0 && pool_counts().closing == 1);
    pool_close_ended(s2);
    CHECK_EFFECTS("gone s2, grant c5");
    pool_take(caller);
    CHECK(caller->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
one_victim_is_closed_for_each_who_waits_for_a_place(void)
{
    pool_start(config_total(3));
    for (int key = 1; key <= 3; key++) {
        (void)pool_open_idle(key);
        pool_advance(SECOND);
    }
    (void)pool_acquire(4);
    CHECK_EFFECTS("close s1 capacity");
    (void)pool_acquire(5);
    CHECK_EFFECTS("close s2 capacity");
    pool_end();
}

static void
cancelled_waiter_for_a_place_claims_no_victim_any_more(void)
{
    pool_start(config_total(2));
    struct opened *s1 = pool_open_idle(1);
    (void)pool_open_idle(2);
    struct caller *c3 = pool_acquire(3);
    CHECK_EFFECTS("close s1 capacity");
    pool_cancel(c3, MGP_CANCEL_BY_CALLER);
    /* The place that comes free serves the next. */
    struct caller *c4 = pool_acquire(4);
    CHECK(c4->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("");
    pool_close_ended(s1);
    CHECK_EFFECTS("gone s1, grant c4");
    pool_end();
}

static void
key_with_nothing_open_fails_at_once_when_nothing_idle_is_left(void)
{
    pool_start(config_total(2));
    (void)pool_open(1);
    (void)pool_open(1);
    CHECK(pool_acquire(2)->status == MGP_ERR_EXHAUSTED);
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_EXHAUSTED)) == 1);
    CHECK(pool_counts().keys == 1 && pool_counts().endpoints == 1);
    /* A key that has something open waits. */
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    pool_end();
}

static void
waiter_of_a_busy_key_gets_the_place_of_any_session_that_becomes_idle(void)
{
    pool_start(config_total(2));
    (void)pool_open(1);
    struct caller *c2 = pool_open(2);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s2 capacity");
    pool_close_ended(c2->opened);
    CHECK_EFFECTS("gone s2, grant c3");
    pool_end();
}

static void
place_of_a_victim_is_not_taken_by_a_newcomer_of_the_victims_key(void)
{
    pool_start(config_total(2));
    struct caller *c1 = pool_open(1);
    struct opened *s2 = pool_open_idle(2);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s2 capacity");
    struct caller *c4 = pool_acquire(2);
    CHECK(c4->answer == MGP_ANSWER_WAIT);
    pool_close_ended(s2);
    CHECK_EFFECTS("gone s2, grant c3");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 capacity");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c4");
    pool_end();
}

static void
place_of_a_discarded_session_goes_to_the_waiter_of_its_own_key(void)
{
    struct mgp_config config = config_total(2);
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(2);    /* c2 */
    (void)pool_acquire(1); /* c3 */
    pool_release(c1, MGP_VERDICT_DISCARD);
    struct caller *c4 = pool_acquire(3);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 manual, gone s1, grant c3");
    CHECK(c4->status == MGP_ERR_EXHAUSTED || c4->answer == MGP_ANSWER_WAIT);
    pool_end();
}

static void
session_under_a_check_is_no_victim(void)
{
    pool_start(config_total(2));
    struct opened *s1 = pool_open_idle(1);
    pool_advance(61 * SECOND);
    struct caller *c2 = pool_acquire(1);
    CHECK_EFFECTS("probe s1");
    (void)pool_open(2);
    CHECK(pool_acquire(3)->status == MGP_ERR_EXHAUSTED);
    CHECK_EFFECTS("");
    struct caller *c5 = pool_acquire(2);
    CHECK(c5->answer == MGP_ANSWER_WAIT);
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    pool_checked(s1, true);
    CHECK_EFFECTS("close s1 capacity");
    pool_close_ended(s1);
    CHECK_EFFECTS("gone s1, grant c5");
    pool_end();
}

/* ---- the limit of keys -------------------------------------------------------- */

static void
least_recently_used_key_that_nobody_uses_is_evicted(void)
{
    pool_start(config_keys(3));
    (void)pool_open(1);
    (void)pool_open_idle(2);
    pool_advance(SECOND);
    (void)pool_open_idle(3);
    pool_advance(SECOND);
    pool_release(pool_acquire(2), MGP_VERDICT_GOOD);
    CHECK(pool_acquire(4)->answer == MGP_ANSWER_CREATE);
    CHECK_EFFECTS("close s3 capacity");
    CHECK(pool_counts().keys == 3 && pool_counts().keys_evicted == 1);
    pool_end();
}

static void
limit_of_keys_refuses_when_every_key_is_used(void)
{
    pool_start(config_keys(2));
    (void)pool_open(1);
    struct caller *c2 = pool_acquire(2);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    CHECK(pool_acquire(3)->status == MGP_ERR_EXHAUSTED);
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_EXHAUSTED)) == 1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE); /* not a new key */
    CHECK(pool_counts().endpoints == 1 && pool_counts().keys == 2);
    pool_end();
}

static void
evicted_key_only_waits_for_its_closes(void)
{
    pool_start(config_keys(1));
    struct opened *s1 = pool_open_idle(1);
    (void)pool_open(2); /* c2 */
    CHECK_EFFECTS("close s1 capacity");
    CHECK(pool_counts().keys == 1 && pool_view(1).closing == 1);
    CHECK(pool_total(MGP_WORD_KEYS) == 1);
    pool_close_ended(s1);
    CHECK(pool_view(1).handle == NULL);
    CHECK(pool_counts().keys_evicted == 1);
    pool_end();
}

static void
evicted_key_that_is_used_again_counts_as_a_new_one(void)
{
    pool_start(config_keys(1));
    struct opened *s1 = pool_open_idle(1);
    struct caller *c2 = pool_open(2);
    CHECK(pool_acquire(1)->status == MGP_ERR_EXHAUSTED);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    CHECK_EFFECTS("close s1 capacity, close s2 capacity");
    CHECK(pool_counts().keys == 1 && pool_counts().keys_evicted == 2);
    pool_close_ended(s1);
    CHECK(pool_view(1).creating == 1 && pool_view(1).closing == 0);
    pool_end();
}

static void
evicted_keys_closing_sessions_count_towards_its_limit(void)
{
    struct mgp_config config = config_keys(1);
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    (void)pool_open_idle(2); /* s2 */
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s1 capacity, close s2 capacity");
    pool_close_ended(s1);
    CHECK_EFFECTS("gone s1, grant c3");
    pool_end();
}

static void
background_check_is_no_use_of_a_key(void)
{
    struct mgp_config config = config_keys(2);
    config.health_interval_ns = 10 * SECOND;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    pool_advance(SECOND);
    (void)pool_open_idle(2);
    pool_advance(9 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_checked(s1, true);
    (void)pool_acquire(3);
    CHECK_EFFECTS("close s1 capacity");
    pool_end();
}

static void
key_under_a_background_check_can_be_evicted(void)
{
    struct mgp_config config = config_keys(1);
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    pool_advance(60 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE);
    CHECK_EFFECTS("close s1 capacity");
    CHECK(mgp_pool_checked(pool, now_ns, s1->probe, true) == MGP_ERR_STALE);
    pool_end();
}

static void
key_is_dropped_when_its_last_session_is_gone(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    (void)pool_open_idle(2);
    pool_broken(s1);
    CHECK(pool_counts().keys == 2);
    pool_close_ended(s1);
    CHECK(pool_counts().keys == 1 && pool_counts().endpoints == 1);
    CHECK(pool_counts().keys_evicted == 1);
    pool_end();
}

/* ---- limits that change --------------------------------------------------------- */

static void
limits_that_shrink_close_nothing_and_admit_nothing(void)
{
    struct mgp_config config = pool_config();
    pool_start(config);
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_open(1);
    (void)pool_open(2); /* c3 */
    config.max_sessions_per_key = 1;
    config.max_total_sessions = 1;
    config.max_total_keys = 1;
    mgp_pool_configure(pool, &config);
    pool_check();
    struct caller *c4 = pool_acquire(1);
    CHECK(c4->answer == MGP_ANSWER_WAIT);
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c4");
    pool_end();
}

static void
limits_that_grow_serve_who_waits_at_the_next_occasion(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    config.max_total_sessions = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(2); /* c2 */
    struct caller *c3 = pool_acquire(1);
    config.max_sessions_per_key = 5;
    mgp_pool_configure(pool, &config);
    pool_check();
    (void)pool_acquire(1); /* c4: now it is the limit in total that both wait for */
    config.max_total_sessions = 0;
    mgp_pool_configure(pool, &config);
    pool_check();
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c3, grant c4");
    pool_end();
}

int
main(void)
{
    RUN(total_limit_closes_the_least_recently_used_idle_session_of_any_key);
    RUN(one_victim_is_closed_for_each_who_waits_for_a_place);
    RUN(cancelled_waiter_for_a_place_claims_no_victim_any_more);
    RUN(key_with_nothing_open_fails_at_once_when_nothing_idle_is_left);
    RUN(waiter_of_a_busy_key_gets_the_place_of_any_session_that_becomes_idle);
    RUN(place_of_a_victim_is_not_taken_by_a_newcomer_of_the_victims_key);
    RUN(place_of_a_discarded_session_goes_to_the_waiter_of_its_own_key);
    RUN(session_under_a_check_is_no_victim);
    RUN(least_recently_used_key_that_nobody_uses_is_evicted);
    RUN(limit_of_keys_refuses_when_every_key_is_used);
    RUN(evicted_key_only_waits_for_its_closes);
    RUN(evicted_key_that_is_used_again_counts_as_a_new_one);
    RUN(evicted_keys_closing_sessions_count_towards_its_limit);
    RUN(background_check_is_no_use_of_a_key);
    RUN(key_under_a_background_check_can_be_evicted);
    RUN(key_is_dropped_when_its_last_session_is_gone);
    RUN(limits_that_shrink_close_nothing_and_admit_nothing);
    RUN(limits_that_grow_serve_who_waits_at_the_next_occasion);
    return harness_end();
}
