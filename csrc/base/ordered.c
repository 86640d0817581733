#include "ordered.h"

#include <stdlib.h>
#include <string.h>

#include "check.h"

bool
mgp_ordered_check(const void *entries, size_t count, size_t size)
{
    const char *at = entries;
    for (size_t i = 1; i < count; i++, at += size) {
        if (memcmp(at, at + size, size) >= 0) {
            return false;
        }
    }
    return true;
}

bool
mgp_ordered_has(const void *entries, size_t count, size_t size, const void *entry)
{
    size_t low = 0;
    while (low < count) {
        size_t middle = low + (count - low) / 2;
        int order = memcmp((const char *)entries + middle * size, entry, size);
        if (order == 0) {
            return true;
        }
        if (order < 0) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return false;
}

/* qsort() hands no size to its comparison; entries are of one of these two. */
static int
compare_16(const void *a, const void *b)
{
    return memcmp(a, b, 16);
}

static int
compare_32(const void *a, const void *b)
{
    return memcmp(a, b, 32);
}

size_t
mgp_ordered_sort(void *entries, size_t count, size_t size)
{
    char *bytes = entries;
    MGP_ASSERT(size == 16 || size == 32);
    if (count == 0) {
        return 0;
    }
    qsort(entries, count, size, size == 16 ? compare_16 : compare_32);
    size_t kept = 1;
    for (size_t i = 1; i < count; i++) {
        if (memcmp(bytes + (kept - 1) * size, bytes + i * size, size) != 0) {
            memmove(bytes + kept++ * size, bytes + i * size, size);
        }
    }
    return kept;
}
