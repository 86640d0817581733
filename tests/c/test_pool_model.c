/* Random operations against a naive model of what the pool promises.
 *
 * The model knows nothing of lists, orders and queues: sessions, leases and waiters are
 * entries of arrays, and every question is a scan. It predicts the answer of each
 * operation, what becomes of the session or waiter that the operation names, and every
 * counter. What else the machine did (whom it granted what, which idle sessions it checked
 * or closed) is read from its structs; the model judges whether it was allowed to, and
 * then whether it left something undone. So where several decisions are right, none is
 * prescribed.
 *
 *   MGP_TEST_OPERATIONS=100000000   a long run
 *   MGP_TEST_SEED=12345             other numbers; a failure says which seed replays its run */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../csrc/core/machine.h"
#include "failing_alloc.h"
#include "harness.h"

#define SECOND INT64_C(1000000000)
#define DEFAULT_OPERATIONS 300000
#define OPERATIONS_PER_RUN 1500
#define KEYS 8
#define ENDPOINTS 3
#define ROWS 2
#define GROUP_NAMES 3
#define SESSIONS_MAX 512
#define LEASES_MAX 512
#define WAITERS_MAX 128
#define TICKETS_MAX 64
#define NEVER (-1)

enum operation {
    OP_TRY_ACQUIRE,
    OP_ACQUIRE,
    OP_TAKE,
    OP_CANCEL,
    OP_CREATED,
    OP_CREATE_FAILED,
    OP_UNWANTED,
    OP_ANSWER,
    OP_UNDO,
    OP_RELEASE,
    OP_BROKEN,
    OP_MARK_BROKEN,
    OP_SUSPECT,
    OP_DOUBT,
    OP_SET_CREATED,
    OP_SET_LAST_USED,
    OP_CHECKED,
    OP_CLOSE_ENDED,
    OP_DRAIN,
    OP_CLOSE,
    OP_SET_CLOSED,
    OP_ABANDON,
    OP_EVICT_GROUP,
    OP_UPKEEP,
    OP_STALE,
    OP_EFFECTS,
    OP_COUNT,
};

struct session { /* the payload of the machine's session */
    bool is_used;
    enum mgp_session_state state;
    struct mgp_session *core;
    int key;
    int64_t created_ns, last_used_ns, verified_ns, expires_ns;
    unsigned leases;
    bool is_ticket_known; /* to whoever creates it */
    bool is_trial, is_unwanted, is_broken, is_retired;
    bool is_drained;                          /* of before the last drain */
    bool is_swept;                            /* idle since before its breaker opened */
    bool is_suspected;                        /* verified before the last suspicion */
    bool is_returned;                         /* in this operation */
    bool may_lack_background_checks;          /* its key was not used for two intervals once */
    struct mgp_ticket creation, check, close; /* generation 0: not delivered */
    unsigned reasons;                         /* for which its close is right: one bit each */
    int effect;                               /* enum mgp_effect_kind that is to come, or NEVER */
};

struct lease {
    bool is_used;
    struct session *session;
    struct mgp_ticket ticket;
    bool is_known; /* to its caller: not merely granted */
    bool is_taken;
    bool is_older; /* than the last suspicion of its endpoint */
};

struct waiter { /* the payload of the machine's waiter */
    bool is_used;
    enum mgp_waiter_state state;
    struct mgp_waiter *core;
    int key;
    uint64_t number;         /* in the order of arrival */
    struct lease *lease;     /* granted; NULL: none, or taken back */
    struct session *session; /* granted to be created; likewise */
    int status;
    bool is_delivered;
};

struct key {
    bool exists;
    bool is_retiring;
    int64_t last_used_ns;
    uint64_t unused_since; /* operation number; valid while unused */
    uint64_t last_granted; /* number of the waiter whose GRANT effect came last */
};

struct endpoint {
    enum mgp_breaker_state state;
    unsigned failures;
    unsigned backoff;
    int64_t open_until_ns, last_failure_ns;
    int trip_row;
};

static struct mgp_pool *pool;
static struct mgp_config config;
static int64_t now_ns;
static bool is_closed;
static struct session sessions[SESSIONS_MAX];
static struct lease leases[LEASES_MAX];
static struct waiter waiters[WAITERS_MAX];
static int session_end, lease_end, waiter_end; /* nothing is used from there on */
static struct key keys[KEYS];
static struct endpoint endpoints[ENDPOINTS];
static uint64_t totals[MGP_WORD_COUNT];
static uint64_t row_totals[ROWS][MGP_WORD_COUNT];
static uint64_t keys_evicted, sessions_reaped, answered, arrivals;
static int64_t next_check_ns;
static size_t gone_total, opened_total;

static mgp_atomic_u64 row_words[ROWS][MGP_WORD_COUNT];
static struct mgp_row rows[ROWS];
static struct mgp_key_spec specs[KEYS];
static char key_names[KEYS][16], endpoint_names[ENDPOINTS][16], group_names[GROUP_NAMES][16];
static struct mgp_ticket stale_tickets[TICKETS_MAX];

