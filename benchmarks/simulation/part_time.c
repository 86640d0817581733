/* What each operation takes in a pool of so many keys. */
#include <stdlib.h>

#include "handoff.h"
#include "parts.h"
#include "steady.h"

/* Steps of upkeep between two turns of the event loop: UPKEEP_BUDGET of csrc/python/pool.c. */
#define UPKEEP_SLICE 8

/* Keys with waiters, the same number in pools of any size. */
#define HOT_KEYS 100

/* Openings and closings that the small pools are filled and emptied for again. */
#define CYCLES_OF 50000

static void
print_longest(const char *step, const char *slice, const struct stopwatch *stopwatch)
{
    print_figure(step, (double)stopwatch->longest_step_ns);
    print_figure(slice, (double)stopwatch->longest_slice_ns);
}

/* A session of a key that the pool does not know, where max_total_sessions is reached: the least
 * recently used one is closed, and with it its key goes. */
static void
open_by_evicting(struct world *world, uint32_t number)
{
    struct mgp_acquired acquired;
    struct mgp_effect effect;
    world->now_ns += MICROSECOND;
    REQUIRE(world_acquire(world, number, &acquired) == MGP_OK);
    REQUIRE(acquired.answer == MGP_ANSWER_WAIT);
    REQUIRE(world_next_effect(world, &effect) && effect.kind == MGP_EFFECT_CLOSE);
    REQUIRE(effect.reason == MGP_EVICTION_CAPACITY);
    REQUIRE(mgp_pool_close_ended(world->pool, world->now_ns, effect.ticket) == MGP_OK);
    REQUIRE(world_next_effect(world, &effect) && effect.kind == MGP_EFFECT_GRANT);
    world_take(world, acquired.waiter, &acquired);
    REQUIRE(acquired.answer == MGP_ANSWER_CREATE);
    REQUIRE(!world_next_effect(world, &effect));
    world_release(world, world_create(world, acquired.ticket), MGP_VERDICT_GOOD);
}

static void
measure_evictions(struct steady *steady)
{
    struct world *world = &steady->world;
    uint32_t keys = steady->options->keys;
    uint32_t count = steady->options->operations / 4;
    struct stopwatch stopwatch;
    struct mgp_config config = world->config;
    config.max_total_sessions = keys;
    mgp_pool_configure(world->pool, &config);
    stopwatch_init(&stopwatch, UPKEEP_SLICE);
    stopwatch_start(&stopwatch);
    for (uint32_t i = 0; i < count; i++) {
        open_by_evicting(world, keys + i);
        stopwatch_step(&stopwatch);
    }
    mgp_pool_configure(world->pool, &world->config);
    steady->first = count; /* in the order of their last use, the first `count` are gone */
    world_audit(world);
    REQUIRE(world_total(world, MGP_EVICTION_WORD(MGP_EVICTION_CAPACITY)) == count);
    print_figure("evict_and_open_ns", stopwatch_mean_ns(&stopwatch));
    print_figure("evict_and_open_longest_ns", (double)stopwatch.longest_step_ns);
}

static void
measure_hits(struct steady *steady, const char *name, void (*draw)(struct steady *steady))
{
    uint32_t blocks = steady->options->operations / BLOCK + 1;
    double *costs = calloc(blocks, sizeof(*costs));
    REQUIRE(costs != NULL);
    for (uint32_t i = 0; i < blocks / 4; i++) { /* to get used to this traffic */
        draw(steady);
        steady_hit_block(steady);
    }
    for (uint32_t i = 0; i < blocks; i++) {
        draw(steady);
        int64_t start_ns = stopwatch_now_ns();
        steady_hit_block(steady);
        costs[i] = (double)(stopwatch_now_ns() - start_ns) / BLOCK;
    }
    world_audit(&steady->world);
    print_figure(name, median(costs, blocks));
    free(costs);
}

/* What it costs to draw keys, which no other figure includes. */
static void
measure_draws(struct steady *steady)
{
    double costs[64];
    for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
        int64_t start_ns = stopwatch_now_ns();
        steady_draw_by_zipf(steady);
        costs[i] = (double)(stopwatch_now_ns() - start_ns) / BLOCK;
    }
    print_figure("zipf_draw_ns", median(costs, sizeof(costs) / sizeof(costs[0])));
}

