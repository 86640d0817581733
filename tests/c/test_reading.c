/* Reading files of counters, one after the other. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "../../csrc/metrics/reader.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

enum { HITS = MGP_WORD_HITS };

static int
open_file_of(const struct mgp_rows *rows)
{
    int fd = open(counters_path_of(rows), O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void
memory_that_is_missing_for_one_file_does_not_harm_the_next(void)
{
    struct mgp_rows small, large;
    struct mgp_reader reader;
    failing_alloc_install();
    counters_directory_new();
    counters_process_start(&small);
    counters_add(&small, "a", HITS, 1);
    counters_process_start(&large);
    for (int i = 0; i < 1000; i++) {
        char label[16];
        (void)snprintf(label, sizeof(label), "%d", i);
        counters_add(&large, label, HITS, 1);
    }
    int small_fd = open_file_of(&small), large_fd = open_file_of(&large);
    mgp_reader_init(&reader);
    CHECK(mgp_reader_load(&reader, small_fd, MGP_FILE_PROCESS, NULL, MGP_LIFE_LIVING) ==
          MGP_FLAW_NONE);
    for (int round = 0; round < 2; round++) {
        failing_alloc_fail_from(1);
        CHECK(mgp_reader_load(&reader, large_fd, MGP_FILE_PROCESS, NULL, MGP_LIFE_LIVING) ==
              MGP_FLAW_NO_MEMORY);
        failing_alloc_fail_at(0);
        CHECK(mgp_reader_load(&reader, small_fd, MGP_FILE_PROCESS, NULL, MGP_LIFE_LIVING) ==
              MGP_FLAW_NONE);
        CHECK(reader.row_count == 1);
    }
    CHECK(mgp_reader_load(&reader, large_fd, MGP_FILE_PROCESS, NULL, MGP_LIFE_LIVING) ==
          MGP_FLAW_NONE);
    CHECK(reader.row_count == 1000);
    mgp_reader_fini(&reader);
    close(small_fd);
    close(large_fd);
    mgp_rows_fini(&small);
    mgp_rows_fini(&large);
    counters_directory_remove();
    failing_alloc_uninstall();
}

int
main(void)
{
    RUN(memory_that_is_missing_for_one_file_does_not_harm_the_next);
    return harness_end();
}
