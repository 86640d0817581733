/* Release: what becomes of a session that comes back. */
#include "pool_fixture.h"

static void
good_session_becomes_idle(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(c1->status == MGP_OK);
    CHECK_EFFECTS("");
    CHECK(pool_view(1).idle == 1 && pool_view(1).active == 0);
    CHECK(pool_total(MGP_WORD_SIZE) == 1 && pool_total(MGP_WORD_ACTIVE_SESSIONS) == 0);
    pool_end();
}

static void
verdict_decides_why_a_session_is_closed(void)
{
    static const struct {
        enum mgp_verdict verdict;
        enum mgp_eviction_reason reason;
        const char *effects;
    } cases[] = {
        {MGP_VERDICT_DISCARD, MGP_EVICTION_MANUAL, "close s1 manual"},
        {MGP_VERDICT_BROKEN, MGP_EVICTION_BROKEN, "close s1 broken"},
        {MGP_VERDICT_LEAKED, MGP_EVICTION_LEAKED, "close s1 leaked"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        pool_start(pool_config());
        struct caller *c1 = pool_open(1);
        pool_release(c1, cases[i].verdict);
        CHECK_EFFECTS(cases[i].effects);
        CHECK(pool_evictions(cases[i].reason) == 1);
        CHECK(pool_total(MGP_WORD_SIZE) == 0 && pool_view(1).closing == 1);
        pool_close_ended(c1->opened);
        CHECK_EFFECTS("gone s1");
        pool_end();
    }
}

static void
second_release_of_a_lease_is_stale(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c1, MGP_VERDICT_BROKEN);
    CHECK(c1->status == MGP_ERR_STALE);
    CHECK(pool_view(1).idle == 1);
    /* Nor does it end the checkout of who has the session now. */
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->opened == c1->opened);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(c1->status == MGP_ERR_STALE);
    CHECK(mgp_pool_is_leased(pool, c2->ticket));
    pool_end();
}

static void
no_ticket_is_stale_everywhere(void)
{
    struct mgp_ticket none = {0, 0}, invented = {12345, 67890};
    struct mgp_ticket lease;
    struct mgp_session *session;
    pool_start(pool_config());
    (void)pool_open(1);
    CHECK(mgp_pool_release(pool, now_ns, none, MGP_VERDICT_GOOD) == MGP_ERR_STALE);
    CHECK(mgp_pool_release(pool, now_ns, invented, MGP_VERDICT_GOOD) == MGP_ERR_STALE);
    CHECK(mgp_pool_created(pool, now_ns, none, &none, &session, &lease) == MGP_ERR_STALE);
    CHECK(session == NULL && lease.generation == 0);
    CHECK(mgp_pool_create_failed(pool, now_ns, none, MGP_FAULT_ENDPOINT) == MGP_ERR_STALE);
    CHECK(mgp_pool_creation_unwanted(pool, none) == MGP_ERR_STALE);
    CHECK(mgp_pool_answer(pool, none) == MGP_ERR_STALE);
    CHECK(mgp_pool_undo(pool, now_ns, none) == MGP_ERR_STALE);
    CHECK(mgp_pool_checked(pool, now_ns, none, true) == MGP_ERR_STALE);
    CHECK(mgp_pool_close_ended(pool, now_ns, none) == MGP_ERR_STALE);
    CHECK(!mgp_pool_is_leased(pool, none));
    pool_check();
    pool_end();
}

/* A caller that mixes up its tickets must not end the checkout, or the creation, of another. */
static void
ticket_of_a_session_is_none_of_a_lease_and_the_other_way_round(void)
{
    enum { MANY = 8 };
    struct mgp_ticket creations[MANY], leases[MANY];
    struct caller *callers[MANY];
    struct mgp_session *session;
    struct mgp_ticket lease;
    pool_start(pool_config());
    for (size_t i = 0; i < MANY; i++) {
        callers[i] = pool_acquire(1);
        creations[i] = callers[i]->ticket;
        pool_create(callers[i]);
        leases[i] = callers[i]->ticket;
    }
    for (size_t i = 0; i < MANY; i++) {
        for (size_t j = 0; j < MANY; j++) {
            CHECK(creations[i].index != leases[j].index ||
                  creations[i].generation != leases[j].generation);
        }
        CHECK(mgp_pool_created(pool, now_ns, leases[i], callers[i], &session, &lease) ==
              MGP_ERR_STALE);
        CHECK(mgp_pool_create_failed(pool, now_ns, leases[i], MGP_FAULT_ENDPOINT) == MGP_ERR_STALE);
        CHECK(mgp_pool_creation_unwanted(pool, leases[i]) == MGP_ERR_STALE);
        CHECK(mgp_pool_checked(pool, now_ns, leases[i], false) == MGP_ERR_STALE);
        CHECK(mgp_pool_close_ended(pool, now_ns, leases[i]) == MGP_ERR_STALE);
    }
    CHECK(pool_view(1).active == MANY);
    /* One that is being created, and one that is being closed, are not leased. */
    struct caller *opening = pool_acquire(1);
    pool_release(callers[0], MGP_VERDICT_DISCARD);
    struct mgp_ticket others[] = {opening->ticket, callers[0]->opened->close};
    for (size_t i = 0; i < 2; i++) {
        CHECK(others[i].generation != 0);
        CHECK(!mgp_pool_is_leased(pool, others[i]));
        CHECK(mgp_pool_leased_payload(pool, others[i]) == NULL);
        CHECK(mgp_pool_release(pool, now_ns, others[i], MGP_VERDICT_GOOD) == MGP_ERR_STALE);
    }
    CHECK(pool_view(1).creating == 1 && pool_view(1).closing == 1);
    pool_check();
    pool_end();
}

