/* The inside of the pool machine, for csrc/core alone: its struct. Functions stand in the header
 * of the file that has them, those for the layer above in pool.h.
 *
 * Calls between the files point down (`make lint` sees to that):
 *   acquire                          what a caller asks for, and what it does with the answer
 *   creation, release, condition     how what it got ends; what becomes known of a session
 *   upkeep, pool                     what falls due; the pool as a whole
 *   ahead                            sessions ready before they are needed
 *   serve                            who gets what comes free
 *   transition                       the changes of a session's state
 *   key, endpoint, session           what there is, and what it is fit for
 *   tracking                         how long checkouts last: leak detection
 *   lease, breaker, effect, counting, random
 * Beside them: delivery (effects on their way up), view (reading), audit (mgp_pool_check).
 *
 * How an operation is built: find; reserve memory; change, through the transitions
 * of transition.c, each of which keeps lists, counts and series in step; serve the
 * keys that changed; and last mgp_settle(), which serves whoever waits for a place
 * that came free elsewhere and drops keys that became empty. No pointer to a key may
 * be used after mgp_settle().
 *
 * Invariants, checked by mgp_pool_check():
 *   - counts equal list lengths, per key and in total; every session is in one list;
 *   - creating + active + idle + checking + closing <= max, per key and in total;
 *   - a key with a waiter has no fresh idle session and no spare lease;
 *   - a key with a waiter has all its places taken, or claims one (serve.c);
 *   - idle order is by last use, health order by verification, the heap by deadline;
 *   - a spare lease exists for each waiter and each creation;
 *   - tracked checkouts are in the order in which they began, and their reminder is early enough. */
#ifndef MGP_CORE_MACHINE_H
#define MGP_CORE_MACHINE_H

#include "endpoint.h"
#include "key.h"
#include "lease.h"
#include "pool.h"
#include "session.h"
#include "waitq.h"

struct mgp_pool {
    struct mgp_config config;
    struct mgp_table keys;
    struct mgp_table endpoints;
    struct mgp_table groups[MGP_GROUPS_MAX];
    struct mgp_list idle_order;     /* sessions, least recently used first */
    struct mgp_list health_order;   /* sessions, least recently verified first */
    struct mgp_list evictable_keys; /* keys that nobody uses, least recently used first */
    struct mgp_list empty_keys;     /* keys for mgp_settle() to drop */
    struct mgp_list sweeping;       /* endpoints with keys to sweep, where a check may begin */
    struct mgp_list effects;
    struct mgp_heap lifetimes;  /* of open sessions: see their `lifetime` */
    struct mgp_heap shortages;  /* keys that may be short of idle sessions: when to look at them */
    struct mgp_heap reminders;  /* endpoints whose breaker is to be tried again; and `tracking` */
    struct mgp_heap remembered; /* endpoints without keys, the oldest failure first */
    struct mgp_heap claims;     /* endpoints with a demand for places, the oldest waiter first */
    struct mgp_list tracked;    /* checkouts, the longest first; see tracking.c */
    /* In `reminders` while there may be some: no later than the first is due. */
    struct mgp_heap_node tracking;
    struct mgp_slots session_slots;
    struct mgp_leases leases;
    size_t session_structs; /* with spares: the room that `lifetimes` must have */
    uint64_t sequence;      /* of events: orders creations and idle times against drains */
    uint64_t drained_before;
    uint64_t random_state;
    int64_t next_check_ns;   /* no background check before */
    int64_t clock_offset_ns; /* from the pool's clock to the monotonic one */
    uint64_t demand;         /* places that the starved want: sum over the endpoints in `claims` */
    uint64_t supply;         /* places to come by closes that were begun for the starved */
    struct mgp_pool_counts counts;
    uint64_t totals[MGP_WORD_COUNT];
    bool is_closed;
    bool is_reconfigured; /* open may be more than limits that shrank, or less than they grew to */
};

#endif
