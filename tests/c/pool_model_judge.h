/* After each operation, the judgement of the model, for test_pool_model.c alone, of which
 * this is a part: was the machine allowed to do what else it did, and did it leave
 * something undone? */
#ifndef MGP_TESTS_POOL_MODEL_JUDGE_H
#define MGP_TESTS_POOL_MODEL_JUDGE_H

#include "pool_model_ahead.h"
#include "pool_model_changes.h"

/* ---- after an operation: what else the machine did -------------------------------- */

static void
reconcile_grant(struct waiter *waiter)
{
    int key = waiter->key;
    waiter->state = waiter->core->state;
    count(key, MGP_WORD_WAITERS, -1);
    if (waiter->state == MGP_WAITER_GRANTED_SESSION) {
        const struct mgp_lease *core = mgp_leases_find(&pool->leases, waiter->core->ticket);
        CHECK(core != NULL);
        struct session *session = session_of_core(core->session);
        check_hand_out(session, key);
        if (session->state == MGP_SESSION_IDLE) {
            leave_idle_for_use(session);
            note_served(key, waiter->number, false);
        }
        keys[key].last_used_ns = now_ns;
        waiter->lease = new_lease(session, waiter->core->ticket);
    } else {
        waiter->session = begin_create_for(key, waiter->core->ticket);
        note_served(key, waiter->number, true);
    }
}

/* Idle and fit, and not closed for somebody else in this operation. */
static bool
stays_idle(const struct session *session)
{
    return is_idle_and_fit(session) && session->core->state == MGP_SESSION_IDLE;
}

static void
reconcile_failure(struct waiter *waiter)
{
    int key = waiter->key;
    waiter->state = MGP_WAITER_FAILED;
    waiter->status = waiter->core->status;
    count(key, MGP_WORD_WAITERS, -1);
    if (operation == OP_CLOSE || operation == OP_ABANDON) {
        CHECK(waiter->status == MGP_ERR_CLOSED);
        return;
    }
    CHECK(waiter->status == MGP_ERR_CIRCUIT_OPEN);
    CHECK(breaker_refuses(endpoint_of(key)));
    CHECK(count_sessions(key, MGP_SESSION_ACTIVE) == 0);
    CHECK(count_sessions(key, MGP_SESSION_CHECKING) == 0);
    CHECK(!key_has(key, stays_idle));
    count(key, MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN), 1);
}

static void
reconcile_waiters(void)
{
    for (int key = 0; key < KEYS; key++) {
        struct waiter *waiter;
        while ((waiter = oldest_waiter(key)) != NULL &&
               (waiter->core->state == MGP_WAITER_GRANTED_SESSION ||
                waiter->core->state == MGP_WAITER_GRANTED_PLACE)) {
            reconcile_grant(waiter);
        }
    }
    for (int key = 0; key < KEYS; key++) {
        struct waiter *waiter;
        while ((waiter = oldest_waiter(key)) != NULL && waiter->core->state == MGP_WAITER_FAILED) {
            reconcile_failure(waiter);
        }
    }
    /* Nobody was served before an older one of the same key. */
    for (int i = 0; i < waiter_end; i++) {
        if (waiters[i].is_used && waiters[i].state == MGP_WAITER_WAITING) {
            CHECK(waiters[i].core->state == MGP_WAITER_WAITING);
        }
    }
}

static int64_t
idle_order_ns(const struct session *session)
{
    return session->is_drained ? INT64_MIN : session->last_used_ns;
}

/* Whether a session was, or is, the least recently used idle one. */
static bool
may_be_victim(const struct session *session)
{
    for (int i = 0; i < session_end; i++) {
        const struct session *other = &sessions[i];
        if (other->is_used && other->state == MGP_SESSION_IDLE &&
            other->core->state == MGP_SESSION_IDLE &&
            idle_order_ns(other) < idle_order_ns(session)) {
            return false;
        }
    }
    return config.max_total_sessions > 0;
}

