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
#include "pool.h"

struct mgp_row;
struct mgp_session;
struct mgp_key;

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
    uint32_t ahead;                  /* of these: for nobody, see ahead.c */
    int64_t create_ns;               /* how long the last creation took that succeeded */
    uint32_t probing;                /* sessions whose check may be under way */
    struct mgp_list deferred_checks; /* sessions whose check is to begin when another has ended */
};

struct mgp_endpoint *mgp_endpoint_find(struct mgp_pool *pool, struct mgp_bytes url);
struct mgp_endpoint *mgp_endpoint_new(struct mgp_pool *pool, struct mgp_bytes url);
void mgp_endpoint_add_key(struct mgp_pool *pool, struct mgp_endpoint *endpoint,
                          struct mgp_key *key);
void mgp_endpoint_remove_key(struct mgp_pool *pool, struct mgp_endpoint *endpoint,
                             struct mgp_key *key);
void mgp_endpoint_forget(struct mgp_pool *pool, struct mgp_endpoint *endpoint);
/* How many creations may begin there now; whether one may. */
uint32_t mgp_endpoint_permitted(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint,
                                int64_t now_ns);
bool mgp_endpoint_permits(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint,
                          int64_t now_ns);
/* What the end of a creation means for the breaker. True when it opened. */
void mgp_endpoint_creation_succeeded(struct mgp_pool *pool, struct mgp_session *session);
bool mgp_endpoint_creation_failed(struct mgp_pool *pool, int64_t now_ns,
                                  struct mgp_session *session);
void mgp_endpoint_creation_undecided(struct mgp_pool *pool, int64_t now_ns,
                                     struct mgp_session *session);
/* The same for what somebody else saw. True when the breaker opened, or closed, which is
 * said only of an endpoint with keys: one without may be forgotten thereby. */
bool mgp_endpoint_note_failure(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint,
                               struct mgp_row *row);
bool mgp_endpoint_note_success(struct mgp_pool *pool, struct mgp_endpoint *endpoint);
/* Whether one more check may begin there now: as many as creations. */
bool mgp_endpoint_may_probe(const struct mgp_pool *pool, const struct mgp_endpoint *endpoint);
/* Its keys to sweep, or whether it may probe, have changed. */
void mgp_endpoint_update_sweep(struct mgp_pool *pool, struct mgp_endpoint *endpoint);

#endif