static void
late_answers_to_a_creation_are_stale(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_acquire(1);
    struct mgp_ticket creation = c1->ticket;
    pool_create_failed(c1, MGP_FAULT_ENDPOINT);
    CHECK(c1->status == MGP_OK);
    pool_create_failed(c1, MGP_FAULT_ENDPOINT);
    CHECK(c1->status == MGP_ERR_STALE);
    (void)pool_created(c1); /* the payload stays the caller's */
    CHECK(c1->status == MGP_ERR_STALE);
    CHECK(pool_total(MGP_WORD_CREATE_FAILURES) == 1);

    struct caller *c2 = pool_acquire(1);
    creation = c2->ticket;
    pool_create(c2);
    CHECK(mgp_pool_create_failed(pool, now_ns, creation, MGP_FAULT_ENDPOINT) == MGP_ERR_STALE);
    CHECK(mgp_pool_creation_unwanted(pool, creation) == MGP_ERR_STALE);
    CHECK(mgp_pool_close_ended(pool, now_ns, creation) == MGP_ERR_STALE);
    CHECK(mgp_pool_checked(pool, now_ns, creation, true) == MGP_ERR_STALE);
    pool_check();
    pool_end();
}

static void
ticket_of_one_kind_is_stale_for_another(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    pool_advance(60 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    CHECK(mgp_pool_close_ended(pool, now_ns, s1->probe) == MGP_ERR_STALE);
    CHECK(mgp_pool_create_failed(pool, now_ns, s1->probe, MGP_FAULT_ENDPOINT) == MGP_ERR_STALE);
    pool_checked(s1, false);
    CHECK_EFFECTS("close s1 health_check");
    CHECK(mgp_pool_checked(pool, now_ns, s1->close, true) == MGP_ERR_STALE);
    pool_check();
    pool_end();
}

static void
session_over_its_lifetime_is_closed_not_pooled(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    pool_advance(300 * SECOND - 1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_advance(1);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s2 ttl_expired");
    CHECK(pool_counts().sessions_reaped == 0); /* upkeep did not close it */
    pool_end();
}

static void
session_over_its_lifetime_is_not_handed_to_a_waiter(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    pool_advance(300 * SECOND);
    struct caller *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c2");
    pool_take(c2);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
drained_session_is_closed_when_it_comes_back(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_drain();
    struct caller *c2 = pool_open(1);
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_end();
}

static void
broken_session_is_closed_when_it_comes_back(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    pool_broken(c1->opened);
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 broken");
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_broken(c2->opened); /* an idle one at once */
    CHECK_EFFECTS("close s2 broken");
    CHECK(mgp_session_is_closing(c2->opened->session));
    pool_broken(c2->opened);
    CHECK_EFFECTS("");
    CHECK(pool_evictions(MGP_EVICTION_BROKEN) == 2);
    pool_end();
}

static void
session_marked_broken_is_not_handed_out_again(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    mgp_session_mark_broken(s1->session);
    pool_check();
    CHECK(pool_try_acquire(1) == NULL);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    CHECK_EFFECTS("close s1 broken");
    pool_end();
}

static void
leaked_sessions_place_comes_back(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_acquire(1); /* c2 */
    pool_release(c1, MGP_VERDICT_LEAKED);
    CHECK_EFFECTS("close s1 leaked");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c2");
    pool_end();
}

static void
closing_session_counts_until_its_close_has_ended(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 2;
    config.max_total_sessions = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    (void)pool_open(1); /* c2 */
    pool_release(c1, MGP_VERDICT_DISCARD);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c3 */
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 manual, gone s1, grant c3");
    pool_end();
}

static void
late_end_of_a_close_is_stale(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_release(c1, MGP_VERDICT_DISCARD);
    struct mgp_ticket close = c1->opened->close;
    pool_close_ended(c1->opened);
    (void)pool_open(1); /* perhaps in the same slot */
    CHECK(mgp_pool_close_ended(pool, now_ns, close) == MGP_ERR_STALE);
    CHECK(pool_view(1).active == 1);
    pool_check();
    pool_end();
}

static void
each_release_makes_the_session_the_next_to_be_handed_out(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1);
    /* At the same time on a coarse clock: still the one that came last. */
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c2, MGP_VERDICT_GOOD);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->opened == c2->opened);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK(pool_try_acquire(1)->opened == c2->opened);
    pool_end();
}

