/* Arrays of entries of one size, in the order of their bytes (memcmp), none twice. They need not
 * be aligned. */
#ifndef MGP_BASE_ORDERED_H
#define MGP_BASE_ORDERED_H

#include <stdbool.h>
#include <stddef.h>

/* Whether they are in order. */
bool mgp_ordered_check(const void *entries, size_t count, size_t size);
/* Whether `entry` is one of them: O(log n). */
bool mgp_ordered_has(const void *entries, size_t count, size_t size, const void *entry);
/* Puts them in order, and drops what is there twice: how many are left. `size` is 16 or 32. */
size_t mgp_ordered_sort(void *entries, size_t count, size_t size);

#endif
