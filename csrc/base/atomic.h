/* The one includer of <stdatomic.h>. Counters are 64-bit words that any thread
 * may read while their pool's thread adds: relaxed order is enough, because a
 * count promises nothing about other memory. What does promise something is
 * written with mgp_atomic_publish(): who sees the value sees all written before. */
#ifndef MGP_BASE_ATOMIC_H
#define MGP_BASE_ATOMIC_H

#include <stdatomic.h>
#include <stdint.h>

typedef _Atomic(uint64_t) mgp_atomic_u64;

static inline void
mgp_atomic_add(mgp_atomic_u64 *word, uint64_t amount)
{
    atomic_fetch_add_explicit(word, amount, memory_order_relaxed);
}

static inline void
mgp_atomic_sub(mgp_atomic_u64 *word, uint64_t amount)
{
    atomic_fetch_sub_explicit(word, amount, memory_order_relaxed);
}

static inline uint64_t
mgp_atomic_load(const mgp_atomic_u64 *word)
{
    return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void
mgp_atomic_store(mgp_atomic_u64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline void
mgp_atomic_publish(mgp_atomic_u64 *word, uint64_t value)
{
    atomic_store_explicit(word, value, memory_order_release);
}

/* Nothing that is written after it is seen before it, nor it before what was written earlier. */
static inline void
mgp_atomic_step(mgp_atomic_u64 *word)
{
    atomic_fetch_add_explicit(word, 1, memory_order_acq_rel);
}

#endif
