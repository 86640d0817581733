/* The whole pool: drain, close, abandon, and the eviction of a group of keys. */
#include <string.h>

#include "pool_fixture.h"

static struct mgp_config
config_per_key(uint32_t max_sessions_per_key)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = max_sessions_per_key;
    return config;
}

/* ---- drain ---------------------------------------------------------------------- */

static void
drain_closes_idle_sessions_at_the_next_upkeep(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1); /* s1 */
    (void)pool_open_idle(2); /* s2 */
    pool_drain();
    CHECK(mgp_pool_next_deadline(pool) <= now_ns);
    pool_upkeep();
    CHECK_EFFECTS("close s1 manual, close s2 manual");
    CHECK(pool_counts().sessions_reaped == 0);
    CHECK(pool_evictions(MGP_EVICTION_MANUAL) == 2);
    pool_end();
}

static void
drained_idle_session_is_not_handed_out_before_upkeep_ran(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);
    pool_drain();
    CHECK(pool_try_acquire(1) == NULL);
    struct caller *c2 = pool_acquire(1);
    CHECK(c2->answer == MGP_ANSWER_CREATE);
    CHECK_EFFECTS("close s1 manual");
    pool_create(c2);
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    pool_end();
}

static void
session_in_use_finishes_its_call_and_closes_on_release(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT); /* c2 */
    pool_drain();
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("gone s1, grant c2");
    pool_end();
}

static void
creation_in_flight_at_a_drain_is_used_once_by_its_own_caller(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_acquire(1);
    pool_drain();
    pool_create(c1);
    CHECK(c1->status == MGP_OK);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_end();
}

static void
unwanted_creation_in_flight_at_a_drain_is_closed(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_acquire(1);
    pool_unwanted(c1);
    pool_drain();
    (void)pool_created(c1);
    CHECK_EFFECTS("close s1 manual");
    pool_end();
}

static void
session_under_a_check_at_a_drain_is_closed_after_it(void)
{
    pool_start(pool_config());
    struct opened *s1 = pool_open_idle(1);
    (void)pool_open_idle(2); /* s2 */
    pool_advance(60 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("probe s1");
    pool_drain();
    pool_upkeep();
    CHECK_EFFECTS("close s2 manual");
    pool_checked(s1, true);
    CHECK_EFFECTS("close s1 manual");
    pool_end();
}

static void
drain_twice_closes_each_session_once(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);
    pool_drain();
    pool_drain();
    pool_upkeep();
    CHECK_EFFECTS("close s1 manual");
    pool_drain();
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_end();
}

