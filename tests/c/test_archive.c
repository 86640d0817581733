/* What finished processes counted is kept, exactly once. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../csrc/base/status.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

enum { HITS = MGP_WORD_HITS, WAITERS = MGP_WORD_WAITERS };

static const struct mgp_file_id none = {{0, 0}};

static void
start(void)
{
    failing_alloc_install();
    counters_directory_new();
}

static void
end(void)
{
    counters_directory_remove();
    failing_alloc_uninstall();
}

static const char *
archive_path(enum mgp_name kind)
{
    char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, kind, none);
    return counters_path(name);
}

static off_t
archive_size(void)
{
    struct stat stat_now;
    CHECK(stat(archive_path(MGP_NAME_ARCHIVE), &stat_now) == 0);
    CHECK((stat_now.st_mode & 07777) == 0600);
    return stat_now.st_size;
}

static void
nothing_to_fold_makes_no_archive(void)
{
    struct mgp_rows rows;
    start();
    counters_process_start(&rows);
    counters_add(&rows, "a", HITS, 1);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_ARCHIVE) == 0);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
    mgp_rows_fini(&rows);
    end();
}

static void
what_is_no_directory_is_a_problem_that_names_nothing_in_it(void)
{
    char path[1024];
    struct mgp_problems problems = {.count = 0};
    size_t pending = 1;
    start();
    char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_PROCESS, counters_finished("a", 1));
    (void)snprintf(path, sizeof(path), "%s", counters_path(name));
    struct mgp_archive_job job = {.path = path, .problems = &problems};
    CHECK(mgp_archive_fold(&job, &pending) == MGP_ERR_SYSTEM);
    CHECK(problems.count == 1 && problems.list[0].flaw == MGP_FLAW_SYSTEM);
    CHECK(problems.list[0].name[0] == '\0' && problems.list[0].error == ENOTDIR);
    CHECK(pending == 0);
    CHECK(counters_scrape_word("a", HITS) == 1);
    end();
}

static void
finished_processes_go_into_one_archive(void)
{
    start();
    for (uint64_t i = 1; i <= 10; i++) {
        counters_finished(i % 2 == 0 ? "even" : "odd", i);
    }
    CHECK(counters_scrape_word("even", HITS) == 30 && counters_scrape_word("odd", HITS) == 25);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_count_files(MGP_NAME_ARCHIVE) == 1);
    CHECK(counters_scrape_word("even", HITS) == 30 && counters_scrape_word("odd", HITS) == 25);
    CHECK(counters_scrape_word("even", WAITERS) == 0);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape_word("even", HITS) == 30);
    end();
}

static void
restarts_grow_neither_the_directory_nor_the_archive(void)
{
    off_t size = 0;
    start();
    for (uint64_t i = 1; i <= 50; i++) {
        counters_finished("a", 1);
        CHECK(counters_fold() == MGP_OK);
        CHECK(size == 0 || archive_size() == size);
        size = archive_size();
        CHECK(counters_scrape_word("a", HITS) == i);
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    }
    end();
}

static void
living_process_is_not_folded(void)
{
    struct mgp_rows rows;
    start();
    counters_process_start(&rows);
    counters_add(&rows, "a", HITS, 1);
    counters_finished("a", 10);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
    counters_add(&rows, "a", HITS, 1);
    CHECK(counters_scrape_word("a", HITS) == 12);
    mgp_rows_fini(&rows);
    CHECK(counters_scrape_word("a", HITS) == 12);
    end();
}

static void
words_of_finished_processes_are_folded_too(void)
{
    struct mgp_snapshot snapshot;
    start();
    for (int i = 0; i < 3; i++) {
        struct mgp_rows rows;
        counters_process_start(&rows);
        mgp_rows_set_max(&rows, 1);
        counters_add(&rows, "a", HITS, 1);
        counters_add(&rows, "b", HITS, 1);
        mgp_atomic_store(&rows.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS], 9);
        mgp_rows_fini(&rows);
    }
    CHECK(counters_fold() == MGP_OK);
    counters_scrape(&snapshot, NULL);
    CHECK(snapshot.process_words[MGP_PROCESS_LABEL_OVERFLOW] == 3);
    CHECK(snapshot.process_words[MGP_PROCESS_MAX_TOTAL_SESSIONS] == 0);
    CHECK(counters_read(&snapshot, MGP_ROWS_OVERFLOW_LABEL, HITS) == 3);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
file_that_was_folded_but_not_removed_is_not_counted_again(void)
{
    char name[MGP_FILE_NAME_BYTES];
    start();
    struct mgp_file_id id = counters_finished("a", 5);
    mgp_file_name(name, MGP_NAME_PROCESS, id);
    counters_copy_file(name, "kept");
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    counters_copy_file("kept", name); /* as if its folder had been killed before unlink() */
    CHECK(counters_scrape_word("a", HITS) == 5);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == 5);
    end();
}