static void
reconcile_check(struct session *session)
{
    unsigned waiting = count_waiters(session->key);
    CHECK(needs_check(session));
    if (operation == OP_UPKEEP && waiting == 0) {
        CHECK(why_reap(session) == 0);
        if (!session->is_idle_since_opening) {
            CHECK(now_ns - session->verified_ns >= config.health_interval_ns);
            CHECK(now_ns - keys[session->key].last_used_ns < 2 * config.health_interval_ns);
        }
        CHECK(may_probe(endpoint_of(session->key)));
        CHECK(now_ns >= next_check_ns);
        next_check_ns = now_ns + SECOND / config.checks_per_second;
    } else if (operation != OP_UPKEEP) {
        CHECK(why_not_hand_out(session) == 0);
        CHECK(count_sessions(session->key, MGP_SESSION_CHECKING) < waiting);
    }
    if (operation == OP_CHECKED && session->key == operation_key &&
        !breaker_refuses(endpoint_of(session->key))) {
        /* Who saw a check fail does not try all idle sessions in turn. */
        CHECK(count_sessions(session->key, MGP_SESSION_CHECKING) + closing_before < waiting);
    }
    session->state = MGP_SESSION_CHECKING;
    session->reason =
        session->is_idle_since_opening ? MGP_EVICTION_CIRCUIT_BREAKER : MGP_EVICTION_HEALTH_CHECK;
    session->is_idle_since_opening = false;
    session->is_suspected = false;
    session->effect = MGP_EFFECT_PROBE;
    session->check = (struct mgp_ticket){0, 0};
}

/* Whether it came back in this operation, and was not given to whoever waits for it: the place
 * of it goes to somebody of another key, who has waited longer. */
static bool
is_passed_on(const struct session *session)
{
    const struct waiter *waiter = oldest_waiter(session->key);
    return session->is_returned && waiter != NULL && config.max_total_sessions > 0 &&
           places_wanted_before(waiter->number, session->key, true) > count_supply();
}

static void
reconcile_close(struct session *session)
{
    bool is_evicted = session->key == evicted_key;
    bool is_served = count_waiters(session->key) > 0;
    unsigned reasons = why_not_hand_out(session);
    if (is_evicted) {
        reasons = REASON(CAPACITY);
    } else if (operation == OP_UPKEEP) {
        reasons = is_served ? reasons | why_reap(session) : why_reap(session);
    }
    if (!is_evicted && (may_be_victim(session) || is_passed_on(session))) {
        reasons |= REASON(CAPACITY);
    }
    begin_close(session, reasons);
    session->is_supply = session->reason == MGP_EVICTION_CAPACITY && !is_evicted;
    if (operation == OP_UPKEEP && (session->reason == MGP_EVICTION_TTL_EXPIRED ||
                                   session->reason == MGP_EVICTION_IDLE_TIMEOUT)) {
        /* By upkeep itself, or on the way to a session for a waiter. */
        struct mgp_pool_counts counts;
        mgp_pool_read_counts(pool, &counts);
        sessions_reaped += !is_served || counts.sessions_reaped > sessions_reaped;
    }
}

static void
reconcile_sessions(void)
{
    unsigned supply = count_supply();
    for (int i = 0; i < session_end; i++) {
        struct session *session = &sessions[i];
        if (!is_live(session)) {
            continue;
        }
        enum mgp_session_state state = session->core->state;
        if (state == MGP_SESSION_CLOSING &&
            (session->state == MGP_SESSION_IDLE ||
             (session->state == MGP_SESSION_CHECKING && session->key == evicted_key))) {
            reconcile_close(session);
        } else if (state == MGP_SESSION_CHECKING && session->state == MGP_SESSION_IDLE) {
            reconcile_check(session);
        }
        CHECK(session->state == state);
        CHECK(session->core->lease_count == session->leases);
        session->is_returned = false;
    }
    /* No more are closed than places that are wanted. (Upkeep does several things, one after
     * the other.) */
    CHECK(count_supply() == supply || operation == OP_UPKEEP ||
          count_supply() <= places_wanted_before(EVERYBODY, NEVER, true));
}

static void
reconcile_keys(void)
{
    for (int key = 0; key < KEYS; key++) {
        bool exists = has_sessions(key) || count_waiters(key) > 0;
        if (exists && !keys[key].exists) {
            keys[key] = (struct key){.exists = true,
                                     .last_used_ns = keys[key].last_used_ns,
                                     .last_granted = keys[key].last_granted};
            count(key, MGP_WORD_KEYS, 1);
        } else if (!exists && keys[key].exists) {
            keys[key].exists = false;
            if (!keys[key].is_retiring) {
                keys_evicted++;
                count(key, MGP_WORD_KEYS, -1);
            }
            keys[key].is_retiring = false;
        }
        if (!is_used(key) && !was_unused[key]) {
            keys[key].unused_since = operation_number;
        }
    }
}

