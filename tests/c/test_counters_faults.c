/* Shared counters where a system call fails, and where a process is killed at each step of what
 * it does to the directory. */
#define _GNU_SOURCE
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>

#include "../../csrc/base/status.h"
#include "../../csrc/metrics/archive_lock.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"
#include "system_calls.h"

enum { HITS = MGP_WORD_HITS, CREATES = MGP_WORD_CREATES, SIZE = MGP_WORD_SIZE };
enum { ENDED = MGP_EVICTION_WORD(MGP_EVICTION_PROCESS_ENDED) };

static const struct mgp_file_id none = {{0, 0}};

static struct mgp_rows rows;

static void
start(void)
{
    failing_alloc_install();
    counters_directory_new();
}

static void
end(void)
{
    system_call_before = NULL;
    system_call_after_open = NULL;
    system_call_after_pread = NULL;
    counters_directory_remove();
    failing_alloc_uninstall();
}

static const char *
archive_name(enum mgp_name kind)
{
    static char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, kind, none);
    return name;
}

static const char *
process_name(struct mgp_file_id id)
{
    static char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_PROCESS, id);
    return name;
}

/* ---- reading ---- */

static const char *failing_name;
static bool reads_fail;

static int
reads_of_one_file_fail(const char *call, const char *name)
{
    if (strcmp(call, "open") == 0) {
        reads_fail = strcmp(name, failing_name) == 0;
    }
    return strcmp(call, "pread") == 0 && reads_fail ? EIO : 0;
}

static void
archive_that_cannot_be_read_for_the_moment_stays_where_it_is(void)
{
    char archive[MGP_FILE_NAME_BYTES];
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    counters_finished("a", 2);
    snprintf(archive, sizeof(archive), "%s", archive_name(MGP_NAME_ARCHIVE));
    failing_name = archive;
    system_call_before = reads_of_one_file_fail;
    for (int i = 0; i < 2; i++) {
        struct mgp_snapshot snapshot;
        struct mgp_problems *problems = counters_scrape(&snapshot, NULL);
        CHECK(problems->count == 1 && problems->list[0].error == EIO);
        CHECK(counters_read(&snapshot, "a", HITS) == 2);
        mgp_snapshot_fini(&snapshot);
        CHECK(counters_fold() == MGP_ERR_SYSTEM);
    }
    system_call_before = NULL;
    CHECK(counters_count_files(MGP_NAME_BAD_ARCHIVE) == 0);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
    CHECK(counters_scrape_word("a", HITS) == 7);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape_word("a", HITS) == 7);
    end();
}

static int torn_readings;

/* Each reading of a whole file but the last finds it in the middle of a change. */
static void
tear(void *bytes, ssize_t size, off_t offset)
{
    if (offset == 0 && size > (ssize_t)sizeof(struct mgp_file_preamble) && torn_readings > 0) {
        struct mgp_file_header *header = bytes;
        mgp_atomic_step(&header->change);
        torn_readings--;
    }
}

/* The same, and a row whose label is just being written. */
static void
tear_label(void *bytes, ssize_t size, off_t offset)
{
    if (offset == 0 && size > MGP_FILE_HEADER_BYTES && torn_readings > 0) {
        struct mgp_file_row *row = (void *)((uint8_t *)bytes + MGP_FILE_HEADER_BYTES);
        row->check++;
        torn_readings--;
    }
}

/* The same, and the words that a row had before its place was given away. */
static void
tear_words(void *bytes, ssize_t size, off_t offset)
{
    if (offset == 0 && size > MGP_FILE_HEADER_BYTES && torn_readings > 0) {
        struct mgp_file_header *header = bytes;
        struct mgp_file_row *row = (void *)((uint8_t *)bytes + MGP_FILE_HEADER_BYTES);
        mgp_atomic_add(&row->words[HITS], 1000000);
        mgp_atomic_step(&header->change);
        mgp_atomic_step(&header->change);
        torn_readings--;
    }
}

static void
file_that_changes_while_it_is_read_is_read_again(void)
{
    static void (*const tears[])(void *, ssize_t, off_t) = {tear, tear_label, tear_words};
    start();
    counters_process_start(&rows);
    counters_add(&rows, "a", HITS, 7);
    for (size_t i = 0; i < sizeof(tears) / sizeof(tears[0]); i++) {
        struct mgp_snapshot snapshot;
        for (int readings = 1; readings <= 3; readings++) {
            torn_readings = readings;
            system_call_after_pread = tears[i];
            CHECK(counters_scrape(&snapshot, NULL)->count == 0);
            system_call_after_pread = NULL;
            CHECK(torn_readings == 0);
            CHECK(snapshot.row_count == 1 && counters_read(&snapshot, "a", HITS) == 7);
            mgp_snapshot_fini(&snapshot);
        }
    }
    mgp_rows_fini(&rows);
    end();
}

