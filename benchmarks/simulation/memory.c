#include "memory.h"

#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "../../csrc/base/alloc.h"

/* What malloc() keeps beside each block. */
#define MALLOC_HEADER_BYTES sizeof(size_t)

/* No struct of the machine is as large. */
#define ARRAY_BYTES 2048

static uint64_t live_bytes;
static uint64_t array_bytes;

static uint64_t
bytes_of(void *block)
{
    return block == NULL ? 0 : malloc_usable_size(block) + MALLOC_HEADER_BYTES;
}

static void
add(uint64_t bytes)
{
    live_bytes += bytes;
    array_bytes += bytes > ARRAY_BYTES ? bytes : 0;
}

static void
subtract(uint64_t bytes)
{
    live_bytes -= bytes;
    array_bytes -= bytes > ARRAY_BYTES ? bytes : 0;
}

static void *
counting_realloc(void *context, void *block, size_t size)
{
    (void)context;
    uint64_t bytes_before = bytes_of(block);
    void *grown = realloc(block, size);
    if (grown != NULL) {
        subtract(bytes_before);
        add(bytes_of(grown));
    }
    return grown;
}

static void
counting_free(void *context, void *block)
{
    (void)context;
    subtract(bytes_of(block));
    free(block);
}

void
memory_count(void)
{
    static const struct mgp_allocator counting = {counting_realloc, counting_free, NULL};
    mgp_allocator_set(&counting);
}

uint64_t
memory_live_bytes(void)
{
    return live_bytes;
}

uint64_t
memory_array_bytes(void)
{
    return array_bytes;
}

uint64_t
memory_resident_bytes(void)
{
    unsigned long long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL) {
        return 0;
    }
    int count = fscanf(file, "%llu %llu", &size, &resident);
    fclose(file);
    return count == 2 ? resident * (uint64_t)sysconf(_SC_PAGESIZE) : 0;
}
