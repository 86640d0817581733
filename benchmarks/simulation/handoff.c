#include "handoff.h"

#include <stdlib.h>

#define HOLDERS_MAX 10
#define WAITERS 8

struct caller {
    struct mgp_waiter *waiter;
    uint64_t turn; /* callers of one key are served in this order */
};

struct hot_key {
    uint32_t number;
    uint32_t next_holder;
    uint64_t turns_given;
    uint64_t turns_served;
    struct mgp_ticket holders[HOLDERS_MAX];
    struct caller callers[WAITERS];
};

static void
wait_for(struct handoff *handoff, struct hot_key *key, struct caller *caller)
{
    struct mgp_acquired acquired;
    REQUIRE(world_acquire(handoff->world, key->number, &acquired) == MGP_OK);
    REQUIRE(acquired.answer == MGP_ANSWER_WAIT);
    caller->waiter = acquired.waiter;
    caller->turn = key->turns_given++;
    mgp_waiter_set_payload(caller->waiter, caller);
}

static struct mgp_ticket
hold(struct world *world, uint32_t number)
{
    struct mgp_acquired acquired;
    REQUIRE(world_acquire(world, number, &acquired) == MGP_OK);
    if (acquired.answer == MGP_ANSWER_CREATE) {
        return world_create(world, acquired.ticket);
    }
    REQUIRE(acquired.answer == MGP_ANSWER_SESSION);
    return acquired.ticket;
}

void
handoff_init(struct handoff *handoff, struct world *world, uint32_t first, uint32_t key_count)
{
    uint32_t max_sessions = world->config.max_sessions_per_key;
    REQUIRE(max_sessions == HOLDERS_MAX);
    handoff->world = world;
    handoff->key_count = key_count;
    handoff->keys = calloc(key_count, sizeof(*handoff->keys));
    REQUIRE(handoff->keys != NULL);
    for (uint32_t i = 0; i < key_count; i++) {
        struct hot_key *key = &handoff->keys[i];
        key->number = first + i;
        for (uint32_t holder = 0; holder < HOLDERS_MAX; holder++) {
            key->holders[holder] = hold(world, key->number);
        }
        for (uint32_t waiter = 0; waiter < WAITERS; waiter++) {
            wait_for(handoff, key, &key->callers[waiter]);
        }
    }
    REQUIRE(!mgp_pool_has_effects(world->pool));
    world_audit(world);
}

void
handoff_step(struct handoff *handoff, uint32_t number)
{
    struct world *world = handoff->world;
    struct hot_key *key = &handoff->keys[number];
    struct mgp_acquired acquired;
    struct mgp_effect effect;
    uint32_t holder = key->next_holder;
    key->next_holder = holder + 1 < HOLDERS_MAX ? holder + 1 : 0;
    world->now_ns += MICROSECOND;
    world_release(world, key->holders[holder], MGP_VERDICT_GOOD);
    REQUIRE(world_next_effect(world, &effect) && effect.kind == MGP_EFFECT_GRANT);
    struct caller *caller = effect.payload;
    REQUIRE(caller->turn == key->turns_served); /* the oldest */
    key->turns_served++;
    world_take(world, caller->waiter, &acquired);
    REQUIRE(acquired.answer == MGP_ANSWER_SESSION);
    key->holders[holder] = acquired.ticket;
    wait_for(handoff, key, caller);
    REQUIRE(!mgp_pool_has_effects(world->pool));
}

uint64_t
handoff_waiting(const struct handoff *handoff)
{
    return (uint64_t)handoff->key_count * WAITERS;
}

void
handoff_time_out(struct handoff *handoff, uint64_t number)
{
    struct hot_key *key = &handoff->keys[number / WAITERS];
    struct caller *caller = &key->callers[number % WAITERS];
    world_cancel(handoff->world, caller->waiter, MGP_CANCEL_BY_TIMEOUT);
    caller->waiter = NULL;
}

void
handoff_fini(struct handoff *handoff)
{
    for (uint32_t i = 0; i < handoff->key_count; i++) {
        for (uint32_t holder = 0; holder < HOLDERS_MAX; holder++) {
            world_release(handoff->world, handoff->keys[i].holders[holder], MGP_VERDICT_GOOD);
        }
    }
    REQUIRE(!mgp_pool_has_effects(handoff->world->pool));
    world_audit(handoff->world);
    free(handoff->keys);
}
