/* libFuzzer target: a directory of shared counters with any files in it: sound ones, damaged and
 * cut ones, archives with ids of files that are still there, links, folders, wrong modes and
 * names; some locked by a process that lives. A scrape and a folding of it (csrc/metrics/
 * directory.c, archive.c) neither crash nor fail, and:
 *   - a scrape after the folding shows the same totals as the one before, whatever became of
 *     which file, and also where memory ran out in the middle;
 *   - folding again changes nothing, and leaves nothing to fold;
 *   - a label that was forgotten is gone; a bystander's file stays.
 * Only a folder under the name of a file of ours may make a folding fail, and an archive that is no
 * regular file or that others may have written. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../csrc/base/ordered.h"
#include "../../csrc/base/status.h"
#include "../../csrc/metrics/archive.h"
#include "../../csrc/metrics/rows.h"
#include "../c/failing_alloc.h"
#include "../c/harness.h"
#include "bytes.h"
#include "mend.h"

#define FILES_MAX 6
#define ROWS_MAX 3
#define IDS 4
#define TAKEN_MAX 2
#define FILE_BYTES_MAX                                                                             \
    (MGP_FILE_HEADER_BYTES + ROWS_MAX * sizeof(struct mgp_file_row) +                              \
     MEND_FOLDED_MAX * sizeof(struct mgp_file_id) + TAKEN_MAX * sizeof(struct mgp_taken_row) +     \
     sizeof(struct mgp_label_digest))
#define FORGOTTEN "gateway-1"
#define BYSTANDER "notes.txt"

enum thing { THING_FILE, THING_LINK, THING_FOLDER, THING_OPEN_MODE };

struct content {
    alignas(MGP_CACHE_LINE_BYTES) uint8_t bytes[FILE_BYTES_MAX];
    size_t size;
};

/* What was put there, as far as the judgement depends on it. */
struct scene {
    int locks[FILES_MAX];
    size_t lock_count;
    bool
        has_obstacle; /* which is not for us to remove: a folder, or an archive that may not be read */
    bool has_unfinished;
    bool has_request; /* to forget FORGOTTEN */
};

static const struct mgp_siphash_key hash_key = {3, 4};
static char directory[64];
static int directory_fd = -1;

/* ---- files ---------------------------------------------------------------------------------- */

static void
remove_directory(void)
{
    close(directory_fd);
    (void)rmdir(directory);
}

static void
make_directory(void)
{
    struct stat status;
    const char *base = stat("/dev/shm", &status) == 0 ? "/dev/shm" : "/tmp";
    snprintf(directory, sizeof(directory), "%s/mgp-fuzz-XXXXXX", base);
    CHECK(mkdtemp(directory) != NULL);
    directory_fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHECK(directory_fd >= 0);
    atexit(remove_directory);
}

static void
empty_directory(void)
{
    struct dirent *entry;
    DIR *stream = opendir(directory);
    CHECK(stream != NULL);
    while ((entry = readdir(stream)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            CHECK(unlinkat(directory_fd, entry->d_name, 0) == 0 ||
                  unlinkat(directory_fd, entry->d_name, AT_REMOVEDIR) == 0);
        }
    }
    closedir(stream);
}

static struct mgp_file_id
take_id(struct bytes *input)
{
    return (struct mgp_file_id){{bytes_byte(input) % IDS + 1, UINT64_MAX}};
}

static void
take_row(struct bytes *input, struct mgp_file_row *row, uint32_t number)
{
    uint8_t state = bytes_byte(input);
    mgp_atomic_store(&row->state, state);
    row->number = number;
    mgp_atomic_store(&row->frozen_at, state >> 6); /* 0: it may be counted in */
    uint8_t kind = bytes_byte(input);
    if (kind < 0xc0) {
        row->label_size = (uint32_t)sprintf((char *)row->label, "gateway-%d", kind % 4);
    } else if (kind < 0xd0) {
        row->label_size = (uint32_t)sprintf((char *)row->label, MGP_ROWS_OVERFLOW_LABEL);
    } else {
        const uint8_t *taken;
        row->label_size = (uint32_t)bytes_take(input, kind % 48, &taken);
        memcpy(row->label, taken, row->label_size);
    }
    row->check = mgp_label_check(state, row->label, row->label_size);
    for (unsigned count = bytes_byte(input) % 8; count > 0; count--) {
        size_t word = bytes_byte(input) % MGP_WORD_COUNT;
        mgp_atomic_store(&row->words[word], bytes_any_number(input));
    }
}

