/* The pool machine: which caller gets which session, when sessions are made,
 * checked and closed, and what is counted. It is deterministic: it has no clock,
 * no thread and no I/O, and it never calls out.
 *
 * Every operation takes the time, changes the machine, and leaves *effects*:
 * what the layer above has to do next, in order. mgp_pool_next_effect() hands
 * them over one by one. The layer above drains them after each operation, when
 * the machine is consistent again; an operation called while it is draining only
 * adds effects to the end of the queue.
 *
 * A session       CREATING -> ACTIVE <-> IDLE -> CLOSING -> gone; CHECKING beside IDLE.
 * A lease         one checkout of a session. A session carries up to max_leases.
 * A waiter        WAITING -> GRANTED -> taken; cancelled from either.
 * A ticket        names one creation, check, close or lease. When that has ended the
 *                 ticket is stale, and a late answer gets MGP_ERR_STALE.
 *
 * Memory: only mgp_pool_new, _try_acquire, _acquire, _warm and _track allocate, all of it before
 * their first change: MGP_ERR_NOMEM means that nothing happened, but that callers whose time had
 * come may have been served. Upkeep allocates for what is opened ahead, and does without where
 * there is no memory. All else cannot fail for lack of memory. Everything is O(1) expected, but
 * for deadlines (O(log n)), and for what visits each thing it acts on: close, abandon,
 * evict_group, and the opening of a breaker, which fails the waiters of its endpoint. Nothing
 * scans all keys.
 *
 * Payloads: a session's `void *` is one reference owned by the machine from
 * mgp_pool_created() on, given back by exactly one GONE effect. A waiter's is
 * borrowed: whoever owns it takes or cancels the waiter before it goes away. */
#ifndef MGP_CORE_POOL_H
#define MGP_CORE_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/slots.h"
#include "../base/status.h"
#include "../metrics/count.h"
#include "config.h"

struct mgp_pool;
struct mgp_session;
struct mgp_waiter;

int mgp_pool_new(const struct mgp_config *config, struct mgp_pool **pool);
/* All sessions, waiters and effects must be gone: mgp_pool_abandon() and drain first. */
void mgp_pool_free(struct mgp_pool *pool); /* NULL is allowed */

/* For a new pool that takes the place of another one, as in a forked child: to it, the tickets
 * of that one are stale. */
void mgp_pool_number_after(struct mgp_pool *pool, const struct mgp_pool *before);

/* Replaces the settings; the hash key must stay. Limits that shrink close nothing by
 * themselves, and whoever waits is served by limits that grow at the next occasion only. */
void mgp_pool_configure(struct mgp_pool *pool, const struct mgp_config *config);

/* For a pool whose times are not those of the monotonic clock: what to add to them now. Only
 * the series of the oldest waiter, which all pools and processes share, is in that clock. */
void mgp_pool_set_clock_offset(struct mgp_pool *pool, int64_t offset_ns);

/* ---- acquire ---------------------------------------------------------------- */

#define MGP_GROUPS_MAX 2

struct mgp_bytes {
    const void *bytes;
    size_t size;
};

/* A key, as far as the machine knows it. Everything is copied. */
struct mgp_key_spec {
    struct mgp_bytes key;                    /* the whole identity: compared byte for byte */
    struct mgp_bytes endpoint;               /* the URL */
    struct mgp_bytes groups[MGP_GROUPS_MAX]; /* size 0: in no such group */
    struct mgp_row *row;                     /* counts what happens to this key */
    bool is_anonymous;                       /* acquires by this key are counted as such */
    bool is_single_use;                      /* its sessions are used once, then closed */
};

enum mgp_answer {
    MGP_ANSWER_NONE,    /* only mgp_pool_try_acquire: ask mgp_pool_acquire */
    MGP_ANSWER_SESSION, /* payload and ticket (of the lease) are set; counted as a hit */
    MGP_ANSWER_CREATE,  /* open a session, then report it for `ticket` */
    MGP_ANSWER_WAIT,    /* parked: `waiter` is set; a GRANT or FAIL effect will come */
};

struct mgp_acquired {
    enum mgp_answer answer;
    struct mgp_ticket ticket;
    void *payload;
    struct mgp_waiter *waiter;
};

uint64_t mgp_pool_hash(const struct mgp_pool *pool, const void *key, size_t size);

/* The common case and nothing else: a fresh idle session of a key that nothing
 * hinders. Otherwise MGP_ANSWER_NONE, and nothing was changed. */
void mgp_pool_try_acquire(struct mgp_pool *pool, int64_t now_ns, uint64_t hash, const void *key,
                          size_t size, struct mgp_acquired *acquired);