/* ---- unlinking ---- */

static struct mgp_file_id kept_id;

static int
one_file_cannot_be_unlinked(const char *call, const char *name)
{
    return strcmp(call, "unlink") == 0 && strcmp(name, process_name(kept_id)) == 0 ? EACCES : 0;
}

static void
fold_another_process(const char *path)
{
    if (strcmp(path, archive_name(MGP_NAME_ARCHIVE)) == 0) {
        system_call_after_open = NULL; /* folding opens it, too */
        counters_finished("a", 1);
        CHECK(counters_fold() == MGP_OK);
        system_call_after_open = fold_another_process;
    }
}

static void
scrape_gives_up_where_others_fold_all_the_time(void)
{
    struct mgp_snapshot snapshot;
    struct mgp_problems problems = {.count = 0};
    bool has_finished;
    start();
    counters_finished("a", 1);
    CHECK(counters_fold() == MGP_OK);
    system_call_after_open = fold_another_process;
    errno = 0;
    CHECK(mgp_directory_read(counters_path("."), none, (struct mgp_siphash_key){1, 2}, &snapshot,
                             &has_finished, &problems) == MGP_ERR_SYSTEM);
    CHECK(errno == EAGAIN);
    mgp_snapshot_fini(&snapshot);
    system_call_after_open = NULL;
    CHECK(counters_scrape_word("a", HITS) > 2);
    end();
}

static const char *damaged_name;

static void
damage_file(const char *path)
{
    if (strcmp(path, damaged_name) == 0) {
        system_call_after_open = NULL;
        int fd = open(counters_path(archive_name(MGP_NAME_ARCHIVE)), O_WRONLY);
        CHECK(fd >= 0 && pwrite(fd, "x", 1, 0) == 1);
        close(fd);
    }
}

static void
archive_that_is_damaged_while_the_others_are_read_is_not_counted(void)
{
    struct mgp_snapshot snapshot;
    start();
    counters_finished("a", 1);
    CHECK(counters_fold() == MGP_OK);
    damaged_name = process_name(counters_finished("b", 2));
    system_call_after_open = damage_file;
    struct mgp_problems *problems = counters_scrape(&snapshot, NULL);
    CHECK(problems->count == 1 && problems->list[0].flaw == MGP_FLAW_MAGIC);
    CHECK(counters_read(&snapshot, "a", HITS) == 0);
    CHECK(counters_read(&snapshot, "b", HITS) == 2);
    mgp_snapshot_fini(&snapshot);
    end();
}

static void
file_that_cannot_be_unlinked_is_never_folded_again(void)
{
    start();
    kept_id = counters_finished("a", 5);
    system_call_before = one_file_cannot_be_unlinked;
    for (uint64_t i = 0; i < 5; i++) {
        CHECK(counters_scrape_word("a", HITS) == 5 + i);
        CHECK(counters_fold() == MGP_OK);
        CHECK(counters_scrape_word("a", HITS) == 5 + i);
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
        counters_finished("a", 1); /* so that the archive is written anew */
    }
    system_call_before = NULL;
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == 10);
    end();
}

/* ---- the lock of who folds ---- */

static int replaced_at;
static const char *replaced_before;

static int
lock_file_is_replaced(const char *call, const char *name)
{
    (void)name;
    if (strcmp(call, replaced_before) == 0 && replaced_at-- == 0) {
        const char *path = counters_path(MGP_FILE_LOCK_NAME);
        CHECK(unlink(path) == 0);
        int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
        CHECK(fd >= 0);
        close(fd);
    }
    return 0;
}

static void
who_has_locked_a_file_that_was_replaced_does_not_fold(void)
{
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    counters_finished("a", 2);
    /* After the lock's file was opened; when the new archive was made; and just before it is
     * put in place. */
    static const char *const calls[] = {"pread", "create", "fsync"};
    static const int at[] = {0, 1, 0};
    for (size_t i = 0; i < sizeof(at) / sizeof(at[0]); i++) {
        replaced_before = calls[i];
        replaced_at = at[i];
        system_call_before = lock_file_is_replaced;
        CHECK(counters_fold() == MGP_ERR_BUSY);
        system_call_before = NULL;
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 1);
        CHECK(counters_count_files(MGP_NAME_NEW_ARCHIVE) == 0);
        CHECK(counters_scrape_word("a", HITS) == 7);
    }
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
    CHECK(counters_scrape_word("a", HITS) == 7);
    end();
}

