#include "session.h"

#include "../base/alloc.h"
#include "machine.h"

struct mgp_session *
mgp_session_new(struct mgp_pool *pool)
{
    if (mgp_slots_reserve(&pool->session_slots, 1) < 0 ||
        mgp_heap_reserve(&pool->lifetimes, pool->session_structs + 1) < 0) {
        return NULL;
    }
    struct mgp_session *session = mgp_alloc_zeroed(1, sizeof(*session));
    if (session == NULL) {
        return NULL;
    }
    pool->session_structs++;
    session->slot = mgp_slots_take(&pool->session_slots, session);
    mgp_heap_node_init(&session->lifetime);
    return session;
}

void
mgp_session_free(struct mgp_pool *pool, struct mgp_session *session)
{
    if (session == NULL) {
        return;
    }
    mgp_heap_remove(&pool->lifetimes, &session->lifetime);
    mgp_slots_put(&pool->session_slots, session->slot);
    pool->session_structs--;
    mgp_free(session);
}

struct mgp_session *
mgp_session_find(const struct mgp_pool *pool, struct mgp_ticket ticket,
                 enum mgp_session_state state)
{
    struct mgp_session *session = mgp_slots_find(&pool->session_slots, ticket);
    return session != NULL && session->state == (uint8_t)state ? session : NULL;
}

/* ---- what it is --------------------------------------------------------------- */

bool
mgp_session_is_closing(const struct mgp_session *session)
{
    return session->state >= MGP_SESSION_CLOSING;
}

bool
mgp_session_is_leased(const struct mgp_session *session)
{
    return session->lease_count > 0;
}

bool
mgp_session_is_idle(const struct mgp_session *session)
{
    return session->state == MGP_SESSION_IDLE;
}

struct mgp_bytes
mgp_session_key(const struct mgp_session *session)
{
    const struct mgp_key *key = session->key;
    return key == NULL ? (struct mgp_bytes){"", 0}
                       : (struct mgp_bytes){key->entry.bytes, key->entry.size};
}

void
mgp_session_read_times(const struct mgp_session *session, struct mgp_session_times *times)
{
    times->created_ns = session->created_ns;
    times->last_used_ns = session->last_used_ns;
    times->expires_ns = session->expires_ns;
}

bool
mgp_session_is_drained(const struct mgp_pool *pool, const struct mgp_session *session)
{
    return session->born < pool->drained_before;
}

bool
mgp_session_was_idle_at_opening(const struct mgp_session *session)
{
    return session->state == MGP_SESSION_IDLE &&
           session->idle_since < session->key->endpoint->opened_at;
}

bool
mgp_session_is_suspected(const struct mgp_session *session)
{
    return session->verified_epoch < session->key->endpoint->suspect_epoch ||
           mgp_session_was_idle_at_opening(session);
}

bool
mgp_session_is_unfit(const struct mgp_pool *pool, const struct mgp_session *session, int64_t now_ns,
                     enum mgp_eviction_reason *reason)
{
    if (session->is_broken) {
        *reason = MGP_EVICTION_BROKEN;
    } else if (session->is_retired || mgp_session_is_drained(pool, session) || pool->is_closed) {
        *reason = MGP_EVICTION_MANUAL;
    } else if (now_ns >= session->expires_ns) {
        *reason = MGP_EVICTION_TTL_EXPIRED;
    } else if (session->state == MGP_SESSION_IDLE &&
               now_ns - session->last_used_ns >= pool->config.idle_timeout_ns) {
        *reason = MGP_EVICTION_IDLE_TIMEOUT;
    } else {
        return false;
    }
    return true;
}

bool
mgp_session_needs_check(const struct mgp_pool *pool, const struct mgp_session *session,
                        int64_t now_ns)
{
    return mgp_session_is_suspected(session) ||
           now_ns - session->verified_ns >= pool->config.health_interval_ns;
}

/* When its replacement is to be opened: early enough for two creations of the length of the last
 * one at its endpoint, and for what its callers need meanwhile; but not in the first half of its
 * life. Lifetimes are spread by their jitter, and so are these. */
static int64_t
replacement_ns(const struct mgp_session *session)
{
    int64_t lifetime_ns = session->expires_ns - session->created_ns;
    int64_t create_ns = session->key->endpoint->create_ns;
    int64_t longest_ns = lifetime_ns / 2;
    int64_t lead_ns = create_ns < lifetime_ns / 4 ? lifetime_ns / 20 + 2 * create_ns : longest_ns;
    return session->expires_ns - (lead_ns < longest_ns ? lead_ns : longest_ns);
}

void
mgp_session_set_lifetime(struct mgp_pool *pool, struct mgp_session *session, int64_t expires_ns)
{
    session->expires_ns = expires_ns;
    mgp_heap_insert(&pool->lifetimes, &session->lifetime,
                    pool->config.replaces_sessions ? replacement_ns(session) : expires_ns);
}

/* ---- orders ----------------------------------------------------------------- */

/* Puts a link where it belongs in a list in order of time, behind others of the same
 * time. Looks from both ends at once: a session that was used just now belongs at the
 * end, one that was out of the order during a check near the start. */
static void
insert_by_time(const struct mgp_pool *pool, struct mgp_list *list, struct mgp_link *link,
               int64_t (*time_of)(const struct mgp_pool *pool, struct mgp_link *link))
{
    int64_t at_ns = time_of(pool, link);
    struct mgp_link *first = list->head.next, *last = list->head.prev;
    while (last != &list->head && time_of(pool, last) > at_ns) {
        if (time_of(pool, first) > at_ns) {
            mgp_link_insert_before(link, first);
            return;
        }
        first = first->next;
        last = last->prev;
    }
    mgp_link_insert_before(link, last->next);
}

int64_t
mgp_session_idle_order_ns(const struct mgp_pool *pool, struct mgp_link *link)
{
    const struct mgp_session *session = mgp_session_of_idle_order(link);
    return mgp_session_is_drained(pool, session) ? INT64_MIN : session->last_used_ns;
}

static int64_t
health_order_ns(const struct mgp_pool *pool, struct mgp_link *link)
{
    (void)pool;
    return mgp_session_of_effect(link)->verified_ns;
}

void
mgp_session_restore_idle_order(struct mgp_pool *pool, struct mgp_session *session)
{
    mgp_link_detach(&session->idle_order);
    insert_by_time(pool, &pool->idle_order, &session->idle_order, mgp_session_idle_order_ns);
}

void
mgp_session_restore_health_order(struct mgp_pool *pool, struct mgp_session *session)
{
    mgp_link_detach(&session->effect.link);
    insert_by_time(pool, &pool->health_order, &session->effect.link, health_order_ns);
}

void
mgp_session_restore_place(struct mgp_session *session)
{
    struct mgp_list *sessions = &session->key->idle_sessions;
    mgp_link_detach(&session->place);
    if (session->is_overdue) {
        mgp_list_push_back(sessions, &session->place);
        return;
    }
    struct mgp_link *next = sessions->head.next;
    while (next != &sessions->head && !mgp_session_of_place(next)->is_overdue &&
           mgp_session_of_place(next)->last_used_ns > session->last_used_ns) {
        next = next->next;
    }
    mgp_link_insert_before(&session->place, next);
}