/* MGP_OK with an answer, or MGP_ERR_CLOSED, _CIRCUIT_OPEN, _EXHAUSTED, _QUEUE_FULL
 * (each counted as what it is), or _NOMEM. `hash` is mgp_pool_hash() of the key. */
int mgp_pool_acquire(struct mgp_pool *pool, int64_t now_ns, uint64_t hash,
                     const struct mgp_key_spec *spec, struct mgp_acquired *acquired);

/* Begins one creation for nobody, where the key has fewer than `count` sessions idle, under a
 * check, or being opened for nobody. MGP_OK: open a session and report it for `ticket`, or
 * nothing is to be done (generation 0). MGP_ERR_CLOSED, _CIRCUIT_OPEN, _EXHAUSTED (no place is to
 * spare), _NOMEM: nothing was begun, and nothing is counted. */
int mgp_pool_warm(struct mgp_pool *pool, int64_t now_ns, uint64_t hash,
                  const struct mgp_key_spec *spec, uint32_t count, struct mgp_ticket *ticket);

/* ---- waiters ---------------------------------------------------------------- */

enum mgp_cancel_reason { MGP_CANCEL_BY_CALLER, MGP_CANCEL_BY_TIMEOUT };

void mgp_waiter_set_payload(struct mgp_waiter *waiter, void *payload);
/* Ends a granted waiter whose pool was abandoned, and perhaps freed: nothing goes back. */
void mgp_waiter_forget(struct mgp_waiter *waiter);

/* Ends a granted waiter and gives its caller what it was granted: ANSWER_SESSION
 * (counted as a hit) or ANSWER_CREATE. MGP_ERR_CLOSED: the pool took it back meanwhile. */
int mgp_pool_take(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter,
                  struct mgp_acquired *acquired);
/* Ends a waiter that is waiting or granted. What it was granted goes to the next. */
void mgp_pool_cancel(struct mgp_pool *pool, int64_t now_ns, struct mgp_waiter *waiter,
                     enum mgp_cancel_reason reason);

/* ---- creations -------------------------------------------------------------- */

enum mgp_fault {
    /* Counts for the endpoint's breaker, unless the creation began before the newest success or
     * the newest opening there. */
    MGP_FAULT_ENDPOINT,
    MGP_FAULT_CALLER, /* the caller's own, or a refusal of this caller: does not count */
};

/* A session was opened. The reference `payload` is the machine's from now on, and
 * *session names it until its GONE effect. Where the creation is still wanted, *lease
 * is its caller's, and mgp_pool_answer() or mgp_pool_undo() follows; else the session
 * goes to the oldest waiter, or idle, and lease->generation is 0.
 * MGP_ERR_CLOSED: the pool was closed meanwhile; the session is taken over and closed.
 * MGP_ERR_STALE: there is no such creation; the payload stays the caller's. */
int mgp_pool_created(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket creation,
                     void *payload, struct mgp_session **session, struct mgp_ticket *lease);
/* MGP_OK or MGP_ERR_STALE. */
int mgp_pool_create_failed(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket creation,
                           enum mgp_fault fault);
/* What somebody else saw of an endpoint counts for its breaker as the end of a creation does: a
 * failure not while it refuses creations, a success always. An opening is counted in `row`.
 * MGP_OK or MGP_ERR_NOMEM. */
int mgp_pool_note_failure(struct mgp_pool *pool, int64_t now_ns, struct mgp_bytes url,
                          struct mgp_row *row);
void mgp_pool_note_success(struct mgp_pool *pool, int64_t now_ns, struct mgp_bytes url);
/* Its caller was cancelled; the creation goes on. MGP_OK or MGP_ERR_STALE. */
int mgp_pool_creation_unwanted(struct mgp_pool *pool, struct mgp_ticket creation);
/* The caller took the session of its creation: counted as a miss. MGP_OK or MGP_ERR_STALE. */
int mgp_pool_answer(struct mgp_pool *pool, struct mgp_ticket ticket);
/* Leak detection: a checkout whose caller has it is reported, and counted, once it has lasted
 * for leak_detection_ns. `trace` says who began it: the reference is the machine's from now on,
 * and given back by one LONG_CHECKOUT or UNTRACKED effect. Once for each lease, right after it
 * was taken. MGP_OK; MGP_ERR_STALE, MGP_ERR_NOMEM: `trace` stays the caller's. */
int mgp_pool_track(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket, void *trace);
/* The caller was cancelled before it could take it: the session goes back, counted as
 * a cancellation. MGP_OK or MGP_ERR_STALE. */
