/* mgp_pool_check(): every invariant of machine.h, walked in full. */
#include "../base/check.h"
#include "machine.h"
#include "serve.h"
#include "tracking.h"

#ifdef MGP_DEBUG

struct tally {
    const struct mgp_pool *pool;
    struct mgp_pool_counts counts;
    uint32_t in_state[MGP_SESSION_GONE]; /* all sessions */
    size_t sessions;
    size_t in_idle_order;
    uint64_t taken_leases, tracked_leases;
    uint64_t demand, supply;
};

static void
check_session(struct tally *tally, const struct mgp_session *session, const struct mgp_key *key,
              struct mgp_key *found)
{
    uint32_t leases = 0;
    MGP_ASSERT(session->state < MGP_SESSION_GONE);
    tally->sessions++;
    tally->in_state[session->state]++;
    bool is_opened_ahead = session->state == MGP_SESSION_CREATING && session->is_ahead;
    tally->counts.ahead += is_opened_ahead;
    found->ahead += is_opened_ahead && !session->is_apart;
    if (session->is_apart) {
        MGP_ASSERT(session->is_retired && session->state != MGP_SESSION_IDLE);
        found->apart++;
    } else {
        found->in_state[session->state]++;
    }
    const struct mgp_lease *first = session->state == MGP_SESSION_ACTIVE ? session->leases : NULL;
    for (const struct mgp_lease *lease = first; lease != NULL; lease = lease->next) {
        MGP_ASSERT(lease->session == session);
        tally->taken_leases += mgp_lease_is_taken(lease);
        tally->tracked_leases += lease->use == MGP_LEASE_TRACKED;
        MGP_ASSERT(lease->use != MGP_LEASE_TRACKED || lease->tracked->lease == lease);
        leases++;
    }
    MGP_ASSERT(session->key == key);
    MGP_ASSERT(leases == session->lease_count);
    MGP_ASSERT((session->state == MGP_SESSION_ACTIVE) == (leases > 0));
    MGP_ASSERT((session->payload == NULL) == (session->state == MGP_SESSION_CREATING));
    MGP_ASSERT(session->state != MGP_SESSION_IDLE || mgp_link_is_attached(&session->idle_order));
    MGP_ASSERT(session->state != MGP_SESSION_CLOSING ||
               !mgp_heap_node_is_attached(&session->lifetime));
}

static void
check_queue(const struct mgp_pool *pool, const struct mgp_key *key)
{
    const struct mgp_waitq *queue = key->queue;
    struct mgp_link *link;
    MGP_ASSERT(queue->count > 0 && queue->count == mgp_list_length(&queue->waiters));
    MGP_ASSERT(queue->key == key && mgp_link_is_attached(&queue->endpoint_link));
    mgp_list_for_each(link, &queue->waiters) {
        const struct mgp_waiter *waiter = mgp_container_of(link, struct mgp_waiter, link);
        MGP_ASSERT(waiter->state == MGP_WAITER_WAITING && waiter->key == key);
        MGP_ASSERT(waiter->spare != NULL);
    }
    /* An idle session is there only because it needs a check that others come before. */
    MGP_ASSERT(key->idle == 0 || key->checking + key->closing >= queue->count);
    link = mgp_list_peek_front(&key->idle_sessions);
    MGP_ASSERT(link == NULL || mgp_session_of_place(link)->is_overdue);
    link = mgp_list_peek_front(&key->active_sessions);
    MGP_ASSERT(link == NULL || pool->is_reconfigured || pool->config.max_leases_per_session == 1 ||
               mgp_session_of_place(link)->is_full);
    /* Every place is taken, or claimed, or checks will answer all. */
    uint32_t open = mgp_key_open(key), limit = pool->config.max_sessions_per_key;
    uint32_t room = open < limit ? limit - open : 0;
    uint32_t unanswered = queue->count > key->checking ? queue->count - key->checking : 0;
    MGP_ASSERT(pool->is_reconfigured || queue->wanted == (unanswered < room ? unanswered : room));
    MGP_ASSERT((queue->wanted > 0) == mgp_heap_node_is_attached(&queue->claim));
    MGP_ASSERT(queue->wanted == 0 || queue->claim.at_ns == mgp_waitq_peek(queue)->arrival);
}

