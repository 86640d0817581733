/* Every change of a session's state, each in one function, which keeps lists, counts
 * and series in step. */
#include "transition.h"

#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "random.h"
#include "tracking.h"

static void
probe(struct mgp_pool *pool, struct mgp_session *session)
{
    struct mgp_endpoint *endpoint = session->key->endpoint;
    endpoint->probing++;
    mgp_effect_push(pool, &session->effect, MGP_EFFECT_PROBE);
}

/* A check has ended: the next begins, those that wait for one before those in the background. */
static void
end_probe(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    struct mgp_link *link;
    endpoint->probing--;
    while (mgp_endpoint_may_probe(pool, endpoint) &&
           (link = mgp_list_peek_front(&endpoint->deferred_checks)) != NULL) {
        struct mgp_session *next = mgp_session_of_effect(link);
        mgp_link_detach(link);
        next->is_deferred = false;
        probe(pool, next);
    }
    mgp_endpoint_update_sweep(pool, endpoint);
}

/* Where its key counts it. */
static uint32_t *
count_of(const struct mgp_session *session)
{
    struct mgp_key *key = session->key;
    return session->is_apart ? &key->apart : &key->in_state[session->state];
}

/* Into a state: the list, the numbers of key and pool, the gauges. */
static void
into(struct mgp_pool *pool, struct mgp_session *session, enum mgp_session_state state)
{
    struct mgp_key *key = session->key;
    session->state = (uint8_t)state;
    (*count_of(session))++;
    switch (state) {
    case MGP_SESSION_CREATING:
        mgp_list_push_back(&key->other_sessions, &session->place);
        pool->counts.creating++;
        key->endpoint->creating++;
        key->ahead += session->is_ahead && !session->is_apart;
        pool->counts.ahead += session->is_ahead;
        key->endpoint->ahead += session->is_ahead;
        mgp_count(pool, key->row, MGP_WORD_SESSION_CREATIONS_IN_PROGRESS);
        break;
    case MGP_SESSION_ACTIVE:
        mgp_list_push_front(&key->active_sessions, &session->place);
        session->is_full = false;
        session->leases = NULL;
        pool->counts.active++;
        mgp_count(pool, key->row, MGP_WORD_ACTIVE_SESSIONS);
        break;
    case MGP_SESSION_IDLE:
        pool->counts.idle++;
        break;
    case MGP_SESSION_CHECKING:
        mgp_list_push_back(&key->other_sessions, &session->place);
        pool->counts.checking++;
        break;
    case MGP_SESSION_CLOSING:
        mgp_list_push_back(&key->other_sessions, &session->place);
        pool->counts.closing++;
        break;
    case MGP_SESSION_GONE:
        MGP_ASSERT(false);
    }
}

/* Out of the present state; the exact reverse of into(). */
static void
out_of(struct mgp_pool *pool, struct mgp_session *session)
{
    struct mgp_key *key = session->key;
    mgp_link_detach(&session->place);
    (*count_of(session))--;
    switch ((enum mgp_session_state)session->state) {
    case MGP_SESSION_CREATING:
        pool->counts.creating--;
        key->endpoint->creating--;
        key->ahead -= session->is_ahead && !session->is_apart;
        pool->counts.ahead -= session->is_ahead;
        key->endpoint->ahead -= session->is_ahead;
        mgp_uncount(pool, key->row, MGP_WORD_SESSION_CREATIONS_IN_PROGRESS);
        break;
    case MGP_SESSION_ACTIVE:
        MGP_ASSERT(session->lease_count == 0);
        pool->counts.active--;
        mgp_uncount(pool, key->row, MGP_WORD_ACTIVE_SESSIONS);
        break;
    case MGP_SESSION_IDLE:
        mgp_link_detach(&session->effect.link); /* the health order */
        pool->counts.idle--;
        break;
    case MGP_SESSION_CHECKING:
        pool->counts.checking--;
        if (session->is_deferred) {
            session->is_deferred = false;
            mgp_link_detach(&session->effect.link);
        } else {
            end_probe(pool, key->endpoint);
        }
        break;
    case MGP_SESSION_CLOSING:
        pool->counts.closing--;
        break;
    case MGP_SESSION_GONE:
        MGP_ASSERT(false);
    }
}

