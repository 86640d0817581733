/* Table of slots that gives out tickets: (index, generation). A ticket finds
 * its owner as long as the operation it was issued for goes on; after that it
 * is stale and finds nothing, even when the slot serves another owner.
 *
 * Generations come from one 64-bit counter per table and are never reused.
 * mgp_slots_reserve() is the only operation that allocates. */
#ifndef MGP_BASE_SLOTS_H
#define MGP_BASE_SLOTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct mgp_ticket {
    uint32_t index;
    uint64_t generation; /* 0 is no ticket */
};

struct mgp_slot {
    void *owner;         /* borrowed; NULL while the slot is free */
    uint64_t generation; /* of the valid ticket, 0: none; for a free slot: the next free index */
};

struct mgp_slots {
    struct mgp_slot *slots; /* owned */
    uint32_t count;         /* slots ever used */
    uint32_t capacity;
    uint32_t free_head; /* UINT32_MAX: none */
    uint32_t free_count;
    uint64_t last_generation;
};

void mgp_slots_init(struct mgp_slots *slots);
void mgp_slots_fini(struct mgp_slots *slots);

/* Makes sure that the next `more` calls of mgp_slots_take() have room. MGP_OK, or
 * MGP_ERR_NOMEM: nothing was changed. */
int mgp_slots_reserve(struct mgp_slots *slots, uint32_t more);
/* Takes a reserved slot for `owner`; returns its index. No ticket is issued yet. */
uint32_t mgp_slots_take(struct mgp_slots *slots, void *owner);
/* Gives the slot back; every ticket issued for it is stale from now on. */
void mgp_slots_put(struct mgp_slots *slots, uint32_t index);
/* Issues a new ticket; earlier ones of this slot are stale from now on. */
struct mgp_ticket mgp_slots_issue(struct mgp_slots *slots, uint32_t index);
/* Makes every ticket of this slot stale without issuing one. */
void mgp_slots_revoke(struct mgp_slots *slots, uint32_t index);
/* The owner, or NULL for a ticket that is stale, zero or out of range. Any bits
 * are safe to ask for; but a ticket of another table may name a slot of this one. */
void *mgp_slots_find(const struct mgp_slots *slots, struct mgp_ticket ticket);

#endif
