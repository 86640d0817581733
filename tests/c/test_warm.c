/* warm(): sessions that are asked for before a caller needs them. */
#include <string.h>

#include "failing_alloc.h"
#include "pool_fixture.h"

static int
warm(int key, uint32_t count, struct mgp_ticket *ticket)
{
    const struct mgp_key_spec *spec = pool_spec(key);
    int status = mgp_pool_warm(pool, now_ns, mgp_pool_hash(pool, spec->key.bytes, spec->key.size),
                               spec, count, ticket);
    pool_check();
    return status;
}

/* The session of a creation that warm() began. */
static void
open_warmed(struct mgp_ticket creation)
{
    static struct opened payload;
    struct mgp_ticket lease;
    payload = (struct opened){.number = 99};
    CHECK(mgp_pool_created(pool, now_ns, creation, &payload, &payload.session, &lease) == MGP_OK);
    CHECK(lease.generation == 0);
}

/* ---- warm -------------------------------------------------------------------------- */

static void
warm_begins_one_creation_after_the_other_until_there_are_enough(void)
{
    struct mgp_ticket first, second, none;
    pool_start(pool_config());
    CHECK(warm(1, 2, &first) == MGP_OK && first.generation != 0);
    CHECK(warm(1, 2, &second) == MGP_OK && second.generation != 0);
    CHECK(warm(1, 2, &none) == MGP_OK && none.generation == 0);
    CHECK(pool_counts().creating == 2 && pool_counts().ahead == 2);
    CHECK_EFFECTS(""); /* who warms opens them */
    open_warmed(first);
    CHECK(warm(1, 2, &none) == MGP_OK && none.generation == 0);
    CHECK(warm(1, 3, &none) == MGP_OK && none.generation != 0);
    CHECK(mgp_pool_create_failed(pool, now_ns, second, MGP_FAULT_ENDPOINT) == MGP_OK);
    CHECK(mgp_pool_create_failed(pool, now_ns, none, MGP_FAULT_CALLER) == MGP_OK);
    CHECK(pool_counts().idle == 1 && pool_counts().creating == 0);
    CHECK(pool_total(MGP_WORD_MISSES) == 0);
    mgp_pool_abandon(pool, now_ns);
    struct mgp_effect effect;
    CHECK(mgp_pool_next_effect(pool, &effect) && effect.kind == MGP_EFFECT_GONE);
    pool_end();
}

static void
warm_says_why_it_begins_nothing(void)
{
    struct mgp_ticket ticket;
    struct mgp_config config = pool_config();
    config.max_total_keys = 1;
    config.max_sessions_per_key = 2;
    config.breaker_threshold = 1;
    pool_start(config);
    (void)pool_open(1);
    CHECK(warm(2, 1, &ticket) == MGP_ERR_EXHAUSTED); /* a key too many */
    (void)pool_open(1);
    CHECK(warm(1, 5, &ticket) == MGP_ERR_EXHAUSTED); /* no place in the key */
    CHECK(ticket.generation == 0);
    pool_end();

    pool_start(config);
    pool_create_failed(pool_acquire(1), MGP_FAULT_ENDPOINT);
    CHECK(warm(2, 1, &ticket) == MGP_ERR_CIRCUIT_OPEN);
    CHECK(pool_total(MGP_WORD_ACQUIRE_REJECTIONS + MGP_REJECTION_CIRCUIT_OPEN) == 0);
    pool_close();
    CHECK(warm(1, 1, &ticket) == MGP_ERR_CLOSED);
    pool_end();

    pool_start(config);
    pool_spec(1)->is_single_use = true;
    CHECK(warm(1, 1, &ticket) == MGP_OK && ticket.generation == 0);
    CHECK(pool_counts().keys == 0);
    pool_end();
}

/* ---- out of memory ------------------------------------------------------------------- */

/* What warm() must have left as it was. */
struct snapshot {
    struct mgp_pool_counts counts;
    uint64_t totals[MGP_WORD_COUNT];
    int64_t deadline_ns;
};

static void
take_snapshot(struct snapshot *snapshot)
{
    memset(snapshot, 0, sizeof(*snapshot));
    snapshot->counts = pool_counts();
    memcpy(snapshot->totals, mgp_pool_totals(pool), sizeof(snapshot->totals));
    snapshot->deadline_ns = mgp_pool_next_deadline(pool);
}

/* Fails each allocation of a warm() in turn; how many there are. */
static size_t
check_warm_without_memory(int key)
{
    struct mgp_ticket ticket;
    for (size_t failed = 0;; failed++) {
        struct snapshot before, after;
        take_snapshot(&before);
        failing_alloc_fail_at(failed + 1);
        int status = warm(key, 100, &ticket);
        bool was_short = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        if (status == MGP_OK) { /* or a table did not grow, which it does without */
            CHECK(ticket.generation != 0);
            CHECK(mgp_pool_create_failed(pool, now_ns, ticket, MGP_FAULT_CALLER) == MGP_OK);
            if (was_short) {
                continue;
            }
            return failed;
        }
        take_snapshot(&after);
        CHECK(status == MGP_ERR_NOMEM && ticket.generation == 0);
        CHECK(memcmp(&before, &after, sizeof(before)) == 0);
    }
}

static void
warm_whose_nth_allocation_fails_changes_nothing(void)
{
    struct mgp_config config = pool_config();
    config.max_total_keys = 2;
    pool_start(config);
    pool_spec(1)->groups[0] = (struct mgp_bytes){"group", 5};
    CHECK(check_warm_without_memory(1) > 5); /* a new key, and a new endpoint */
    struct caller *c1 = pool_open(1);
    CHECK(check_warm_without_memory(1) > 0); /* of a key that is there */
    CHECK(check_warm_without_memory(2) > 0); /* a new key of that endpoint */
    pool_release(c1, MGP_VERDICT_GOOD);
    (void)pool_open(3);
    (void)pool_open(4); /* in the place of the first key, which closes */
    CHECK_EFFECTS("close s1 capacity");
    pool_end();
}

static void
key_on_its_way_out_stays_so_where_warm_has_no_memory(void)
{
    struct mgp_config config = pool_config();
    config.max_total_keys = 2;
    pool_start(config);
    (void)pool_open_idle(1);
    struct caller *c2 = pool_open(2);
    (void)pool_open(3); /* evicts the first key */
    CHECK_EFFECTS("close s1 capacity");
    pool_release(c2, MGP_VERDICT_BROKEN);
    pool_close_ended(c2->opened);
    CHECK(pool_counts().keys == 1);
    CHECK(check_warm_without_memory(1) > 0);
    pool_end();
}

int
main(void)
{
    RUN(warm_begins_one_creation_after_the_other_until_there_are_enough);
    RUN(warm_says_why_it_begins_nothing);
    RUN(warm_whose_nth_allocation_fails_changes_nothing);
    RUN(key_on_its_way_out_stays_so_where_warm_has_no_memory);
    return harness_end();
}