/* What an archive says of frozen rows, and of labels that are to be forgotten. */
static uint8_t *
take_forgetting(struct bytes *input, struct mgp_file_header *header, unsigned count, uint8_t *end)
{
    struct mgp_taken_row taken[TAKEN_MAX];
    if (count > TAKEN_MAX) {
        struct mgp_label_digest digest = mgp_label_digest(FORGOTTEN, strlen(FORGOTTEN));
        memcpy(end, &digest, sizeof(digest));
        header->request_count = 1;
        return end + sizeof(digest);
    }
    for (unsigned i = 0; i < count; i++) {
        taken[i].file = take_id(input);
        taken[i].number = bytes_byte(input) % ROWS_MAX;
        taken[i].state = bytes_byte(input);
    }
    header->taken_count = (uint32_t)mgp_ordered_sort(taken, count, sizeof(taken[0]));
    memcpy(end, taken, header->taken_count * sizeof(taken[0]));
    return end + header->taken_count * sizeof(taken[0]);
}

/* A sound file, then what damages it. */
static void
take_content(struct bytes *input, struct mgp_file_id id, bool is_archive, struct scene *scene,
             struct content *content)
{
    memset(content, 0, sizeof(*content));
    struct mgp_file_header *header = (void *)content->bytes;
    uint8_t counts = bytes_byte(input), damage = bytes_byte(input);
    unsigned row_count = counts % (ROWS_MAX + 1);
    unsigned folded_count = is_archive ? (counts >> 4) % MEND_FOLDED_MAX : 0;
    header->preamble =
        mgp_preamble(is_archive ? MGP_FILE_ARCHIVE : MGP_FILE_PROCESS, id, folded_count);
    mgp_atomic_store(&header->row_count, row_count);
    mgp_atomic_store(&header->process_words[MGP_PROCESS_LABEL_OVERFLOW], bytes_byte(input));
    struct mgp_file_row *rows = (void *)(content->bytes + MGP_FILE_HEADER_BYTES);
    for (unsigned i = 0; i < row_count; i++) {
        take_row(input, &rows[i], i);
    }
    uint8_t *folded = (uint8_t *)(rows + row_count);
    for (unsigned i = 0; i < folded_count; i++) {
        struct mgp_file_id folded_id = take_id(input);
        memcpy(folded + i * sizeof(folded_id), &folded_id, sizeof(folded_id));
    }
    uint8_t *end = folded + folded_count * sizeof(struct mgp_file_id);
    if (is_archive) {
        end = take_forgetting(input, header, (counts >> 2) % 4, end);
        scene->has_request |= header->request_count > 0;
    }
    content->size = (size_t)(end - content->bytes);
    for (unsigned i = 0; i < damage % 4; i++) {
        size_t at = bytes_number(input, 2);
        at = at & 0x8000 ? at % 256 : at % content->size; /* most of it in the header */
        content->bytes[at] = bytes_byte(input);
    }
    if (damage & 4) {
        mend(content->bytes, content->size,
             (MEND_ALL & (damage >> 3)) | (is_archive ? MEND_ARCHIVE : 0));
    }
    if (damage & 0x80) {
        content->size = bytes_number(input, 2) % (content->size + 1);
    }
}

static void
put_file(const char *name, const struct content *content, enum thing thing)
{
    if (thing == THING_FOLDER) {
        (void)mkdirat(directory_fd, name, 0700);
        return;
    }
    if (thing == THING_LINK) {
        (void)symlinkat(BYSTANDER, directory_fd, name);
        return;
    }
    int fd =
        openat(directory_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return; /* a folder or link of that name is there already */
    }
    if (thing == THING_OPEN_MODE) {
        CHECK(fchmod(fd, 0660) == 0);
    }
    CHECK(write(fd, content->bytes, content->size) == (ssize_t)content->size);
    close(fd);
}

/* By a process that lives, and is done when the descriptor is closed. */
static void
lock_file(struct scene *scene, const char *name)
{
    int fd = openat(directory_fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd >= 0 && mgp_file_lock(fd) == 0) {
        scene->locks[scene->lock_count++] = fd;
    } else if (fd >= 0) {
        close(fd);
    }
}

static void
take_file(struct bytes *input, struct scene *scene)
{
    static struct content content;
    char name[MGP_FILE_NAME_BYTES + 8];
    uint8_t kind = bytes_byte(input), how = bytes_byte(input);
    enum mgp_name named =
        kind < 0x80 ? MGP_NAME_PROCESS : (enum mgp_name)(MGP_NAME_PROCESS + kind % 5);
    struct mgp_file_id id = take_id(input);
    bool is_archive = named != MGP_NAME_PROCESS && named != MGP_NAME_UNFINISHED;
    enum thing thing = how < 0xf0 ? THING_FILE : (enum thing)(how % 4);
    mgp_file_name(name, named, id);
    if (kind >= 0xf8) {
        strcat(name, kind % 2 ? ".x" : ".new"); /* a strange name */
    }
    if (how % 16 == 15) {
        id.parts[1]--; /* not what the name says */
    }
    take_content(input, id, is_archive, scene, &content);
    put_file(name, &content, thing);
    if (how % 16 >= 12 && thing == THING_FILE && named == MGP_NAME_PROCESS) {
        lock_file(scene, name);
    }
    scene->has_obstacle |= thing == THING_FOLDER || (thing != THING_FILE && is_archive);
    scene->has_unfinished |= mgp_file_name_parse(name, &id) == MGP_NAME_UNFINISHED;
}

