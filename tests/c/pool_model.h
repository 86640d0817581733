/* The naive model of a pool, for test_pool_model.c alone, of which this is a part.
 *
 * It knows nothing of lists, orders and queues: sessions, leases and waiters are entries
 * of arrays, and every question is a scan. Here is its state, what can be asked of it, and
 * how each thing that happens changes it. */
#ifndef MGP_TESTS_POOL_MODEL_H
#define MGP_TESTS_POOL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../../csrc/core/machine.h"
#include "harness.h"

#define SECOND INT64_C(1000000000)
#define KEYS 8
#define ENDPOINTS 3
#define ROWS 2
#define GROUP_NAMES 3
#define SESSIONS_MAX 512
#define LEASES_MAX 512
#define TRACES_MAX 1024 /* of leases that last, and of others whose effect is to come */
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
    OP_RETIRE,
    OP_UPKEEP,
    OP_WARM,
    OP_TRACK,
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
    bool is_ahead, is_replacement;   /* opened for nobody */
    bool is_apart;                   /* its key's limit, and its key's callers, know it no more */
    bool is_drained;                 /* of before the last drain */
    bool is_idle_since_opening;      /* of its breaker; then, too, it is suspected */
    uint64_t begun;                  /* number of the event */
    bool is_suspected;               /* verified before the last suspicion */
    bool is_returned;                /* in this operation */
    bool is_supply;                  /* CLOSING, for a key that starves */
    bool may_lack_background_checks; /* its key was not used for two intervals once */
    struct mgp_ticket creation, check, close; /* generation 0: not delivered */
    enum mgp_eviction_reason reason;          /* of its close; while CHECKING, if that fails */
    int effect;                               /* enum mgp_effect_kind that is to come, or NEVER */
};

struct lease {
    bool is_used;
    struct session *session;
    struct mgp_ticket ticket;
    int64_t since_ns; /* that its caller has it */
    bool is_known;    /* to its caller: not merely granted */
    bool is_taken;
    bool is_older;       /* than the last suspicion of its endpoint */
    struct trace *trace; /* NULL where it is not tracked, or not any more */
};

struct trace { /* the machine's reference, while a checkout is tracked */
    bool is_used;
    const struct session *session;
    int64_t since_ns;
    bool is_ended; /* its effect is to come, */
    bool is_long;  /* and says this */
};

struct waiter { /* the payload of the machine's waiter */
    bool is_used;
    enum mgp_waiter_state state;
    struct mgp_waiter *core;
    int key;
    uint64_t number; /* in the order of arrival */
    int64_t since_ns;
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
    uint64_t decided; /* number of the event that last showed whether it is up */
};

static struct mgp_pool *pool;
static struct mgp_config config;
static int64_t now_ns;
static bool is_closed;
static struct session sessions[SESSIONS_MAX];
static struct lease leases[LEASES_MAX];
static struct waiter waiters[WAITERS_MAX];
static struct trace traces[TRACES_MAX];
static int session_end, lease_end, waiter_end; /* nothing is used from there on */
static struct key keys[KEYS];
static struct endpoint endpoints[ENDPOINTS];
static uint64_t totals[MGP_WORD_COUNT];
static uint64_t row_totals[ROWS][MGP_WORD_COUNT];
static uint64_t keys_evicted, sessions_reaped, answered, arrivals, events;
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
static int operation_key;   /* that it names, or NEVER */
static int opened_endpoint; /* whose breaker it opened, or NEVER */
static int evicted_key;     /* that it evicted, or NEVER */
static bool was_unused[KEYS];
static unsigned closing_before;  /* of operation_key, with the session that the operation closed */
static unsigned checks_expected; /* of operation_key, at least */
static bool upkeep_is_complete;
static struct served { /* whom it gave what had come free */
    int key;
    uint64_t number;  /* in the order of arrival */
    bool is_creation; /* a place; else an idle session */
} served[WAITERS_MAX + 1];
static int served_count;

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

/* ---- fairness: what comes free goes to whoever has waited longest among those whom it
 * would help. A place in the pool helps a waiter whose key has room and whose endpoint lets
 * create; the place of an idle session does so too, once the session is closed. */

