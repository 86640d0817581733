/* Acquire, and what a waiter does with what it was granted: take, cancel. */
#include "../base/alloc.h"
#include "../base/check.h"
#include "ahead.h"
#include "counting.h"
#include "creation.h"
#include "machine.h"
#include "release.h"
#include "serve.h"
#include "transition.h"

/* All the memory that one acquire may need, had before anything is changed. */
struct reservation {
    struct mgp_session *spare;
    struct mgp_waiter *waiter;
    struct mgp_waitq *queue; /* NULL where the key has one */
};

static void
unreserve(struct mgp_pool *pool, struct reservation *reservation)
{
    mgp_session_free(pool, reservation->spare);
    mgp_free(reservation->waiter);
    mgp_free(reservation->queue);
}

static int
reserve(struct mgp_pool *pool, bool has_queue, struct reservation *reservation)
{
    *reservation = (struct reservation){NULL, NULL, NULL};
    if (mgp_leases_reserve(&pool->leases) < 0) {
        return MGP_ERR_NOMEM;
    }
    reservation->spare = mgp_session_new(pool);
    reservation->waiter = mgp_alloc_zeroed(1, sizeof(*reservation->waiter));
    if (!has_queue) {
        reservation->queue = mgp_alloc_zeroed(1, sizeof(*reservation->queue));
    }
    if (reservation->spare == NULL || reservation->waiter == NULL ||
        (!has_queue && reservation->queue == NULL)) {
        unreserve(pool, reservation);
        return MGP_ERR_NOMEM;
    }
    return MGP_OK;
}

/* Room for one more queue among its endpoint's claims. */
static int
reserve_claim(struct mgp_endpoint *endpoint)
{
    return mgp_heap_reserve(&endpoint->claims, endpoint->queue_count + 1);
}

uint64_t
mgp_pool_hash(const struct mgp_pool *pool, const void *key, size_t size)
{
    return mgp_table_hash(&pool->keys, key, size);
}

static void
count_anonymous(struct mgp_pool *pool, struct mgp_row *row, bool is_anonymous)
{
    if (is_anonymous) {
        mgp_count(pool, row, MGP_WORD_ANONYMOUS_ACQUIRES);
    }
}

static void
answer_session(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session,
               struct mgp_acquired *acquired)
{
    struct mgp_key *key = session->key;
    struct mgp_lease *lease = mgp_session_begin_lease(pool, session);
    mgp_lease_begin_use(lease, now_ns);
    key->last_used_ns = now_ns;
    mgp_key_update_recency(pool, key);
    mgp_count(pool, key->row, MGP_WORD_HITS);
    acquired->answer = MGP_ANSWER_SESSION;
    acquired->ticket = lease->ticket;
    acquired->payload = session->payload;
}

void
mgp_pool_try_acquire(struct mgp_pool *pool, int64_t now_ns, uint64_t hash, const void *key_bytes,
                     size_t size, struct mgp_acquired *acquired)
{
    enum mgp_eviction_reason reason;
    acquired->answer = MGP_ANSWER_NONE;
    struct mgp_key *key = mgp_key_find(pool, hash, key_bytes, size);
    if (key == NULL) {
        return;
    }
    struct mgp_link *place = mgp_list_peek_front(&key->idle_sessions);
    if (place == NULL) {
        return;
    }
    struct mgp_session *session = mgp_session_of_place(place);
    if (mgp_session_is_unfit(pool, session, now_ns, &reason) ||
        mgp_session_needs_check(pool, session, now_ns) || mgp_leases_reserve(&pool->leases) < 0) {
        return;
    }
    count_anonymous(pool, key->row, key->is_anonymous);
    answer_session(pool, now_ns, session, acquired);
}

static int
reject(struct mgp_pool *pool, struct mgp_row *row, enum mgp_rejection_reason reason, int status)
{
    mgp_count(pool, row, MGP_REJECTION_WORD(reason));
    return status;
}

/* Makes room for one more key, by the one that was used least recently. */
static void
evict_key(struct mgp_pool *pool, struct mgp_key *key)
{
    mgp_sessions_close(pool, &key->idle_sessions, MGP_EVICTION_CAPACITY);
    mgp_sessions_close(pool, &key->other_sessions, MGP_EVICTION_CAPACITY); /* under a check */
    struct mgp_link *place;
    mgp_list_for_each(place, &key->other_sessions) {
        mgp_session_of_place(place)->is_retired = true; /* being opened for nobody */
    }
    mgp_key_set_retiring(pool, key, true);
    mgp_key_update_recency(pool, key);
}

