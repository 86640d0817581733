/* Leak detection: checkouts that last for too long are reported, each once. */
#include "failing_alloc.h"
#include "pool_fixture.h"

#define LIMIT (30 * SECOND)

/* Nothing else falls due. */
static struct mgp_config
config_of_tracking(void)
{
    struct mgp_config config = pool_config();
    config.lifetime_ns = 1000000 * SECOND;
    config.idle_timeout_ns = 1000000 * SECOND;
    config.health_interval_ns = 1000000 * SECOND;
    config.leak_detection_ns = LIMIT;
    return config;
}

static struct caller *
open_tracked(int key)
{
    struct caller *caller = pool_open(key);
    pool_track(caller);
    return caller;
}

static uint64_t
count_long(void)
{
    return pool_total(MGP_WORD_LONG_CHECKOUTS);
}

/* ---- one checkout --------------------------------------------------------------- */

static void
checkout_is_reported_once_when_it_has_lasted_for_the_limit(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + LIMIT);
    pool_advance(LIMIT - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(count_long() == 0);
    pool_advance(1);
    pool_upkeep();
    CHECK_EFFECTS("long c1");
    CHECK(count_long() == 1);
    CHECK(mgp_pool_is_leased(pool, c1->ticket));
    pool_advance(10 * LIMIT);
    pool_upkeep();
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    CHECK(count_long() == 1);
    pool_end();
}

static void
checkout_that_ends_in_time_is_forgotten(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1);
    pool_advance(LIMIT - 1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c1");
    pool_advance(LIMIT);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(count_long() == 0);
    pool_end();
}

static void
checkout_that_ends_before_upkeep_came_is_reported_all_the_same(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1);
    pool_advance(LIMIT);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("long c1");
    CHECK(count_long() == 1);
    pool_end();
}

