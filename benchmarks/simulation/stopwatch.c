#define _POSIX_C_SOURCE 200809L
#include "stopwatch.h"

#include <stdlib.h>
#include <time.h>

int64_t
stopwatch_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int
compare(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return (a > b) - (a < b);
}

double
median(double *values, size_t count)
{
    qsort(values, count, sizeof(values[0]), compare);
    return (values[(count - 1) / 2] + values[count / 2]) / 2.0;
}

/* What one look at the clock takes. */
static int64_t
clock_cost_ns(void)
{
    static int64_t cost_ns = -1;
    if (cost_ns < 0) {
        const int looks = 1000;
        double costs[100];
        for (size_t i = 0; i < sizeof(costs) / sizeof(costs[0]); i++) {
            int64_t start_ns = stopwatch_now_ns();
            for (int look = 1; look < looks; look++) {
                (void)stopwatch_now_ns();
            }
            costs[i] = (double)(stopwatch_now_ns() - start_ns) / looks;
        }
        cost_ns = (int64_t)median(costs, sizeof(costs) / sizeof(costs[0]));
    }
    return cost_ns;
}

void
stopwatch_init(struct stopwatch *stopwatch, uint32_t slice_steps)
{
    (void)clock_cost_ns();
    *stopwatch = (struct stopwatch){.slice_steps = slice_steps};
}

void
stopwatch_start(struct stopwatch *stopwatch)
{
    stopwatch->steps_of_slice = 0;
    stopwatch->slice_ns = 0;
    stopwatch->last_ns = stopwatch_now_ns();
}

void
stopwatch_step(struct stopwatch *stopwatch)
{
    int64_t now_ns = stopwatch_now_ns();
    int64_t step_ns = now_ns - stopwatch->last_ns - clock_cost_ns();
    step_ns = step_ns > 0 ? step_ns : 0;
    stopwatch->last_ns = now_ns;
    stopwatch->slice_ns += step_ns;
    stopwatch->steps++;
    stopwatch->total_ns += step_ns;
    if (step_ns > stopwatch->longest_step_ns) {
        stopwatch->longest_step_ns = step_ns;
    }
    if (stopwatch->slice_ns > stopwatch->longest_slice_ns) {
        stopwatch->longest_slice_ns = stopwatch->slice_ns;
    }
    if (++stopwatch->steps_of_slice == stopwatch->slice_steps) {
        stopwatch->steps_of_slice = 0;
        stopwatch->slice_ns = 0;
    }
}

double
stopwatch_mean_ns(const struct stopwatch *stopwatch)
{
    return stopwatch->steps == 0 ? 0.0 : (double)stopwatch->total_ns / (double)stopwatch->steps;
}
