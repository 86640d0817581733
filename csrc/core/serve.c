/* Who gets what comes free: sessions to the oldest waiter of their key, places to the
 * oldest waiter of their key, of their endpoint, or of the pool. */
#include "../base/alloc.h"
#include "../base/check.h"
#include "machine.h"

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
    mgp_list_push_back(&key->queue->waiters, &waiter->link);
    key->queue->count++;
    pool->counts.waiters++;
    pool->leases.promised++;
    mgp_count(pool, key->row, MGP_WORD_WAITERS);
    mgp_row_add_waiter(key->row, &waiter->row_waiter, waiter->since_ns + pool->clock_offset_ns);
}

/* Notes who denies the queue a place: the pool, its endpoint, or nobody (NULL). A queue
 * keeps its turn for as long as that does not change and it was granted no place. */
static void
set_starved(struct mgp_pool *pool, struct mgp_waitq *queue, struct mgp_list *starved,
            uint32_t demand)
{
    if (queue->starved_in != starved) {
        mgp_link_detach(&queue->starved_link);
        if (starved != NULL) {
            mgp_list_push_back(starved, &queue->starved_link);
        }
        queue->starved_in = starved;
    }
    pool->demand += demand;
    pool->demand -= queue->demand;
    queue->demand = demand;
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
        set_starved(pool, queue, NULL, 0);
        mgp_link_detach(&queue->endpoint_link);
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
    set_starved(pool, key->queue, NULL, 0);
    mgp_waiter_unpark(pool, waiter);
    waiter->ticket = mgp_session_begin_create(pool, now_ns, waiter->spare, key);
    waiter->spare = NULL;
    waiter->state = MGP_WAITER_GRANTED_PLACE;
    mgp_effect_push(pool, &waiter->effect, MGP_EFFECT_GRANT);
}

/* Fails the waiters of a key that has nothing they could get while its breaker refuses. */
static void
fail_stranded(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    if (key->active + key->checking > 0 || !mgp_breaker_refuses(&key->endpoint->breaker, now_ns)) {
        return;
    }
    while (key->queue != NULL) {
        mgp_count(pool, key->row, MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_CIRCUIT_OPEN);
        mgp_waiter_fail(pool, mgp_waitq_peek(key->queue), MGP_ERR_CIRCUIT_OPEN);
    }
}

/* Waiters that wait for more than the checks under way, and so would take a place. */
static uint32_t
waiters_for_a_place(const struct mgp_key *key)
{
    return key->queue->count > key->checking ? key->queue->count - key->checking : 0;
}

/* What the waiters that could not be served wait for: begins a check where an idle
 * session needs one before it can be handed out, and notes who denies them a place. */
static void
arrange_supply(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    struct mgp_waitq *queue = key->queue;
    /* No more checks than waiters; and whoever saw one fail waits for that session's
     * place instead of trying all idle sessions in turn. */
    while (key->checking + key->closing < queue->count && mgp_key_begin_check(pool, now_ns, key)) {
    }
    uint32_t wanted = waiters_for_a_place(key);
    if (wanted == 0 || !mgp_key_has_room(pool, key)) {
        set_starved(pool, queue, NULL, 0);
    } else if (!mgp_endpoint_permits(pool, key->endpoint, now_ns)) {
        set_starved(pool, queue, &key->endpoint->starved, 0);
    } else {
        MGP_ASSERT(!mgp_pool_has_room(pool));
        uint32_t room = pool->config.max_sessions_per_key - mgp_key_open(key);
        set_starved(pool, queue, &pool->starved, wanted < room ? wanted : room);
    }
}

void
mgp_key_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key)
{
    while (key->queue != NULL) {
        struct mgp_waiter *waiter = mgp_waitq_peek(key->queue);
        struct mgp_session *session = mgp_key_next_session(pool, now_ns, key);
        if (session != NULL) {
            grant_session(pool, now_ns, waiter, session);
        } else if (waiters_for_a_place(key) > 0 && mgp_key_has_room(pool, key) &&
                   mgp_pool_has_room(pool) && mgp_endpoint_permits(pool, key->endpoint, now_ns)) {
            grant_place(pool, now_ns, waiter);
        } else {
            break;
        }
    }
    if (key->queue != NULL) {
        fail_stranded(pool, now_ns, key);
    }
    if (key->queue != NULL) {
        arrange_supply(pool, now_ns, key);
    }
    mgp_key_update_recency(pool, key);
}

void
mgp_endpoint_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint)
{
    struct mgp_link *link;
    while ((link = mgp_list_peek_front(&endpoint->starved)) != NULL &&
           mgp_endpoint_permits(pool, endpoint, now_ns)) {
        struct mgp_waitq *queue = mgp_container_of(link, struct mgp_waitq, starved_link);
        mgp_key_serve(pool, now_ns, queue->key);
    }
}

void
mgp_pool_serve(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_link *link;
    while ((link = mgp_list_peek_front(&pool->starved)) != NULL && mgp_pool_has_room(pool)) {
        struct mgp_waitq *queue = mgp_container_of(link, struct mgp_waitq, starved_link);
        mgp_key_serve(pool, now_ns, queue->key);
    }
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
            grant_session(pool, now_ns, mgp_waitq_peek(key->queue), session);
        }
    }
    mgp_key_serve(pool, now_ns, key);
}

/* ---- after every operation -------------------------------------------------- */

void
mgp_settle(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_link *link;
    mgp_pool_serve(pool, now_ns);
    while (pool->demand > pool->counts.closing) {
        struct mgp_session *victim = mgp_pool_find_victim(pool);
        if (victim == NULL) {
            break;
        }
        struct mgp_key *key = victim->key;
        mgp_session_begin_close(pool, victim, MGP_EVICTION_CAPACITY);
        mgp_key_update_recency(pool, key);
    }
    while ((link = mgp_list_peek_front(&pool->empty_keys)) != NULL) {
        mgp_key_drop(pool, mgp_container_of(link, struct mgp_key, recency));
    }
}
