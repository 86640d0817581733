/* How leases, checks and closes end: what was in use comes back. */
#include "release.h"

#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "serve.h"
#include "transition.h"

/* A lease ends without having been used; its session is as good as it was. */
struct mgp_row *
mgp_lease_undo(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease)
{
    struct mgp_session *session = lease->session;
    struct mgp_row *row = session->key->row;
    mgp_session_end_lease(pool, now_ns, lease);
    if (session->lease_count == 0) {
        /* It was fresh when it was granted, moments ago; so the orders stay in order. */
        session->last_used_ns = now_ns;
        session->verified_ns = now_ns;
        mgp_session_return(pool, now_ns, session);
    } else {
        mgp_key_serve(pool, now_ns, session->key);
    }
    return row;
}

int
mgp_pool_undo(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket)
{
    struct mgp_lease *lease = mgp_leases_find(&pool->leases, ticket);
    if (lease == NULL) {
        return MGP_ERR_STALE;
    }
    MGP_ASSERT(!mgp_lease_is_taken(lease));
    mgp_count(pool, mgp_lease_undo(pool, now_ns, lease), MGP_WORD_ACQUIRE_CANCELLATIONS);
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

int
mgp_pool_release(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket,
                 enum mgp_verdict verdict)
{
    struct mgp_lease *lease = mgp_leases_find(&pool->leases, ticket);
    if (lease == NULL) {
        return MGP_ERR_STALE;
    }
    struct mgp_session *session = lease->session;
    uint64_t epoch = lease->epoch;
    mgp_session_end_lease(pool, now_ns, lease);
    session->last_used_ns = now_ns;
    session->key->last_used_ns = now_ns;
    switch (verdict) {
    case MGP_VERDICT_GOOD:
        session->verified_ns = now_ns;
        if (epoch > session->verified_epoch) {
            session->verified_epoch = epoch; /* a longer lease of a shared session knows less */
        }
        break;
    case MGP_VERDICT_DISCARD:
        session->is_retired = true;
        break;
    case MGP_VERDICT_BROKEN:
    case MGP_VERDICT_LEAKED:
        session->is_broken = true;
        break;
    }
    if (session->lease_count > 0) {
        mgp_key_note_shortage(pool, session->key, INT64_MIN); /* its key is in use again, perhaps */
        mgp_key_serve(pool, now_ns, session->key);
    } else if (verdict == MGP_VERDICT_LEAKED) {
        mgp_session_begin_close(pool, session, MGP_EVICTION_LEAKED);
        mgp_key_serve(pool, now_ns, session->key);
    } else {
        mgp_session_return(pool, now_ns, session);
    }
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

bool
mgp_pool_is_leased(const struct mgp_pool *pool, struct mgp_ticket lease)
{
    return mgp_leases_find(&pool->leases, lease) != NULL;
}

void *
mgp_pool_leased_payload(const struct mgp_pool *pool, struct mgp_ticket ticket)
{
    const struct mgp_lease *lease = mgp_leases_find(&pool->leases, ticket);
    return lease == NULL ? NULL : lease->session->payload;
}

/* ---- checks and closes ------------------------------------------------------- */

int
mgp_pool_checked(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket check, bool is_usable)
{
    struct mgp_session *session = mgp_session_find(pool, check, MGP_SESSION_CHECKING);
    if (session == NULL) {
        return MGP_ERR_STALE;
    }
    mgp_slots_revoke(&pool->session_slots, session->slot);
    if (is_usable) {
        session->verified_ns = now_ns;
        mgp_session_return(pool, now_ns, session);
    } else {
        mgp_count(pool, session->key->row, MGP_WORD_HEALTH_CHECK_FAILURES);
        mgp_session_begin_close(pool, session, (enum mgp_eviction_reason)session->close_reason);
        mgp_key_serve(pool, now_ns, session->key);
    }
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

int
mgp_pool_close_ended(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket close)
{
    struct mgp_session *session = mgp_session_find(pool, close, MGP_SESSION_CLOSING);
    if (session == NULL) {
        return MGP_ERR_STALE;
    }
    struct mgp_key *key = session->key;
    mgp_session_make_gone(pool, session);
    mgp_key_serve(pool, now_ns, key);
    mgp_settle(pool, now_ns);
    return MGP_OK;
}
