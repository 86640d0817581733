#include "../../csrc/base/slots.h"

#include "../../csrc/base/status.h"
#include "failing_alloc.h"
#include "harness.h"

#define OWNERS 200

static struct mgp_slots slots;
static char owners[OWNERS]; /* only their addresses matter */

static void
start(void)
{
    failing_alloc_install();
    mgp_slots_init(&slots);
}

static void
end(void)
{
    mgp_slots_fini(&slots);
    failing_alloc_uninstall();
}

static uint32_t
take(void *owner)
{
    CHECK(mgp_slots_reserve(&slots, 1) == MGP_OK);
    return mgp_slots_take(&slots, owner);
}

static void
ticket_finds_its_owner(void)
{
    start();
    struct mgp_ticket tickets[OWNERS];
    for (size_t i = 0; i < OWNERS; i++) {
        tickets[i] = mgp_slots_issue(&slots, take(&owners[i]));
    }
    for (size_t i = 0; i < OWNERS; i++) {
        CHECK(mgp_slots_find(&slots, tickets[i]) == &owners[i]);
    }
    end();
}

static void
ticket_is_stale_after_the_next_was_issued(void)
{
    start();
    uint32_t index = take(&owners[0]);
    struct mgp_ticket first = mgp_slots_issue(&slots, index);
    struct mgp_ticket second = mgp_slots_issue(&slots, index);
    CHECK(mgp_slots_find(&slots, first) == NULL);
    CHECK(mgp_slots_find(&slots, second) == &owners[0]);
    end();
}

static void
ticket_is_stale_after_revoke(void)
{
    start();
    uint32_t index = take(&owners[0]);
    struct mgp_ticket ticket = mgp_slots_issue(&slots, index);
    mgp_slots_revoke(&slots, index);
    CHECK(mgp_slots_find(&slots, ticket) == NULL);
    ticket = mgp_slots_issue(&slots, index);
    CHECK(mgp_slots_find(&slots, ticket) == &owners[0]);
    end();
}

static void
ticket_is_stale_after_its_slot_serves_another_owner(void)
{
    start();
    uint32_t index = take(&owners[0]);
    struct mgp_ticket old = mgp_slots_issue(&slots, index);
    mgp_slots_put(&slots, index);
    CHECK(mgp_slots_find(&slots, old) == NULL);
    CHECK(take(&owners[1]) == index);
    CHECK(mgp_slots_find(&slots, old) == NULL);
    struct mgp_ticket new = mgp_slots_issue(&slots, index);
    CHECK(mgp_slots_find(&slots, old) == NULL);
    CHECK(mgp_slots_find(&slots, new) == &owners[1]);
    end();
}

static void
ticket_of_no_operation_finds_nothing(void)
{
    start();
    struct mgp_ticket zero = {0, 0};
    CHECK(mgp_slots_find(&slots, zero) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){UINT32_MAX, 1}) == NULL);
    uint32_t index = take(&owners[0]);
    CHECK(index == zero.index);
    CHECK(mgp_slots_find(&slots, zero) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){index, 1}) == NULL);
    mgp_slots_issue(&slots, index);
    CHECK(mgp_slots_find(&slots, zero) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){index, 2}) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){index + 1, 1}) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){UINT32_MAX, UINT64_MAX}) == NULL);
    while (slots.count < slots.capacity) {
        take(&owners[1]);
    }
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){slots.count, 1}) == NULL);
    end();
}

/* A free slot keeps the index of the next free one where its generation was. */
static void
free_slot_is_found_by_no_generation(void)
{
    start();
    for (uint32_t i = 0; i < 4; i++) {
        CHECK(take(&owners[i]) == i);
    }
    mgp_slots_put(&slots, 2);
    mgp_slots_put(&slots, 3);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){3, 2}) == NULL);
    CHECK(mgp_slots_find(&slots, (struct mgp_ticket){2, UINT32_MAX}) == NULL);
    end();
}

