/* Out of memory: an acquire, or a failure to note, that cannot have what it needs changes
 * nothing, and nothing else needs memory. */
#include <string.h>

#include "failing_alloc.h"
#include "pool_fixture.h"

#define KEYS 24

/* What an operation that failed must have left as it was. */
struct snapshot {
    struct mgp_pool_counts counts;
    uint64_t totals[MGP_WORD_COUNT];
    int64_t deadline_ns;
    struct mgp_key_view views[KEYS];
};

static bool has_failed; /* any allocation of the scenario */
static bool fails_on;   /* from the n-th on, until an operation has failed for it */

static void
take_snapshot(struct snapshot *snapshot)
{
    snapshot->counts = pool_counts();
    memcpy(snapshot->totals, mgp_pool_totals(pool), sizeof(snapshot->totals));
    snapshot->deadline_ns = mgp_pool_next_deadline(pool);
    for (int key = 0; key < KEYS; key++) {
        snapshot->views[key] = pool_view(key);
    }
}

static void
check_unchanged(const struct snapshot *before)
{
    struct snapshot after;
    take_snapshot(&after);
    CHECK(memcmp(&before->counts, &after.counts, sizeof(after.counts)) == 0);
    CHECK(memcmp(before->totals, after.totals, sizeof(after.totals)) == 0);
    CHECK(before->deadline_ns == after.deadline_ns);
    CHECK(memcmp(before->views, after.views, sizeof(after.views)) == 0);
    CHECK(!mgp_pool_has_effects(pool));
}

static void
fail_nothing_more(void)
{
    has_failed |= failing_alloc_has_failed();
    failing_alloc_fail_at(0);
}

/* Acquires; where memory is short, checks that nothing happened, and tries again. */
static struct caller *
acquire(int key)
{
    struct snapshot before;
    memset(&before, 0, sizeof(before));
    take_snapshot(&before);
    struct caller *caller = pool_acquire(key);
    if (caller->status == MGP_ERR_NOMEM) {
        CHECK(failing_alloc_has_failed());
        check_unchanged(&before);
        fail_nothing_more();
        caller = pool_acquire(key);
    }
    CHECK(caller->status != MGP_ERR_NOMEM);
    return caller;
}

static struct caller *
try_acquire(int key)
{
    bool had_failed = failing_alloc_has_failed();
    struct snapshot before;
    memset(&before, 0, sizeof(before));
    take_snapshot(&before);
    struct caller *caller = pool_try_acquire(key);
    if (caller == NULL) {
        CHECK(failing_alloc_has_failed() && (fails_on || !had_failed));
        check_unchanged(&before);
        fail_nothing_more();
        caller = pool_try_acquire(key);
    }
    CHECK(caller != NULL);
    return caller;
}

static struct caller *
open_session(int key)
{
    struct caller *caller = acquire(key);
    CHECK(caller->answer == MGP_ANSWER_CREATE);
    pool_create(caller);
    return caller;
}

static struct mgp_config
config_of_scenario(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 2;
    config.max_total_keys = KEYS - 4;
    config.max_total_sessions = 40;
    return config;
}

/* Every way through an acquire, and enough of everything that each array grows. */
static void
run_scenario(void)
{
    struct caller *first[KEYS], *waiters[KEYS][3];
    for (int key = 0; key < KEYS; key++) {
        pool_spec(key)->groups[0] = (struct mgp_bytes){key % 2 == 0 ? "even" : "odd", 3};
        if (key % 3 == 0) {
            pool_spec(key)->groups[1] = (struct mgp_bytes){"third", 5};
        }
    }
    /* A lease for who needs no other memory: the spare one is promised to the creation. */
    struct caller *idle = open_session(0);
    pool_release(idle, MGP_VERDICT_GOOD);
    struct caller *creation = acquire(1);
    struct caller *hit = try_acquire(0);
    pool_create_failed(creation, MGP_FAULT_ENDPOINT);
    pool_release(hit, MGP_VERDICT_GOOD);

    for (int key = 0; key < KEYS - 4; key++) {
        first[key] = key == 0 ? acquire(key) : open_session(key);
        (void)open_session(key);
        for (int i = 0; i < 3; i++) {
            waiters[key][i] = acquire(key);
            CHECK(waiters[key][i]->answer == MGP_ANSWER_WAIT);
        }
    }
    CHECK(acquire(KEYS - 1)->status == MGP_ERR_EXHAUSTED);
    for (int key = 0; key < KEYS - 4; key++) {
        pool_release(first[key], key % 2 == 0 ? MGP_VERDICT_GOOD : MGP_VERDICT_BROKEN);
        if (key % 2 != 0) {
            pool_close_ended(first[key]->opened);
        }
        pool_take(waiters[key][0]);
        if (waiters[key][0]->answer == MGP_ANSWER_CREATE) {
            pool_create(waiters[key][0]);
        }
        pool_cancel(waiters[key][1], MGP_CANCEL_BY_TIMEOUT);
        pool_cancel(waiters[key][2], MGP_CANCEL_BY_CALLER);
    }
    /* A new key in place of an old one; a waiter for the place of a victim. */
    for (int key = 0; key < 4; key++) {
        pool_release(waiters[key][0], MGP_VERDICT_GOOD);
    }
    pool_evict_group(0, "odd");
    struct caller *late = acquire(KEYS - 1);
    CHECK(late->answer == MGP_ANSWER_WAIT || late->status == MGP_ERR_EXHAUSTED);
    (void)acquire(5);
    pool_advance(60 * SECOND);
    (void)acquire(2); /* a check */
    pool_upkeep();
}

