#include "pool_fixture.h"

#include <stdio.h>
#include <string.h>

#include "failing_alloc.h"

#define CALLERS_MAX 20000
#define SESSIONS_MAX 20000
#define ROWS (KEYS_MAX / 100)

struct mgp_pool *pool;
int64_t now_ns;

static struct caller callers[CALLERS_MAX];
static struct opened sessions[SESSIONS_MAX];
static int caller_count;
static int session_count;
static uint64_t answered;
static bool holds_effects;
static char effects_log[1 << 16];

static struct {
    struct mgp_key_spec spec;
    char key[24];
    char endpoint[24];
} keys[KEYS_MAX];
static mgp_atomic_u64 row_words[ROWS][MGP_WORD_COUNT];
static struct mgp_row rows[ROWS];

struct mgp_config
pool_config(void)
{
    return (struct mgp_config){
        .max_sessions_per_key = 10,
        .max_leases_per_session = 1,
        .max_remembered_endpoints = 100,
        .breaker_threshold = 5,
        .breaker_reset_ns = 60 * SECOND,
        .lifetime_ns = 300 * SECOND,
        .idle_timeout_ns = 600 * SECOND,
        .health_interval_ns = 60 * SECOND,
        .checks_per_second = 10,
        .random_seed = 1,
        .hash_key = {2, 3},
    };
}

struct mgp_config
pool_config_long_lived(void)
{
    struct mgp_config config = pool_config();
    config.lifetime_ns = 100000 * SECOND;
    return config;
}

void
pool_name(char *name, struct mgp_bytes *bytes, const char *prefix, int number)
{
    bytes->bytes = name;
    bytes->size = (size_t)sprintf(name, "%s-%d", prefix, number);
}

struct mgp_key_spec *
pool_spec(int key)
{
    CHECK(key >= 0 && key < KEYS_MAX);
    struct mgp_key_spec *spec = &keys[key].spec;
    if (spec->row == NULL) {
        pool_name(keys[key].key, &spec->key, "key", key);
        pool_name(keys[key].endpoint, &spec->endpoint, "endpoint", key / 100);
        spec->row = &rows[key / 100];
    }
    return spec;
}

void
pool_start(struct mgp_config config)
{
    memset(callers, 0, (size_t)caller_count * sizeof(callers[0]));
    memset(sessions, 0, (size_t)session_count * sizeof(sessions[0]));
    memset(keys, 0, sizeof(keys));
    for (size_t i = 0; i < ROWS; i++) {
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_atomic_store(&row_words[i][word], 0);
        }
        rows[i] = (struct mgp_row){.words = row_words[i]};
    }
    caller_count = 0;
    session_count = 0;
    answered = 0;
    holds_effects = false;
    effects_log[0] = '\0';
    now_ns = 1000 * SECOND;
    failing_alloc_install();
    CHECK(mgp_pool_new(&config, &pool) == MGP_OK);
}

void
pool_advance(int64_t duration_ns)
{
    now_ns += duration_ns;
}

/* ---- effects ---------------------------------------------------------------- */

static void
log_effect(const char *what, char kind, int number, const char *detail)
{
    size_t length = strlen(effects_log);
    CHECK(length + 64 < sizeof(effects_log));
    sprintf(effects_log + length, "%s%s %c%d%s%s", length > 0 ? ", " : "", what, kind, number,
            detail[0] != '\0' ? " " : "", detail);
}

static struct caller *
new_caller(int key)
{
    CHECK(caller_count < CALLERS_MAX);
    struct caller *caller = &callers[caller_count++];
    caller->number = caller_count;
    caller->key = key;
    return caller;
}

