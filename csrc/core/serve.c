/* Who gets what comes free. THE RULE OF FAIRNESS:
 *
 *     Whatever comes free goes to whoever has waited longest among those whom it would help.
 *
 * What comes free is a session or a place. A session helps the waiters of its own key. A place
 * helps whoever may create: the waiters of a key that has room, at an endpoint that permits one
 * more creation. They claim it: each such queue by its oldest waiter, in the heap of its
 * endpoint; each endpoint by the oldest of those, in the heap of the pool. So the next to get a
 * place is the oldest waiter at the top, whatever kept it waiting (max_sessions_per_key,
 * max_creating_per_endpoint, a breaker, max_total_sessions), and whoever was in front of it and
 * was cancelled. A newcomer that finds anybody waiting for the same joins them.
 *
 * Only max_total_sessions leaves claims unserved between operations: those are the starved. To
 * them an idle session is a place, too, once it is closed:
 *   demand   places that the starved could use at once (no more than their endpoints permit);
 *   supply   closes under way that were begun for them, and no others: that some key closes
 *            its own sessions is no reason to begin none.
 * While demand exceeds supply, idle sessions are closed, the least recently used first. And a
 * session that comes back to a busy key is closed instead of handed to its next waiter, where
 * more of the starved came before that waiter than the supply will serve. So no busy key keeps
 * others waiting behind callers who came later. What a close frees is again nobody's own: it
 * goes by the rule. */
#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "transition.h"

/* Either search moves what it had to pass over to the end of its list and marks it, so
 * that nothing is passed over twice. */
struct mgp_session *
mgp_key_next_session(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    enum mgp_eviction_reason reason;
    struct mgp_link *place;
    while ((place = mgp_list_peek_front(&key->idle_sessions)) != NULL) {
        struct mgp_session *session = mgp_session_of_place(place);
        if (mgp_session_is_unfit(pool, session, now_ns, &reason)) {
            mgp_session_begin_close(pool, session, reason);
        } else if (!mgp_session_needs_check(pool, session, now_ns)) {
            return session;
        } else if (session->is_overdue) {
            break; /* so are all behind it */
        } else {
            session->is_overdue = true;
            mgp_session_restore_place(session);
        }
    }
    uint32_t max_leases = pool->config.max_leases_per_session;
    while (max_leases > 1 && (place = mgp_list_peek_front(&key->active_sessions)) != NULL) {
        struct mgp_session *session = mgp_session_of_place(place);
        if (session->is_full) {
            break; /* so are all behind it */
        }
        if (session->lease_count < max_leases &&
            !mgp_session_is_unfit(pool, session, now_ns, &reason)) {
            return session;
        }
        mgp_session_set_full(session, true);
    }
    return NULL;
}

bool
mgp_key_begin_check(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    enum mgp_eviction_reason reason;
    struct mgp_link *place;
    while ((place = mgp_list_peek_front(&key->idle_sessions)) != NULL) {
        struct mgp_session *session = mgp_session_of_place(place);
        if (!mgp_session_is_unfit(pool, session, now_ns, &reason)) {
            mgp_session_begin_check(pool, session);
            return true;
        }
        mgp_session_begin_close(pool, session, reason);
    }
    return false;
}

bool
mgp_key_has_room(const struct mgp_pool *pool, const struct mgp_key *key)
{
    return mgp_key_open(key) < pool->config.max_sessions_per_key;
}

bool
mgp_pool_has_room(const struct mgp_pool *pool)
{
    const struct mgp_pool_counts *counts = &pool->counts;
    uint32_t limit = pool->config.max_total_sessions;
    return limit == 0 ||
           counts->creating + counts->active + counts->idle + counts->checking + counts->closing <
               limit;
}

struct mgp_session *
mgp_pool_find_victim(struct mgp_pool *pool)
{
    struct mgp_link *link;
    while ((link = mgp_list_peek_front(&pool->idle_order)) != NULL) {
        struct mgp_session *session = mgp_session_of_idle_order(link);
        if (session->state == MGP_SESSION_IDLE) {
            return session;
        }
        /* Under a check: out of the way until that has ended, so that nobody passes it twice. */
        mgp_link_detach(link);
    }
    return NULL;
}

