/* A process's own file, and what others read of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../csrc/base/status.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

enum { HITS = MGP_WORD_HITS, ACTIVE = MGP_WORD_ACTIVE_SESSIONS };

static struct mgp_rows rows;

static void
start(void)
{
    failing_alloc_install();
    counters_directory_new();
    counters_process_start(&rows);
}

static void
end(void)
{
    mgp_rows_fini(&rows);
    counters_directory_remove();
    failing_alloc_uninstall();
}

static void
file_is_made_with_the_first_row(void)
{
    struct stat stat_now;
    start();
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    counters_add(&rows, "a", HITS, 1);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
    CHECK(counters_count_files(MGP_NAME_UNFINISHED) == 0);
    CHECK(stat(counters_path_of(&rows), &stat_now) == 0);
    CHECK((stat_now.st_mode & 07777) == 0600);
    CHECK(stat_now.st_size % (off_t)sizeof(struct mgp_file_row) ==
          MGP_FILE_HEADER_BYTES % sizeof(struct mgp_file_row));
    end();
}

static void
mode_of_the_file_does_not_depend_on_the_umask(void)
{
    struct stat stat_now;
    mode_t before = umask(0277);
    start();
    counters_add(&rows, "a", HITS, 1);
    umask(before);
    CHECK(stat(counters_path_of(&rows), &stat_now) == 0);
    CHECK((stat_now.st_mode & 07777) == 0600);
    end();
}

static void
others_read_what_was_counted(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_add(&rows, "a", HITS, 5);
    counters_add(&rows, "b", HITS, 7);
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    CHECK(snapshot.row_count == 2);
    CHECK(counters_read(&snapshot, "a", HITS) == 5);
    CHECK(counters_read(&snapshot, "b", HITS) == 7);
    mgp_snapshot_fini(&snapshot);
    counters_add(&rows, "a", HITS, 1);
    CHECK(counters_scrape_word("a", HITS) == 6);
    end();
}

static void
own_rows_are_counted_once(void)
{
    struct mgp_snapshot snapshot;
    struct mgp_rows other;
    start();
    counters_process_start(&other);
    counters_add(&rows, "a", HITS, 5);
    counters_add(&other, "a", HITS, 3);
    counters_add(&other, "b", HITS, 2);
    CHECK(counters_scrape(&snapshot, &rows)->count == 0);
    CHECK(counters_read(&snapshot, "a", HITS) == 8);
    CHECK(counters_read(&snapshot, "b", HITS) == 2);
    mgp_snapshot_fini(&snapshot);
    mgp_rows_fini(&other);
    end();
}

static void
growing_loses_no_count_and_moves_no_row(void)
{
    enum { MANY = 700 };
    static struct mgp_row *handles[MANY];
    char label[32];
    start();
    for (size_t i = 0; i < MANY; i++) {
        int size = snprintf(label, sizeof(label), "gateway %zu", i);
        handles[i] = mgp_rows_ensure(&rows, label, (size_t)size);
        CHECK(handles[i] != NULL);
        for (size_t k = 0; k <= i; k += 97) {
            mgp_count_add(handles[k], HITS, i);
        }
    }
    struct mgp_snapshot snapshot;
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    CHECK(snapshot.row_count == MANY);
    for (size_t k = 0; k < MANY; k++) {
        uint64_t expected = 0;
        for (size_t i = k; k % 97 == 0 && i < MANY; i++) {
            expected += i;
        }
        snprintf(label, sizeof(label), "gateway %zu", k);
        CHECK(mgp_atomic_load(&handles[k]->words[HITS]) == expected);
        CHECK(counters_read(&snapshot, label, HITS) == expected);
    }
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
words_of_the_process_are_shared(void)
{
    struct mgp_snapshot snapshot;
    struct mgp_rows other;
    start();
    counters_process_start(&other);
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_MAX_SESSIONS_PER_KEY], 10);
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS], 100);
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_MAX_TOTAL_KEYS], 7);
    mgp_rows_open_file(&rows);
    mgp_rows_open_file(&other);
    mgp_atomic_store(&other.process_words[MGP_PROCESS_MAX_SESSIONS_PER_KEY], 4);
    mgp_atomic_store(&other.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS], 50);
    mgp_atomic_store(&other.process_words[MGP_PROCESS_MAX_TOTAL_KEYS], MGP_UNLIMITED);
    mgp_rows_set_max(&other, 1);
    counters_add(&other, "a", HITS, 1);
    counters_add(&other, "b", HITS, 1);
    counters_scrape(&snapshot, &rows);
    CHECK(snapshot.process_words[MGP_PROCESS_LABEL_OVERFLOW] == 1);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_SESSIONS_PER_KEY] == 10);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS] == 150);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_TOTAL_KEYS] == MGP_UNLIMITED);
    CHECK(mgp_process_value(MGP_PROCESS_MAX_TOTAL_KEYS, MGP_UNLIMITED) == 0);
    CHECK(snapshot.rows[snapshot.row_count - 1].label_size == strlen(MGP_ROWS_OVERFLOW_LABEL));
    mgp_snapshot_fini(&snapshot);
    mgp_rows_fini(&other);
    counters_scrape(&snapshot, &rows);
    CHECK(snapshot.process_words[MGP_PROCESS_LABEL_OVERFLOW] == 1);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_TOTAL_KEYS] == 7);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
oldest_waiter_of_all_processes_is_the_oldest(void)
{
    struct mgp_rows others[2];
    enum { WORD = MGP_WORD_OLDEST_WAITER_SECONDS };
    start();
    counters_process_start(&others[0]);
    counters_process_start(&others[1]);
    counters_add(&rows, "a", WORD, 0);
    CHECK(counters_scrape_word("a", WORD) == 0);
    counters_add(&others[0], "a", WORD, 900);
    counters_add(&others[1], "a", WORD, 700);
    CHECK(counters_scrape_word("a", WORD) == 700);
    mgp_rows_fini(&others[1]);
    CHECK(counters_scrape_word("a", WORD) == 900);
    mgp_rows_fini(&others[0]);
    CHECK(counters_scrape_word("a", WORD) == 0);
    end();
}

static void
gauges_are_of_the_living_and_counters_of_all(void)
{
    struct mgp_rows other;
    start();
    counters_process_start(&other);
    for (int i = 0; i < 2; i++) {
        struct mgp_rows *one = i == 0 ? &rows : &other;
        counters_add(one, "a", MGP_WORD_CREATES, 5);
        counters_add(one, "a", MGP_WORD_SIZE, 5);
        counters_add(one, "a", ACTIVE, 2);
        counters_add(one, "a", MGP_WORD_USE_SECONDS, 9);
    }
    CHECK(counters_scrape_word("a", MGP_WORD_SIZE) == 10);
    CHECK(counters_scrape_word("a", MGP_WORD_IDLE_SESSIONS) == 6);
    mgp_rows_fini(&other);
    CHECK(counters_scrape_word("a", MGP_WORD_CREATES) == 10);
    CHECK(counters_scrape_word("a", MGP_WORD_USE_SECONDS) == 18);
    CHECK(counters_scrape_word("a", MGP_WORD_SIZE) == 5);
    CHECK(counters_scrape_word("a", ACTIVE) == 2);
    CHECK(counters_scrape_word("a", MGP_WORD_IDLE_SESSIONS) == 3);
    end();
}

static void
words_read_while_they_were_counted_are_made_to_agree(void)
{
    uint64_t words[MGP_WORD_COUNT] = {0};
    words[MGP_WORD_CREATES] = 3;
    words[MGP_EVICTION_WORD(MGP_EVICTION_MANUAL)] = 4;
    words[ACTIVE] = 1;
    mgp_row_reconcile(words);
    CHECK(words[MGP_WORD_CREATES] == 4 && words[MGP_WORD_SIZE] == 0 && words[ACTIVE] == 0);
    CHECK(words[MGP_WORD_IDLE_SESSIONS] == 0);
    words[MGP_WORD_MISSES] = 6;
    words[ACTIVE] = 1;
    mgp_row_reconcile(words);
    CHECK(words[MGP_WORD_CREATES] == 6 && words[MGP_WORD_SIZE] == 2);
    CHECK(words[ACTIVE] == 1 && words[MGP_WORD_IDLE_SESSIONS] == 1);
}

static void
forgotten_row_is_gone_for_others_and_its_place_starts_at_zero(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_add(&rows, "a", HITS, 5);
    counters_add(&rows, "b", HITS, 7);
    CHECK(mgp_rows_forget(&rows, "a", 1) == MGP_OK);
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.row_count == 1 && counters_read(&snapshot, "b", HITS) == 7);
    mgp_snapshot_fini(&snapshot);
    counters_add(&rows, "longer label", HITS, 1);
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.row_count == 2 && counters_read(&snapshot, "longer label", HITS) == 1);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
taking_a_row_away_is_a_change_that_has_ended(void)
{
    start();
    counters_add(&rows, "a", HITS, 5);
    counters_add(&rows, "b", HITS, 7);
    const mgp_atomic_u64 *change = &rows.segment.header->change;
    CHECK(mgp_atomic_load(change) == 0);
    for (uint64_t i = 1; i <= 3; i++) {
        CHECK(mgp_rows_forget(&rows, "a", 1) == MGP_OK);
        CHECK(mgp_atomic_load(change) == 2 * i);
        counters_add(&rows, "a", HITS, 1);
        CHECK(mgp_atomic_load(change) == 2 * i);
    }
    end();
}

static void
longest_label_is_shared_and_a_longer_one_is_not(void)
{
    char label[MGP_LABEL_MAX_BYTES + 2];
    start();
    memset(label, 'x', sizeof(label));
    label[sizeof(label) - 1] = '\0';
    counters_add(&rows, label, HITS, 1);
    counters_add(&rows, label + 1, HITS, 2);
    CHECK(counters_scrape_sum(HITS) == 2);
    CHECK(counters_scrape_word(label + 1, HITS) == 2);
    CHECK(mgp_rows_forget(&rows, label, strlen(label)) == MGP_OK);
    counters_add(&rows, "a", HITS, 4);
    CHECK(counters_scrape_sum(HITS) == 6);
    end();
}

static void
file_that_cannot_grow_loses_nothing_of_this_process(void)
{
    enum { MANY = 500 };
    char label[32];
    struct mgp_snapshot snapshot;
    start();
    counters_add(&rows, "first", HITS, 1);
    counters_limit_files((rlim_t)MGP_FILE_HEADER_BYTES + 130 * sizeof(struct mgp_file_row));
    for (size_t i = 0; i < MANY; i++) {
        snprintf(label, sizeof(label), "%zu", i);
        counters_add(&rows, label, HITS, i);
        counters_add(&rows, "first", HITS, 1);
    }
    CHECK(counters_took_failure(&rows, MGP_FLAW_GROW, EFBIG));
    CHECK(counters_scrape(&snapshot, &rows)->count == 0);
    CHECK(snapshot.row_count == MANY + 1);
    CHECK(counters_read(&snapshot, "first", HITS) == MANY + 1);
    for (size_t i = 0; i < MANY; i++) {
        snprintf(label, sizeof(label), "%zu", i);
        CHECK(counters_read(&snapshot, label, HITS) == i);
    }
    mgp_snapshot_fini(&snapshot);
    /* Others see the rows that the file has room for. */
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.row_count == 128 && counters_read(&snapshot, "first", HITS) == MANY + 1);
    mgp_snapshot_fini(&snapshot);
    counters_limit_files(RLIM_INFINITY);
    /* Room again: rows to come are shared again. */
    while (rows.segment.row_room == 128) {
        snprintf(label, sizeof(label), "later %zu", rows.count);
        counters_add(&rows, label, HITS, 1);
    }
    CHECK(counters_scrape_word(label, HITS) == 1);
    end();
}

