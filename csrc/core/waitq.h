/* The callers waiting for one key, oldest first. A key has a queue only while
 * somebody waits.
 *
 * A waiter brings all the memory that granting it may need: a spare session, in
 * case it is told to create one, and the promise of a lease. So a grant cannot fail. */
#ifndef MGP_CORE_WAITQ_H
#define MGP_CORE_WAITQ_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/heap.h"
#include "../base/list.h"
#include "../base/slots.h"
#include "../metrics/count.h"
#include "effect.h"

struct mgp_key;
struct mgp_session;

enum mgp_waiter_state {
    MGP_WAITER_WAITING,         /* in its key's queue */
    MGP_WAITER_GRANTED_SESSION, /* `ticket` is a lease */
    MGP_WAITER_GRANTED_PLACE,   /* `ticket` is a creation */
    MGP_WAITER_FAILED,          /* its FAIL effect is queued */
};

struct mgp_waiter {
    struct mgp_link link;             /* in the queue while WAITING */
    struct mgp_row_waiter row_waiter; /* in its row's list while WAITING */
    struct mgp_effect_node effect;
    struct mgp_key *key;       /* valid while WAITING */
    struct mgp_session *spare; /* owned while WAITING */
    void *payload;             /* borrowed */
    struct mgp_ticket ticket;  /* of what was granted */
    int64_t since_ns;
    int64_t arrival; /* the pool's sequence number when it came: the order of fairness */
    int status;      /* of FAIL */
    uint8_t state;
};

struct mgp_waitq {
    struct mgp_list waiters;
    uint32_t count;
    uint32_t wanted; /* places that its waiters could use, as far as its key has room */
    struct mgp_key *key;
    struct mgp_link endpoint_link; /* in its endpoint's list of keys with waiters */
    struct mgp_heap_node claim;    /* in its endpoint's claims while it wants a place */
};

static inline struct mgp_waiter *
mgp_waitq_peek(const struct mgp_waitq *queue)
{
    struct mgp_link *link = mgp_list_peek_front(&queue->waiters);
    return link == NULL ? NULL : mgp_container_of(link, struct mgp_waiter, link);
}

#endif