static void
apply_effect(const struct mgp_effect *effect)
{
    struct caller *caller = effect->payload;
    struct opened *opened = effect->payload;
    switch (effect->kind) {
    case MGP_EFFECT_GRANT:
        CHECK(caller->waiter != NULL);
        caller->is_granted = true;
        log_effect("grant", 'c', caller->number, "");
        break;
    case MGP_EFFECT_FAIL:
        CHECK(caller->waiter != NULL);
        caller->waiter = NULL;
        caller->status = effect->status;
        log_effect("fail", 'c', caller->number,
                   effect->status == MGP_ERR_CLOSED ? "closed" : "circuit_open");
        CHECK(effect->status == MGP_ERR_CLOSED || effect->status == MGP_ERR_CIRCUIT_OPEN);
        break;
    case MGP_EFFECT_CLOSE:
        CHECK(mgp_session_is_closing(opened->session));
        opened->close = effect->ticket;
        log_effect("close", 's', opened->number, mgp_eviction_reason_names[effect->reason]);
        break;
    case MGP_EFFECT_PROBE:
        opened->probe = effect->ticket;
        log_effect("probe", 's', opened->number, "");
        break;
    case MGP_EFFECT_CREATE: /* nobody's: the fixture is its caller */
        caller = new_caller(0);
        caller->answer = MGP_ANSWER_CREATE;
        caller->ticket = effect->ticket;
        log_effect("create", 'c', caller->number, "");
        break;
    case MGP_EFFECT_LONG_CHECKOUT:
    case MGP_EFFECT_UNTRACKED:
        caller = effect->trace;
        CHECK(caller->is_tracked && caller->opened == opened && opened->gone == 0);
        caller->is_tracked = false;
        log_effect(effect->kind == MGP_EFFECT_UNTRACKED ? "untracked" : "long", 'c', caller->number,
                   "");
        break;
    case MGP_EFFECT_GONE:
        opened->gone++;
        opened->session = NULL;
        log_effect("gone", 's', opened->number, "");
        break;
    }
}

void
pool_run_effects(void)
{
    struct mgp_effect effect;
    while (mgp_pool_next_effect(pool, &effect)) {
        pool_check();
        apply_effect(&effect);
    }
    holds_effects = false;
}

void
pool_hold_effects(void)
{
    holds_effects = true;
}

void
pool_check_effects(const char *file, int line, const char *expected)
{
    if (strcmp(effects_log, expected) != 0) {
        fprintf(stderr, "expected effects: %s\n", expected);
        fprintf(stderr, "          actual: %s\n", effects_log);
        harness_fail(file, line, "these are the effects");
    }
    effects_log[0] = '\0';
}

/* ---- checks ----------------------------------------------------------------- */

void
pool_check(void)
{
    const uint64_t *totals = mgp_pool_totals(pool);
    mgp_pool_check(pool);
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        uint64_t sum = 0;
        for (size_t i = 0; i < ROWS; i++) {
            sum += mgp_atomic_load(&row_words[i][word]);
        }
        /* A pool has no word of its own for the oldest of all that wait. */
        CHECK(sum == totals[word] || word == MGP_WORD_OLDEST_WAITER_SECONDS);
    }
    CHECK(totals[MGP_WORD_HITS] + totals[MGP_WORD_MISSES] == answered);
}

/* After each operation. */
static void
end_operation(void)
{
    pool_check();
    if (!holds_effects) {
        pool_run_effects();
    }
}

static int
visit_nothing(void *payload, void *context)
{
    (void)payload;
    (void)context;
    return 1;
}

void
pool_end(void)
{
    pool_abandon();
    pool_run_effects();
    for (int i = 0; i < caller_count; i++) {
        if (callers[i].waiter != NULL) {
            pool_cancel(&callers[i], MGP_CANCEL_BY_CALLER);
        }
        CHECK(!callers[i].is_tracked);
    }
    for (int i = 0; i < session_count; i++) {
        CHECK(sessions[i].gone == 1);
    }
    CHECK(mgp_pool_visit_payloads(pool, visit_nothing, NULL) == 0);
    struct mgp_pool_counts counts = pool_counts();
    CHECK(counts.keys == 0 && counts.waiters == 0 && counts.creating == 0);
    CHECK(counts.active == 0 && counts.idle == 0 && counts.checking == 0 && counts.closing == 0);
    mgp_pool_free(pool);
    pool = NULL;
    for (size_t i = 0; i < ROWS; i++) {
        CHECK(rows[i].holds == 0);
    }
    failing_alloc_uninstall();
}

struct mgp_pool_counts
pool_counts(void)
{
    struct mgp_pool_counts counts;
    mgp_pool_read_counts(pool, &counts);
    return counts;
}

struct mgp_key_view
pool_view(int key)
{
    struct mgp_key_view view;
    struct mgp_bytes bytes = pool_spec(key)->key;
    mgp_pool_view_key(pool, mgp_pool_hash(pool, bytes.bytes, bytes.size), bytes, &view);
    return view;
}

