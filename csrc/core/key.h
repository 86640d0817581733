/* One pool key: opaque bytes, and the sessions made for exactly them. It exists
 * while it has a session in any state, or a waiter. */
#ifndef MGP_CORE_KEY_H
#define MGP_CORE_KEY_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/heap.h"
#include "../base/list.h"
#include "../base/table.h"
#include "session.h"
#include "waitq.h"

struct mgp_endpoint;
struct mgp_key_spec;
struct mgp_pool;
struct mgp_row;

/* All keys that share one part of their identity. */
struct mgp_group {
    struct mgp_table_entry entry; /* its bytes follow the struct */
    struct mgp_list members;
};

struct mgp_membership {
    struct mgp_link link;
    struct mgp_group *group; /* NULL: not in such a group */
    struct mgp_key *key;
};

struct mgp_key {
    struct mgp_table_entry entry; /* its bytes follow the memberships */
    struct mgp_endpoint *endpoint;
    struct mgp_row *row; /* held */
    struct mgp_link endpoint_link;
    struct mgp_link recency;         /* in the pool's evictable or empty keys, or detached */
    struct mgp_list idle_sessions;   /* the next to be handed out first */
    struct mgp_list active_sessions; /* those that can carry another lease first */
    struct mgp_list other_sessions;  /* CREATING, CHECKING, CLOSING */
    struct mgp_waitq *queue;         /* owned; NULL while nobody waits */
    struct mgp_heap_node shortage;   /* in the pool's shortages while it may be short */
    int64_t last_used_ns;
    union { /* how many sessions count against its limit, by enum mgp_session_state */
        struct {
            uint32_t creating, active, idle, checking, closing;
        };
        uint32_t in_state[MGP_SESSION_GONE];
    };
    uint32_t apart; /* how many do not any more, in whatever state: see mgp_session_set_apart() */
    uint32_t ahead; /* of `creating`: for nobody, see ahead.c */
    uint8_t membership_count; /* 0, or MGP_GROUPS_MAX where it is in any group */
    bool is_anonymous;
    bool is_single_use;
    bool is_retiring; /* evicted: no longer counted as a key, only waits for its closes */
    struct mgp_membership memberships[];
};

/* What counts against its limit. */
static inline uint32_t
mgp_key_open(const struct mgp_key *key)
{
    return key->creating + key->active + key->idle + key->checking + key->closing;
}

/* Whether anybody uses it or waits for it. A check is no use, nor is one of a session apart, or a
 * session that is opened for nobody. */
static inline bool
mgp_key_is_used(const struct mgp_key *key)
{
    return key->creating - key->ahead + key->active > 0 || key->queue != NULL;
}

static inline bool
mgp_key_has_sessions(const struct mgp_key *key)
{
    return mgp_key_open(key) + key->apart > 0;
}

static inline uint32_t
mgp_key_waiters(const struct mgp_key *key)
{
    return key->queue == NULL ? 0 : key->queue->count;
}

/* When a key that is short is looked at again, where no session could be opened for it. */
#define MGP_AHEAD_RETRY_NS INT64_C(5000000000)

struct mgp_key *mgp_key_find(struct mgp_pool *pool, uint64_t hash, const void *bytes, size_t size);
struct mgp_key *mgp_key_new(struct mgp_pool *pool, uint64_t hash, const struct mgp_key_spec *spec,
                            struct mgp_endpoint *endpoint); /* NULL: out of memory */
/* Puts the key where its state belongs: among the evictable, the empty, or neither. */
void mgp_key_update_recency(struct mgp_pool *pool, struct mgp_key *key);
/* Whether it has fewer idle sessions than it is to have, with those that are being opened. */
bool mgp_key_is_short(const struct mgp_pool *pool, const struct mgp_key *key);
/* It may have become so: upkeep looks at it then. */
void mgp_key_note_shortage(struct mgp_pool *pool, struct mgp_key *key, int64_t at_ns);
/* A retiring key no longer counts towards max_total_keys. */
void mgp_key_set_retiring(struct mgp_pool *pool, struct mgp_key *key, bool is_retiring);
void mgp_key_drop(struct mgp_pool *pool, struct mgp_key *key);

#endif
