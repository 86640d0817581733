/* One URL: its breaker, its suspicion, and the keys that lead to it. It exists
 * while it has a key, or a failure that is not forgotten yet. */
#ifndef MGP_CORE_ENDPOINT_H
#define MGP_CORE_ENDPOINT_H

#include <stddef.h>
#include <stdint.h>

#include "../base/heap.h"
#include "../base/list.h"
#include "../base/table.h"
#include "breaker.h"

struct mgp_row;

/* An endpoint without keys forgets its failures after this many breaker resets: no
 * breaker stays open for longer. */
#define MGP_ENDPOINT_MEMORY_RESETS MGP_BREAKER_MAX_BACKOFF

struct mgp_endpoint {
    struct mgp_table_entry entry; /* its bytes follow the struct */
    struct mgp_list keys;
    struct mgp_list
        keys_to_sweep;       /* keys whose idle sessions are to be checked in the background */
    size_t key_count;        /* in both lists */
    struct mgp_list waiting; /* queues of its keys */
    size_t queue_count;
    struct mgp_heap claims;        /* those of them that want places, the oldest waiter first */
    uint32_t wanted;               /* places, by all of them */
    uint32_t demand;               /* of those, as many as may be created now */
    struct mgp_heap_node claim;    /* in the pool's claims while it has a demand */
    struct mgp_link sweep_link;    /* in the pool's list while some of them may be checked */
    struct mgp_heap_node retry;    /* while its breaker is open: when that may be tried again */
    struct mgp_heap_node oblivion; /* while it has no key: when its failures are forgotten */
    struct mgp_breaker breaker;
    struct mgp_row *trip_row; /* held; counts the open breaker; NULL while closed */
    uint64_t
        suspect_epoch; /* raised by suspicion; sessions verified in an earlier one need a check */
    /* Sequence numbers of the pool: when its breaker last opened, which made a suspect of each
     * session that was idle; and when that or a success was last seen. */
    uint64_t opened_at, decided_at;
    uint32_t creating;
    uint32_t probing;                /* sessions whose check may be under way */
    struct mgp_list deferred_checks; /* sessions whose check is to begin when another has ended */
};

#endif
