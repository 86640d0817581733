#include "../../csrc/base/siphash.h"

#include <stdbool.h>

#include "harness.h"

/* The paper's description, word for word and byte by byte: slow, and independent
 * of csrc/base/siphash.c. */
static uint64_t
reference_word(const uint8_t *bytes, size_t count)
{
    uint64_t word = 0;
    for (size_t i = 0; i < count; i++) {
        word += (uint64_t)bytes[i] << (8 * i);
    }
    return word;
}

static uint64_t
rotated(uint64_t word, int bits)
{
    for (int i = 0; i < bits; i++) {
        word = word << 1 | word >> 63;
    }
    return word;
}

static void
reference_rounds(uint64_t v[4], int rounds)
{
    for (int i = 0; i < rounds; i++) {
        v[0] += v[1];
        v[1] = rotated(v[1], 13);
        v[1] ^= v[0];
        v[0] = rotated(v[0], 32);
        v[2] += v[3];
        v[3] = rotated(v[3], 16);
        v[3] ^= v[2];
        v[0] += v[3];
        v[3] = rotated(v[3], 21);
        v[3] ^= v[0];
        v[2] += v[1];
        v[1] = rotated(v[1], 17);
        v[1] ^= v[2];
        v[2] = rotated(v[2], 32);
    }
}

static uint64_t
reference(int c, int d, struct mgp_siphash_key key, const uint8_t *bytes, size_t size)
{
    uint64_t v[4];
    v[0] = key.k0 ^ reference_word((const uint8_t *)"uespemos", 8);
    v[1] = key.k1 ^ reference_word((const uint8_t *)"modnarod", 8);
    v[2] = key.k0 ^ reference_word((const uint8_t *)"arenegyl", 8);
    v[3] = key.k1 ^ reference_word((const uint8_t *)"setybdet", 8);
    for (size_t at = 0;; at += 8) {
        bool is_last = size - at < 8;
        uint64_t word = reference_word(bytes + at, is_last ? size - at : 8);
        if (is_last) {
            word += (uint64_t)(size % 256) << 56;
        }
        v[3] ^= word;
        reference_rounds(v, c);
        v[0] ^= word;
        if (is_last) {
            break;
        }
    }
    v[2] ^= 0xff;
    reference_rounds(v, d);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

/* 00, 01, 02, ... as in all published vectors. */
static uint8_t counting[600];

static const struct mgp_siphash_key paper_key = {0x0706050403020100, 0x0f0e0d0c0b0a0908};

static void
reference_agrees_with_the_paper(void)
{
    CHECK(reference(2, 4, paper_key, counting, 15) == 0xa129ca6149be45e5);
}

/* PYTHONHASHSEED=0 python3.11 -c 'print(hex(hash(bytes(range(SIZE))) % 2**64))'
 * (sys.hash_info.algorithm is siphash13; hash(b"") is a constant and left out). */
static void
hash_is_that_of_cpython(void)
{
    static const struct {
        size_t size;
        uint64_t hash;
    } vectors[] = {
        {1, 0x68a914128e01e473},  {2, 0x010bac45c41e3669},  {3, 0x4d4c9a4a8ef6e0ad},
        {4, 0x7cc43f98813e4dbd},  {5, 0x5abe2169dff36275},  {6, 0xe3c25f87624f1cdb},
        {7, 0x2f098ab0c751325a},  {8, 0xead411e67ebe2eea},  {9, 0x75927f9d95124362},
        {15, 0xf30eb725bb91c9ea}, {16, 0x8972188433a5c5b7}, {17, 0x4883c49a2c009c1d},
        {31, 0x169739443111d49b}, {32, 0x31ef8061c910629b}, {33, 0x7fb71d24dfa4c9f6},
        {63, 0x385d3e39e5f37359}, {64, 0x75e05fd5bbc870c6}, {100, 0x1c6a66e1506e7908},
    };
    for (size_t i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        struct mgp_siphash_key zero = {0, 0};
        CHECK(mgp_siphash(zero, counting, vectors[i].size) == vectors[i].hash);
    }
}

static void
hash_is_that_of_the_reference_for_every_length(void)
{
    for (size_t size = 0; size <= sizeof(counting); size++) {
        CHECK(mgp_siphash(paper_key, counting, size) == reference(1, 3, paper_key, counting, size));
    }
}

static void
hash_is_that_of_the_reference_for_any_key_bytes_and_alignment(void)
{
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[64 + 8];
        for (size_t at = 0; at < sizeof(bytes); at++) {
            bytes[at] = (uint8_t)harness_random();
        }
        struct mgp_siphash_key key = {harness_random(), harness_random()};
        const uint8_t *from = bytes + harness_random_below(8);
        size_t size = harness_random_below(65);
        CHECK(mgp_siphash(key, from, size) == reference(1, 3, key, from, size));
    }
}

int
main(void)
{
    for (size_t i = 0; i < sizeof(counting); i++) {
        counting[i] = (uint8_t)i;
    }
    RUN(reference_agrees_with_the_paper);
    RUN(hash_is_that_of_cpython);
    RUN(hash_is_that_of_the_reference_for_every_length);
    RUN(hash_is_that_of_the_reference_for_any_key_bytes_and_alignment);
    return harness_end();
}
