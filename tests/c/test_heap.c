#include "../../csrc/base/heap.h"

#include "../../csrc/base/status.h"
#include "failing_alloc.h"
#include "harness.h"

#define NODES 500

static struct mgp_heap heap;
static struct mgp_heap_node nodes[NODES];

static void
start(void)
{
    failing_alloc_install();
    mgp_heap_init(&heap);
    for (size_t i = 0; i < NODES; i++) {
        mgp_heap_node_init(&nodes[i]);
    }
}

static void
end(void)
{
    mgp_heap_fini(&heap);
    failing_alloc_uninstall();
}

static void
empty_heap_has_no_earliest_and_allocates_nothing(void)
{
    start();
    CHECK(mgp_heap_peek(&heap) == NULL);
    CHECK(mgp_heap_is_ordered(&heap));
    CHECK(mgp_heap_reserve(&heap, 0) == MGP_OK);
    CHECK(failing_alloc_calls() == 0);
    end();
}

static void
nodes_come_out_in_order_of_time(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, NODES) == MGP_OK);
    for (size_t i = 0; i < NODES; i++) {
        mgp_heap_insert(&heap, &nodes[i], (int64_t)harness_random_below(100) - 50);
        CHECK(mgp_heap_node_is_attached(&nodes[i]));
        CHECK(mgp_heap_is_ordered(&heap));
    }
    int64_t last_ns = INT64_MIN;
    for (size_t i = 0; i < NODES; i++) {
        struct mgp_heap_node *node = mgp_heap_peek(&heap);
        CHECK(node->at_ns >= last_ns);
        last_ns = node->at_ns;
        mgp_heap_remove(&heap, node);
        CHECK(!mgp_heap_node_is_attached(node));
        CHECK(mgp_heap_is_ordered(&heap));
    }
    CHECK(mgp_heap_peek(&heap) == NULL);
    end();
}

static void
extreme_times_are_ordered(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, 3) == MGP_OK);
    mgp_heap_insert(&heap, &nodes[0], INT64_MAX);
    mgp_heap_insert(&heap, &nodes[1], INT64_MIN);
    mgp_heap_insert(&heap, &nodes[2], 0);
    CHECK(mgp_heap_peek(&heap) == &nodes[1]);
    mgp_heap_update(&heap, &nodes[1], INT64_MAX);
    CHECK(mgp_heap_peek(&heap) == &nodes[2]);
    end();
}

static void
removing_a_detached_node_is_harmless(void)
{
    start();
    mgp_heap_remove(&heap, &nodes[0]);
    CHECK(mgp_heap_reserve(&heap, 2) == MGP_OK);
    mgp_heap_insert(&heap, &nodes[1], 1);
    mgp_heap_remove(&heap, &nodes[0]);
    CHECK(heap.count == 1 && mgp_heap_peek(&heap) == &nodes[1]);
    end();
}

static void
failed_reserve_changes_nothing(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, 16) == MGP_OK);
    for (size_t i = 0; i < 16; i++) {
        mgp_heap_insert(&heap, &nodes[i], (int64_t)i);
    }
    size_t capacity = heap.capacity;
    failing_alloc_fail_from(1);
    CHECK(mgp_heap_reserve(&heap, capacity + 1) == MGP_ERR_NOMEM);
    CHECK(mgp_heap_reserve(&heap, SIZE_MAX) == MGP_ERR_NOMEM);
    CHECK(heap.capacity == capacity && heap.count == 16);
    CHECK(mgp_heap_is_ordered(&heap) && mgp_heap_peek(&heap) == &nodes[0]);
    failing_alloc_fail_at(0);
    CHECK(mgp_heap_reserve(&heap, capacity + 1) == MGP_OK);
    CHECK(mgp_heap_is_ordered(&heap));
    end();
}

static void
reservation_outlives_removals(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, NODES) == MGP_OK);
    failing_alloc_fail_from(1);
    for (int round = 0; round < 3; round++) {
        for (size_t i = 0; i < NODES; i++) {
            mgp_heap_insert(&heap, &nodes[i], (int64_t)harness_random_below(NODES));
        }
        for (size_t i = 0; i < NODES; i++) {
            mgp_heap_remove(&heap, &nodes[i]);
        }
        CHECK(mgp_heap_reserve(&heap, NODES) == MGP_OK);
    }
    CHECK(!failing_alloc_has_failed());
    end();
}

