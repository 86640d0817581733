#include "failing_alloc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/alloc.h"
#include "harness.h"

#define MAGIC 0x6d67705f6c697665

/* In front of each block; a union, so that the block is aligned for any type. */
union header {
    struct {
        uint64_t magic;
        size_t size;
        union header *next, *previous; /* of the live ones, in a ring with `live` */
    } block;
    max_align_t align;
};

static union header live = {.block = {.next = &live, .previous = &live}};
static const char *forbidden;

static size_t calls;
static size_t live_blocks;
static size_t live_bytes;
static size_t countdown; /* the call that brings it to 0 fails; 0: none does */
static bool fails_on;    /* every call fails from the first that did */
static bool has_failed;

/* Through a volatile pointer, or the compiler drops the filling before free(). */
static void *(*const volatile fill)(void *, int, size_t) = memset;

static union header *
header_of(void *block)
{
    union header *header = (union header *)block - 1;
    CHECK(header->block.magic == MAGIC);
    return header;
}

static bool
contains(const union header *header, const char *text)
{
    const char *bytes = (const char *)(header + 1);
    size_t length = strlen(text);
    for (size_t i = 0; i + length <= header->block.size; i++) {
        if (memcmp(bytes + i, text, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool
call_must_fail(void)
{
    calls++;
    if (has_failed && fails_on) {
        return true;
    }
    if (countdown == 0 || --countdown > 0) {
        return false;
    }
    has_failed = true;
    return true;
}

static void
counting_free(void *context, void *block)
{
    (void)context;
    union header *header = header_of(block);
    size_t size = header->block.size;
    CHECK(forbidden == NULL || !contains(header, forbidden));
    header->block.next->block.previous = header->block.previous;
    header->block.previous->block.next = header->block.next;
    live_blocks--;
    live_bytes -= size;
    fill(header, 0xdd, sizeof(*header) + size);
    free(header);
}

static void *
counting_realloc(void *context, void *block, size_t size)
{
    CHECK(size > 0);
    if (call_must_fail()) {
        return NULL;
    }
    union header *header = malloc(sizeof(*header) + size);
    if (header == NULL) {
        return NULL;
    }
    header->block.magic = MAGIC;
    header->block.size = size;
    header->block.next = &live;
    header->block.previous = live.block.previous;
    live.block.previous->block.next = header;
    live.block.previous = header;
    void *moved = header + 1;
    fill(moved, 0xcd, size);
    live_blocks++;
    live_bytes += size;
    if (block != NULL) {
        size_t old_size = header_of(block)->block.size;
        memcpy(moved, block, old_size < size ? old_size : size);
        counting_free(context, block);
    }
    return moved;
}

void
failing_alloc_install(void)
{
    static const struct mgp_allocator allocator = {counting_realloc, counting_free, NULL};
    calls = 0;
    live_blocks = 0;
    live_bytes = 0;
    live.block.next = live.block.previous = &live;
    forbidden = NULL;
    failing_alloc_fail_at(0);
    mgp_allocator_set(&allocator);
}

void
failing_alloc_uninstall(void)
{
    CHECK(live_blocks == 0);
    CHECK(live_bytes == 0);
    mgp_allocator_set(NULL);
}

void
failing_alloc_fail_at(size_t n)
{
    countdown = n;
    fails_on = false;
    has_failed = false;
}

void
failing_alloc_fail_from(size_t n)
{
    failing_alloc_fail_at(n);
    fails_on = true;
}

bool
failing_alloc_has_failed(void)
{
    return has_failed;
}

void
failing_alloc_forbid(const char *text)
{
    forbidden = text;
}

size_t
failing_alloc_live_with(const char *text)
{
    size_t found = 0;
    for (const union header *at = live.block.next; at != &live; at = at->block.next) {
        found += contains(at, text) ? 1 : 0;
    }
    return found;
}

size_t
failing_alloc_calls(void)
{
    return calls;
}

size_t
failing_alloc_live_blocks(void)
{
    return live_blocks;
}

size_t
failing_alloc_live_bytes(void)
{
    return live_bytes;
}
