#include "endpoint.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "random.h"

struct mgp_endpoint *
mgp_endpoint_find(struct mgp_pool *pool, struct mgp_bytes url)
{
    uint64_t hash = mgp_table_hash(&pool->endpoints, url.bytes, url.size);
    struct mgp_table_entry *entry = mgp_table_find(&pool->endpoints, hash, url.bytes, url.size);
    return entry == NULL ? NULL : mgp_container_of(entry, struct mgp_endpoint, entry);
}

struct mgp_endpoint *
mgp_endpoint_new(struct mgp_pool *pool, struct mgp_bytes url)
{
    /* One for each, and one for `tracking`. */
    if (mgp_heap_reserve(&pool->reminders, pool->counts.endpoints + 2) < 0 ||
        mgp_heap_reserve(&pool->remembered, pool->counts.endpoints + 1) < 0 ||
        mgp_heap_reserve(&pool->claims, pool->counts.endpoints + 1) < 0 ||
        url.size > SIZE_MAX - sizeof(struct mgp_endpoint)) {
        return NULL;
    }
    struct mgp_endpoint *endpoint = mgp_alloc(sizeof(*endpoint) + url.size);
    if (endpoint == NULL) {
        return NULL;
    }
    memset(endpoint, 0, sizeof(*endpoint));
    uint8_t *bytes = (uint8_t *)(endpoint + 1);
    memcpy(bytes, url.bytes, url.size);
    endpoint->entry.bytes = bytes;
    endpoint->entry.size = url.size;
    endpoint->entry.hash = mgp_table_hash(&pool->endpoints, url.bytes, url.size);
    mgp_list_init(&endpoint->keys);
    mgp_list_init(&endpoint->keys_to_sweep);
    mgp_list_init(&endpoint->waiting);
    mgp_list_init(&endpoint->deferred_checks);
    mgp_heap_init(&endpoint->claims);
    mgp_heap_node_init(&endpoint->claim);
    mgp_heap_node_init(&endpoint->retry);
    mgp_heap_node_init(&endpoint->oblivion);
    mgp_breaker_init(&endpoint->breaker);
    endpoint->suspect_epoch = 1; /* 0 is before every epoch: see mgp_session_doubt() */
    mgp_table_insert(&pool->endpoints, &endpoint->entry);
    pool->counts.endpoints++;
    return endpoint;
}

static void
set_trip_row(struct mgp_pool *pool, struct mgp_endpoint *endpoint, struct mgp_row *row)
{
    if (endpoint->trip_row != NULL) {
        mgp_uncount(pool, endpoint->trip_row, MGP_WORD_CIRCUIT_BREAKERS_OPEN);
        mgp_row_unhold(endpoint->trip_row);
    }
    if (row != NULL) {
        mgp_row_hold(row);
        mgp_count(pool, row, MGP_WORD_CIRCUIT_BREAKERS_OPEN);
    }
    endpoint->trip_row = row;
}

/* Upkeep lets somebody try an open breaker again as soon as that is allowed. */
static void
update_retry(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    mgp_heap_remove(&pool->reminders, &endpoint->retry);
    if (endpoint->breaker.state == MGP_BREAKER_OPEN && endpoint->key_count > 0) {
        mgp_heap_insert(&pool->reminders, &endpoint->retry, endpoint->breaker.open_until_ns);
    }
}

void
mgp_endpoint_forget(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    MGP_ASSERT(endpoint->key_count == 0 && endpoint->creating == 0 && endpoint->demand == 0);
    set_trip_row(pool, endpoint, NULL);
    mgp_heap_remove(&pool->reminders, &endpoint->retry);
    mgp_heap_remove(&pool->remembered, &endpoint->oblivion);
    mgp_link_detach(&endpoint->sweep_link);
    mgp_table_remove(&pool->endpoints, &endpoint->entry);
    pool->counts.endpoints--;
    mgp_heap_fini(&endpoint->claims);
    mgp_wipe(endpoint + 1, endpoint->entry.size); /* a URL may hold credentials */
    mgp_free(endpoint);
}

void
mgp_endpoint_add_key(struct mgp_pool *pool, struct mgp_endpoint *endpoint, struct mgp_key *key)
{
    key->endpoint = endpoint;
    mgp_list_push_back(&endpoint->keys, &key->endpoint_link);
    endpoint->key_count++;
    if (endpoint->key_count == 1) {
        mgp_heap_remove(&pool->remembered, &endpoint->oblivion);
        update_retry(pool, endpoint);
    }
}

/* Without a key, an endpoint is kept only for its failures, the latest of many. */
static void
remember(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    int64_t memory_ns = pool->config.breaker_reset_ns * MGP_ENDPOINT_MEMORY_RESETS;
    mgp_heap_insert(&pool->remembered, &endpoint->oblivion,
                    endpoint->breaker.last_failure_ns + memory_ns);
    while (pool->remembered.count > pool->config.max_remembered_endpoints) {
        struct mgp_heap_node *oldest = mgp_heap_peek(&pool->remembered);
        mgp_endpoint_forget(pool, mgp_container_of(oldest, struct mgp_endpoint, oblivion));
    }
}

