/* libFuzzer target: bytes as operations on the pool machine, where everything that its header
 * (csrc/core/pool.h) allows may happen at any time: any settings, up to the ends of their
 * types, changed while it runs; answers to tickets late, twice, or to some that never were;
 * effects left in the queue; memory that runs out. fuzz_model.c asks whether each decision is
 * right; this one asks what holds whatever was decided:
 *   - mgp_pool_check() after each operation, and no limit exceeded;
 *   - a ticket is good once, and stale before and after; a waiter ends once;
 *   - out of memory changes nothing;
 *   - the counts are those of what was handed out and not given back;
 *   - at the end, each session has come back exactly once, and the counters add up.
 *
 * The input is records of 8 bytes: byte 0 the operation; byte 1 bits 0-1 how many effects are
 * delivered after it (3: all), 2-7 how much time passes before it; the rest its arguments. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/core/pool.h"
#include "../c/failing_alloc.h"
#include "../c/harness.h"
#include "bytes.h"
#include "pool_books.h"

#define RECORD_BYTES 8
#define OPERATIONS_MAX 250
#define KEYS 12
#define URLS 3
#define TIME_MAX (INT64_MAX / 4)

/* ---- settings --------------------------------------------------------------------------- */

static uint32_t
small_or_any(struct bytes *input, uint32_t least)
{
    uint8_t number = bytes_byte(input);
    uint32_t chosen = number < 0xf8 ? number % 8 : number == 0xff ? UINT32_MAX : number % 8 * 100;
    return chosen < least ? least : chosen;
}

static int64_t
any_duration(struct bytes *input)
{
    return (int64_t)(bytes_any_number(input) & INT64_MAX);
}

static void
take_config(struct bytes *input)
{
    config.max_sessions_per_key = small_or_any(input, 1);
    config.max_total_sessions = small_or_any(input, 0);
    config.max_total_keys = small_or_any(input, 0);
    config.max_waiters_per_key = small_or_any(input, 0);
    config.max_leases_per_session = small_or_any(input, 1);
    config.max_creating_per_endpoint = small_or_any(input, 0);
    config.max_remembered_endpoints = small_or_any(input, 0);
    config.breaker_threshold = small_or_any(input, 1);
    config.checks_per_second = small_or_any(input, 0);
    uint8_t jitter = bytes_byte(input);
    config.lifetime_jitter = jitter / 255.0;
    config.replaces_sessions = jitter & 1;
    config.min_idle_per_key = jitter >> 1 & 3;
    config.breaker_reset_ns = any_duration(input);
    config.lifetime_ns = any_duration(input);
    config.idle_timeout_ns = any_duration(input);
    config.health_interval_ns = any_duration(input);
    config.leak_detection_ns = jitter & 8 ? config.idle_timeout_ns : 0;
}

static struct mgp_key_spec
spec_of(uint8_t number)
{
    /* Each begins with the one before, and some contain NUL. */
    static const char key[] = "k\0ey\0\0-of-many-bytes";
    static const char *const urls[URLS] = {"http://a", "http://a/", "http://b"};
    static const char *const groups[] = {"red", "re"};
    size_t which = number % KEYS;
    const char *url = urls[which % URLS];
    struct mgp_key_spec spec = {
        .key = {key, 1 + which},
        .endpoint = {url, strlen(url)},
        .row = &rows[which % ROWS],
        .is_anonymous = which == 3,
        .is_single_use = which == 5,
    };
    for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
        const char *group = groups[(which >> i) % 2];
        spec.groups[i] = (struct mgp_bytes){group, which % 4 == 3 ? 0 : strlen(group)};
    }
    return spec;
}

static uint64_t
hash_of(const struct mgp_key_spec *spec)
{
    return mgp_pool_hash(pool, spec->key.bytes, spec->key.size);
}

/* ---- operations ----------------------------------------------------------------------------- */

static void
note_acquired(const struct mgp_acquired *acquired, struct waiter *waiter)
{
    switch (acquired->answer) {
    case MGP_ANSWER_NONE:
        break;
    case MGP_ANSWER_SESSION:
        CHECK(!((const struct session *)acquired->payload)->is_gone);
        CHECK(mgp_pool_leased_payload(pool, acquired->ticket) == acquired->payload);
        tickets_add(&leases, acquired->ticket);
        answered++;
        break;
    case MGP_ANSWER_CREATE:
        tickets_add(&creations, acquired->ticket);
        break;
    case MGP_ANSWER_WAIT:
        *waiter = (struct waiter){.core = acquired->waiter, .is_used = true};
        mgp_waiter_set_payload(acquired->waiter, waiter);
        break;
    }
}

