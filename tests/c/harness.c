#include "harness.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_SEED 20240229

/* Of libgcov, where the program is linked with it. */
__attribute__((weak)) void __gcov_dump(void);

static const char *running = "(no claim)";
static unsigned claims;
static uint64_t random_state;

uint64_t
harness_seed(void)
{
    const char *text = getenv("MGP_TEST_SEED");
    return text == NULL || *text == '\0' ? DEFAULT_SEED : strtoull(text, NULL, 0);
}

_Noreturn void
harness_fail(const char *file, int line, const char *condition)
{
    fprintf(stderr, "%s:%d: %s: not true: %s (MGP_TEST_SEED=%" PRIu64 ")\n", file, line, running,
            condition, harness_seed());
    abort();
}

void
harness_run(const char *claim, void (*test)(void))
{
    const char *left_out = getenv("MGP_TEST_LEAVE_OUT");
    if (left_out != NULL && strcmp(claim, left_out) == 0) {
        printf("left out: %s; ", claim);
        return;
    }
    running = claim;
    if (getenv("MGP_TEST_VERBOSE") != NULL) {
        printf("    %s\n", claim);
        fflush(stdout);
    }
    harness_random_seed(harness_seed());
    test();
    claims++;
}

int
harness_end(void)
{
    printf("%u claims hold (MGP_TEST_SEED=%" PRIu64 ")\n", claims, harness_seed());
    return claims == 0;
}

void
harness_note_reached(void)
{
    if (__gcov_dump != NULL) {
        __gcov_dump();
    }
}

_Noreturn void
harness_end_child(void)
{
    harness_note_reached();
    (void)raise(SIGKILL);
    abort();
}

void
harness_random_seed(uint64_t seed)
{
    random_state = seed;
}

uint64_t
harness_random(void)
{
    random_state += 0x9e3779b97f4a7c15;
    uint64_t z = random_state;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

size_t
harness_random_below(size_t bound)
{
    return (size_t)(harness_random() % bound);
}

int64_t
harness_random_ns_below(int64_t bound_ns)
{
    return (int64_t)(harness_random() % (uint64_t)bound_ns);
}
