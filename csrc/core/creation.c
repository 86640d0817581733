/* How creations end, and what that says of their endpoint. */
#include "creation.h"

#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "serve.h"
#include "transition.h"

/* A creation ended without a session and without a verdict about its endpoint. */
void
mgp_creation_give_up(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session)
{
    struct mgp_key *key = session->key;
    mgp_endpoint_creation_undecided(pool, now_ns, session);
    mgp_session_drop_creation(pool, session);
    mgp_key_note_shortage(pool, key, now_ns + MGP_AHEAD_RETRY_NS);
    mgp_key_serve(pool, now_ns, key);
}

int
mgp_pool_created(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket creation, void *payload,
                 struct mgp_session **session_out, struct mgp_ticket *lease)
{
    struct mgp_session *session = mgp_session_find(pool, creation, MGP_SESSION_CREATING);
    *lease = (struct mgp_ticket){0, 0};
    *session_out = session;
    if (session == NULL) {
        return MGP_ERR_STALE;
    }
    struct mgp_key *key = session->key;
    mgp_endpoint_creation_succeeded(pool, session);
    mgp_session_open(pool, now_ns, session, payload);
    mgp_endpoint_serve(pool, now_ns, key->endpoint);
    if (session->is_unwanted || pool->is_closed) {
        mgp_session_return(pool, now_ns, session);
    } else {
        struct mgp_lease *begun = mgp_session_begin_lease(pool, session);
        begun->since_ns = now_ns;
        *lease = begun->ticket;
    }
    mgp_key_serve(pool, now_ns, key); /* what a shared session has to spare */
    mgp_settle(pool, now_ns);
    return pool->is_closed ? MGP_ERR_CLOSED : MGP_OK;
}

/* A breaker opened: waiters that have nothing else to wait for fail; the others want no
 * place now. Serving one key may end the queue of any other (where the breaker's time is over at
 * once, the oldest waiter is granted the trial), so that each is taken from the front. */
static void
refuse_waiters(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint)
{
    struct mgp_list unserved;
    struct mgp_link *link;
    mgp_list_init(&unserved);
    mgp_list_splice_back(&unserved, &endpoint->waiting);
    while ((link = mgp_list_peek_front(&unserved)) != NULL) {
        mgp_link_detach(link);
        mgp_list_push_back(&endpoint->waiting, link);
        mgp_key_serve(pool, now_ns, mgp_container_of(link, struct mgp_waitq, endpoint_link)->key);
    }
}

int
mgp_pool_create_failed(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket creation,
                       enum mgp_fault fault)
{
    struct mgp_session *session = mgp_session_find(pool, creation, MGP_SESSION_CREATING);
    if (session == NULL) {
        return MGP_ERR_STALE;
    }
    struct mgp_key *key = session->key;
    mgp_count(pool, key->row, MGP_WORD_CREATE_FAILURES);
    /* One that nobody asked for says nothing of its endpoint when it fails. */
    if (fault == MGP_FAULT_CALLER || session->is_ahead) {
        mgp_creation_give_up(pool, now_ns, session);
    } else {
        bool has_opened = mgp_endpoint_creation_failed(pool, now_ns, session);
        mgp_session_drop_creation(pool, session);
        mgp_key_note_shortage(pool, key, now_ns + MGP_AHEAD_RETRY_NS);
        if (has_opened) {
            refuse_waiters(pool, now_ns, key->endpoint);
        }
        mgp_key_serve(pool, now_ns, key);
    }
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

int
mgp_pool_note_failure(struct mgp_pool *pool, int64_t now_ns, struct mgp_bytes url,
                      struct mgp_row *row)
{
    struct mgp_endpoint *endpoint = mgp_endpoint_find(pool, url);
    if (endpoint == NULL) {
        endpoint = mgp_endpoint_new(pool, url);
    }
    if (endpoint == NULL) {
        return MGP_ERR_NOMEM;
    }
    if (mgp_endpoint_note_failure(pool, now_ns, endpoint, row)) {
        refuse_waiters(pool, now_ns, endpoint);
    }
    mgp_settle(pool, now_ns);
    return MGP_OK;
}

void
mgp_pool_note_success(struct mgp_pool *pool, int64_t now_ns, struct mgp_bytes url)
{
    struct mgp_endpoint *endpoint = mgp_endpoint_find(pool, url);
    if (endpoint != NULL && mgp_endpoint_note_success(pool, endpoint)) {
        mgp_endpoint_serve(pool, now_ns, endpoint);
    }
    mgp_settle(pool, now_ns);
}

int
mgp_pool_creation_unwanted(struct mgp_pool *pool, struct mgp_ticket creation)
{
    struct mgp_session *session = mgp_session_find(pool, creation, MGP_SESSION_CREATING);
    if (session == NULL) {
        return MGP_ERR_STALE;
    }
    session->is_unwanted = true;
    mgp_count(pool, session->key->row, MGP_WORD_ACQUIRE_CANCELLATIONS);
    return MGP_OK;
}

int
mgp_pool_answer(struct mgp_pool *pool, struct mgp_ticket ticket)
{
    struct mgp_lease *lease = mgp_leases_find(&pool->leases, ticket);
    if (lease == NULL) {
        return MGP_ERR_STALE;
    }
    MGP_ASSERT(!mgp_lease_is_taken(lease));
    lease->use = MGP_LEASE_TAKEN;
    mgp_count(pool, lease->session->key->row, MGP_WORD_MISSES);
    return MGP_OK;
}
