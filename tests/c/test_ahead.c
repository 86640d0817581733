/* Sessions ready before they are needed: replacements, a reserve. */
#include "failing_alloc.h"
#include "pool_fixture.h"

#define LIFETIME (300 * SECOND)
#define LEAD (LIFETIME / 20) /* where creations take no time: what a replacement has */
#define RETRY (5 * SECOND)

static struct mgp_config
config_of_replacements(void)
{
    struct mgp_config config = pool_config();
    config.replaces_sessions = true;
    config.health_interval_ns = 1000000 * SECOND;
    return config;
}

static struct mgp_config
config_of_reserve(uint32_t min_idle_per_key)
{
    struct mgp_config config = pool_config();
    config.min_idle_per_key = min_idle_per_key;
    config.health_interval_ns = 1000000 * SECOND;
    config.lifetime_ns = 1000000 * SECOND;
    return config;
}

/* One checkout of an idle session, so that it is in use. */
static void
use(int key)
{
    struct caller *caller = pool_try_acquire(key);
    CHECK(caller != NULL);
    pool_advance(1);
    pool_release(caller, MGP_VERDICT_GOOD);
}

/* ---- replacements ----------------------------------------------------------------- */

static void
session_in_use_is_replaced_before_its_end(void)
{
    pool_start(config_of_replacements());
    (void)pool_open_idle(1);
    int64_t start_ns = now_ns;
    use(1);
    CHECK(mgp_pool_next_deadline(pool) == start_ns + LIFETIME - LEAD);
    now_ns = start_ns + LIFETIME - LEAD - 1;
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_advance(1);
    pool_upkeep();
    CHECK_EFFECTS("create c3");
    CHECK(pool_counts().creating == 1 && pool_counts().ahead == 1);
    (void)pool_created(pool_caller(3));
    CHECK(pool_counts().idle == 2 && pool_counts().ahead == 0);
    CHECK(pool_total(MGP_WORD_REPLACEMENTS) == 1);
    CHECK(pool_total(MGP_WORD_MISSES) == 1);
    now_ns = start_ns + LIFETIME;
    pool_upkeep();
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_end();
}

static void
session_that_takes_long_to_open_is_replaced_so_much_earlier(void)
{
    pool_start(config_of_replacements());
    struct caller *c1 = pool_acquire(1);
    pool_advance(10 * SECOND);
    pool_create(c1);
    CHECK(mgp_pool_next_deadline(pool) == now_ns + LIFETIME - LEAD - 20 * SECOND);
    struct caller *c2 = pool_acquire(1);
    pool_advance(LIFETIME); /* one that takes as long as it lives */
    pool_create(c2);
    pool_upkeep();
    CHECK(mgp_pool_next_deadline(pool) == now_ns + LIFETIME / 2);
    pool_end();
}

static void
session_that_nobody_misses_is_not_replaced(void)
{
    pool_start(config_of_replacements());
    pool_spec(1)->is_single_use = true;
    (void)pool_open(1);
    pool_broken(pool_open(2)->opened);
    pool_retire(pool_open(3)->opened);
    (void)pool_open(4);
    pool_drain();
    pool_advance(LIFETIME - LEAD);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(pool_counts().active == 4 && pool_counts().ahead == 0);
    pool_end();
}

static void
key_that_was_not_used_for_a_lifetime_has_no_replacement(void)
{
    struct mgp_config config = config_of_replacements();
    config.idle_timeout_ns = 1000000 * SECOND;
    config.max_leases_per_session = 2;
    pool_start(config);
    struct opened *s1 = pool_open_idle(1);
    struct mgp_session *old = s1->session;
    mgp_session_set_created(pool, old, now_ns + 10 * LIFETIME);
    pool_advance(11 * LIFETIME - LEAD);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(pool_counts().idle == 1);
    pool_end();
}

static void
session_that_was_opened_ahead_and_never_used_is_not_replaced(void)
{
    pool_start(config_of_replacements());
    (void)pool_open_idle(1);
    pool_advance(LIFETIME - LEAD);
    use(1);
    pool_upkeep();
    CHECK_EFFECTS("create c3");
    (void)pool_created(pool_caller(3));
    pool_advance(LEAD);
    pool_upkeep();
    CHECK_EFFECTS("close s1 ttl_expired");
    pool_close_ended(pool_session(1));
    CHECK_EFFECTS("gone s1");
    pool_advance(LIFETIME - 2 * LEAD);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_end();
}

