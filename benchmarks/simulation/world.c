#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/metrics/series.h"
#include "memory.h"

/* Where the number stands in the bytes of a key. */
#define NUMBER_OFFSET 40

_Noreturn void
fail_requirement(const char *file, int line, const char *condition)
{
    fflush(stdout);
    fprintf(stderr, "%s:%d: not true: %s\n", file, line, condition);
    exit(1);
}

struct mgp_config
world_config(void)
{
    return (struct mgp_config){
        .max_sessions_per_key = 10,
        .max_leases_per_session = 1,
        .max_remembered_endpoints = 10000,
        .breaker_threshold = 5,
        .breaker_reset_ns = 60 * SECOND,
        .lifetime_ns = 7200 * SECOND,
        .lifetime_jitter = 0.1,
        .idle_timeout_ns = 3600 * SECOND,
        .health_interval_ns = 3600 * SECOND,
        .checks_per_second = 10,
        .random_seed = 1,
        .hash_key = {UINT64_C(0x0706050403020100), UINT64_C(0x0f0e0d0c0b0a0908)},
    };
}

void
world_init(struct world *world, const struct mgp_config *config, uint32_t gateways,
           uint32_t max_opened, uint32_t check_every)
{
    memset(world, 0, sizeof(*world));
    world->config = *config;
    world->now_ns = 1000 * SECOND;
    world->check_every = check_every;
    world->gateway_count = gateways;
    REQUIRE(gateways > 0 && gateways <= MAX_GATEWAYS);
    /* calloc(): pages that are never used are never there. */
    world->opened = calloc(max_opened, sizeof(*world->opened));
    world->opened_capacity = max_opened;
    REQUIRE(world->opened != NULL);
    memset(world->key, 'k', sizeof(world->key));
    mgp_rows_init(&world->rows, config->hash_key, MGP_ROWS_DEFAULT_MAX);
    REQUIRE(mgp_pool_new(config, &world->pool) == MGP_OK);
    for (uint32_t i = 0; i < gateways; i++) {
        struct gateway *gateway = &world->gateways[i];
        char label[32];
        int size = snprintf(label, sizeof(label), "gateway-%u", i);
        gateway->row = mgp_rows_ensure(&world->rows, label, (size_t)size);
        REQUIRE(gateway->row != NULL);
        size = snprintf(gateway->url_text, sizeof(gateway->url_text),
                        "https://server-%u.example.com/mcp", i);
        gateway->url = (struct mgp_bytes){gateway->url_text, (size_t)size};
    }
}

void
world_fini(struct world *world)
{
    struct mgp_effect effect;
    mgp_pool_abandon(world->pool, world->now_ns);
    while (world_next_effect(world, &effect)) {
        REQUIRE(effect.kind == MGP_EFFECT_CLOSE); /* whose ticket is stale: GONE follows */
    }
    world->tally.holding = 0;
    world_audit(world);
    REQUIRE(world->tally.gone == world->tally.opened);
    mgp_pool_free(world->pool);
    for (uint32_t i = 0; i < world->gateway_count; i++) {
        REQUIRE(world->gateways[i].row->holds == 0);
    }
    mgp_rows_fini(&world->rows);
    free(world->opened);
    REQUIRE(memory_live_bytes() == 0); /* where it is counted */
}

/* ---- operations ------------------------------------------------------------- */

uint64_t
world_name_key(struct world *world, uint32_t number)
{
    uint64_t spread = number * UINT64_C(0x9e3779b97f4a7c15);
    memcpy(world->key + NUMBER_OFFSET, &spread, sizeof(spread));
    return mgp_pool_hash(world->pool, world->key, sizeof(world->key));
}

void
world_check(struct world *world)
{
#ifdef MGP_DEBUG
    if (++world->operations % world->check_every == 0) {
        mgp_pool_check(world->pool);
    }
#else
    (void)world;
#endif
}

/* A caller is answered, or goes on to create. */
static void
count_answer(struct world *world, enum mgp_answer answer)
{
    if (answer == MGP_ANSWER_SESSION) {
        world->tally.hits++;
        world->tally.pending--;
        world->tally.holding++;
    }
}

int
world_acquire(struct world *world, uint32_t number, struct mgp_acquired *acquired)
{
    const struct gateway *gateway = &world->gateways[number % world->gateway_count];
    uint64_t hash = world_name_key(world, number);
    struct mgp_key_spec spec = {
        .key = {world->key, sizeof(world->key)},
        .endpoint = gateway->url,
        .row = gateway->row,
    };
    int status = mgp_pool_acquire(world->pool, world->now_ns, hash, &spec, acquired);
    REQUIRE(status == MGP_OK || status == MGP_ERR_CIRCUIT_OPEN || status == MGP_ERR_EXHAUSTED);
    world->tally.acquires++;
    if (status == MGP_OK) {
        world->tally.pending++;
        count_answer(world, acquired->answer);
    } else {
        world->tally.rejections++;
    }
    world_check(world);
    return status;
}

struct opened *
world_open(struct world *world)
{
    struct opened *opened = world->free_opened;
    if (opened != NULL) {
        world->free_opened = opened->next_free;
    } else {
        REQUIRE(world->opened_count < world->opened_capacity);
        opened = &world->opened[world->opened_count++];
    }
    opened->is_owed = true;
    world->tally.opened++;
    return opened;
}

struct mgp_ticket
world_create(struct world *world, struct mgp_ticket creation)
{
    struct mgp_session *session;
    struct mgp_ticket lease;
    REQUIRE(mgp_pool_created(world->pool, world->now_ns, creation, world_open(world), &session,
                             &lease) == MGP_OK);
    REQUIRE(mgp_pool_answer(world->pool, lease) == MGP_OK);
    world->tally.misses++;
    world->tally.pending--;
    world->tally.holding++;
    world_check(world);
    return lease;
}