/* Whether an acquire must be refused at once, by the state of things. */
static int
check_limits(struct mgp_pool *pool, int64_t now_ns, const struct mgp_key *key,
             const struct mgp_endpoint *endpoint, struct mgp_row *row)
{
    const struct mgp_config *config = &pool->config;
    if (key == NULL ? endpoint != NULL && mgp_breaker_refuses(&endpoint->breaker, now_ns)
                    : mgp_key_is_stranded(key, now_ns)) {
        return reject(pool, row, MGP_REJECTION_CIRCUIT_OPEN, MGP_ERR_CIRCUIT_OPEN);
    }
    if (key != NULL && config->max_waiters_per_key > 0 &&
        mgp_key_waiters(key) >= config->max_waiters_per_key) {
        return reject(pool, row, MGP_REJECTION_QUEUE_FULL, MGP_ERR_QUEUE_FULL);
    }
    bool has_nothing = key == NULL || (mgp_key_open(key) == 0 && key->queue == NULL);
    if (has_nothing && !mgp_pool_has_room(pool) && mgp_pool_find_victim(pool) == NULL &&
        pool->counts.closing + pool->counts.ahead <= pool->demand) {
        return reject(pool, row, MGP_REJECTION_EXHAUSTED, MGP_ERR_EXHAUSTED);
    }
    bool is_new_key = key == NULL || key->is_retiring;
    if (is_new_key && config->max_total_keys > 0 && pool->counts.keys >= config->max_total_keys &&
        mgp_list_is_empty(&pool->evictable_keys)) {
        return reject(pool, row, MGP_REJECTION_EXHAUSTED, MGP_ERR_EXHAUSTED);
    }
    return MGP_OK;
}

static void
begin_waiting(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key,
              struct reservation *reservation, struct mgp_acquired *acquired)
{
    if (key->queue == NULL) {
        MGP_ASSERT(reservation->queue != NULL); /* reserved because the key had none */
        key->queue = reservation->queue;
        reservation->queue = NULL;
        mgp_list_init(&key->queue->waiters);
        key->queue->key = key;
        mgp_heap_node_init(&key->queue->claim);
        mgp_list_push_back(&key->endpoint->waiting, &key->queue->endpoint_link);
        key->endpoint->queue_count++;
    }
    struct mgp_waiter *waiter = reservation->waiter;
    waiter->spare = reservation->spare;
    waiter->since_ns = now_ns;
    reservation->waiter = NULL;
    reservation->spare = NULL;
    mgp_waiter_park(pool, key, waiter);
    /* An idle session that only needs a check is sooner had than a new one. */
    if (key->checking < key->queue->count) {
        (void)mgp_key_begin_check(pool, now_ns, key);
    }
    acquired->answer = MGP_ANSWER_WAIT;
    acquired->waiter = waiter;
    mgp_key_serve(pool, now_ns, key);
}

/* The key, made where there is none; with room for its claims at a new endpoint. NULL: out of
 * memory, and nothing was changed. */
static struct mgp_key *
ensure_key(struct mgp_pool *pool, uint64_t hash, const struct mgp_key_spec *spec,
           struct mgp_key *key, struct mgp_endpoint *endpoint)
{
    if (key != NULL) {
        return key;
    }
    if (endpoint != NULL) {
        return mgp_key_new(pool, hash, spec, endpoint);
    }
    endpoint = mgp_endpoint_new(pool, spec->endpoint);
    if (endpoint == NULL) {
        return NULL;
    }
    if (reserve_claim(endpoint) == MGP_OK) {
        key = mgp_key_new(pool, hash, spec, endpoint);
    }
    if (key == NULL) {
        mgp_endpoint_forget(pool, endpoint);
    }
    return key;
}