/* Of the operation that runs. */
static enum operation operation;
static uint64_t operation_number;
static uint64_t run_seed;
static int operation_key;   /* that it names, or NEVER */
static int opened_endpoint; /* whose breaker it opened, or NEVER */
static int evicted_key;     /* that it evicted, or NEVER */
static bool was_unused[KEYS];
static unsigned closing_before;  /* of operation_key, with the session that the operation closed */
static unsigned checks_expected; /* of operation_key, at least */
static bool upkeep_is_complete;

static void
on_abort(int number)
{
    char text[160];
    int size = snprintf(text, sizeof(text),
                        "operation %" PRIu64 " (kind %d) of the run; MGP_TEST_SEED=%" PRIu64
                        " starts with this run\n",
                        operation_number, (int)operation, run_seed);
    ssize_t written = write(STDERR_FILENO, text, (size_t)size);
    (void)written;
    signal(number, SIG_DFL);
}

/* ---- questions to the model --------------------------------------------------- */

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

/* Of a key, or of all (NEVER), in a state, or in all that count (MGP_SESSION_GONE). */
static unsigned
count_sessions(int key, enum mgp_session_state state)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        count += is_live(session) && (key == NEVER || session->key == key) &&
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
    return count;
}

static bool
is_used(int key)
{
    return count_sessions(key, MGP_SESSION_CREATING) + count_sessions(key, MGP_SESSION_ACTIVE) +
               count_waiters(key) >
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
    if (reason == 0 && session->is_swept) {
        return REASON(CIRCUIT_BREAKER);
    }
    if (reason == 0 && now_ns - session->last_used_ns >= config.idle_timeout_ns) {
        return REASON(IDLE_TIMEOUT);
    }
    return reason;
}

