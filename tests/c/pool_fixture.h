/* A pool under test: fake time, and numbers for names. Callers are c1, c2, ... in the
 * order of their acquires, sessions s1, s2, ... in the order in which they were opened.
 * Each function does one operation, checks the whole pool and its counters, and drains
 * the effects into a log, which CHECK_EFFECTS reads and empties:
 *
 *     pool_start(pool_config());
 *     struct caller *first = pool_open(1);
 *     struct caller *second = pool_acquire(1);
 *     pool_release(first, MGP_VERDICT_GOOD);
 *     CHECK_EFFECTS("grant c2");
 *     ...
 *     pool_end(); */
#ifndef MGP_TESTS_POOL_FIXTURE_H
#define MGP_TESTS_POOL_FIXTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "../../csrc/core/pool.h"
#include "harness.h"

#define SECOND INT64_C(1000000000)

/* A session as its opener sees it: the machine's payload. */
struct opened {
    int number;
    int gone; /* how often the machine gave it back */
    struct mgp_session *session;
    struct mgp_ticket probe; /* of the last PROBE and CLOSE effects; generation 0: none yet */
    struct mgp_ticket close;
};

struct caller {
    int number;
    int key;
    int status;                /* of its acquire; then of the FAIL effect */
    enum mgp_answer answer;    /* of its acquire; then of what it took */
    struct mgp_ticket ticket;  /* of its creation, then of its lease */
    struct opened *opened;     /* what it leases, or leased */
    struct mgp_waiter *waiter; /* while it waits or is granted */
    bool is_granted;
    bool is_tracked; /* the machine has it as the trace of its checkout */
};

/* Generous settings without jitter, for a test to narrow: 10 sessions per key and no other
 * limit; a breaker of 5 failures and 60 s; lifetime 300 s; idle time-out 600 s; health
 * interval 60 s; 10 checks per second. */
struct mgp_config pool_config(void);
/* The same, but no lifetime ends while a test lasts. */
struct mgp_config pool_config_long_lived(void);
void pool_start(struct mgp_config config);
/* Abandons the pool and checks that every session was given back once and all memory freed. */
void pool_end(void);

extern struct mgp_pool *pool;
extern int64_t now_ns;
void pool_advance(int64_t duration_ns);

/* Key number k, of endpoint k / 100, in no group; what the test changes in it counts for the
 * acquires that come. Rows are per endpoint. */
struct mgp_key_spec *pool_spec(int key);
#define KEYS_MAX 1000
void pool_name(char *name, struct mgp_bytes *bytes, const char *prefix, int number);

/* Acquire, however it is answered. */
struct caller *pool_acquire(int key);
/* The same by mgp_pool_try_acquire(), without a caller where that has no answer. */
struct caller *pool_try_acquire(int key);
/* Acquire and create: the caller holds the lease of a new session. */
struct caller *pool_open(int key);
/* The same for a session that comes back at once: an idle one. */
struct opened *pool_open_idle(int key);

/* The caller, and the session, of that number. */
struct caller *pool_caller(int number);
struct opened *pool_session(int number);

void pool_take(struct caller *caller);
void pool_cancel(struct caller *caller, enum mgp_cancel_reason reason);
/* The creation of a caller that was answered CREATE ends well, and the caller takes it. */
void pool_create(struct caller *caller);
/* The same without the caller's answer. */
struct opened *pool_created(struct caller *caller);
void pool_create_failed(struct caller *caller, enum mgp_fault fault);
void pool_unwanted(struct caller *caller);
void pool_answer(struct caller *caller);
void pool_undo(struct caller *caller);
void pool_release(struct caller *caller, enum mgp_verdict verdict);
/* The caller is its own trace. */
void pool_track(struct caller *caller);

void pool_broken(struct opened *opened);
void pool_suspect(struct opened *opened);
void pool_retire(struct opened *opened);
void pool_doubt(struct opened *opened);
void pool_set_created(struct opened *opened, int64_t created_ns);
void pool_set_last_used(struct opened *opened, int64_t last_used_ns);
void pool_checked(struct opened *opened, bool is_usable);
void pool_close_ended(struct opened *opened);

void pool_drain(void);
void pool_close(void);
void pool_abandon(void);
void pool_evict_group(size_t group, const char *name);
/* With a budget that is enough for all; checks that nothing is due afterwards. */
void pool_upkeep(void);
/* One unit of work. */
bool pool_upkeep_step(void);

/* Effects stay queued until pool_run_effects(). */
void pool_hold_effects(void);
void pool_run_effects(void);
/* The log since the last call: "grant c2, fail c3 closed, close s1 capacity, probe s1, gone s1,
 * long c1, untracked c2". */
#define CHECK_EFFECTS(expected) pool_check_effects(__FILE__, __LINE__, expected)
void pool_check_effects(const char *file, int line, const char *expected);

struct mgp_pool_counts pool_counts(void);
struct mgp_key_view pool_view(int key);
uint64_t pool_total(size_t word); /* enum mgp_word */
uint64_t pool_evictions(enum mgp_eviction_reason reason);
/* For tests that call the machine themselves. */
void pool_check(void);

#endif
