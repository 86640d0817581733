/* Acquire: who gets which session or place, in which order, and who is refused. */
#include <string.h>

#include "pool_fixture.h"

static struct mgp_config
config_per_key(uint32_t max_sessions_per_key)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = max_sessions_per_key;
    return config;
}

static struct mgp_config
config_leases(uint32_t max_sessions_per_key, uint32_t max_leases_per_session)
{
    struct mgp_config config = config_per_key(max_sessions_per_key);
    config.max_leases_per_session = max_leases_per_session;
    return config;
}

/* ---- hit and create --------------------------------------------------------- */

static void
first_acquire_creates_and_counts_a_miss_when_taken(void)
{
    pool_start(pool_config());
    struct caller *caller = pool_acquire(1);
    CHECK(caller->answer == MGP_ANSWER_CREATE);
    CHECK(pool_view(1).creating == 1 && pool_counts().keys == 1);
    (void)pool_created(caller);
    CHECK(pool_view(1).active == 1 && pool_view(1).creating == 0);
    CHECK(pool_total(MGP_WORD_CREATES) == 1 && pool_total(MGP_WORD_MISSES) == 0);
    pool_answer(caller);
    CHECK(pool_total(MGP_WORD_MISSES) == 1 && pool_total(MGP_WORD_HITS) == 0);
    CHECK_EFFECTS("");
    pool_end();
}

static void
idle_session_is_a_hit_without_waiting(void)
{
    pool_start(pool_config());
    struct opened *opened = pool_open_idle(1);
    struct caller *hit = pool_try_acquire(1);
    CHECK(hit != NULL && hit->opened == opened);
    pool_release(hit, MGP_VERDICT_GOOD);
    hit = pool_acquire(1);
    CHECK(hit->answer == MGP_ANSWER_SESSION && hit->opened == opened);
    CHECK(pool_total(MGP_WORD_HITS) == 2 && pool_total(MGP_WORD_MISSES) == 1);
    CHECK(pool_view(1).active == 1 && pool_view(1).idle == 0);
    CHECK_EFFECTS("");
    pool_end();
}

static void
try_acquire_answers_only_with_a_fresh_idle_session(void)
{
    pool_start(pool_config());
    CHECK(pool_try_acquire(1) == NULL); /* no such key */
    struct caller *caller = pool_open(1);
    CHECK(pool_try_acquire(1) == NULL); /* nothing idle */
    pool_release(caller, MGP_VERDICT_GOOD);
    pool_advance(61 * SECOND);
    CHECK(pool_try_acquire(1) == NULL); /* needs a check */
    pool_end();
}

static void
most_recently_used_session_is_handed_out_first(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1), *c2 = pool_open(1), *c3 = pool_open(1);
    pool_advance(SECOND);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_advance(SECOND);
    pool_release(c3, MGP_VERDICT_GOOD);
    pool_advance(SECOND);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(pool_try_acquire(1)->opened == c1->opened);
    CHECK(pool_acquire(1)->opened == c3->opened);
    CHECK(pool_acquire(1)->opened == c2->opened);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static void
keys_are_compared_byte_for_byte(void)
{
    static const char zero[] = {'k', 0, 'x'};
    pool_start(pool_config());
    pool_spec(1)->key = (struct mgp_bytes){zero, 3};
    pool_spec(2)->key = (struct mgp_bytes){zero, 2};
    pool_spec(3)->key = (struct mgp_bytes){zero, 1};
    pool_spec(4)->key = (struct mgp_bytes){zero, 0};
    for (int key = 1; key <= 4; key++) {
        (void)pool_open_idle(key);
    }
    CHECK(pool_counts().keys == 4);
    for (int key = 1; key <= 4; key++) {
        CHECK(pool_acquire(key)->opened->number == key);
    }
    pool_end();
}

static void
key_and_its_bytes_are_copied(void)
{
    char name[] = "mine", url[] = "url", group[] = "group";
    pool_start(pool_config());
    pool_spec(1)->key = (struct mgp_bytes){name, 4};
    pool_spec(1)->endpoint = (struct mgp_bytes){url, 3};
    pool_spec(1)->groups[1] = (struct mgp_bytes){group, 5};
    struct opened *opened = pool_open_idle(1);
    memset(name, 'x', 4);
    memset(url, 'x', 3);
    memset(group, 'x', 5);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    memcpy(name, "mine", 4);
    memcpy(url, "url", 3);
    CHECK(pool_acquire(1)->opened == opened);
    pool_end();
}

