/* The pool as a whole: its making, drain, close and end. */
#include "pool.h"

#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "serve.h"
#include "tracking.h"
#include "transition.h"

int
mgp_pool_new(const struct mgp_config *config, struct mgp_pool **pool_out)
{
    struct mgp_pool *pool = mgp_alloc_zeroed(1, sizeof(*pool));
    if (pool == NULL) {
        return MGP_ERR_NOMEM;
    }
    mgp_table_init(&pool->keys, config->hash_key);
    mgp_table_init(&pool->endpoints, config->hash_key);
    for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
        mgp_table_init(&pool->groups[i], config->hash_key);
    }
    mgp_list_init(&pool->idle_order);
    mgp_list_init(&pool->health_order);
    mgp_list_init(&pool->evictable_keys);
    mgp_list_init(&pool->empty_keys);
    mgp_list_init(&pool->sweeping);
    mgp_list_init(&pool->effects);
    mgp_list_init(&pool->tracked);
    mgp_heap_node_init(&pool->tracking);
    mgp_heap_init(&pool->lifetimes);
    mgp_heap_init(&pool->shortages);
    mgp_heap_init(&pool->reminders);
    mgp_heap_init(&pool->remembered);
    mgp_heap_init(&pool->claims);
    mgp_slots_init(&pool->session_slots);
    mgp_leases_init(&pool->leases);
    pool->random_state = config->random_seed;
    pool->next_check_ns = INT64_MIN;
    mgp_pool_configure(pool, config);
    pool->is_reconfigured = false;
    *pool_out = pool;
    return MGP_OK;
}

void
mgp_pool_number_after(struct mgp_pool *pool, const struct mgp_pool *before)
{
    MGP_ASSERT(pool->session_structs == 0);
    pool->session_slots.last_generation = before->session_slots.last_generation;
    pool->leases.slots.last_generation = before->leases.slots.last_generation;
}

static int64_t
clamp_duration(int64_t duration_ns)
{
    return duration_ns < MGP_DURATION_MAX_NS ? duration_ns : MGP_DURATION_MAX_NS;
}

void
mgp_pool_configure(struct mgp_pool *pool, const struct mgp_config *config)
{
    pool->config = *config;
    pool->config.breaker_reset_ns = clamp_duration(config->breaker_reset_ns);
    pool->config.lifetime_ns = clamp_duration(config->lifetime_ns);
    pool->config.idle_timeout_ns = clamp_duration(config->idle_timeout_ns);
    pool->config.health_interval_ns = clamp_duration(config->health_interval_ns);
    pool->config.leak_detection_ns = clamp_duration(config->leak_detection_ns);
    mgp_tracking_update(pool);
    pool->is_reconfigured = true;
}

void
mgp_pool_free(struct mgp_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    MGP_ASSERT(pool->keys.count == 0 && mgp_list_is_empty(&pool->effects));
    struct mgp_heap_node *node;
    while ((node = mgp_heap_peek(&pool->remembered)) != NULL) {
        mgp_endpoint_forget(pool, mgp_container_of(node, struct mgp_endpoint, oblivion));
    }
    mgp_table_fini(&pool->keys);
    mgp_table_fini(&pool->endpoints);
    for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
        mgp_table_fini(&pool->groups[i]);
    }
    mgp_heap_fini(&pool->lifetimes);
    mgp_heap_fini(&pool->shortages);
    mgp_heap_fini(&pool->reminders);
    mgp_heap_fini(&pool->remembered);
    mgp_heap_fini(&pool->claims);
    mgp_slots_fini(&pool->session_slots);
    mgp_leases_fini(&pool->leases);
    mgp_free(pool);
}

void
mgp_pool_set_clock_offset(struct mgp_pool *pool, int64_t offset_ns)
{
    pool->clock_offset_ns = offset_ns;
}

/* ---- drain, close, abandon -------------------------------------------------- */

void
mgp_pool_drain(struct mgp_pool *pool)
{
    pool->drained_before = ++pool->sequence;
}

bool
mgp_pool_is_closed(const struct mgp_pool *pool)
{
    return pool->is_closed;
}

void
mgp_pool_set_closed(struct mgp_pool *pool, bool is_closed)
{
    pool->is_closed = is_closed;
}