/* ---- what is seen --------------------------------------------------------------------------- */

struct sight {
    uint64_t words[MGP_WORD_COUNT]; /* over all rows */
    uint64_t label_overflow;
    bool has_finished;
    bool has_forgotten; /* a row of FORGOTTEN */
};

static void
scrape(struct sight *sight)
{
    struct mgp_snapshot snapshot;
    struct mgp_problems problems = {.count = 0};
    memset(sight, 0, sizeof(*sight));
    CHECK(mgp_directory_read(directory, (struct mgp_file_id){{0, 0}}, hash_key, &snapshot,
                             &sight->has_finished, &problems) == 0);
    mgp_snapshot_finish(&snapshot);
    for (size_t i = 0; i < snapshot.row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot.rows[i];
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            sight->words[word] += row->words[word];
        }
        sight->has_forgotten |= row->label_size == strlen(FORGOTTEN) &&
                                memcmp(row->label, FORGOTTEN, row->label_size) == 0;
    }
    sight->label_overflow = snapshot.process_words[MGP_PROCESS_LABEL_OVERFLOW];
    mgp_snapshot_fini(&snapshot);
}

/* Counters; but for creates, which is raised to what the other words of a row say, and for the
 * evictions that follow from it. */
static void
check_same_totals(const struct sight *a, const struct sight *b)
{
    enum { PROCESS_ENDED = MGP_EVICTION_WORD(MGP_EVICTION_PROCESS_ENDED) };
    for (size_t number = 0; number < mgp_series_count; number++) {
        const struct mgp_series *series = &mgp_series_table[number];
        if (mgp_series_combine(series) != MGP_COMBINE_TOTAL ||
            series->first_word == MGP_WORD_CREATES) {
            continue;
        }
        for (size_t i = 0; i < series->word_count; i++) {
            size_t word = series->first_word + i;
            CHECK(word == PROCESS_ENDED || a->words[word] == b->words[word]);
        }
    }
    CHECK(a->label_overflow == b->label_overflow);
}

static int
fold(size_t max_rows, bool forgets)
{
    static const struct mgp_label forgotten[] = {{FORGOTTEN, sizeof(FORGOTTEN) - 1}};
    struct mgp_problems problems = {.count = 0};
    struct mgp_archive_job job = {
        .path = directory,
        .hash_key = hash_key,
        .max_rows = max_rows,
        .forgotten = forgotten,
        .forgotten_count = forgets ? 1 : 0,
        .now_s = 1000,
        .problems = &problems,
    };
    size_t pending;
    return mgp_archive_fold(&job, &pending);
}

/* ---- the target ------------------------------------------------------------------------------ */

static void
judge(const struct scene *scene, struct bytes *input)
{
    struct sight before, between, after;
    size_t max_rows = 1 + bytes_byte(input) % 4;
    uint8_t how = bytes_byte(input);
    bool forgets = how % 4 == 3;
    scrape(&before);
    failing_alloc_fail_at(how >> 2);
    int status = fold(max_rows, false);
    bool was_short = failing_alloc_has_failed();
    failing_alloc_fail_at(0);
    CHECK(status == MGP_OK || (status == MGP_ERR_NOMEM && was_short) ||
          (status == MGP_ERR_SYSTEM && scene->has_obstacle));
    scrape(&between);
    if (!scene->has_request) {
        check_same_totals(&before, &between);
    }
    status = fold(max_rows, forgets);
    CHECK(status == MGP_OK || (status == MGP_ERR_SYSTEM && scene->has_obstacle));
    scrape(&after);
    if (scene->has_request) {
        /* What is forgotten may go in either folding, or wait for a process that lives. */
    } else if (!forgets || status != MGP_OK) {
        check_same_totals(&before, &after);
    } else if (scene->lock_count == 0) {
        CHECK(!after.has_forgotten);
    }
    CHECK(!after.has_finished || scene->has_obstacle || scene->has_unfinished);
    CHECK(faccessat(directory_fd, BYSTANDER, F_OK, AT_SYMLINK_NOFOLLOW) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct content nothing;
    struct bytes input = {data, size};
    struct scene scene = {.lock_count = 0};
    if (directory_fd < 0) {
        make_directory();
    }
    failing_alloc_install();
    put_file(BYSTANDER, &nothing, THING_FILE);
    uint8_t first = bytes_byte(&input);
    struct bytes last = {data + size - (size > 4 ? 2 : 0), size > 4 ? 2 : 0};
    for (unsigned count = first % (FILES_MAX + 1); count > 0; count--) {
        take_file(&input, &scene);
    }
    judge(&scene, &last);
    for (size_t i = 0; i < scene.lock_count; i++) {
        close(scene.locks[i]);
    }
    empty_directory();
    failing_alloc_uninstall();
    return 0;
}
