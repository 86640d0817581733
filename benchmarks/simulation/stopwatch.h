/* Processor time of this thread: what other processes do meanwhile does not count, but for the
 * caches that they share. Either many operations are timed as one block, and the median of the
 * blocks counts, or steps are timed one by one, and their mean, the longest of them, and the longest
 * slice of some of them. */
#ifndef MGP_SIMULATION_STOPWATCH_H
#define MGP_SIMULATION_STOPWATCH_H

#include <stddef.h>
#include <stdint.h>

int64_t stopwatch_now_ns(void);

struct stopwatch {
    uint32_t slice_steps;
    uint32_t steps_of_slice;
    int64_t last_ns;
    int64_t slice_ns;
    uint64_t steps;
    int64_t total_ns;
    int64_t longest_step_ns;
    int64_t longest_slice_ns;
};

void stopwatch_init(struct stopwatch *stopwatch, uint32_t slice_steps);
/* The next step begins now, and with it a slice. */
void stopwatch_start(struct stopwatch *stopwatch);
/* A step ends; the next begins. */
void stopwatch_step(struct stopwatch *stopwatch);
/* Nanoseconds of a step on average, without the clock's own; 0 where there was none. */
double stopwatch_mean_ns(const struct stopwatch *stopwatch);

/* The median; sorts the values. count >= 1. */
double median(double *values, size_t count);

#endif
