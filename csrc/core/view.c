/* Reading the machine: for metrics, messages and garbage collectors. */
#include "machine.h"

const uint64_t *
mgp_pool_totals(const struct mgp_pool *pool)
{
    return pool->totals;
}

void
mgp_pool_read_counts(const struct mgp_pool *pool, struct mgp_pool_counts *counts)
{
    *counts = pool->counts;
}

static void
view_key(const struct mgp_key *key, struct mgp_key_view *view)
{
    view->key = (struct mgp_bytes){key->entry.bytes, key->entry.size};
    view->waiters = mgp_key_waiters(key);
    view->creating = key->creating;
    view->active = key->active;
    view->idle = key->idle;
    view->checking = key->checking;
    view->closing = key->closing;
    view->handle = key;
}

void
mgp_waiter_view_key(const struct mgp_waiter *waiter, struct mgp_key_view *view)
{
    *view = (struct mgp_key_view){.handle = NULL};
    if (waiter->state == MGP_WAITER_WAITING) {
        view_key(waiter->key, view);
    }
}

void
mgp_pool_view_key(struct mgp_pool *pool, uint64_t hash, struct mgp_bytes bytes,
                  struct mgp_key_view *view)
{
    const struct mgp_key *key = mgp_key_find(pool, hash, bytes.bytes, bytes.size);
    *view = (struct mgp_key_view){.handle = NULL};
    if (key != NULL) {
        view_key(key, view);
    }
}

struct key_visit {
    int (*visit)(const struct mgp_key_view *view, void *context);
    void *context;
};

static int
visit_key_entry(struct mgp_table_entry *entry, void *context)
{
    const struct key_visit *visit = context;
    struct mgp_key_view view;
    view_key(mgp_container_of(entry, struct mgp_key, entry), &view);
    return visit->visit(&view, visit->context);
}

int
mgp_pool_visit_keys(const struct mgp_pool *pool,
                    int (*visit)(const struct mgp_key_view *view, void *context), void *context)
{
    struct key_visit key_visit = {visit, context};
    return mgp_table_visit(&pool->keys, visit_key_entry, &key_visit);
}

struct payload_visit {
    int (*visit)(void *payload, void *context);
    void *context;
};

static int
visit_list(const struct mgp_list *sessions, int (*visit)(void *payload, void *context),
           void *context)
{
    struct mgp_link *place;
    mgp_list_for_each(place, sessions) {
        const struct mgp_session *session = mgp_session_of_place(place);
        int result = session->payload == NULL ? 0 : visit(session->payload, context);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

int
mgp_key_visit_sessions(const struct mgp_key_view *view, enum mgp_session_kind kind,
                       int (*visit)(void *payload, void *context), void *context)
{
    const struct mgp_key *key = view->handle;
    if (kind == MGP_SESSIONS_LEASED) {
        return visit_list(&key->active_sessions, visit, context);
    }
    return visit_list(&key->idle_sessions, visit, context);
}

static int
visit_key_payloads(struct mgp_table_entry *entry, void *context)
{
    const struct mgp_key *key = mgp_container_of(entry, struct mgp_key, entry);
    const struct payload_visit *visit = context;
    int result = visit_list(&key->idle_sessions, visit->visit, visit->context);
    if (result == 0) {
        result = visit_list(&key->active_sessions, visit->visit, visit->context);
    }
    if (result == 0) {
        result = visit_list(&key->other_sessions, visit->visit, visit->context);
    }
    return result;
}

int
mgp_pool_visit_payloads(const struct mgp_pool *pool, int (*visit)(void *payload, void *context),
                        void *context)
{
    struct payload_visit payload_visit = {visit, context};
    int result = mgp_table_visit(&pool->keys, visit_key_payloads, &payload_visit);
    struct mgp_link *link;
    for (link = pool->effects.head.next; result == 0 && link != &pool->effects.head;
         link = link->next) {
        /* Of the sessions with an effect to come, only those that are gone have no key. */
        const struct mgp_effect_node *node = mgp_container_of(link, struct mgp_effect_node, link);
        if (node->kind == MGP_EFFECT_GONE) {
            result = visit(mgp_session_of_effect(link)->payload, context);
        }
    }
    return result;
}

struct breaker_visit {
    int (*visit)(const struct mgp_endpoint_view *view, void *context);
    void *context;
};

static struct mgp_endpoint_view
view_endpoint(const struct mgp_endpoint *endpoint)
{
    return (struct mgp_endpoint_view){
        .endpoint = {endpoint->entry.bytes, endpoint->entry.size},
        .failures = endpoint->breaker.failures,
        .is_open = mgp_breaker_is_open(&endpoint->breaker),
        .open_until_ns = endpoint->breaker.open_until_ns,
    };
}

bool
mgp_pool_view_breaker(struct mgp_pool *pool, struct mgp_bytes url, struct mgp_endpoint_view *view)
{
    const struct mgp_endpoint *endpoint = mgp_endpoint_find(pool, url);
    if (endpoint == NULL || endpoint->breaker.failures == 0) {
        return false;
    }
    *view = view_endpoint(endpoint);
    return true;
}

static int
visit_endpoint(struct mgp_table_entry *entry, void *context)
{
    const struct mgp_endpoint *endpoint = mgp_container_of(entry, struct mgp_endpoint, entry);
    const struct breaker_visit *visit = context;
    if (endpoint->breaker.failures == 0) {
        return 0;
    }
    struct mgp_endpoint_view view = view_endpoint(endpoint);
    return visit->visit(&view, visit->context);
}

int
mgp_pool_visit_breakers(const struct mgp_pool *pool,
                        int (*visit)(const struct mgp_endpoint_view *view, void *context),
                        void *context)
{
    struct breaker_visit breaker_visit = {visit, context};
    return mgp_table_visit(&pool->endpoints, visit_endpoint, &breaker_visit);
}
