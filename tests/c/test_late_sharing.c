/* Rows that found no room in a file at first, or lost it, move into one as soon as there is one. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../csrc/base/status.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

enum { HITS = MGP_WORD_HITS, ACTIVE = MGP_WORD_ACTIVE_SESSIONS };

static struct mgp_rows rows;

static void
end(void)
{
    mgp_rows_fini(&rows);
    counters_directory_remove();
    failing_alloc_uninstall();
}

/* Rows are counted in before and after, by the handles that they had before. */
enum { LATE_ROWS = 150 };
static struct mgp_row *late_rows[LATE_ROWS];

static void
count_in_late_rows(uint64_t hits)
{
    for (size_t i = 0; i < LATE_ROWS; i++) {
        char label[32];
        int size = snprintf(label, sizeof(label), "late %zu", i);
        if (late_rows[i] == NULL) {
            late_rows[i] = mgp_rows_ensure(&rows, label, (size_t)size);
        }
        CHECK(late_rows[i] != NULL);
        CHECK(mgp_rows_ensure(&rows, label, (size_t)size) == late_rows[i]);
        mgp_count_add(late_rows[i], HITS, hits);
        mgp_count_add(late_rows[i], ACTIVE, 1);
    }
}

/* What this process sees, and what others do. */
static void
check_late_rows(uint64_t own_hits, uint64_t shown_hits)
{
    for (int is_own = 0; is_own < 2; is_own++) {
        struct mgp_snapshot snapshot;
        uint64_t hits = is_own ? own_hits : shown_hits;
        counters_scrape(&snapshot, is_own ? &rows : NULL);
        for (size_t i = 0; i < LATE_ROWS; i++) {
            char label[32];
            snprintf(label, sizeof(label), "late %zu", i);
            CHECK(counters_read(&snapshot, label, HITS) == hits);
        }
        CHECK(!is_own || snapshot.row_count == LATE_ROWS);
        mgp_snapshot_fini(&snapshot);
    }
}

static void
start(void)
{
    memset(late_rows, 0, sizeof(late_rows));
    failing_alloc_install();
    counters_directory_new();
    counters_process_start(&rows);
}

static void
rows_move_into_the_file_when_the_disk_has_room_again(void)
{
    start();
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_MAX_TOTAL_KEYS], 7);
    counters_limit_files(100); /* not even for the file */
    count_in_late_rows(3);
    check_late_rows(3, 0);
    mgp_rows_share_rest(&rows);
    check_late_rows(3, 0);
    CHECK(counters_took_failure(&rows, MGP_FLAW_CREATE, EFBIG));
    counters_limit_files((rlim_t)MGP_FILE_HEADER_BYTES +
                         64 * sizeof(struct mgp_file_row)); /* for some */
    mgp_rows_share_rest(&rows);
    CHECK(counters_took_failure(&rows, MGP_FLAW_GROW, EFBIG));
    CHECK(counters_scrape_sum(HITS) == 3 * 64);
    count_in_late_rows(1);
    CHECK(counters_scrape_sum(HITS) == 4 * 64);
    mgp_rows_share_rest(&rows);
    CHECK(counters_took_failure(&rows, MGP_FLAW_NONE, 0)); /* the same again */
    counters_limit_files(RLIM_INFINITY);
    mgp_rows_share_rest(&rows);
    check_late_rows(4, 4);
    count_in_late_rows(1);
    check_late_rows(5, 5);
    CHECK(counters_scrape_sum(ACTIVE) == 0); /* of no session that was created */
    struct mgp_snapshot snapshot;
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_TOTAL_KEYS] == 7);
    mgp_snapshot_fini(&snapshot);
    /* A label that goes, and one that comes in its place. */
    for (int i = 0; i < 3; i++) {
        mgp_count_add(late_rows[0], ACTIVE, UINT64_MAX);
    }
    CHECK(mgp_rows_forget(&rows, "late 0", 6) == MGP_OK);
    counters_add(&rows, "new", HITS, 1000);
    CHECK(counters_scrape_sum(HITS) == 5 * (LATE_ROWS - 1) + 1000);
    mgp_rows_fini(&rows);
    CHECK(counters_scrape_sum(HITS) == 5 * (LATE_ROWS - 1) + 1000);
    counters_process_start(&rows);
    end();
}

static void
later_rows_bring_the_earlier_ones_along(void)
{
    start();
    counters_limit_files(100);
    count_in_late_rows(3); /* 192 places */
    counters_limit_files(RLIM_INFINITY);
    CHECK(counters_scrape_sum(HITS) == 0);
    for (int i = 0; i < 43; i++) {
        char label[32];
        snprintf(label, sizeof(label), "more %d", i);
        counters_add(&rows, label, HITS, 1);
    }
    CHECK(counters_scrape_sum(HITS) == 3 * LATE_ROWS + 43);
    end();
}

static void
upkeep_looks_after_rows_now_and_then(void)
{
    const int64_t second_ns = 1000000000;
    start();
    counters_limit_files(100);
    count_in_late_rows(1);
    mgp_rows_upkeep(&rows, 1000 * second_ns);
    counters_limit_files(RLIM_INFINITY);
    mgp_rows_upkeep(&rows, (1000 + MGP_ROWS_UPKEEP_SECONDS) * second_ns - 1);
    CHECK(counters_scrape_sum(HITS) == 0);
    mgp_rows_upkeep(&rows, (1000 + MGP_ROWS_UPKEEP_SECONDS) * second_ns);
    CHECK(counters_scrape_sum(HITS) == LATE_ROWS);
    CHECK(unlink(counters_path_of(&rows)) == 0);
    mgp_rows_upkeep(&rows, 3 * second_ns); /* another clock */
    CHECK(counters_scrape_sum(HITS) == LATE_ROWS);
    end();
}

