/* Random operations against a naive model of what the pool promises.
 *
 * The model (pool_model.h) predicts the answer of each operation, what becomes of the
 * session or waiter that the operation names, and every counter (pool_model_acquire.h,
 * pool_model_operations.h). What else the machine did (whom it granted what, which idle
 * sessions it checked or closed) is read from its structs; the model judges whether it was
 * allowed to, and then whether it left something undone (pool_model_judge.h,
 * pool_model_ahead.h, pool_model_tracking.h). So where several decisions are right, none is
 * prescribed.
 *
 *   MGP_TEST_OPERATIONS=100000000   a long run; `make check-long` shares it between two processes
 *   MGP_TEST_SEED=12345             other numbers; a failure says which seed replays its run */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "failing_alloc.h"
#include "harness.h"
#include "pool_model_changes.h"
#include "pool_model_judge.h"
#include "pool_model_operations.h"
#include "pool_model_tracking.h"

#define DEFAULT_OPERATIONS 300000
#define OPERATIONS_PER_RUN 1500

static uint64_t run_seed;

static void
on_abort(int number)
{
    char text[160];
    int size = snprintf(text, sizeof(text),
                        "operation %" PRIu64 " (kind %d) of the run; MGP_TEST_SEED=%" PRIu64
                        " starts with this run\n",
                        operation_number, (int)operation, run_seed);
    ssize_t written = write(STDERR_FILENO, text, (size_t)size);
    (void)written;
    signal(number, SIG_DFL);
}

/* ---- effects ------------------------------------------------------------------------ */

static void
deliver_to_waiter(struct waiter *waiter, const struct mgp_effect *effect)
{
    CHECK(waiter->is_used && !waiter->is_delivered);
    waiter->is_delivered = true;
    if (effect->kind == MGP_EFFECT_FAIL) {
        CHECK(waiter->state == MGP_WAITER_FAILED && waiter->status == effect->status);
        waiter->is_used = false;
        return;
    }
    CHECK(waiter->state == MGP_WAITER_GRANTED_SESSION || waiter->state == MGP_WAITER_GRANTED_PLACE);
    CHECK(waiter->number > keys[waiter->key].last_granted); /* oldest first */
    keys[waiter->key].last_granted = waiter->number;
}

static void
deliver_to_session(struct session *session, const struct mgp_effect *effect)
{
    CHECK(session->is_used && session->effect == (int)effect->kind);
    session->effect = NEVER;
    if (effect->kind == MGP_EFFECT_CLOSE) {
        CHECK(session->state == MGP_SESSION_CLOSING && session->reason == effect->reason);
        session->close = effect->ticket;
    } else if (effect->kind == MGP_EFFECT_PROBE) {
        CHECK(session->state == MGP_SESSION_CHECKING && may_probe(endpoint_of(session->key)));
        session->check = effect->ticket;
        count(session->key, MGP_WORD_HEALTH_CHECKS, 1);
    } else {
        CHECK(session->state == MGP_SESSION_GONE);
        session->is_used = false;
        gone_total++;
    }
}

/* False when there was none. */
static bool
deliver_effect(void)
{
    struct mgp_effect effect;
    if (!mgp_pool_next_effect(pool, &effect)) {
        for (int i = 0; i < session_end; i++) {
            /* Checks are deferred while as many are under way as may be. */
            CHECK(!sessions[i].is_used || sessions[i].effect == NEVER ||
                  (sessions[i].effect == MGP_EFFECT_PROBE &&
                   !may_probe(endpoint_of(sessions[i].key))));
        }
        for (int i = 0; i < waiter_end; i++) {
            CHECK(!waiters[i].is_used || waiters[i].state == MGP_WAITER_WAITING ||
                  waiters[i].is_delivered);
        }
        check_traces_delivered();
        return false;
    }
    if (effect.trace != NULL) {
        deliver_trace(&effect);
    } else if (effect.kind == MGP_EFFECT_CREATE) {
        deliver_create(&effect);
    } else if (effect.kind == MGP_EFFECT_GRANT || effect.kind == MGP_EFFECT_FAIL) {
        deliver_to_waiter(effect.payload, &effect);
    } else {
        deliver_to_session(effect.payload, &effect);
    }
    return true;
}

