/* The pool's copies of keys hold bearer tokens, and those of URLs passwords: no block that is
 * given back to the allocator contains one, however the key went away. */
#include <string.h>

#include "../../csrc/base/alloc.h"
#include "failing_alloc.h"
#include "pool_fixture.h"

#define SECRET "Bearer c4n4ry"
#define SECRET_KEYS 3

/* Long enough for the whole name to lie where no allocator writes into a freed block. */
static const char secret_key[] = "................" SECRET "................";

static void
start(struct mgp_config config)
{
    pool_start(config);
    failing_alloc_forbid(SECRET);
    for (int key = 0; key < SECRET_KEYS; key++) {
        /* Distinct by their length. */
        struct mgp_key_spec *spec = pool_spec(key);
        spec->key = (struct mgp_bytes){secret_key, sizeof(secret_key) - 1 - (size_t)key};
        spec->endpoint = spec->key;
        spec->groups[0] = spec->key;
    }
    CHECK(failing_alloc_live_with(SECRET) == 0);
}

static void
end(void)
{
    CHECK(failing_alloc_live_with(SECRET) == 0);
    pool_end();
}

/* Each has a key, a group and an endpoint: or these tests would show nothing. */
static void
check_copies(size_t keys)
{
    CHECK(failing_alloc_live_with(SECRET) == 3 * keys);
}

static void
open_idle_keys(void)
{
    for (int key = 0; key < SECRET_KEYS; key++) {
        pool_open_idle(key);
    }
    check_copies(SECRET_KEYS);
}

static void
closed_pool_leaves_no_secret(void)
{
    start(pool_config());
    open_idle_keys();
    pool_close();
    for (int number = 1; number <= SECRET_KEYS; number++) {
        pool_close_ended(pool_session(number));
    }
    end();
}

static void
abandoned_pool_leaves_no_secret(void)
{
    start(pool_config());
    open_idle_keys();
    failing_alloc_forbid(SECRET);
    pool_end();
}

static void
key_that_was_idle_too_long_leaves_no_secret(void)
{
    start(pool_config());
    open_idle_keys();
    pool_advance(3600 * SECOND);
    pool_upkeep();
    for (int number = 1; number <= SECRET_KEYS; number++) {
        pool_close_ended(pool_session(number));
    }
    pool_upkeep();
    end();
}

static void
evicted_key_leaves_no_secret(void)
{
    struct mgp_config config = pool_config();
    config.max_total_keys = 1;
    start(config);
    pool_open_idle(0);
    check_copies(1);
    struct caller *next = pool_acquire(1);
    pool_close_ended(pool_session(1));
    check_copies(1);
    pool_create(next);
    pool_release(next, MGP_VERDICT_DISCARD);
    pool_close_ended(pool_session(2));
    end();
}

static void
failed_creation_leaves_its_url_alone_until_the_failure_is_forgotten(void)
{
    start(pool_config());
    pool_create_failed(pool_acquire(0), MGP_FAULT_ENDPOINT);
    CHECK(failing_alloc_live_with(SECRET) == 1);
    pool_advance(24 * 3600 * SECOND);
    pool_upkeep();
    end();
}

static void
acquire_that_runs_out_of_memory_leaves_no_secret(void)
{
    start(pool_config());
    for (size_t n = 1;; n++) {
        failing_alloc_fail_at(n);
        struct caller *caller = pool_acquire(0);
        if (!failing_alloc_has_failed()) {
            failing_alloc_fail_at(0);
            pool_create(caller);
            pool_release(caller, MGP_VERDICT_DISCARD);
            pool_close_ended(pool_session(1));
            break;
        }
        CHECK(caller->status != MGP_OK);
        CHECK(failing_alloc_live_with(SECRET) == 0);
    }
    end();
}

static void
forbidden_text_is_found_in_what_lives(void)
{
    failing_alloc_install();
    char *block = mgp_alloc(100);
    memcpy(block + 40, SECRET, sizeof(SECRET));
    CHECK(failing_alloc_live_with(SECRET) == 1);
    mgp_wipe(block, 100);
    CHECK(failing_alloc_live_with(SECRET) == 0);
    failing_alloc_forbid(SECRET);
    mgp_free(block);
    failing_alloc_uninstall();
}

int
main(void)
{
    RUN(forbidden_text_is_found_in_what_lives);
    RUN(closed_pool_leaves_no_secret);
    RUN(abandoned_pool_leaves_no_secret);
    RUN(key_that_was_idle_too_long_leaves_no_secret);
    RUN(evicted_key_leaves_no_secret);
    RUN(failed_creation_leaves_its_url_alone_until_the_failure_is_forgotten);
    RUN(acquire_that_runs_out_of_memory_leaves_no_secret);
    return harness_end();
}
