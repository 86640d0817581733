/* One session of the pool, from the decision to create it until it is gone.
 *
 *   CREATING --created--> ACTIVE <--lease / release--> IDLE <--check--> CHECKING
 *   ACTIVE, IDLE, CHECKING --begin close--> CLOSING --close ended--> gone
 *   CREATING --failed--> gone
 *
 * It is in exactly one list of its key, by state. While IDLE it is in the pool's
 * idle order and, until it is found not to be worth a background check, in its
 * health order. Its effect node serves the health order while it is IDLE, and the
 * effect queue otherwise: an IDLE session has no effect to come. */
#ifndef MGP_CORE_SESSION_H
#define MGP_CORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/heap.h"
#include "../base/list.h"
#include "../base/slots.h"
#include "../metrics/series.h"
#include "effect.h"
#include "lease.h"

struct mgp_key;
struct mgp_pool;

enum mgp_session_state {
    MGP_SESSION_CREATING,
    MGP_SESSION_ACTIVE,
    MGP_SESSION_IDLE,
    MGP_SESSION_CHECKING,
    MGP_SESSION_CLOSING,
    MGP_SESSION_GONE, /* its GONE effect is queued */
};

struct mgp_session {
    struct mgp_key *key; /* NULL for a spare that a waiter holds in reserve, and when GONE */
    void *payload;       /* one owned reference; NULL while CREATING */
    struct mgp_link place;
    struct mgp_link idle_order; /* attached while IDLE; while CHECKING perhaps */
    struct mgp_effect_node effect;
    /* While it is open, until its lifetime has ended: that, or first when it is to be replaced. */
    struct mgp_heap_node lifetime;
    int64_t expires_ns; /* when its lifetime ends */
    int64_t created_ns;
    int64_t last_used_ns;
    int64_t verified_ns;     /* when it was last used or checked with success */
    uint64_t verified_epoch; /* its endpoint's suspect epoch then */
    uint64_t born;           /* the pool's sequence number when its creation began */
    union {
        uint64_t idle_since;      /* while IDLE: the pool's sequence number when it became so */
        struct mgp_lease *leases; /* while ACTIVE */
    };
    uint32_t lease_count;
    uint32_t slot; /* its tickets: of the creation, then of a check or the close */
    uint8_t state;
    uint8_t close_reason; /* enum mgp_eviction_reason; while CHECKING: if that fails */
    bool is_trial : 1;    /* while CREATING: decides about a half-open breaker */
    bool is_unwanted : 1; /* while CREATING: its caller was cancelled, or there is none */
    bool is_ahead : 1;    /* opened for nobody, see ahead.c */
    bool is_replacement : 1;
    bool is_broken : 1;   /* to be closed as broken */
    bool is_retired : 1;  /* to be closed as discarded: never handed out again */
    bool is_apart : 1;    /* does not count against its key's limit any more */
    bool is_deferred : 1; /* while CHECKING: its PROBE effect is to come, see its endpoint */
    bool is_supply : 1;   /* while CLOSING: begun for a key that starves */
    bool is_overdue : 1;  /* while IDLE: known to need a check; lies behind those that may not */
    bool is_full : 1;     /* while ACTIVE: takes no more leases; lies behind those that may */
};

struct mgp_session *mgp_session_new(struct mgp_pool *pool); /* a spare; NULL: out of memory */
void mgp_session_free(struct mgp_pool *pool, struct mgp_session *session);
/* The session whose ticket this is, if it is in that state; else NULL. */
struct mgp_session *mgp_session_find(const struct mgp_pool *pool, struct mgp_ticket ticket,
                                     enum mgp_session_state state);

/* When it ends; until then, and perhaps when it is to be replaced, it is due for upkeep. It must
 * not be among the lifetimes. */
void mgp_session_set_lifetime(struct mgp_pool *pool, struct mgp_session *session,
                              int64_t expires_ns);

/* ---- what it is fit for ----------------------------------------------------- */

/* Whether it must be closed instead of handed out, and why. */
bool mgp_session_is_unfit(const struct mgp_pool *pool, const struct mgp_session *session,
                          int64_t now_ns, enum mgp_eviction_reason *reason);
bool mgp_session_needs_check(const struct mgp_pool *pool, const struct mgp_session *session,
                             int64_t now_ns);
/* Whether it is of before the last drain. */
bool mgp_session_is_drained(const struct mgp_pool *pool, const struct mgp_session *session);
/* Whether it was idle when the breaker of its endpoint last opened. */
bool mgp_session_was_idle_at_opening(const struct mgp_session *session);
/* Whether its endpoint came under suspicion after it was verified. */
bool mgp_session_is_suspected(const struct mgp_session *session);

/* ---- orders: each puts a session that is, or becomes, IDLE in its place ------------- */

/* By last use, those of before the last drain first. O(1) where it was used just now. */
void mgp_session_restore_idle_order(struct mgp_pool *pool, struct mgp_session *session);
int64_t mgp_session_idle_order_ns(const struct mgp_pool *pool, struct mgp_link *link);
/* By verification. O(1) where it was verified just now. */
void mgp_session_restore_health_order(struct mgp_pool *pool, struct mgp_session *session);
/* Among its key's idle sessions: by last use, the most recent first, in front of those
 * known to need a check. O(1) where it was used just now, or is one of those. */
void mgp_session_restore_place(struct mgp_session *session);

static inline struct mgp_session *
mgp_session_of_place(struct mgp_link *link)
{
    return mgp_container_of(link, struct mgp_session, place);
}

static inline struct mgp_session *
mgp_session_of_idle_order(struct mgp_link *link)
{
    return mgp_container_of(link, struct mgp_session, idle_order);
}

static inline struct mgp_session *
mgp_session_of_effect(struct mgp_link *link)
{
    return mgp_container_of(link, struct mgp_session, effect.link);
}

#endif
