/* What the tests of upkeep and of suspicion share. */
#ifndef MGP_TESTS_UPKEEP_HELPERS_H
#define MGP_TESTS_UPKEEP_HELPERS_H

#include "pool_fixture.h"

#define LIFETIME (300 * SECOND)
#define INTERVAL (60 * SECOND)

static struct mgp_config
config_per_key(uint32_t max_sessions_per_key)
{
    struct mgp_config config = pool_config_long_lived();
    config.max_sessions_per_key = max_sessions_per_key;
    return config;
}

/* So many idle sessions of a key, the first with the lowest number; the last is the most
 * recently used. */
static void
open_idle_sessions(int key, int count)
{
    struct caller *callers[100];
    CHECK(count <= 100);
    for (int i = 0; i < count; i++) {
        callers[i] = pool_open(key);
    }
    for (int i = 0; i < count; i++) {
        pool_advance(1);
        pool_release(callers[i], MGP_VERDICT_GOOD);
    }
}

#endif