int mgp_pool_undo(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket);

/* ---- release ---------------------------------------------------------------- */

enum mgp_verdict {
    MGP_VERDICT_GOOD,    /* reusable */
    MGP_VERDICT_DISCARD, /* healthy, but its caller does not want it used again */
    MGP_VERDICT_BROKEN,  /* unusable */
    MGP_VERDICT_LEAKED,  /* dropped by its caller without a release */
};

/* Ends a lease. MGP_OK, or MGP_ERR_STALE when it has ended already. */
int mgp_pool_release(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket ticket,
                     enum mgp_verdict verdict);
bool mgp_pool_is_leased(const struct mgp_pool *pool, struct mgp_ticket lease);
/* The payload of the session that a lease is of: borrowed; NULL where it has ended. */
void *mgp_pool_leased_payload(const struct mgp_pool *pool, struct mgp_ticket ticket);

/* ---- what happens to sessions ----------------------------------------------- */

/* The session turned out dead: an idle one is closed now, another when it comes back. */
void mgp_session_broken(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);
/* The same for whoever may only mark: nothing is closed now, but the session is not
 * handed out again. */
void mgp_session_mark_broken(struct mgp_session *session);
/* It is healthy, but not wanted any more: an idle one is closed now, another when it comes
 * back. Meanwhile it does not count against its key's limit: the next caller need not wait
 * for it. */
void mgp_session_retire(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);
/* Its endpoint may have lost its sessions: each that was verified before now is checked
 * once before it is handed out again. */
void mgp_session_suspect(struct mgp_pool *pool, struct mgp_session *session);
/* This one may be dead, which says nothing of the others of its endpoint: it is checked
 * once before it is handed out again. */
void mgp_session_doubt(struct mgp_session *session);
bool mgp_session_is_closing(const struct mgp_session *session);
bool mgp_session_is_leased(const struct mgp_session *session);
bool mgp_session_is_idle(const struct mgp_session *session);

struct mgp_session_times {
    int64_t created_ns;
    int64_t last_used_ns;
    int64_t expires_ns;
};
/* The bytes of its key, borrowed; size 0 when it is gone. */
struct mgp_bytes mgp_session_key(const struct mgp_session *session);
void mgp_session_read_times(const struct mgp_session *session, struct mgp_session_times *times);
/* As if it had been created, or last used, at that time; which never counts as a check.
 * O(idle sessions) at worst. Serves nobody: a session that is fit again thereby is seen
 * at the next occasion. */
void mgp_session_set_created(struct mgp_pool *pool, struct mgp_session *session,
                             int64_t created_ns);
void mgp_session_set_last_used(struct mgp_pool *pool, struct mgp_session *session,
                               int64_t last_used_ns);

/* A PROBE ended. MGP_OK or MGP_ERR_STALE. */
int mgp_pool_checked(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket check,
                     bool is_usable);
/* A CLOSE ended, or its bound has passed. MGP_OK or MGP_ERR_STALE. */
int mgp_pool_close_ended(struct mgp_pool *pool, int64_t now_ns, struct mgp_ticket close);

/* ---- the whole pool --------------------------------------------------------- */

/* No session created, or begun, before now is handed out again. Idle ones are closed
 * by mgp_pool_upkeep(), which is due at once. */
void mgp_pool_drain(struct mgp_pool *pool);
/* Refuses acquires for ever; fails every waiter; closes every open session. */
void mgp_pool_close(struct mgp_pool *pool, int64_t now_ns);
bool mgp_pool_is_closed(const struct mgp_pool *pool);
/* Only the flag: acquires are refused, or allowed again; sessions that come back while it
 * is set are closed. */
void mgp_pool_set_closed(struct mgp_pool *pool, bool is_closed);
/* Everything at once, when nothing can be closed any more: open sessions count as
 * broken and are GONE, waiters FAIL, every ticket is stale. */
void mgp_pool_abandon(struct mgp_pool *pool, int64_t now_ns);
/* Retires every session of a group's keys; also those that are closed already or still
 * created count against their keys' limits no more.
 * Returns how many open sessions are to go thereby. */
size_t mgp_pool_evict_group(struct mgp_pool *pool, int64_t now_ns, size_t which,
                            struct mgp_bytes name);

/* Does what is due, at most `budget` units of it. True when more is due now. */
bool mgp_pool_upkeep(struct mgp_pool *pool, int64_t now_ns, unsigned budget);
/* When mgp_pool_upkeep() is due next; INT64_MAX for never. */
int64_t mgp_pool_next_deadline(const struct mgp_pool *pool);

/* ---- effects ---------------------------------------------------------------- */