static void
file_that_has_no_room_for_its_header_is_not_made(void)
{
    start();
    counters_limit_files(100);
    counters_add(&rows, "a", HITS, 3);
    counters_limit_files(RLIM_INFINITY);
    CHECK(counters_took_failure(&rows, MGP_FLAW_CREATE, EFBIG));
    CHECK(counters_count_files(MGP_NAME_PROCESS) + counters_count_files(MGP_NAME_UNFINISHED) == 0);
    end();
}

static void
out_of_memory_leaves_rows_as_they_were(void)
{
    start();
    counters_add(&rows, "a", HITS, 1);
    for (size_t n = 1;; n++) {
        failing_alloc_fail_at(n);
        struct mgp_row *row = NULL;
        for (int i = 0; i < 200; i++) {
            char label[32];
            int size = snprintf(label, sizeof(label), "%zu %d", n, i);
            row = mgp_rows_ensure(&rows, label, (size_t)size);
            if (row == NULL) {
                CHECK(failing_alloc_has_failed());
                break;
            }
            mgp_count_increment(row, HITS);
        }
        bool has_failed = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        CHECK(counters_scrape_word("a", HITS) == 1);
        if (!has_failed) {
            break;
        }
    }
    end();
}

static void
out_of_memory_while_scraping_is_an_error_and_leaks_nothing(void)
{
    struct mgp_rows other;
    start();
    counters_process_start(&other);
    for (int i = 0; i < 300; i++) {
        char label[32];
        snprintf(label, sizeof(label), "%d", i);
        counters_add(&rows, label, HITS, 1);
        counters_add(&other, label, HITS, 1);
    }
    size_t failures = 0;
    for (size_t n = 1;; n++) {
        struct mgp_snapshot snapshot;
        struct mgp_problems problems = {.count = 0};
        bool has_finished;
        failing_alloc_fail_at(n);
        int status =
            mgp_directory_read(rows.directory, rows.segment.id, (struct mgp_siphash_key){1, 2},
                               &snapshot, &has_finished, &problems);
        bool has_failed = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        CHECK(status == MGP_OK || (has_failed && status == MGP_ERR_NOMEM));
        CHECK(problems.count == 0 && (status != MGP_OK || snapshot.row_count == 300));
        failures += status != MGP_OK;
        mgp_snapshot_fini(&snapshot);
        if (!has_failed) {
            break;
        }
    }
    CHECK(failures >= 3);
    mgp_rows_fini(&other);
    end();
}