/* Why upkeep closes an idle one. */
static unsigned
why_reap(const struct session *session)
{
    if (session->is_swept) {
        return REASON(CIRCUIT_BREAKER);
    }
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
        if (sessions[i].is_used && sessions[i].key == key && is_such(&sessions[i])) {
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

/* How many places a key waits for that only the limit in total can deny. */
static unsigned
demand_of(int key)
{
    unsigned waiting = count_waiters(key), checking = count_sessions(key, MGP_SESSION_CHECKING);
    unsigned open = count_sessions(key, MGP_SESSION_GONE);
    unsigned room = open < config.max_sessions_per_key ? config.max_sessions_per_key - open : 0;
    unsigned wanted = waiting > checking ? waiting - checking : 0;
    return wanted < room ? wanted : room;
}

/* Of endpoints that surely let create; or of all, and whatever checks are under way. */
static unsigned
total_demand(bool is_upper_bound)
{
    unsigned demand = 0;
    for (int key = 0; key < KEYS; key++) {
        int endpoint = endpoint_of(key);
        if (is_upper_bound) {
            unsigned waiting = count_waiters(key);
            unsigned open = count_sessions(key, MGP_SESSION_GONE);
            unsigned room = config.max_sessions_per_key - open;
            demand += waiting < room ? waiting : room;
        } else if (endpoints[endpoint].state == MGP_BREAKER_CLOSED && endpoint_permits(endpoint)) {
            demand += demand_of(key);
        }
    }
    return demand;
}

static unsigned
count_keys(void)
{
    unsigned count = 0;
    for (int key = 0; key < KEYS; key++) {
        count += keys[key].exists && !keys[key].is_retiring;
    }
    return count;
}

/* ---- counting ------------------------------------------------------------------- */

static void
count_in_row(int row, size_t word, int change)
{
    totals[word] += (uint64_t)(int64_t)change;
    row_totals[row][word] += (uint64_t)(int64_t)change;
}

static void
count(int key, size_t word, int change)
{
    count_in_row(row_of(key), word, change);
}

/* ---- changes of the model ------------------------------------------------------- */

static void
remember_stale(struct mgp_ticket ticket)
{
    stale_tickets[harness_random_below(TICKETS_MAX)] = ticket;
}

static struct session *
new_session(int key, struct mgp_session *core)
{
    int i = 0;
    while (sessions[i].is_used) {
        i++;
        CHECK(i < SESSIONS_MAX);
    }
    session_end = i < session_end ? session_end : i + 1;
    sessions[i] = (struct session){
        .is_used = true, .key = key, .core = core, .state = MGP_SESSION_CREATING, .effect = NEVER};
    return &sessions[i];
}

static struct lease *
new_lease(struct session *session, struct mgp_ticket ticket)
{
    int i = 0;
    while (leases[i].is_used) {
        i++;
        CHECK(i < LEASES_MAX);
    }
    lease_end = i < lease_end ? lease_end : i + 1;
    leases[i] = (struct lease){.is_used = true, .session = session, .ticket = ticket};
    session->leases++;
    return &leases[i];
}

static struct session *
session_of_core(const struct mgp_session *core)
{
    for (int i = 0; i < session_end; i++) {
        if (sessions[i].is_used && sessions[i].core == core) {
            return &sessions[i];
        }
    }
    harness_fail(__FILE__, __LINE__, "the model knows this session");
}

static struct session *
begin_create(int key, struct mgp_ticket ticket)
{
    struct mgp_session *core = mgp_slots_find(&pool->session_slots, ticket);
    struct endpoint *endpoint = &endpoints[endpoint_of(key)];
    CHECK(core != NULL && core->state == MGP_SESSION_CREATING);
    CHECK(endpoint_permits(endpoint_of(key)));
    struct session *session = new_session(key, core);
    session->is_retired = specs[key].is_single_use;
    session->creation = ticket;
    session->is_trial = endpoint->state == MGP_BREAKER_OPEN;
    if (session->is_trial) {
        endpoint->state = MGP_BREAKER_HALF_OPEN;
    }
    keys[key].last_used_ns = now_ns;
    count(key, MGP_WORD_SESSION_CREATIONS_IN_PROGRESS, 1);
    return session;
}

static void
end_creation(struct session *session)
{
    count(session->key, MGP_WORD_SESSION_CREATIONS_IN_PROGRESS, -1);
    remember_stale(session->creation);
    for (int i = 0; i < waiter_end; i++) {
        if (waiters[i].session == session) {
            waiters[i].session = NULL;
        }
    }
}

static void
give_up_creation(struct session *session)
{
    if (session->is_trial) {
        endpoints[endpoint_of(session->key)].state = MGP_BREAKER_OPEN;
        endpoints[endpoint_of(session->key)].open_until_ns = now_ns;
    }
    end_creation(session);
    session->is_used = false;
}

static void
end_lease(struct lease *lease)
{
    remember_stale(lease->ticket);
    lease->session->leases--;
    lease->is_used = false;
    for (int i = 0; i < waiter_end; i++) {
        if (waiters[i].lease == lease) {
            waiters[i].lease = NULL;
        }
    }
}

/* A close for one of several reasons, where all are right: the one that was counted. */
static enum mgp_eviction_reason
counted_reason(unsigned reasons)
{
    for (size_t reason = 0; reason < MGP_EVICTION_REASON_COUNT; reason++) {
        size_t word = MGP_WORD_EVICTIONS + reason;
        bool is_only_one = reasons == 1u << reason;
        if ((reasons >> reason & 1) &&
            (is_only_one || mgp_pool_totals(pool)[word] > totals[word])) {
            return (enum mgp_eviction_reason)reason;
        }
    }
    harness_fail(__FILE__, __LINE__, "it was closed for a reason that holds");
}

static void
begin_close(struct session *session, unsigned reasons)
{
    CHECK(is_open(session));
    for (int i = 0; i < lease_end; i++) {
        if (leases[i].is_used && leases[i].session == session) {
            end_lease(&leases[i]);
        }
    }
    if (session->state == MGP_SESSION_ACTIVE) {
        count(session->key, MGP_WORD_ACTIVE_SESSIONS, -1);
    }
    if (session->check.generation != 0) {
        remember_stale(session->check);
    }
    enum mgp_eviction_reason reason = counted_reason(reasons);
    count(session->key, MGP_WORD_SIZE, -1);
    count(session->key, MGP_WORD_EVICTIONS + (size_t)reason, 1);
    session->state = MGP_SESSION_CLOSING;
    session->reasons = 1u << reason;
    session->effect = MGP_EFFECT_CLOSE;
    session->close = (struct mgp_ticket){0, 0};
}

static void
make_gone(struct session *session)
{
    if (session->close.generation != 0) {
        remember_stale(session->close);
    }
    session->state = MGP_SESSION_GONE;
    session->effect = MGP_EFFECT_GONE;
}

/* Idle, or closed; whoever waits for it is found by reconcile(). */
static void
come_back(struct session *session)
{
    unsigned reasons = why_not_keep(session);
    if (reasons != 0) {
        begin_close(session, reasons);
        return;
    }
    if (session->state == MGP_SESSION_ACTIVE) {
        count(session->key, MGP_WORD_ACTIVE_SESSIONS, -1);
    }
    session->state = MGP_SESSION_IDLE;
    session->is_swept = false;
    session->is_returned = true;
    session->may_lack_background_checks = false;
}

static void
leave_idle_for_use(struct session *session)
{
    session->state = MGP_SESSION_ACTIVE;
    count(session->key, MGP_WORD_ACTIVE_SESSIONS, 1);
    keys[session->key].last_used_ns = now_ns;
}

/* Whether handing out this session, idle or shared, was right. */
static void
check_hand_out(const struct session *session, int key)
{
    CHECK(session->key == key);
    if (session->state == MGP_SESSION_ACTIVE) {
        CHECK(can_share(session));
        CHECK(!key_has(key, is_ready)); /* an idle one comes first */
        return;
    }
    CHECK(session->state == MGP_SESSION_IDLE);
    if (session->is_returned) {
        CHECK(why_not_keep(session) == 0 && !session->is_suspected);
        return;
    }
    CHECK(is_ready(session));
    for (int i = 0; i < session_end; i++) {
        CHECK(!(is_ready(&sessions[i]) && sessions[i].key == key &&
                sessions[i].last_used_ns > session->last_used_ns));
    }
}

static void
set_trip_row(struct endpoint *endpoint, int row)
{
    if (endpoint->trip_row != NEVER) {
        count_in_row(endpoint->trip_row, MGP_WORD_CIRCUIT_BREAKERS_OPEN, -1);
    }
    if (row != NEVER) {
        count_in_row(row, MGP_WORD_CIRCUIT_BREAKERS_OPEN, 1);
    }
    endpoint->trip_row = row;
}

static void
forget_endpoint(struct endpoint *endpoint)
{
    set_trip_row(endpoint, NEVER);
    *endpoint = (struct endpoint){.state = MGP_BREAKER_CLOSED, .trip_row = NEVER};
}

static struct mgp_endpoint *
core_endpoint(int endpoint)
{
    struct mgp_bytes name = {endpoint_names[endpoint], strlen(endpoint_names[endpoint])};
    return mgp_endpoint_find(pool, name);
}

static void
open_breaker(int endpoint, int row)
{
    struct endpoint *at = &endpoints[endpoint];
    at->state = MGP_BREAKER_OPEN;
    count_in_row(row, MGP_WORD_CIRCUIT_BREAKER_TRIPS, 1);
    set_trip_row(at, row);
    opened_endpoint = endpoint;
    for (int i = 0; i < session_end; i++) {
        if (sessions[i].is_used && sessions[i].state == MGP_SESSION_IDLE &&
            endpoint_of(sessions[i].key) == endpoint) {
            sessions[i].is_swept = true;
        }
    }
}

static void
count_failure(const struct session *session)
{
    int number = endpoint_of(session->key);
    struct endpoint *endpoint = &endpoints[number];
    if (endpoint->state != MGP_BREAKER_CLOSED && !session->is_trial) {
        return;
    }
    endpoint->failures++;
    endpoint->last_failure_ns = now_ns;
    if (session->is_trial) {
        endpoint->backoff = endpoint->backoff * 2 > 10 ? 10 : endpoint->backoff * 2;
        int64_t longest_ns = config.breaker_reset_ns * endpoint->backoff;
        open_breaker(number, row_of(session->key));
        /* The jitter is the machine's. */
        const struct mgp_endpoint *core = core_endpoint(number);
        int64_t until_ns = core == NULL ? now_ns + longest_ns : core->breaker.open_until_ns;
        CHECK(until_ns <= now_ns + longest_ns && until_ns >= now_ns + longest_ns * 9 / 10 - 1);
        endpoint->open_until_ns = until_ns;
    } else if (endpoint->failures >= config.breaker_threshold) {
        endpoint->backoff = 1;
        endpoint->open_until_ns = now_ns + config.breaker_reset_ns;
        open_breaker(number, row_of(session->key));
    }
}

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
        }
        keys[key].last_used_ns = now_ns;
        waiter->lease = new_lease(session, waiter->core->ticket);
    } else {
        waiter->session = begin_create(key, waiter->core->ticket);
    }
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
    count(key, MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_CIRCUIT_OPEN, 1);
}

