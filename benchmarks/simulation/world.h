/* What stands around the pool machine here: a virtual clock, keys by number, gateways with their
 * counter rows and URLs, fake sessions, and a count of its own of all that happens, against which
 * the machine's counts are held. */
#ifndef MGP_SIMULATION_WORLD_H
#define MGP_SIMULATION_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include "../../csrc/core/pool.h"
#include "../../csrc/metrics/rows.h"

#define MICROSECOND INT64_C(1000)
#define MILLISECOND INT64_C(1000000)
#define SECOND INT64_C(1000000000)

/* Bytes of a key: about those of a user, a URL, and two short headers. */
#define KEY_BYTES 128
#define MAX_GATEWAYS 1000

/* The violation is printed, and the program ends with exit code 1. */
#define REQUIRE(condition)                                                                         \
    ((condition) ? (void)0 : fail_requirement(__FILE__, __LINE__, #condition))
_Noreturn void fail_requirement(const char *file, int line, const char *condition);

/* What the machine knows of a session: a payload. */
struct opened {
    struct opened *next_free;
    uint32_t gateway; /* whose server it is a session of */
    bool is_owed;     /* the machine has it, and will give it back once */
};

struct gateway {
    struct mgp_row *row;
    struct mgp_bytes url;
    char url_text[48];
};

/* What happened, as the callers saw it. */
struct tally {
    uint64_t acquires;
    uint64_t hits;
    uint64_t misses;
    uint64_t timeouts;
    uint64_t cancellations;
    uint64_t rejections;
    uint64_t failures;          /* callers whose creation failed */
    uint64_t unwanted_failures; /* creations that failed after their caller had gone */
    uint64_t unwanted_successes;
    uint64_t pending; /* callers without an answer */
    uint64_t holding; /* callers with a session */
    uint64_t opened;
    uint64_t gone;
    uint64_t checks;
    uint64_t failed_checks;
};

struct world {
    struct mgp_config config;
    struct mgp_pool *pool;
    struct mgp_rows rows;
    struct gateway gateways[MAX_GATEWAYS];
    uint32_t gateway_count;
    int64_t now_ns;
    struct tally tally;
    struct opened *opened; /* owned array */
    struct opened *free_opened;
    uint32_t opened_count; /* of the array, ever used */
    uint32_t opened_capacity;
    uint64_t operations; /* for debug builds: the whole pool is checked after some of them */
    uint32_t check_every;
    uint8_t key[KEY_BYTES]; /* of the key that was named last */
};

/* The gateway's own defaults, but for times long enough to keep everything. */
struct mgp_config world_config(void);
/* A pool without keys, for so many sessions at once. */
void world_init(struct world *world, const struct mgp_config *config, uint32_t gateways,
                uint32_t max_opened, uint32_t check_every);
/* Abandons what is open, and requires that nothing is left. */
void world_fini(struct world *world);

/* The key with this number: the bytes are in world->key; the answer is their hash. */
uint64_t world_name_key(struct world *world, uint32_t number);
/* mgp_pool_acquire() by the key with this number; counts what is answered at once. */
int world_acquire(struct world *world, uint32_t number, struct mgp_acquired *acquired);
/* The session of a creation is open, and its caller takes it: the lease. */
struct mgp_ticket world_create(struct world *world, struct mgp_ticket creation);
/* The caller of a waiter takes what it was granted, a session or a place. */
int world_take(struct world *world, struct mgp_waiter *waiter, struct mgp_acquired *acquired);
void world_cancel(struct world *world, struct mgp_waiter *waiter, enum mgp_cancel_reason reason);
void world_release(struct world *world, struct mgp_ticket lease, enum mgp_verdict verdict);

struct opened *world_open(struct world *world);
/* The oldest effect that is not GONE; false when there is none. */
bool world_next_effect(struct world *world, struct mgp_effect *effect);
/* Carries out all effects at once: closes end, checks pass. There may be none for waiters. */
void world_settle(struct world *world);
/* After each operation: in debug builds now and then a walk over the whole pool. */
void world_check(struct world *world);

/* Requires that what callers saw, what the machine counted, what its rows show and what it
 * holds agree. */
void world_audit(const struct world *world);
uint64_t world_total(const struct world *world, size_t word);
uint64_t world_total_of(const struct world *world, size_t first_word, size_t count);

#endif
