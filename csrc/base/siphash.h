/* SipHash-1-3 (Aumasson, Bernstein: "SipHash: a fast short-input PRF"): keyed,
 * so that a caller who chooses header values cannot choose hash collisions.
 * It places entries in tables; equality is always decided on the bytes. */
#ifndef MGP_BASE_SIPHASH_H
#define MGP_BASE_SIPHASH_H

#include <stddef.h>
#include <stdint.h>

struct mgp_siphash_key {
    uint64_t k0;
    uint64_t k1;
};

/* `bytes` is not NULL, even where `size` is 0. */
uint64_t mgp_siphash(struct mgp_siphash_key key, const void *bytes, size_t size);

#endif