static void
leftovers_of_who_was_killed_are_tidied_away(void)
{
    char name[MGP_FILE_NAME_BYTES];
    start();
    mgp_file_name(name, MGP_NAME_UNFINISHED, (struct mgp_file_id){{1, 2}});
    int fd = open(counters_path(name), O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    close(fd);
    fd = open(archive_path(MGP_NAME_NEW_ARCHIVE), O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && write(fd, "x", 1) == 1);
    close(fd);
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_UNFINISHED) == 0);
    CHECK(counters_count_files(MGP_NAME_NEW_ARCHIVE) == 0);
    CHECK(counters_scrape_word("a", HITS) == 5);
    end();
}

static void
who_finds_the_archive_locked_leaves_it_alone(void)
{
    enum mgp_flaw flaw;
    start();
    counters_finished("a", 5);
    int directory = open(counters_path("."), O_RDONLY | O_DIRECTORY);
    int fd = mgp_file_open(directory, MGP_FILE_LOCK_NAME, O_RDWR | O_CREAT, &flaw);
    CHECK(fd >= 0 && mgp_file_lock(fd) == 0);
    CHECK(counters_fold() == MGP_ERR_BUSY);
    CHECK(counters_scrape_word("a", HITS) == 5);
    mgp_file_unlock(fd);
    CHECK(counters_fold() == MGP_OK);
    close(fd);
    close(directory);
    end();
}

static void
full_disk_while_folding_loses_nothing(void)
{
    struct rlimit limit, before;
    start();
    for (uint64_t i = 0; i < 20; i++) {
        counters_finished("a", 1);
    }
    CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
    signal(SIGXFSZ, SIG_IGN);
    for (rlim_t most = 0; most < MGP_FILE_HEADER_BYTES + 2 * sizeof(struct mgp_file_row);
         most += 700) {
        limit = before;
        limit.rlim_cur = most;
        CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
        int status = counters_fold();
        CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
        CHECK(status == MGP_OK || status == MGP_ERR_SYSTEM);
        CHECK(counters_scrape_word("a", HITS) == 20);
    }
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    end();
}

static void
out_of_memory_while_folding_loses_nothing(void)
{
    start();
    for (size_t n = 1;; n++) {
        counters_finished("a", 1);
        failing_alloc_fail_at(n);
        int status = counters_fold();
        bool has_failed = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        CHECK(status == MGP_OK || has_failed);
        CHECK(counters_scrape_word("a", HITS) == n);
        if (!has_failed) {
            break;
        }
    }
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    end();
}