/* ---- runs ---------------------------------------------------------------------------- */

static enum operation
any_operation(void)
{
    static const struct {
        enum operation operation;
        unsigned weight;
    } weights[] = {
        {OP_TRY_ACQUIRE, 60}, {OP_ACQUIRE, 200},      {OP_TAKE, 90},       {OP_CANCEL, 25},
        {OP_CREATED, 80},     {OP_CREATE_FAILED, 40}, {OP_UNWANTED, 10},   {OP_ANSWER, 80},
        {OP_UNDO, 10},        {OP_RELEASE, 140},      {OP_BROKEN, 6},      {OP_MARK_BROKEN, 3},
        {OP_SUSPECT, 10},     {OP_DOUBT, 6},          {OP_SET_CREATED, 4}, {OP_SET_LAST_USED, 8},
        {OP_CHECKED, 70},     {OP_CLOSE_ENDED, 90},   {OP_DRAIN, 3},       {OP_CLOSE, 1},
        {OP_SET_CLOSED, 1},   {OP_ABANDON, 1},        {OP_EVICT_GROUP, 6}, {OP_RETIRE, 6},
        {OP_UPKEEP, 60},      {OP_STALE, 30},         {OP_EFFECTS, 60},    {OP_WARM, 12},
        {OP_TRACK, 60},
    };
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
        sum += weights[i].weight;
    }
    size_t number = harness_random_below(sum);
    size_t i = 0;
    while (number >= weights[i].weight) {
        number -= weights[i].weight;
        i++;
    }
    return weights[i].operation;
}

static void
operate(void)
{
    switch (operation) {
    case OP_TRY_ACQUIRE:
        do_try_acquire();
        break;
    case OP_ACQUIRE:
        do_acquire();
        break;
    case OP_TAKE:
        do_take();
        break;
    case OP_CANCEL:
        do_cancel();
        break;
    case OP_CREATED:
        do_created();
        break;
    case OP_CREATE_FAILED:
        do_create_failed();
        break;
    case OP_UNWANTED:
        do_unwanted();
        break;
    case OP_ANSWER:
        do_answer();
        break;
    case OP_UNDO:
        do_undo();
        break;
    case OP_RELEASE:
        do_release();
        break;
    case OP_BROKEN:
        do_broken(false);
        break;
    case OP_MARK_BROKEN:
        do_broken(true);
        break;
    case OP_SUSPECT:
        do_suspect();
        break;
    case OP_DOUBT:
        do_doubt();
        break;
    case OP_SET_CREATED:
        do_set_times(true);
        break;
    case OP_SET_LAST_USED:
        do_set_times(false);
        break;
    case OP_CHECKED:
        do_checked();
        break;
    case OP_CLOSE_ENDED:
        do_close_ended();
        break;
    case OP_DRAIN:
        do_drain();
        break;
    case OP_CLOSE:
        do_close();
        break;
    case OP_SET_CLOSED:
        do_set_closed(chance(2));
        break;
    case OP_ABANDON:
        do_abandon();
        break;
    case OP_EVICT_GROUP:
        do_evict_group();
        break;
    case OP_RETIRE:
        do_retire();
        break;
    case OP_UPKEEP:
        do_upkeep();
        break;
    case OP_WARM:
        do_warm(any_key());
        break;
    case OP_TRACK:
        do_track(any_lease(true));
        break;
    case OP_STALE:
        do_stale();
        break;
    case OP_EFFECTS:
        (void)deliver_effect();
        break;
    case OP_COUNT:
        break;
    }
}