int
mgp_pool_acquire(struct mgp_pool *pool, int64_t now_ns, uint64_t hash,
                 const struct mgp_key_spec *spec, struct mgp_acquired *acquired)
{
    struct reservation reservation = {NULL, NULL, NULL};
    struct mgp_key *key = mgp_key_find(pool, hash, spec->key.bytes, spec->key.size);
    struct mgp_endpoint *endpoint =
        key != NULL ? key->endpoint : mgp_endpoint_find(pool, spec->endpoint);
    acquired->answer = MGP_ANSWER_NONE;
    if (pool->is_closed) {
        return MGP_ERR_CLOSED;
    }
    /* Whoever waits for the end of a breaker's time goes first. */
    bool is_due = endpoint != NULL && mgp_endpoint_is_due(endpoint, now_ns);
    int status = is_due ? MGP_OK : check_limits(pool, now_ns, key, endpoint, spec->row);
    if (status == MGP_OK) {
        bool has_queue = !is_due && key != NULL && key->queue != NULL;
        status = reserve(pool, has_queue, &reservation);
    }
    if (status < 0) {
        return status;
    }
    if (endpoint != NULL && reserve_claim(endpoint) < 0) { /* before anybody is served */
        unreserve(pool, &reservation);
        return MGP_ERR_NOMEM;
    }
    if (is_due) {
        mgp_endpoint_serve(pool, now_ns, endpoint);
        status = check_limits(pool, now_ns, key, endpoint, spec->row);
        if (status < 0) {
            unreserve(pool, &reservation);
            mgp_settle(pool, now_ns);
            return status;
        }
    }
    bool is_new_key = key == NULL || key->is_retiring;
    struct mgp_link *oldest = mgp_list_peek_front(&pool->evictable_keys);
    key = ensure_key(pool, hash, spec, key, endpoint);
    if (key == NULL) {
        unreserve(pool, &reservation);
        if (is_due) {
            mgp_settle(pool, now_ns);
        }
        return MGP_ERR_NOMEM;
    }
    mgp_key_set_retiring(pool, key, false);
    if (is_new_key && pool->config.max_total_keys > 0 &&
        pool->counts.keys > pool->config.max_total_keys) {
        evict_key(pool, mgp_container_of(oldest, struct mgp_key, recency));
    }

    struct mgp_session *session =
        key->queue == NULL ? mgp_key_next_session(pool, now_ns, key) : NULL;
    if (session == NULL && mgp_key_is_stranded(key, now_ns)) { /* none of its idle ones was fit */
        status = reject(pool, spec->row, MGP_REJECTION_CIRCUIT_OPEN, MGP_ERR_CIRCUIT_OPEN);
        unreserve(pool, &reservation);
        mgp_key_serve(pool, now_ns, key);
        mgp_settle(pool, now_ns);
        return status;
    }
    count_anonymous(pool, key->row, key->is_anonymous);
    if (session != NULL) {
        answer_session(pool, now_ns, session, acquired);
    } else if (key->queue == NULL && mgp_list_is_empty(&key->idle_sessions) &&
               mgp_key_has_room(pool, key) && mgp_pool_has_room(pool) &&
               mgp_heap_peek(&pool->claims) == NULL &&
               mgp_endpoint_permits(pool, key->endpoint, now_ns)) {
        acquired->ticket = mgp_session_begin_create(pool, now_ns, reservation.spare, key);
        key->last_used_ns = now_ns;
        acquired->answer = MGP_ANSWER_CREATE;
        reservation.spare = NULL;
        mgp_key_serve(pool, now_ns, key);
    } else {
        begin_waiting(pool, now_ns, key, &reservation, acquired);
    }
    unreserve(pool, &reservation);
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

/* ---- ahead of need ---------------------------------------------------------- */

int
mgp_pool_warm(struct mgp_pool *pool, int64_t now_ns, uint64_t hash, const struct mgp_key_spec *spec,
              uint32_t count, struct mgp_ticket *ticket)
{
    struct mgp_key *key = mgp_key_find(pool, hash, spec->key.bytes, spec->key.size);
    struct mgp_endpoint *endpoint =
        key != NULL ? key->endpoint : mgp_endpoint_find(pool, spec->endpoint);
    *ticket = (struct mgp_ticket){0, 0};
    if (pool->is_closed) {
        return MGP_ERR_CLOSED;
    }
    uint32_t present = key == NULL ? 0 : key->idle + key->checking + key->ahead;
    if (present >= count || spec->is_single_use) {
        return MGP_OK;
    }
    if (endpoint != NULL && mgp_breaker_is_open(&endpoint->breaker)) {
        return MGP_ERR_CIRCUIT_OPEN;
    }
    bool is_new_key = key == NULL || key->is_retiring;
    if (is_new_key && pool->config.max_total_keys > 0 &&
        pool->counts.keys >= pool->config.max_total_keys) {
        return MGP_ERR_EXHAUSTED;
    }
    if (!mgp_pool_has_place_to_spare(pool, key) ||
        (endpoint != NULL && !mgp_endpoint_permits(pool, endpoint, now_ns))) {
        return MGP_ERR_EXHAUSTED;
    }
    struct mgp_session *spare = mgp_ahead_reserve(pool);
    key = spare == NULL ? NULL : ensure_key(pool, hash, spec, key, endpoint);
    if (key == NULL) {
        mgp_session_free(pool, spare);
        return MGP_ERR_NOMEM;
    }
    mgp_key_set_retiring(pool, key, false);
    *ticket = mgp_key_open_ahead(pool, now_ns, key, MGP_AHEAD_WARM, spare);
    key->last_used_ns = now_ns;
    mgp_key_note_shortage(pool, key, INT64_MIN);
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

/* ---- what was granted ------------------------------------------------------- */

void
mgp_waiter_set_payload(struct mgp_waiter *waiter, void *payload)
{
    waiter->payload = payload;
}

void
mgp_waiter_forget(struct mgp_waiter *waiter)
{
    MGP_ASSERT(waiter->state != MGP_WAITER_WAITING);
    mgp_free(waiter);
}

int
mgp_pool_take(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter,
              struct mgp_acquired *acquired)
{
    int status = MGP_ERR_CLOSED;
    struct mgp_row *row = NULL; /* where the waiter is answered */
    acquired->answer = MGP_ANSWER_NONE;
    acquired->ticket = waiter->ticket;
    MGP_ASSERT(waiter->state == MGP_WAITER_GRANTED_SESSION ||
               waiter->state == MGP_WAITER_GRANTED_PLACE);
    mgp_link_detach(&waiter->effect.link);
    if (waiter->state == MGP_WAITER_GRANTED_SESSION) {
        struct mgp_lease *lease = mgp_leases_find(&pool->leases, waiter->ticket);
        if (lease != NULL) {
            row = lease->session->key->row;
            mgp_lease_begin_use(lease, now_ns);
            mgp_count(pool, row, MGP_WORD_HITS);
            acquired->answer = MGP_ANSWER_SESSION;
            acquired->payload = lease->session->payload;
            status = MGP_OK;
        }
    } else {
        struct mgp_session *session = mgp_session_find(pool, waiter->ticket, MGP_SESSION_CREATING);
        if (session != NULL && pool->is_closed) {
            mgp_creation_give_up(pool, now_ns, session);
            mgp_settle(pool, now_ns);
        } else if (session != NULL) {
            row = session->key->row;
            acquired->answer = MGP_ANSWER_CREATE;
            status = MGP_OK;
        }
    }
    if (row != NULL) {
        mgp_observe(pool, row, MGP_HISTOGRAM_ACQUIRE_WAIT_SECONDS, now_ns - waiter->since_ns);
    }
    mgp_free(waiter);
    return status;
}

void
mgp_pool_cancel(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter,
                enum mgp_cancel_reason reason)
{
    struct mgp_row *row = NULL;
    mgp_link_detach(&waiter->effect.link);
    if (waiter->state == MGP_WAITER_WAITING) {
        struct mgp_key *key = waiter->key;
        row = key->row;
        mgp_waiter_unpark(pool, waiter);
        mgp_session_free(pool, waiter->spare);
        mgp_key_serve(pool, now_ns, key);
    } else if (waiter->state == MGP_WAITER_GRANTED_SESSION) {
        struct mgp_lease *lease = mgp_leases_find(&pool->leases, waiter->ticket);
        row = lease == NULL ? NULL : mgp_lease_undo(pool, now_ns, lease);
    } else if (waiter->state == MGP_WAITER_GRANTED_PLACE) {
        struct mgp_session *session = mgp_session_find(pool, waiter->ticket, MGP_SESSION_CREATING);
        if (session != NULL) {
            row = session->key->row;
            mgp_creation_give_up(pool, now_ns, session);
        }
    }
    if (row != NULL) {
        mgp_count(pool, row,
                  reason == MGP_CANCEL_BY_TIMEOUT ? MGP_WORD_ACQUIRE_TIMEOUTS
                                                  : MGP_WORD_ACQUIRE_CANCELLATIONS);
    }
    mgp_free(waiter);
    mgp_settle(pool, now_ns);
}