static void
run_with_failures(void)
{
    size_t n = 0;
    do {
        n++;
        has_failed = false;
        pool_start(config_of_scenario());
        if (fails_on) {
            failing_alloc_fail_from(n);
        } else {
            failing_alloc_fail_at(n);
        }
        run_scenario();
        fail_nothing_more();
        pool_end();
    } while (has_failed);
    CHECK(n > 100);
}

static void
acquire_whose_nth_allocation_fails_changes_nothing(void)
{
    fails_on = false;
    run_with_failures();
}

static void
acquire_for_which_no_memory_is_left_changes_nothing(void)
{
    fails_on = true;
    run_with_failures();
}

static void
pool_that_cannot_be_made_is_not_made(void)
{
    struct mgp_config config = pool_config();
    for (size_t n = 1;; n++) {
        struct mgp_pool *made = NULL;
        failing_alloc_install();
        failing_alloc_fail_at(n);
        int status = mgp_pool_new(&config, &made);
        bool is_short = failing_alloc_has_failed();
        CHECK(status == (is_short ? MGP_ERR_NOMEM : MGP_OK));
        CHECK((made == NULL) == is_short);
        mgp_pool_free(made);
        failing_alloc_uninstall();
        if (!is_short) {
            break;
        }
    }
}

static void
nothing_but_acquire_needs_memory(void)
{
    struct mgp_config config = pool_config();
    config.max_sessions_per_key = 1;
    config.breaker_threshold = 2;
    pool_start(config);
    pool_spec(1)->groups[0] = (struct mgp_bytes){"group", 5};
    struct caller *c1 = pool_acquire(1), *c2 = pool_acquire(1), *c3 = pool_acquire(1);
    struct caller *c4 = pool_acquire(1), *c5 = pool_acquire(2), *c6 = pool_acquire(101);
    struct caller *c7 = pool_acquire(102), *c8 = pool_acquire(1), *c9 = pool_acquire(3);
    struct caller *c10 = pool_acquire(4), *c11 = pool_acquire(5), *c12 = pool_acquire(5);
    failing_alloc_fail_from(1);
    CHECK(pool_acquire(6)->status == MGP_ERR_NOMEM);
    pool_create(c1);
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_take(c2);
    pool_release(c2, MGP_VERDICT_BROKEN);
    pool_close_ended(c2->opened);
    pool_take(c3);
    CHECK(c3->answer == MGP_ANSWER_CREATE);
    pool_create_failed(c3, MGP_FAULT_CALLER);
    pool_take(c4);
    pool_unwanted(c4);
    (void)pool_created(c4);
    pool_cancel(c8, MGP_CANCEL_BY_TIMEOUT);
    pool_unwanted(c5);
    (void)pool_created(c5);
    pool_create_failed(c6, MGP_FAULT_ENDPOINT);
    pool_create_failed(c7, MGP_FAULT_ENDPOINT); /* opens the breaker */
    (void)pool_created(c9);
    pool_undo(c9);
    pool_create(c10);
    pool_set_last_used(c10->opened, now_ns - SECOND);
    pool_set_created(c10->opened, now_ns - SECOND);
    pool_suspect(c10->opened);
    pool_release(c10, MGP_VERDICT_GOOD);
    pool_advance(60 * SECOND);
    pool_upkeep();
    pool_drain();
    pool_upkeep();
    pool_evict_group(0, "group");
    pool_close();
    pool_create_failed(c11, MGP_FAULT_CALLER);
    CHECK(c12->status == MGP_ERR_CLOSED);
    pool_abandon();
    pool_advance(1000 * SECOND);
    pool_upkeep();
    CHECK(pool_counts().endpoints == 0);
    failing_alloc_fail_at(0);
    pool_end();
}

static void
failure_to_note_whose_nth_allocation_fails_changes_nothing(void)
{
    size_t failed = 0;
    for (int status = MGP_ERR_NOMEM; status != MGP_OK; failed++) {
        struct snapshot before;
        memset(&before, 0, sizeof(before));
        pool_start(pool_config());
        struct mgp_key_spec *spec = pool_spec(1);
        take_snapshot(&before);
        failing_alloc_fail_at(failed + 1);
        status = mgp_pool_note_failure(pool, now_ns, spec->endpoint, spec->row);
        failing_alloc_fail_at(0);
        if (status != MGP_OK) {
            CHECK(status == MGP_ERR_NOMEM);
            check_unchanged(&before);
        }
        pool_check();
        pool_end();
    }
    CHECK(failed > 1);
}

int
main(void)
{
    RUN(acquire_whose_nth_allocation_fails_changes_nothing);
    RUN(acquire_for_which_no_memory_is_left_changes_nothing);
    RUN(pool_that_cannot_be_made_is_not_made);
    RUN(nothing_but_acquire_needs_memory);
    RUN(failure_to_note_whose_nth_allocation_fails_changes_nothing);
    return harness_end();
}