static void
measure_handoffs(struct steady *steady)
{
    struct world *world = &steady->world;
    uint32_t hot_keys = steady->options->keys < HOT_KEYS ? steady->options->keys : HOT_KEYS;
    uint32_t blocks = steady->options->operations / 2 / BLOCK + 1;
    double *costs = calloc(blocks, sizeof(*costs));
    struct handoff handoff;
    struct stopwatch timeouts;
    REQUIRE(costs != NULL);
    handoff_init(&handoff, world, steady->first, hot_keys);
    for (uint32_t block = 0; block < blocks; block++) {
        for (uint32_t i = 0; i < BLOCK; i++) {
            steady->drawn[i] = random_below(&steady->random, hot_keys);
        }
        int64_t start_ns = stopwatch_now_ns();
        for (uint32_t i = 0; i < BLOCK; i++) {
            handoff_step(&handoff, steady->drawn[i]);
        }
        costs[block] = (double)(stopwatch_now_ns() - start_ns) / BLOCK;
    }
    world_audit(world);
    stopwatch_init(&timeouts, 1);
    stopwatch_start(&timeouts);
    for (uint64_t i = 0; i < handoff_waiting(&handoff); i++) {
        handoff_time_out(&handoff, i);
        stopwatch_step(&timeouts);
    }
    handoff_fini(&handoff);
    print_figure("hand_off_ns", median(costs, blocks));
    print_figure("time_out_ns", stopwatch_mean_ns(&timeouts));
    free(costs);
}

/* Upkeep, step by step, with the closes that it asks for, until so many sessions are left. */
static void
expire_until(struct world *world, uint64_t left, struct stopwatch *stopwatch)
{
    stopwatch_start(stopwatch);
    while (world_total(world, MGP_WORD_SIZE) > left) {
        mgp_pool_upkeep(world->pool, world->now_ns, 1);
        world_settle(world);
        stopwatch_step(stopwatch);
    }
}

/* One half by the time without use, the other by the end of their lifetimes. */
static void
expire_all(struct world *world, struct stopwatch *idle, struct stopwatch *lifetimes)
{
    uint64_t size = world_total(world, MGP_WORD_SIZE);
    world->now_ns += world->config.idle_timeout_ns;
    expire_until(world, size - size / 2, idle);
    world->now_ns += world->config.lifetime_ns;
    expire_until(world, 0, lifetimes);
    world_audit(world);
    REQUIRE(world_total(world, MGP_EVICTION_WORD(MGP_EVICTION_IDLE_TIMEOUT)) == size / 2);
    REQUIRE(world_total(world, MGP_EVICTION_WORD(MGP_EVICTION_TTL_EXPIRED)) == size - size / 2);
    struct mgp_pool_counts counts;
    mgp_pool_read_counts(world->pool, &counts);
    REQUIRE(counts.keys == 0 && counts.idle == 0 && counts.closing == 0);
    REQUIRE(counts.sessions_reaped == size);
    REQUIRE(!mgp_pool_upkeep(world->pool, world->now_ns, 1));
}

void
part_time(const struct options *options)
{
    static struct steady steady;
    struct stopwatch openings, idle, lifetimes;
    stopwatch_init(&openings, UPKEEP_SLICE);
    stopwatch_init(&idle, UPKEEP_SLICE);
    stopwatch_init(&lifetimes, UPKEEP_SLICE);
    uint32_t cycles = options->operations < CYCLES_OF ? 1 : 1 + CYCLES_OF / options->keys;
    for (uint32_t cycle = 1; cycle <= cycles; cycle++) {
        steady_init(&steady, options, &openings);
        if (cycle == cycles) {
            measure_draws(&steady);
            measure_evictions(&steady);
            measure_hits(&steady, "hit_zipf_ns", steady_draw_by_zipf);
            measure_hits(&steady, "hit_uniform_ns", steady_draw_uniform);
            measure_handoffs(&steady);
        }
        expire_all(&steady.world, &idle, &lifetimes);
        steady_fini(&steady);
    }
    print_figure("open_ns", stopwatch_mean_ns(&openings));
    print_figure("open_longest_ns", (double)openings.longest_step_ns);
    print_figure("expire_idle_ns", stopwatch_mean_ns(&idle));
    print_longest("expire_idle_longest_ns", "expire_idle_longest_slice_ns", &idle);
    print_figure("expire_lifetime_ns", stopwatch_mean_ns(&lifetimes));
    print_longest("expire_lifetime_longest_ns", "expire_lifetime_longest_slice_ns", &lifetimes);
}