/* ---- processes ---- */

static int
lowest_free_descriptor(void)
{
    int fd = dup(0);
    CHECK(fd >= 0);
    close(fd);
    return fd;
}

/* A program that becomes a daemon closes all of them, and then lives. */
static void
process_keeps_no_descriptor_that_others_could_close(void)
{
    int before = lowest_free_descriptor();
    start();
    counters_add(&rows, "a", HITS, 5);
    counters_add(&rows, "a", MGP_WORD_WAITERS, 1);
    CHECK(lowest_free_descriptor() == before);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_ARCHIVE) == 0);
    CHECK(counters_scrape_word("a", MGP_WORD_WAITERS) == 1);
    for (int i = 0; i < 200; i++) {
        char label[32];
        snprintf(label, sizeof(label), "%d", i);
        counters_add(&rows, label, HITS, 1);
    }
    CHECK(lowest_free_descriptor() == before);
    CHECK(counters_scrape_sum(HITS) == 205);
    end();
}

static void
what_a_process_had_open_counts_as_evicted_when_it_has_ended(void)
{
    enum { ENDED = MGP_EVICTION_WORD(MGP_EVICTION_PROCESS_ENDED) };
    struct mgp_rows other;
    start();
    counters_process_start(&other);
    for (int i = 0; i < 2; i++) {
        struct mgp_rows *one = i == 0 ? &rows : &other;
        counters_add(one, "a", MGP_WORD_CREATES, 9);
        counters_add(one, "a", MGP_EVICTION_WORD(MGP_EVICTION_MANUAL), 4);
        counters_add(one, "a", MGP_WORD_SIZE, 5);
        counters_add(one, "a", ACTIVE, 2);
    }
    CHECK(counters_scrape_word("a", ENDED) == 0 && counters_scrape_word("a", MGP_WORD_SIZE) == 10);
    mgp_rows_fini(&other);
    for (int i = 0; i < 3; i++) { /* before it is folded, and after, and after another is */
        CHECK(counters_scrape_word("a", MGP_WORD_CREATES) == 18);
        CHECK(counters_scrape_word("a", MGP_EVICTION_WORD(MGP_EVICTION_MANUAL)) == 8);
        CHECK(counters_scrape_word("a", ENDED) == 5);
        CHECK(counters_scrape_word("a", MGP_WORD_SIZE) == 5);
        CHECK(counters_scrape_word("a", ACTIVE) == 2);
        CHECK(counters_scrape_word("a", MGP_WORD_IDLE_SESSIONS) == 3);
        CHECK(counters_fold() == MGP_OK);
        counters_finished("b", 1);
    }
    end();
}