/* The oldest waiter of a key; NULL: none. */
static struct waiter *
oldest_waiter(int key)
{
    struct waiter *oldest = NULL;
    for (int i = 0; i < waiter_end; i++) {
        struct waiter *waiter = &waiters[i];
        if (waiter->is_used && waiter->state == MGP_WAITER_WAITING && waiter->key == key &&
            (oldest == NULL || waiter->number < oldest->number)) {
            oldest = waiter;
        }
    }
    return oldest;
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
        CHECK(now_ns - session->verified_ns >= config.health_interval_ns);
        CHECK(now_ns - keys[session->key].last_used_ns < 2 * config.health_interval_ns);
        CHECK(now_ns >= next_check_ns);
        next_check_ns = now_ns + SECOND / config.checks_per_second;
    } else if (operation != OP_UPKEEP) {
        CHECK(why_not_hand_out(session) == 0);
        CHECK(count_sessions(session->key, MGP_SESSION_CHECKING) < waiting);
    }
    if (operation == OP_CHECKED && session->key == operation_key) {
        /* Who saw a check fail does not try all idle sessions in turn. */
        CHECK(count_sessions(session->key, MGP_SESSION_CHECKING) + closing_before < waiting);
    }
    session->state = MGP_SESSION_CHECKING;
    session->is_suspected = false;
    session->effect = MGP_EFFECT_PROBE;
    session->check = (struct mgp_ticket){0, 0};
    count(session->key, MGP_WORD_HEALTH_CHECKS, 1);
}

/* True when it was closed as a victim. */
static bool
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
    if (!is_evicted && may_be_victim(session)) {
        reasons |= REASON(CAPACITY);
    }
    begin_close(session, reasons);
    if (operation == OP_UPKEEP &&
        (session->reasons & (REASON(TTL_EXPIRED) | REASON(IDLE_TIMEOUT))) != 0) {
        /* By upkeep itself, or on the way to a session for a waiter. */
        struct mgp_pool_counts counts;
        mgp_pool_read_counts(pool, &counts);
        sessions_reaped += !is_served || counts.sessions_reaped > sessions_reaped;
    }
    return session->reasons == REASON(CAPACITY) && !is_evicted;
}

