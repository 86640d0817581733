/* The random operations of callers on machine and model, until they have a session, for
 * test_pool_model.c alone, of which this is a part. Each predicts its answer, and what becomes of
 * what it names. */
#ifndef MGP_TESTS_POOL_MODEL_ACQUIRE_H
#define MGP_TESTS_POOL_MODEL_ACQUIRE_H

#include "pool_model_changes.h"

static int
any_key(void)
{
    /* Some keys are used more than others. */
    size_t key = harness_random_below(KEYS);
    return (int)(chance(2) ? key : harness_random_below(key + 1));
}

static struct session *
any_session(bool (*is_such)(const struct session *session))
{
    struct session *found = NULL;
    size_t seen = 0;
    for (int i = 0; i < session_end; i++) {
        if (sessions[i].is_used && is_such(&sessions[i]) && chance(++seen)) {
            found = &sessions[i];
        }
    }
    return found;
}

static struct lease *
any_lease(bool is_taken)
{
    struct lease *found = NULL;
    size_t seen = 0;
    for (int i = 0; i < lease_end; i++) {
        if (leases[i].is_used && leases[i].is_known && leases[i].is_taken == is_taken &&
            chance(++seen)) {
            found = &leases[i];
        }
    }
    return found;
}

static struct waiter *
any_waiter(bool has_grant)
{
    struct waiter *found = NULL;
    size_t seen = 0;
    for (int i = 0; i < waiter_end; i++) {
        struct waiter *waiter = &waiters[i];
        bool is_granted = waiter->state == MGP_WAITER_GRANTED_SESSION ||
                          waiter->state == MGP_WAITER_GRANTED_PLACE;
        if (waiter->is_used && (!has_grant || is_granted) && chance(++seen)) {
            found = waiter;
        }
    }
    return found;
}

static void
take_hit(struct session *session, int key, struct mgp_ticket ticket)
{
    check_hand_out(session, key);
    if (session->state == MGP_SESSION_IDLE) {
        leave_idle_for_use(session);
        note_served(key, arrivals + 1, false);
    }
    keys[key].last_used_ns = now_ns;
    struct lease *lease = new_lease(session, ticket);
    lease->is_known = true;
    lease->is_taken = true;
    lease->since_ns = now_ns;
    count(key, MGP_WORD_HITS, 1);
    count(key, MGP_WORD_ANONYMOUS_ACQUIRES, specs[key].is_anonymous);
    answered++;
}

static bool
is_not_ready(const struct session *session)
{
    return session->state == MGP_SESSION_IDLE && !is_ready(session);
}

static void
do_try_acquire(void)
{
    int key = any_key();
    struct mgp_acquired acquired;
    bool is_sure = key_has(key, is_ready) && !key_has(key, is_not_ready) && !is_closed;
    uint64_t hash = mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size);
    mgp_pool_try_acquire(pool, now_ns, hash, specs[key].key.bytes, specs[key].key.size, &acquired);
    operation_key = key;
    if (acquired.answer == MGP_ANSWER_NONE) {
        CHECK(!is_sure);
        operation_key = NEVER;
        return;
    }
    CHECK(acquired.answer == MGP_ANSWER_SESSION);
    CHECK(count_waiters(key) == 0);
    take_hit(acquired.payload, key, acquired.ticket);
}

/* The oldest of those whom the creation that a newcomer would begin now helps as well, or NULL:
 * only the end of a breaker's time comes without an operation. */
static const struct waiter *
first_before(int newcomers_key)
{
    const struct waiter *first = NULL;
    for (int key = 0; key < KEYS; key++) {
        const struct waiter *waiter = oldest_waiter(key);
        if (endpoint_of(key) == endpoint_of(newcomers_key) &&
            places_wanted(key, count_waiters(key)) > 0 &&
            (first == NULL || waiter->number < first->number)) {
            first = waiter;
        }
    }
    return first;
}

