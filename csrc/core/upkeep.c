/* Upkeep: what falls due with time alone. Each step is one unit of work, so that the
 * layer above can stop after any number of them and go on later. */
#include "../base/check.h"
#include "ahead.h"
#include "machine.h"
#include "serve.h"
#include "tracking.h"
#include "transition.h"

static void
reap(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session,
     enum mgp_eviction_reason reason)
{
    struct mgp_key *key = session->key;
    pool->counts.sessions_reaped++;
    mgp_session_begin_close(pool, session, reason);
    mgp_key_serve(pool, now_ns, key);
}

static bool
reminder_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_heap_node *node = mgp_heap_peek(&pool->reminders);
    if (node == &pool->tracking && node->at_ns <= now_ns) {
        mgp_tracking_step(pool, now_ns);
        return true;
    }
    if (node != NULL && node->at_ns <= now_ns) {
        mgp_heap_remove(&pool->reminders, node);
        mgp_endpoint_serve(pool, now_ns, mgp_container_of(node, struct mgp_endpoint, retry));
        return true;
    }
    node = mgp_heap_peek(&pool->remembered);
    if (node != NULL && node->at_ns <= now_ns) {
        mgp_endpoint_forget(pool, mgp_container_of(node, struct mgp_endpoint, oblivion));
        return true;
    }
    return false;
}

static bool
lifetime_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_heap_node *node = mgp_heap_peek(&pool->lifetimes);
    if (node == NULL || node->at_ns > now_ns) {
        return false;
    }
    mgp_heap_remove(&pool->lifetimes, node);
    struct mgp_session *session = mgp_container_of(node, struct mgp_session, lifetime);
    if (now_ns < session->expires_ns) {
        mgp_heap_insert(&pool->lifetimes, node, session->expires_ns);
        mgp_session_replace(pool, now_ns, session);
    } else if (session->state == MGP_SESSION_IDLE) {
        reap(pool, now_ns, session, MGP_EVICTION_TTL_EXPIRED);
    }
    /* In use or under a check: found to be over its lifetime when it comes back. */
    return true;
}

static struct mgp_session *
least_recently_used(const struct mgp_pool *pool)
{
    struct mgp_link *link = mgp_list_peek_front(&pool->idle_order);
    return link == NULL ? NULL : mgp_session_of_idle_order(link);
}

static struct mgp_session *
least_recently_verified(const struct mgp_pool *pool)
{
    struct mgp_link *link = mgp_list_peek_front(&pool->health_order);
    return link == NULL ? NULL : mgp_session_of_effect(link);
}

static bool
idle_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_session *session = least_recently_used(pool);
    if (session == NULL) {
        return false;
    }
    bool is_stale = mgp_session_is_drained(pool, session);
    if (!is_stale && now_ns - session->last_used_ns < pool->config.idle_timeout_ns) {
        return false;
    }
    if (session->state == MGP_SESSION_CHECKING) {
        mgp_link_detach(&session->idle_order); /* decided when its check has ended */
    } else if (is_stale) {
        struct mgp_key *key = session->key;
        mgp_session_begin_close(pool, session, MGP_EVICTION_MANUAL);
        mgp_key_serve(pool, now_ns, key);
    } else {
        reap(pool, now_ns, session, MGP_EVICTION_IDLE_TIMEOUT);
    }
    return true;
}

static void
begin_background_check(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    pool->next_check_ns = now_ns + 1000000000 / (int64_t)pool->config.checks_per_second;
    mgp_session_begin_check(pool, session);
    mgp_key_serve(pool, now_ns, session->key);
}

/* Unverified for an interval, and its key used within the last two. */
static bool
is_due_for_a_check(const struct mgp_pool *pool, int64_t now_ns, const struct mgp_session *session)
{
    int64_t interval_ns = pool->config.health_interval_ns;
    return now_ns - session->verified_ns >= interval_ns &&
           now_ns - session->key->last_used_ns < 2 * interval_ns;
}

/* An idle session of the key that is to be checked in the background, or NULL. */
static struct mgp_session *
find_suspect(const struct mgp_pool *pool, int64_t now_ns, const struct mgp_key *key)
{
    struct mgp_link *place;
    mgp_list_for_each(place, &key->idle_sessions) {
        struct mgp_session *session = mgp_session_of_place(place);
        if (mgp_session_was_idle_at_opening(session) || is_due_for_a_check(pool, now_ns, session)) {
            return session;
        }
    }
    return NULL;
}