/* Children end like this only, as by harness_end_child(). */
static void
kill_child(pid_t child)
{
    int status;
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

static void
forked_child_has_a_file_of_its_own_and_does_not_keep_its_parent_alive(void)
{
    int ready[2];
    char byte;
    start();
    counters_add(&rows, "a", HITS, 1);
    counters_add(&rows, "a", MGP_WORD_WAITERS, 1);
    CHECK(pipe(ready) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20); /* never left behind */
        mgp_rows_after_fork(&rows);
        counters_add(&rows, "a", HITS, 10);
        counters_add(&rows, "a", MGP_WORD_WAITERS, 1);
        harness_note_reached();
        CHECK(write(ready[1], "x", 1) == 1);
        pause();
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 2);
    CHECK(counters_scrape_word("a", HITS) == 11);
    CHECK(counters_scrape_word("a", MGP_WORD_WAITERS) == 2);
    mgp_rows_fini(&rows); /* as when the parent ends; the child has a mapping of its file */
    CHECK(counters_scrape_word("a", HITS) == 11);
    CHECK(counters_scrape_word("a", MGP_WORD_WAITERS) == 1);
    kill_child(child);
    CHECK(counters_scrape_word("a", HITS) == 11);
    CHECK(counters_scrape_word("a", MGP_WORD_WAITERS) == 0);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == 11);
    close(ready[0]);
    close(ready[1]);
    counters_directory_remove();
    failing_alloc_uninstall();
}