/* ---- waiters ---------------------------------------------------------------- */

void
mgp_waiter_park(struct mgp_pool *pool, struct mgp_key *key, struct mgp_waiter *waiter)
{
    MGP_ASSERT(key->queue != NULL);
    waiter->key = key;
    waiter->state = MGP_WAITER_WAITING;
    waiter->arrival = (int64_t)++pool->sequence;
    mgp_list_push_back(&key->queue->waiters, &waiter->link);
    key->queue->count++;
    pool->counts.waiters++;
    pool->leases.promised++;
    mgp_count(pool, key->row, MGP_WORD_WAITERS);
    mgp_row_add_waiter(key->row, &waiter->row_waiter, waiter->since_ns + pool->clock_offset_ns);
}

/* ---- claims ----------------------------------------------------------------- */

static uint32_t
smaller(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Puts a node where its number belongs, or takes it out where there is nothing to claim. */
static void
set_claim(struct mgp_heap *claims, struct mgp_heap_node *claim, bool is_claimed, int64_t arrival)
{
    if (!is_claimed) {
        mgp_heap_remove(claims, claim);
    } else if (mgp_heap_node_is_attached(claim)) {
        mgp_heap_update(claims, claim, arrival);
    } else {
        mgp_heap_insert(claims, claim, arrival);
    }
}

static void
set_demand(struct mgp_pool *pool, struct mgp_endpoint *endpoint, uint32_t permitted)
{
    const struct mgp_heap_node *oldest = mgp_heap_peek(&endpoint->claims);
    pool->demand -= endpoint->demand;
    endpoint->demand = smaller(endpoint->wanted, permitted);
    pool->demand += endpoint->demand;
    set_claim(&pool->claims, &endpoint->claim, endpoint->demand > 0,
              oldest == NULL ? 0 : oldest->at_ns);
}

static void
set_wanted(struct mgp_waitq *queue, uint32_t wanted)
{
    struct mgp_endpoint *endpoint = queue->key->endpoint;
    const struct mgp_waiter *oldest = mgp_waitq_peek(queue);
    endpoint->wanted -= queue->wanted;
    endpoint->wanted += wanted;
    queue->wanted = wanted;
    set_claim(&endpoint->claims, &queue->claim, wanted > 0, oldest == NULL ? 0 : oldest->arrival);
}

void
mgp_key_update_claims(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    const struct mgp_waitq *queue = key->queue;
    if (queue != NULL) {
        uint32_t open = mgp_key_open(key), limit = pool->config.max_sessions_per_key;
        /* A check under way answers one of them, if it ends well. */
        uint32_t wanted = queue->count > key->checking ? queue->count - key->checking : 0;
        set_wanted(key->queue, smaller(wanted, open < limit ? limit - open : 0));
    }
    set_demand(pool, key->endpoint, mgp_endpoint_permitted(pool, key->endpoint, now_ns));
}

/* Whether more of those who came before the waiter could use a place in the pool than there
 * are on their way to them. As no more of them are looked at than those, O(supply). */
static bool
is_owed_elsewhere(const struct mgp_pool *pool, const struct mgp_waiter *waiter)
{
    const struct mgp_heap *endpoints = &pool->claims;
    uint64_t owed = 0;
    if (pool->demand <= pool->supply) {
        return false;
    }
    for (size_t i = mgp_heap_first_before(endpoints, waiter->arrival); i != MGP_HEAP_DETACHED;
         i = mgp_heap_next_before(endpoints, i, waiter->arrival)) {
        const struct mgp_endpoint *endpoint =
            mgp_container_of(endpoints->nodes[i], struct mgp_endpoint, claim);
        const struct mgp_heap *queues = &endpoint->claims;
        uint32_t wanted = 0;
        for (size_t j = mgp_heap_first_before(queues, waiter->arrival);
             j != MGP_HEAP_DETACHED && wanted < endpoint->demand && owed + wanted <= pool->supply;
             j = mgp_heap_next_before(queues, j, waiter->arrival)) {
            const struct mgp_waitq *queue =
                mgp_container_of(queues->nodes[j], struct mgp_waitq, claim);
            uint32_t before = 0;
            struct mgp_link *link;
            mgp_list_for_each(link, &queue->waiters) {
                const struct mgp_waiter *other = mgp_container_of(link, struct mgp_waiter, link);
                if (other->arrival > waiter->arrival || before == queue->wanted ||
                    owed + wanted + before > pool->supply) {
                    break;
                }
                before++;
            }
            wanted += before;
        }
        owed += smaller(wanted, endpoint->demand);
        if (owed > pool->supply) {
            return true;
        }
    }
    return false;
}

void
mgp_waiter_unpark(struct mgp_pool *pool, struct mgp_waiter *waiter)
{
    struct mgp_key *key = waiter->key;
    struct mgp_waitq *queue = key->queue;
    MGP_ASSERT(waiter->state == MGP_WAITER_WAITING);
    mgp_link_detach(&waiter->link);
    waiter->key = NULL;
    queue->count--;
    pool->counts.waiters--;
    pool->leases.promised--;
    mgp_uncount(pool, key->row, MGP_WORD_WAITERS);
    mgp_row_remove_waiter(key->row, &waiter->row_waiter);
    if (queue->count == 0) {
        set_wanted(queue, 0);
        set_demand(pool, key->endpoint, key->endpoint->demand); /* at most; what now? follows */
        mgp_link_detach(&queue->endpoint_link);
        key->endpoint->queue_count--;
        key->queue = NULL;
        mgp_free(queue);
    }
}

void
mgp_waiter_fail(struct mgp_pool *pool, struct mgp_waiter *waiter, int status)
{
    mgp_waiter_unpark(pool, waiter);
    mgp_session_free(pool, waiter->spare);
    waiter->spare = NULL;
    waiter->state = MGP_WAITER_FAILED;
    waiter->status = status;
    mgp_effect_push(pool, &waiter->effect, MGP_EFFECT_FAIL);
}

static void
grant_session(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter,
              struct mgp_session *session)
{
    session->key->last_used_ns = now_ns;
    mgp_waiter_unpark(pool, waiter);
    mgp_session_free(pool, waiter->spare);
    waiter->spare = NULL;
    waiter->state = MGP_WAITER_GRANTED_SESSION;
    waiter->ticket = mgp_session_begin_lease(pool, session)->ticket;
    mgp_effect_push(pool, &waiter->effect, MGP_EFFECT_GRANT);
}

static void
grant_place(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter)
{
    struct mgp_key *key = waiter->key;
    mgp_waiter_unpark(pool, waiter);
    waiter->ticket = mgp_session_begin_create(pool, now_ns, waiter->spare, key);
    key->last_used_ns = now_ns;
    waiter->spare = NULL;
    waiter->state = MGP_WAITER_GRANTED_PLACE;
    mgp_effect_push(pool, &waiter->effect, MGP_EFFECT_GRANT);
}

bool
mgp_key_is_stranded(const struct mgp_key *key, int64_t now_ns)
{
    return key->active + key->checking + key->idle == 0 &&
           mgp_breaker_refuses(&key->endpoint->breaker, now_ns);
}

static void
fail_stranded(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    while (key->queue != NULL && mgp_key_is_stranded(key, now_ns)) {
        mgp_count(pool, key->row, MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN));
        mgp_waiter_fail(pool, mgp_waitq_peek(key->queue), MGP_ERR_CIRCUIT_OPEN);
    }
}

