/* The test harness: a test program is a main() that RUNs its claims.
 *
 *     static void
 *     removed_entry_is_not_found(void)
 *     {
 *         CHECK(mgp_table_find(...) == NULL);
 *     }
 *
 *     int
 *     main(void)
 *     {
 *         RUN(removed_entry_is_not_found);
 *         return harness_end();
 *     }
 *
 * A test function's name states the claim. A CHECK that fails prints the place,
 * the claim and the seed, and aborts. With MGP_TEST_VERBOSE set, each claim is
 * printed before it runs. MGP_TEST_LEAVE_OUT names a claim that is not tried, as
 * an emulator cannot keep it. */
#ifndef MGP_TESTS_HARNESS_H
#define MGP_TESTS_HARNESS_H

#include <stddef.h>
#include <stdint.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            harness_fail(__FILE__, __LINE__, #condition);                                          \
        }                                                                                          \
    } while (0)

#define RUN(claim) harness_run(#claim, claim)

_Noreturn void harness_fail(const char *file, int line, const char *condition);
void harness_run(const char *claim, void (*test)(void));
/* Prints the number of claims that held; returns what main() returns. */
int harness_end(void);

/* What a forked child does before its parent may kill it: says what it has reached, where the program was
 * built to count that (gcov would say so at exit()). */
void harness_note_reached(void);
/* How a forked child ends: killed, as valgrind looks for leaks in those that end by themselves. */
_Noreturn void harness_end_child(void);

/* Random numbers (splitmix64), the same in every run: each claim starts anew from
 * the seed, which MGP_TEST_SEED overrides. For one thread only. */
uint64_t harness_random(void);
/* One of 0 ... bound - 1; bound >= 1. */
size_t harness_random_below(size_t bound);
/* A duration of 0 ... bound - 1, which may be more than a size_t holds. */
int64_t harness_random_ns_below(int64_t bound_ns);
/* For a test that runs a claim several times, each time with other numbers. */
void harness_random_seed(uint64_t seed);
uint64_t harness_seed(void);

#endif