int
world_take(struct world *world, struct mgp_waiter *waiter, struct mgp_acquired *acquired)
{
    int status = mgp_pool_take(world->pool, world->now_ns, waiter, acquired);
    REQUIRE(status == MGP_OK); /* nobody closes this pool */
    count_answer(world, acquired->answer);
    world_check(world);
    return status;
}

void
world_cancel(struct world *world, struct mgp_waiter *waiter, enum mgp_cancel_reason reason)
{
    mgp_pool_cancel(world->pool, world->now_ns, waiter, reason);
    world->tally.pending--;
    if (reason == MGP_CANCEL_BY_TIMEOUT) {
        world->tally.timeouts++;
    } else {
        world->tally.cancellations++;
    }
    world_check(world);
}

void
world_release(struct world *world, struct mgp_ticket lease, enum mgp_verdict verdict)
{
    REQUIRE(mgp_pool_release(world->pool, world->now_ns, lease, verdict) == MGP_OK);
    world->tally.holding--;
    world_check(world);
}

bool
world_next_effect(struct world *world, struct mgp_effect *effect)
{
    while (mgp_pool_next_effect(world->pool, effect)) {
        if (effect->kind != MGP_EFFECT_GONE) {
            return true;
        }
        struct opened *opened = effect->payload;
        REQUIRE(opened->is_owed);
        opened->is_owed = false;
        opened->next_free = world->free_opened;
        world->free_opened = opened;
        world->tally.gone++;
    }
    return false;
}

void
world_settle(struct world *world)
{
    struct mgp_effect effect;
    while (world_next_effect(world, &effect)) {
        REQUIRE(effect.kind == MGP_EFFECT_CLOSE || effect.kind == MGP_EFFECT_PROBE);
        if (effect.kind == MGP_EFFECT_CLOSE) {
            REQUIRE(mgp_pool_close_ended(world->pool, world->now_ns, effect.ticket) == MGP_OK);
        } else {
            world->tally.checks++;
            REQUIRE(mgp_pool_checked(world->pool, world->now_ns, effect.ticket, true) == MGP_OK);
        }
        world_check(world);
    }
}

/* ---- the audit -------------------------------------------------------------- */

uint64_t
world_total_of(const struct world *world, size_t first_word, size_t count)
{
    uint64_t sum = 0;
    for (size_t word = first_word; word < first_word + count; word++) {
        sum += mgp_pool_totals(world->pool)[word];
    }
    return sum;
}

uint64_t
world_total(const struct world *world, size_t word)
{
    return world_total_of(world, word, 1);
}

/* The rows together show what the pool counted. */
static void
audit_rows(const struct world *world)
{
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        uint64_t sum = 0;
        for (uint32_t i = 0; i < world->gateway_count; i++) {
            sum += mgp_atomic_load(&world->gateways[i].row->words[word]);
        }
        /* A pool has no word of its own for the oldest of all that wait. */
        REQUIRE(sum == world_total(world, word) || word == MGP_WORD_OLDEST_WAITER_SECONDS);
    }
}

void
world_audit(const struct world *world)
{
    const struct tally *tally = &world->tally;
    struct mgp_pool_counts counts;
    mgp_pool_read_counts(world->pool, &counts);
    uint64_t evictions =
        world_total_of(world, MGP_WORD_EVICTIONS, (size_t)MGP_EVICTION_REASON_COUNT);
    uint64_t rejections =
        world_total_of(world, MGP_WORD_ACQUIRE_REJECTIONS, (size_t)MGP_REJECTION_REASON_COUNT);
    uint64_t creates = world_total(world, MGP_WORD_CREATES);
    uint64_t size = world_total(world, MGP_WORD_SIZE);

    /* What callers saw is what was counted. */
    REQUIRE(world_total(world, MGP_WORD_HITS) == tally->hits);
    REQUIRE(world_total(world, MGP_WORD_MISSES) == tally->misses);
    REQUIRE(world_total(world, MGP_WORD_ACQUIRE_TIMEOUTS) == tally->timeouts);
    REQUIRE(world_total(world, MGP_WORD_ACQUIRE_CANCELLATIONS) == tally->cancellations);
    REQUIRE(world_total(world, MGP_WORD_CREATE_FAILURES) ==
            tally->failures + tally->unwanted_failures);
    REQUIRE(world_total(world, MGP_WORD_HEALTH_CHECKS) == tally->checks);
    REQUIRE(world_total(world, MGP_WORD_HEALTH_CHECK_FAILURES) == tally->failed_checks);
    REQUIRE(rejections == tally->rejections);
    REQUIRE(creates == tally->opened);
    REQUIRE(creates == tally->misses + tally->unwanted_successes);

    /* No caller is lost, and no session. */
    REQUIRE(tally->acquires == tally->hits + tally->misses + tally->rejections + tally->timeouts +
                                   tally->cancellations + tally->failures + tally->pending);
    REQUIRE(creates == size + evictions);
    REQUIRE(size == counts.active + counts.idle + counts.checking);
    REQUIRE(counts.active == tally->holding);
    REQUIRE(world_total(world, MGP_WORD_ACTIVE_SESSIONS) == counts.active);
    REQUIRE(world_total(world, MGP_WORD_WAITERS) == counts.waiters);
    REQUIRE(world_total(world, MGP_WORD_KEYS) == counts.keys);
    REQUIRE(tally->opened == tally->gone + size + counts.closing);
    audit_rows(world);
}
