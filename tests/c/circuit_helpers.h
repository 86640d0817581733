/* What the tests of circuit breakers share. */
#ifndef MGP_TESTS_CIRCUIT_HELPERS_H
#define MGP_TESTS_CIRCUIT_HELPERS_H

#include <stdbool.h>
#include <string.h>

#include "pool_fixture.h"

#define THRESHOLD 5
#define RESET (60 * SECOND)

static void
fail_to_open(int key)
{
    struct caller *caller = pool_acquire(key);
    CHECK(caller->answer == MGP_ANSWER_CREATE);
    pool_create_failed(caller, MGP_FAULT_ENDPOINT);
}

/* Opens the breaker of the key's endpoint. */
static void
trip(int key)
{
    for (int i = 0; i < THRESHOLD; i++) {
        fail_to_open(key);
    }
    CHECK(pool_acquire(key)->status == MGP_ERR_CIRCUIT_OPEN);
}

struct found {
    const char *url;
    struct mgp_endpoint_view view;
};

static int
find_breaker(const struct mgp_endpoint_view *view, void *context)
{
    struct found *found = context;
    if (view->endpoint.size == strlen(found->url) &&
        memcmp(view->endpoint.bytes, found->url, view->endpoint.size) == 0) {
        found->view = *view;
        return 1;
    }
    return 0;
}

/* What is known of an endpoint's failures; false when nothing is. */
static bool
breaker_of(const char *url, struct mgp_endpoint_view *view)
{
    struct found found = {.url = url};
    bool is_known = mgp_pool_visit_breakers(pool, find_breaker, &found) != 0;
    *view = found.view;
    return is_known;
}

#endif