static void
do_try_acquire(struct bytes *record)
{
    struct mgp_key_spec spec = spec_of(bytes_byte(record));
    struct mgp_acquired acquired;
    struct outside before;
    look(&before);
    failing_alloc_fail_at(bytes_byte(record) % 4);
    mgp_pool_try_acquire(pool, now_ns, hash_of(&spec), spec.key.bytes, spec.key.size, &acquired);
    failing_alloc_fail_at(0);
    CHECK(acquired.answer == MGP_ANSWER_NONE || acquired.answer == MGP_ANSWER_SESSION);
    if (acquired.answer == MGP_ANSWER_NONE) {
        check_unchanged(&before);
    }
    note_acquired(&acquired, NULL);
}

static void
do_acquire(struct bytes *record)
{
    struct mgp_key_spec spec = spec_of(bytes_byte(record));
    struct mgp_acquired acquired;
    struct waiter *waiter = new_waiter();
    struct outside before;
    if (waiter == NULL || session_count == SESSIONS_MAX) {
        return;
    }
    uint8_t fails_at = bytes_byte(record) % 8;
    if (fails_at != 0) { /* callers whose time has come are served even by an acquire that fails */
        mgp_pool_upkeep(pool, now_ns, 100000);
    }
    look(&before);
    failing_alloc_fail_at(fails_at);
    int status = mgp_pool_acquire(pool, now_ns, hash_of(&spec), &spec, &acquired);
    bool was_short = failing_alloc_has_failed();
    failing_alloc_fail_at(0);
    if (status == MGP_ERR_NOMEM) {
        CHECK(was_short);
        check_unchanged(&before);
    }
    CHECK((status == MGP_OK) == (acquired.answer != MGP_ANSWER_NONE));
    note_acquired(&acquired, waiter);
}

static void
do_end_of_wait(struct bytes *record, bool takes)
{
    struct waiter *waiter = &waiters[bytes_byte(record) % THINGS_MAX];
    struct mgp_acquired acquired;
    if (!waiter->is_used) {
        return;
    }
    if (!takes) {
        mgp_pool_cancel(pool, now_ns, waiter->core,
                        bytes_byte(record) % 2 ? MGP_CANCEL_BY_TIMEOUT : MGP_CANCEL_BY_CALLER);
        waiter->is_used = false;
    } else if (waiter->is_delivered) {
        int status = mgp_pool_take(pool, now_ns, waiter->core, &acquired);
        CHECK(status == MGP_OK || status == MGP_ERR_CLOSED);
        CHECK((status == MGP_OK) == (acquired.answer != MGP_ANSWER_NONE));
        CHECK(acquired.answer != MGP_ANSWER_WAIT);
        waiter->is_used = false;
        note_acquired(&acquired, NULL);
    }
}

static void
do_created(struct bytes *record)
{
    struct mgp_ticket creation = choose_ticket(record, &creations), lease;
    struct mgp_session *core;
    CHECK(session_count < SESSIONS_MAX);
    struct session *session = &sessions[session_count];
    bool is_known = tickets_remove(&creations, creation);
    int status = mgp_pool_created(pool, now_ns, creation, session, &core, &lease);
    if (status == MGP_ERR_STALE) {
        CHECK(!is_known);
        return;
    }
    CHECK(is_known && (status == MGP_OK || (status == MGP_ERR_CLOSED && lease.generation == 0)));
    session->core = core;
    session_count++;
    if (lease.generation != 0) {
        CHECK(mgp_pool_leased_payload(pool, lease) == session);
        tickets_add(&new_leases, lease);
    }
}

static void
do_create_failed(struct bytes *record)
{
    struct mgp_ticket creation = choose_ticket(record, &creations);
    bool is_known = tickets_remove(&creations, creation);
    int status = mgp_pool_create_failed(
        pool, now_ns, creation, bytes_byte(record) % 4 ? MGP_FAULT_ENDPOINT : MGP_FAULT_CALLER);
    CHECK(status == (is_known ? MGP_OK : MGP_ERR_STALE));
}