/* The mode of the lock's file is put right between open() and lock. */
static void
who_has_opened_a_lock_that_was_replaced_touches_nothing(void)
{
    char unfinished[MGP_FILE_NAME_BYTES];
    start();
    counters_finished("a", 5);
    mgp_file_name(unfinished, MGP_NAME_UNFINISHED, (struct mgp_file_id){{1, 2}});
    close(open(counters_path(unfinished), O_WRONLY | O_CREAT | O_EXCL, 0600));
    close(open(counters_path(MGP_FILE_LOCK_NAME), O_WRONLY | O_CREAT | O_EXCL, 0400));
    replaced_before = "fchmod";
    replaced_at = 0;
    system_call_before = lock_file_is_replaced;
    CHECK(counters_fold() == MGP_ERR_BUSY);
    system_call_before = NULL;
    CHECK(replaced_at < 0);
    CHECK(counters_count_files(MGP_NAME_UNFINISHED) == 1);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_count_files(MGP_NAME_UNFINISHED) == 0);
    CHECK(counters_scrape_word("a", HITS) == 5);
    end();
}

static bool is_closing;

/* What a program does that becomes a daemon, on another thread, while this one folds. */
static int
locks_are_closed(const char *call, const char *name)
{
    if (is_closing && strcmp(call, "create") == 0 && strcmp(name, MGP_FILE_LOCK_NAME) != 0) {
        struct stat lock, other;
        is_closing = false;
        CHECK(stat(counters_path(MGP_FILE_LOCK_NAME), &lock) == 0);
        for (int fd = 3; fd < 64; fd++) {
            if (fstat(fd, &other) == 0 && other.st_ino == lock.st_ino) {
                close(fd);
            }
        }
        CHECK(counters_fold() == MGP_ERR_BUSY);
    }
    return 0;
}

static void
lock_of_who_folds_is_on_no_descriptor_that_others_could_close(void)
{
    start();
    counters_finished("a", 5);
    is_closing = true;
    system_call_before = locks_are_closed;
    CHECK(counters_fold() == MGP_OK);
    CHECK(!is_closing);
    CHECK(counters_scrape_word("a", HITS) == 5);
    end();
}

/* ---- a complete archive ---- */

static char calls[4096];

static int
note_call(const char *call, const char *name)
{
    const char *what = "";
    if (strcmp(name, archive_name(MGP_NAME_ARCHIVE)) == 0) {
        what = " archive";
    } else if (strcmp(name, archive_name(MGP_NAME_NEW_ARCHIVE)) == 0) {
        what = " new";
    } else if (strcmp(name, process_name(kept_id)) == 0) {
        what = " counters";
    }
    if (strcmp(call, "open") != 0 && strcmp(call, "pread") != 0) {
        size_t size = strlen(calls);
        snprintf(calls + size, sizeof(calls) - size, "%s%s\n", call, what);
    }
    return 0;
}

static void
archive_is_complete_on_the_disk_before_it_takes_its_name_and_files_go(void)
{
    start();
    kept_id = counters_finished("a", 5);
    system_call_before = note_call;
    CHECK(counters_fold() == MGP_OK);
    system_call_before = NULL;
    CHECK(strcmp(calls, "create\n"     /* the lock */
                        "unlink new\n" /* of somebody who was killed here */
                        "create new\n"
                        "fchmod\n"
                        "write\n" /* header, row, ids */
                        "write\n"
                        "write\n"
                        "fsync\n"
                        "rename archive\n"
                        "fsync\n" /* the directory */
                        "unlink counters\n") == 0);
    end();
}

/* ---- another thread forks ---- */

static pthread_t forking;
static pid_t forked_child;
static int has_forked[2], child_may_end[2];

static void *
forking_thread(void *unused)
{
    (void)unused;
    forked_child = fork();
    CHECK(forked_child >= 0);
    if (forked_child == 0) {
        char byte;
        alarm(20); /* never left behind */
        close(child_may_end[1]);
        (void)!read(child_may_end[0], &byte, 1);
        harness_end_child();
    }
    CHECK(write(has_forked[1], "x", 1) == 1);
    return NULL;
}

static void
fork_when_the_lock_is_open(const char *path)
{
    if (strcmp(path, MGP_FILE_LOCK_NAME) == 0) {
        system_call_after_open = NULL;
        CHECK(pthread_create(&forking, NULL, forking_thread, NULL) == 0);
        /* Now, or when there is no descriptor any more: that is not waited for. */
        struct pollfd forks = {.fd = has_forked[0], .events = POLLIN};
        (void)poll(&forks, 1, 300);
    }
}