static void
anonymous_acquires_are_counted_once_each(void)
{
    pool_start(config_per_key(1));
    pool_spec(1)->is_anonymous = true;
    struct caller *first = pool_open(1);
    CHECK(pool_total(MGP_WORD_ANONYMOUS_ACQUIRES) == 1);
    struct caller *waiter = pool_acquire(1);
    CHECK(pool_total(MGP_WORD_ANONYMOUS_ACQUIRES) == 2);
    pool_release(first, MGP_VERDICT_GOOD);
    pool_take(waiter);
    pool_release(waiter, MGP_VERDICT_GOOD);
    CHECK(pool_total(MGP_WORD_ANONYMOUS_ACQUIRES) == 2);
    (void)pool_try_acquire(1);
    CHECK(pool_total(MGP_WORD_ANONYMOUS_ACQUIRES) == 3);
    (void)pool_open(2);
    CHECK(pool_total(MGP_WORD_ANONYMOUS_ACQUIRES) == 3);
    pool_end();
}

static void
single_use_sessions_are_closed_after_one_use(void)
{
    pool_start(pool_config());
    pool_spec(1)->is_single_use = true;
    struct caller *caller = pool_open(1);
    pool_release(caller, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

/* ---- the limit per key, and the queue ---------------------------------------- */

static void
creating_active_idle_checking_and_closing_count_towards_the_limit_of_a_key(void)
{
    pool_start(config_per_key(5));
    struct opened *idle = pool_open_idle(1);
    pool_advance(61 * SECOND);
    struct caller *checking = pool_acquire(1);
    CHECK(checking->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("probe s1");
    pool_cancel(checking, MGP_CANCEL_BY_CALLER);
    struct caller *creating = pool_acquire(1);
    struct caller *active = pool_open(1);
    struct caller *closing = pool_open(1);
    pool_release(closing, MGP_VERDICT_DISCARD);
    struct caller *returned = pool_open(1);
    pool_release(returned, MGP_VERDICT_GOOD);
    struct mgp_key_view view = pool_view(1);
    CHECK(view.creating == 1 && view.active == 1 && view.idle == 1);
    CHECK(view.checking == 1 && view.closing == 1);
    CHECK(pool_acquire(1)->opened == returned->opened);
    struct caller *waiter = pool_acquire(1);
    CHECK(waiter->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s3 manual");
    pool_checked(idle, true);
    CHECK_EFFECTS("grant c8");
    (void)creating;
    (void)active;
    pool_end();
}

static void
release_hands_its_session_to_the_oldest_waiter(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1), *c4 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_WAIT && pool_view(1).waiters == 3);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    CHECK(pool_view(1).waiters == 2 && pool_view(1).idle == 0);
    CHECK(pool_total(MGP_WORD_HITS) == 0); /* counted when it is taken */
    pool_take(c2);
    CHECK(c2->opened == c1->opened && pool_total(MGP_WORD_HITS) == 1);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c4");
    pool_take(c4);
    CHECK(c4->opened == c1->opened && pool_total(MGP_WORD_HITS) == 3);
    pool_end();
}

static void
newcomer_never_overtakes_a_waiter(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_hold_effects();
    pool_release(c1, MGP_VERDICT_GOOD);
    /* c2 was granted it, but has not run yet. */
    CHECK(pool_try_acquire(1) == NULL);
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    pool_take(c2);
    CHECK(c2->opened == c1->opened);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_run_effects();
    CHECK_EFFECTS("grant c3");
    pool_end();
}

static void
freed_place_goes_to_the_oldest_waiter_who_then_creates(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s1 broken");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c2");
    pool_take(c2);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    pool_create_failed(c2, MGP_FAULT_ENDPOINT);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_create(c3);
    CHECK(pool_total(MGP_WORD_MISSES) == 2 && pool_total(MGP_WORD_CREATE_FAILURES) == 1);
    pool_end();
}

static void
caller_that_creates_gets_its_own_creation_not_a_released_session(void)
{
    pool_start(config_per_key(2));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_create(c2);
    CHECK(c2->opened != c1->opened);
    CHECK(pool_view(1).idle == 1 && pool_view(1).active == 1);
    pool_end();
}

static void
timed_out_waiter_leaves_the_queue_and_is_counted(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    CHECK(pool_total(MGP_WORD_WAITERS) == 2);
    pool_cancel(c2, MGP_CANCEL_BY_TIMEOUT);
    CHECK(pool_total(MGP_WORD_ACQUIRE_TIMEOUTS) == 1);
    CHECK(pool_total(MGP_WORD_ACQUIRE_CANCELLATIONS) == 0);
    CHECK(pool_view(1).waiters == 1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(pool_total(MGP_WORD_WAITERS) == 0);
    pool_end();
}

static void
cancelled_waiter_returns_its_granted_session(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    CHECK_EFFECTS("grant c3");
    CHECK(pool_total(MGP_WORD_ACQUIRE_CANCELLATIONS) == 1 && pool_total(MGP_WORD_HITS) == 0);
    pool_cancel(c3, MGP_CANCEL_BY_CALLER);
    CHECK_EFFECTS("");
    CHECK(pool_view(1).idle == 1);
    CHECK(pool_try_acquire(1)->opened == c1->opened);
    pool_end();
}

static void
cancelled_waiter_passes_on_its_granted_place(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1, grant c2");
    pool_cancel(c2, MGP_CANCEL_BY_TIMEOUT);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_create_failed(c3, MGP_FAULT_CALLER);
    CHECK(pool_counts().keys == 0); /* nothing is left of it */
    pool_end();
}

static void
waiter_cancelled_before_its_grant_was_delivered_is_not_woken(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    (void)pool_acquire(1); /* c3 */
    pool_hold_effects();
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    pool_run_effects();
    CHECK_EFFECTS("grant c3");
    pool_end();
}

static void
creation_that_nobody_awaits_any_more_finishes_into_the_pool(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_acquire(1);
    pool_unwanted(c1);
    CHECK(pool_total(MGP_WORD_ACQUIRE_CANCELLATIONS) == 1);
    struct opened *opened = pool_created(c1);
    CHECK(c1->ticket.generation == 0 && c1->status == MGP_OK);
    CHECK(pool_view(1).idle == 1);
    CHECK(pool_total(MGP_WORD_CREATES) == 1 && pool_total(MGP_WORD_MISSES) == 0);
    CHECK(pool_acquire(1)->opened == opened);
    pool_end();
}

static void
creation_that_nobody_awaits_any_more_goes_to_the_oldest_waiter(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_acquire(1);
    struct caller *c2 = pool_acquire(1);
    pool_unwanted(c1);
    struct opened *opened = pool_created(c1);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    CHECK(c2->opened == opened);
    CHECK(pool_total(MGP_WORD_HITS) == 1 && pool_total(MGP_WORD_MISSES) == 0);
    pool_end();
}

static void
caller_cancelled_after_its_creation_ended_gives_the_session_back(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_acquire(1);
    (void)pool_acquire(1); /* c2 */
    (void)pool_created(c1);
    pool_undo(c1);
    CHECK(c1->status == MGP_OK);
    CHECK_EFFECTS("grant c2");
    CHECK(pool_total(MGP_WORD_ACQUIRE_CANCELLATIONS) == 1 && pool_total(MGP_WORD_MISSES) == 0);
    pool_undo(c1);
    CHECK(c1->status == MGP_ERR_STALE);
    pool_end();
}

static void
full_queue_refuses_at_once(void)
{
    struct mgp_config config = config_per_key(1);
    config.max_waiters_per_key = 2;
    pool_start(config);
    (void)pool_open(1);
    struct caller *c2 = pool_acquire(1);
    (void)pool_acquire(1);
    CHECK(pool_acquire(1)->status == MGP_ERR_QUEUE_FULL);
    CHECK(pool_total(MGP_REJECTION_WORD(MGP_REJECTION_QUEUE_FULL)) == 1);
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE); /* per key */
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    pool_end();
}

static void
waiter_sees_the_numbers_of_its_key(void)
{
    pool_start(config_per_key(2));
    (void)pool_open(1);
    (void)pool_acquire(1);
    struct caller *c3 = pool_acquire(1);
    struct mgp_key_view view;
    mgp_waiter_view_key(c3->waiter, &view);
    CHECK(view.active == 1 && view.creating == 1 && view.waiters == 1 && view.idle == 0);
    CHECK(view.key.size == 5 && memcmp(view.key.bytes, "key-1", 5) == 0);
    pool_end();
}

static void
other_endpoints_creations_are_not_limited_together(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 1;
    pool_start(config);
    struct caller *c1 = pool_acquire(1);
    struct caller *c2 = pool_acquire(2);
    CHECK(c1->answer == MGP_ANSWER_CREATE && c2->answer == MGP_ANSWER_WAIT);
    CHECK(pool_acquire(101)->answer == MGP_ANSWER_CREATE);
    pool_create(c1);
    CHECK_EFFECTS("grant c2");
    pool_end();
}

static void
turn_to_create_at_an_endpoint_goes_round_its_keys(void)
{
    struct mgp_config config = pool_config();
    config.max_creating_per_endpoint = 1;
    pool_start(config);
    struct caller *c1 = pool_acquire(1);
    struct caller *c2 = pool_acquire(1);
    struct caller *c3 = pool_acquire(2);
    (void)pool_acquire(1); /* c4 */
    /* Those of key 1 fail again and again: key 2 has its turn nevertheless. */
    pool_create_failed(c1, MGP_FAULT_CALLER);
    CHECK_EFFECTS("grant c2");
    pool_take(c2);
    pool_create_failed(c2, MGP_FAULT_CALLER);
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    pool_create(c3);
    CHECK_EFFECTS("grant c4");
    pool_end();
}

/* ---- shared sessions ---------------------------------------------------------- */

static void
session_carries_up_to_its_maximum_of_leases(void)
{
    pool_start(config_leases(2, 3));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    CHECK(c2->opened == c1->opened && c3->opened == c1->opened);
    CHECK(c2->ticket.generation != c1->ticket.generation);
    CHECK(pool_view(1).active == 1 && pool_total(MGP_WORD_ACTIVE_SESSIONS) == 1);
    struct caller *c4 = pool_acquire(1);
    CHECK(c4->answer == MGP_ANSWER_CREATE);
    pool_create(c4);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK(pool_view(1).active == 2);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK(pool_view(1).active == 1 && pool_view(1).idle == 1);
    pool_end();
}

static void
new_shared_session_serves_as_many_waiters_as_it_can_carry(void)
{
    pool_start(config_leases(1, 3));
    struct caller *c1 = pool_acquire(1);
    for (int i = 0; i < 3; i++) {
        CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    }
    pool_create(c1);
    CHECK_EFFECTS("grant c2, grant c3");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c4");
    CHECK(pool_view(1).active == 1 && pool_view(1).waiters == 0);
    pool_end();
}

static void
session_past_its_lifetime_does_not_hide_a_spare_lease(void)
{
    struct mgp_config config = config_leases(2, 2);
    config.health_interval_ns = 1000 * SECOND;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->opened == c1->opened);
    pool_advance(200 * SECOND);
    struct caller *c3 = pool_open(1);
    pool_advance(150 * SECOND); /* s1 is over its lifetime, s2 is not */
    pool_release(c2, MGP_VERDICT_GOOD);
    struct caller *c4 = pool_acquire(1);
    CHECK(c4->answer == MGP_ANSWER_SESSION && c4->opened == c3->opened);
    struct caller *c5 = pool_acquire(1);
    CHECK(c5->answer == MGP_ANSWER_WAIT);
    pool_release(c4, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c5");
    pool_end();
}

static void
broken_shared_session_ends_with_its_last_lease(void)
{
    pool_start(config_leases(1, 3));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("");
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 broken");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c3");
    pool_end();
}

