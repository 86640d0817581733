/* How each thing that happens changes the model, for test_pool_model.c alone, of which this is a
 * part. */
#ifndef MGP_TESTS_POOL_MODEL_CHANGES_H
#define MGP_TESTS_POOL_MODEL_CHANGES_H

#include "pool_model_fairness.h"

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
