/* libFuzzer target: bytes as operations on the pool machine, beside the naive model of
 * tests/c/test_pool_model.c, which predicts or judges everything that the machine does, and
 * with mgp_pool_check() after each operation.
 *
 * The first record of the input gives the settings, each further one an operation:
 *
 *   byte 0      which operation
 *   byte 1      bits 0-1 how many effects are delivered after it (3: all), bit 2 whether time
 *               passes before it, bits 3-5 which allocation of an acquire fails (0: none)
 *   bytes 2-7   the choices that model and operation ask for, one by one; when they are
 *               used up, numbers that follow from the record
 *
 * So an operation is the same wherever a mutation moves it. Each acquire is tried out of
 * memory first, where its record says so: it must then leave everything as it was. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/core/pool.h"

static int short_acquire(struct mgp_pool *pool, int64_t now_ns, uint64_t hash,
                         const struct mgp_key_spec *spec, struct mgp_acquired *acquired);

/* The model is the test's own, random numbers and main() apart. */
#define main test_pool_model_main
#define mgp_pool_acquire short_acquire
int test_pool_model_main(void);
#include "../c/test_pool_model.c"
#undef main
#undef mgp_pool_acquire

#define RECORD_BYTES 8
#define OPERATIONS_MAX 250
#define QUEUED_MAX 50
#define ALL_EFFECTS 3

/* ---- choices, in place of tests/c/harness.c ---------------------------------------- */

static uint8_t record[RECORD_BYTES];
static size_t next_choice; /* index in `record` */
static uint64_t further;

static void
record_load(const uint8_t *bytes)
{
    memcpy(record, bytes, RECORD_BYTES);
    memcpy(&further, bytes, sizeof(further));
    next_choice = 2;
}

uint64_t
harness_random(void)
{
    further += 0x9e3779b97f4a7c15;
    uint64_t z = further;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

static uint64_t
choose_below(uint64_t bound)
{
    if (bound <= 1) {
        return 0;
    }
    return (next_choice < RECORD_BYTES ? record[next_choice++] : harness_random()) % bound;
}

size_t
harness_random_below(size_t bound)
{
    return (size_t)choose_below(bound);
}

int64_t
harness_random_ns_below(int64_t bound_ns)
{
    return (int64_t)choose_below((uint64_t)bound_ns);
}

void
harness_random_seed(uint64_t seed)
{
    further = seed;
}

uint64_t
harness_seed(void)
{
    return 0;
}

void
harness_run(const char *claim, void (*test)(void))
{
    (void)claim;
    test();
}

int
harness_end(void)
{
    return 0;
}

_Noreturn void
harness_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: operation %u (kind %d): not true: %s\n", file, line,
            (unsigned)operation_number, (int)operation, condition);
    abort();
}

/* ---- out of memory ------------------------------------------------------------------ */

/* What an acquire that failed must have left as it was, besides what check_pool() sees. */
struct outside {
    struct mgp_pool_counts counts;
    int64_t deadline_ns;
    bool has_effects;
};

static struct outside
look(void)
{
    struct outside outside;
    memset(&outside, 0, sizeof(outside));
    mgp_pool_read_counts(pool, &outside.counts);
    outside.deadline_ns = mgp_pool_next_deadline(pool);
    outside.has_effects = mgp_pool_has_effects(pool);
    return outside;
}

static int
short_acquire(struct mgp_pool *at, int64_t at_ns, uint64_t hash, const struct mgp_key_spec *spec,
              struct mgp_acquired *acquired)
{
    size_t which = record[1] >> 3 & 7;
    struct outside before = look();
    failing_alloc_fail_at(which);
    int status = mgp_pool_acquire(at, at_ns, hash, spec, acquired);
    failing_alloc_fail_at(0);
    if (status != MGP_ERR_NOMEM) {
        return status;
    }
    struct outside after = look();
    CHECK(which > 0 && acquired->answer == MGP_ANSWER_NONE);
    CHECK(memcmp(&before.counts, &after.counts, sizeof(before.counts)) == 0);
    CHECK(before.deadline_ns <=
          after.deadline_ns); /* what is under a check was found not to be due */
    CHECK(before.has_effects == after.has_effects);
    check_pool();
    return mgp_pool_acquire(at, at_ns, hash, spec, acquired);
}

/* ---- the run ------------------------------------------------------------------------ */

static unsigned
count_queued(void)
{
    unsigned queued = 0;
    for (int i = 0; i < session_end; i++) {
        queued += sessions[i].is_used && sessions[i].effect != NEVER;
    }
    return queued;
}

/* So many, or all; and never more queued than the model has room for. */
static void
deliver_effects(unsigned count)
{
    for (unsigned i = 0; i < count || count == ALL_EFFECTS; i++) {
        if (!deliver_effect()) {
            return;
        }
    }
    while (count_queued() > QUEUED_MAX && deliver_effect()) {
    }
}

/* Many of what drives sessions on, few of what ends them all. */
static enum operation
operation_of(uint8_t number)
{
    static const struct {
        enum operation operation;
        unsigned weight; /* their sum is 256 */
    } weights[] = {
        {OP_ACQUIRE, 52},      {OP_RELEASE, 32},     {OP_CREATED, 20},      {OP_ANSWER, 20},
        {OP_TAKE, 20},         {OP_CLOSE_ENDED, 18}, {OP_TRY_ACQUIRE, 14},  {OP_CHECKED, 14},
        {OP_UPKEEP, 12},       {OP_EFFECTS, 8},      {OP_CREATE_FAILED, 8}, {OP_CANCEL, 6},
        {OP_STALE, 5},         {OP_SUSPECT, 4},      {OP_UNWANTED, 3},      {OP_UNDO, 3},
        {OP_SET_LAST_USED, 3}, {OP_SET_CREATED, 2},  {OP_BROKEN, 2},        {OP_MARK_BROKEN, 2},
        {OP_DOUBT, 2},         {OP_EVICT_GROUP, 2},  {OP_DRAIN, 1},         {OP_CLOSE, 1},
        {OP_SET_CLOSED, 1},    {OP_ABANDON, 1},
    };
    size_t i = 0;
    unsigned left = number;
    while (left >= weights[i].weight) {
        left -= weights[i].weight;
        i++;
    }
    return weights[i].operation;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2 * RECORD_BYTES) {
        return 0;
    }
    size_t count = size / RECORD_BYTES - 1;
    record_load(data);
    start();
    for (size_t i = 0; i < count && i < OPERATIONS_MAX; i++) {
        record_load(data + (i + 1) * RECORD_BYTES);
        if (record[1] & 4) {
            now_ns += any_duration();
        }
        if (is_closed && chance(4)) {
            do_set_closed(false);
        }
        step(operation_of(record[0]));
        deliver_effects(record[1] & 3);
    }
    end();
    return 0;
}