static void
close_for_starved(struct mgp_pool *pool, struct mgp_session *session)
{
    mgp_session_begin_close(pool, session, MGP_EVICTION_CAPACITY);
    session->is_supply = true;
    pool->supply++;
}

/* An idle session comes free while somebody waits for its key. */
static void
give_session(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    struct mgp_waiter *waiter = mgp_waitq_peek(session->key->queue);
    if (is_owed_elsewhere(pool, waiter)) {
        close_for_starved(pool, session);
    } else {
        grant_session(pool, now_ns, waiter, session);
    }
}

/* Free places in the pool, to whoever has waited longest among those who may create. */
static void
give_places(struct mgp_pool *pool, int64_t now_ns)
{
    const struct mgp_heap_node *claim;
    while ((claim = mgp_heap_peek(&pool->claims)) != NULL && mgp_pool_has_room(pool)) {
        const struct mgp_endpoint *endpoint = mgp_container_of(claim, struct mgp_endpoint, claim);
        const struct mgp_waitq *queue =
            mgp_container_of(mgp_heap_peek(&endpoint->claims), struct mgp_waitq, claim);
        struct mgp_key *key = queue->key;
        grant_place(pool, now_ns, mgp_waitq_peek(queue));
        mgp_key_update_claims(pool, now_ns, key);
        mgp_key_update_recency(pool, key);
    }
}