enum mgp_effect_kind {
    MGP_EFFECT_GRANT, /* wake `payload`'s waiter; it takes or cancels */
    MGP_EFFECT_FAIL,  /* wake it with `status`; the machine forgets it with this effect */
    MGP_EFFECT_CLOSE, /* close `payload`'s session, then mgp_pool_close_ended(ticket) */
    MGP_EFFECT_PROBE, /* check `payload`'s session, then mgp_pool_checked(ticket) */
    MGP_EFFECT_GONE,  /* the reference `payload` is the receiver's again */
    /* Open a session like `payload`'s, which is borrowed: the one of its key that was used last, or
     * NULL where none is open any more; then report it for `ticket`, as one that was begun by
     * an acquire. No caller waits for it. */
    MGP_EFFECT_CREATE,
    /* A checkout of `payload`'s session, which is borrowed, has lasted for leak_detection_ns, or
     * did when it ended. The reference `trace` is the receiver's again. */
    MGP_EFFECT_LONG_CHECKOUT,
    MGP_EFFECT_UNTRACKED, /* another one has ended: the reference `trace` is the receiver's again */
};

struct mgp_effect {
    enum mgp_effect_kind kind;
    void *payload;
    struct mgp_ticket ticket;
    enum mgp_eviction_reason reason; /* of CLOSE */
    int status;                      /* of FAIL */
    void *trace;                     /* of LONG_CHECKOUT and UNTRACKED */
    struct mgp_session_times times;  /* of GONE: what the session's were */
};

bool mgp_pool_has_effects(const struct mgp_pool *pool);
/* Takes the oldest; false when there is none. */
bool mgp_pool_next_effect(struct mgp_pool *pool, struct mgp_effect *effect);
/* A CLOSE effect cannot be carried out now: it comes again, after all others, under another ticket. */
void mgp_pool_put_off_close(struct mgp_pool *pool, struct mgp_ticket close);

/* ---- reading ---------------------------------------------------------------- */

/* What this pool counted, in the words of a metrics row. */
const uint64_t *mgp_pool_totals(const struct mgp_pool *pool);

struct mgp_pool_counts {
    size_t keys, endpoints, waiters, creating, active, idle, checking, closing;
    size_t ahead;             /* of `creating`: for nobody */
    uint64_t keys_evicted;    /* keys dropped, for whatever reason */
    uint64_t sessions_reaped; /* sessions closed by upkeep: lifetime or idle time-out */
};
void mgp_pool_read_counts(const struct mgp_pool *pool, struct mgp_pool_counts *counts);

struct mgp_key_view {
    struct mgp_bytes key;
    size_t waiters, creating, active, idle, checking, closing;
    const void *handle; /* for the visit of its sessions */
};
/* The numbers of the key that a waiter waits for; all zero when it no longer waits. */
void mgp_waiter_view_key(const struct mgp_waiter *waiter, struct mgp_key_view *view);
/* The same for a key by its bytes; all zero where there is none. */
void mgp_pool_view_key(struct mgp_pool *pool, uint64_t hash, struct mgp_bytes bytes,
                       struct mgp_key_view *view);

/* Visits every key. The visitor must not change the pool; a non-zero result stops. */
int mgp_pool_visit_keys(const struct mgp_pool *pool,
                        int (*visit)(const struct mgp_key_view *view, void *context),
                        void *context);
/* Within such a visit: the payloads of the key's sessions. */
enum mgp_session_kind {
    MGP_SESSIONS_IDLE, /* the next to be handed out first; without those under a check */
    MGP_SESSIONS_LEASED,
};
int mgp_key_visit_sessions(const struct mgp_key_view *view, enum mgp_session_kind kind,
                           int (*visit)(void *payload, void *context), void *context);

struct mgp_endpoint_view {
    struct mgp_bytes endpoint;
    uint32_t failures;
    bool is_open;
    int64_t open_until_ns; /* where is_open */
};
int mgp_pool_visit_breakers(const struct mgp_pool *pool,
                            int (*visit)(const struct mgp_endpoint_view *view, void *context),
                            void *context);
/* The same of one endpoint; false where no failure of it is known. */
bool mgp_pool_view_breaker(struct mgp_pool *pool, struct mgp_bytes url,
                           struct mgp_endpoint_view *view);
/* Every payload that the machine owns, for garbage collectors. */
int mgp_pool_visit_payloads(const struct mgp_pool *pool, int (*visit)(void *payload, void *context),
                            void *context);

/* Walks everything and aborts where an invariant does not hold (debug builds; else nothing). */
void mgp_pool_check(const struct mgp_pool *pool);

#endif