static void
do_unwanted(struct bytes *record)
{
    struct mgp_ticket creation = choose_ticket(record, &creations);
    int status = mgp_pool_creation_unwanted(pool, creation);
    CHECK(status == (tickets_have(&creations, creation) ? MGP_OK : MGP_ERR_STALE));
}

/* The end, or the next part, of a lease whose caller has not taken it yet. */
static void
do_new_lease(struct bytes *record, bool takes)
{
    struct mgp_ticket lease = choose_ticket(record, &new_leases);
    if (tickets_have(&leases, lease)) {
        return; /* that of another, taken: not what this is for */
    }
    bool is_known = tickets_have(&new_leases, lease);
    int status = takes ? mgp_pool_answer(pool, lease) : mgp_pool_undo(pool, now_ns, lease);
    CHECK(status == (is_known ? MGP_OK : MGP_ERR_STALE));
    if (!is_known) {
        return;
    }
    tickets_remove(&new_leases, lease);
    if (takes) {
        tickets_add(&leases, lease);
        answered++;
    }
}

static void
do_release(struct bytes *record)
{
    struct mgp_ticket lease = choose_ticket(record, &leases);
    if (tickets_have(&new_leases, lease)) {
        return; /* not taken yet */
    }
    enum mgp_verdict verdict = (enum mgp_verdict)(bytes_byte(record) % 4);
    bool is_known = tickets_remove(&leases, lease);
    CHECK(mgp_pool_is_leased(pool, lease) == is_known);
    CHECK(mgp_pool_release(pool, now_ns, lease, verdict) == (is_known ? MGP_OK : MGP_ERR_STALE));
    CHECK(mgp_pool_leased_payload(pool, lease) == NULL);
}

static void
do_track(struct bytes *record)
{
    forget_ended_leases(&tracked);
    struct mgp_ticket lease = choose_ticket(record, &leases);
    if (tickets_have(&new_leases, lease) || tickets_have(&tracked, lease)) {
        return; /* once, when it has been taken */
    }
    bool is_known = tickets_have(&leases, lease);
    struct outside before;
    look(&before);
    failing_alloc_fail_at(bytes_byte(record) % 4);
    int status = mgp_pool_track(pool, now_ns, lease, &trace_count);
    failing_alloc_fail_at(0);
    if (status == MGP_OK) {
        tickets_add(&tracked, lease);
        trace_count++;
    } else {
        CHECK(status == (is_known ? MGP_ERR_NOMEM : MGP_ERR_STALE));
        check_unchanged(&before);
    }
    CHECK(is_known || status == MGP_ERR_STALE);
}

static void
do_warm(struct bytes *record)
{
    struct mgp_key_spec spec = spec_of(bytes_byte(record));
    struct mgp_ticket creation;
    struct outside before;
    if (session_count == SESSIONS_MAX) {
        return;
    }
    look(&before);
    failing_alloc_fail_at(bytes_byte(record) % 8);
    int status =
        mgp_pool_warm(pool, now_ns, hash_of(&spec), &spec, small_or_any(record, 0), &creation);
    failing_alloc_fail_at(0);
    if (status == MGP_OK && creation.generation != 0) {
        tickets_add(&creations, creation);
    } else {
        CHECK(creation.generation == 0);
        check_unchanged(&before);
    }
}

static void
do_checked(struct bytes *record)
{
    struct mgp_ticket check = choose_ticket(record, &checks);
    bool is_known = tickets_remove(&checks, check);
    int status = mgp_pool_checked(pool, now_ns, check, bytes_byte(record) % 4 != 0);
    /* One that was closed meanwhile is known, and stale. */
    CHECK(status == MGP_ERR_STALE || (status == MGP_OK && is_known));
}

static void
do_close_ended(struct bytes *record)
{
    struct mgp_ticket close = choose_ticket(record, &closes);
    bool is_known = tickets_remove(&closes, close);
    int status = mgp_pool_close_ended(pool, now_ns, close);
    CHECK(status == MGP_ERR_STALE || (status == MGP_OK && is_known));
}

