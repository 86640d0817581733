/* Sessions ready before they are needed: the replacement of one that nears the end of its life,
 * those that a key in use keeps in reserve (min_idle_per_key), and those that were asked for
 * (mgp_pool_warm).
 *
 * Such a session is opened for nobody: it goes to the oldest waiter, or idle. It takes a place
 * that nobody wants: its key has no waiter, nobody starves, and its endpoint, whose breaker is
 * closed, permits one more creation beside it for whoever comes. What comes later may want the
 * place all the same. A caller who would have got it waits for it and is not refused
 * (check_limits() in acquire.c), and a key whose only creation it is can be evicted.
 *
 * Nothing here fails for anybody: without a place, or memory, there is no such session. */
#include "ahead.h"

#include "machine.h"
#include "serve.h"
#include "transition.h"

/* Creations ahead at one endpoint at once: a quarter of what it permits, no more than this. */
#define AHEAD_PER_ENDPOINT_MAX 8

static uint32_t
ahead_limit(const struct mgp_pool *pool)
{
    uint32_t limit = pool->config.max_creating_per_endpoint;
    uint32_t quarter = limit < 4 ? 1 : limit / 4;
    return limit == 0 || quarter > AHEAD_PER_ENDPOINT_MAX ? AHEAD_PER_ENDPOINT_MAX : quarter;
}

bool
mgp_pool_has_place_to_spare(const struct mgp_pool *pool, const struct mgp_key *key)
{
    if (!mgp_pool_has_room(pool) || mgp_heap_peek(&pool->claims) != NULL) {
        return false;
    }
    return key == NULL || (key->queue == NULL && mgp_key_has_room(pool, key));
}

/* The same for one that nobody asked for: another creation may begin beside it, and there is a
 * session that it is to be like. */
static bool
may_begin(const struct mgp_pool *pool, const struct mgp_key *key)
{
    uint32_t opened = key->active + key->idle + key->checking + key->closing;
    const struct mgp_endpoint *endpoint = key->endpoint;
    uint32_t limit = pool->config.max_creating_per_endpoint;
    return !pool->is_closed && !key->is_retiring && !key->is_single_use && opened > 0 &&
           !mgp_breaker_is_open(&endpoint->breaker) && endpoint->ahead < ahead_limit(pool) &&
           (limit == 0 || endpoint->creating + 1 < limit) && mgp_pool_has_place_to_spare(pool, key);
}

struct mgp_session *
mgp_ahead_reserve(struct mgp_pool *pool)
{
    return mgp_leases_reserve(&pool->leases) < 0 ? NULL : mgp_session_new(pool);
}

struct mgp_ticket
mgp_key_open_ahead(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key, enum mgp_ahead kind,
                   struct mgp_session *spare)
{
    spare->is_ahead = true;
    spare->is_unwanted = true; /* nobody waits for it */
    spare->is_replacement = kind == MGP_AHEAD_REPLACEMENT;
    struct mgp_ticket ticket = mgp_session_begin_create(pool, now_ns, spare, key);
    if (kind != MGP_AHEAD_WARM) {
        mgp_effect_push(pool, &spare->effect, MGP_EFFECT_CREATE);
    }
    mgp_key_update_recency(pool, key);
    return ticket;
}

/* One that nobody asked for. False: there is no place to spare, or no memory. */
static bool
open_unasked(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key, enum mgp_ahead kind)
{
    struct mgp_session *spare = may_begin(pool, key) ? mgp_ahead_reserve(pool) : NULL;
    if (spare != NULL) {
        (void)mgp_key_open_ahead(pool, now_ns, key, kind, spare);
    }
    return spare != NULL;
}

/* Whether somebody used the key within a lifetime of its sessions. */
static bool
is_in_use(const struct mgp_pool *pool, int64_t now_ns, const struct mgp_key *key)
{
    int64_t lifetime_ns = pool->config.lifetime_ns, idle_ns = pool->config.idle_timeout_ns;
    return key->active > 0 ||
           now_ns - key->last_used_ns < (lifetime_ns < idle_ns ? lifetime_ns : idle_ns);
}

void
mgp_session_replace(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    /* One that was opened ahead, and that nobody used, is not missed: so what a burst of callers
     * left open does not stay for ever. */
    bool was_used = !session->is_ahead || session->lease_count > 0 ||
                    session->last_used_ns > session->created_ns;
    if (was_used && !session->is_broken && !session->is_retired &&
        !mgp_session_is_drained(pool, session) && is_in_use(pool, now_ns, session->key)) {
        (void)open_unasked(pool, now_ns, session->key, MGP_AHEAD_REPLACEMENT);
    }
}

bool
mgp_reserve_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_heap_node *node = mgp_heap_peek(&pool->shortages);
    if (node == NULL || node->at_ns > now_ns) {
        return false;
    }
    struct mgp_key *key = mgp_container_of(node, struct mgp_key, shortage);
    if (!mgp_key_is_short(pool, key) || !is_in_use(pool, now_ns, key)) {
        mgp_heap_remove(&pool->shortages, node); /* its next use notes it again */
    } else if (open_unasked(pool, now_ns, key, MGP_AHEAD_RESERVE)) {
        mgp_heap_update(&pool->shortages, node, now_ns); /* one more, perhaps */
    } else {
        mgp_heap_update(&pool->shortages, node, now_ns + MGP_AHEAD_RETRY_NS);
    }
    return true;
}