void
mgp_endpoint_remove_key(struct mgp_pool *pool, struct mgp_endpoint *endpoint, struct mgp_key *key)
{
    mgp_link_detach(&key->endpoint_link);
    mgp_endpoint_update_sweep(pool, endpoint);
    endpoint->key_count--;
    if (endpoint->key_count > 0) {
        return;
    }
    update_retry(pool, endpoint);
    if (endpoint->breaker.failures == 0) {
        mgp_endpoint_forget(pool, endpoint);
    } else {
        remember(pool, endpoint);
    }
}

uint32_t
mgp_endpoint_permitted(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint,
                       int64_t now_ns)
{
    uint32_t limit = pool->config.max_creating_per_endpoint;
    uint32_t left = limit == 0                   ? UINT32_MAX
                    : limit > endpoint->creating ? limit - endpoint->creating
                                                 : 0;
    if (!mgp_breaker_is_open(&endpoint->breaker)) {
        return left;
    }
    return left > 0 && !mgp_breaker_refuses(&endpoint->breaker, now_ns); /* one trial */
}

bool
mgp_endpoint_permits(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint,
                     int64_t now_ns)
{
    return mgp_endpoint_permitted(pool, endpoint, now_ns) > 0;
}

/* ---- what is seen of the endpoint ------------------------------------------------ */

/* Of that time, creations that began before say nothing any more. */
static void
note_decision(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    endpoint->decided_at = ++pool->sequence;
}

static bool
is_late(const struct mgp_session *session)
{
    return session->born < session->key->endpoint->decided_at;
}

static bool
count_success(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    note_decision(pool, endpoint);
    if (!mgp_breaker_succeed(&endpoint->breaker)) {
        return false;
    }
    set_trip_row(pool, endpoint, NULL);
    update_retry(pool, endpoint);
    return true;
}

void
mgp_endpoint_creation_succeeded(struct mgp_pool *pool, struct mgp_session *session)
{
    (void)count_success(pool, session->key->endpoint);
}

static bool
count_failure(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint, bool is_trial,
              struct mgp_row *row)
{
    if (!mgp_breaker_fail(&endpoint->breaker, is_trial, now_ns, pool->config.breaker_threshold,
                          pool->config.breaker_reset_ns, mgp_random_unit(pool))) {
        return false;
    }
    mgp_count(pool, row, MGP_WORD_CIRCUIT_BREAKER_TRIPS);
    set_trip_row(pool, endpoint, row);
    update_retry(pool, endpoint);
    note_decision(pool, endpoint);
    endpoint->opened_at = endpoint->decided_at;
    if (pool->config.checks_per_second > 0) {
        mgp_list_splice_back(&endpoint->keys_to_sweep, &endpoint->keys);
        mgp_endpoint_update_sweep(pool, endpoint);
    }
    return true;
}

bool
mgp_endpoint_creation_failed(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    struct mgp_key *key = session->key;
    return !is_late(session) &&
           count_failure(pool, now_ns, key->endpoint, session->is_trial, key->row);
}

void
mgp_endpoint_creation_undecided(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    struct mgp_endpoint *endpoint = session->key->endpoint;
    if (!is_late(session)) {
        mgp_breaker_undecided(&endpoint->breaker, session->is_trial, now_ns);
        update_retry(pool, endpoint);
    }
}

bool
mgp_endpoint_note_failure(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint,
                          struct mgp_row *row)
{
    /* It counts as the trial of a breaker that has been open for long enough. */
    bool is_trial =
        !mgp_breaker_refuses(&endpoint->breaker, now_ns) && mgp_breaker_begin(&endpoint->breaker);
    bool has_opened = count_failure(pool, now_ns, endpoint, is_trial, row);
    if (endpoint->key_count == 0) {
        mgp_heap_remove(&pool->remembered, &endpoint->oblivion);
        remember(pool, endpoint); /* which may forget this one */
        return false;
    }
    return has_opened;
}

bool
mgp_endpoint_note_success(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    bool has_closed = count_success(pool, endpoint);
    if (endpoint->key_count == 0) {
        mgp_endpoint_forget(pool, endpoint);
        return false;
    }
    return has_closed;
}

/* ---- checks ---------------------------------------------------------------------- */

bool
mgp_endpoint_may_probe(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint)
{
    uint32_t limit = pool->config.max_creating_per_endpoint;
    return limit == 0 || endpoint->probing < limit;
}

void
mgp_endpoint_update_sweep(struct mgp_pool *pool, struct mgp_endpoint *endpoint)
{
    bool is_sweeping =
        !mgp_list_is_empty(&endpoint->keys_to_sweep) && mgp_endpoint_may_probe(pool, endpoint);
    if (!is_sweeping) {
        mgp_link_detach(&endpoint->sweep_link);
    } else if (!mgp_link_is_attached(&endpoint->sweep_link)) {
        mgp_list_push_back(&pool->sweeping, &endpoint->sweep_link);
    }
}
