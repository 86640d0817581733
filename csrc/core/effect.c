#include "effect.h"

#include "machine.h"

void
mgp_effect_push(struct mgp_pool *pool, struct mgp_effect_node *node, enum mgp_effect_kind kind)
{
    /* A node that is queued already keeps its turn: what it asked for is out of date. */
    if (!mgp_link_is_attached(&node->link)) {
        mgp_list_push_back(&pool->effects, &node->link);
    }
    node->kind = (uint8_t)kind;
}