static void
archive_is_bounded_and_keeps_the_sum(void)
{
    struct mgp_snapshot snapshot;
    char label[32];
    start();
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){1, 2});
    for (uint64_t i = 0; i < 100; i++) {
        uint64_t words[MGP_WORD_COUNT] = {0};
        words[HITS] = i;
        int size = snprintf(label, sizeof(label), "%d", (int)i);
        CHECK(mgp_snapshot_add_row(&snapshot, label, (size_t)size, words, MGP_LIFE_FINISHED, 1) ==
              0);
        if (i == 50) {
            CHECK(mgp_snapshot_add_row(&snapshot, MGP_ROWS_OVERFLOW_LABEL,
                                       strlen(MGP_ROWS_OVERFLOW_LABEL), words, MGP_LIFE_FINISHED,
                                       1) == 0);
        }
    }
    for (size_t most = 120; most >= 1; most = most * 2 / 3) {
        CHECK(mgp_snapshot_limit_rows(&snapshot, most) == MGP_OK);
        CHECK(snapshot.row_count == (most < 100 ? most : 100) + 1);
        uint64_t sum = 0;
        for (size_t i = 0; i < snapshot.row_count; i++) {
            sum += snapshot.rows[i].words[HITS];
        }
        CHECK(sum == 99 * 100 / 2 + 50);
        const struct mgp_snapshot_row *last = &snapshot.rows[snapshot.row_count - 1];
        CHECK(memcmp(last->label, MGP_ROWS_OVERFLOW_LABEL, last->label_size) == 0);
    }
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
damaged_archive_is_put_aside_once(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    int fd = open(archive_path(MGP_NAME_ARCHIVE), O_WRONLY);
    CHECK(fd >= 0 && pwrite(fd, "x", 1, 30) == 1);
    close(fd);
    counters_finished("a", 7);
    CHECK(counters_scrape(&snapshot, NULL)->count == 1);
    CHECK(counters_read(&snapshot, "a", HITS) == 7);
    mgp_snapshot_fini(&snapshot);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    CHECK(counters_read(&snapshot, "a", HITS) == 7);
    mgp_snapshot_fini(&snapshot);
    CHECK(counters_count_files(MGP_NAME_BAD_ARCHIVE) == 1);
    end();
}

/* Nothing is renamed, nothing is lost, and nothing is folded meanwhile. */
static void
archive_that_may_not_be_read_stays_where_it_is(void)
{
    static const mode_t modes[] = {0660, 0602, 04600};
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    counters_finished("a", 7);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        struct mgp_snapshot snapshot;
        struct stat stat_now;
        CHECK(chmod(archive_path(MGP_NAME_ARCHIVE), modes[i]) == 0);
        CHECK(counters_scrape(&snapshot, NULL)->count == 1);
        CHECK(counters_read(&snapshot, "a", HITS) == 7);
        mgp_snapshot_fini(&snapshot);
        CHECK(counters_fold() == MGP_ERR_SYSTEM);
        CHECK(stat(archive_path(MGP_NAME_ARCHIVE), &stat_now) == 0);
        CHECK((stat_now.st_mode & 07777) == modes[i]);
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
        CHECK(counters_count_files(MGP_NAME_BAD_ARCHIVE) == 0);
    }
    CHECK(chmod(archive_path(MGP_NAME_ARCHIVE), 0600) == 0);
    CHECK(counters_scrape_word("a", HITS) == 12);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape_word("a", HITS) == 12);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    end();
}

static void
archive_that_others_may_only_read_is_used_and_its_mode_is_mended(void)
{
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    CHECK(chmod(archive_path(MGP_NAME_ARCHIVE), 0640) == 0);
    counters_finished("a", 7);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape_word("a", HITS) == 12);
    CHECK(archive_size() > 0); /* checks the mode */
    end();
}

static void
link_in_place_of_the_archive_stays_and_stops_folding(void)
{
    start();
    counters_finished("a", 5);
    CHECK(symlink("elsewhere", archive_path(MGP_NAME_ARCHIVE)) == 0);
    CHECK(counters_fold() == MGP_ERR_SYSTEM);
    CHECK(counters_count_files(MGP_NAME_ARCHIVE) == 1);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
    CHECK(counters_scrape_word("a", HITS) == 5);
    end();
}

/* What cannot be unlinked is remembered, whatever is folded later. */
static void
file_that_is_back_after_a_folder_had_its_name_is_not_counted_again(void)
{
    char name[MGP_FILE_NAME_BYTES];
    start();
    struct mgp_file_id id = counters_finished("a", 5);
    mgp_file_name(name, MGP_NAME_PROCESS, id);
    counters_copy_file(name, "kept");
    CHECK(counters_fold() == MGP_OK);
    CHECK(mkdir(counters_path(name), 0700) == 0);
    for (int i = 0; i < 2; i++) {
        counters_finished("a", 1);
        CHECK(counters_fold() == MGP_OK);
    }
    CHECK(rmdir(counters_path(name)) == 0);
    counters_copy_file("kept", name);
    CHECK(counters_scrape_word("a", HITS) == 7);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == 7);
    end();
}

