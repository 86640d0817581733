/* Sessions that are opened for nobody, for test_pool_model.c alone, of which this is a part: what
 * the machine may open ahead of need, and what it must not overlook. */
#ifndef MGP_TESTS_POOL_MODEL_AHEAD_H
#define MGP_TESTS_POOL_MODEL_AHEAD_H

#include "pool_model_changes.h"

/* ---- what the machine may open ------------------------------------------------------ */

/* Somebody used the key within a lifetime of its sessions, and of the time that an idle one has. */
static bool
is_in_use(int key)
{
    int64_t unused_ns = now_ns - keys[key].last_used_ns;
    return count_sessions(key, MGP_SESSION_ACTIVE) > 0 ||
           (unused_ns < config.lifetime_ns && unused_ns < config.idle_timeout_ns);
}

/* In the second half of its life, and missed if it ended. */
static bool
is_worth_a_replacement(const struct session *session)
{
    int64_t lifetime_ns = session->expires_ns - session->created_ns;
    bool was_used =
        !session->is_ahead || session->leases > 0 || session->last_used_ns > session->created_ns;
    return is_open(session) && was_used && why_not_keep(session) == 0 &&
           now_ns >= session->expires_ns - lifetime_ns / 2 - 1;
}

static unsigned
count_ahead_at(int endpoint)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        count += is_live(&sessions[i]) && sessions[i].state == MGP_SESSION_CREATING &&
                 sessions[i].is_ahead && endpoint_of(sessions[i].key) == endpoint;
    }
    return count;
}

static struct mgp_key *
core_key(int key)
{
    return mgp_key_find(pool, mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size),
                        specs[key].key.bytes, specs[key].key.size);
}

static struct session *
begin_ahead(int key, struct mgp_session *core, struct mgp_ticket ticket)
{
    struct session *session = begin_create(key, core, ticket);
    CHECK(!session->is_trial);
    session->is_ahead = true;
    session->is_unwanted = true;
    session->is_replacement = core->is_replacement;
    return session;
}

static bool
is_known(const struct mgp_session *core)
{
    for (int i = 0; i < session_end; i++) {
        if (is_live(&sessions[i]) && sessions[i].core == core) {
            return true;
        }
    }
    return false;
}

/* One that upkeep began: in a place that nobody wants, and beside which others may begin. */
static void
judge_ahead(int key, struct mgp_session *core)
{
    int endpoint = endpoint_of(key);
    uint32_t limit = config.max_creating_per_endpoint;
    CHECK(operation == OP_UPKEEP && !is_closed);
    CHECK(!keys[key].is_retiring && !specs[key].is_single_use && is_in_use(key));
    CHECK(count_waiters(key) == 0 && key_has_room(key) && pool_has_room());
    CHECK(endpoints[endpoint].state == MGP_BREAKER_CLOSED);
    CHECK(count_sessions(key, MGP_SESSION_GONE) > count_sessions(key, MGP_SESSION_CREATING));
    CHECK(limit == 0 || count_creating_at(endpoint) + 1 < limit);
    CHECK(count_ahead_at(endpoint) < (limit == 0 || limit > 32 ? 8 : limit < 8 ? 1 : limit / 4));
    if (core->is_replacement) {
        CHECK(config.replaces_sessions && key_has(key, is_worth_a_replacement));
    } else {
        const struct mgp_key *at = core_key(key);
        CHECK(at->idle + at->checking + at->ahead <= config.min_idle_per_key);
    }
    begin_ahead(key, core, (struct mgp_ticket){0, 0})->effect = MGP_EFFECT_CREATE;
}

static void
reconcile_ahead(void)
{
    for (int key = 0; key < KEYS; key++) {
        const struct mgp_key *core = core_key(key);
        struct mgp_link *place;
        if (core == NULL) {
            continue;
        }
        mgp_list_for_each(place, &core->other_sessions) {
            struct mgp_session *session = mgp_session_of_place(place);
            if (session->state == MGP_SESSION_CREATING && session->is_ahead && !is_known(session)) {
                judge_ahead(key, session);
            }
        }
    }
}