/* The waiters of a row, of all pools that count there. */
static void
check_row_waiters(const struct mgp_row *row)
{
    uint64_t count = 0;
    const struct mgp_row_waiter *last = NULL;
    for (const struct mgp_row_waiter *waiter = row->oldest_waiter; waiter != NULL;
         waiter = waiter->newer) {
        MGP_ASSERT(waiter->older == last);
        last = waiter;
        count++;
    }
    MGP_ASSERT(row->newest_waiter == last);
    MGP_ASSERT(mgp_atomic_load(&row->words[MGP_WORD_WAITERS]) == count);
    MGP_ASSERT(mgp_atomic_load(&row->words[MGP_WORD_OLDEST_WAITER_SECONDS]) ==
               (count == 0 ? 0 : (uint64_t)row->oldest_waiter->since_ns));
}

static uint64_t
count_observed(const uint64_t *totals, size_t first_word)
{
    uint64_t count = 0;
    for (size_t i = 0; i <= MGP_BUCKETS_MAX; i++) {
        count += totals[first_word + i];
    }
    return count;
}

static int
check_key(struct mgp_table_entry *entry, void *context)
{
    const struct mgp_key *key = mgp_container_of(entry, struct mgp_key, entry);
    struct tally *tally = context;
    struct mgp_key found = {.apart = 0}; /* of it, only the numbers of sessions are used */
    struct mgp_link *place;
    const struct mgp_session *last = NULL;
    mgp_list_for_each(place, &key->idle_sessions) {
        const struct mgp_session *session = mgp_session_of_place(place);
        check_session(tally, session, key, &found);
        MGP_ASSERT(session->state == MGP_SESSION_IDLE);
        /* The most recently used first; then those known to need a check. */
        MGP_ASSERT(last == NULL || session->is_overdue ||
                   (!last->is_overdue && last->last_used_ns >= session->last_used_ns));
        last = session;
    }
    mgp_list_for_each(place, &key->active_sessions) {
        check_session(tally, mgp_session_of_place(place), key, &found);
        MGP_ASSERT(mgp_session_of_place(place)->state == MGP_SESSION_ACTIVE);
    }
    mgp_list_for_each(place, &key->other_sessions) {
        const struct mgp_session *session = mgp_session_of_place(place);
        check_session(tally, session, key, &found);
        MGP_ASSERT(session->state != MGP_SESSION_IDLE && session->state != MGP_SESSION_ACTIVE);
        MGP_ASSERT(!session->is_deferred || session->state == MGP_SESSION_CHECKING);
        MGP_ASSERT(session->state != MGP_SESSION_CREATING || !session->is_ahead ||
                   session->is_unwanted);
        tally->supply += session->state == MGP_SESSION_CLOSING && session->is_supply;
        tally->in_idle_order +=
            session->state == MGP_SESSION_CHECKING && mgp_link_is_attached(&session->idle_order);
    }
    for (size_t state = 0; state < MGP_SESSION_GONE; state++) {
        MGP_ASSERT(key->in_state[state] == found.in_state[state]);
    }
    MGP_ASSERT(key->apart == found.apart);
    MGP_ASSERT(key->ahead == found.ahead);
    MGP_ASSERT(tally->pool->is_reconfigured ||
               mgp_key_open(key) <= tally->pool->config.max_sessions_per_key);
    MGP_ASSERT(mgp_key_has_sessions(key) || key->queue != NULL);
    MGP_ASSERT(mgp_link_is_attached(&key->recency) == (!mgp_key_is_used(key) && !key->is_retiring));
    MGP_ASSERT(mgp_link_is_attached(&key->endpoint_link) && key->row->holds > 0);
    if (key->queue != NULL) {
        check_queue(tally->pool, key);
        check_row_waiters(key->row);
    }
    tally->counts.keys += !key->is_retiring;
    tally->counts.waiters += mgp_key_waiters(key);
    tally->in_idle_order += key->idle;
    return 0;
}

static size_t
count_in_state(const struct mgp_key *key, enum mgp_session_state state)
{
    size_t count = 0;
    struct mgp_link *place;
    mgp_list_for_each(place, &key->other_sessions) {
        count += mgp_session_of_place(place)->state == state;
    }
    return count;
}

static size_t
count_ahead(const struct mgp_key *key)
{
    size_t count = 0;
    struct mgp_link *place;
    mgp_list_for_each(place, &key->other_sessions) {
        const struct mgp_session *session = mgp_session_of_place(place);
        count += session->state == MGP_SESSION_CREATING && session->is_ahead;
    }
    return count;
}