int
main(void)
{
    RUN(first_acquire_creates_and_counts_a_miss_when_taken);
    RUN(idle_session_is_a_hit_without_waiting);
    RUN(try_acquire_answers_only_with_a_fresh_idle_session);
    RUN(most_recently_used_session_is_handed_out_first);
    RUN(keys_are_compared_byte_for_byte);
    RUN(key_and_its_bytes_are_copied);
    RUN(anonymous_acquires_are_counted_once_each);
    RUN(single_use_sessions_are_closed_after_one_use);
    RUN(creating_active_idle_checking_and_closing_count_towards_the_limit_of_a_key);
    RUN(release_hands_its_session_to_the_oldest_waiter);
    RUN(newcomer_never_overtakes_a_waiter);
    RUN(freed_place_goes_to_the_oldest_waiter_who_then_creates);
    RUN(caller_that_creates_gets_its_own_creation_not_a_released_session);
    RUN(timed_out_waiter_leaves_the_queue_and_is_counted);
    RUN(cancelled_waiter_returns_its_granted_session);
    RUN(cancelled_waiter_passes_on_its_granted_place);
    RUN(waiter_cancelled_before_its_grant_was_delivered_is_not_woken);
    RUN(creation_that_nobody_awaits_any_more_finishes_into_the_pool);
    RUN(creation_that_nobody_awaits_any_more_goes_to_the_oldest_waiter);
    RUN(caller_cancelled_after_its_creation_ended_gives_the_session_back);
    RUN(full_queue_refuses_at_once);
    RUN(waiter_sees_the_numbers_of_its_key);
    RUN(other_endpoints_creations_are_not_limited_together);
    RUN(turn_to_create_at_an_endpoint_goes_round_its_keys);
    RUN(session_carries_up_to_its_maximum_of_leases);
    RUN(new_shared_session_serves_as_many_waiters_as_it_can_carry);
    RUN(session_past_its_lifetime_does_not_hide_a_spare_lease);
    RUN(broken_shared_session_ends_with_its_last_lease);
    return harness_end();
}
