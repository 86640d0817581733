#define _GNU_SOURCE
#include "counters_fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

static const struct mgp_siphash_key hash_key = {3, 4};

uint64_t counters_now_s = 1000;
uint64_t counters_retention_s = 0;
size_t counters_pending;

static char directory[256];
static struct mgp_problems problems;

/* Descriptors of this program when the test began: it must leave none, whatever went wrong in it. */
static size_t descriptors_before;

static size_t
count_descriptors(void)
{
    size_t count = 0;
    DIR *stream = opendir("/proc/self/fd");
    CHECK(stream != NULL);
    while (readdir(stream) != NULL) {
        count++;
    }
    closedir(stream);
    return count;
}

const char *
counters_directory_new(void)
{
    descriptors_before = count_descriptors();
    const char *base = getenv("TMPDIR");
    snprintf(directory, sizeof(directory), "%s/mgp-counters-XXXXXX", base == NULL ? "/tmp" : base);
    CHECK(mkdtemp(directory) != NULL);
    return directory;
}

void
counters_directory_remove(void)
{
    struct dirent *entry;
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            CHECK(remove(counters_path(entry->d_name)) == 0);
        }
    }
    closedir(stream);
    CHECK(rmdir(directory) == 0);
    CHECK(count_descriptors() == descriptors_before);
}

const char *
counters_path(const char *name)
{
    static char path[1024];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

const char *
counters_path_of(const struct mgp_rows *rows)
{
    char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_PROCESS, rows->segment.id);
    return counters_path(name);
}

size_t
counters_count_files(enum mgp_name kind)
{
    size_t count = 0;
    struct dirent *entry;
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    while ((entry = readdir(stream)) != NULL) {
        struct mgp_file_id id;
        count += mgp_file_name_parse(entry->d_name, &id) == kind;
    }
    closedir(stream);
    return count;
}

void
counters_process_start(struct mgp_rows *rows)
{
    mgp_rows_init(rows, hash_key, MGP_ROWS_DEFAULT_MAX);
    CHECK(mgp_rows_share(rows, directory) == 0);
}

void
counters_add(struct mgp_rows *rows, const char *label, size_t word, uint64_t amount)
{
    struct mgp_row *row = mgp_rows_ensure(rows, label, strlen(label));
    CHECK(row != NULL);
    mgp_count_add(row, word, amount);
}

bool
counters_took_failure(struct mgp_rows *rows, enum mgp_flaw flaw, int error)
{
    struct mgp_rows_failure failure = mgp_rows_take_failure(rows);
    return failure.flaw == flaw && (flaw == MGP_FLAW_NONE || failure.error == error);
}

void
counters_limit_files(rlim_t bytes)
{
    struct rlimit limit;
    CHECK(getrlimit(RLIMIT_FSIZE, &limit) == 0);
    limit.rlim_cur = bytes;
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0);
    signal(SIGXFSZ, SIG_IGN);
}

struct mgp_file_id
counters_finished(const char *label, uint64_t hits)
{
    struct mgp_rows rows;
    counters_process_start(&rows);
    counters_add(&rows, label, MGP_WORD_HITS, hits);
    counters_add(&rows, label, MGP_WORD_WAITERS, 1);
    struct mgp_file_id id = rows.segment.id;
    mgp_rows_fini(&rows);
    return id;
}

void
counters_copy_file(const char *from, const char *to)
{
    static char bytes[1 << 20];
    char path[1024];
    int fd = open(counters_path(from), O_RDONLY);
    CHECK(fd >= 0);
    ssize_t size = read(fd, bytes, sizeof(bytes));
    CHECK(size > 0 && size < (ssize_t)sizeof(bytes));
    close(fd);
    snprintf(path, sizeof(path), "%s", counters_path(to));
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0 && write(fd, bytes, (size_t)size) == size);
    close(fd);
}

struct mgp_problems *
counters_scrape(struct mgp_snapshot *snapshot, const struct mgp_rows *own)
{
    struct mgp_file_id id = {{0, 0}};
    bool has_finished;
    problems.count = 0;
    CHECK(mgp_directory_read(directory, own == NULL ? id : own->segment.id, hash_key, snapshot,
                             &has_finished, &problems) == 0);
    if (own != NULL) {
        CHECK(mgp_snapshot_add_own(snapshot, own) == 0);
    }
    mgp_snapshot_finish(snapshot);
    return &problems;
}

uint64_t
counters_read(const struct mgp_snapshot *snapshot, const char *label, size_t word)
{
    for (size_t i = 0; i < snapshot->row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        if (row->label_size == strlen(label) && memcmp(row->label, label, row->label_size) == 0) {
            return row->words[word];
        }
    }
    return 0;
}

uint64_t
counters_scrape_word(const char *label, size_t word)
{
    struct mgp_snapshot snapshot;
    counters_scrape(&snapshot, NULL);
    uint64_t value = counters_read(&snapshot, label, word);
    mgp_snapshot_fini(&snapshot);
    return value;
}

uint64_t
counters_scrape_sum(size_t word)
{
    struct mgp_snapshot snapshot;
    uint64_t sum = 0;
    counters_scrape(&snapshot, NULL);
    for (size_t i = 0; i < snapshot.row_count; i++) {
        sum += snapshot.rows[i].words[word];
    }
    mgp_snapshot_fini(&snapshot);
    return sum;
}

int
counters_fold_without(const char *label)
{
    struct mgp_label labels[] = {{label, label == NULL ? 0 : strlen(label)}};
    struct mgp_archive_job job = {
        .path = directory,
        .hash_key = hash_key,
        .max_rows = MGP_ROWS_DEFAULT_MAX,
        .forgotten = labels,
        .forgotten_count = label == NULL ? 0 : 1,
        .now_s = counters_now_s,
        .retention_s = counters_retention_s,
        .problems = &problems,
    };
    problems.count = 0;
    size_t pending;
    int status = mgp_archive_fold(&job, &pending);
    counters_pending = pending;
    return status;
}

int
counters_fold(void)
{
    return counters_fold_without(NULL);
}
