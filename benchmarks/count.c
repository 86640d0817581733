/* How long one count takes inside C: prints the nanoseconds of one increment of a row's word, the
 * call of a function included, in the best of several batches. Built by counting.py with the
 * optimisation of the extension. */
#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "metrics/count.h"

#define COUNTS 2000000
#define BATCHES 20

/* Not inlined, so that each increment finds its row and word anew, as in the pool. */
__attribute__((noinline)) static void
count_once(struct mgp_row *row, size_t word)
{
    mgp_count_increment(row, word);
}

static double
seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

int
main(void)
{
    static mgp_atomic_u64 words[8];
    struct mgp_row row = {.words = words};
    double best = 1e9;
    for (int batch = 0; batch < BATCHES; batch++) {
        double start = seconds_now();
        for (int count = 0; count < COUNTS; count++) {
            count_once(&row, 3);
        }
        double seconds = (seconds_now() - start) / COUNTS;
        best = seconds < best ? seconds : best;
    }
    if (mgp_atomic_load(&words[3]) != (uint64_t)COUNTS * BATCHES) {
        fprintf(stderr, "counts were lost: %" PRIu64 "\n", mgp_atomic_load(&words[3]));
        return 1;
    }
    printf("%.4f\n", best * 1e9);
    return 0;
}
