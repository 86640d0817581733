#include "alloc.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static void *
libc_realloc(void *context, void *block, size_t size)
{
    (void)context;
    return realloc(block, size);
}

static void
libc_free(void *context, void *block)
{
    (void)context;
    free(block);
}

static struct mgp_allocator current = {libc_realloc, libc_free, NULL};

void
mgp_allocator_set(const struct mgp_allocator *allocator)
{
    if (allocator == NULL) {
        current = (struct mgp_allocator){libc_realloc, libc_free, NULL};
    } else {
        current = *allocator;
    }
}

void *
mgp_realloc(void *block, size_t size)
{
    return current.realloc_fn(current.context, block, size == 0 ? 1 : size);
}

static bool
product_overflows(size_t count, size_t size)
{
    return size != 0 && count > SIZE_MAX / size;
}

void *
mgp_realloc_array(void *block, size_t count, size_t size)
{
    return product_overflows(count, size) ? NULL : mgp_realloc(block, count * size);
}

void *
mgp_alloc(size_t size)
{
    return mgp_realloc(NULL, size);
}

void *
mgp_alloc_zeroed(size_t count, size_t size)
{
    if (product_overflows(count, size)) {
        return NULL;
    }
    size_t bytes = count * size == 0 ? 1 : count * size;
    /* calloc() gets a large block from the kernel as zero pages and does not
     * touch it: a table that grows to a million buckets does not stop to clear them. */
    if (current.realloc_fn == libc_realloc) {
        return calloc(1, bytes);
    }
    void *block = mgp_realloc(NULL, bytes);
    if (block != NULL) {
        memset(block, 0, bytes);
    }
    return block;
}

void
mgp_free(void *block)
{
    if (block != NULL) {
        current.free_fn(current.context, block);
    }
}

void
mgp_wipe(void *bytes, size_t size)
{
    /* Read at run time: the compiler cannot know that it is memset() that is
     * called, and so cannot drop a call whose result nobody reads. */
    static void *(*const volatile memset_unknown)(void *, int, size_t) = memset;
    memset_unknown(bytes, 0, size);
}