/* MGP_OK, or why an acquire is refused; 1: either is right. */
static int
expected_refusal(int key)
{
    bool is_new = !keys[key].exists || keys[key].is_retiring;
    if (is_closed) {
        return MGP_ERR_CLOSED;
    }
    bool is_half_open = endpoints[endpoint_of(key)].state == MGP_BREAKER_OPEN &&
                        endpoint_permits(endpoint_of(key)) && pool_has_room() &&
                        first_before(key) != NULL; /* the next to try is one who waits */
    unsigned waiting = count_waiters(key) - (is_half_open && first_before(key)->key == key);
    /* What it could get, or wait for; where others wait, what they wait for. */
    bool has_any =
        count_sessions(key, MGP_SESSION_ACTIVE) > 0 ||
        count_sessions(key, MGP_SESSION_CHECKING) > 0 ||
        (waiting > 0 ? count_sessions(key, MGP_SESSION_IDLE) > 0 : key_has(key, is_idle_and_fit));
    if ((breaker_refuses(endpoint_of(key)) || is_half_open) && !has_any) {
        return MGP_ERR_CIRCUIT_OPEN;
    }
    if (config.max_waiters_per_key > 0 && waiting >= config.max_waiters_per_key) {
        return MGP_ERR_QUEUE_FULL;
    }
    int refusal = MGP_OK;
    bool has_nothing = count_sessions(key, MGP_SESSION_GONE) + count_waiters(key) == 0;
    if (has_nothing && !pool_has_room() && count_sessions(NEVER, MGP_SESSION_IDLE) == 0) {
        /* What is being opened for nobody comes, and goes again where it is in the way. */
        unsigned closing = count_sessions(NEVER, MGP_SESSION_CLOSING) + count_ahead(NEVER);
        if (closing <= places_wanted_before(EVERYBODY, NEVER, false)) {
            return MGP_ERR_EXHAUSTED;
        }
        refusal = closing > places_wanted_before(EVERYBODY, NEVER, true) ? MGP_OK : 1;
    }
    if (is_new && config.max_total_keys > 0 && count_keys() >= config.max_total_keys) {
        bool has_unused = false;
        for (int other = 0; other < KEYS; other++) {
            has_unused |= keys[other].exists && !keys[other].is_retiring && !is_used(other);
        }
        return has_unused ? refusal : MGP_ERR_EXHAUSTED;
    }
    return refusal;
}

static enum mgp_answer
expected_answer(int key)
{
    if (count_waiters(key) > 0) {
        return MGP_ANSWER_WAIT;
    }
    if (key_has(key, is_ready) || (config.max_leases_per_session > 1 && key_has(key, can_share))) {
        return MGP_ANSWER_SESSION;
    }
    bool may_create = !key_has(key, is_idle_and_fit) && key_has_room(key) && pool_has_room() &&
                      endpoint_permits(endpoint_of(key)) && first_before(key) == NULL;
    return may_create ? MGP_ANSWER_CREATE : MGP_ANSWER_WAIT;
}

/* A new key had to take the place of another: the least recently used of those not used. */
static void
evict_key(int new_key)
{
    for (int key = 0; key < KEYS; key++) {
        const struct mgp_key *core =
            mgp_key_find(pool, mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size),
                         specs[key].key.bytes, specs[key].key.size);
        if (keys[key].exists && !keys[key].is_retiring && key != new_key &&
            (core == NULL || core->is_retiring)) {
            CHECK(evicted_key == NEVER);
            evicted_key = key;
        }
    }
    CHECK(evicted_key != NEVER && !is_used(evicted_key));
    for (int key = 0; key < KEYS; key++) {
        CHECK(key == new_key || !keys[key].exists || keys[key].is_retiring || is_used(key) ||
              keys[key].unused_since >= keys[evicted_key].unused_since);
    }
    for (int i = 0; i < session_end; i++) {
        if (is_live(&sessions[i]) && sessions[i].key == evicted_key &&
            sessions[i].state == MGP_SESSION_CREATING) {
            CHECK(sessions[i].is_ahead || sessions[i].is_apart);
            sessions[i].is_retired = true;
        }
    }
    keys[evicted_key].is_retiring = true;
    keys_evicted++;
    count(evicted_key, MGP_WORD_KEYS, -1);
}

/* Room for one; NULL: enough wait. */
static struct waiter *
new_waiter(void)
{
    int i = 0;
    while (waiters[i].is_used) {
        i++;
        if (i == WAITERS_MAX) {
            return NULL;
        }
    }
    waiter_end = i < waiter_end ? waiter_end : i + 1;
    return &waiters[i];
}