static void
each_way_to_a_session_can_be_tracked(void)
{
    struct mgp_config config = config_of_tracking();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    struct caller *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("grant c2");
    pool_advance(LIMIT); /* what comes before its caller has it is none of the checkout */
    pool_take(c2);
    pool_track(c2);
    pool_advance(LIMIT - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c2");
    struct caller *c3 = pool_try_acquire(1);
    pool_track(c3);
    pool_advance(LIMIT);
    pool_upkeep();
    CHECK_EFFECTS("long c3");
    pool_end();
}

static void
sessions_histogram_of_use_does_not_depend_on_it(void)
{
    pool_start(config_of_tracking());
    struct caller *tracked = open_tracked(1), *other = pool_open(2);
    pool_advance(SECOND);
    pool_release(tracked, MGP_VERDICT_GOOD);
    pool_release(other, MGP_VERDICT_GOOD);
    CHECK(pool_total(MGP_WORD_USE_SECONDS + MGP_BUCKET_SUM_OFFSET) == 2 * SECOND);
    pool_end();
}

static void
lease_that_has_ended_is_not_tracked(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = pool_open(1);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK(mgp_pool_track(pool, now_ns, c1->ticket, c1) == MGP_ERR_STALE);
    CHECK(mgp_pool_next_deadline(pool) > now_ns + LIMIT);
    pool_end();
}

static void
without_memory_it_is_not_tracked_and_nothing_has_changed(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = pool_open(1);
    int64_t deadline_ns = mgp_pool_next_deadline(pool);
    failing_alloc_fail_from(1);
    CHECK(mgp_pool_track(pool, now_ns, c1->ticket, c1) == MGP_ERR_NOMEM);
    CHECK(mgp_pool_next_deadline(pool) == deadline_ns);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    struct caller *c2 = pool_try_acquire(1);
    failing_alloc_fail_at(0);
    pool_track(c2);
    failing_alloc_fail_from(1); /* and what comes after needs none */
    pool_advance(LIMIT);
    pool_upkeep();
    CHECK_EFFECTS("long c2");
    failing_alloc_fail_at(0);
    pool_end();
}

/* ---- several ---------------------------------------------------------------------- */

static void
reports_come_in_the_order_of_the_checkouts_one_a_unit_of_upkeep(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1);
    pool_advance(SECOND);
    struct caller *c2 = open_tracked(101);
    pool_advance(SECOND);
    struct caller *c3 = open_tracked(1);
    pool_release(c2, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("untracked c2, close s2 broken");
    CHECK(mgp_pool_next_deadline(pool) == now_ns - 2 * SECOND + LIMIT);
    pool_advance(LIMIT);
    CHECK(pool_upkeep_step());
    CHECK_EFFECTS("long c1");
    CHECK(!pool_upkeep_step());
    CHECK_EFFECTS("long c3");
    CHECK(count_long() == 2);
    CHECK(mgp_pool_is_leased(pool, c1->ticket) && mgp_pool_is_leased(pool, c3->ticket));
    pool_end();
}

static void
reminder_of_a_checkout_that_ended_finds_the_next_one(void)
{
    pool_start(config_of_tracking());
    int64_t start_ns = now_ns;
    struct caller *c1 = open_tracked(1);
    pool_advance(10 * SECOND);
    (void)open_tracked(2);
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c1");
    CHECK(mgp_pool_next_deadline(pool) == start_ns + LIMIT);
    pool_advance(LIMIT - 10 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(mgp_pool_next_deadline(pool) == start_ns + 10 * SECOND + LIMIT);
    pool_advance(10 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("long c2");
    CHECK(mgp_pool_next_deadline(pool) > now_ns + LIMIT); /* nothing is tracked any more */
    pool_end();
}

static void
each_lease_of_a_shared_session_is_tracked_by_itself(void)
{
    struct mgp_config config = config_of_tracking();
    config.max_leases_per_session = 3;
    pool_start(config);
    struct caller *c1 = open_tracked(1);
    pool_advance(SECOND);
    struct caller *c2 = pool_acquire(1);
    pool_track(c2);
    CHECK(c2->opened == c1->opened);
    struct caller *c3 = pool_acquire(1); /* nobody asked for this one */
    pool_advance(LIMIT - SECOND);
    pool_upkeep();
    CHECK_EFFECTS("long c1");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c2");
    pool_advance(LIMIT);
    pool_upkeep();
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c3, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("");
    CHECK(count_long() == 1);
    pool_end();
}

static void
breakers_reminder_and_this_one_do_not_hinder_each_other(void)
{
    struct mgp_config config = config_of_tracking();
    config.breaker_threshold = 1;
    config.breaker_reset_ns = LIMIT;
    pool_start(config);
    struct caller *c1 = pool_acquire(1), *c2 = pool_acquire(2);
    pool_create(c2);
    pool_track(c2);
    pool_create_failed(c1,
                       MGP_FAULT_ENDPOINT); /* began before the newest success: does not count */
    struct caller *c3 = pool_acquire(3);
    pool_create_failed(c3, MGP_FAULT_ENDPOINT);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKERS_OPEN) == 1);
    CHECK(pool_acquire(3)->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK_EFFECTS("");
    pool_advance(LIMIT);
    pool_upkeep();
    CHECK_EFFECTS("long c2");
    CHECK(pool_acquire(3)->answer == MGP_ANSWER_CREATE);
    pool_end();
}

/* ---- settings ----------------------------------------------------------------------- */

static void
switched_off_nothing_is_reported(void)
{
    struct mgp_config config = config_of_tracking();
    config.leak_detection_ns = 0;
    pool_start(config);
    struct caller *c1 = open_tracked(1);
    pool_advance(100 * LIMIT);
    CHECK(mgp_pool_next_deadline(pool) > now_ns);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_release(c1, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c1");
    CHECK(count_long() == 0);
    pool_end();
}

static void
changed_limit_holds_for_what_is_checked_out(void)
{
    struct mgp_config config = config_of_tracking();
    pool_start(config);
    (void)open_tracked(1);
    pool_advance(SECOND);
    (void)open_tracked(2);
    config.leak_detection_ns = 0;
    mgp_pool_configure(pool, &config);
    pool_advance(2 * LIMIT - SECOND); /* the first is two limits old */
    pool_upkeep();
    CHECK_EFFECTS("");
    config.leak_detection_ns = 2 * LIMIT;
    mgp_pool_configure(pool, &config);
    pool_upkeep();
    CHECK_EFFECTS("long c1");
    CHECK(mgp_pool_next_deadline(pool) == now_ns + SECOND);
    config.leak_detection_ns = LIMIT;
    mgp_pool_configure(pool, &config);
    pool_upkeep();
    CHECK_EFFECTS("long c2");
    pool_end();
}

static void
limit_beyond_all_bounds_overflows_nothing(void)
{
    struct mgp_config config = config_of_tracking();
    config.leak_detection_ns = INT64_MAX;
    pool_start(config);
    (void)open_tracked(1);
    pool_advance(INT64_MAX / 8);
    pool_upkeep();
    CHECK(count_long() == 1);
    pool_end();
}

/* ---- the ends of it all ----------------------------------------------------------------- */

static void
trace_comes_back_whatever_ends_the_checkout(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1), *c2 = open_tracked(1), *c3 = open_tracked(1);
    pool_release(c1, MGP_VERDICT_LEAKED);
    CHECK_EFFECTS("untracked c1, close s1 leaked");
    pool_retire(c2->opened);
    pool_drain();
    pool_broken(c3->opened);
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_GOOD);
    CHECK_EFFECTS("untracked c2, close s2 manual");
    pool_close();
    CHECK_EFFECTS("untracked c3, close s3 manual");
    pool_end();
}

static void
close_and_abandon_give_back_all_traces(void)
{
    pool_start(config_of_tracking());
    (void)open_tracked(1);
    pool_close();
    CHECK_EFFECTS("untracked c1, close s1 manual");
    pool_end();
    pool_start(config_of_tracking());
    (void)open_tracked(1);
    pool_advance(LIMIT);
    pool_abandon();
    CHECK_EFFECTS("long c1, gone s1");
    pool_end();
}

static void
report_may_wait_while_its_checkout_ends(void)
{
    pool_start(config_of_tracking());
    struct caller *c1 = open_tracked(1);
    pool_advance(LIMIT);
    pool_hold_effects();
    pool_upkeep();
    pool_release(c1, MGP_VERDICT_BROKEN);
    struct caller *c2 = open_tracked(1);
    pool_release(c2, MGP_VERDICT_GOOD);
    pool_run_effects();
    CHECK_EFFECTS("long c1, close s1 broken, untracked c2");
    CHECK(count_long() == 1);
    pool_end();
}

int
main(void)
{
    RUN(checkout_is_reported_once_when_it_has_lasted_for_the_limit);
    RUN(checkout_that_ends_in_time_is_forgotten);
    RUN(checkout_that_ends_before_upkeep_came_is_reported_all_the_same);
    RUN(each_way_to_a_session_can_be_tracked);
    RUN(sessions_histogram_of_use_does_not_depend_on_it);
    RUN(lease_that_has_ended_is_not_tracked);
    RUN(without_memory_it_is_not_tracked_and_nothing_has_changed);
    RUN(reports_come_in_the_order_of_the_checkouts_one_a_unit_of_upkeep);
    RUN(reminder_of_a_checkout_that_ended_finds_the_next_one);
    RUN(each_lease_of_a_shared_session_is_tracked_by_itself);
    RUN(breakers_reminder_and_this_one_do_not_hinder_each_other);
    RUN(switched_off_nothing_is_reported);
    RUN(changed_limit_holds_for_what_is_checked_out);
    RUN(limit_beyond_all_bounds_overflows_nothing);
    RUN(trace_comes_back_whatever_ends_the_checkout);
    RUN(close_and_abandon_give_back_all_traces);
    RUN(report_may_wait_while_its_checkout_ends);
    return harness_end();
}