static void
child_that_is_forked_while_the_lock_is_taken_does_not_keep_it(void)
{
    start();
    CHECK(mgp_archive_lock_watch_forks() == 0);
    CHECK(pipe(has_forked) == 0 && pipe(child_may_end) == 0);
    system_call_after_open = fork_when_the_lock_is_open;
    CHECK(counters_fold() == MGP_OK);
    CHECK(pthread_join(forking, NULL) == 0);
    CHECK(counters_fold() == MGP_OK);
    close(child_may_end[1]);
    CHECK(waitpid(forked_child, NULL, 0) == forked_child);
    close(child_may_end[0]);
    close(has_forked[0]);
    close(has_forked[1]);
    end();
}

/* ---- each step fails; each step is the last ---- */

static size_t step_count, last_step;
static int step_error; /* 0: the process is killed there */

static bool
is_step(const char *call)
{
    return strcmp(call, "open") != 0 && strcmp(call, "pread") != 0;
}

static int
stop_at_step(const char *call, const char *name)
{
    (void)name;
    if (!is_step(call) || ++step_count != last_step) {
        return 0;
    }
    if (step_error == 0) {
        harness_end_child();
    }
    return step_error;
}

/* Runs it in a process that is killed before its n-th step, or where it has no such step at
 * its end: then false. */