static void
step(enum operation kind)
{
    operation = kind;
    operation_number++;
    operation_key = NEVER;
    opened_endpoint = NEVER;
    evicted_key = NEVER;
    upkeep_is_complete = false;
    checks_expected = 0;
    served_count = 0;
    while (session_end > 0 && !sessions[session_end - 1].is_used) {
        session_end--;
    }
    while (lease_end > 0 && !leases[lease_end - 1].is_used) {
        lease_end--;
    }
    while (waiter_end > 0 && !waiters[waiter_end - 1].is_used) {
        waiter_end--;
    }
    for (int key = 0; key < KEYS; key++) {
        was_unused[key] = keys[key].exists && !is_used(key);
    }
    operate();
    reconcile_traces();
    reconcile_ahead();
    reconcile_waiters();
    reconcile_sessions();
    reconcile_keys();
    reconcile_endpoints();
    check_pool();
    check_tracking();
}

static uint32_t
one_of(const uint32_t *numbers, size_t size)
{
    return numbers[harness_random_below(size)];
}

#define ONE_OF(...)                                                                                \
    one_of((const uint32_t[]){__VA_ARGS__},                                                        \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void
start(void)
{
    memset(sessions, 0, sizeof(sessions));
    memset(leases, 0, sizeof(leases));
    memset(waiters, 0, sizeof(waiters));
    memset(traces, 0, sizeof(traces));
    memset(keys, 0, sizeof(keys));
    memset(totals, 0, sizeof(totals));
    memset(row_totals, 0, sizeof(row_totals));
    memset(specs, 0, sizeof(specs));
    memset(stale_tickets, 0, sizeof(stale_tickets));
    keys_evicted = sessions_reaped = answered = arrivals = events = 0;
    gone_total = opened_total = 0;
    session_end = lease_end = waiter_end = 0;
    operation_number = 0;
    is_closed = false;
    now_ns = harness_random_ns_below(1000 * SECOND);
    next_check_ns = INT64_MIN;
    config = (struct mgp_config){
        .max_sessions_per_key = ONE_OF(1, 1, 2, 3, 5),
        .max_total_sessions = ONE_OF(0, 0, 1, 2, 3, 4, 6, 9),
        .max_total_keys = ONE_OF(0, 0, 0, 1, 2, 3, 5),
        .max_waiters_per_key = ONE_OF(0, 0, 0, 1, 3),
        .max_leases_per_session = ONE_OF(1, 1, 1, 2, 3),
        .max_creating_per_endpoint = ONE_OF(0, 0, 1, 2),
        .max_remembered_endpoints = ONE_OF(0, 1, 2, 100),
        .breaker_threshold = ONE_OF(1, 2, 3, 5, 1000),
        .breaker_reset_ns = SECOND * ONE_OF(1, 5),
        .lifetime_ns = SECOND * ONE_OF(0, 10, 50, 1000),
        .lifetime_jitter = chance(2) ? 0.0 : 0.3,
        .idle_timeout_ns = SECOND * ONE_OF(0, 5, 20, 1000),
        .health_interval_ns = SECOND * ONE_OF(0, 2, 10, 1000),
        .checks_per_second = ONE_OF(1, 10, 1000),
        .min_idle_per_key = ONE_OF(0, 0, 0, 1, 2),
        .replaces_sessions = chance(2),
        .leak_detection_ns = SECOND * ONE_OF(0, 1, 5, 20),
        .random_seed = harness_random(),
        .hash_key = {harness_random(), harness_random()},
    };
    for (int i = 0; i < ENDPOINTS; i++) {
        sprintf(endpoint_names[i], "endpoint-%d", i);
        endpoints[i] = (struct endpoint){.state = MGP_BREAKER_CLOSED, .trip_row = NEVER};
    }
    for (int i = 0; i < GROUP_NAMES; i++) {
        sprintf(group_names[i], "group-%d", i);
    }
    for (int row = 0; row < ROWS; row++) {
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_atomic_store(&row_words[row][word], 0);
        }
        rows[row] = (struct mgp_row){.words = row_words[row]};
    }
    for (int key = 0; key < KEYS; key++) {
        struct mgp_key_spec *spec = &specs[key];
        const char *endpoint = endpoint_names[endpoint_of(key)];
        sprintf(key_names[key], "key-%d", key);
        spec->key = (struct mgp_bytes){key_names[key], strlen(key_names[key])};
        spec->endpoint = (struct mgp_bytes){endpoint, strlen(endpoint)};
        spec->row = &rows[row_of(key)];
        spec->is_anonymous = key == 1;
        spec->is_single_use = key == 2;
        for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
            size_t group = harness_random_below(GROUP_NAMES + 1);
            if (group < GROUP_NAMES) {
                spec->groups[i] =
                    (struct mgp_bytes){group_names[group], strlen(group_names[group])};
            }
        }
    }
    failing_alloc_install();
    CHECK(mgp_pool_new(&config, &pool) == MGP_OK);
}