static bool
endpoint_has_key(int endpoint)
{
    for (int key = 0; key < KEYS; key++) {
        if (keys[key].exists && endpoint_of(key) == endpoint) {
            return true;
        }
    }
    return false;
}

static void
reconcile_endpoints(void)
{
    unsigned remembered = 0;
    for (int i = 0; i < ENDPOINTS; i++) {
        remembered += !endpoint_has_key(i) && endpoints[i].failures > 0;
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        struct endpoint *endpoint = &endpoints[i];
        if (endpoint_has_key(i) || core_endpoint(i) != NULL || endpoint->failures == 0) {
            continue;
        }
        /* Forgotten: in time, or because it was the oldest of too many. */
        bool is_over = now_ns >= endpoint->last_failure_ns + 10 * config.breaker_reset_ns;
        bool is_oldest = remembered > config.max_remembered_endpoints;
        for (int j = 0; j < ENDPOINTS; j++) {
            is_oldest = is_oldest && !(!endpoint_has_key(j) && core_endpoint(j) != NULL &&
                                       endpoints[j].last_failure_ns < endpoint->last_failure_ns);
        }
        CHECK((is_over && operation == OP_UPKEEP) || is_oldest);
        forget_endpoint(endpoint);
        remembered--;
    }
    CHECK(remembered <= config.max_remembered_endpoints);
}

/* ---- after an operation: what must be so ------------------------------------------ */

static bool
is_due(const struct session *session)
{
    return session->is_used && session->state == MGP_SESSION_IDLE && why_reap(session) != 0;
}

static bool
is_overdue(const struct session *session)
{
    return session->is_used && session->state == MGP_SESSION_IDLE &&
           now_ns - session->verified_ns >= config.health_interval_ns;
}

static bool
is_due_for_a_check(const struct session *session)
{
    bool is_suspect =
        session->is_used && session->state == MGP_SESSION_IDLE && session->is_idle_since_opening;
    return (is_suspect || (is_overdue(session) && !session->may_lack_background_checks)) &&
           surely_may_probe(endpoint_of(session->key));
}

/* The key whose sessions the operation changed, or NEVER. */
static int
served_key(void)
{
    bool changes = operation == OP_RELEASE || operation == OP_CLOSE_ENDED ||
                   operation == OP_CHECKED || operation == OP_CREATE_FAILED ||
                   operation == OP_CANCEL || operation == OP_ACQUIRE;
    return changes ? operation_key : NEVER;
}

static void
check_key(int key)
{
    unsigned waiting = count_waiters(key);
    unsigned checking = count_sessions(key, MGP_SESSION_CHECKING);
    int endpoint = endpoint_of(key);
    struct mgp_key_view view;
    uint64_t hash = mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size);
    mgp_pool_view_key(pool, hash, specs[key].key, &view);
    CHECK((view.handle != NULL) == keys[key].exists);
    CHECK(view.waiters == waiting);
    CHECK(view.creating == count_sessions(key, MGP_SESSION_CREATING));
    CHECK(view.active == count_sessions(key, MGP_SESSION_ACTIVE));
    CHECK(view.idle == count_sessions(key, MGP_SESSION_IDLE));
    CHECK(view.checking == checking);
    CHECK(view.closing == count_sessions(key, MGP_SESSION_CLOSING));
    CHECK(count_sessions(key, MGP_SESSION_GONE) <= config.max_sessions_per_key);
    CHECK(!keys[key].is_retiring || !key_has(key, is_open));
    if (waiting == 0) {
        return;
    }
    /* Nobody waits for what is there. */
    CHECK(!key_has(key, is_ready));
    CHECK(config.max_leases_per_session == 1 || !key_has(key, can_share));
    bool wants_place = waiting > checking && key_has_room(key) && pool_has_room();
    if (wants_place && endpoint_permits(endpoint)) {
        /* Only the end of a breaker's time comes without an operation: upkeep acts on it. */
        CHECK(endpoints[endpoint].state == MGP_BREAKER_OPEN);
        CHECK(!upkeep_is_complete && mgp_pool_next_deadline(pool) <= now_ns);
    }
    /* Nor for what cannot come. */
    if (breaker_refuses(endpoint) && (endpoint == opened_endpoint || key == served_key())) {
        CHECK(count_sessions(key, MGP_SESSION_ACTIVE) + checking > 0);
    }
    /* An idle session that needs a check is checked for a waiter that has nothing to expect. */
    if (key_has(key, is_idle_and_fit)) {
        CHECK(checking + count_sessions(key, MGP_SESSION_CLOSING) >= waiting);
    }
}

