/* The other random operations on machine and model, for test_pool_model.c alone, of which this
 * is a part. Each predicts its answer, and what becomes of what it names. */
#ifndef MGP_TESTS_POOL_MODEL_OPERATIONS_H
#define MGP_TESTS_POOL_MODEL_OPERATIONS_H

#include "pool_model_acquire.h"

static void
do_release(void)
{
    struct lease *lease = any_lease(true);
    static const enum mgp_verdict verdicts[] = {
        MGP_VERDICT_GOOD, MGP_VERDICT_GOOD,    MGP_VERDICT_GOOD,   MGP_VERDICT_GOOD,
        MGP_VERDICT_GOOD, MGP_VERDICT_DISCARD, MGP_VERDICT_BROKEN, MGP_VERDICT_LEAKED};
    enum mgp_verdict verdict = verdicts[harness_random_below(8)];
    if (lease == NULL) {
        return;
    }
    struct session *session = lease->session;
    CHECK(mgp_pool_release(pool, now_ns, lease->ticket, verdict) == MGP_OK);
    CHECK(mgp_pool_release(pool, now_ns, lease->ticket, verdict) == MGP_ERR_STALE);
    operation_key = session->key;
    end_lease(lease);
    session->last_used_ns = now_ns;
    keys[session->key].last_used_ns = now_ns;
    if (verdict == MGP_VERDICT_GOOD) {
        session->verified_ns = now_ns;
        session->is_suspected = session->is_suspected && lease->is_older;
    } else if (verdict == MGP_VERDICT_DISCARD) {
        session->is_retired = true;
    } else {
        session->is_broken = true;
    }
    if (session->leases == 0 && verdict == MGP_VERDICT_LEAKED) {
        begin_close(session, REASON(LEAKED));
    } else if (session->leases == 0) {
        come_back(session);
    }
}

static bool
has_core(const struct session *session)
{
    return session->state != MGP_SESSION_CREATING;
}

static void
do_broken(bool marks_only)
{
    struct session *session = any_session(has_core);
    if (session == NULL) {
        return;
    }
    session->is_broken = true;
    if (marks_only) {
        mgp_session_mark_broken(session->core);
        return;
    }
    mgp_session_broken(pool, now_ns, session->core);
    operation_key = session->key;
    if (session->state == MGP_SESSION_IDLE) {
        begin_close(session, REASON(BROKEN));
    }
}

static void
do_suspect(void)
{
    struct session *session = any_session(has_core);
    if (session == NULL) {
        return;
    }
    mgp_session_suspect(pool, session->core);
    if (session->state == MGP_SESSION_GONE) {
        return;
    }
    int endpoint = endpoint_of(session->key);
    for (int i = 0; i < session_end; i++) {
        if (is_open(&sessions[i]) && endpoint_of(sessions[i].key) == endpoint) {
            sessions[i].is_suspected = true;
        }
    }
    for (int i = 0; i < lease_end; i++) {
        if (leases[i].is_used && endpoint_of(leases[i].session->key) == endpoint) {
            leases[i].is_older = true;
        }
    }
}

static void
do_doubt(void)
{
    struct session *session = any_session(has_core);
    if (session == NULL) {
        return;
    }
    mgp_session_doubt(session->core);
    session->is_suspected = true;
    for (int i = 0; i < lease_end; i++) {
        leases[i].is_older |= leases[i].is_used && leases[i].session == session;
    }
}

static int64_t
any_duration(void)
{
    switch (harness_random_below(6)) {
    case 0:
    case 1:
        return 0;
    case 2:
        return 1;
    case 3:
        return harness_random_ns_below(SECOND / 10);
    case 4:
        return harness_random_ns_below(3 * SECOND);
    default:
        return chance(4) ? harness_random_ns_below(60 * SECOND) : SECOND;
    }
}

static void
do_set_times(bool is_creation_time)
{
    struct session *session = any_session(has_core);
    int64_t at_ns = now_ns + 2 * SECOND - 3 * any_duration();
    if (session == NULL) {
        return;
    }
    int64_t present_ns = is_creation_time ? session->created_ns : session->last_used_ns;
    bool may_become_fit = at_ns > present_ns;
    bool is_shared = session->state == MGP_SESSION_ACTIVE && config.max_leases_per_session > 1;
    if (may_become_fit && (is_shared || count_waiters(session->key) > 0)) {
        return; /* that would be seen only at the next occasion */
    }
    if (is_creation_time) {
        mgp_session_set_created(pool, session->core, at_ns);
        session->expires_ns += at_ns - session->created_ns;
        session->created_ns = at_ns;
    } else {
        mgp_session_set_last_used(pool, session->core, at_ns);
        session->last_used_ns = at_ns;
        session->verified_ns = at_ns < session->verified_ns ? at_ns : session->verified_ns;
        session->may_lack_background_checks = false;
    }
}

static bool
is_under_check(const struct session *session)
{
    return session->state == MGP_SESSION_CHECKING && session->check.generation != 0;
}

static void
do_checked(void)
{
    struct session *session = any_session(is_under_check);
    bool is_usable = !chance(4);
    if (session == NULL) {
        return;
    }
    CHECK(mgp_pool_checked(pool, now_ns, session->check, is_usable) == MGP_OK);
    operation_key = session->key;
    if (is_usable) {
        remember_stale(session->check);
        session->verified_ns = now_ns;
        session->check = (struct mgp_ticket){0, 0};
        come_back(session);
    } else {
        count(session->key, MGP_WORD_HEALTH_CHECK_FAILURES, 1);
        begin_close(session, 1u << session->reason);
    }
    closing_before = count_sessions(session->key, MGP_SESSION_CLOSING);
}