/* How many more sessions the first `waiting` of a key's waiters could use: those that its
 * checks under way will not answer, as far as the key has room. */
static unsigned
places_wanted(int key, unsigned waiting)
{
    unsigned all = count_waiters(key), checking = count_sessions(key, MGP_SESSION_CHECKING);
    unsigned open = count_sessions(key, MGP_SESSION_GONE);
    unsigned room = open < config.max_sessions_per_key ? config.max_sessions_per_key - open : 0;
    unsigned wanted = all > checking ? all - checking : 0;
    wanted = wanted < waiting ? wanted : waiting;
    return wanted < room ? wanted : room;
}

/* How many creations may begin at an endpoint now. Where only the time of its breaker is
 * over, which the machine notices at the next occasion: none, or with `is_upper` one. */
static unsigned
creations_permitted(int endpoint, bool is_upper)
{
    if (endpoints[endpoint].state != MGP_BREAKER_CLOSED) {
        return is_upper && !breaker_refuses(endpoint);
    }
    unsigned limit = config.max_creating_per_endpoint, creating = count_creating_at(endpoint);
    return limit == 0 ? UINT32_MAX : limit > creating ? limit - creating : 0;
}

#define EVERYBODY UINT64_MAX

/* How many places the waiters of all keys but one (or NEVER) who came before that number
 * could use at once, if the pool had them. */
static unsigned
places_wanted_before(uint64_t number, int but, bool is_upper)
{
    unsigned sum = 0;
    for (int endpoint = 0; endpoint < ENDPOINTS; endpoint++) {
        unsigned wanted = 0, permitted = creations_permitted(endpoint, is_upper);
        for (int key = 0; key < KEYS; key++) {
            unsigned older = 0;
            for (int i = 0; i < waiter_end; i++) {
                older += waiters[i].is_used && waiters[i].state == MGP_WAITER_WAITING &&
                         waiters[i].key == key && waiters[i].number < number;
            }
            if (key != but && endpoint_of(key) == endpoint) {
                wanted += places_wanted(key, older);
            }
        }
        sum += wanted < permitted ? wanted : permitted;
    }
    return sum;
}

/* Sessions that are being closed for the sake of keys that starve. */
static unsigned
count_supply(void)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        count += is_live(&sessions[i]) && sessions[i].state == MGP_SESSION_CLOSING &&
                 sessions[i].is_supply;
    }
    return count;
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

/* One more duration of a histogram: found by trying all bounds. */
static void
observe(int key, enum mgp_histogram_id id, int64_t duration_ns)
{
    const struct mgp_histogram *histogram = &mgp_histograms[id];
    size_t bucket = 0;
    CHECK(duration_ns >= 0);
    for (size_t i = 0; i < histogram->count; i++) {
        bucket += (uint64_t)duration_ns > histogram->bounds_ns[i];
    }
    count(key, histogram->first_word + bucket, 1);
    size_t sum = histogram->first_word + MGP_BUCKET_SUM_OFFSET;
    totals[sum] += (uint64_t)duration_ns;
    row_totals[row_of(key)][sum] += (uint64_t)duration_ns;
}