static void
do_acquire(void)
{
    int key = any_key();
    struct mgp_acquired acquired;
    struct waiter *waiter = new_waiter();
    if (waiter == NULL) {
        return;
    }
    int refusal = expected_refusal(key);
    enum mgp_answer answer = expected_answer(key);
    bool is_new = !keys[key].exists || keys[key].is_retiring;
    bool evicts = is_new && config.max_total_keys > 0 && count_keys() >= config.max_total_keys;
    uint64_t hash = mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size);
    int status = mgp_pool_acquire(pool, now_ns, hash, &specs[key], &acquired);
    if (refusal == 1) {
        CHECK(status == MGP_OK || status == MGP_ERR_EXHAUSTED);
    } else {
        CHECK(status == refusal);
    }
    if (status < 0) {
        CHECK(acquired.answer == MGP_ANSWER_NONE);
        if (status == MGP_ERR_CIRCUIT_OPEN) {
            count(key, MGP_REJECTION_WORD(MGP_REJECTION_CIRCUIT_OPEN), 1);
        } else if (status == MGP_ERR_QUEUE_FULL) {
            count(key, MGP_REJECTION_WORD(MGP_REJECTION_QUEUE_FULL), 1);
        } else if (status == MGP_ERR_EXHAUSTED) {
            count(key, MGP_REJECTION_WORD(MGP_REJECTION_EXHAUSTED), 1);
        }
        return;
    }
    operation_key = key;
    if (keys[key].is_retiring) {
        keys[key].is_retiring = false;
        count(key, MGP_WORD_KEYS, 1);
    }
    if (evicts) {
        evict_key(key);
    }
    CHECK(acquired.answer == answer);
    if (answer == MGP_ANSWER_SESSION) {
        take_hit(acquired.payload, key, acquired.ticket);
        return;
    }
    count(key, MGP_WORD_ANONYMOUS_ACQUIRES, specs[key].is_anonymous);
    if (answer == MGP_ANSWER_CREATE) {
        begin_create_for(key, acquired.ticket)->is_ticket_known = true;
        note_served(key, arrivals + 1, true);
        return;
    }
    *waiter = (struct waiter){.is_used = true,
                              .state = MGP_WAITER_WAITING,
                              .core = acquired.waiter,
                              .key = key,
                              .number = ++arrivals,
                              .since_ns = now_ns};
    mgp_waiter_set_payload(acquired.waiter, waiter);
    count(key, MGP_WORD_WAITERS, 1);
    /* An idle session that needs a check is sooner had than a new one. */
    unsigned checking = count_sessions(key, MGP_SESSION_CHECKING);
    if (key_has(key, is_idle_and_fit) && checking < count_waiters(key)) {
        checks_expected = checking + 1;
    }
}

static void
do_take(void)
{
    struct waiter *waiter = any_waiter(true);
    struct mgp_acquired acquired;
    if (waiter == NULL) {
        return;
    }
    int status = mgp_pool_take(pool, now_ns, waiter->core, &acquired);
    operation_key = waiter->key;
    waiter->is_used = false;
    if (waiter->lease != NULL) {
        struct lease *lease = waiter->lease;
        waiter->lease = NULL;
        CHECK(status == MGP_OK && acquired.answer == MGP_ANSWER_SESSION);
        CHECK(acquired.payload == lease->session);
        CHECK(acquired.ticket.generation == lease->ticket.generation);
        lease->is_known = true;
        lease->is_taken = true;
        lease->since_ns = now_ns;
        count(waiter->key, MGP_WORD_HITS, 1);
        observe(waiter->key, MGP_HISTOGRAM_ACQUIRE_WAIT_SECONDS, now_ns - waiter->since_ns);
        answered++;
    } else if (waiter->session != NULL && !is_closed) {
        CHECK(status == MGP_OK && acquired.answer == MGP_ANSWER_CREATE);
        CHECK(acquired.ticket.generation == waiter->session->creation.generation);
        observe(waiter->key, MGP_HISTOGRAM_ACQUIRE_WAIT_SECONDS, now_ns - waiter->since_ns);
        waiter->session->is_ticket_known = true;
        waiter->session = NULL;
    } else {
        CHECK(status == MGP_ERR_CLOSED && acquired.answer == MGP_ANSWER_NONE);
        if (waiter->session != NULL) {
            give_up_creation(waiter->session);
        }
    }
}

static void
undo(struct lease *lease)
{
    struct session *session = lease->session;
    end_lease(lease);
    if (session->leases == 0) {
        session->last_used_ns = now_ns;
        session->verified_ns = now_ns;
        come_back(session);
    }
}