/* What befalls a session from outside, at any time until its GONE. */
static void
do_session(struct bytes *record)
{
    uint8_t what = bytes_byte(record);
    if (session_count == 0) {
        return;
    }
    struct session *session = &sessions[bytes_number(record, 2) % session_count];
    if (session->is_gone) {
        return;
    }
    int64_t at_ns = (int64_t)bytes_any_number(record);
    at_ns = what & 0x80 ? at_ns : now_ns - at_ns % (INT64_C(1) << 40);
    switch (what % 8) {
    case 0:
        mgp_session_broken(pool, now_ns, session->core);
        break;
    case 1:
        mgp_session_mark_broken(session->core);
        break;
    case 2:
        mgp_session_retire(pool, now_ns, session->core);
        break;
    case 3:
        mgp_session_suspect(pool, session->core);
        break;
    case 4:
        mgp_session_doubt(session->core);
        break;
    case 5:
        mgp_session_set_created(pool, session->core, at_ns);
        break;
    case 6:
        mgp_session_set_last_used(pool, session->core, at_ns);
        break;
    default:
        CHECK(!mgp_session_is_closing(session->core) || !mgp_session_is_leased(session->core));
        break;
    }
}

static void
do_note(struct bytes *record)
{
    struct mgp_key_spec spec = spec_of(bytes_byte(record));
    struct outside before;
    if (bytes_byte(record) % 2) {
        mgp_pool_note_success(pool, now_ns, spec.endpoint);
        return;
    }
    look(&before);
    failing_alloc_fail_at(bytes_byte(record) % 4);
    int status = mgp_pool_note_failure(pool, now_ns, spec.endpoint, spec.row);
    failing_alloc_fail_at(0);
    CHECK(status == MGP_OK || status == MGP_ERR_NOMEM);
    if (status == MGP_ERR_NOMEM) {
        check_unchanged(&before);
    }
}

static void
do_upkeep(struct bytes *record)
{
    unsigned budget = bytes_byte(record) % 2 ? 100000 : bytes_byte(record) % 4;
    bool is_more_due = mgp_pool_upkeep(pool, now_ns, budget);
    CHECK(!is_more_due || budget < 100000);
}

static void
do_whole_pool(struct bytes *record)
{
    uint8_t what = bytes_byte(record) % 16;
    struct mgp_key_spec spec = spec_of(bytes_byte(record));
    if (what < 8) {
        mgp_pool_evict_group(pool, now_ns, what % MGP_GROUPS_MAX,
                             spec.groups[what % MGP_GROUPS_MAX]);
    } else if (what < 12) {
        mgp_pool_drain(pool);
    } else if (what == 12) {
        mgp_pool_close(pool, now_ns);
    } else if (what == 13) {
        mgp_pool_abandon(pool, now_ns);
        while (creations.count > 0) {
            tickets_remove(&creations, creations.list[0]);
        }
    } else {
        mgp_pool_set_closed(pool, what == 15);
    }
    forget_ended_leases(&leases);
    forget_ended_leases(&new_leases);
}

static void
do_configure(struct bytes *record)
{
    take_config(record); /* what the record does not say is 0 */
    was_configured = true;
    mgp_pool_configure(pool, &config);
    mgp_pool_set_clock_offset(pool, (int64_t)config.max_total_sessions);
}

/* ---- the run -------------------------------------------------------------------------------- */

static void
start(struct bytes *input)
{
    memset(sessions, 0, sizeof(sessions));
    memset(waiters, 0, sizeof(waiters));
    creations.count = new_leases.count = leases.count = checks.count = closes.count = 0;
    tracked.count = trace_count = 0;
    session_count = gone_count = old.count = old_next = 0;
    answered = 0;
    was_configured = false;
    for (size_t row = 0; row < ROWS; row++) {
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_atomic_store(&row_words[row][word], 0);
        }
        rows[row] = (struct mgp_row){.words = row_words[row]};
    }
    uint8_t seed = bytes_byte(input);
    now_ns = (int64_t)(bytes_any_number(input) % (uint64_t)TIME_MAX);
    memset(&config, 0, sizeof(config));
    config.random_seed = seed;
    config.hash_key = (struct mgp_siphash_key){seed, 1};
    take_config(input);
    failing_alloc_install();
    failing_alloc_fail_at(seed % 8);
    int status = mgp_pool_new(&config, &pool);
    bool was_short = failing_alloc_has_failed();
    failing_alloc_fail_at(0);
    if (was_short) {
        CHECK(status == MGP_ERR_NOMEM && failing_alloc_live_blocks() == 0);
        CHECK(mgp_pool_new(&config, &pool) == MGP_OK);
    }
}

