/* Effects on their way to the layer above. */
#include "../base/alloc.h"
#include "../base/check.h"
#include "counting.h"
#include "machine.h"
#include "tracking.h"

/* The payload of the key's session that was handed out last, as far as it is still open. */
static void *
used_last(const struct mgp_key *key)
{
    const struct mgp_list *lists[] = {&key->active_sessions, &key->idle_sessions,
                                      &key->other_sessions};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        struct mgp_link *place;
        mgp_list_for_each(place, lists[i]) {
            void *payload = mgp_session_of_place(place)->payload;
            if (payload != NULL) {
                return payload;
            }
        }
    }
    return NULL;
}

static void
take_session_effect(struct mgp_pool *pool, struct mgp_session *session, struct mgp_effect *effect)
{
    effect->payload = session->payload;
    switch (effect->kind) {
    case MGP_EFFECT_CLOSE:
        MGP_ASSERT(session->state == MGP_SESSION_CLOSING);
        effect->ticket = mgp_slots_issue(&pool->session_slots, session->slot);
        effect->reason = (enum mgp_eviction_reason)session->close_reason;
        break;
    case MGP_EFFECT_PROBE:
        MGP_ASSERT(session->state == MGP_SESSION_CHECKING);
        /* Not before: a session may be closed while its check waits for another's end. */
        mgp_count(pool, session->key->row, MGP_WORD_HEALTH_CHECKS);
        effect->ticket = mgp_slots_issue(&pool->session_slots, session->slot);
        break;
    case MGP_EFFECT_CREATE:
        MGP_ASSERT(session->state == MGP_SESSION_CREATING && session->is_ahead);
        effect->payload = used_last(session->key);
        effect->ticket = mgp_slots_issue(&pool->session_slots, session->slot);
        break;
    case MGP_EFFECT_GONE:
        MGP_ASSERT(session->state == MGP_SESSION_GONE);
        mgp_session_read_times(session, &effect->times);
        mgp_session_free(pool, session);
        break;
    case MGP_EFFECT_GRANT:
    case MGP_EFFECT_FAIL:
    case MGP_EFFECT_LONG_CHECKOUT:
    case MGP_EFFECT_UNTRACKED:
        MGP_ASSERT(false);
    }
}

bool
mgp_pool_has_effects(const struct mgp_pool *pool)
{
    return !mgp_list_is_empty(&pool->effects);
}

bool
mgp_pool_next_effect(struct mgp_pool *pool, struct mgp_effect *effect)
{
    struct mgp_link *link = mgp_list_peek_front(&pool->effects);
    if (link == NULL) {
        return false;
    }
    mgp_link_detach(link);
    struct mgp_effect_node *node = mgp_container_of(link, struct mgp_effect_node, link);
    effect->kind = (enum mgp_effect_kind)node->kind;
    effect->ticket = (struct mgp_ticket){0, 0};
    effect->status = MGP_OK;
    effect->trace = NULL;
    if (effect->kind == MGP_EFFECT_LONG_CHECKOUT || effect->kind == MGP_EFFECT_UNTRACKED) {
        struct mgp_tracked *tracked = mgp_container_of(node, struct mgp_tracked, effect);
        effect->payload = tracked->payload;
        effect->trace = tracked->trace;
        mgp_free(tracked);
    } else if (effect->kind == MGP_EFFECT_GRANT || effect->kind == MGP_EFFECT_FAIL) {
        struct mgp_waiter *waiter = mgp_container_of(node, struct mgp_waiter, effect);
        effect->payload = waiter->payload;
        effect->status = waiter->status;
        if (effect->kind == MGP_EFFECT_FAIL) {
            mgp_free(waiter);
        }
    } else {
        take_session_effect(pool, mgp_container_of(node, struct mgp_session, effect), effect);
    }
    return true;
}

void
mgp_pool_put_off_close(struct mgp_pool *pool, struct mgp_ticket close)
{
    struct mgp_session *session = mgp_session_find(pool, close, MGP_SESSION_CLOSING);
    if (session != NULL) {
        mgp_effect_push(pool, &session->effect, MGP_EFFECT_CLOSE);
    }
}