static void
end(void)
{
    if (chance(2)) {
        step(OP_CLOSE);
    }
    step(OP_ABANDON);
    while (deliver_effect()) {
    }
    for (int i = 0; i < waiter_end; i++) {
        struct waiter *waiter = &waiters[i];
        if (waiter->is_used) {
            CHECK(waiter->is_delivered && waiter->lease == NULL && waiter->session == NULL);
            mgp_pool_cancel(pool, now_ns, waiter->core, MGP_CANCEL_BY_CALLER);
        }
    }
    for (int i = 0; i < session_end; i++) {
        CHECK(!sessions[i].is_used);
    }
    CHECK(gone_total == opened_total);
    mgp_pool_free(pool);
    for (int row = 0; row < ROWS; row++) {
        CHECK(rows[row].holds == 0);
    }
    failing_alloc_uninstall();
}

static void
run(uint64_t operations)
{
    start();
    /* Effects are drained at once, or as it happens. */
    bool drains_at_once = chance(3);
    while (operation_number < operations) {
        now_ns += any_duration();
        enum operation kind = any_operation();
        bool is_rare = kind == OP_CLOSE || kind == OP_ABANDON || kind == OP_SET_CLOSED;
        if (is_rare && !chance(3)) {
            continue;
        }
        if (is_closed && chance(20)) {
            do_set_closed(false);
        }
        step(kind);
        while (drains_at_once ? true : chance(2)) {
            if (!deliver_effect()) {
                break;
            }
        }
        unsigned queued = 0;
        for (int i = 0; i < session_end; i++) {
            queued += sessions[i].is_used && sessions[i].effect != NEVER;
        }
        for (int i = 0; i < TRACES_MAX; i++) {
            queued += traces[i].is_used && traces[i].is_ended;
        }
        while (queued > 50 && deliver_effect()) {
        }
    }
    end();
}

static void
machine_does_what_the_model_allows(void)
{
    const char *text = getenv("MGP_TEST_OPERATIONS");
    uint64_t operations =
        text == NULL || *text == '\0' ? DEFAULT_OPERATIONS : strtoull(text, NULL, 0);
    run_seed = harness_seed();
    uint64_t operations_total = operations, opened = 0, grants = 0, runs = 0;
    while (operations > 0) {
        uint64_t size = operations < OPERATIONS_PER_RUN ? operations : OPERATIONS_PER_RUN;
        harness_random_seed(run_seed * 0x9e3779b97f4a7c15u);
        run(size);
        operations -= size;
        run_seed++;
        runs++;
        opened += opened_total;
        grants += answered;
    }
    if (text == NULL || *text == '\0') {
        return;
    }
    printf("%" PRIu64 " random operations in %" PRIu64 " runs: %" PRIu64
           " acquires answered, %" PRIu64
           " sessions opened and closed, each step as the model allows\n",
           operations_total, runs, grants, opened);
}

int
main(void)
{
    signal(SIGABRT, on_abort);
    RUN(machine_does_what_the_model_allows);
    return harness_end();
}