static void
drain_reaches_sessions_whatever_their_times_say(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_open(1);
    (void)pool_open(1); /* c3 */
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_set_last_used(c2->opened, now_ns + 100 * SECOND);
    pool_drain();
    struct caller *c4 = pool_open(2);
    pool_release(c4, MGP_VERDICT_GOOD);
    pool_set_last_used(c4->opened, now_ns - 50 * SECOND);
    pool_set_last_used(c1->opened, now_ns + 50 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("close s2 manual, close s1 manual");
    CHECK(pool_view(2).idle == 1);
    pool_end();
}

/* ---- close ---------------------------------------------------------------------- */

static void
close_closes_everything_and_wakes_every_waiter(void)
{
    pool_start(config_per_key(1));
    (void)pool_open_idle(1); /* s1 */
    struct caller *active = pool_open(2);
    struct caller *waiters[3] = {pool_acquire(2), pool_acquire(2), NULL};
    struct opened *checking = pool_open_idle(3);
    pool_suspect(checking);
    waiters[2] = pool_acquire(3);
    CHECK_EFFECTS("probe s3");
    pool_close();
    CHECK(mgp_pool_is_closed(pool));
    struct mgp_pool_counts counts = pool_counts();
    CHECK(counts.waiters == 0 && counts.active == 0 && counts.idle == 0 && counts.checking == 0);
    CHECK(counts.closing == 3 && pool_evictions(MGP_EVICTION_MANUAL) == 3);
    for (int i = 0; i < 3; i++) {
        CHECK(waiters[i]->waiter == NULL && waiters[i]->status == MGP_ERR_CLOSED);
    }
    CHECK(!mgp_pool_is_leased(pool, active->ticket));
    pool_release(active, MGP_VERDICT_GOOD);
    CHECK(active->status == MGP_ERR_STALE);
    CHECK(mgp_pool_checked(pool, now_ns, checking->probe, true) == MGP_ERR_STALE);
    for (int i = 1; i <= 3; i++) {
        pool_close_ended(pool_session(i));
    }
    CHECK(pool_counts().keys == 0);
    pool_end();
}

static void
closed_pool_refuses(void)
{
    pool_start(pool_config());
    pool_close();
    CHECK(pool_acquire(1)->status == MGP_ERR_CLOSED);
    CHECK(pool_try_acquire(1) == NULL);
    CHECK(pool_counts().keys == 0);
    pool_close();
    pool_end();
}

static void
session_created_after_the_close_is_taken_over_and_closed(void)
{
    pool_start(pool_config());
    struct caller *wanted = pool_acquire(1), *unwanted = pool_acquire(1);
    pool_unwanted(unwanted);
    pool_close();
    CHECK(pool_counts().creating == 2);
    (void)pool_created(wanted);
    CHECK(wanted->status == MGP_ERR_CLOSED && wanted->ticket.generation == 0);
    (void)pool_created(unwanted);
    CHECK(unwanted->status == MGP_ERR_CLOSED);
    CHECK_EFFECTS("close s1 manual, close s2 manual");
    pool_close_ended(wanted->opened);
    pool_close_ended(unwanted->opened);
    CHECK(pool_counts().keys == 0);
    CHECK_EFFECTS("gone s1, gone s2");
    pool_end();
}

static void
what_was_granted_before_the_close_is_taken_back(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    struct caller *c3 = pool_open(2), *c4 = pool_acquire(2);
    pool_release(c3, MGP_VERDICT_BROKEN);
    pool_close_ended(c3->opened);
    pool_hold_effects();
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_close();
    pool_run_effects();
    CHECK_EFFECTS("close s2 broken, gone s2, grant c4, grant c2, close s1 manual");
    pool_take(c2); /* a session */
    CHECK(c2->status == MGP_ERR_CLOSED);
    pool_take(c4); /* a place */
    CHECK(c4->status == MGP_ERR_CLOSED);
    CHECK(pool_counts().creating == 0);
    pool_end();
}

static void
cancelling_what_was_granted_before_the_close_changes_nothing(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_close();
    CHECK_EFFECTS("grant c2, close s1 manual");
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    CHECK_EFFECTS("");
    pool_end();
}

static void
waiter_cancelled_before_its_failure_was_delivered_is_not_woken(void)
{
    pool_start(config_per_key(1));
    (void)pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_hold_effects();
    pool_close();
    pool_cancel(c2, MGP_CANCEL_BY_CALLER);
    pool_run_effects();
    CHECK_EFFECTS("close s1 manual");
    CHECK(pool_total(MGP_WORD_ACQUIRE_CANCELLATIONS) == 0);
    pool_end();
}

static void
probe_not_yet_delivered_turns_into_the_close(void)
{
    pool_start(pool_config());
    (void)pool_open_idle(1);
    pool_advance(60 * SECOND);
    pool_hold_effects();
    pool_upkeep();
    CHECK(pool_view(1).checking == 1);
    pool_close();
    pool_run_effects();
    CHECK_EFFECTS("close s1 manual");
    pool_end();
}

static void
flag_alone_refuses_acquires_and_closes_what_comes_back(void)
{
    pool_start(config_per_key(2));
    struct caller *c1 = pool_open(1);
    (void)pool_open_idle(1); /* s2 */
    mgp_pool_set_closed(pool, true);
    CHECK(pool_acquire(1)->status == MGP_ERR_CLOSED);
    CHECK(pool_try_acquire(1) == NULL);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    mgp_pool_set_closed(pool, false);
    CHECK(pool_acquire(1)->opened->number == 2);
    pool_end();
}

static void
waiters_are_not_lost_while_the_flag_is_set(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    mgp_pool_set_closed(pool, true);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 manual, gone s1, grant c2");
    pool_take(c2);
    CHECK(c2->status == MGP_ERR_CLOSED);
    CHECK_EFFECTS("grant c3");
    mgp_pool_set_closed(pool, false);
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_end();
}

/* ---- abandon -------------------------------------------------------------------- */

static void
abandoned_sessions_count_as_broken_and_are_given_back(void)
{
    pool_start(config_per_key(2));
    (void)pool_open_idle(1);               /* s1 */
    struct caller *c2 = pool_open(2);      /* s2 */
    struct caller *c3 = pool_open(3);      /* s3 */
    pool_release(c3, MGP_VERDICT_DISCARD); /* closing: it was counted already */
    struct opened *s4 = pool_open_idle(4);
    pool_suspect(s4);
    CHECK(pool_acquire(4)->answer == MGP_ANSWER_WAIT);
    CHECK_EFFECTS("close s3 manual, probe s4");
    pool_abandon();
    CHECK(pool_evictions(MGP_EVICTION_BROKEN) == 3 && pool_evictions(MGP_EVICTION_MANUAL) == 1);
    struct mgp_pool_counts counts = pool_counts();
    CHECK(counts.keys == 0 && counts.closing == 0 && counts.waiters == 0);
    for (int i = 1; i <= 4; i++) {
        CHECK(pool_session(i)->gone == 1);
    }
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK(c2->status == MGP_ERR_STALE);
    CHECK(mgp_pool_close_ended(pool, now_ns, pool_session(3)->close) == MGP_ERR_STALE);
    CHECK(mgp_pool_checked(pool, now_ns, s4->probe, true) == MGP_ERR_STALE);
    pool_end();
}

static void
effects_queued_before_an_abandonment_become_gone(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1), *c2 = pool_open(2);
    (void)pool_acquire(2); /* c3 */
    pool_hold_effects();
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_abandon();
    pool_run_effects();
    CHECK_EFFECTS("gone s1, grant c3, gone s2");
    pool_end();
}