void
mgp_key_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    struct mgp_session *session;
    if (key->queue == NULL && key->endpoint->wanted == 0) { /* the common case */
        mgp_key_update_recency(pool, key);
        return;
    }
    while (key->queue != NULL && (session = mgp_key_next_session(pool, now_ns, key)) != NULL) {
        if (session->state == MGP_SESSION_IDLE) {
            give_session(pool, now_ns, session);
        } else {
            grant_session(pool, now_ns, mgp_waitq_peek(key->queue), session);
        }
    }
    mgp_key_update_claims(pool, now_ns, key);
    give_places(pool, now_ns);
    /* An idle session that needs a check before it can be handed out. No more checks than
     * waiters; and whoever saw one fail waits for that session's place instead of trying all
     * idle sessions in turn, unless a breaker keeps that place from being of use. */
    bool is_barred = mgp_breaker_refuses(&key->endpoint->breaker, now_ns);
    while (key->queue != NULL &&
           key->checking + (is_barred ? 0 : key->closing) < key->queue->count &&
           mgp_key_begin_check(pool, now_ns, key)) {
    }
    fail_stranded(pool, now_ns, key);
    mgp_key_update_claims(pool, now_ns, key);
    mgp_key_update_recency(pool, key);
}

void
mgp_endpoint_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint)
{
    set_demand(pool, endpoint, mgp_endpoint_permitted(pool, endpoint, now_ns));
    give_places(pool, now_ns);
}

bool
mgp_endpoint_is_due(const struct mgp_endpoint *endpoint, int64_t now_ns)
{
    return endpoint->wanted > 0 && endpoint->breaker.state == MGP_BREAKER_OPEN &&
           !mgp_breaker_refuses(&endpoint->breaker, now_ns);
}

void
mgp_session_return(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    enum mgp_eviction_reason reason;
    struct mgp_key *key = session->key;
    if (mgp_session_is_unfit(pool, session, now_ns, &reason)) {
        mgp_session_begin_close(pool, session, reason);
    } else {
        mgp_session_make_idle(pool, session);
        /* It was used or checked just now: whoever waits does not ask how long it was idle. */
        if (key->queue != NULL && !mgp_session_is_suspected(session)) {
            give_session(pool, now_ns, session);
        }
    }
    mgp_key_serve(pool, now_ns, key);
}

/* ---- after every operation -------------------------------------------------- */

void
mgp_settle(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_link *link;
    give_places(pool, now_ns);
    while (pool->demand > pool->supply) {
        struct mgp_session *victim = mgp_pool_find_victim(pool);
        if (victim == NULL) {
            break;
        }
        struct mgp_key *key = victim->key;
        close_for_starved(pool, victim);
        mgp_key_update_recency(pool, key);
    }
    while ((link = mgp_list_peek_front(&pool->empty_keys)) != NULL) {
        mgp_key_drop(pool, mgp_container_of(link, struct mgp_key, recency));
    }
}
