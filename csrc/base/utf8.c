#include "utf8.h"

#include <stdint.h>
#include <string.h>

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* How many bytes the character at `at` has; 0 where there is none. */
static size_t
character_size(const uint8_t *at, size_t left)
{
    uint8_t low = 0x80, high = 0xbf; /* of the second byte */
    size_t size;
    if (at[0] < 0x80) {
        return 1;
    }
    if (at[0] >= 0xc2 && at[0] <= 0xdf) {
        size = 2;
    } else if (at[0] >= 0xe0 && at[0] <= 0xef) {
        size = 3;
        low = at[0] == 0xe0 ? 0xa0 : low;
        high = at[0] == 0xed ? 0x9f : high;
    } else if (at[0] >= 0xf0 && at[0] <= 0xf4) {
        size = 4;
        low = at[0] == 0xf0 ? 0x90 : low;
        high = at[0] == 0xf4 ? 0x8f : high;
    } else {
        return 0;
    }
    if (left < size || at[1] < low || at[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < size; i++) {
        if ((at[i] & 0xc0) != 0x80) {
            return 0;
        }
    }
    return size;
}

bool
mgp_utf8_is_valid(const void *bytes, size_t size)
{
    const uint8_t *at = bytes;
    const uint8_t *end = at + size;
    while (at < end) {
        uint64_t eight;
        size_t left = (size_t)(end - at);
        if (left >= sizeof(eight)) {
            memcpy(&eight, at, sizeof(eight));
            if ((eight & HIGH_BITS) == 0) {
                at += sizeof(eight);
                continue;
            }
        }
        size_t step = character_size(at, left);
        if (step == 0) {
            return false;
        }
        at += step;
    }
    return true;
}
