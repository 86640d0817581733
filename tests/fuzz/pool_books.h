/* What fuzz_pool.c, of which this is a part, knows of the pool that it drives: which tickets,
 * waiters and sessions are open, the effects as they are delivered, and what holds whatever
 * was decided. */
#ifndef MGP_TESTS_POOL_BOOKS_H
#define MGP_TESTS_POOL_BOOKS_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../../csrc/core/pool.h"
#include "../c/harness.h"
#include "bytes.h"

#define SESSIONS_MAX 600
#define THINGS_MAX 64 /* of each kind that is open */
#define ROWS 2
#define ALL_EFFECTS 3

struct session { /* the payload of the machine's session */
    struct mgp_session *core;
    bool is_gone;
};

struct tickets {
    struct mgp_ticket list[THINGS_MAX];
    size_t count;
};

struct waiter {
    struct mgp_waiter *core;
    bool is_used, is_delivered;
};

static struct mgp_pool *pool;
static struct mgp_config config;
static bool was_configured; /* since its start: limits may have shrunk */
static int64_t now_ns;
static struct session sessions[SESSIONS_MAX];
static size_t session_count, gone_count;
static struct tickets creations, new_leases, leases, checks, closes; /* whose end is to come */
static struct tickets tracked;                                       /* some of `leases` */
static size_t trace_count;                                           /* that the machine has */
static struct tickets old;                                           /* some that have ended */
static size_t old_next;
static struct waiter waiters[THINGS_MAX];
static uint64_t answered;
static mgp_atomic_u64 row_words[ROWS][MGP_WORD_COUNT];
static struct mgp_row rows[ROWS];

/* ---- what is open --------------------------------------------------------------------- */

static bool
is_same(struct mgp_ticket a, struct mgp_ticket b)
{
    return a.index == b.index && a.generation == b.generation;
}

static void
tickets_add(struct tickets *tickets, struct mgp_ticket ticket)
{
    CHECK(ticket.generation != 0 && tickets->count < THINGS_MAX);
    tickets->list[tickets->count++] = ticket;
}

static bool
tickets_have(const struct tickets *tickets, struct mgp_ticket ticket)
{
    for (size_t i = 0; i < tickets->count; i++) {
        if (is_same(tickets->list[i], ticket)) {
            return true;
        }
    }
    return false;
}

static void
remember_old(struct mgp_ticket ticket)
{
    old.list[old_next++ % THINGS_MAX] = ticket;
    old.count = old_next < THINGS_MAX ? old_next : THINGS_MAX;
}

static bool
tickets_remove(struct tickets *tickets, struct mgp_ticket ticket)
{
    for (size_t i = 0; i < tickets->count; i++) {
        if (is_same(tickets->list[i], ticket)) {
            tickets->list[i] = tickets->list[--tickets->count];
            remember_old(ticket);
            return true;
        }
    }
    return false;
}

/* One of those that are open; by bit 7 one that has ended, or one that never was. */
static struct mgp_ticket
choose_ticket(struct bytes *record, const struct tickets *open)
{
    uint8_t which = bytes_byte(record);
    if (which < 0x80 && open->count > 0) {
        return open->list[which % open->count];
    }
    if (which < 0xf0 && old.count > 0) {
        return old.list[which % old.count];
    }
    /* A small generation could be that of a grant that its caller has yet to take. */
    uint32_t index = (uint32_t)bytes_number(record, 1);
    uint64_t generation = bytes_any_number(record);
    return (struct mgp_ticket){index, generation == 0 ? 0 : generation | UINT64_C(1) << 62};
}

/* Those of the machine's tickets that it has ended by itself (close, abandon). */
static void
forget_ended_leases(struct tickets *held)
{
    for (size_t i = held->count; i > 0; i--) {
        if (!mgp_pool_is_leased(pool, held->list[i - 1])) {
            tickets_remove(held, held->list[i - 1]);
        }
    }
}

static struct waiter *
new_waiter(void)
{
    for (size_t i = 0; i < THINGS_MAX; i++) {
        if (!waiters[i].is_used) {
            return &waiters[i];
        }
    }
    return NULL;
}

/* ---- what an operation that failed leaves as it was --------------------------------------- */

struct outside {
    struct mgp_pool_counts counts;
    uint64_t totals[MGP_WORD_COUNT];
    int64_t deadline_ns;
    bool has_effects;
};

static void
look(struct outside *outside)
{
    memset(outside, 0, sizeof(*outside));
    mgp_pool_read_counts(pool, &outside->counts);
    memcpy(outside->totals, mgp_pool_totals(pool), sizeof(outside->totals));
    outside->deadline_ns = mgp_pool_next_deadline(pool);
    outside->has_effects = mgp_pool_has_effects(pool);
}

static void
check_unchanged(const struct outside *before)
{
    struct outside after;
    look(&after);
    /* It may have found out that what is under a check is not due. */
    CHECK(before->deadline_ns <= after.deadline_ns);
    after.deadline_ns = before->deadline_ns;
    CHECK(memcmp(before, &after, sizeof(after)) == 0);
}