int
main(void)
{
    RUN(file_is_made_with_the_first_row);
    RUN(mode_of_the_file_does_not_depend_on_the_umask);
    RUN(others_read_what_was_counted);
    RUN(own_rows_are_counted_once);
    RUN(growing_loses_no_count_and_moves_no_row);
    RUN(words_of_the_process_are_shared);
    RUN(oldest_waiter_of_all_processes_is_the_oldest);
    RUN(gauges_are_of_the_living_and_counters_of_all);
    RUN(words_read_while_they_were_counted_are_made_to_agree);
    RUN(forgotten_row_is_gone_for_others_and_its_place_starts_at_zero);
    RUN(taking_a_row_away_is_a_change_that_has_ended);
    RUN(longest_label_is_shared_and_a_longer_one_is_not);
    RUN(file_that_cannot_grow_loses_nothing_of_this_process);
    RUN(file_that_has_no_room_for_its_header_is_not_made);
    RUN(out_of_memory_leaves_rows_as_they_were);
    RUN(out_of_memory_while_scraping_is_an_error_and_leaks_nothing);
    RUN(process_keeps_no_descriptor_that_others_could_close);
    RUN(what_a_process_had_open_counts_as_evicted_when_it_has_ended);
    RUN(forked_child_has_a_file_of_its_own_and_does_not_keep_its_parent_alive);
    return harness_end();
}