static void
end_leases(struct mgp_pool *pool, int64_t now_ns, struct mgp_list *sessions)
{
    for (struct mgp_link *place = sessions->head.next, *next; place != &sessions->head;
         place = next) {
        next = place->next;
        struct mgp_session *session = mgp_session_of_place(place);
        while (session->lease_count > 0) {
            mgp_session_end_lease(pool, now_ns, session->leases);
        }
    }
}

static void
close_key(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key,
          enum mgp_eviction_reason reason)
{
    while (key->queue != NULL) {
        mgp_waiter_fail(pool, mgp_waitq_peek(key->queue), MGP_ERR_CLOSED);
    }
    mgp_sessions_close(pool, &key->idle_sessions, reason);
    end_leases(pool, now_ns, &key->active_sessions);
    mgp_sessions_close(pool, &key->active_sessions, reason);
    /* Those closed just now are at the end of this list, and are passed over. */
    mgp_sessions_close(pool, &key->other_sessions, reason);
    mgp_key_update_recency(pool, key);
}

/* What visits the keys of a pool that closes. */
struct closing {
    struct mgp_pool *pool;
    int64_t now_ns;
};

static int
visit_close_key(struct mgp_table_entry *entry, void *context)
{
    const struct closing *closing = context;
    close_key(closing->pool, closing->now_ns, mgp_container_of(entry, struct mgp_key, entry),
              MGP_EVICTION_MANUAL);
    return 0;
}

void
mgp_pool_close(struct mgp_pool *pool, int64_t now_ns)
{
    struct closing closing = {pool, now_ns};
    pool->is_closed = true;
    mgp_table_visit(&pool->keys, visit_close_key, &closing);
    mgp_settle(pool, now_ns);
}

static int
visit_abandon_key(struct mgp_table_entry *entry, void *context)
{
    const struct closing *closing = context;
    struct mgp_pool *pool = closing->pool;
    struct mgp_key *key = mgp_container_of(entry, struct mgp_key, entry);
    struct mgp_link *place;
    close_key(pool, closing->now_ns, key, MGP_EVICTION_BROKEN);
    while ((place = mgp_list_peek_front(&key->other_sessions)) != NULL) {
        struct mgp_session *session = mgp_session_of_place(place);
        if (session->state == MGP_SESSION_CREATING) {
            mgp_endpoint_creation_undecided(pool, closing->now_ns, session);
            mgp_session_drop_creation(pool, session);
        } else {
            mgp_session_make_gone(pool, session);
        }
    }
    mgp_key_update_recency(pool, key);
    return 0;
}

void
mgp_pool_abandon(struct mgp_pool *pool, int64_t now_ns)
{
    struct closing closing = {pool, now_ns};
    mgp_table_visit(&pool->keys, visit_abandon_key, &closing);
    mgp_settle(pool, now_ns);
    MGP_ASSERT(pool->keys.count == 0);
}

size_t
mgp_pool_evict_group(struct mgp_pool *pool, int64_t now_ns, size_t which, struct mgp_bytes name)
{
    MGP_ASSERT(which < MGP_GROUPS_MAX);
    struct mgp_table *table = &pool->groups[which];
    struct mgp_table_entry *entry =
        mgp_table_find(table, mgp_table_hash(table, name.bytes, name.size), name.bytes, name.size);
    size_t count = 0;
    if (entry == NULL) {
        return 0;
    }
    struct mgp_group *group = mgp_container_of(entry, struct mgp_group, entry);
    struct mgp_link *link;
    mgp_list_for_each(link, &group->members) {
        struct mgp_key *key = mgp_container_of(link, struct mgp_membership, link)->key;
        struct mgp_link *place;
        count += key->idle + key->checking + key->active;
        mgp_sessions_close(pool, &key->idle_sessions, MGP_EVICTION_MANUAL);
        mgp_list_for_each(place, &key->active_sessions) {
            mgp_session_of_place(place)->is_retired = true;
            mgp_session_set_apart(mgp_session_of_place(place));
        }
        mgp_list_for_each(place, &key->other_sessions) {
            mgp_session_of_place(place)->is_retired = true;
            mgp_session_set_apart(mgp_session_of_place(place));
        }
        mgp_key_note_shortage(pool, key, INT64_MIN);
        mgp_key_update_claims(pool, now_ns, key);
    }
    /* Each has claimed before any is served: who has waited longest goes first. */
    mgp_list_for_each(link, &group->members) {
        mgp_key_serve(pool, now_ns, mgp_container_of(link, struct mgp_membership, link)->key);
    }
    mgp_settle(pool, now_ns);
    return count;
}
