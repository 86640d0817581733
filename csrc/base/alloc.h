/* The one way to memory below csrc/python. The functions behind it can be
 * replaced, so that tests fail the n-th allocation. Replace them before
 * anything is allocated: a block must be freed by the allocator that made it. */
#ifndef MGP_BASE_ALLOC_H
#define MGP_BASE_ALLOC_H

#include <stddef.h>

struct mgp_allocator {
    void *(*realloc_fn)(void *context, void *block, size_t size); /* block may be NULL; size > 0 */
    void (*free_fn)(void *context, void *block);                  /* block is not NULL */
    void *context;
};

/* NULL restores malloc and free. */
void mgp_allocator_set(const struct mgp_allocator *allocator);

/* NULL when out of memory, or when count * size overflows. A size of 0 is taken as 1, so
 * that NULL always means failure. */
void *mgp_alloc(size_t size);
void *mgp_alloc_zeroed(size_t count, size_t size);
/* NULL likewise: `block` is then unchanged and still owned by the caller. */
void *mgp_realloc(void *block, size_t size);
void *mgp_realloc_array(void *block, size_t count, size_t size);
void mgp_free(void *block); /* NULL is allowed */

/* Overwrites with zeros in a way that the compiler may not drop. */
void mgp_wipe(void *bytes, size_t size);

#endif
