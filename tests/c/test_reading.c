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

/* A file of another version, or of another program, may say that it is as long as it likes. */
static void
header_is_judged_before_memory_is_spent_on_the_file(void)
{
    struct mgp_rows rows;
    struct mgp_file_preamble preamble;
    struct mgp_reader reader;
    failing_alloc_install();
    counters_directory_new();
    counters_process_start(&rows);
    counters_add(&rows, "a", HITS, 1);
    int fd = open(counters_path_of(&rows), O_RDWR | O_CLOEXEC);
    CHECK(fd >= 0 && pread(fd, &preamble, sizeof(preamble), 0) == (ssize_t)sizeof(preamble));
    const struct mgp_file_preamble good = preamble;
    struct {
        struct mgp_file_preamble preamble;
        enum mgp_flaw flaw;
    } cases[] = {{good, MGP_FLAW_MAGIC},   {good, MGP_FLAW_VERSION},  {good, MGP_FLAW_VERSION},
                 {good, MGP_FLAW_VERSION}, {good, MGP_FLAW_VERSION},  {good, MGP_FLAW_VERSION},
                 {good, MGP_FLAW_DAMAGED}, {good, MGP_FLAW_NO_MEMORY}};
    cases[0].preamble.magic++;
    cases[1].preamble.version++;
    cases[2].preamble.fingerprint++;
    cases[3].preamble.word_count++;
    cases[4].preamble.process_word_count++;
    cases[5].preamble.row_bytes++;
    for (size_t i = 0; i < 6; i++) {
        cases[i].preamble.checksum = mgp_preamble_checksum(&cases[i].preamble);
    }
    cases[6].preamble.checksum++;
    failing_alloc_fail_from(1);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        mgp_reader_init(&reader);
        CHECK(pwrite(fd, &cases[i].preamble, sizeof(preamble), 0) == (ssize_t)sizeof(preamble));
        CHECK(mgp_reader_load(&reader, fd, MGP_FILE_PROCESS, NULL, MGP_LIFE_FINISHED) ==
              cases[i].flaw);
        mgp_reader_fini(&reader);
    }
    failing_alloc_fail_at(0);
    close(fd);
    mgp_rows_fini(&rows);
    counters_directory_remove();
    failing_alloc_uninstall();
}

int
main(void)
{
    RUN(memory_that_is_missing_for_one_file_does_not_harm_the_next);
    RUN(header_is_judged_before_memory_is_spent_on_the_file);
    return harness_end();
}