/* Its CREATE effect: the ticket is of it, the payload of another session of its key. */
static void
deliver_create(const struct mgp_effect *effect)
{
    const struct mgp_session *core = mgp_session_find(pool, effect->ticket, MGP_SESSION_CREATING);
    CHECK(core != NULL);
    struct session *session = session_of_core(core);
    CHECK(session->effect == MGP_EFFECT_CREATE && session->is_ahead);
    session->effect = NEVER;
    session->creation = effect->ticket;
    session->is_ticket_known = true;
    const struct session *like = effect->payload;
    CHECK(like == NULL ? !key_has(session->key, is_open)
                       : like->is_used && like->key == session->key && like->core != core);
}

/* ---- what it must not overlook -------------------------------------------------------- */

/* After upkeep has done all that was due. */
static void
check_nothing_overlooked(void)
{
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        int64_t lifetime_ns = session->expires_ns - session->created_ns;
        if (is_open(session) && config.replaces_sessions && now_ns < session->expires_ns &&
            now_ns >= session->expires_ns - lifetime_ns / 20) {
            CHECK(session->core->lifetime.at_ns == session->expires_ns); /* it was decided */
        }
    }
    for (int key = 0; key < KEYS; key++) {
        unsigned ready = count_sessions(key, MGP_SESSION_IDLE) +
                         count_sessions(key, MGP_SESSION_CHECKING) + count_ahead(key);
        bool is_opening = count_sessions(key, MGP_SESSION_CREATING) > count_ahead(key);
        if (keys[key].exists && !keys[key].is_retiring && !specs[key].is_single_use &&
            ready < config.min_idle_per_key && is_in_use(key) && !is_opening &&
            count_waiters(key) == 0) {
            CHECK(mgp_heap_node_is_attached(&core_key(key)->shortage)); /* it is tried again */
        }
    }
}

/* ---- warm ------------------------------------------------------------------------------- */

static void
do_warm(int key)
{
    struct mgp_ticket ticket;
    uint32_t wanted = (uint32_t)harness_random_below(5);
    unsigned ready = count_sessions(key, MGP_SESSION_IDLE) +
                     count_sessions(key, MGP_SESSION_CHECKING) + count_ahead(key);
    bool is_new = !keys[key].exists || keys[key].is_retiring;
    bool has_place =
        count_waiters(key) == 0 && key_has_room(key) && pool_has_room() &&
        endpoint_permits(endpoint_of(key)) &&
        !(is_new && config.max_total_keys > 0 && count_keys() >= config.max_total_keys);
    int expected = is_closed                                                 ? MGP_ERR_CLOSED
                   : ready >= wanted || specs[key].is_single_use             ? MGP_OK
                   : endpoints[endpoint_of(key)].state != MGP_BREAKER_CLOSED ? MGP_ERR_CIRCUIT_OPEN
                   : has_place                                               ? MGP_OK
                                                                             : MGP_ERR_EXHAUSTED;
    bool begins = expected == MGP_OK && ready < wanted && !specs[key].is_single_use;
    uint64_t hash = mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size);
    CHECK(mgp_pool_warm(pool, now_ns, hash, &specs[key], wanted, &ticket) == expected);
    CHECK((ticket.generation != 0) == begins);
    if (!begins) {
        return;
    }
    if (keys[key].is_retiring) {
        keys[key].is_retiring = false;
        keys[key].unused_since = operation_number;
        count(key, MGP_WORD_KEYS, 1);
    }
    keys[key].last_used_ns = now_ns;
    struct mgp_session *core = mgp_slots_find(&pool->session_slots, ticket);
    begin_ahead(key, core, ticket)->is_ticket_known = true;
}

#endif
