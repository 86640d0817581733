/* The bytes of a fuzz input, taken from the front. When they are used up, all is zero. */
#ifndef MGP_TESTS_BYTES_H
#define MGP_TESTS_BYTES_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct bytes {
    const uint8_t *at;
    size_t left;
};

/* Up to `size` of them, which stay where they are; how many is returned. */
static inline size_t
bytes_take(struct bytes *bytes, size_t size, const uint8_t **taken)
{
    size_t count = size < bytes->left ? size : bytes->left;
    *taken = bytes->at;
    bytes->at += count;
    bytes->left -= count;
    return count;
}

/* A little-endian number of up to 8 bytes. */
static inline uint64_t
bytes_number(struct bytes *bytes, size_t size)
{
    const uint8_t *taken;
    size_t count = bytes_take(bytes, size, &taken);
    uint64_t number = 0;
    for (size_t i = 0; i < count; i++) {
        number |= (uint64_t)taken[i] << (8 * i);
    }
    return number;
}

static inline uint8_t
bytes_byte(struct bytes *bytes)
{
    return (uint8_t)bytes_number(bytes, 1);
}

/* Numbers of all sizes, those beside powers of two and of ten more often than others. */
static inline uint64_t
bytes_any_number(struct bytes *bytes)
{
    uint8_t kind = bytes_byte(bytes);
    uint64_t power = 1;
    switch (kind >> 6) {
    case 0:
        return kind; /* 0 ... 63 */
    case 1:
        return (UINT64_C(1) << (kind & 63)) + (uint64_t)(int64_t)(int8_t)bytes_byte(bytes);
    case 2:
        for (unsigned i = 0; i < (kind & 63u) % 20; i++) {
            power *= 10;
        }
        return power + (uint64_t)(int64_t)(int8_t)bytes_byte(bytes);
    default:
        return bytes_number(bytes, 8);
    }
}

#endif