static bool
is_being_closed(const struct session *session)
{
    return session->state == MGP_SESSION_CLOSING && session->close.generation != 0;
}

static void
do_close_ended(void)
{
    struct session *session = any_session(is_being_closed);
    if (session != NULL) {
        CHECK(mgp_pool_close_ended(pool, now_ns, session->close) == MGP_OK);
        operation_key = session->key;
        make_gone(session);
    }
}

static void
do_drain(void)
{
    mgp_pool_drain(pool);
    for (int i = 0; i < session_end; i++) {
        sessions[i].is_drained = sessions[i].is_used;
    }
}

static void
close_all(unsigned reason)
{
    for (int i = 0; i < session_end; i++) {
        if (is_open(&sessions[i])) {
            begin_close(&sessions[i], reason);
        }
    }
}

static void
do_close(void)
{
    mgp_pool_close(pool, now_ns);
    is_closed = true;
    close_all(REASON(MANUAL));
}

static void
do_set_closed(bool closed)
{
    if (closed && config.max_leases_per_session > 1) {
        return; /* what was too much for a shared session is seen when one of its leases ends */
    }
    mgp_pool_set_closed(pool, closed);
    is_closed = closed;
    CHECK(mgp_pool_is_closed(pool) == closed);
}

static void
do_abandon(void)
{
    mgp_pool_abandon(pool, now_ns);
    close_all(REASON(BROKEN));
    for (int i = 0; i < session_end; i++) {
        struct session *session = &sessions[i];
        if (is_live(session) && session->state == MGP_SESSION_CREATING) {
            give_up_creation(session);
        } else if (is_live(session)) {
            make_gone(session);
        }
    }
}

/* It is not wanted any more, and keeps nobody of its key from a place. */
static void
retire(struct session *session)
{
    if (session->state == MGP_SESSION_IDLE) {
        begin_close(session, REASON(MANUAL));
    }
    session->is_retired = session->is_apart = true;
}

static void
do_evict_group(void)
{
    size_t which = harness_random_below(MGP_GROUPS_MAX);
    const char *name = group_names[harness_random_below(GROUP_NAMES)];
    mgp_pool_evict_group(pool, now_ns, which, (struct mgp_bytes){name, strlen(name)});
    for (int i = 0; i < session_end; i++) {
        struct session *session = &sessions[i];
        if (!session->is_used || specs[session->key].groups[which].bytes != name) {
            continue;
        }
        retire(session);
    }
}

static void
do_retire(void)
{
    struct session *session = &sessions[harness_random_below(SESSIONS_MAX)];
    if (!session->is_used || session->state == MGP_SESSION_CREATING || !is_live(session)) {
        return;
    }
    operation_key = session->key;
    mgp_session_retire(pool, now_ns, session->core);
    retire(session);
}

static void
do_upkeep(void)
{
    unsigned budget = (unsigned)(chance(3) ? harness_random_below(4) : 10000);
    upkeep_is_complete = !mgp_pool_upkeep(pool, now_ns, budget);
    CHECK(upkeep_is_complete || budget < 10000);
    for (int i = 0; i < session_end; i++) {
        if (is_overdue(&sessions[i]) &&
            now_ns - keys[sessions[i].key].last_used_ns >= 2 * config.health_interval_ns) {
            sessions[i].may_lack_background_checks = true;
        }
    }
}

/* Answers to what has ended long ago, and to what never was. */
static void
do_stale(void)
{
    struct mgp_ticket ticket = stale_tickets[harness_random_below(TICKETS_MAX)];
    struct mgp_session *core;
    struct mgp_ticket lease;
    if (chance(8)) {
        ticket = (struct mgp_ticket){(uint32_t)harness_random_below(64), UINT64_MAX};
    }
    switch (harness_random_below(9)) {
    case 0:
        CHECK(mgp_pool_created(pool, now_ns, ticket, &ticket, &core, &lease) == MGP_ERR_STALE);
        break;
    case 1:
        CHECK(mgp_pool_create_failed(pool, now_ns, ticket, MGP_FAULT_ENDPOINT) == MGP_ERR_STALE);
        break;
    case 2:
        CHECK(mgp_pool_creation_unwanted(pool, ticket) == MGP_ERR_STALE);
        break;
    case 3:
        CHECK(mgp_pool_answer(pool, ticket) == MGP_ERR_STALE);
        break;
    case 4:
        CHECK(mgp_pool_undo(pool, now_ns, ticket) == MGP_ERR_STALE);
        break;
    case 5:
        CHECK(mgp_pool_release(pool, now_ns, ticket, MGP_VERDICT_GOOD) == MGP_ERR_STALE);
        break;
    case 6:
        CHECK(mgp_pool_checked(pool, now_ns, ticket, true) == MGP_ERR_STALE);
        break;
    case 7:
        CHECK(mgp_pool_track(pool, now_ns, ticket, &ticket) == MGP_ERR_STALE);
        break;
    default:
        CHECK(mgp_pool_close_ended(pool, now_ns, ticket) == MGP_ERR_STALE);
        break;
    }
}

#endif
