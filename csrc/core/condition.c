/* What becomes known of a session from outside: that it is broken, not wanted, in doubt; and
 * what others say of its times. */
#include "machine.h"
#include "serve.h"
#include "transition.h"

void
mgp_session_broken(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    session->is_broken = true;
    if (session->state == MGP_SESSION_IDLE) {
        mgp_session_begin_close(pool, session, MGP_EVICTION_BROKEN);
        mgp_key_serve(pool, now_ns, session->key);
        mgp_settle(pool, now_ns);
    }
}

void
mgp_session_mark_broken(struct mgp_session *session)
{
    session->is_broken = true;
}

void
mgp_session_retire(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    if (session->key == NULL) {
        return; /* gone */
    }
    session->is_retired = true;
    if (session->state == MGP_SESSION_IDLE) {
        mgp_session_begin_close(pool, session, MGP_EVICTION_MANUAL);
    }
    mgp_session_set_apart(session);
    mgp_key_note_shortage(pool, session->key, INT64_MIN);
    mgp_key_serve(pool, now_ns, session->key);
    mgp_settle(pool, now_ns);
}

void
mgp_session_suspect(struct mgp_pool *pool, struct mgp_session *session)
{
    (void)pool;
    if (session->key != NULL) {
        session->key->endpoint->suspect_epoch++;
    }
}

void
mgp_session_doubt(struct mgp_session *session)
{
    session->verified_epoch = 0;
    struct mgp_lease *first = session->lease_count > 0 ? session->leases : NULL;
    for (struct mgp_lease *lease = first; lease != NULL; lease = lease->next) {
        lease->epoch = 0; /* that its call succeeds may have been before */
    }
}

/* Whoever writes times may write anything: sums with a duration must not overflow. */
static int64_t
clamp_time(int64_t at_ns)
{
    int64_t bound_ns = INT64_MAX / 4;
    return at_ns < -bound_ns ? -bound_ns : at_ns > bound_ns ? bound_ns : at_ns;
}

void
mgp_session_set_created(struct mgp_pool *pool, struct mgp_session *session, int64_t created_ns)
{
    int64_t lifetime_ns = session->expires_ns - session->created_ns;
    bool is_open = session->state == MGP_SESSION_ACTIVE || session->state == MGP_SESSION_IDLE ||
                   session->state == MGP_SESSION_CHECKING;
    session->created_ns = clamp_time(created_ns);
    mgp_heap_remove(&pool->lifetimes, &session->lifetime);
    if (is_open) {
        mgp_session_set_lifetime(pool, session, session->created_ns + lifetime_ns);
    } else {
        session->expires_ns = session->created_ns + lifetime_ns;
    }
}

void
mgp_session_set_last_used(struct mgp_pool *pool, struct mgp_session *session, int64_t last_used_ns)
{
    session->last_used_ns = clamp_time(last_used_ns);
    if (session->last_used_ns < session->verified_ns) {
        session->verified_ns = session->last_used_ns;
    }
    if (mgp_link_is_attached(&session->idle_order)) {
        mgp_session_restore_idle_order(pool, session);
    }
    if (session->state == MGP_SESSION_IDLE) {
        mgp_session_restore_health_order(pool, session);
        mgp_session_restore_place(session);
    }
}
