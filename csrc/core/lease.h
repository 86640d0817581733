/* Leases: each is one checkout of a session, with a ticket of its own, so that the
 * end of one checkout can never be taken for the end of another.
 *
 * Leases that are not in use are kept as spares. mgp_leases_reserve() makes sure
 * that there are enough for all that was promised (a waiter and a creation are
 * promised one each); taking a promised lease cannot fail. */
#ifndef MGP_CORE_LEASE_H
#define MGP_CORE_LEASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/slots.h"

struct mgp_session;
struct mgp_tracked;

enum mgp_lease_use {
    MGP_LEASE_GRANTED, /* its caller has not taken it yet */
    MGP_LEASE_TAKEN,   /* its caller has it: it was counted */
    MGP_LEASE_TRACKED, /* the same, and how long is watched: see tracking.c */
};

struct mgp_lease {
    struct mgp_lease *next;      /* of the same session, or the next spare */
    struct mgp_session *session; /* NULL for a spare */
    uint64_t epoch;              /* its endpoint's suspect epoch when it began */
    struct mgp_ticket ticket;
    int64_t since_ns;            /* when its caller got it; valid where it was taken */
    struct mgp_tracked *tracked; /* valid while TRACKED */
    uint8_t use;                 /* enum mgp_lease_use */
};

static inline bool
mgp_lease_is_taken(const struct mgp_lease *lease)
{
    return lease->use != MGP_LEASE_GRANTED;
}

/* Its caller has the session from now on. */
static inline void
mgp_lease_begin_use(struct mgp_lease *lease, int64_t now_ns)
{
    lease->use = MGP_LEASE_TAKEN;
    lease->since_ns = now_ns;
}

struct mgp_leases {
    struct mgp_slots slots;
    struct mgp_lease *spares;
    size_t spare_count;
    size_t promised; /* spares that somebody counts on */
};

void mgp_leases_init(struct mgp_leases *leases);
/* None may be in use. */
void mgp_leases_fini(struct mgp_leases *leases);

/* Makes sure that there is one spare beyond those promised. MGP_OK or MGP_ERR_NOMEM. */
int mgp_leases_reserve(struct mgp_leases *leases);
/* Takes a spare: one promised, or one reserved. */
struct mgp_lease *mgp_leases_take(struct mgp_leases *leases);
/* Gives it back; its ticket is stale from now on. */
void mgp_leases_put(struct mgp_leases *leases, struct mgp_lease *lease);
/* NULL for a stale ticket. */
struct mgp_lease *mgp_leases_find(const struct mgp_leases *leases, struct mgp_ticket ticket);

#endif