struct mgp_ticket
mgp_session_begin_create(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *spare,
                         struct mgp_key *key)
{
    spare->key = key;
    spare->born = ++pool->sequence;
    spare->created_ns = now_ns;
    spare->is_trial = mgp_breaker_begin(&key->endpoint->breaker);
    spare->is_retired = key->is_single_use;
    into(pool, spare, MGP_SESSION_CREATING);
    pool->leases.promised++;
    return mgp_slots_issue(&pool->session_slots, spare->slot);
}

void
mgp_session_drop_creation(struct mgp_pool *pool, struct mgp_session *session)
{
    MGP_ASSERT(session->state == MGP_SESSION_CREATING);
    out_of(pool, session);
    mgp_link_detach(&session->effect.link); /* nobody has to begin it any more */
    pool->leases.promised--;
    mgp_session_free(pool, session);
}

void
mgp_session_open(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session, void *payload)
{
    struct mgp_key *key = session->key;
    MGP_ASSERT(session->state == MGP_SESSION_CREATING);
    out_of(pool, session);
    pool->leases.promised--;
    mgp_slots_revoke(&pool->session_slots, session->slot);
    session->payload = payload;
    key->endpoint->create_ns = now_ns - session->created_ns;
    mgp_observe(pool, key->row, MGP_HISTOGRAM_CREATE_SECONDS, key->endpoint->create_ns);
    session->created_ns = now_ns;
    session->last_used_ns = now_ns;
    session->verified_ns = now_ns;
    session->verified_epoch = key->endpoint->suspect_epoch;
    double shortened = pool->config.lifetime_jitter * mgp_random_unit(pool);
    int64_t lifetime_ns = (int64_t)((double)pool->config.lifetime_ns * (1.0 - shortened));
    mgp_session_set_lifetime(pool, session, now_ns + lifetime_ns);
    mgp_count(pool, key->row, MGP_WORD_CREATES);
    if (session->is_replacement) {
        mgp_count(pool, key->row, MGP_WORD_REPLACEMENTS);
    }
    mgp_count(pool, key->row, MGP_WORD_SIZE);
    /* Open, but in no state yet: a lease, idle or the close follows in the same operation. */
    into(pool, session, MGP_SESSION_ACTIVE);
    mgp_key_note_shortage(pool, key, INT64_MIN);
}

struct mgp_lease *
mgp_session_begin_lease(struct mgp_pool *pool, struct mgp_session *session)
{
    struct mgp_key *key = session->key;
    struct mgp_lease *lease = mgp_leases_take(&pool->leases);
    lease->session = session;
    lease->epoch = key->endpoint->suspect_epoch;
    if (session->state != MGP_SESSION_ACTIVE) {
        MGP_ASSERT(session->state == MGP_SESSION_IDLE);
        out_of(pool, session);
        mgp_link_detach(&session->idle_order);
        into(pool, session, MGP_SESSION_ACTIVE);
        mgp_key_note_shortage(pool, key, INT64_MIN);
    }
    lease->next = session->leases;
    session->leases = lease;
    session->lease_count++;
    return lease;
}

void
mgp_session_set_full(struct mgp_session *session, bool is_full)
{
    struct mgp_list *sessions = &session->key->active_sessions;
    session->is_full = is_full;
    mgp_link_detach(&session->place);
    if (is_full) {
        mgp_list_push_back(sessions, &session->place);
    } else {
        mgp_list_push_front(sessions, &session->place);
    }
}

/* First its tracking, then the lease. Not inlined, and called last: so whoever ends a lease that is
 * not tracked, which is on the common path, saves no registers for this. */
static __attribute__((cold, noinline)) void
end_tracked_lease(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease)
{
    mgp_tracking_end(pool, now_ns, lease);
    mgp_session_end_lease(pool, now_ns, lease);
}