static void
granted_waiter_may_outlive_its_pool(void)
{
    pool_start(config_per_key(1));
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_abandon();
    mgp_waiter_forget(c2->waiter);
    c2->waiter = NULL;
    pool_end(); /* checks that all memory was freed */
}

static void
creation_abandoned_is_stale_and_stays_its_openers(void)
{
    pool_start(pool_config());
    struct caller *c1 = pool_acquire(1);
    pool_abandon();
    CHECK(pool_counts().creating == 0);
    (void)pool_created(c1);
    CHECK(c1->status == MGP_ERR_STALE);
    pool_end();
}

static void
abandoned_pool_can_be_used_again(void)
{
    pool_start(config_per_key(1));
    (void)pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_abandon();
    CHECK(c2->status == MGP_ERR_CLOSED);
    CHECK(!mgp_pool_is_closed(pool));
    (void)pool_open(1);
    CHECK(pool_view(1).active == 1);
    pool_end();
}

static void
trial_that_is_abandoned_lets_the_next_try(void)
{
    struct mgp_config config = pool_config();
    config.breaker_threshold = 1;
    pool_start(config);
    struct caller *c1 = pool_acquire(1);
    pool_create_failed(c1, MGP_FAULT_ENDPOINT);
    pool_advance(60 * SECOND);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_abandon();
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

static int
mark_visited(void *payload, void *context)
{
    struct opened *opened = payload;
    bool *visited = context;
    CHECK(!visited[opened->number]);
    visited[opened->number] = true;
    return 0;
}

static int
stop(void *payload, void *context)
{
    *(void **)context = payload;
    return 7;
}

static void
payloads_are_visited_once_each_until_they_are_given_back(void)
{
    bool visited[7] = {false};
    void *first = NULL;
    pool_start(config_per_key(6));
    struct opened *checking = pool_open_idle(1); /* s1 */
    pool_suspect(checking);
    CHECK(pool_acquire(1)->answer == MGP_ANSWER_WAIT);
    (void)pool_open(2);                    /* s2: active */
    (void)pool_open_idle(3);               /* s3: idle */
    struct caller *closing = pool_open(4); /* s4 */
    pool_release(closing, MGP_VERDICT_BROKEN);
    (void)pool_acquire(5);              /* a creation has no payload */
    struct caller *gone = pool_open(6); /* s5 */
    pool_release(gone, MGP_VERDICT_BROKEN);
    pool_hold_effects();
    pool_close_ended(gone->opened);
    CHECK(mgp_pool_visit_payloads(pool, mark_visited, visited) == 0);
    for (int i = 1; i <= 5; i++) {
        CHECK(visited[i]);
    }
    CHECK(mgp_pool_visit_payloads(pool, stop, &first) == 7 && first != NULL);
    pool_run_effects();
    memset(visited, 0, sizeof(visited));
    CHECK(mgp_pool_visit_payloads(pool, mark_visited, visited) == 0);
    CHECK(visited[4] && !visited[5]);
    pool_end();
}

/* ---- groups --------------------------------------------------------------------- */

static void
start_with_groups(void)
{
    static const char *const groups[][2] = {
        {"", ""}, {"alice", "red"}, {"alice", "blue"}, {"bob", "red"}, {"", "red"}};
    pool_start(config_per_key(2));
    for (int key = 1; key <= 4; key++) {
        for (size_t i = 0; i < 2; i++) {
            pool_spec(key)->groups[i] = (struct mgp_bytes){groups[key][i], strlen(groups[key][i])};
        }
    }
}

static void
eviction_of_a_group_closes_the_idle_sessions_of_its_keys(void)
{
    start_with_groups();
    for (int key = 1; key <= 5; key++) {
        (void)pool_open_idle(key);
    }
    pool_evict_group(0, "alice");
    CHECK_EFFECTS("close s1 manual, close s2 manual");
    pool_evict_group(1, "red");
    CHECK_EFFECTS("close s3 manual, close s4 manual");
    pool_evict_group(1, "alice"); /* another kind of group */
    pool_evict_group(0, "nobody");
    pool_evict_group(0, "");
    CHECK_EFFECTS("");
    CHECK(pool_view(5).idle == 1);
    pool_end();
}

static void
evicted_groups_other_sessions_are_closed_when_they_come_back(void)
{
    start_with_groups();
    struct caller *active = pool_open(1);
    struct caller *creating = pool_acquire(1);
    struct opened *checking = pool_open_idle(2); /* s2 */
    pool_suspect(checking);
    struct caller *waiter = pool_acquire(2);
    CHECK_EFFECTS("probe s2");
    pool_evict_group(0, "alice");
    CHECK_EFFECTS("grant c4"); /* a place */
    pool_release(active, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s1 manual");
    pool_create(creating);
    pool_release(creating, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("close s3 manual");
    pool_checked(checking, true);
    CHECK_EFFECTS("close s2 manual");
    pool_take(waiter);
    CHECK(waiter->answer == MGP_ANSWER_CREATE);
    pool_create(waiter);
    pool_release(waiter, MGP_VERDICT_GOOD); /* made after the eviction */
    CHECK(pool_view(2).idle == 1);
    pool_end();
}

static void
group_is_found_again_after_its_last_key_is_gone(void)
{
    start_with_groups();
    struct opened *s1 = pool_open_idle(3);
    pool_evict_group(0, "bob");
    pool_close_ended(s1);
    CHECK(pool_counts().keys == 0);
    pool_evict_group(0, "bob");
    (void)pool_open_idle(3);
    pool_evict_group(0, "bob");
    CHECK_EFFECTS("close s1 manual, gone s1, close s2 manual");
    pool_end();
}

int
main(void)
{
    RUN(drain_closes_idle_sessions_at_the_next_upkeep);
    RUN(drained_idle_session_is_not_handed_out_before_upkeep_ran);
    RUN(session_in_use_finishes_its_call_and_closes_on_release);
    RUN(creation_in_flight_at_a_drain_is_used_once_by_its_own_caller);
    RUN(unwanted_creation_in_flight_at_a_drain_is_closed);
    RUN(session_under_a_check_at_a_drain_is_closed_after_it);
    RUN(drain_twice_closes_each_session_once);
    RUN(drain_reaches_sessions_whatever_their_times_say);
    RUN(close_closes_everything_and_wakes_every_waiter);
    RUN(closed_pool_refuses);
    RUN(session_created_after_the_close_is_taken_over_and_closed);
    RUN(what_was_granted_before_the_close_is_taken_back);
    RUN(cancelling_what_was_granted_before_the_close_changes_nothing);
    RUN(waiter_cancelled_before_its_failure_was_delivered_is_not_woken);
    RUN(probe_not_yet_delivered_turns_into_the_close);
    RUN(flag_alone_refuses_acquires_and_closes_what_comes_back);
    RUN(waiters_are_not_lost_while_the_flag_is_set);
    RUN(abandoned_sessions_count_as_broken_and_are_given_back);
    RUN(effects_queued_before_an_abandonment_become_gone);
    RUN(granted_waiter_may_outlive_its_pool);
    RUN(creation_abandoned_is_stale_and_stays_its_openers);
    RUN(abandoned_pool_can_be_used_again);
    RUN(trial_that_is_abandoned_lets_the_next_try);
    RUN(payloads_are_visited_once_each_until_they_are_given_back);
    RUN(eviction_of_a_group_closes_the_idle_sessions_of_its_keys);
    RUN(evicted_groups_other_sessions_are_closed_when_they_come_back);
    RUN(group_is_found_again_after_its_last_key_is_gone);
    return harness_end();
}