static int
check_endpoint(struct mgp_table_entry *entry, void *context)
{
    const struct mgp_endpoint *endpoint = mgp_container_of(entry, struct mgp_endpoint, entry);
    struct tally *tally = context;
    size_t creating = 0, checking = 0, ahead = 0;
    struct mgp_link *link;
    mgp_list_for_each(link, &endpoint->keys) {
        const struct mgp_key *key = mgp_container_of(link, struct mgp_key, endpoint_link);
        creating += count_in_state(key, MGP_SESSION_CREATING);
        checking += count_in_state(key, MGP_SESSION_CHECKING);
        ahead += count_ahead(key);
    }
    mgp_list_for_each(link, &endpoint->keys_to_sweep) {
        const struct mgp_key *key = mgp_container_of(link, struct mgp_key, endpoint_link);
        creating += count_in_state(key, MGP_SESSION_CREATING);
        checking += count_in_state(key, MGP_SESSION_CHECKING);
        ahead += count_ahead(key);
    }
    MGP_ASSERT(creating == endpoint->creating && ahead == endpoint->ahead);
    size_t deferred = mgp_list_length(&endpoint->deferred_checks);
    MGP_ASSERT(checking == endpoint->probing + deferred);
    MGP_ASSERT(tally->pool->is_reconfigured || deferred == 0 ||
               !mgp_endpoint_may_probe(tally->pool, endpoint));
    MGP_ASSERT(tally->pool->is_reconfigured || mgp_link_is_attached(&endpoint->sweep_link) ==
                                                   (!mgp_list_is_empty(&endpoint->keys_to_sweep) &&
                                                    mgp_endpoint_may_probe(tally->pool, endpoint)));
    MGP_ASSERT(endpoint->key_count ==
               mgp_list_length(&endpoint->keys) + mgp_list_length(&endpoint->keys_to_sweep));
    MGP_ASSERT(endpoint->key_count > 0 || endpoint->breaker.failures > 0);
    MGP_ASSERT((endpoint->key_count == 0) == mgp_heap_node_is_attached(&endpoint->oblivion));
    MGP_ASSERT(!mgp_heap_node_is_attached(&endpoint->retry) ||
               (endpoint->breaker.state != MGP_BREAKER_CLOSED && endpoint->key_count > 0));
    uint32_t wanted = 0;
    size_t queues = 0;
    mgp_list_for_each(link, &endpoint->waiting) {
        wanted += mgp_container_of(link, struct mgp_waitq, endpoint_link)->wanted;
        queues++;
    }
    MGP_ASSERT(wanted == endpoint->wanted && queues == endpoint->queue_count);
    MGP_ASSERT(endpoint->demand <= wanted && mgp_heap_is_ordered(&endpoint->claims));
    MGP_ASSERT((endpoint->demand > 0) == mgp_heap_node_is_attached(&endpoint->claim));
    MGP_ASSERT(endpoint->demand == 0 ||
               endpoint->claim.at_ns == mgp_heap_peek(&endpoint->claims)->at_ns);
    MGP_ASSERT(tally->pool->is_reconfigured || wanted == endpoint->demand ||
               mgp_breaker_is_open(&endpoint->breaker) ||
               endpoint->demand + endpoint->creating ==
                   tally->pool->config.max_creating_per_endpoint);
    tally->demand += endpoint->demand;
    MGP_ASSERT((endpoint->trip_row != NULL) == mgp_breaker_is_open(&endpoint->breaker));
    tally->counts.endpoints++;
    return 0;
}

static void
check_orders(const struct mgp_pool *pool, const struct tally *tally)
{
    int64_t last_ns = INT64_MIN;
    struct mgp_link *link;
    mgp_list_for_each(link, &pool->idle_order) {
        MGP_ASSERT(mgp_session_idle_order_ns(pool, link) >= last_ns);
        last_ns = mgp_session_idle_order_ns(pool, link);
    }
    last_ns = INT64_MIN;
    mgp_list_for_each(link, &pool->health_order) {
        const struct mgp_session *session = mgp_session_of_effect(link);
        MGP_ASSERT(session->state == MGP_SESSION_IDLE);
        MGP_ASSERT(session->verified_ns >= last_ns);
        last_ns = session->verified_ns;
    }
    MGP_ASSERT(tally->in_idle_order == mgp_list_length(&pool->idle_order));
    MGP_ASSERT(mgp_heap_is_ordered(&pool->lifetimes));
    MGP_ASSERT(mgp_heap_is_ordered(&pool->shortages));
    MGP_ASSERT(mgp_heap_is_ordered(&pool->reminders));
    MGP_ASSERT(mgp_heap_is_ordered(&pool->remembered));
    MGP_ASSERT(mgp_heap_is_ordered(&pool->claims));
}

