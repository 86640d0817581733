/* The directory of shared counters: missing, removed, made, and read with too few descriptors. */
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

enum { HITS = MGP_WORD_HITS };

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
missing_directory_is_one_failure_and_counting_goes_on(void)
{
    char path[1100];
    start();
    snprintf(path, sizeof(path), "%s", counters_path("missing/deep"));
    CHECK(mgp_rows_share(&rows, path) == MGP_OK);
    counters_add(&rows, "a", HITS, 5);
    CHECK(counters_took_failure(&rows, MGP_FLAW_CREATE, ENOENT));
    for (int i = 0; i < 200; i++) {
        char label[32];
        snprintf(label, sizeof(label), "%d", i);
        counters_add(&rows, label, HITS, 1);
    }
    CHECK(counters_took_failure(&rows, MGP_FLAW_NONE, 0));
    struct mgp_snapshot snapshot;
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
    CHECK(mgp_snapshot_add_own(&snapshot, &rows) == MGP_OK);
    CHECK(snapshot.row_count == 201 && counters_read(&snapshot, "a", HITS) == 5);
    mgp_snapshot_fini(&snapshot);
    end();
}

/* The directory of counters_directory_new(), before anybody has made it. */
static void
remove_directory(void)
{
    CHECK(rmdir(rows.directory) == 0);
}

static void
looking_at_a_missing_directory_is_no_problem_and_does_not_make_it(void)
{
    struct mgp_snapshot snapshot;
    struct stat stat_now;
    start();
    remove_directory();
    CHECK(counters_scrape(&snapshot, &rows)->count == 0);
    CHECK(snapshot.row_count == 0);
    mgp_snapshot_fini(&snapshot);
    CHECK(counters_fold() == MGP_OK);
    CHECK(stat(rows.directory, &stat_now) < 0 && errno == ENOENT);
    CHECK(mkdir(rows.directory, 0700) == 0);
    end();
}

static void
first_file_brings_the_directory_with_it(void)
{
    struct mgp_snapshot snapshot;
    struct stat stat_now;
    start();
    remove_directory();
    counters_add(&rows, "a", HITS, 5);
    CHECK(counters_took_failure(&rows, MGP_FLAW_NONE, 0));
    CHECK(stat(rows.directory, &stat_now) == 0 && (stat_now.st_mode & 07777) == 0700);
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    CHECK(counters_read(&snapshot, "a", HITS) == 5);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
directory_that_was_removed_with_a_file_is_a_problem(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_add(&rows, "a", HITS, 5);
    CHECK(unlink(counters_path_of(&rows)) == 0);
    remove_directory();
    CHECK(counters_scrape(&snapshot, &rows)->count == 1);
    CHECK(counters_read(&snapshot, "a", HITS) == 5);
    mgp_snapshot_fini(&snapshot);
    CHECK(mkdir(rows.directory, 0700) == 0);
    end();
}

static void
directory_is_usable_whatever_the_umask(void)
{
    static const mode_t umasks[] = {0, 0077, 0177, 0277, 0777};
    for (size_t i = 0; i < sizeof(umasks) / sizeof(umasks[0]); i++) {
        struct stat stat_now;
        start();
        remove_directory();
        mode_t before = umask(umasks[i]);
        counters_add(&rows, "a", HITS, 5);
        counters_finished("a", 2);
        CHECK(counters_fold() == MGP_OK);
        umask(before);
        CHECK(counters_took_failure(&rows, MGP_FLAW_NONE, 0));
        CHECK(stat(rows.directory, &stat_now) == 0 && (stat_now.st_mode & 07777) == 0700);
        CHECK(stat(counters_path(MGP_FILE_LOCK_NAME), &stat_now) == 0);
        CHECK((stat_now.st_mode & 07777) == 0600);
        CHECK(counters_scrape_word("a", HITS) == 7);
        end();
    }
}

static void
file_that_somebody_removed_is_a_problem_and_counting_goes_on(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_add(&rows, "a", HITS, 5);
    CHECK(unlink(counters_path_of(&rows)) == 0);
    counters_add(&rows, "a", HITS, 5);
    struct mgp_problems *problems = counters_scrape(&snapshot, &rows);
    CHECK(problems->count == 1 && problems->list[0].flaw == MGP_FLAW_REMOVED);
    CHECK(counters_read(&snapshot, "a", HITS) == 10);
    mgp_snapshot_fini(&snapshot);
    end();
}

/* From now on, this process gets only so many descriptors more. */
static void
limit_descriptors(rlim_t spare)
{
    struct rlimit limit;
    int lowest = dup(0);
    CHECK(lowest >= 0);
    close(lowest);
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = (rlim_t)lowest + spare;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void
unlimit_descriptors(void)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static void
process_that_could_make_no_file_misses_none(void)
{
    struct mgp_snapshot snapshot;
    start();
    limit_descriptors(1); /* for the directory */
    counters_add(&rows, "a", HITS, 5);
    unlimit_descriptors();
    CHECK(counters_took_failure(&rows, MGP_FLAW_CREATE, EMFILE));
    CHECK(counters_scrape(&snapshot, &rows)->count == 0);
    CHECK(counters_read(&snapshot, "a", HITS) == 5);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
scrape_without_enough_descriptors_fails_instead_of_showing_less(void)
{
    bool has_finished;
    int failures = 0;
    start();
    counters_finished("folded", 3);
    CHECK(counters_fold() == MGP_OK);
    counters_add(&rows, "a", HITS, 5);
    for (rlim_t spare = 0;; spare++) {
        struct mgp_snapshot snapshot;
        struct mgp_problems problems = {.count = 0};
        limit_descriptors(spare);
        int status =
            mgp_directory_read(rows.directory, (struct mgp_file_id){{0, 0}},
                               (struct mgp_siphash_key){1, 2}, &snapshot, &has_finished, &problems);
        int error = errno;
        unlimit_descriptors();
        CHECK(problems.count == 0);
        if (status == MGP_OK) {
            CHECK(counters_read(&snapshot, "folded", HITS) == 3);
            CHECK(counters_read(&snapshot, "a", HITS) == 5);
            mgp_snapshot_fini(&snapshot);
            break;
        }
        CHECK(status == MGP_ERR_SYSTEM && error == EMFILE);
        failures++;
        mgp_snapshot_fini(&snapshot);
    }
    CHECK(failures >= 2);
    end();
}

int
main(void)
{
    RUN(missing_directory_is_one_failure_and_counting_goes_on);
    RUN(looking_at_a_missing_directory_is_no_problem_and_does_not_make_it);
    RUN(first_file_brings_the_directory_with_it);
    RUN(directory_that_was_removed_with_a_file_is_a_problem);
    RUN(directory_is_usable_whatever_the_umask);
    RUN(file_that_somebody_removed_is_a_problem_and_counting_goes_on);
    RUN(process_that_could_make_no_file_misses_none);
    RUN(scrape_without_enough_descriptors_fails_instead_of_showing_less);
    return harness_end();
}