/* Everything is given back, or given up; then nothing is left. */
static void
end(bool abandons)
{
    struct mgp_pool_counts counts;
    mgp_pool_close(pool, now_ns);
    if (abandons) {
        mgp_pool_abandon(pool, now_ns);
        creations.count = 0;
    }
    do {
        deliver_effects(ALL_EFFECTS); /* creations ahead among them, which were not begun yet */
        while (creations.count > 0) {
            int status = mgp_pool_create_failed(pool, now_ns, creations.list[0], MGP_FAULT_CALLER);
            CHECK(status == MGP_OK);
            tickets_remove(&creations, creations.list[0]);
        }
        while (closes.count > 0) {
            (void)mgp_pool_close_ended(pool, now_ns, closes.list[0]);
            tickets_remove(&closes, closes.list[0]);
        }
        checks.count = 0; /* closed meanwhile */
    } while (mgp_pool_has_effects(pool));
    for (size_t i = 0; i < THINGS_MAX; i++) {
        if (waiters[i].is_used) { /* granted before the end: taken back since, or never taken */
            mgp_pool_cancel(pool, now_ns, waiters[i].core, MGP_CANCEL_BY_CALLER);
        }
    }
    while (deliver_effect()) {
    }
    mgp_pool_read_counts(pool, &counts);
    CHECK(counts.keys + counts.waiters + counts.creating + counts.closing == 0);
    CHECK(counts.active + counts.idle + counts.checking == 0);
    CHECK(gone_count == session_count && trace_count == 0);
    mgp_pool_check(pool);
    mgp_pool_free(pool);
    CHECK(rows[0].holds == 0 && rows[1].holds == 0);
    failing_alloc_uninstall();
}

static void
do_take(struct bytes *record)
{
    do_end_of_wait(record, true);
}

static void
do_cancel(struct bytes *record)
{
    do_end_of_wait(record, false);
}

static void
do_answer(struct bytes *record)
{
    do_new_lease(record, true);
}

static void
do_undo(struct bytes *record)
{
    do_new_lease(record, false);
}

/* Many of what drives sessions on, few of what ends them all. */
static const struct {
    void (*operate)(struct bytes *record);
    unsigned weight; /* their sum is 256 */
    bool may_fill;   /* what the tables here have room for */
} operations[] = {
    {do_acquire, 50, true},     {do_track, 4, false},        {do_warm, 2, true},
    {do_release, 32, false},    {do_created, 24, false},     {do_answer, 22, false},
    {do_take, 22, true},        {do_close_ended, 20, false}, {do_checked, 16, false},
    {do_try_acquire, 14, true}, {do_upkeep, 14, false},      {do_create_failed, 8, false},
    {do_session, 10, false},    {do_cancel, 6, false},       {do_undo, 3, false},
    {do_unwanted, 3, false},    {do_note, 2, false},         {do_whole_pool, 3, false},
    {do_configure, 1, false},
};

static void
operate(unsigned number, bool is_full, struct bytes *record)
{
    size_t i = 0;
    while (number >= operations[i].weight) {
        number -= operations[i].weight;
        i++;
    }
    if (!is_full || !operations[i].may_fill) {
        operations[i].operate(record);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes input = {data, size};
    uint8_t first = bytes_byte(&input);
    start(&input);
    for (int i = 0; i < OPERATIONS_MAX && input.left > 0; i++) {
        struct bytes record;
        record.left = bytes_take(&input, RECORD_BYTES, &record.at);
        uint8_t kind = bytes_byte(&record), time = bytes_byte(&record);
        int64_t step_ns = time < 0x80 ? 0 : INT64_C(1) << (time >> 2 & 0x1f) * 2 % 61;
        now_ns = step_ns < TIME_MAX - now_ns ? now_ns + step_ns : now_ns;
        size_t open_count = creations.count + new_leases.count + leases.count + checks.count;
        operate(kind, open_count + 1 >= THINGS_MAX, &record);
        check_everything();
        deliver_effects(time & 3);
    }
    end(first % 2 == 0);
    return 0;
}