static void
upkeep_of_who_has_nothing_to_share_leaves_nothing(void)
{
    start();
    mgp_rows_upkeep(&rows, INT64_C(1) << 60);
    mgp_rows_share_rest(&rows);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    end();
}

static void
rows_move_into_a_new_file_when_the_directory_was_removed(void)
{
    struct stat stat_now;
    start();
    count_in_late_rows(3);
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW], 4);
    struct mgp_file_id removed = rows.segment.id;
    CHECK(unlink(counters_path_of(&rows)) == 0);
    CHECK(rmdir(rows.directory) == 0);
    count_in_late_rows(1);
    mgp_rows_share_rest(&rows);
    CHECK(stat(rows.directory, &stat_now) == 0 && (stat_now.st_mode & 07777) == 0700);
    CHECK(!mgp_file_id_equals(removed, rows.segment.id));
    struct mgp_rows_failure failure = mgp_rows_take_failure(&rows);
    CHECK(failure.flaw == MGP_FLAW_REMOVED && mgp_file_id_equals(failure.id, removed));
    check_late_rows(4, 4);
    count_in_late_rows(1);
    check_late_rows(5, 5);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == 4);
    mgp_rows_share_rest(&rows);
    CHECK(counters_took_failure(&rows, MGP_FLAW_NONE, 0));
    check_late_rows(5, 5);
    CHECK(unlink(counters_path_of(&rows)) == 0);
    mgp_rows_share_rest(&rows);
    CHECK(counters_took_failure(&rows, MGP_FLAW_REMOVED, 0)); /* once more, as it was mended */
    check_late_rows(5, 5);
    end();
}

static void
rows_that_moved_do_not_count_twice_when_the_old_file_is_back(void)
{
    char elsewhere[1200], back[1200];
    start();
    count_in_late_rows(3);
    mgp_atomic_store(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW], 4);
    snprintf(back, sizeof(back), "%s", counters_path_of(&rows));
    snprintf(elsewhere, sizeof(elsewhere), "%s.elsewhere", rows.directory);
    CHECK(rename(back, elsewhere) == 0);
    mgp_rows_share_rest(&rows);
    count_in_late_rows(1);
    CHECK(rename(elsewhere, back) == 0);
    check_late_rows(4, 4);
    CHECK(counters_fold() == MGP_OK);
    check_late_rows(4, 4);
    struct mgp_snapshot snapshot;
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.process_words[MGP_PROCESS_LABEL_OVERFLOW] == 4);
    mgp_snapshot_fini(&snapshot);
    mgp_rows_fini(&rows);
    CHECK(counters_scrape_sum(HITS) == 4 * LATE_ROWS);
    counters_process_start(&rows);
    end();
}

static void
file_that_was_removed_does_not_grow_into_another_of_its_name(void)
{
    struct stat stat_now;
    start();
    counters_add(&rows, "a", HITS, 1);
    char path[1200];
    snprintf(path, sizeof(path), "%s", counters_path_of(&rows));
    CHECK(unlink(path) == 0);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK(mgp_segment_grow(&rows.segment, 1) == NULL && errno == ENOENT);
    CHECK(fstat(fd, &stat_now) == 0 && stat_now.st_size == 0);
    close(fd);
    count_in_late_rows(1);
    CHECK(counters_scrape_sum(HITS) == 1 + LATE_ROWS);
    end();
}

static void
out_of_memory_while_rows_move_loses_nothing(void)
{
    start();
    count_in_late_rows(1);
    for (size_t n = 1;; n++) {
        CHECK(unlink(counters_path_of(&rows)) == 0);
        failing_alloc_fail_at(n);
        mgp_rows_share_rest(&rows);
        bool has_failed = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        count_in_late_rows(1);
        struct mgp_snapshot snapshot;
        mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
        CHECK(mgp_snapshot_add_own(&snapshot, &rows) == MGP_OK);
        CHECK(snapshot.row_count == LATE_ROWS);
        CHECK(counters_read(&snapshot, "late 149", HITS) == 1 + n);
        mgp_snapshot_fini(&snapshot);
        mgp_rows_share_rest(&rows);
        check_late_rows(1 + n, 1 + n);
        if (!has_failed) {
            CHECK(n > 6);
            break;
        }
    }
    end();
}

int
main(void)
{
    RUN(rows_move_into_the_file_when_the_disk_has_room_again);
    RUN(later_rows_bring_the_earlier_ones_along);
    RUN(upkeep_looks_after_rows_now_and_then);
    RUN(upkeep_of_who_has_nothing_to_share_leaves_nothing);
    RUN(rows_move_into_a_new_file_when_the_directory_was_removed);
    RUN(rows_that_moved_do_not_count_twice_when_the_old_file_is_back);
    RUN(file_that_was_removed_does_not_grow_into_another_of_its_name);
    RUN(out_of_memory_while_rows_move_loses_nothing);
    return harness_end();
}
