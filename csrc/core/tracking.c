/* Checkouts whose length is watched: leak detection.
 *
 * The layer above has each tracked that it asks for (mgp_pool_track), and gives along what says
 * who acquired it. One that lasts for leak_detection_ns is counted and reported once: by upkeep,
 * or when it ends, where that comes first. Another is forgotten when it ends.
 *
 * All have the same time, so that the order in which they began is that of their deadlines. One
 * reminder stands for all of them. A checkout that ends leaves it where it is: when it is due, it
 * looks for the next. So nothing here costs a pool anything that tracks nothing, nor more than
 * O(1) for each checkout. */
#include "tracking.h"

#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"

static struct mgp_tracked *
longest(const struct mgp_pool *pool)
{
    struct mgp_link *link = mgp_list_peek_front(&pool->tracked);
    return link == NULL ? NULL : mgp_container_of(link, struct mgp_tracked, effect.link);
}

int
mgp_pool_track(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket, void *trace)
{
    struct mgp_lease *lease = mgp_leases_find(&pool->leases, ticket);
    if (lease == NULL) {
        return MGP_ERR_STALE;
    }
    MGP_ASSERT(lease->use == MGP_LEASE_TAKEN);
    struct mgp_tracked *tracked = mgp_alloc_zeroed(1, sizeof(*tracked));
    if (tracked == NULL) {
        return MGP_ERR_NOMEM;
    }
    tracked->lease = lease;
    tracked->trace = trace;
    tracked->since_ns = now_ns;
    lease->tracked = tracked;
    lease->use = MGP_LEASE_TRACKED;
    mgp_list_push_back(&pool->tracked, &tracked->effect.link);
    if (!mgp_heap_node_is_attached(&pool->tracking) && pool->config.leak_detection_ns > 0) {
        /* Its session has an endpoint, which has reserved the room. */
        mgp_heap_insert(&pool->reminders, &pool->tracking, now_ns + pool->config.leak_detection_ns);
    }
    return MGP_OK;
}

static bool
is_too_long(const struct mgp_pool *pool, int64_t now_ns, const struct mgp_tracked *tracked)
{
    int64_t limit_ns = pool->config.leak_detection_ns;
    return limit_ns > 0 && now_ns - tracked->since_ns >= limit_ns;
}

static void
stop(struct mgp_pool *pool, int64_t now_ns, struct mgp_tracked *tracked)
{
    struct mgp_lease *lease = tracked->lease;
    bool is_reported = is_too_long(pool, now_ns, tracked);
    if (is_reported) {
        mgp_count(pool, lease->session->key->row, MGP_WORD_LONG_CHECKOUTS);
    }
    tracked->payload = lease->session->payload;
    lease->use = MGP_LEASE_TAKEN;
    mgp_link_detach(&tracked->effect.link);
    mgp_effect_push(pool, &tracked->effect,
                    is_reported ? MGP_EFFECT_LONG_CHECKOUT : MGP_EFFECT_UNTRACKED);
}

void
mgp_tracking_end(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease)
{
    stop(pool, now_ns, lease->tracked);
}

void
mgp_tracking_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_tracked *tracked = longest(pool);
    if (tracked != NULL && is_too_long(pool, now_ns, tracked)) {
        stop(pool, now_ns, tracked);
        tracked = longest(pool);
    }
    if (tracked != NULL && pool->config.leak_detection_ns > 0) {
        mgp_heap_update(&pool->reminders, &pool->tracking,
                        tracked->since_ns + pool->config.leak_detection_ns);
    } else {
        mgp_heap_remove(&pool->reminders, &pool->tracking);
    }
}

void
mgp_tracking_update(struct mgp_pool *pool)
{
    mgp_heap_remove(&pool->reminders, &pool->tracking);
    if (longest(pool) != NULL) {
        mgp_heap_insert(&pool->reminders, &pool->tracking, INT64_MIN);
    }
}
