/* Binary min-heap of intrusive nodes, ordered by a time, or by another number.
 * The array of pointers is the heap's; the nodes are embedded in the caller's structs.
 *
 * mgp_heap_reserve() is the only operation that allocates, and so the only one
 * that can fail: reserve for the nodes that there will be, before the change
 * that adds one. The array never shrinks, so a reservation holds until fini: a
 * node may be removed and inserted again without reserving anew.
 *
 * Nodes of the same time come out in no particular order.
 * Cost: O(log n) for insert, remove and update, O(1) to peek. */
#ifndef MGP_BASE_HEAP_H
#define MGP_BASE_HEAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MGP_HEAP_DETACHED SIZE_MAX

struct mgp_heap_node {
    int64_t at_ns;
    size_t index; /* place in the heap's array, or MGP_HEAP_DETACHED */
};

struct mgp_heap {
    struct mgp_heap_node **nodes; /* owned array of borrowed nodes */
    size_t count;
    size_t capacity;
};

void mgp_heap_init(struct mgp_heap *heap);
void mgp_heap_fini(struct mgp_heap *heap);
void mgp_heap_node_init(struct mgp_heap_node *node);

/* Makes room for `capacity` nodes in all. MGP_OK, or MGP_ERR_NOMEM: nothing was changed. */
int mgp_heap_reserve(struct mgp_heap *heap, size_t capacity);
/* The node must be detached and room for it reserved. */
void mgp_heap_insert(struct mgp_heap *heap, struct mgp_heap_node *node, int64_t at_ns);
/* Harmless on a detached node. */
void mgp_heap_remove(struct mgp_heap *heap, struct mgp_heap_node *node);
/* Changes the time of a node that is in the heap. */
void mgp_heap_update(struct mgp_heap *heap, struct mgp_heap_node *node, int64_t at_ns);
/* Walks the nodes that are due before a time, each after its parent: the index of the first,
 * then that of the one after `index`; MGP_HEAP_DETACHED where there is none. The heap stays as
 * it is meanwhile. O(1) for each node that is due before, all in all. */
size_t mgp_heap_first_before(const struct mgp_heap *heap, int64_t at_ns);
size_t mgp_heap_next_before(const struct mgp_heap *heap, size_t index, int64_t at_ns);
/* Whether every parent is due no later than its children, and every node knows
 * its place. O(n): for checks. */
bool mgp_heap_is_ordered(const struct mgp_heap *heap);

static inline bool
mgp_heap_node_is_attached(const struct mgp_heap_node *node)
{
    return node->index != MGP_HEAP_DETACHED;
}

/* The earliest node, or NULL. Stays in the heap. */
static inline struct mgp_heap_node *
mgp_heap_peek(const struct mgp_heap *heap)
{
    return heap->count == 0 ? NULL : heap->nodes[0];
}

#endif