static bool
kill_before_step(size_t step, void (*run)(void))
{
    int status, has_ended[2];
    char byte;
    CHECK(pipe(has_ended) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        alarm(20); /* never left behind */
        step_count = 0;
        step_error = 0;
        last_step = step;
        system_call_before = stop_at_step;
        run();
        system_call_before = NULL;
        CHECK(write(has_ended[1], "x", 1) == 1);
        harness_end_child();
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(has_ended[1]);
    bool was_killed = read(has_ended[0], &byte, 1) == 0;
    close(has_ended[0]);
    return was_killed;
}

static void
fold(void)
{
    CHECK(counters_fold() == MGP_OK);
}

/* What finished processes with sessions of "a" open have counted, at every scrape. */
static uint64_t opened, closed;

static void
finished_with_sessions(uint64_t creates, uint64_t evictions)
{
    counters_process_start(&rows);
    counters_add(&rows, "a", CREATES, creates);
    counters_add(&rows, "a", MGP_EVICTION_WORD(MGP_EVICTION_MANUAL), evictions);
    counters_add(&rows, "a", SIZE, creates - evictions);
    counters_add(&rows, "a", MGP_WORD_ACTIVE_SESSIONS, 1);
    mgp_rows_fini(&rows);
    opened += creates;
    closed += evictions;
}

static void
check_sums(void)
{
    struct mgp_snapshot snapshot;
    CHECK(counters_scrape(&snapshot, NULL)->count == 0);
    CHECK(counters_read(&snapshot, "a", CREATES) == opened);
    CHECK(counters_read(&snapshot, "a", MGP_EVICTION_WORD(MGP_EVICTION_MANUAL)) == closed);
    CHECK(counters_read(&snapshot, "a", ENDED) == opened - closed);
    CHECK(counters_read(&snapshot, "a", SIZE) == 0);
    CHECK(counters_read(&snapshot, "a", MGP_WORD_ACTIVE_SESSIONS) == 0);
    CHECK(counters_read(&snapshot, "a", MGP_WORD_IDLE_SESSIONS) == 0);
    mgp_snapshot_fini(&snapshot);
}

static void
folding_that_is_killed_at_any_step_counts_everything_once(void)
{
    start();
    opened = closed = 0;
    for (size_t step = 1;; step++) {
        finished_with_sessions(5, 2);
        finished_with_sessions(3, 0);
        check_sums();
        bool was_killed = kill_before_step(step, fold);
        check_sums();
        if (step % 2 == 0) {
            finished_with_sessions(7, 7); /* before the next that folds */
            check_sums();
        }
        CHECK(counters_fold() == MGP_OK);
        check_sums();
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
        CHECK(counters_count_files(MGP_NAME_NEW_ARCHIVE) == 0);
        if (!was_killed) {
            CHECK(step > 10);
            break;
        }
    }
    end();
}

static void
folding_whose_every_step_fails_counts_everything_once(void)
{
    start();
    opened = closed = 0;
    for (size_t step = 1;; step++) {
        finished_with_sessions(5, 2);
        finished_with_sessions(3, 0);
        step_count = 0;
        step_error = EIO;
        last_step = step;
        system_call_before = stop_at_step;
        (void)counters_fold();
        system_call_before = NULL;
        check_sums();
        CHECK(counters_fold() == MGP_OK);
        check_sums();
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
        if (step_count < step) {
            CHECK(step > 10);
            break;
        }
    }
    end();
}

/* ---- rows that find room later ---- */

static bool is_disk_full;

static int
disk_is_full(const char *call, const char *name)
{
    (void)name;
    return is_disk_full && strcmp(call, "fallocate") == 0 ? ENOSPC : 0;
}

/* A process that counted in 150 rows, one hit in each, of which only its own memory knows. */
static void
count_without_room(void)
{
    is_disk_full = true;
    system_call_before = disk_is_full;
    counters_process_start(&rows);
    for (int i = 0; i < 150; i++) {
        char label[32];
        snprintf(label, sizeof(label), "%d", i);
        counters_add(&rows, label, HITS, 1);
    }
    CHECK(mgp_rows_take_failure(&rows).flaw == MGP_FLAW_CREATE);
    system_call_before = NULL;
    is_disk_full = false;
}

static void
share_rest(void)
{
    mgp_rows_share_rest(&rows);
}

/* The same rows, from the beginning: a child cannot be killed with a file of its parent's. */
static void
count_and_share(void)
{
    int (*before)(const char *, const char *) = system_call_before;
    count_without_room();
    system_call_before = before;
    share_rest();
    CHECK(counters_scrape_sum(HITS) >= 150);
}

static void
sharing_that_is_killed_at_any_step_shows_rows_once_or_not_at_all(void)
{
    uint64_t expected = 0;
    start();
    for (size_t step = 1;; step++) {
        bool was_killed = kill_before_step(step, count_and_share);
        uint64_t sum = counters_scrape_sum(HITS);
        /* Whole blocks, of which the last is not full. */
        CHECK(sum == expected || sum == expected + 64 || sum == expected + 128 ||
              sum == expected + 150);
        expected = sum;
        CHECK(counters_fold() == MGP_OK);
        CHECK(counters_scrape_sum(HITS) == expected);
        CHECK(counters_count_files(MGP_NAME_PROCESS) == 0);
        CHECK(counters_count_files(MGP_NAME_UNFINISHED) == 0);
        if (!was_killed) {
            CHECK(step > 6);
            break;
        }
    }
    end();
}

static void
sharing_whose_every_step_fails_loses_nothing(void)
{
    start();
    for (size_t step = 1;; step++) {
        struct mgp_snapshot snapshot;
        count_without_room();
        step_count = 0;
        step_error = EIO;
        last_step = step;
        system_call_before = stop_at_step;
        share_rest();
        bool has_failed = step_count >= step;
        system_call_before = NULL;
        CHECK(has_failed == (mgp_rows_take_failure(&rows).flaw != MGP_FLAW_NONE));
        counters_add(&rows, "0", HITS, 1);
        CHECK(counters_scrape(&snapshot, &rows)->count == 0);
        CHECK(snapshot.row_count == 150 && counters_read(&snapshot, "0", HITS) == 2);
        mgp_snapshot_fini(&snapshot);
        share_rest();
        CHECK(counters_scrape_sum(HITS) == 151);
        CHECK(counters_scrape_word("0", HITS) == 2);
        mgp_rows_fini(&rows);
        CHECK(counters_scrape_sum(HITS) == 151);
        counters_directory_remove();
        counters_directory_new();
        if (!has_failed) {
            CHECK(step > 6);
            break;
        }
    }
    end();
}

int
main(void)
{
    RUN(archive_that_cannot_be_read_for_the_moment_stays_where_it_is);
    RUN(file_that_changes_while_it_is_read_is_read_again);
    RUN(scrape_gives_up_where_others_fold_all_the_time);
    RUN(archive_that_is_damaged_while_the_others_are_read_is_not_counted);
    RUN(file_that_cannot_be_unlinked_is_never_folded_again);
    RUN(who_has_locked_a_file_that_was_replaced_does_not_fold);
    RUN(who_has_opened_a_lock_that_was_replaced_touches_nothing);
    RUN(lock_of_who_folds_is_on_no_descriptor_that_others_could_close);
    RUN(child_that_is_forked_while_the_lock_is_taken_does_not_keep_it);
    RUN(archive_is_complete_on_the_disk_before_it_takes_its_name_and_files_go);
    RUN(folding_that_is_killed_at_any_step_counts_everything_once);
    RUN(folding_whose_every_step_fails_counts_everything_once);
    RUN(sharing_that_is_killed_at_any_step_shows_rows_once_or_not_at_all);
    RUN(sharing_whose_every_step_fails_loses_nothing);
    return harness_end();
}
