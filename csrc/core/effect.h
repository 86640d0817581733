/* The queue of effects: an intrusive FIFO, so that queueing never allocates. A
 * node's owner is a session, a waiter or a tracked checkout, as its kind says. */
#ifndef MGP_CORE_EFFECT_H
#define MGP_CORE_EFFECT_H

#include <stdint.h>

#include "../base/list.h"
#include "pool.h"

struct mgp_effect_node {
    struct mgp_link link;
    uint8_t kind; /* enum mgp_effect_kind; valid while queued */
};

void mgp_effect_push(struct mgp_pool *pool, struct mgp_effect_node *node,
                     enum mgp_effect_kind kind);

#endif