/* Asked for under some state of things; what the machine says to it. */
static void
check_replacement(const char *expected)
{
    pool_advance(LIFETIME - LEAD);
    pool_upkeep();
    CHECK_EFFECTS(expected);
}

static void
replacement_takes_only_a_place_that_nobody_wants(void)
{
    struct mgp_config config = config_of_replacements();
    config.max_sessions_per_key = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    check_replacement("");
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_end();

    config = config_of_replacements();
    config.max_total_sessions = 1;
    pool_start(config);
    (void)pool_open(1);
    check_replacement("");
    pool_end();

    config = config_of_replacements();
    config.max_creating_per_endpoint = 2; /* the last creation is left to whoever comes */
    pool_start(config);
    struct caller *held = pool_open(1);
    (void)pool_acquire(2);
    check_replacement("");
    pool_release(held, MGP_VERDICT_GOOD);
    pool_end();

    config = config_of_replacements();
    config.breaker_threshold = 1;
    pool_start(config);
    (void)pool_open(1);
    pool_create_failed(pool_acquire(2), MGP_FAULT_ENDPOINT);
    pool_advance(LIFETIME - LEAD);
    pool_upkeep();
    CHECK(pool_counts().ahead == 0);
    pool_end();
}

static void
few_are_opened_ahead_at_one_endpoint_at_once(void)
{
    static const struct {
        uint32_t max_creating;
        size_t ahead;
    } bounds[] = {{0, 8}, {3, 1}, {8, 2}, {32, 8}, {100, 8}};
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        struct mgp_config config = config_of_replacements();
        config.max_creating_per_endpoint = bounds[i].max_creating;
        config.idle_timeout_ns = 1000000 * SECOND;
        pool_start(config);
        for (int key = 1; key <= 20; key++) {
            (void)pool_open(key);
            (void)pool_open(key + 100);
        }
        pool_advance(LIFETIME - LEAD);
        pool_upkeep();
        CHECK(pool_counts().ahead == 2 * bounds[i].ahead);
        pool_end();
    }
}