static void
reserved_slots_can_be_taken_without_memory(void)
{
    start();
    for (uint32_t i = 0; i < 10; i++) {
        take(&owners[i]);
    }
    for (uint32_t i = 0; i < 5; i++) {
        mgp_slots_put(&slots, i);
    }
    CHECK(mgp_slots_reserve(&slots, 100) == MGP_OK);
    failing_alloc_fail_from(1);
    for (uint32_t i = 0; i < 100; i++) {
        mgp_slots_take(&slots, &owners[i]);
    }
    CHECK(!failing_alloc_has_failed());
    end();
}

static void
free_slots_count_as_room(void)
{
    start();
    CHECK(mgp_slots_reserve(&slots, OWNERS) == MGP_OK);
    failing_alloc_fail_from(1);
    for (int round = 0; round < 3; round++) {
        CHECK(mgp_slots_reserve(&slots, OWNERS) == MGP_OK);
        for (uint32_t i = 0; i < OWNERS; i++) {
            mgp_slots_take(&slots, &owners[i]);
        }
        for (uint32_t i = 0; i < OWNERS; i++) {
            mgp_slots_put(&slots, i);
        }
    }
    CHECK(slots.count == OWNERS);
    end();
}

static void
failed_reserve_changes_nothing(void)
{
    start();
    failing_alloc_fail_from(1);
    CHECK(mgp_slots_reserve(&slots, 1) == MGP_ERR_NOMEM);
    failing_alloc_fail_at(0);
    struct mgp_ticket ticket = mgp_slots_issue(&slots, take(&owners[0]));
    uint32_t capacity = slots.capacity;
    failing_alloc_fail_from(1);
    CHECK(mgp_slots_reserve(&slots, capacity) == MGP_ERR_NOMEM);
    CHECK(mgp_slots_reserve(&slots, UINT32_MAX) == MGP_ERR_NOMEM);
    CHECK(slots.capacity == capacity);
    CHECK(mgp_slots_find(&slots, ticket) == &owners[0]);
    CHECK(mgp_slots_reserve(&slots, capacity - 1) == MGP_OK);
    end();
}

/* The model: for each owner its slot and its valid ticket; beside that, every
 * ticket that was ever issued and must have gone stale. */
static void
tickets_agree_with_a_model(void)
{
    enum { STEPS = 20000 };
    static struct mgp_ticket stale[STEPS];
    static struct {
        bool in;
        uint32_t index;
        struct mgp_ticket ticket;
    } model[OWNERS];
    size_t stale_count = 0;
    start();
    for (int step = 0; step < STEPS; step++) {
        size_t i = harness_random_below(OWNERS);
        if (model[i].ticket.generation != 0) {
            CHECK(mgp_slots_find(&slots, model[i].ticket) == &owners[i]);
        }
        if (!model[i].in) {
            model[i].index = take(&owners[i]);
            model[i].in = true;
            model[i].ticket = (struct mgp_ticket){0, 0};
        } else {
            if (model[i].ticket.generation != 0) {
                stale[stale_count++] = model[i].ticket;
            }
            switch (harness_random_below(4)) {
            case 0:
                mgp_slots_put(&slots, model[i].index);
                model[i].in = false;
                model[i].ticket = (struct mgp_ticket){0, 0};
                break;
            case 1:
                mgp_slots_revoke(&slots, model[i].index);
                model[i].ticket = (struct mgp_ticket){0, 0};
                break;
            default:
                model[i].ticket = mgp_slots_issue(&slots, model[i].index);
            }
        }
        if (stale_count > 0) {
            CHECK(mgp_slots_find(&slots, stale[harness_random_below(stale_count)]) == NULL);
        }
    }
    CHECK(slots.count <= OWNERS);
    for (size_t i = 0; i < stale_count; i++) {
        CHECK(mgp_slots_find(&slots, stale[i]) == NULL);
    }
    end();
}

int
main(void)
{
    RUN(ticket_finds_its_owner);
    RUN(ticket_is_stale_after_the_next_was_issued);
    RUN(ticket_is_stale_after_revoke);
    RUN(ticket_is_stale_after_its_slot_serves_another_owner);
    RUN(ticket_of_no_operation_finds_nothing);
    RUN(free_slot_is_found_by_no_generation);
    RUN(reserved_slots_can_be_taken_without_memory);
    RUN(free_slots_count_as_room);
    RUN(failed_reserve_changes_nothing);
    RUN(tickets_agree_with_a_model);
    return harness_end();
}
