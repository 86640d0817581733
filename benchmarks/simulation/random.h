/* Random numbers: splitmix64 (Steele, Lea, Flood 2014). Fast, repeatable, no secret. */
#ifndef MGP_SIMULATION_RANDOM_H
#define MGP_SIMULATION_RANDOM_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t
random_bits(struct random *random)
{
    random->state += 0x9e3779b97f4a7c15u;
    uint64_t bits = random->state;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    return bits ^ (bits >> 31);
}

/* Uniform in [0, 1). */
static inline double
random_unit(struct random *random)
{
    return (double)(random_bits(random) >> 11) * 0x1p-53;
}

/* Uniform in 0 ... bound - 1; the bias is below 2^-32. bound > 0. */
static inline uint32_t
random_below(struct random *random, uint32_t bound)
{
    return (uint32_t)(((random_bits(random) >> 32) * bound) >> 32);
}

static inline bool
random_chance(struct random *random, double probability)
{
    return random_unit(random) < probability;
}

/* Exponentially distributed, at least 1. */
static inline int64_t
random_duration_ns(struct random *random, int64_t mean_ns)
{
    return 1 + (int64_t)(-log1p(-random_unit(random)) * (double)mean_ns);
}

#endif
