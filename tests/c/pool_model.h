/* The naive model of a pool, for test_pool_model.c alone, of which this is a part.
 *
 * It knows nothing of lists, orders and queues: sessions, leases and waiters are entries
 * of arrays, and every question is a scan. Here is its state; beside it, what can be asked of it
 * (pool_model_questions.h, pool_model_fairness.h), and how each thing that happens changes it
 * (pool_model_changes.h). */
#ifndef MGP_TESTS_POOL_MODEL_H
#define MGP_TESTS_POOL_MODEL_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "../../csrc/core/machine.h"
#include "harness.h"

#define SECOND INT64_C(1000000000)
#define KEYS 8
#define ENDPOINTS 3
#define ROWS 2
#define GROUP_NAMES 3
#define SESSIONS_MAX 512
#define LEASES_MAX 512
#define TRACES_MAX 1024 /* of leases that last, and of others whose effect is to come */
#define WAITERS_MAX 128
#define TICKETS_MAX 64
#define NEVER (-1)

enum operation {
    OP_TRY_ACQUIRE,
    OP_ACQUIRE,
    OP_TAKE,
    OP_CANCEL,
    OP_CREATED,
    OP_CREATE_FAILED,
    OP_UNWANTED,
    OP_ANSWER,
    OP_UNDO,
    OP_RELEASE,
    OP_BROKEN,
    OP_MARK_BROKEN,
    OP_SUSPECT,
    OP_DOUBT,
    OP_SET_CREATED,
    OP_SET_LAST_USED,
    OP_CHECKED,
    OP_CLOSE_ENDED,
    OP_DRAIN,
    OP_CLOSE,
    OP_SET_CLOSED,
    OP_ABANDON,
    OP_EVICT_GROUP,
    OP_RETIRE,
    OP_UPKEEP,
    OP_WARM,
    OP_TRACK,
    OP_STALE,
    OP_EFFECTS,
    OP_COUNT,
};

struct session { /* the payload of the machine's session */
    bool is_used;
    enum mgp_session_state state;
    struct mgp_session *core;
    int key;
    int64_t created_ns, last_used_ns, verified_ns, expires_ns;
    unsigned leases;
    bool is_ticket_known; /* to whoever creates it */
    bool is_trial, is_unwanted, is_broken, is_retired;
    bool is_ahead, is_replacement;   /* opened for nobody */
    bool is_apart;                   /* its key's limit, and its key's callers, know it no more */
    bool is_drained;                 /* of before the last drain */
    bool is_idle_since_opening;      /* of its breaker; then, too, it is suspected */
    uint64_t begun;                  /* number of the event */
    bool is_suspected;               /* verified before the last suspicion */
    bool is_returned;                /* in this operation */
    bool is_supply;                  /* CLOSING, for a key that starves */
    bool may_lack_background_checks; /* its key was not used for two intervals once */
    struct mgp_ticket creation, check, close; /* generation 0: not delivered */
    enum mgp_eviction_reason reason;          /* of its close; while CHECKING, if that fails */
    int effect;                               /* enum mgp_effect_kind that is to come, or NEVER */
};

struct lease {
    bool is_used;
    struct session *session;
    struct mgp_ticket ticket;
    int64_t since_ns; /* that its caller has it */
    bool is_known;    /* to its caller: not merely granted */
    bool is_taken;
    bool is_older;       /* than the last suspicion of its endpoint */
    struct trace *trace; /* NULL where it is not tracked, or not any more */
};

struct trace { /* the machine's reference, while a checkout is tracked */
    bool is_used;
    const struct session *session;
    int64_t since_ns;
    bool is_ended; /* its effect is to come, */
    bool is_long;  /* and says this */
};

struct waiter { /* the payload of the machine's waiter */
    bool is_used;
    enum mgp_waiter_state state;
    struct mgp_waiter *core;
    int key;
    uint64_t number; /* in the order of arrival */
    int64_t since_ns;
    struct lease *lease;     /* granted; NULL: none, or taken back */
    struct session *session; /* granted to be created; likewise */
    int status;
    bool is_delivered;
};

struct key {
    bool exists;
    bool is_retiring;
    int64_t last_used_ns;
    uint64_t unused_since; /* operation number; valid while unused */
    uint64_t last_granted; /* number of the waiter whose GRANT effect came last */
};

struct endpoint {
    enum mgp_breaker_state state;
    unsigned failures;
    unsigned backoff;
    int64_t open_until_ns, last_failure_ns;
    int trip_row;
    uint64_t decided; /* number of the event that last showed whether it is up */
};

static struct mgp_pool *pool;
static struct mgp_config config;
static int64_t now_ns;
static bool is_closed;
static struct session sessions[SESSIONS_MAX];
static struct lease leases[LEASES_MAX];
static struct waiter waiters[WAITERS_MAX];
static struct trace traces[TRACES_MAX];
static int session_end, lease_end, waiter_end; /* nothing is used from there on */
static struct key keys[KEYS];
static struct endpoint endpoints[ENDPOINTS];
static uint64_t totals[MGP_WORD_COUNT];
static uint64_t row_totals[ROWS][MGP_WORD_COUNT];
static uint64_t keys_evicted, sessions_reaped, answered, arrivals, events;
static int64_t next_check_ns;
static size_t gone_total, opened_total;

static mgp_atomic_u64 row_words[ROWS][MGP_WORD_COUNT];
static struct mgp_row rows[ROWS];
static struct mgp_key_spec specs[KEYS];
static char key_names[KEYS][16], endpoint_names[ENDPOINTS][16], group_names[GROUP_NAMES][16];
static struct mgp_ticket stale_tickets[TICKETS_MAX];

/* Of the operation that runs. */
static enum operation operation;
static uint64_t operation_number;
static int operation_key;   /* that it names, or NEVER */
static int opened_endpoint; /* whose breaker it opened, or NEVER */
static int evicted_key;     /* that it evicted, or NEVER */
static bool was_unused[KEYS];
static unsigned closing_before;  /* of operation_key, with the session that the operation closed */
static unsigned checks_expected; /* of operation_key, at least */
static bool upkeep_is_complete;
static struct served { /* whom it gave what had come free */
    int key;
    uint64_t number;  /* in the order of arrival */
    bool is_creation; /* a place; else an idle session */
} served[WAITERS_MAX + 1];
static int served_count;

#endif