uint64_t
pool_total(size_t word)
{
    return mgp_pool_totals(pool)[word];
}

uint64_t
pool_evictions(enum mgp_eviction_reason reason)
{
    return pool_total(MGP_EVICTION_WORD(reason));
}

/* ---- acquire ---------------------------------------------------------------- */

static void
apply_answer(struct caller *caller, const struct mgp_acquired *acquired)
{
    caller->answer = acquired->answer;
    caller->ticket = acquired->ticket;
    if (acquired->answer == MGP_ANSWER_SESSION) {
        caller->opened = acquired->payload;
        CHECK(mgp_pool_is_leased(pool, acquired->ticket));
        answered++;
    }
}

struct caller *
pool_acquire(int key)
{
    const struct mgp_key_spec *spec = pool_spec(key);
    struct caller *caller = new_caller(key);
    struct mgp_acquired acquired;
    uint64_t hash = mgp_pool_hash(pool, spec->key.bytes, spec->key.size);
    caller->status = mgp_pool_acquire(pool, now_ns, hash, spec, &acquired);
    if (caller->status == MGP_OK) {
        CHECK(acquired.answer != MGP_ANSWER_NONE);
        apply_answer(caller, &acquired);
        if (acquired.answer == MGP_ANSWER_WAIT) {
            caller->waiter = acquired.waiter;
            mgp_waiter_set_payload(caller->waiter, caller);
        }
    }
    end_operation();
    return caller;
}

struct caller *
pool_try_acquire(int key)
{
    struct mgp_bytes bytes = pool_spec(key)->key;
    struct mgp_acquired acquired;
    struct mgp_pool_counts before = pool_counts();
    uint64_t hash = mgp_pool_hash(pool, bytes.bytes, bytes.size);
    mgp_pool_try_acquire(pool, now_ns, hash, bytes.bytes, bytes.size, &acquired);
    if (acquired.answer == MGP_ANSWER_NONE) {
        struct mgp_pool_counts after = pool_counts();
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
        end_operation();
        return NULL;
    }
    CHECK(acquired.answer == MGP_ANSWER_SESSION);
    struct caller *caller = new_caller(key);
    apply_answer(caller, &acquired);
    end_operation();
    return caller;
}

struct caller *
pool_open(int key)
{
    struct caller *caller = pool_acquire(key);
    CHECK(caller->answer == MGP_ANSWER_CREATE);
    pool_create(caller);
    return caller;
}

struct opened *
pool_open_idle(int key)
{
    struct caller *caller = pool_open(key);
    pool_release(caller, MGP_VERDICT_GOOD);
    return caller->opened;
}

struct caller *
pool_caller(int number)
{
    CHECK(number >= 1 && number <= caller_count);
    return &callers[number - 1];
}

struct opened *
pool_session(int number)
{
    CHECK(number >= 1 && number <= session_count);
    return &sessions[number - 1];
}

void
pool_take(struct caller *caller)
{
    struct mgp_acquired acquired;
    struct mgp_waiter *waiter = caller->waiter;
    CHECK(waiter != NULL);
    caller->waiter = NULL;
    caller->status = mgp_pool_take(pool, now_ns, waiter, &acquired);
    CHECK((caller->status == MGP_OK) == (acquired.answer != MGP_ANSWER_NONE));
    CHECK(caller->status == MGP_OK || caller->status == MGP_ERR_CLOSED);
    apply_answer(caller, &acquired);
    end_operation();
}

void
pool_cancel(struct caller *caller, enum mgp_cancel_reason reason)
{
    struct mgp_waiter *waiter = caller->waiter;
    CHECK(waiter != NULL);
    caller->waiter = NULL;
    mgp_pool_cancel(pool, now_ns, waiter, reason);
    end_operation();
}

/* ---- creations -------------------------------------------------------------- */

