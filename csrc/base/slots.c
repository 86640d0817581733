#include "slots.h"

#include "alloc.h"
#include "check.h"
#include "status.h"

#define INDEX_NONE UINT32_MAX /* so a table has at most UINT32_MAX slots */
#define CAPACITY_MIN 16

void
mgp_slots_init(struct mgp_slots *slots)
{
    *slots = (struct mgp_slots){.free_head = INDEX_NONE};
}

void
mgp_slots_fini(struct mgp_slots *slots)
{
    mgp_free(slots->slots);
    mgp_slots_init(slots);
}

int
mgp_slots_reserve(struct mgp_slots *slots, uint32_t more)
{
    uint32_t room = slots->free_count + (slots->capacity - slots->count);
    if (more <= room) {
        return MGP_OK;
    }
    uint64_t needed = (uint64_t)slots->capacity + (more - room);
    if (needed > UINT32_MAX) {
        return MGP_ERR_NOMEM;
    }
    uint64_t grown = slots->capacity == 0 ? CAPACITY_MIN : (uint64_t)slots->capacity * 2;
    if (grown > UINT32_MAX) {
        grown = UINT32_MAX;
    }
    if (grown < needed) {
        grown = needed;
    }
    struct mgp_slot *array = mgp_realloc_array(slots->slots, (size_t)grown, sizeof(*array));
    if (array == NULL) {
        return MGP_ERR_NOMEM;
    }
    slots->slots = array;
    slots->capacity = (uint32_t)grown;
    return MGP_OK;
}

uint32_t
mgp_slots_take(struct mgp_slots *slots, void *owner)
{
    MGP_ASSERT(owner != NULL);
    uint32_t index = slots->free_head;
    if (index != INDEX_NONE) {
        slots->free_head = (uint32_t)slots->slots[index].generation;
        slots->free_count--;
    } else {
        MGP_ASSERT(slots->count < slots->capacity);
        index = slots->count++;
    }
    slots->slots[index] = (struct mgp_slot){.owner = owner, .generation = 0};
    return index;
}

static struct mgp_slot *
slot_in_use(const struct mgp_slots *slots, uint32_t index)
{
    MGP_ASSERT(index < slots->count);
    MGP_ASSERT(slots->slots[index].owner != NULL);
    return &slots->slots[index];
}

void
mgp_slots_put(struct mgp_slots *slots, uint32_t index)
{
    *slot_in_use(slots, index) = (struct mgp_slot){.owner = NULL, .generation = slots->free_head};
    slots->free_head = index;
    slots->free_count++;
}

struct mgp_ticket
mgp_slots_issue(struct mgp_slots *slots, uint32_t index)
{
    struct mgp_slot *slot = slot_in_use(slots, index);
    slot->generation = ++slots->last_generation;
    return (struct mgp_ticket){.index = index, .generation = slot->generation};
}

void
mgp_slots_revoke(struct mgp_slots *slots, uint32_t index)
{
    slot_in_use(slots, index)->generation = 0;
}

void *
mgp_slots_find(const struct mgp_slots *slots, struct mgp_ticket ticket)
{
    if (ticket.generation == 0 || ticket.index >= slots->count) {
        return NULL;
    }
    /* A free slot's generation is an index that a ticket's may equal, but its owner is NULL. */
    const struct mgp_slot *slot = &slots->slots[ticket.index];
    return slot->generation == ticket.generation ? slot->owner : NULL;
}
