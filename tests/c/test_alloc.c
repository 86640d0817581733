#include "../../csrc/base/alloc.h"

#include <stdint.h>
#include <string.h>

#include "failing_alloc.h"
#include "harness.h"

static void
check_bytes(const uint8_t *bytes, size_t size, uint8_t value)
{
    for (size_t i = 0; i < size; i++) {
        CHECK(bytes[i] == value);
    }
}

static void
zeroed_memory_is_zero(void)
{
    /* malloc's own, likely to find the block that was just freed. */
    uint8_t *block = mgp_alloc(64);
    memset(block, 0xff, 64);
    mgp_free(block);
    block = mgp_alloc_zeroed(4, 16);
    check_bytes(block, 64, 0);
    mgp_free(block);

    failing_alloc_install();
    block = mgp_alloc_zeroed(4, 16);
    check_bytes(block, 64, 0);
    mgp_free(block);
    failing_alloc_uninstall();
}

static void
overflowing_size_is_out_of_memory(void)
{
    CHECK(mgp_alloc_zeroed(SIZE_MAX / 2, 4) == NULL);
    CHECK(mgp_realloc_array(NULL, SIZE_MAX / 2, 4) == NULL);
    failing_alloc_install();
    CHECK(mgp_alloc_zeroed(SIZE_MAX / 2, 4) == NULL);
    CHECK(mgp_realloc_array(NULL, SIZE_MAX / 2, 4) == NULL);
    CHECK(failing_alloc_calls() == 0);
    failing_alloc_uninstall();
}

static void
size_zero_is_a_block(void)
{
    for (int replaced = 0; replaced < 2; replaced++) {
        if (replaced) {
            failing_alloc_install();
        }
        void *blocks[] = {mgp_alloc(0), mgp_alloc_zeroed(0, 8), mgp_alloc_zeroed(8, 0),
                          mgp_realloc(NULL, 0), mgp_realloc_array(NULL, 0, 8)};
        for (size_t i = 0; i < sizeof(blocks) / sizeof(blocks[0]); i++) {
            CHECK(blocks[i] != NULL);
            mgp_free(blocks[i]);
        }
        if (replaced) {
            failing_alloc_uninstall();
        }
    }
}

static void
freeing_null_is_harmless(void)
{
    mgp_free(NULL);
    failing_alloc_install();
    mgp_free(NULL);
    failing_alloc_uninstall();
}

static void
every_way_to_memory_goes_through_the_allocator(void)
{
    failing_alloc_install();
    void *block = mgp_alloc(10);
    CHECK(failing_alloc_live_blocks() == 1 && failing_alloc_live_bytes() == 10);
    block = mgp_realloc(block, 20);
    CHECK(failing_alloc_live_blocks() == 1 && failing_alloc_live_bytes() == 20);
    void *array = mgp_alloc_zeroed(3, 5);
    CHECK(failing_alloc_live_blocks() == 2 && failing_alloc_live_bytes() == 35);
    array = mgp_realloc_array(array, 3, 10);
    CHECK(failing_alloc_live_blocks() == 2 && failing_alloc_live_bytes() == 50);
    CHECK(failing_alloc_calls() == 4);
    mgp_free(block);
    mgp_free(array);
    CHECK(failing_alloc_live_blocks() == 0 && failing_alloc_live_bytes() == 0);
    failing_alloc_uninstall();
}

static void
failed_realloc_leaves_the_block(void)
{
    failing_alloc_install();
    uint8_t *block = mgp_alloc(16);
    memset(block, 7, 16);
    failing_alloc_fail_at(1);
    CHECK(mgp_realloc(block, 32) == NULL);
    check_bytes(block, 16, 7);
    block = mgp_realloc(block, 32);
    CHECK(block != NULL);
    check_bytes(block, 16, 7);
    mgp_free(block);
    failing_alloc_uninstall();
}

static void
failing_allocator_fails_what_it_is_told_to(void)
{
    failing_alloc_install();
    void *blocks[3];
    failing_alloc_fail_at(2);
    blocks[0] = mgp_alloc(1);
    CHECK(blocks[0] != NULL && !failing_alloc_has_failed());
    CHECK(mgp_alloc(1) == NULL && failing_alloc_has_failed());
    blocks[1] = mgp_alloc(1);
    CHECK(blocks[1] != NULL);
    failing_alloc_fail_from(2);
    blocks[2] = mgp_alloc(1);
    CHECK(blocks[2] != NULL && !failing_alloc_has_failed());
    CHECK(mgp_alloc(1) == NULL && mgp_alloc_zeroed(1, 1) == NULL && failing_alloc_has_failed());
    for (size_t i = 0; i < 3; i++) {
        mgp_free(blocks[i]);
    }
    failing_alloc_uninstall();
}

static void
wiped_bytes_are_zero(void)
{
    uint8_t bytes[33];
    memset(bytes, 0xaa, sizeof(bytes));
    mgp_wipe(bytes, 32);
    check_bytes(bytes, 32, 0);
    CHECK(bytes[32] == 0xaa);
}

int
main(void)
{
    RUN(zeroed_memory_is_zero);
    RUN(overflowing_size_is_out_of_memory);
    RUN(size_zero_is_a_block);
    RUN(freeing_null_is_harmless);
    RUN(every_way_to_memory_goes_through_the_allocator);
    RUN(failed_realloc_leaves_the_block);
    RUN(failing_allocator_fails_what_it_is_told_to);
    RUN(wiped_bytes_are_zero);
    return harness_end();
}
