/* A pool with so many keys, one idle session each, and operations on it that leave it that large. */
#ifndef MGP_SIMULATION_STEADY_H
#define MGP_SIMULATION_STEADY_H

#include <stdint.h>

#include "parts.h"
#include "stopwatch.h"
#include "world.h"
#include "zipf.h"

/* Operations timed as one. Their keys are drawn before. */
#define BLOCK 1024

struct steady {
    struct world world;
    const struct options *options;
    struct random random;
    struct zipf zipf;
    uint32_t first; /* the keys are first ... first + options->keys - 1 */
    uint32_t drawn[BLOCK];
};

/* What is given for the stopwatch's steps are openings; NULL: untimed. */
void steady_init(struct steady *steady, const struct options *options, struct stopwatch *openings);
void steady_fini(struct steady *steady);

/* Draws the keys of a block. By Zipf's law, popular keys lie anywhere. */
void steady_draw_uniform(struct steady *steady);
void steady_draw_by_zipf(struct steady *steady);
/* Acquires and releases each of them: hits, all of them. */
void steady_hit_block(struct steady *steady);

#endif