struct opened *
pool_created(struct caller *caller)
{
    CHECK(session_count < SESSIONS_MAX);
    struct opened *opened = &sessions[session_count++];
    struct mgp_ticket creation = caller->ticket;
    opened->number = session_count;
    caller->status =
        mgp_pool_created(pool, now_ns, creation, opened, &opened->session, &caller->ticket);
    if (caller->status == MGP_ERR_STALE) {
        opened->gone = 1; /* it stays the caller's */
        CHECK(caller->ticket.generation == 0);
    } else {
        CHECK(opened->session != NULL);
        CHECK(caller->status == MGP_OK || caller->status == MGP_ERR_CLOSED);
    }
    caller->opened = opened;
    end_operation();
    return opened;
}

void
pool_create(struct caller *caller)
{
    (void)pool_created(caller);
    CHECK(caller->status == MGP_OK);
    pool_answer(caller);
}

void
pool_create_failed(struct caller *caller, enum mgp_fault fault)
{
    caller->status = mgp_pool_create_failed(pool, now_ns, caller->ticket, fault);
    end_operation();
}

void
pool_unwanted(struct caller *caller)
{
    caller->status = mgp_pool_creation_unwanted(pool, caller->ticket);
    end_operation();
}

void
pool_answer(struct caller *caller)
{
    caller->status = mgp_pool_answer(pool, caller->ticket);
    answered += caller->status == MGP_OK;
    end_operation();
}

void
pool_undo(struct caller *caller)
{
    caller->status = mgp_pool_undo(pool, now_ns, caller->ticket);
    end_operation();
}

void
pool_release(struct caller *caller, enum mgp_verdict verdict)
{
    caller->status = mgp_pool_release(pool, now_ns, caller->ticket, verdict);
    CHECK(!mgp_pool_is_leased(pool, caller->ticket));
    end_operation();
}

void
pool_track(struct caller *caller)
{
    CHECK(mgp_pool_track(pool, now_ns, caller->ticket, caller) == MGP_OK);
    caller->is_tracked = true;
    end_operation();
}

/* ---- sessions --------------------------------------------------------------- */

void
pool_broken(struct opened *opened)
{
    mgp_session_broken(pool, now_ns, opened->session);
    end_operation();
}

void
pool_suspect(struct opened *opened)
{
    mgp_session_suspect(pool, opened->session);
    end_operation();
}

void
pool_retire(struct opened *opened)
{
    mgp_session_retire(pool, now_ns, opened->session);
    end_operation();
}

void
pool_doubt(struct opened *opened)
{
    mgp_session_doubt(opened->session);
    end_operation();
}

void
pool_set_created(struct opened *opened, int64_t created_ns)
{
    mgp_session_set_created(pool, opened->session, created_ns);
    end_operation();
}

void
pool_set_last_used(struct opened *opened, int64_t last_used_ns)
{
    mgp_session_set_last_used(pool, opened->session, last_used_ns);
    end_operation();
}

void
pool_checked(struct opened *opened, bool is_usable)
{
    CHECK(mgp_pool_checked(pool, now_ns, opened->probe, is_usable) == MGP_OK);
    CHECK(mgp_pool_checked(pool, now_ns, opened->probe, is_usable) == MGP_ERR_STALE);
    end_operation();
}

void
pool_close_ended(struct opened *opened)
{
    CHECK(mgp_pool_close_ended(pool, now_ns, opened->close) == MGP_OK);
    CHECK(mgp_pool_close_ended(pool, now_ns, opened->close) == MGP_ERR_STALE);
    end_operation();
}

/* ---- the whole pool --------------------------------------------------------- */

void
pool_drain(void)
{
    mgp_pool_drain(pool);
    end_operation();
}

void
pool_close(void)
{
    mgp_pool_close(pool, now_ns);
    end_operation();
}

void
pool_abandon(void)
{
    mgp_pool_abandon(pool, now_ns);
    end_operation();
}

void
pool_evict_group(size_t group, const char *name)
{
    mgp_pool_evict_group(pool, now_ns, group, (struct mgp_bytes){name, strlen(name)});
    end_operation();
}

bool
pool_upkeep_step(void)
{
    bool has_more = mgp_pool_upkeep(pool, now_ns, 1);
    CHECK(has_more == (mgp_pool_next_deadline(pool) <= now_ns));
    end_operation();
    return has_more;
}

void
pool_upkeep(void)
{
    CHECK(!mgp_pool_upkeep(pool, now_ns, 100000));
    CHECK(mgp_pool_next_deadline(pool) > now_ns);
    end_operation();
}
