#include "heap.h"

#include "alloc.h"
#include "check.h"
#include "status.h"

#define CAPACITY_MIN 4

void
mgp_heap_init(struct mgp_heap *heap)
{
    *heap = (struct mgp_heap){0};
}

/* The nodes are not touched: they may be gone already. */
void
mgp_heap_fini(struct mgp_heap *heap)
{
    mgp_free(heap->nodes);
    mgp_heap_init(heap);
}

void
mgp_heap_node_init(struct mgp_heap_node *node)
{
    node->at_ns = 0;
    node->index = MGP_HEAP_DETACHED;
}

int
mgp_heap_reserve(struct mgp_heap *heap, size_t capacity)
{
    if (capacity <= heap->capacity) {
        return MGP_OK;
    }
    size_t grown = heap->capacity == 0 ? CAPACITY_MIN : heap->capacity * 2;
    if (grown < capacity) {
        grown = capacity;
    }
    struct mgp_heap_node **nodes = mgp_realloc_array(heap->nodes, grown, sizeof(*nodes));
    if (nodes == NULL) {
        return MGP_ERR_NOMEM;
    }
    heap->nodes = nodes;
    heap->capacity = grown;
    return MGP_OK;
}

static void
node_place(struct mgp_heap *heap, struct mgp_heap_node *node, size_t index)
{
    heap->nodes[index] = node;
    node->index = index;
}

/* Finds the place for `node`, starting from a hole at `index`: later parents
 * come down into the hole, or earlier children come up. */
static void
node_sift(struct mgp_heap *heap, struct mgp_heap_node *node, size_t index)
{
    while (index > 0) {
        struct mgp_heap_node *parent = heap->nodes[(index - 1) / 2];
        if (parent->at_ns <= node->at_ns) {
            break;
        }
        size_t parent_index = parent->index;
        node_place(heap, parent, index);
        index = parent_index;
    }
    for (;;) {
        size_t child = index * 2 + 1;
        if (child >= heap->count) {
            break;
        }
        if (child + 1 < heap->count && heap->nodes[child + 1]->at_ns < heap->nodes[child]->at_ns) {
            child++;
        }
        if (heap->nodes[child]->at_ns >= node->at_ns) {
            break;
        }
        node_place(heap, heap->nodes[child], index);
        index = child;
    }
    node_place(heap, node, index);
}

void
mgp_heap_insert(struct mgp_heap *heap, struct mgp_heap_node *node, int64_t at_ns)
{
    MGP_ASSERT(!mgp_heap_node_is_attached(node));
    MGP_ASSERT(heap->count < heap->capacity);
    node->at_ns = at_ns;
    size_t hole = heap->count++;
    node_sift(heap, node, hole);
}

void
mgp_heap_remove(struct mgp_heap *heap, struct mgp_heap_node *node)
{
    if (!mgp_heap_node_is_attached(node)) {
        return;
    }
    MGP_ASSERT(heap->nodes[node->index] == node);
    struct mgp_heap_node *last = heap->nodes[--heap->count];
    if (last != node) {
        node_sift(heap, last, node->index);
    }
    node->index = MGP_HEAP_DETACHED;
}

void
mgp_heap_update(struct mgp_heap *heap, struct mgp_heap_node *node, int64_t at_ns)
{
    MGP_ASSERT(mgp_heap_node_is_attached(node));
    MGP_ASSERT(heap->nodes[node->index] == node);
    node->at_ns = at_ns;
    node_sift(heap, node, node->index);
}

static bool
is_before(const struct mgp_heap *heap, size_t index, int64_t at_ns)
{
    return index < heap->count && heap->nodes[index]->at_ns < at_ns;
}

size_t
mgp_heap_first_before(const struct mgp_heap *heap, int64_t at_ns)
{
    return is_before(heap, 0, at_ns) ? 0 : MGP_HEAP_DETACHED;
}

size_t
mgp_heap_next_before(const struct mgp_heap *heap, size_t index, int64_t at_ns)
{
    size_t left = index * 2 + 1;
    if (is_before(heap, left, at_ns)) {
        return left;
    }
    if (is_before(heap, left + 1, at_ns)) {
        return left + 1;
    }
    for (; index > 0; index = (index - 1) / 2) {
        bool is_left = index % 2 == 1;
        if (is_left && is_before(heap, index + 1, at_ns)) {
            return index + 1;
        }
    }
    return MGP_HEAP_DETACHED;
}

bool
mgp_heap_is_ordered(const struct mgp_heap *heap)
{
    for (size_t i = 0; i < heap->count; i++) {
        if (heap->nodes[i]->index != i) {
            return false;
        }
        if (i > 0 && heap->nodes[(i - 1) / 2]->at_ns > heap->nodes[i]->at_ns) {
            return false;
        }
    }
    return true;
}