static void
check_tracked(const struct mgp_pool *pool, const struct tally *tally)
{
    uint64_t count = 0;
    int64_t last_ns = INT64_MIN;
    struct mgp_link *link;
    mgp_list_for_each(link, &pool->tracked) {
        const struct mgp_tracked *tracked = mgp_container_of(link, struct mgp_tracked, effect.link);
        MGP_ASSERT(tracked->lease->use == MGP_LEASE_TRACKED && tracked->lease->tracked == tracked);
        MGP_ASSERT(tracked->since_ns >= last_ns);
        MGP_ASSERT(pool->config.leak_detection_ns == 0 ||
                   (mgp_heap_node_is_attached(&pool->tracking) &&
                    pool->tracking.at_ns <= tracked->since_ns + pool->config.leak_detection_ns));
        last_ns = tracked->since_ns;
        count++;
    }
    MGP_ASSERT(count == tally->tracked_leases);
}

void
mgp_pool_check(const struct mgp_pool *pool)
{
    struct tally tally = {.pool = pool};
    const struct mgp_pool_counts *counts = &pool->counts;
    const uint64_t *totals = pool->totals;
    mgp_table_visit(&pool->keys, check_key, &tally);
    mgp_table_visit(&pool->endpoints, check_endpoint, &tally);
    MGP_ASSERT(tally.counts.keys == counts->keys);
    MGP_ASSERT(tally.counts.endpoints == counts->endpoints);
    MGP_ASSERT(tally.counts.waiters == counts->waiters);
    MGP_ASSERT(tally.in_state[MGP_SESSION_CREATING] == counts->creating);
    MGP_ASSERT(tally.in_state[MGP_SESSION_ACTIVE] == counts->active);
    MGP_ASSERT(tally.in_state[MGP_SESSION_IDLE] == counts->idle);
    MGP_ASSERT(tally.in_state[MGP_SESSION_CHECKING] == counts->checking);
    MGP_ASSERT(tally.in_state[MGP_SESSION_CLOSING] == counts->closing);
    MGP_ASSERT(tally.counts.ahead == counts->ahead);
    MGP_ASSERT(tally.demand == pool->demand && tally.supply == pool->supply);
    MGP_ASSERT(pool->is_reconfigured || pool->config.max_total_sessions == 0 ||
               tally.sessions <= pool->config.max_total_sessions);
    MGP_ASSERT(pool->is_reconfigured || pool->config.max_total_keys == 0 ||
               counts->keys <= pool->config.max_total_keys);
    MGP_ASSERT(pool->is_reconfigured || pool->demand == 0 || !mgp_pool_has_room(pool));
    MGP_ASSERT(mgp_list_is_empty(&pool->empty_keys));
    MGP_ASSERT(pool->demand <= pool->supply || counts->idle == 0);
    MGP_ASSERT(pool->leases.promised == counts->waiters + counts->creating);
    MGP_ASSERT(pool->leases.spare_count >= pool->leases.promised);
    check_orders(pool, &tally);
    check_tracked(pool, &tally);

    uint64_t evictions = 0;
    for (size_t i = 0; i < MGP_EVICTION_REASON_COUNT; i++) {
        evictions += totals[MGP_EVICTION_WORD(i)];
    }
    MGP_ASSERT(totals[MGP_WORD_SIZE] == counts->active + counts->idle + counts->checking);
    MGP_ASSERT(totals[MGP_WORD_ACTIVE_SESSIONS] == counts->active);
    MGP_ASSERT(totals[MGP_WORD_CREATES] == totals[MGP_WORD_SIZE] + evictions);
    MGP_ASSERT(totals[MGP_WORD_MISSES] <= totals[MGP_WORD_CREATES]);
    MGP_ASSERT(totals[MGP_WORD_WAITERS] == counts->waiters);
    MGP_ASSERT(totals[MGP_WORD_KEYS] == counts->keys);
    MGP_ASSERT(totals[MGP_WORD_SESSION_CREATIONS_IN_PROGRESS] == counts->creating);
    MGP_ASSERT(count_observed(totals, MGP_WORD_CREATE_SECONDS) == totals[MGP_WORD_CREATES]);
    MGP_ASSERT(count_observed(totals, MGP_WORD_USE_SECONDS) + tally.taken_leases ==
               totals[MGP_WORD_HITS] + totals[MGP_WORD_MISSES]);
}

#else

void
mgp_pool_check(const struct mgp_pool *pool)
{
    (void)pool;
}

#endif
