#include "siphash.h"

#include <string.h>

/* The input is a sequence of little-endian words on every machine. */
static inline uint64_t
word_load(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    word = __builtin_bswap64(word);
#endif
    return word;
}

/* The up to 7 bytes that make no whole word. */
static inline uint64_t
tail_load(const uint8_t *bytes, size_t size)
{
    uint64_t word = 0;
    switch (size) {
    case 7:
        word |= (uint64_t)bytes[6] << 48; /* fall through */
    case 6:
        word |= (uint64_t)bytes[5] << 40; /* fall through */
    case 5:
        word |= (uint64_t)bytes[4] << 32; /* fall through */
    case 4:
        word |= (uint64_t)bytes[3] << 24; /* fall through */
    case 3:
        word |= (uint64_t)bytes[2] << 16; /* fall through */
    case 2:
        word |= (uint64_t)bytes[1] << 8; /* fall through */
    case 1:
        word |= (uint64_t)bytes[0]; /* fall through */
    default:
        return word;
    }
}

static inline uint64_t
rotate_left(uint64_t word, unsigned bits)
{
    return (word << bits) | (word >> (64 - bits));
}

struct sip_state {
    uint64_t v0, v1, v2, v3;
};

static inline void
sip_round(struct sip_state *s)
{
    s->v0 += s->v1;
    s->v2 += s->v3;
    s->v1 = rotate_left(s->v1, 13) ^ s->v0;
    s->v3 = rotate_left(s->v3, 16) ^ s->v2;
    s->v0 = rotate_left(s->v0, 32);
    s->v2 += s->v1;
    s->v0 += s->v3;
    s->v1 = rotate_left(s->v1, 17) ^ s->v2;
    s->v3 = rotate_left(s->v3, 21) ^ s->v0;
    s->v2 = rotate_left(s->v2, 32);
}

static inline void
sip_absorb(struct sip_state *s, uint64_t word)
{
    s->v3 ^= word;
    sip_round(s);
    s->v0 ^= word;
}

uint64_t
mgp_siphash(struct mgp_siphash_key key, const void *bytes, size_t size)
{
    struct sip_state s = {
        key.k0 ^ 0x736f6d6570736575,
        key.k1 ^ 0x646f72616e646f6d,
        key.k0 ^ 0x6c7967656e657261,
        key.k1 ^ 0x7465646279746573,
    };
    const uint8_t *at = bytes;
    for (size_t words = size / 8; words > 0; words--) {
        sip_absorb(&s, word_load(at));
        at += 8;
    }
    /* The last word carries the length, modulo 256, in its top byte. */
    sip_absorb(&s, (uint64_t)size << 56 | tail_load(at, size % 8));
    s.v2 ^= 0xff;
    sip_round(&s);
    sip_round(&s);
    sip_round(&s);
    return s.v0 ^ s.v1 ^ s.v2 ^ s.v3;
}