static void
reconcile_sessions(void)
{
    bool has_victims = false;
    for (int i = 0; i < session_end; i++) {
        struct session *session = &sessions[i];
        if (!is_live(session)) {
            continue;
        }
        enum mgp_session_state state = session->core->state;
        if (state == MGP_SESSION_CLOSING &&
            (session->state == MGP_SESSION_IDLE ||
             (session->state == MGP_SESSION_CHECKING && session->key == evicted_key))) {
            has_victims |= reconcile_close(session);
        } else if (state == MGP_SESSION_CHECKING && session->state == MGP_SESSION_IDLE) {
            reconcile_check(session);
        }
        CHECK(session->state == state);
        CHECK(session->core->lease_count == session->leases);
        session->is_returned = false;
    }
    /* No more victims than places that are wanted. */
    CHECK(!has_victims || count_sessions(NEVER, MGP_SESSION_CLOSING) <= total_demand(true));
}

static void
reconcile_keys(void)
{
    for (int key = 0; key < KEYS; key++) {
        bool exists = count_sessions(key, MGP_SESSION_GONE) + count_waiters(key) > 0;
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
is_due_for_a_check(const struct session *session)
{
    return session->is_used && session->state == MGP_SESSION_IDLE &&
           !session->may_lack_background_checks &&
           now_ns - session->verified_ns >= config.health_interval_ns;
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

static void
check_deadlines(void)
{
    int64_t due_ns = INT64_MAX;
    for (int i = 0; i < session_end; i++) {
        const struct session *session = &sessions[i];
        if (!session->is_used || session->state != MGP_SESSION_IDLE) {
            continue;
        }
        int64_t times[] = {session->expires_ns,
                           session->is_drained || session->is_swept
                               ? INT64_MIN
                               : session->last_used_ns + config.idle_timeout_ns,
                           INT64_MAX};
        if (!session->may_lack_background_checks) {
            times[2] = session->verified_ns + config.health_interval_ns;
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
    /* Whoever only the limit in total keeps waiting has the place of a victim to expect. */
    if (count_sessions(NEVER, MGP_SESSION_IDLE) > 0 && !pool_has_room()) {
        CHECK(total_demand(false) <= count_sessions(NEVER, MGP_SESSION_CLOSING));
    }
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        CHECK(mgp_pool_totals(pool)[word] == totals[word]);
        for (int row = 0; row < ROWS; row++) {
            CHECK(mgp_atomic_load(&row_words[row][word]) == row_totals[row][word]);
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
    }
    CHECK(checks_expected == 0 ||
          count_sessions(operation_key, MGP_SESSION_CHECKING) >= checks_expected);
    if (operation_number % 32 == 0) {
        size_t payloads = 0;
        CHECK(mgp_pool_visit_payloads(pool, count_payload, &payloads) == 0);
        CHECK(payloads == opened_total - gone_total);
    }
}

/* ---- the operations ---------------------------------------------------------------- */

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
    }
    keys[key].last_used_ns = now_ns;
    struct lease *lease = new_lease(session, ticket);
    lease->is_known = true;
    lease->is_taken = true;
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
    bool is_sure = key_has(key, is_ready) && !key_has(key, is_not_ready) &&
                   endpoints[endpoint_of(key)].state == MGP_BREAKER_CLOSED && !is_closed;
    uint64_t hash = mgp_pool_hash(pool, specs[key].key.bytes, specs[key].key.size);
    mgp_pool_try_acquire(pool, now_ns, hash, specs[key].key.bytes, specs[key].key.size, &acquired);
    operation_key = key;
    if (acquired.answer == MGP_ANSWER_NONE) {
        CHECK(!is_sure);
        operation_key = NEVER;
        return;
    }
    CHECK(acquired.answer == MGP_ANSWER_SESSION);
    CHECK(!breaker_refuses(endpoint_of(key)) && count_waiters(key) == 0);
    take_hit(acquired.payload, key, acquired.ticket);
}

/* MGP_OK, or why an acquire is refused; 1: either is right. */
static int
expected_refusal(int key)
{
    bool is_new = !keys[key].exists || keys[key].is_retiring;
    if (is_closed) {
        return MGP_ERR_CLOSED;
    }
    if (breaker_refuses(endpoint_of(key))) {
        return MGP_ERR_CIRCUIT_OPEN;
    }
    if (config.max_waiters_per_key > 0 && count_waiters(key) >= config.max_waiters_per_key) {
        return MGP_ERR_QUEUE_FULL;
    }
    int refusal = MGP_OK;
    if (!keys[key].exists && !pool_has_room() && count_sessions(NEVER, MGP_SESSION_IDLE) == 0) {
        unsigned closing = count_sessions(NEVER, MGP_SESSION_CLOSING);
        if (closing <= total_demand(false)) {
            return MGP_ERR_EXHAUSTED;
        }
        refusal = closing > total_demand(true) ? MGP_OK : 1;
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
                      endpoint_permits(endpoint_of(key));
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
            count(key, MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_CIRCUIT_OPEN, 1);
        } else if (status == MGP_ERR_QUEUE_FULL) {
            count(key, MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_QUEUE_FULL, 1);
        } else if (status == MGP_ERR_EXHAUSTED) {
            count(key, MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_EXHAUSTED, 1);
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
        begin_create(key, acquired.ticket)->is_ticket_known = true;
        return;
    }
    *waiter = (struct waiter){.is_used = true,
                              .state = MGP_WAITER_WAITING,
                              .core = acquired.waiter,
                              .key = key,
                              .number = ++arrivals};
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
        count(waiter->key, MGP_WORD_HITS, 1);
        answered++;
    } else if (waiter->session != NULL && !is_closed) {
        CHECK(status == MGP_OK && acquired.answer == MGP_ANSWER_CREATE);
        CHECK(acquired.ticket.generation == waiter->session->creation.generation);
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
    struct endpoint *endpoint = &endpoints[endpoint_of(key)];
    if (session->is_trial || endpoint->state == MGP_BREAKER_CLOSED) {
        forget_endpoint(endpoint);
    }
    end_creation(session);
    opened_total++;
    session->state = MGP_SESSION_ACTIVE;
    session->created_ns = session->last_used_ns = session->verified_ns = now_ns;
    mgp_session_read_times(core, &times);
    int64_t lifetime_ns = times.expires_ns - now_ns;
    CHECK(lifetime_ns <= config.lifetime_ns);
    CHECK((double)lifetime_ns >= (double)config.lifetime_ns * (1.0 - config.lifetime_jitter) - 1.0);
    session->expires_ns = times.expires_ns;
    count(key, MGP_WORD_CREATES, 1);
    count(key, MGP_WORD_SIZE, 1);
    count(key, MGP_WORD_ACTIVE_SESSIONS, 1);
    if (is_closed || session->is_unwanted) {
        CHECK(ticket.generation == 0);
        come_back(session);
    } else {
        CHECK(ticket.generation != 0);
        new_lease(session, ticket)->is_known = true;
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
    if (is_endpoints) {
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
        return (int64_t)harness_random_below(SECOND / 10);
    case 4:
        return (int64_t)harness_random_below(3 * SECOND);
    default:
        return chance(4) ? (int64_t)harness_random_below(60 * SECOND) : SECOND;
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
        begin_close(session, REASON(HEALTH_CHECK));
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
        if (session->state == MGP_SESSION_IDLE) {
            begin_close(session, REASON(MANUAL));
        } else {
            session->is_retired = true;
        }
    }
}

static void
do_upkeep(void)
{
    unsigned budget = (unsigned)(chance(3) ? harness_random_below(4) : 10000);
    upkeep_is_complete = !mgp_pool_upkeep(pool, now_ns, budget);
    CHECK(upkeep_is_complete || budget < 10000);
    for (int i = 0; i < session_end; i++) {
        if (is_due_for_a_check(&sessions[i]) &&
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
    switch (harness_random_below(8)) {
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
    default:
        CHECK(mgp_pool_close_ended(pool, now_ns, ticket) == MGP_ERR_STALE);
        break;
    }
}

/* ---- effects ------------------------------------------------------------------------ */

static void
deliver_to_waiter(struct waiter *waiter, const struct mgp_effect *effect)
{
    CHECK(waiter->is_used && !waiter->is_delivered);
    waiter->is_delivered = true;
    if (effect->kind == MGP_EFFECT_FAIL) {
        CHECK(waiter->state == MGP_WAITER_FAILED && waiter->status == effect->status);
        waiter->is_used = false;
        return;
    }
    CHECK(waiter->state == MGP_WAITER_GRANTED_SESSION || waiter->state == MGP_WAITER_GRANTED_PLACE);
    CHECK(waiter->number > keys[waiter->key].last_granted); /* oldest first */
    keys[waiter->key].last_granted = waiter->number;
}

static void
deliver_to_session(struct session *session, const struct mgp_effect *effect)
{
    CHECK(session->is_used && session->effect == (int)effect->kind);
    session->effect = NEVER;
    if (effect->kind == MGP_EFFECT_CLOSE) {
        CHECK(session->state == MGP_SESSION_CLOSING && session->reasons >> effect->reason & 1);
        session->close = effect->ticket;
    } else if (effect->kind == MGP_EFFECT_PROBE) {
        CHECK(session->state == MGP_SESSION_CHECKING);
        session->check = effect->ticket;
    } else {
        CHECK(session->state == MGP_SESSION_GONE);
        session->is_used = false;
        gone_total++;
    }
}

/* False when there was none. */
static bool
deliver_effect(void)
{
    struct mgp_effect effect;
    if (!mgp_pool_next_effect(pool, &effect)) {
        for (int i = 0; i < session_end; i++) {
            CHECK(!sessions[i].is_used || sessions[i].effect == NEVER);
        }
        for (int i = 0; i < waiter_end; i++) {
            CHECK(!waiters[i].is_used || waiters[i].state == MGP_WAITER_WAITING ||
                  waiters[i].is_delivered);
        }
        return false;
    }
    if (effect.kind == MGP_EFFECT_GRANT || effect.kind == MGP_EFFECT_FAIL) {
        deliver_to_waiter(effect.payload, &effect);
    } else {
        deliver_to_session(effect.payload, &effect);
    }
    return true;
}

/* ---- runs ---------------------------------------------------------------------------- */

static enum operation
any_operation(void)
{
    static const struct {
        enum operation operation;
        unsigned weight;
    } weights[] = {
        {OP_TRY_ACQUIRE, 60}, {OP_ACQUIRE, 200},      {OP_TAKE, 90},       {OP_CANCEL, 25},
        {OP_CREATED, 80},     {OP_CREATE_FAILED, 40}, {OP_UNWANTED, 10},   {OP_ANSWER, 80},
        {OP_UNDO, 10},        {OP_RELEASE, 140},      {OP_BROKEN, 6},      {OP_MARK_BROKEN, 3},
        {OP_SUSPECT, 10},     {OP_DOUBT, 6},          {OP_SET_CREATED, 4}, {OP_SET_LAST_USED, 8},
        {OP_CHECKED, 70},     {OP_CLOSE_ENDED, 90},   {OP_DRAIN, 3},       {OP_CLOSE, 1},
        {OP_SET_CLOSED, 1},   {OP_ABANDON, 1},        {OP_EVICT_GROUP, 6}, {OP_UPKEEP, 60},
        {OP_STALE, 30},       {OP_EFFECTS, 60},
    };
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof(weights) / sizeof(weights[0]); i++) {
        sum += weights[i].weight;
    }
    size_t number = harness_random_below(sum);
    size_t i = 0;
    while (number >= weights[i].weight) {
        number -= weights[i].weight;
        i++;
    }
    return weights[i].operation;
}

static void
operate(void)
{
    switch (operation) {
    case OP_TRY_ACQUIRE:
        do_try_acquire();
        break;
    case OP_ACQUIRE:
        do_acquire();
        break;
    case OP_TAKE:
        do_take();
        break;
    case OP_CANCEL:
        do_cancel();
        break;
    case OP_CREATED:
        do_created();
        break;
    case OP_CREATE_FAILED:
        do_create_failed();
        break;
    case OP_UNWANTED:
        do_unwanted();
        break;
    case OP_ANSWER:
        do_answer();
        break;
    case OP_UNDO:
        do_undo();
        break;
    case OP_RELEASE:
        do_release();
        break;
    case OP_BROKEN:
        do_broken(false);
        break;
    case OP_MARK_BROKEN:
        do_broken(true);
        break;
    case OP_SUSPECT:
        do_suspect();
        break;
    case OP_DOUBT:
        do_doubt();
        break;
    case OP_SET_CREATED:
        do_set_times(true);
        break;
    case OP_SET_LAST_USED:
        do_set_times(false);
        break;
    case OP_CHECKED:
        do_checked();
        break;
    case OP_CLOSE_ENDED:
        do_close_ended();
        break;
    case OP_DRAIN:
        do_drain();
        break;
    case OP_CLOSE:
        do_close();
        break;
    case OP_SET_CLOSED:
        do_set_closed(chance(2));
        break;
    case OP_ABANDON:
        do_abandon();
        break;
    case OP_EVICT_GROUP:
        do_evict_group();
        break;
    case OP_UPKEEP:
        do_upkeep();
        break;
    case OP_STALE:
        do_stale();
        break;
    case OP_EFFECTS:
        (void)deliver_effect();
        break;
    case OP_COUNT:
        break;
    }
}

static void
step(enum operation kind)
{
    operation = kind;
    operation_number++;
    operation_key = NEVER;
    opened_endpoint = NEVER;
    evicted_key = NEVER;
    upkeep_is_complete = false;
    checks_expected = 0;
    while (session_end > 0 && !sessions[session_end - 1].is_used) {
        session_end--;
    }
    while (lease_end > 0 && !leases[lease_end - 1].is_used) {
        lease_end--;
    }
    while (waiter_end > 0 && !waiters[waiter_end - 1].is_used) {
        waiter_end--;
    }
    for (int key = 0; key < KEYS; key++) {
        was_unused[key] = keys[key].exists && !is_used(key);
    }
    operate();
    reconcile_waiters();
    reconcile_sessions();
    reconcile_keys();
    reconcile_endpoints();
    check_pool();
}

static uint32_t
one_of(const uint32_t *numbers, size_t size)
{
    return numbers[harness_random_below(size)];
}

#define ONE_OF(...)                                                                                \
    one_of((const uint32_t[]){__VA_ARGS__},                                                        \
           sizeof((const uint32_t[]){__VA_ARGS__}) / sizeof(uint32_t))

static void
start(void)
{
    memset(sessions, 0, sizeof(sessions));
    memset(leases, 0, sizeof(leases));
    memset(waiters, 0, sizeof(waiters));
    memset(keys, 0, sizeof(keys));
    memset(totals, 0, sizeof(totals));
    memset(row_totals, 0, sizeof(row_totals));
    memset(specs, 0, sizeof(specs));
    memset(stale_tickets, 0, sizeof(stale_tickets));
    keys_evicted = sessions_reaped = answered = arrivals = 0;
    gone_total = opened_total = 0;
    session_end = lease_end = waiter_end = 0;
    operation_number = 0;
    is_closed = false;
    now_ns = (int64_t)harness_random_below(1000 * SECOND);
    next_check_ns = INT64_MIN;
    config = (struct mgp_config){
        .max_sessions_per_key = ONE_OF(1, 1, 2, 3, 5),
        .max_total_sessions = ONE_OF(0, 0, 1, 2, 3, 4, 6, 9),
        .max_total_keys = ONE_OF(0, 0, 0, 1, 2, 3, 5),
        .max_waiters_per_key = ONE_OF(0, 0, 0, 1, 3),
        .max_leases_per_session = ONE_OF(1, 1, 1, 2, 3),
        .max_creating_per_endpoint = ONE_OF(0, 0, 1, 2),
        .max_remembered_endpoints = ONE_OF(0, 1, 2, 100),
        .breaker_threshold = ONE_OF(1, 2, 3, 5, 1000),
        .breaker_reset_ns = SECOND * ONE_OF(1, 5),
        .lifetime_ns = SECOND * ONE_OF(0, 10, 50, 1000),
        .lifetime_jitter = chance(2) ? 0.0 : 0.3,
        .idle_timeout_ns = SECOND * ONE_OF(0, 5, 20, 1000),
        .health_interval_ns = SECOND * ONE_OF(0, 2, 10, 1000),
        .checks_per_second = ONE_OF(1, 10, 1000),
        .random_seed = harness_random(),
        .hash_key = {harness_random(), harness_random()},
    };
    for (int i = 0; i < ENDPOINTS; i++) {
        sprintf(endpoint_names[i], "endpoint-%d", i);
        endpoints[i] = (struct endpoint){.state = MGP_BREAKER_CLOSED, .trip_row = NEVER};
    }
    for (int i = 0; i < GROUP_NAMES; i++) {
        sprintf(group_names[i], "group-%d", i);
    }
    for (int row = 0; row < ROWS; row++) {
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_atomic_store(&row_words[row][word], 0);
        }
        rows[row] = (struct mgp_row){row_words[row], 0};
    }
    for (int key = 0; key < KEYS; key++) {
        struct mgp_key_spec *spec = &specs[key];
        const char *endpoint = endpoint_names[endpoint_of(key)];
        sprintf(key_names[key], "key-%d", key);
        spec->key = (struct mgp_bytes){key_names[key], strlen(key_names[key])};
        spec->endpoint = (struct mgp_bytes){endpoint, strlen(endpoint)};
        spec->row = &rows[row_of(key)];
        spec->is_anonymous = key == 1;
        spec->is_single_use = key == 2;
        for (size_t i = 0; i < MGP_GROUPS_MAX; i++) {
            size_t group = harness_random_below(GROUP_NAMES + 1);
            if (group < GROUP_NAMES) {
                spec->groups[i] =
                    (struct mgp_bytes){group_names[group], strlen(group_names[group])};
            }
        }
    }
    failing_alloc_install();
    CHECK(mgp_pool_new(&config, &pool) == MGP_OK);
}

static void
end(void)
{
    if (chance(2)) {
        step(OP_CLOSE);
    }
    step(OP_ABANDON);
    while (deliver_effect()) {
    }
    for (int i = 0; i < waiter_end; i++) {
        struct waiter *waiter = &waiters[i];
        if (waiter->is_used) {
            CHECK(waiter->is_delivered && waiter->lease == NULL && waiter->session == NULL);
            mgp_pool_cancel(pool, now_ns, waiter->core, MGP_CANCEL_BY_CALLER);
        }
    }
    for (int i = 0; i < session_end; i++) {
        CHECK(!sessions[i].is_used);
    }
    CHECK(gone_total == opened_total);
    mgp_pool_free(pool);
    for (int row = 0; row < ROWS; row++) {
        CHECK(rows[row].holds == 0);
    }
    failing_alloc_uninstall();
}

static void
run(uint64_t operations)
{
    start();
    /* Effects are drained at once, or as it happens. */
    bool drains_at_once = chance(3);
    while (operation_number < operations) {
        now_ns += any_duration();
        enum operation kind = any_operation();
        bool is_rare = kind == OP_CLOSE || kind == OP_ABANDON || kind == OP_SET_CLOSED;
        if (is_rare && !chance(3)) {
            continue;
        }
        if (is_closed && chance(20)) {
            do_set_closed(false);
        }
        step(kind);
        while (drains_at_once ? true : chance(2)) {
            if (!deliver_effect()) {
                break;
            }
        }
        unsigned queued = 0;
        for (int i = 0; i < session_end; i++) {
            queued += sessions[i].is_used && sessions[i].effect != NEVER;
        }
        while (queued > 50 && deliver_effect()) {
        }
    }
    end();
}

static void
machine_does_what_the_model_allows(void)
{
    const char *text = getenv("MGP_TEST_OPERATIONS");
    uint64_t operations =
        text == NULL || *text == '\0' ? DEFAULT_OPERATIONS : strtoull(text, NULL, 0);
    run_seed = harness_seed();
    while (operations > 0) {
        uint64_t size = operations < OPERATIONS_PER_RUN ? operations : OPERATIONS_PER_RUN;
        harness_random_seed(run_seed * 0x9e3779b97f4a7c15u);
        run(size);
        operations -= size;
        run_seed++;
    }
}

int
main(void)
{
    signal(SIGABRT, on_abort);
    RUN(machine_does_what_the_model_allows);
    return harness_end();
}
