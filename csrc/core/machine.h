/* The inside of the pool machine, for csrc/core alone.
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
 *   - a spare lease exists for each waiter and each creation. */
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
    struct mgp_heap lifetimes;  /* of open sessions */
    struct mgp_heap retries;    /* endpoints whose breaker is to be tried again */
    struct mgp_heap remembered; /* endpoints without keys, the oldest failure first */
    struct mgp_heap claims;     /* endpoints with a demand for places, the oldest waiter first */
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

/* ---- counting: once in the row, once for the pool ---- */
void mgp_count(struct mgp_pool *pool, struct mgp_row *row, size_t word);
void mgp_uncount(struct mgp_pool *pool, struct mgp_row *row, size_t word);
void mgp_observe(struct mgp_pool *pool, struct mgp_row *row, enum mgp_histogram_id id,
                 int64_t duration_ns);

/* ---- memory, session.c ---- */
struct mgp_session *mgp_session_new(struct mgp_pool *pool); /* a spare; NULL: out of memory */
void mgp_session_free(struct mgp_pool *pool, struct mgp_session *session);

/* ---- keys and endpoints, key.c and endpoint.c ---- */
struct mgp_key *mgp_key_find(struct mgp_pool *pool, uint64_t hash, const void *bytes, size_t size);
struct mgp_key *mgp_key_new(struct mgp_pool *pool, uint64_t hash, const struct mgp_key_spec *spec,
                            struct mgp_endpoint *endpoint); /* NULL: out of memory */
/* Puts the key where its state belongs: among the evictable, the empty, or neither. */
void mgp_key_update_recency(struct mgp_pool *pool, struct mgp_key *key);
/* A retiring key no longer counts towards max_total_keys. */
void mgp_key_set_retiring(struct mgp_pool *pool, struct mgp_key *key, bool is_retiring);
void mgp_key_drop(struct mgp_pool *pool, struct mgp_key *key);

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

/* ---- what a session is fit for, session.c ---- */
/* Whether it must be closed instead of handed out, and why. */
bool mgp_session_is_unfit(const struct mgp_pool *pool, const struct mgp_session *session,
                          int64_t now_ns, enum mgp_eviction_reason *reason);
bool mgp_session_needs_check(const struct mgp_pool *pool, const struct mgp_session *session,
                             int64_t now_ns);

static inline bool
mgp_session_is_drained(const struct mgp_pool *pool, const struct mgp_session *session)
{
    return session->born < pool->drained_before;
}

/* Whether it was idle when the breaker of its endpoint last opened. */
static inline bool
mgp_session_was_idle_at_opening(const struct mgp_session *session)
{
    return session->state == MGP_SESSION_IDLE &&
           session->idle_since < session->key->endpoint->opened_at;
}

/* Whether its endpoint came under suspicion after it was verified. */
static inline bool
mgp_session_is_suspected(const struct mgp_session *session)
{
    return session->verified_epoch < session->key->endpoint->suspect_epoch ||
           mgp_session_was_idle_at_opening(session);
}

/* ---- orders, session.c: each puts a session that is, or becomes, IDLE in its place ---- */
/* By last use, those of before the last drain first. O(1) where it was used just now. */
void mgp_session_restore_idle_order(struct mgp_pool *pool, struct mgp_session *session);
int64_t mgp_session_idle_order_ns(const struct mgp_pool *pool, struct mgp_link *link);
/* By verification. O(1) where it was verified just now. */
void mgp_session_restore_health_order(struct mgp_pool *pool, struct mgp_session *session);
/* Among its key's idle sessions: by last use, the most recent first, in front of those
 * known to need a check. O(1) where it was used just now, or is one of those. */
void mgp_session_restore_place(struct mgp_session *session);

/* ---- transitions, transition.c: each in one function ---- */
struct mgp_ticket mgp_session_begin_create(struct mgp_pool *pool, int64_t now_ns,
                                           struct mgp_session *spare, struct mgp_key *key);
struct mgp_lease *mgp_session_begin_lease(struct mgp_pool *pool, struct mgp_session *session);
/* Whether the active session takes no more leases, as far as is known. */
void mgp_session_set_full(struct mgp_session *session, bool is_full);
/* Ends the lease; the session keeps its state. */
void mgp_session_end_lease(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease);
void mgp_session_make_idle(struct mgp_pool *pool, struct mgp_session *session);
/* Its PROBE effect comes when its endpoint has fewer checks under way than it permits. */
void mgp_session_begin_check(struct mgp_pool *pool, struct mgp_session *session);
/* From any open state, without leases. */
void mgp_session_begin_close(struct mgp_pool *pool, struct mgp_session *session,
                             enum mgp_eviction_reason reason);
/* All of one list of a key that are open; those being created or closed are passed over. */
void mgp_sessions_close(struct mgp_pool *pool, struct mgp_list *sessions,
                        enum mgp_eviction_reason reason);
/* From CLOSING: its place is free, its payload queued as GONE. */
void mgp_session_make_gone(struct mgp_pool *pool, struct mgp_session *session);
/* From CREATING: its place is free; the struct is freed. */
void mgp_session_drop_creation(struct mgp_pool *pool, struct mgp_session *session);
/* CREATING ends well: counts, lifetime, verification. The caller leases it or makes it idle. */
void mgp_session_open(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session,
                      void *payload);

/* ---- waiters and places, serve.c ---- */
/* A session that can be handed out at once, or NULL. Closes unfit ones on the way. */
struct mgp_session *mgp_key_next_session(struct mgp_pool *pool, int64_t now_ns,
                                         struct mgp_key *key);
/* Begins a check of the idle session that is to be handed out next, where none is fresh.
 * False: there is none. Closes unfit ones on the way. */
bool mgp_key_begin_check(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key);
/* Whether nothing is open that the key's callers could get, while its breaker refuses. */
bool mgp_key_is_stranded(const struct mgp_key *key, int64_t now_ns);
bool mgp_key_has_room(const struct mgp_pool *pool, const struct mgp_key *key);
bool mgp_pool_has_room(const struct mgp_pool *pool);
/* The least recently used idle session of any key, or NULL. */
struct mgp_session *mgp_pool_find_victim(struct mgp_pool *pool);
void mgp_waiter_park(struct mgp_pool *pool, struct mgp_key *key, struct mgp_waiter *waiter);
/* Takes a WAITING waiter out of its queue, in whatever state it goes on. */
void mgp_waiter_unpark(struct mgp_pool *pool, struct mgp_waiter *waiter);
void mgp_waiter_fail(struct mgp_pool *pool, struct mgp_waiter *waiter, int status);
/* A key, or what its endpoint permits, has changed: gives its waiters the sessions that there
 * are for them, and free places to whoever has waited longest; says what the rest waits for. */
void mgp_key_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key);
/* An endpoint may permit more creations than before. */
void mgp_endpoint_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint);
/* Whether its waiters may create by now, which is not noticed yet: the time of its breaker is
 * over. */
bool mgp_endpoint_is_due(const struct mgp_endpoint *endpoint, int64_t now_ns);
/* A session is free, or was just opened: to the oldest waiter, idle, or closed. */
void mgp_session_return(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);
void mgp_settle(struct mgp_pool *pool, int64_t now_ns);

/* ---- effects, effect.c ---- */
void mgp_effect_push(struct mgp_pool *pool, struct mgp_effect_node *node,
                     enum mgp_effect_kind kind);

/* Uniform in [0, 1). */
double mgp_random_unit(struct mgp_pool *pool);

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