/* ---- effects ------------------------------------------------------------------------------- */

static bool
deliver_effect(void)
{
    struct mgp_effect effect;
    struct waiter *waiter = NULL;
    if (!mgp_pool_next_effect(pool, &effect)) {
        return false;
    }
    switch (effect.kind) {
    case MGP_EFFECT_GRANT:
    case MGP_EFFECT_FAIL:
        waiter = effect.payload;
        CHECK(waiter->is_used && !waiter->is_delivered);
        waiter->is_delivered = true;
        waiter->is_used = effect.kind == MGP_EFFECT_GRANT;
        CHECK(waiter->is_used || effect.status < 0);
        break;
    case MGP_EFFECT_CLOSE:
        CHECK(effect.reason < MGP_EVICTION_REASON_COUNT);
        CHECK(mgp_session_is_closing(((struct session *)effect.payload)->core));
        tickets_add(&closes, effect.ticket);
        break;
    case MGP_EFFECT_PROBE:
        CHECK(!((struct session *)effect.payload)->is_gone);
        tickets_add(&checks, effect.ticket);
        break;
    case MGP_EFFECT_CREATE:
        CHECK(effect.payload == NULL || !((struct session *)effect.payload)->is_gone);
        tickets_add(&creations, effect.ticket);
        break;
    case MGP_EFFECT_LONG_CHECKOUT:
    case MGP_EFFECT_UNTRACKED:
        CHECK(!((struct session *)effect.payload)->is_gone);
        CHECK(effect.trace == &trace_count && trace_count > 0);
        trace_count--;
        break;
    case MGP_EFFECT_GONE:
        CHECK(!((struct session *)effect.payload)->is_gone);
        ((struct session *)effect.payload)->is_gone = true;
        gone_count++;
        break;
    }
    return true;
}

/* So many, or all; what the tables have no room for stays in the queue. */
static void
deliver_effects(unsigned count)
{
    for (unsigned i = 0; i < count || count == ALL_EFFECTS; i++) {
        if (closes.count + 1 >= THINGS_MAX || checks.count + 1 >= THINGS_MAX ||
            creations.count + 1 >= THINGS_MAX || !deliver_effect()) {
            return;
        }
    }
}

/* ---- what holds after each operation ------------------------------------------------------ */

static size_t
count_waiters(void)
{
    size_t count = 0;
    for (size_t i = 0; i < THINGS_MAX; i++) {
        count += waiters[i].is_used && !waiters[i].is_delivered;
    }
    return count;
}

static void
check_limit(size_t count, uint32_t limit)
{
    CHECK(was_configured || limit == 0 || count <= limit);
}

static int
check_key(const struct mgp_key_view *view, void *context)
{
    (void)context;
    check_limit(view->creating + view->active + view->idle + view->checking + view->closing,
                config.max_sessions_per_key);
    check_limit(view->waiters, config.max_waiters_per_key);
    return 0;
}

static void
check_everything(void)
{
    struct mgp_pool_counts counts;
    const uint64_t *totals = mgp_pool_totals(pool);
    mgp_pool_check(pool);
    mgp_pool_read_counts(pool, &counts);
    size_t open = counts.active + counts.idle + counts.checking;
    CHECK(mgp_pool_visit_keys(pool, check_key, NULL) == 0);
    check_limit(open + counts.creating + counts.closing, config.max_total_sessions);
    check_limit(counts.keys, config.max_total_keys);
    CHECK(counts.creating >= creations.count); /* the others are granted, and not taken yet */
    CHECK(counts.waiters <= count_waiters());
    CHECK(totals[MGP_WORD_HITS] + totals[MGP_WORD_MISSES] == answered);
    CHECK(totals[MGP_WORD_SIZE] == open);
    CHECK(totals[MGP_WORD_ACTIVE_SESSIONS] == counts.active);
    CHECK(totals[MGP_WORD_CREATES] == session_count);
    CHECK(totals[MGP_WORD_MISSES] <= totals[MGP_WORD_CREATES]);
    for (size_t i = 0; i < leases.count; i++) {
        CHECK(mgp_pool_is_leased(pool, leases.list[i]));
    }
    for (size_t i = 0; i < new_leases.count; i++) {
        CHECK(mgp_pool_is_leased(pool, new_leases.list[i]));
    }
    uint64_t evictions = 0;
    for (size_t i = 0; i < MGP_EVICTION_REASON_COUNT; i++) {
        evictions += totals[MGP_EVICTION_WORD(i)];
    }
    CHECK(totals[MGP_WORD_CREATES] == open + evictions);
    /* The rows of the metrics say the same as the pool itself. */
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        uint64_t sum = 0;
        for (size_t row = 0; row < ROWS; row++) {
            sum += mgp_atomic_load(&row_words[row][word]);
        }
        CHECK(sum == totals[word] || word == MGP_WORD_OLDEST_WAITER_SECONDS);
    }
}

#endif