/* One check, or one key that needs none any more. */
static bool
sweep_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_link *link = mgp_list_peek_front(&pool->sweeping);
    if (link == NULL || now_ns < pool->next_check_ns) {
        return false;
    }
    struct mgp_endpoint *endpoint = mgp_container_of(link, struct mgp_endpoint, sweep_link);
    struct mgp_link *key_link = mgp_list_peek_front(&endpoint->keys_to_sweep);
    struct mgp_key *key = mgp_container_of(key_link, struct mgp_key, endpoint_link);
    struct mgp_session *session = find_suspect(pool, now_ns, key);
    mgp_link_detach(&endpoint->sweep_link); /* endpoints take turns */
    if (session != NULL) {
        begin_background_check(pool, now_ns, session);
    } else {
        mgp_link_detach(key_link);
        mgp_list_push_back(&endpoint->keys, key_link);
    }
    mgp_endpoint_update_sweep(pool, endpoint);
    return true;
}

static bool
health_step(struct mgp_pool *pool, int64_t now_ns)
{
    struct mgp_session *session = least_recently_verified(pool);
    int64_t interval_ns = pool->config.health_interval_ns;
    if (session == NULL || now_ns - session->verified_ns < interval_ns) {
        return false;
    }
    if (pool->config.checks_per_second == 0 || !is_due_for_a_check(pool, now_ns, session)) {
        /* Not here, or nobody uses the key: the session is checked if it is handed out again. */
        mgp_link_detach(&session->effect.link);
        return true;
    }
    if (now_ns < pool->next_check_ns) {
        return false;
    }
    struct mgp_endpoint *endpoint = session->key->endpoint;
    if (!mgp_endpoint_may_probe(pool, endpoint)) {
        /* When another check there has ended; meanwhile those of other endpoints. */
        mgp_link_detach(&session->effect.link);
        mgp_link_detach(&session->key->endpoint_link);
        mgp_list_push_back(&endpoint->keys_to_sweep, &session->key->endpoint_link);
        return true;
    }
    begin_background_check(pool, now_ns, session);
    return true;
}

bool
mgp_pool_upkeep(struct mgp_pool *pool, int64_t now_ns, unsigned budget)
{
    for (; budget > 0; budget--) {
        bool has_worked = reminder_step(pool, now_ns) || lifetime_step(pool, now_ns) ||
                          idle_step(pool, now_ns) || sweep_step(pool, now_ns) ||
                          health_step(pool, now_ns) || mgp_reserve_step(pool, now_ns);
        mgp_settle(pool, now_ns);
        if (!has_worked) {
            return false;
        }
    }
    return mgp_pool_next_deadline(pool) <= now_ns;
}

static int64_t
earlier(int64_t deadline_ns, int64_t other_ns)
{
    return other_ns < deadline_ns ? other_ns : deadline_ns;
}

static int64_t
earlier_of_heap(int64_t deadline_ns, const struct mgp_heap *heap)
{
    const struct mgp_heap_node *node = mgp_heap_peek(heap);
    return node == NULL ? deadline_ns : earlier(deadline_ns, node->at_ns);
}

int64_t
mgp_pool_next_deadline(const struct mgp_pool *pool)
{
    int64_t deadline_ns = INT64_MAX;
    if (!mgp_list_is_empty(&pool->sweeping)) {
        deadline_ns = pool->next_check_ns;
    }
    deadline_ns = earlier_of_heap(deadline_ns, &pool->lifetimes);
    deadline_ns = earlier_of_heap(deadline_ns, &pool->shortages);
    deadline_ns = earlier_of_heap(deadline_ns, &pool->reminders);
    deadline_ns = earlier_of_heap(deadline_ns, &pool->remembered);
    const struct mgp_session *session = least_recently_used(pool);
    if (session != NULL) {
        if (mgp_session_is_drained(pool, session)) {
            return INT64_MIN;
        }
        deadline_ns = earlier(deadline_ns, session->last_used_ns + pool->config.idle_timeout_ns);
    }
    session = least_recently_verified(pool);
    if (session != NULL) {
        int64_t check_ns = session->verified_ns + pool->config.health_interval_ns;
        check_ns = check_ns > pool->next_check_ns ? check_ns : pool->next_check_ns;
        deadline_ns = earlier(deadline_ns, check_ns);
    }
    return deadline_ns;
}
