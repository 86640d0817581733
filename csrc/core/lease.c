#include "lease.h"

#include "../base/alloc.h"
#include "../base/check.h"
#include "../base/status.h"

/* Spares kept for the next checkouts beyond those promised. */
#define SPARES_KEPT 64

/* Generations of leases start here, those of sessions at 0: so a ticket of one is never
 * taken for a ticket of the other. */
#define FIRST_GENERATION (UINT64_C(1) << 63)

void
mgp_leases_init(struct mgp_leases *leases)
{
    mgp_slots_init(&leases->slots);
    leases->slots.last_generation = FIRST_GENERATION;
    leases->spares = NULL;
    leases->spare_count = 0;
    leases->promised = 0;
}

static void
free_spare(struct mgp_leases *leases)
{
    struct mgp_lease *spare = leases->spares;
    leases->spares = spare->next;
    leases->spare_count--;
    mgp_slots_put(&leases->slots, spare->ticket.index);
    mgp_free(spare);
}

void
mgp_leases_fini(struct mgp_leases *leases)
{
    while (leases->spares != NULL) {
        free_spare(leases);
    }
    mgp_slots_fini(&leases->slots);
}

int
mgp_leases_reserve(struct mgp_leases *leases)
{
    if (leases->spare_count > leases->promised) {
        return MGP_OK;
    }
    int status = mgp_slots_reserve(&leases->slots, 1);
    if (status < 0) {
        return status;
    }
    struct mgp_lease *lease = mgp_alloc(sizeof(*lease));
    if (lease == NULL) {
        return MGP_ERR_NOMEM;
    }
    lease->ticket.index = mgp_slots_take(&leases->slots, lease);
    lease->ticket.generation = 0;
    lease->session = NULL;
    lease->next = leases->spares;
    leases->spares = lease;
    leases->spare_count++;
    return MGP_OK;
}

struct mgp_lease *
mgp_leases_take(struct mgp_leases *leases)
{
    struct mgp_lease *lease = leases->spares;
    MGP_ASSERT(lease != NULL);
    leases->spares = lease->next;
    leases->spare_count--;
    lease->next = NULL;
    lease->use = MGP_LEASE_GRANTED;
    lease->ticket = mgp_slots_issue(&leases->slots, lease->ticket.index);
    return lease;
}

void
mgp_leases_put(struct mgp_leases *leases, struct mgp_lease *lease)
{
    mgp_slots_revoke(&leases->slots, lease->ticket.index);
    lease->session = NULL;
    lease->next = leases->spares;
    leases->spares = lease;
    leases->spare_count++;
    if (leases->spare_count > leases->promised + SPARES_KEPT) {
        free_spare(leases);
    }
}

struct mgp_lease *
mgp_leases_find(const struct mgp_leases *leases, struct mgp_ticket ticket)
{
    return mgp_slots_find(&leases->slots, ticket);
}