/* Whether the place that somebody got would have helped the oldest waiter of another key. */
static bool
would_have_helped(const struct served *one, int key)
{
    if (places_wanted(key, count_waiters(key)) == 0) {
        return false;
    }
    if (endpoint_of(key) == endpoint_of(one->key)) {
        return true; /* what the endpoint let one begin it would have let the other */
    }
    return config.max_total_sessions > 0 && creations_permitted(endpoint_of(key), false) > 0;
}

/* What came free went to whoever has waited longest among those whom it would help. */
static void
check_fairness(void)
{
    for (int i = 0; i < served_count; i++) {
        const struct served *one = &served[i];
        for (int key = 0; one->is_creation && key < KEYS; key++) {
            const struct waiter *waiter = key == one->key ? NULL : oldest_waiter(key);
            CHECK(waiter == NULL || waiter->number > one->number || !would_have_helped(one, key));
        }
        /* An idle session helps the others by its place; unless places enough are on their way
         * to those who have waited longer. Upkeep does several things, one after the other. */
        CHECK(one->is_creation || pool_has_room() || operation == OP_UPKEEP ||
              places_wanted_before(one->number, one->key, false) <= count_supply());
    }
    /* Where the total limit keeps anybody waiting, nothing is idle but what is being closed
     * for them; and no other close is taken for that. */
    if (count_sessions(NEVER, MGP_SESSION_IDLE) > 0 && !pool_has_room()) {
        CHECK(places_wanted_before(EVERYBODY, NEVER, false) <= count_supply());
    }
}

static void
check_deadlines(void)
{
    int64_t due_ns = INT64_MAX;
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        if (!session->is_used || session->state != MGP_SESSION_IDLE) {
            continue;
        }
        /* To be replaced in its last twentieth at the latest, unless that is decided. */
        bool is_decided = session->core->lifetime.at_ns == session->expires_ns;
        int64_t lead_ns = is_decided ? 0 : (session->expires_ns - session->created_ns) / 20;
        int64_t times[] = {session->expires_ns - lead_ns,
                           session->is_drained ? INT64_MIN
                                               : session->last_used_ns + config.idle_timeout_ns,
                           INT64_MAX};
        bool is_suspect =
            session->is_idle_since_opening && surely_may_probe(endpoint_of(session->key));
        if (is_suspect ||
            (!session->may_lack_background_checks && surely_may_probe(endpoint_of(session->key)))) {
            times[2] = is_suspect ? INT64_MIN : session->verified_ns + config.health_interval_ns;
            times[2] = times[2] < pool->next_check_ns ? pool->next_check_ns : times[2];
        }
        for (size_t j = 0; j < 3; j++) {
            due_ns = times[j] < due_ns ? times[j] : due_ns;
        }
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        if (!endpoint_has_key(i) && endpoints[i].failures > 0) {
            int64_t at_ns = endpoints[i].last_failure_ns + 10 * config.breaker_reset_ns;
            due_ns = at_ns < due_ns ? at_ns : due_ns;
        }
    }
    CHECK(mgp_pool_next_deadline(pool) <= due_ns);
}

static void
check_complete_upkeep(void)
{
    bool is_check_due = false;
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        CHECK(!is_due(session));
        is_check_due |= is_due_for_a_check(session);
    }
    CHECK(!is_check_due || now_ns < pool->next_check_ns);
    CHECK(mgp_pool_next_deadline(pool) > now_ns);
}