void
mgp_session_end_lease(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease)
{
    struct mgp_session *session = lease->session;
    struct mgp_lease **where = &session->leases;
    if (lease->use == MGP_LEASE_TAKEN) {
        mgp_observe(pool, session->key->row, MGP_HISTOGRAM_USE_SECONDS, now_ns - lease->since_ns);
    } else if (lease->use == MGP_LEASE_TRACKED) {
        end_tracked_lease(pool, now_ns, lease);
        return;
    }
    while (*where != lease) {
        where = &(*where)->next;
    }
    *where = lease->next;
    session->lease_count--;
    if (session->is_full) {
        mgp_session_set_full(session, false);
    }
    mgp_leases_put(&pool->leases, lease);
}

void
mgp_session_make_idle(struct mgp_pool *pool, struct mgp_session *session)
{
    out_of(pool, session);
    into(pool, session, MGP_SESSION_IDLE);
    session->idle_since = ++pool->sequence;
    session->is_overdue = mgp_session_is_suspected(session);
    mgp_session_restore_place(session);
    mgp_session_restore_health_order(pool, session);
    if (!mgp_link_is_attached(&session->idle_order)) {
        mgp_session_restore_idle_order(pool, session);
    }
}

void
mgp_session_begin_check(struct mgp_pool *pool, struct mgp_session *session)
{
    MGP_ASSERT(session->state == MGP_SESSION_IDLE);
    struct mgp_endpoint *endpoint = session->key->endpoint;
    session->close_reason = mgp_session_was_idle_at_opening(session)
                                ? (uint8_t)MGP_EVICTION_CIRCUIT_BREAKER
                                : (uint8_t)MGP_EVICTION_HEALTH_CHECK;
    out_of(pool, session); /* but not the idle order: a check is no use of the session */
    into(pool, session, MGP_SESSION_CHECKING);
    session->verified_epoch = endpoint->suspect_epoch;
    if (mgp_endpoint_may_probe(pool, endpoint)) {
        probe(pool, session);
        mgp_endpoint_update_sweep(pool, endpoint);
    } else {
        session->is_deferred = true;
        mgp_list_push_back(&endpoint->deferred_checks, &session->effect.link);
    }
}

void
mgp_session_begin_close(struct mgp_pool *pool, struct mgp_session *session,
                        enum mgp_eviction_reason reason)
{
    out_of(pool, session);
    mgp_link_detach(&session->idle_order);
    mgp_heap_remove(&pool->lifetimes, &session->lifetime);
    mgp_slots_revoke(&pool->session_slots, session->slot);
    session->close_reason = (uint8_t)reason;
    mgp_uncount(pool, session->key->row, MGP_WORD_SIZE);
    mgp_count(pool, session->key->row, MGP_EVICTION_WORD(reason));
    into(pool, session, MGP_SESSION_CLOSING);
    mgp_key_note_shortage(pool, session->key, INT64_MIN);
    mgp_effect_push(pool, &session->effect, MGP_EFFECT_CLOSE);
}

void
mgp_session_set_apart(struct mgp_session *session)
{
    if (!session->is_apart) {
        (*count_of(session))--;
        session->key->ahead -= session->state == MGP_SESSION_CREATING && session->is_ahead;
        session->is_apart = true;
        session->key->apart++;
    }
}

void
mgp_sessions_close(struct mgp_pool *pool, struct mgp_list *sessions,
                   enum mgp_eviction_reason reason)
{
    for (struct mgp_link *place = sessions->head.next, *next; place != &sessions->head;
         place = next) {
        next = place->next;
        struct mgp_session *session = mgp_session_of_place(place);
        if (session->state != MGP_SESSION_CREATING && session->state != MGP_SESSION_CLOSING) {
            mgp_session_begin_close(pool, session, reason);
        }
    }
}

void
mgp_session_make_gone(struct mgp_pool *pool, struct mgp_session *session)
{
    MGP_ASSERT(session->state == MGP_SESSION_CLOSING);
    out_of(pool, session);
    mgp_slots_revoke(&pool->session_slots, session->slot);
    session->key = NULL;
    session->state = MGP_SESSION_GONE;
    pool->supply -= session->is_supply;
    mgp_effect_push(pool, &session->effect, MGP_EFFECT_GONE);
}
