#include "random.h"

#include "machine.h"

double
mgp_random_unit(struct mgp_pool *pool)
{
    /* splitmix64: spreads deadlines; secrecy does not matter. */
    pool->random_state += 0x9e3779b97f4a7c15u;
    uint64_t bits = pool->random_state;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
    bits ^= bits >> 31;
    return (double)(bits >> 11) / 9007199254740992.0;
}