/* When the oldest waiter of a row came; 0 where nobody waits. */
static uint64_t
oldest_waiter_ns(int row)
{
    const struct waiter *oldest = NULL;
    for (int i = 0; i < waiter_end; i++) {
        const struct waiter *waiter = &waiters[i];
        if (waiter->is_used && waiter->state == MGP_WAITER_WAITING && row_of(waiter->key) == row &&
            (oldest == NULL || waiter->number < oldest->number)) {
            oldest = waiter;
        }
    }
    return oldest == NULL ? 0 : (uint64_t)oldest->since_ns;
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

static void
note_served(int key, uint64_t number, bool is_creation)
{
    served[served_count++] = (struct served){key, number, is_creation};
}

static struct session *
begin_create(int key, struct mgp_session *core, struct mgp_ticket ticket)
{
    struct endpoint *endpoint = &endpoints[endpoint_of(key)];
    CHECK(core != NULL && core->state == MGP_SESSION_CREATING);
    CHECK(endpoint_permits(endpoint_of(key)));
    struct session *session = new_session(key, core);
    session->is_retired = specs[key].is_single_use;
    session->creation = ticket;
    session->created_ns = now_ns;
    session->begun = ++events;
    session->is_trial = endpoint->state == MGP_BREAKER_OPEN;
    if (session->is_trial) {
        endpoint->state = MGP_BREAKER_HALF_OPEN;
    }
    count(key, MGP_WORD_SESSION_CREATIONS_IN_PROGRESS, 1);
    return session;
}

/* For a caller, or one who warms the key. */
static struct session *
begin_create_for(int key, struct mgp_ticket ticket)
{
    keys[key].last_used_ns = now_ns;
    return begin_create(key, mgp_slots_find(&pool->session_slots, ticket), ticket);
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

/* Whether its creation began before the endpoint last showed whether it is up. */
static bool
is_late(const struct session *session)
{
    return session->begun < endpoints[endpoint_of(session->key)].decided;
}

static void
give_up_creation(struct session *session)
{
    if (session->is_trial && !is_late(session)) {
        endpoints[endpoint_of(session->key)].state = MGP_BREAKER_OPEN;
        endpoints[endpoint_of(session->key)].open_until_ns = now_ns;
    }
    end_creation(session);
    session->is_used = false;
}

static bool
is_too_long(const struct trace *trace)
{
    return config.leak_detection_ns > 0 && now_ns - trace->since_ns >= config.leak_detection_ns;
}

/* Its checkout has ended, or was reported. */
static void
end_trace(struct lease *lease)
{
    struct trace *trace = lease->trace;
    lease->trace = NULL;
    trace->is_ended = true;
    trace->is_long = is_too_long(trace);
    count(lease->session->key, MGP_WORD_LONG_CHECKOUTS, trace->is_long);
}

static void
end_lease(struct lease *lease)
{
    remember_stale(lease->ticket);
    if (lease->trace != NULL) {
        end_trace(lease);
    }
    if (lease->is_taken) {
        observe(lease->session->key, MGP_HISTOGRAM_USE_SECONDS, now_ns - lease->since_ns);
    }
    lease->session->leases--;
    lease->is_used = false;
    for (int i = 0; i < waiter_end; i++) {
        if (waiters[i].lease == lease) {
            waiters[i].lease = NULL;
        }
    }
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
    enum mgp_eviction_reason reason = (enum mgp_eviction_reason)session->core->close_reason;
    CHECK(reasons >> reason & 1);
    count(session->key, MGP_WORD_SIZE, -1);
    count(session->key, MGP_EVICTION_WORD(reason), 1);
    session->state = MGP_SESSION_CLOSING;
    session->reason = reason;
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
    session->is_idle_since_opening = false;
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

/* Checks that are under way at an endpoint. */
static unsigned
count_probes(int endpoint)
{
    unsigned count = 0;
    for (int i = 0; i < session_end; i++) {
        count += sessions[i].is_used && sessions[i].state == MGP_SESSION_CHECKING &&
                 endpoint_of(sessions[i].key) == endpoint && sessions[i].check.generation != 0;
    }
    return count;
}

/* As many as creations. */
static bool
may_probe(int endpoint)
{
    uint32_t limit = config.max_creating_per_endpoint;
    return limit == 0 || count_probes(endpoint) < limit;
}

/* Also if all checks that were decided are under way. */
static bool
surely_may_probe(int endpoint)
{
    unsigned checking = 0;
    for (int i = 0; i < session_end; i++) {
        checking += sessions[i].is_used && sessions[i].state == MGP_SESSION_CHECKING &&
                    endpoint_of(sessions[i].key) == endpoint;
    }
    uint32_t limit = config.max_creating_per_endpoint;
    return limit == 0 || checking < limit;
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
    at->decided = ++events;
    for (int i = 0; i < session_end; i++) {
        if (sessions[i].is_used && sessions[i].state == MGP_SESSION_IDLE &&
            endpoint_of(sessions[i].key) == endpoint) {
            sessions[i].is_idle_since_opening = true;
            sessions[i].is_suspected = true;
        }
    }
}

static void
count_failure(const struct session *session)
{
    int number = endpoint_of(session->key);
    struct endpoint *endpoint = &endpoints[number];
    if (is_late(session)) {
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

#endif