static void
times_follow_use_and_what_is_written(void)
{
    struct mgp_session_times times;
    pool_start(pool_config());
    int64_t start_ns = now_ns;
    struct caller *c1 = pool_open(1);
    pool_advance(10 * SECOND);
    pool_release(c1, MGP_VERDICT_GOOD);
    mgp_session_read_times(c1->opened->session, &times);
    CHECK(times.created_ns == start_ns && times.last_used_ns == now_ns);
    CHECK(times.expires_ns == start_ns + 300 * SECOND);
    pool_set_created(c1->opened, start_ns - 100 * SECOND);
    pool_set_last_used(c1->opened, start_ns - 50 * SECOND);
    mgp_session_read_times(c1->opened->session, &times);
    CHECK(times.created_ns == start_ns - 100 * SECOND);
    CHECK(times.last_used_ns == start_ns - 50 * SECOND);
    CHECK(times.expires_ns == start_ns + 200 * SECOND);
    pool_end();
}

static void
written_creation_time_decides_about_the_lifetime(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    struct caller *c2 = pool_open(2);
    pool_set_created(s1, now_ns - 300 * SECOND);
    CHECK(pool_try_acquire(1) == NULL);
    pool_upkeep();
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_set_created(c2->opened, now_ns - 400 * SECOND);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s2 ttl_expired");
    pool_end();
}

static void
session_made_younger_after_its_lifetime_ended_is_reaped_later(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    pool_advance(300 * SECOND);
    pool_upkeep(); /* its lifetime is over, but it is in use */
    pool_set_created(c1->opened, now_ns);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    CHECK(pool_view(1).idle == 1);
    pool_advance(300 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_end();
}

static void
written_time_of_use_decides_about_the_idle_timeout_and_the_order(void)
{
    struct mgp_config config = pool_config();
    config.health_interval_ns = 1000 * SECOND;
    config.lifetime_ns = 10000 * SECOND;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_open(1), *c3 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_release(c3, MGP_VERDICT_GOOD);
    pool_set_last_used(c3->opened, now_ns - 500 * SECOND);
    pool_set_last_used(c2->opened, now_ns - 400 * SECOND);
    pool_set_last_used(c1->opened, now_ns + 50 * SECOND);
    pool_advance(101 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("close s3 idle_timeout");
    CHECK(pool_acquire(1)->opened == c1->opened);
    CHECK(pool_acquire(1)->opened == c2->opened);
    pool_end();
}

static void
time_of_use_in_the_future_keeps_the_orders(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    pool_set_last_used(s1, now_ns + 1000 * SECOND);
    struct opened *s2 = pool_open_idle(2);
    pool_advance(SECOND);
    (void)pool_open_idle(3);
    pool_set_last_used(s2, now_ns - 5 * SECOND);
    pool_check();
    /* It was not checked by being written: it needs its check like any other. */
    pool_advance(60 * SECOND);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_end();
}

static void
written_times_of_any_size_do_no_harm(void)
{
    static const int64_t times[] = {INT64_MIN, INT64_MIN / 2, -1, 0, INT64_MAX / 2, INT64_MAX};
    pool_start(pool_config());
    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
        for (size_t j = 0; j < sizeof(times) / sizeof(times[0]); j++) {
            int key = (int)(10 * i + j);
            struct opened *opened = pool_open_idle(key);
            pool_set_created(opened, times[i]);
            pool_set_last_used(opened, times[j]);
            (void)pool_try_acquire(key);
            (void)pool_acquire(key);
            pool_upkeep();
        }
    }
    pool_end();
}

int
main(void)
{
    RUN(good_session_becomes_idle);
    RUN(verdict_decides_why_a_session_is_closed);
    RUN(second_release_of_a_lease_is_stale);
    RUN(no_ticket_is_stale_everywhere);
    RUN(ticket_of_a_session_is_none_of_a_lease_and_the_other_way_round);
    RUN(late_answers_to_a_creation_are_stale);
    RUN(ticket_of_one_kind_is_stale_for_another);
    RUN(session_over_its_lifetime_is_closed_not_pooled);
    RUN(session_over_its_lifetime_is_not_handed_to_a_waiter);
    RUN(drained_session_is_closed_when_it_comes_back);
    RUN(broken_session_is_closed_when_it_comes_back);
    RUN(session_marked_broken_is_not_handed_out_again);
    RUN(leaked_sessions_place_comes_back);
    RUN(closing_session_counts_until_its_close_has_ended);
    RUN(late_end_of_a_close_is_stale);
    RUN(each_release_makes_the_session_the_next_to_be_handed_out);
    RUN(times_follow_use_and_what_is_written);
    RUN(written_creation_time_decides_about_the_lifetime);
    RUN(session_made_younger_after_its_lifetime_ended_is_reaped_later);
    RUN(written_time_of_use_decides_about_the_idle_timeout_and_the_order);
    RUN(time_of_use_in_the_future_keeps_the_orders);
    RUN(written_times_of_any_size_do_no_harm);
    return harness_end();
}
