/* Questions to the model, for test_pool_model.c alone, of which this is a part. */
#ifndef MGP_TESTS_POOL_MODEL_QUESTIONS_H
#define MGP_TESTS_POOL_MODEL_QUESTIONS_H

#include "pool_model.h"

static bool
chance(size_t one_in)
{
    return harness_random_below(one_in) == 0;
}

static int
endpoint_of(int key)
{
    return key % ENDPOINTS;
}

static int
row_of(int key)
{
    return key % ROWS;
}

static bool
is_live(const struct session *session) /* it counts towards the limits */
{
    return session->is_used && session->state != MGP_SESSION_GONE;
}

static bool
is_open(const struct session *session)
{
    return is_live(session) && session->state != MGP_SESSION_CREATING &&
           session->state != MGP_SESSION_CLOSING;
}

/* Of a key, as far as they count against its limit, or of all (NEVER), in a state, or in all that
 * count (MGP_SESSION_GONE). */
static unsigned
count_sessions(int key, enum mgp_session_state state)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        count += is_live(session) &&
                 (key == NEVER || (session->key == key && !session->is_apart)) &&
                 (state == MGP_SESSION_GONE || session->state == state);
    }
    return count;
}

static unsigned
count_waiters(int key)
{
    unsigned count = 0;
    for (int i = 0; i < waiter_end; i++) {
        count += waiters[i].is_used && waiters[i].state == MGP_WAITER_WAITING &&
                 (key == NEVER || waiters[i].key == key);
    }
    return count;
}

static unsigned
count_creating_at(int endpoint)
{
    unsigned count = 0;
    for (int key = 0; key < KEYS; key++) {
        if (endpoint_of(key) == endpoint) {
            count += count_sessions(key, MGP_SESSION_CREATING);
        }
    }
    for (int i = 0; i < session_end; i++) {
        count += is_live(&sessions[i]) && sessions[i].is_apart &&
                 sessions[i].state == MGP_SESSION_CREATING &&
                 endpoint_of(sessions[i].key) == endpoint;
    }
    return count;
}

/* Creations for nobody, of a key or of all (NEVER). */
static unsigned
count_ahead(int key)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        count += is_live(&sessions[i]) && sessions[i].state == MGP_SESSION_CREATING &&
                 sessions[i].is_ahead &&
                 (key == NEVER || (sessions[i].key == key && !sessions[i].is_apart));
    }
    return count;
}

static bool
has_sessions(int key) /* whether they count against its limit or not */
{
    for (int i = 0; i < session_end; i++) {
        if (is_live(&sessions[i]) && sessions[i].key == key) {
            return true;
        }
    }
    return false;
}

static bool
is_used(int key)
{
    return count_sessions(key, MGP_SESSION_CREATING) - count_ahead(key) +
               count_sessions(key, MGP_SESSION_ACTIVE) + count_waiters(key) >
           0;
}

static bool
key_has_room(int key)
{
    return count_sessions(key, MGP_SESSION_GONE) < config.max_sessions_per_key;
}

static bool
pool_has_room(void)
{
    return config.max_total_sessions == 0 ||
           count_sessions(NEVER, MGP_SESSION_GONE) < config.max_total_sessions;
}

static bool
breaker_refuses(int endpoint)
{
    const struct endpoint *at = &endpoints[endpoint];
    return at->state == MGP_BREAKER_HALF_OPEN ||
           (at->state == MGP_BREAKER_OPEN && now_ns < at->open_until_ns);
}

static bool
endpoint_permits(int endpoint)
{
    return !breaker_refuses(endpoint) &&
           (config.max_creating_per_endpoint == 0 ||
            count_creating_at(endpoint) < config.max_creating_per_endpoint);
}

#define REASON(name) (1u << MGP_EVICTION_##name)

/* Why a session that comes back must be closed: the first reason that holds, or 0. */
static unsigned
why_not_keep(const struct session *session)
{
    if (session->is_broken) {
        return REASON(BROKEN);
    }
    if (session->is_retired || session->is_drained || is_closed) {
        return REASON(MANUAL);
    }
    return now_ns >= session->expires_ns ? REASON(TTL_EXPIRED) : 0;
}

/* Why an idle one must not be handed out. */
static unsigned
why_not_hand_out(const struct session *session)
{
    unsigned reason = why_not_keep(session);
    if (reason == 0 && now_ns - session->last_used_ns >= config.idle_timeout_ns) {
        return REASON(IDLE_TIMEOUT);
    }
    return reason;
}

/* Why upkeep closes an idle one. */
static unsigned
why_reap(const struct session *session)
{
    if (now_ns >= session->expires_ns) {
        return REASON(TTL_EXPIRED);
    }
    if (session->is_drained) {
        return REASON(MANUAL);
    }
    return now_ns - session->last_used_ns >= config.idle_timeout_ns ? REASON(IDLE_TIMEOUT) : 0;
}

static bool
needs_check(const struct session *session)
{
    return session->is_suspected || now_ns - session->verified_ns >= config.health_interval_ns;
}

/* Idle, and nothing speaks against handing it out at once. */
static bool
is_ready(const struct session *session)
{
    return session->is_used && session->state == MGP_SESSION_IDLE &&
           why_not_hand_out(session) == 0 && !needs_check(session);
}

static bool
can_share(const struct session *session)
{
    return session->is_used && session->state == MGP_SESSION_ACTIVE &&
           session->leases < config.max_leases_per_session && why_not_keep(session) == 0;
}

static bool
key_has(int key, bool (*is_such)(const struct session *session))
{
    for (int i = 0; i < session_end; i++) {
        if (sessions[i].is_used && sessions[i].key == key && !sessions[i].is_apart &&
            is_such(&sessions[i])) {
            return true;
        }
    }
    return false;
}

static bool
is_idle_and_fit(const struct session *session)
{
    return session->state == MGP_SESSION_IDLE && why_not_hand_out(session) == 0;
}

#endif