static int
count_payload(void *payload, void *context)
{
    const struct session *session = payload;
    CHECK(session >= sessions && session < sessions + SESSIONS_MAX && session->is_used);
    CHECK(session->state != MGP_SESSION_CREATING);
    ++*(size_t *)context;
    return 0;
}

static int
check_breaker(const struct mgp_endpoint_view *view, void *context)
{
    for (int i = 0; i < ENDPOINTS; i++) {
        const struct endpoint *endpoint = &endpoints[i];
        if (view->endpoint.size == strlen(endpoint_names[i]) &&
            memcmp(view->endpoint.bytes, endpoint_names[i], view->endpoint.size) == 0) {
            CHECK(view->failures == endpoint->failures);
            CHECK(view->is_open == (endpoint->state != MGP_BREAKER_CLOSED));
            CHECK(!view->is_open || endpoint->state == MGP_BREAKER_HALF_OPEN ||
                  view->open_until_ns == endpoint->open_until_ns);
            ++*(unsigned *)context;
            return 0;
        }
    }
    harness_fail(__FILE__, __LINE__, "the model knows this endpoint");
}

static void
check_pool(void)
{
    struct mgp_pool_counts counts;
    unsigned endpoint_count = 0, failing = 0, failing_seen = 0;
    mgp_pool_check(pool);
    for (int key = 0; key < KEYS; key++) {
        check_key(key);
    }
    for (int i = 0; i < ENDPOINTS; i++) {
        endpoint_count += endpoint_has_key(i) || endpoints[i].failures > 0;
        failing += endpoints[i].failures > 0;
    }
    CHECK(mgp_pool_visit_breakers(pool, check_breaker, &failing_seen) == 0);
    CHECK(failing == failing_seen);
    mgp_pool_read_counts(pool, &counts);
    CHECK(counts.keys == count_keys() && counts.endpoints == endpoint_count);
    CHECK(counts.waiters == count_waiters(NEVER));
    CHECK(counts.creating == count_sessions(NEVER, MGP_SESSION_CREATING));
    CHECK(counts.active == count_sessions(NEVER, MGP_SESSION_ACTIVE));
    CHECK(counts.idle == count_sessions(NEVER, MGP_SESSION_IDLE));
    CHECK(counts.checking == count_sessions(NEVER, MGP_SESSION_CHECKING));
    CHECK(counts.closing == count_sessions(NEVER, MGP_SESSION_CLOSING));
    CHECK(counts.keys_evicted == keys_evicted && counts.sessions_reaped == sessions_reaped);
    CHECK(config.max_total_keys == 0 || counts.keys <= config.max_total_keys);
    CHECK(config.max_total_sessions == 0 ||
          count_sessions(NEVER, MGP_SESSION_GONE) <= config.max_total_sessions);
    check_fairness();
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        CHECK(mgp_pool_totals(pool)[word] == totals[word]);
        for (int row = 0; row < ROWS; row++) {
            uint64_t expected = word == MGP_WORD_OLDEST_WAITER_SECONDS ? oldest_waiter_ns(row)
                                                                       : row_totals[row][word];
            CHECK(mgp_atomic_load(&row_words[row][word]) == expected);
        }
    }
    CHECK(totals[MGP_WORD_HITS] + totals[MGP_WORD_MISSES] == answered);
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        struct mgp_session_times times;
        if (!is_open(session)) {
            continue;
        }
        mgp_session_read_times(session->core, &times);
        CHECK(times.created_ns == session->created_ns);
        CHECK(times.last_used_ns == session->last_used_ns);
        CHECK(times.expires_ns == session->expires_ns);
        CHECK(!mgp_session_is_closing(session->core));
    }
    for (int i = 0; i < lease_end; i++) {
        CHECK(!leases[i].is_used || mgp_pool_is_leased(pool, leases[i].ticket));
    }
    check_deadlines();
    if (upkeep_is_complete) {
        check_complete_upkeep();
        check_nothing_overlooked();
    }
    CHECK(checks_expected == 0 ||
          count_sessions(operation_key, MGP_SESSION_CHECKING) >= checks_expected);
    if (operation_number % 32 == 0) {
        size_t payloads = 0;
        CHECK(mgp_pool_visit_payloads(pool, count_payload, &payloads) == 0);
        CHECK(payloads == opened_total - gone_total);
    }
}

#endif