static void
failed_replacement_is_no_failure_of_the_breaker_and_is_not_tried_again(void)
{
    struct mgp_config config = config_of_replacements();
    config.breaker_threshold = 1;
    pool_start(config);
    (void)pool_open(1);
    check_replacement("create c2");
    pool_create_failed(pool_caller(2), MGP_FAULT_ENDPOINT);
    CHECK(pool_total(MGP_WORD_CREATE_FAILURES) == 1);
    CHECK(pool_total(MGP_WORD_CIRCUIT_BREAKER_TRIPS) == 0);
    pool_advance(LEAD - 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(pool_counts().ahead == 0);
    pool_end();
}

static void
whoever_waits_gets_the_replacement(void)
{
    struct mgp_config config = config_of_replacements();
    config.max_sessions_per_key = 2;
    pool_start(config);
    (void)pool_open(1);
    check_replacement("create c2");
    struct caller *c3 = pool_acquire(1);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    (void)pool_created(pool_caller(2));
    CHECK_EFFECTS("grant c3");
    pool_take(c3);
    CHECK(c3->opened == pool_session(2));
    pool_end();
}

static void
nobody_is_refused_for_the_sake_of_a_replacement(void)
{
    struct mgp_config config = config_of_replacements();
    config.max_total_sessions = 2;
    pool_start(config);
    (void)pool_open(1);
    check_replacement("create c2");
    struct caller *c3 = pool_acquire(201);
    CHECK(c3->answer == MGP_ANSWER_WAIT);
    CHECK(pool_acquire(301)->status == MGP_ERR_EXHAUSTED); /* one place is to come, not two */
    (void)pool_created(pool_caller(2));
    CHECK_EFFECTS("close s2 capacity");
    pool_close_ended(pool_session(2));
    CHECK_EFFECTS("gone s2, grant c3");
    pool_end();
}

static void
key_whose_only_creation_is_ahead_can_be_evicted(void)
{
    struct mgp_config config = config_of_replacements();
    config.max_total_keys = 1;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    check_replacement("create c2");
    pool_release(c1, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s1 broken");
    CHECK(pool_acquire(2)->answer == MGP_ANSWER_CREATE);
    (void)pool_created(pool_caller(2));
    CHECK_EFFECTS("close s2 manual");
    pool_end();
}

static void
creation_ahead_ends_with_its_pool(void)
{
    pool_start(config_of_replacements());
    (void)pool_open(1);
    pool_hold_effects();
    pool_advance(LIFETIME - LEAD);
    pool_upkeep();
    CHECK(pool_counts().ahead == 1);
    pool_abandon(); /* before anybody has begun it: its CREATE effect goes, too */
    pool_run_effects();
    CHECK_EFFECTS("gone s1");
    pool_end();

    pool_start(config_of_replacements());
    (void)pool_open(1);
    check_replacement("create c2");
    pool_close();
    CHECK_EFFECTS("close s1 manual");
    (void)pool_created(pool_caller(2));
    CHECK(pool_caller(2)->status == MGP_ERR_CLOSED);
    CHECK_EFFECTS("close s2 manual");
    pool_end();
}

static void
create_effect_names_the_session_of_its_key_that_was_used_last(void)
{
    struct mgp_config config = config_of_replacements();
    pool_start(config);
    (void)pool_open_idle(1);
    use(1);
    pool_hold_effects();
    pool_advance(LIFETIME - LEAD);
    pool_upkeep();
    struct mgp_effect effect;
    CHECK(mgp_pool_next_effect(pool, &effect));
    CHECK(effect.kind == MGP_EFFECT_CREATE && effect.payload == pool_session(1));
    CHECK(mgp_pool_create_failed(pool, now_ns, effect.ticket, MGP_FAULT_CALLER) == MGP_OK);
    pool_run_effects();
    pool_end();
}

/* ---- a reserve -------------------------------------------------------------------- */

static void
key_in_use_keeps_so_many_idle(void)
{
    pool_start(config_of_reserve(2));
    struct caller *c1 = pool_open(1);
    pool_upkeep();
    CHECK_EFFECTS("create c2, create c3");
    (void)pool_created(pool_caller(2));
    (void)pool_created(pool_caller(3));
    CHECK(pool_counts().idle == 2 && pool_counts().active == 1);
    CHECK(pool_total(MGP_WORD_REPLACEMENTS) == 0);
    struct caller *c4 = pool_try_acquire(1);
    pool_upkeep();
    CHECK_EFFECTS("create c5");
    (void)pool_created(pool_caller(5));
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_release(c4, MGP_VERDICT_GOOD);
    pool_upkeep();
    CHECK_EFFECTS("");
    CHECK(pool_counts().idle == 4);
    pool_end();
}

static void
reserve_without_a_place_is_tried_again_later(void)
{
    struct mgp_config config = config_of_reserve(1);
    config.max_total_sessions = 2;
    pool_start(config);
    struct caller *c1 = pool_open(1), *c2 = pool_open(101);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_release(c2, MGP_VERDICT_BROKEN);
    CHECK_EFFECTS("close s2 broken");
    pool_close_ended(pool_session(2));
    CHECK_EFFECTS("gone s2");
    pool_advance(RETRY);
    pool_upkeep();
    CHECK_EFFECTS("create c3");
    pool_create_failed(pool_caller(3), MGP_FAULT_ENDPOINT);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_advance(RETRY);
    pool_upkeep();
    CHECK_EFFECTS("create c4");
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_end();
}

/* There is nothing that it could be like: it would fail at once, and count as a failure. */
static void
key_without_a_session_keeps_nothing(void)
{
    pool_start(config_of_reserve(1));
    struct caller *c1 = pool_open(1), *c2 = pool_acquire(1);
    pool_release(c1, MGP_VERDICT_BROKEN);
    pool_close_ended(c1->opened);
    CHECK_EFFECTS("close s1 broken, gone s1");
    CHECK(pool_counts().creating == 1);
    pool_upkeep();
    CHECK_EFFECTS("");
    pool_create(c2);
    pool_advance(RETRY);
    pool_upkeep();
    CHECK_EFFECTS("create c3");
    pool_end();
}

static void
key_that_nobody_uses_keeps_nothing(void)
{
    struct mgp_config config = config_of_reserve(1);
    config.idle_timeout_ns = 100 * SECOND;
    pool_start(config);
    struct caller *c1 = pool_open(1);
    pool_upkeep();
    CHECK_EFFECTS("create c2");
    (void)pool_created(pool_caller(2));
    pool_release(c1, MGP_VERDICT_GOOD);
    pool_advance(100 * SECOND);
    pool_upkeep();
    CHECK_EFFECTS("close s2 idle_timeout, close s1 idle_timeout");
    pool_end();
}

/* ---- out of memory ------------------------------------------------------------------- */

/* Upkeep does without: each allocation of it fails in turn. */
static void
upkeep_without_memory_opens_nothing_ahead_and_loses_nothing(void)
{
    for (size_t n = 1;; n++) {
        struct mgp_config config = config_of_replacements();
        config.min_idle_per_key = 1;
        pool_start(config);
        for (int key = 1; key <= 8; key++) {
            (void)pool_open(key * 100);
        }
        pool_advance(LIFETIME - LEAD);
        size_t calls = failing_alloc_calls();
        failing_alloc_fail_at(n);
        pool_upkeep();
        bool was_short = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        CHECK(failing_alloc_calls() > calls);
        CHECK(pool_counts().ahead == (was_short ? 15 : 16) || pool_counts().ahead == 8);
        CHECK(pool_counts().active == 8);
        pool_advance(RETRY);
        pool_upkeep(); /* what a reserve lacks is tried again */
        CHECK(pool_counts().ahead >= 8);
        pool_advance(LEAD);
        for (int i = 1; i <= 8; i++) {
            pool_release(pool_caller(i), MGP_VERDICT_GOOD);
        }
        CHECK(pool_counts().closing == 8); /* over their lifetime, as ever */
        pool_end();
        if (!was_short) {
            CHECK(n > 8);
            break;
        }
    }
}

static void
upkeep_for_which_no_memory_is_left_goes_on(void)
{
    struct mgp_config config = config_of_replacements();
    config.min_idle_per_key = 2;
    pool_start(config);
    for (int key = 1; key <= 8; key++) {
        (void)pool_open_idle(key);
    }
    use(1);
    pool_advance(LIFETIME - LEAD);
    failing_alloc_fail_from(1);
    pool_upkeep();
    CHECK(failing_alloc_has_failed());
    CHECK(pool_counts().ahead == 0 && pool_counts().creating == 0);
    pool_advance(LEAD);
    pool_upkeep();
    CHECK(pool_counts().idle == 0 && pool_counts().closing == 8);
    failing_alloc_fail_at(0);
    pool_end();
}

int
main(void)
{
    RUN(session_in_use_is_replaced_before_its_end);
    RUN(session_that_takes_long_to_open_is_replaced_so_much_earlier);
    RUN(session_that_nobody_misses_is_not_replaced);
    RUN(key_that_was_not_used_for_a_lifetime_has_no_replacement);
    RUN(session_that_was_opened_ahead_and_never_used_is_not_replaced);
    RUN(replacement_takes_only_a_place_that_nobody_wants);
    RUN(few_are_opened_ahead_at_one_endpoint_at_once);
    RUN(failed_replacement_is_no_failure_of_the_breaker_and_is_not_tried_again);
    RUN(whoever_waits_gets_the_replacement);
    RUN(nobody_is_refused_for_the_sake_of_a_replacement);
    RUN(key_whose_only_creation_is_ahead_can_be_evicted);
    RUN(creation_ahead_ends_with_its_pool);
    RUN(create_effect_names_the_session_of_its_key_that_was_used_last);
    RUN(key_in_use_keeps_so_many_idle);
    RUN(reserve_without_a_place_is_tried_again_later);
    RUN(key_without_a_session_keeps_nothing);
    RUN(key_that_nobody_uses_keeps_nothing);
    RUN(upkeep_without_memory_opens_nothing_ahead_and_loses_nothing);
    RUN(upkeep_for_which_no_memory_is_left_goes_on);
    return harness_end();
}