static bool
has_finished(void)
{
    bool result;
    struct mgp_snapshot snapshot;
    struct mgp_problems problems = {.count = 0};
    char path[1100];
    snprintf(path, sizeof(path), "%s", counters_path(""));
    CHECK(mgp_directory_read(path, none, (struct mgp_siphash_key){1, 2}, &snapshot, &result,
                             &problems) == 0);
    mgp_snapshot_fini(&snapshot);
    return result;
}

static void
scrape_says_when_there_is_something_to_fold_or_to_tidy(void)
{
    char name[MGP_FILE_NAME_BYTES];
    struct mgp_rows rows;
    start();
    counters_process_start(&rows);
    counters_add(&rows, "a", HITS, 1);
    CHECK(!has_finished());
    struct mgp_file_id id = counters_finished("a", 5);
    CHECK(has_finished());
    mgp_file_name(name, MGP_NAME_PROCESS, id);
    counters_copy_file(name, "kept");
    CHECK(counters_fold() == MGP_OK);
    CHECK(!has_finished());
    counters_copy_file("kept", name); /* as if its folder had been killed before unlink() */
    CHECK(has_finished());
    CHECK(counters_fold() == MGP_OK);
    CHECK(!has_finished());
    mgp_file_name(name, MGP_NAME_UNFINISHED, id);
    counters_copy_file("kept", name);
    CHECK(has_finished());
    CHECK(counters_fold() == MGP_OK);
    CHECK(!has_finished());
    mgp_rows_fini(&rows);
    end();
}

/* ---- folders that are killed, and that race ---- */

enum { ROUNDS = 40, FOLDERS = 3 };

static pid_t
spawn_folder(void)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20); /* never left behind */
        for (;;) {
            (void)counters_fold();
        }
    }
    return child;
}

static void
racing_folders_that_are_killed_count_everything_once(void)
{
    uint64_t expected = 0;
    pid_t folders[FOLDERS];
    start();
    for (int i = 0; i < FOLDERS; i++) {
        folders[i] = spawn_folder();
    }
    for (uint64_t round = 0; round < ROUNDS; round++) {
        struct mgp_snapshot snapshot;
        for (int i = 0; i < 5; i++) {
            counters_finished("a", 1);
            expected++;
            counters_scrape(&snapshot, NULL);
            CHECK(counters_read(&snapshot, "a", HITS) == expected);
            mgp_snapshot_fini(&snapshot);
        }
        pid_t *folder = &folders[harness_random_below(FOLDERS)];
        CHECK(kill(*folder, SIGKILL) == 0);
        CHECK(waitpid(*folder, NULL, 0) == *folder);
        CHECK(counters_scrape_word("a", HITS) == expected);
        *folder = spawn_folder();
    }
    for (int i = 0; i < FOLDERS; i++) {
        CHECK(kill(folders[i], SIGKILL) == 0);
        CHECK(waitpid(folders[i], NULL, 0) == folders[i]);
    }
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == expected);
    end();
}

int
main(void)
{
    RUN(nothing_to_fold_makes_no_archive);
    RUN(what_is_no_directory_is_a_problem_that_names_nothing_in_it);
    RUN(finished_processes_go_into_one_archive);
    RUN(restarts_grow_neither_the_directory_nor_the_archive);
    RUN(living_process_is_not_folded);
    RUN(words_of_finished_processes_are_folded_too);
    RUN(file_that_was_folded_but_not_removed_is_not_counted_again);
    RUN(leftovers_of_who_was_killed_are_tidied_away);
    RUN(who_finds_the_archive_locked_leaves_it_alone);
    RUN(full_disk_while_folding_loses_nothing);
    RUN(out_of_memory_while_folding_loses_nothing);
    RUN(archive_is_bounded_and_keeps_the_sum);
    RUN(damaged_archive_is_put_aside_once);
    RUN(archive_that_may_not_be_read_stays_where_it_is);
    RUN(archive_that_others_may_only_read_is_used_and_its_mode_is_mended);
    RUN(link_in_place_of_the_archive_stays_and_stops_folding);
    RUN(file_that_is_back_after_a_folder_had_its_name_is_not_counted_again);
    RUN(scrape_says_when_there_is_something_to_fold_or_to_tidy);
    RUN(racing_folders_that_are_killed_count_everything_once);
    return harness_end();
}
