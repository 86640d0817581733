#include "steady.h"

/* Virtual time from one operation to the next. */
#define TICK MICROSECOND

static void
open_one(struct world *world, uint32_t number)
{
    struct mgp_acquired acquired;
    REQUIRE(world_acquire(world, number, &acquired) == MGP_OK);
    REQUIRE(acquired.answer == MGP_ANSWER_CREATE);
    world_release(world, world_create(world, acquired.ticket), MGP_VERDICT_GOOD);
    REQUIRE(!mgp_pool_has_effects(world->pool));
    world->now_ns += TICK;
}

void
steady_init(struct steady *steady, const struct options *options, struct stopwatch *openings)
{
    struct mgp_config config = world_config();
    /* Hot keys get more sessions for the hand-offs. */
    uint32_t max_opened = options->keys + options->keys / 8 + 16384;
    world_init(&steady->world, &config, options->gateways, max_opened, options->check_every);
    steady->options = options;
    steady->random = (struct random){options->seed};
    steady->first = 0;
    zipf_init(&steady->zipf, options->keys, options->exponent);
    if (openings != NULL) {
        stopwatch_start(openings);
    }
    for (uint32_t number = 0; number < options->keys; number++) {
        open_one(&steady->world, number);
        if (openings != NULL) {
            stopwatch_step(openings);
        }
    }
    world_audit(&steady->world);
}

void
steady_fini(struct steady *steady)
{
    world_fini(&steady->world);
}

void
steady_draw_uniform(struct steady *steady)
{
    for (uint32_t i = 0; i < BLOCK; i++) {
        steady->drawn[i] = steady->first + random_below(&steady->random, steady->options->keys);
    }
}

void
steady_draw_by_zipf(struct steady *steady)
{
    for (uint32_t i = 0; i < BLOCK; i++) {
        steady->drawn[i] = steady->first + zipf_draw_scattered(&steady->zipf, &steady->random);
    }
}

void
steady_hit_block(struct steady *steady)
{
    struct world *world = &steady->world;
    for (uint32_t i = 0; i < BLOCK; i++) {
        struct mgp_acquired acquired;
        uint64_t hash = world_name_key(world, steady->drawn[i]);
        mgp_pool_try_acquire(world->pool, world->now_ns, hash, world->key, sizeof(world->key),
                             &acquired);
        REQUIRE(acquired.answer == MGP_ANSWER_SESSION);
        world->now_ns += TICK;
        REQUIRE(mgp_pool_release(world->pool, world->now_ns, acquired.ticket, MGP_VERDICT_GOOD) ==
                MGP_OK);
        world_check(world);
    }
    REQUIRE(!mgp_pool_has_effects(world->pool));
    world->tally.acquires += BLOCK;
    world->tally.hits += BLOCK;
}