static void
do_cancel(void)
{
    struct waiter *waiter = any_waiter(chance(2));
    if (waiter == NULL) {
        return;
    }
    bool is_timeout = chance(2);
    mgp_pool_cancel(pool, now_ns, waiter->core,
                    is_timeout ? MGP_CANCEL_BY_TIMEOUT : MGP_CANCEL_BY_CALLER);
    waiter->is_used = false;
    bool is_counted = true;
    if (waiter->state == MGP_WAITER_WAITING) {
        count(waiter->key, MGP_WORD_WAITERS, -1);
    } else if (waiter->lease != NULL) {
        undo(waiter->lease);
    } else if (waiter->session != NULL) {
        give_up_creation(waiter->session);
    } else {
        is_counted = false;
    }
    if (is_counted) {
        operation_key = waiter->key;
        count(waiter->key, is_timeout ? MGP_WORD_ACQUIRE_TIMEOUTS : MGP_WORD_ACQUIRE_CANCELLATIONS,
              1);
    }
}

static bool
is_creation(const struct session *session)
{
    return session->state == MGP_SESSION_CREATING && session->is_ticket_known;
}

static void
do_created(void)
{
    struct session *session = any_session(is_creation);
    struct mgp_session *core;
    struct mgp_ticket ticket;
    struct mgp_session_times times;
    if (session == NULL) {
        return;
    }
    int key = session->key;
    int status = mgp_pool_created(pool, now_ns, session->creation, session, &core, &ticket);
    operation_key = key;
    CHECK(status == (is_closed ? MGP_ERR_CLOSED : MGP_OK));
    CHECK(core == session->core);
    forget_endpoint(&endpoints[endpoint_of(key)]); /* whoever began it */
    endpoints[endpoint_of(key)].decided = ++events;
    end_creation(session);
    opened_total++;
    observe(key, MGP_HISTOGRAM_CREATE_SECONDS, now_ns - session->created_ns);
    session->state = MGP_SESSION_ACTIVE;
    session->created_ns = session->last_used_ns = session->verified_ns = now_ns;
    mgp_session_read_times(core, &times);
    int64_t lifetime_ns = times.expires_ns - now_ns;
    CHECK(lifetime_ns <= config.lifetime_ns);
    CHECK((double)lifetime_ns >= (double)config.lifetime_ns * (1.0 - config.lifetime_jitter) - 1.0);
    session->expires_ns = times.expires_ns;
    count(key, MGP_WORD_CREATES, 1);
    count(key, MGP_WORD_REPLACEMENTS, session->is_replacement);
    count(key, MGP_WORD_SIZE, 1);
    count(key, MGP_WORD_ACTIVE_SESSIONS, 1);
    if (is_closed || session->is_unwanted) {
        CHECK(ticket.generation == 0);
        come_back(session);
    } else {
        CHECK(ticket.generation != 0);
        struct lease *lease = new_lease(session, ticket);
        lease->is_known = true;
        lease->since_ns = now_ns;
    }
}

static void
do_create_failed(void)
{
    struct session *session = any_session(is_creation);
    bool is_endpoints = !chance(4);
    if (session == NULL) {
        return;
    }
    CHECK(mgp_pool_create_failed(pool, now_ns, session->creation,
                                 is_endpoints ? MGP_FAULT_ENDPOINT : MGP_FAULT_CALLER) == MGP_OK);
    operation_key = session->key;
    count(session->key, MGP_WORD_CREATE_FAILURES, 1);
    if (is_endpoints && !session->is_ahead) { /* nobody asked for it: it says nothing */
        count_failure(session);
        end_creation(session);
        session->is_used = false;
    } else {
        give_up_creation(session);
    }
}

static void
do_unwanted(void)
{
    struct session *session = any_session(is_creation);
    if (session == NULL || session->is_unwanted) {
        return;
    }
    CHECK(mgp_pool_creation_unwanted(pool, session->creation) == MGP_OK);
    session->is_unwanted = true;
    count(session->key, MGP_WORD_ACQUIRE_CANCELLATIONS, 1);
}

static void
do_answer(void)
{
    struct lease *lease = any_lease(false);
    if (lease != NULL) {
        CHECK(mgp_pool_answer(pool, lease->ticket) == MGP_OK);
        lease->is_taken = true;
        count(lease->session->key, MGP_WORD_MISSES, 1);
        answered++;
    }
}

static void
do_undo(void)
{
    struct lease *lease = any_lease(false);
    if (lease != NULL) {
        operation_key = lease->session->key;
        CHECK(mgp_pool_undo(pool, now_ns, lease->ticket) == MGP_OK);
        count(lease->session->key, MGP_WORD_ACQUIRE_CANCELLATIONS, 1);
        undo(lease);
    }
}

#endif