/* The model: whether each node is in, and for when; the earliest is searched. */
static void
heap_agrees_with_a_search(void)
{
    start();
    bool in[NODES] = {false};
    int64_t at_ns[NODES] = {0};
    size_t count = 0;
    for (int step = 0; step < 30000; step++) {
        size_t i = harness_random_below(NODES);
        int64_t time_ns = (int64_t)harness_random_below(1000);
        if (!in[i]) {
            CHECK(mgp_heap_reserve(&heap, count + 1) == MGP_OK);
            mgp_heap_insert(&heap, &nodes[i], time_ns);
            at_ns[i] = time_ns;
            in[i] = true;
            count++;
        } else if (harness_random_below(2) == 0) {
            mgp_heap_update(&heap, &nodes[i], time_ns);
            at_ns[i] = time_ns;
        } else {
            mgp_heap_remove(&heap, &nodes[i]);
            in[i] = false;
            count--;
        }
        CHECK(heap.count == count);
        CHECK(mgp_heap_node_is_attached(&nodes[i]) == in[i]);
        int64_t earliest_ns = INT64_MAX;
        for (size_t n = 0; n < NODES; n++) {
            if (in[n] && at_ns[n] < earliest_ns) {
                earliest_ns = at_ns[n];
            }
        }
        struct mgp_heap_node *first = mgp_heap_peek(&heap);
        if (count == 0) {
            CHECK(first == NULL);
        } else {
            CHECK(in[first - nodes]);
            CHECK(first->at_ns == earliest_ns);
        }
        if (step % 16 == 0) {
            CHECK(mgp_heap_is_ordered(&heap));
        }
    }
    end();
}

static void
walk_meets_each_node_before_a_time_once(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, NODES) == MGP_OK);
    CHECK(mgp_heap_first_before(&heap, INT64_MAX) == MGP_HEAP_DETACHED);
    for (size_t count = 1; count <= NODES; count++) {
        mgp_heap_insert(&heap, &nodes[count - 1], (int64_t)harness_random_below(NODES / 2));
        int64_t bound_ns = (int64_t)harness_random_below(NODES / 2 + 2);
        bool is_met[NODES] = {false};
        for (size_t i = mgp_heap_first_before(&heap, bound_ns); i != MGP_HEAP_DETACHED;
             i = mgp_heap_next_before(&heap, i, bound_ns)) {
            size_t n = (size_t)(heap.nodes[i] - nodes);
            CHECK(!is_met[n] && nodes[n].at_ns < bound_ns);
            is_met[n] = true;
        }
        for (size_t n = 0; n < count; n++) {
            CHECK(is_met[n] == (nodes[n].at_ns < bound_ns));
        }
    }
    end();
}

static void
disorder_is_seen(void)
{
    start();
    CHECK(mgp_heap_reserve(&heap, 3) == MGP_OK);
    for (size_t i = 0; i < 3; i++) {
        mgp_heap_insert(&heap, &nodes[i], (int64_t)i);
    }
    nodes[2].at_ns = -1;
    CHECK(!mgp_heap_is_ordered(&heap));
    nodes[2].at_ns = 2;
    CHECK(mgp_heap_is_ordered(&heap));
    nodes[2].index = 1;
    CHECK(!mgp_heap_is_ordered(&heap));
    end();
}

int
main(void)
{
    RUN(empty_heap_has_no_earliest_and_allocates_nothing);
    RUN(nodes_come_out_in_order_of_time);
    RUN(extreme_times_are_ordered);
    RUN(removing_a_detached_node_is_harmless);
    RUN(failed_reserve_changes_nothing);
    RUN(reservation_outlives_removals);
    RUN(heap_agrees_with_a_search);
    RUN(walk_meets_each_node_before_a_time_once);
    RUN(disorder_is_seen);
    return harness_end();
}
