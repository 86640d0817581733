#define _GNU_SOURCE /* what C11 alone hides */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/ordered.h"
#include "../base/status.h"
#include "archive_lock.h"
#include "forgetting.h"

/* Entries of one size. */
struct entries {
    void *bytes; /* owned */
    size_t count;
    size_t capacity;
};

struct folding {
    const struct mgp_archive_job *job;
    struct mgp_reader archive; /* the old one */
    struct mgp_reader file;
    struct mgp_snapshot totals;
    struct entries ids;      /* struct mgp_file_id: of the files that the new archive contains */
    struct entries taken;    /* struct mgp_taken_row: of the rows that it contains; in order, once
                                all files were looked at */
    struct entries requests; /* struct mgp_label_digest: what is to be forgotten; in order */
    struct entries pending;  /* the same: those of them that may be counted in still */
    bool cannot_tell;        /* which labels may be counted in still */
    bool has_changed;        /* there is something to write */
    struct mgp_archive_lock lock;
};

static const struct mgp_file_id no_id = {{0, 0}};

static int
entries_add(struct entries *entries, const void *entry, size_t size)
{
    if (entries->count == entries->capacity) {
        size_t capacity = entries->capacity == 0 ? 16 : entries->capacity * 2;
        void *bytes = mgp_realloc_array(entries->bytes, capacity, size);
        if (bytes == NULL) {
            return MGP_ERR_NOMEM;
        }
        entries->bytes = bytes;
        entries->capacity = capacity;
    }
    memcpy((char *)entries->bytes + entries->count++ * size, entry, size);
    return MGP_OK;
}

static int
ids_add(struct folding *folding, struct mgp_file_id id)
{
    return entries_add(&folding->ids, &id, sizeof(id));
}

static bool
ids_have(const struct folding *folding, struct mgp_file_id id)
{
    const struct mgp_file_id *ids = folding->ids.bytes;
    for (size_t i = 0; i < folding->ids.count; i++) {
        if (mgp_file_id_equals(ids[i], id)) {
            return true;
        }
    }
    return false;
}

/* ---- files and rows ---- */

/* Removes what nobody has locked: a process was killed before it had completed its file. One
 * that is just about to lock it finds it gone, and makes another. */
static void
remove_unfinished(int directory, const char *name)
{
    enum mgp_flaw flaw;
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd < 0) {
        return;
    }
    if (mgp_file_is_locked(fd) == 0) {
        (void)unlinkat(directory, name, 0);
    }
    close(fd);
}

/* The new archive contains what the old one has of a file that is not looked at just now. */
static int
keep_taken(struct folding *folding, struct mgp_file_id id)
{
    const struct mgp_reader *archive = &folding->archive;
    int status = MGP_OK;
    for (size_t i = 0; status >= 0 && i < archive->taken_count; i++) {
        struct mgp_taken_row row;
        memcpy(&row, archive->taken_rows + i * sizeof(row), sizeof(row));
        if (mgp_file_id_equals(row.file, id)) {
            status = entries_add(&folding->taken, &row, sizeof(row));
        }
    }
    return status;
}

/* Takes the frozen rows of the loaded file, and keeps what was taken before and is still there. */
static int
take_rows(struct folding *folding)
{
    const struct mgp_reader *file = &folding->file;
    for (size_t i = 0; i < file->row_count; i++) {
        const struct mgp_taken_row row = mgp_reader_taken_row(file, mgp_reader_row(file, i));
        int status = MGP_OK;
        if (!mgp_file_row_is_used(row.state)) {
            continue;
        }
        bool was_taken = mgp_reader_has_taken(&folding->archive, row);
        bool is_taken = !was_taken && file->is_steady && mgp_reader_is_frozen(file, i) &&
                        folding->taken.count < MGP_FILE_MAX_ROWS; /* else the next folding */
        if (was_taken || is_taken) {
            status = entries_add(&folding->taken, &row, sizeof(row));
        }
        if (status >= 0 && is_taken) {
            status = mgp_reader_add_row(file, i, MGP_LIFE_LIVING, 0, &folding->totals);
            folding->has_changed = true;
        }
        if (status < 0) {
            return status;
        }
    }
    return MGP_OK;
}

/* Adds a finished process's file to the totals, and the frozen rows of one that lives. What is wrong
 * with a file, the scrape that found it has reported. */
static int
fold_file(struct folding *folding, int directory, const char *name, struct mgp_file_id id)
{
    enum mgp_flaw flaw;
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd < 0) {
        return flaw == MGP_FLAW_VANISHED ? MGP_OK : keep_taken(folding, id);
    }
    int is_locked = mgp_file_is_locked(fd);
    bool is_finished = is_locked == 0 && folding->ids.count < MGP_FILE_MAX_ROWS; /* else the next */
    flaw = is_locked < 0 ? MGP_FLAW_SYSTEM
                         : mgp_reader_load(&folding->file, fd, MGP_FILE_PROCESS, &id,
                                           is_locked == 0 ? MGP_LIFE_FINISHED : MGP_LIFE_LIVING);
    close(fd);
    if (flaw != MGP_FLAW_NONE) {
        return keep_taken(folding, id);
    }
    if (!is_finished) {
        return take_rows(folding);
    }
    folding->has_changed = true;
    int status = ids_add(folding, id);
    return status < 0 ? status
                      : mgp_reader_add(&folding->file, MGP_LIFE_FINISHED, &folding->archive,
                                       folding->job->now_s, &folding->totals);
}

static int
visit_file(int directory, const char *name, enum mgp_name kind, struct mgp_file_id id,
           void *context)
{
    struct folding *folding = context;
    if (kind == MGP_NAME_UNFINISHED) {
        remove_unfinished(directory, name);
    }
    if (kind != MGP_NAME_PROCESS) {
        return MGP_OK;
    }
    if (mgp_reader_has_folded(&folding->archive, id)) {
        /* Counted before; whoever folded it was killed, or could not remove it. */
        return unlinkat(directory, name, 0) < 0 && errno != ENOENT ? ids_add(folding, id) : MGP_OK;
    }
    return fold_file(folding, directory, name, id);
}

/* ---- what is forgotten ---- */

/* Of a file whose rows stay outside the new archive: their labels may be counted in still. Also
 * those of a row that was frozen since the file was looked at, which others show. */
static void
note_open_rows(struct folding *folding)
{
    const struct mgp_reader *file = &folding->file;
    const struct mgp_forgetting_rule rule = {.requests = folding->requests.bytes,
                                             .request_count = folding->requests.count};
    for (size_t i = 0; i < file->row_count; i++) {
        const struct mgp_file_row *row = mgp_reader_row(file, i);
        const struct mgp_taken_row name = mgp_reader_taken_row(file, row);
        if (!mgp_file_row_is_used(name.state) ||
            mgp_ordered_has(folding->taken.bytes, folding->taken.count, sizeof(name), &name)) {
            continue;
        }
        mgp_snapshot_note_open(&folding->totals, row->label, row->label_size);
        if (mgp_forgetting_is_requested(row->label, row->label_size, &rule)) {
            struct mgp_label_digest digest = mgp_label_digest(row->label, row->label_size);
            folding->cannot_tell |=
                entries_add(&folding->pending, &digest, sizeof(digest)) == MGP_ERR_NOMEM;
        }
    }
}

static int
visit_open_file(int directory, const char *name, enum mgp_name kind, struct mgp_file_id id,
                void *context)
{
    struct folding *folding = context;
    enum mgp_flaw flaw;
    if (kind != MGP_NAME_PROCESS || mgp_reader_has_folded(&folding->archive, id) ||
        ids_have(folding, id)) {
        return MGP_OK;
    }
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd < 0) {
        folding->cannot_tell |= flaw == MGP_FLAW_SYSTEM;
        return MGP_OK;
    }
    int is_locked = mgp_file_is_locked(fd);
    flaw = mgp_reader_load(&folding->file, fd, MGP_FILE_PROCESS, &id, MGP_LIFE_LIVING);
    close(fd);
    if (flaw == MGP_FLAW_NONE) {
        note_open_rows(folding);
    } else if (is_locked != 0 || flaw == MGP_FLAW_SYSTEM || flaw == MGP_FLAW_NO_MEMORY) {
        folding->cannot_tell = true; /* a file that is damaged for ever nobody shows */
    }
    return MGP_OK;
}

/* The old archive's requests, and those of the job. */
static int
gather_requests(struct folding *folding)
{
    const struct mgp_reader *archive = &folding->archive;
    const struct mgp_archive_job *job = folding->job;
    struct mgp_label_digest digest;
    int status = MGP_OK;
    for (size_t i = 0; status >= 0 && i < archive->request_count; i++) {
        memcpy(&digest, archive->requests + i * sizeof(digest), sizeof(digest));
        status = entries_add(&folding->requests, &digest, sizeof(digest));
    }
    for (size_t i = 0; status >= 0 && i < job->forgotten_count; i++) {
        digest = mgp_label_digest(job->forgotten[i].bytes, job->forgotten[i].size);
        status = entries_add(&folding->requests, &digest, sizeof(digest));
    }
    folding->requests.count =
        mgp_ordered_sort(folding->requests.bytes, folding->requests.count, sizeof(digest));
    return status;
}

static bool
is_dropped(const struct mgp_snapshot_row *row, void *rule)
{
    return mgp_forgetting_is_due(row, rule);
}

/* Drops what is due from the totals. What is to be forgotten and may be counted in still stays a
 * request; all others are done. */
static int
forget(struct folding *folding, int directory)
{
    const struct mgp_archive_job *job = folding->job;
    struct mgp_forgetting_rule rule = {folding->requests.bytes, folding->requests.count, job->now_s,
                                       job->retention_s};
    size_t due_count = 0;
    for (size_t i = 0; i < folding->totals.row_count; i++) {
        due_count += mgp_forgetting_is_due(&folding->totals.rows[i], &rule);
    }
    if (due_count == 0 && rule.request_count == 0) {
        return MGP_OK;
    }
    folding->cannot_tell = job->has_hidden_rows;
    int status = mgp_directory_visit(directory, visit_open_file, folding);
    if (status < 0 || folding->cannot_tell) {
        struct entries done = folding->pending;
        folding->pending = folding->requests; /* none is done */
        folding->requests = done;
    } else {
        folding->has_changed |= mgp_snapshot_drop(&folding->totals, is_dropped, &rule) > 0;
        folding->pending.count = mgp_ordered_sort(folding->pending.bytes, folding->pending.count,
                                                  sizeof(struct mgp_label_digest));
    }
    /* Of the same requests, those that are left. Another number is another set, but for new ones. */
    const struct mgp_reader *archive = &folding->archive;
    size_t size = archive->request_count * sizeof(struct mgp_label_digest);
    folding->has_changed |=
        folding->pending.count != archive->request_count ||
        (size > 0 && memcmp(folding->pending.bytes, archive->requests, size) != 0);
    return status;
}

/* ---- the new archive ---- */

static int
write_all(int fd, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0) {
        ssize_t written = write(fd, at, size);
        if (written < 0 && errno == EINTR) {
            continue;
        }
        if (written < 0) {
            return MGP_ERR_SYSTEM;
        }
        at += written;
        size -= (size_t)written;
    }
    return MGP_OK;
}

static int
write_rows(int fd, const struct mgp_snapshot *totals)
{
    struct mgp_file_row written;
    for (size_t i = 0; i < totals->row_count; i++) {
        const struct mgp_snapshot_row *row = &totals->rows[i];
        memset(&written, 0, sizeof(written));
        memcpy(written.label, row->label, row->label_size);
        written.label_size = (uint32_t)row->label_size;
        written.number = (uint32_t)i;
        mgp_atomic_store(&written.frozen_at, row->end->ended_at);
        mgp_atomic_store(&written.state, 1);
        written.check = mgp_label_check(1, written.label, row->label_size);
        memcpy((void *)written.words, row->words, sizeof(written.words));
        int status = write_all(fd, &written, sizeof(written));
        if (status < 0) {
            return status;
        }
    }
    return MGP_OK;
}

static int
write_header(int fd, const struct folding *folding)
{
    alignas(MGP_CACHE_LINE_BYTES) uint8_t bytes[MGP_FILE_HEADER_BYTES] = {0};
    struct mgp_file_header *header = (void *)bytes;
    struct mgp_file_id id;
    if (mgp_file_id_new(&id) < 0) {
        return MGP_ERR_SYSTEM;
    }
    header->preamble = mgp_preamble(MGP_FILE_ARCHIVE, id, (uint32_t)folding->ids.count);
    header->taken_count = (uint32_t)folding->taken.count;
    header->request_count = (uint32_t)folding->pending.count;
    mgp_atomic_store(&header->row_count, folding->totals.row_count);
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        mgp_atomic_store(&header->process_words[i], folding->totals.process_words[i]);
    }
    return write_all(fd, bytes, sizeof(bytes));
}

/* What was written is on the disk. A file system that cannot be told to, has done what it can. */
static int
put_on_disk(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : -1;
}

static int
write_entries(int fd, const struct entries *entries, size_t size)
{
    return write_all(fd, entries->bytes, entries->count * size);
}

/* Writes all of the new archive: 0, or -1 and errno. */
static int
write_archive(const struct folding *folding, int fd)
{
    if (fchmod(fd, 0600) < 0 || write_header(fd, folding) < 0 ||
        write_rows(fd, &folding->totals) < 0 ||
        write_entries(fd, &folding->ids, sizeof(struct mgp_file_id)) < 0 ||
        write_entries(fd, &folding->taken, sizeof(struct mgp_taken_row)) < 0 ||
        write_entries(fd, &folding->pending, sizeof(struct mgp_label_digest)) < 0) {
        return -1;
    }
    return put_on_disk(fd);
}

/* The new archive, in place of the old one. Where the power fails, one of both is there, whole. */
static int
replace(const struct folding *folding, int directory)
{
    char name[MGP_FILE_NAME_BYTES], unfinished[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_ARCHIVE, no_id);
    mgp_file_name(unfinished, MGP_NAME_NEW_ARCHIVE, no_id);
    (void)unlinkat(directory, unfinished, 0); /* of somebody who was killed here */
    int fd =
        openat(directory, unfinished, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) {
        return MGP_ERR_SYSTEM;
    }
    int status = write_archive(folding, fd) < 0 ? MGP_ERR_SYSTEM : MGP_OK;
    if (status == MGP_OK && !mgp_archive_lock_is_held(&folding->lock, directory)) {
        status = MGP_ERR_BUSY;
    }
    if (status == MGP_OK && renameat(directory, unfinished, directory, name) < 0) {
        status = MGP_ERR_SYSTEM;
    }
    int error = errno;
    close(fd);
    if (status < 0) {
        (void)unlinkat(directory, unfinished, 0);
        errno = error;
        return status;
    }
    /* Before any file goes, or what it counted might be nowhere on the disk. */
    return put_on_disk(directory) < 0 ? MGP_ERR_SYSTEM : MGP_OK;
}

static void
remove_folded(const struct folding *folding, int directory)
{
    char name[MGP_FILE_NAME_BYTES];
    const struct mgp_file_id *ids = folding->ids.bytes;
    for (size_t i = 0; i < folding->ids.count; i++) {
        mgp_file_name(name, MGP_NAME_PROCESS, ids[i]);
        (void)unlinkat(directory, name, 0);
    }
}

/* A damaged archive is put aside, or nothing could ever be folded again. Any other that cannot be
 * read may be whole: it stays, and so do the files. */
static int
load_old(struct folding *folding, int directory)
{
    char name[MGP_FILE_NAME_BYTES], aside[MGP_FILE_NAME_BYTES];
    enum mgp_flaw flaw = mgp_directory_load_archive(directory, &folding->archive);
    mgp_file_name(name, MGP_NAME_ARCHIVE, no_id);
    switch (flaw) {
    case MGP_FLAW_NONE:
        return mgp_reader_add(&folding->archive, MGP_LIFE_FINISHED, NULL, folding->job->now_s,
                              &folding->totals);
    case MGP_FLAW_VANISHED:
        return MGP_OK;
    case MGP_FLAW_NO_MEMORY:
        return MGP_ERR_NOMEM;
    case MGP_FLAW_SYSTEM:
        return MGP_ERR_SYSTEM;
    case MGP_FLAW_MAGIC:
    case MGP_FLAW_VERSION:
    case MGP_FLAW_TRUNCATED:
    case MGP_FLAW_DAMAGED:
        mgp_file_name(aside, MGP_NAME_BAD_ARCHIVE, no_id);
        mgp_problems_add(folding->job->problems, name, flaw);
        return renameat(directory, name, directory, aside) < 0 ? MGP_ERR_SYSTEM : MGP_OK;
    default:
        mgp_problems_add(folding->job->problems, name, flaw);
        errno = 0; /* said already */
        return MGP_ERR_SYSTEM;
    }
}

static int
fold_locked(struct folding *folding, int directory)
{
    const struct mgp_archive_job *job = folding->job;
    int status = load_old(folding, directory);
    if (status >= 0) {
        status = mgp_directory_visit(directory, visit_file, folding);
    }
    if (status >= 0) {
        folding->taken.count = mgp_ordered_sort(folding->taken.bytes, folding->taken.count,
                                                sizeof(struct mgp_taken_row));
        status = gather_requests(folding);
    }
    if (status >= 0) {
        status = forget(folding, directory);
    }
    if (status >= 0) {
        size_t most = MGP_FILE_MAX_ROWS - 1; /* and the overflow row */
        status =
            mgp_snapshot_limit_rows(&folding->totals, job->max_rows < most ? job->max_rows : most);
    }
    if (status < 0 || !folding->has_changed) {
        return status;
    }
    status = replace(folding, directory);
    if (status >= 0) {
        remove_folded(folding, directory);
    }
    return status;
}

static int
lock_and_fold(struct folding *folding, int directory)
{
    int status = mgp_archive_lock_take(&folding->lock, directory, folding->job->problems);
    if (status >= 0) {
        status = fold_locked(folding, directory);
    }
    mgp_archive_lock_release(&folding->lock);
    return status;
}

/* How many of the job's labels are requests still. */
static size_t
count_pending(const struct folding *folding)
{
    const struct mgp_forgetting_rule rule = {.requests = folding->pending.bytes,
                                             .request_count = folding->pending.count};
    size_t count = 0;
    for (size_t i = 0; i < folding->job->forgotten_count; i++) {
        const struct mgp_label *label = &folding->job->forgotten[i];
        count += mgp_forgetting_is_requested(label->bytes, label->size, &rule);
    }
    return count;
}

int
mgp_archive_fold(const struct mgp_archive_job *job, size_t *pending)
{
    struct folding folding = {.job = job};
    *pending = 0;
    int directory = mgp_file_open_directory(job->path);
    if (directory < 0 && errno == ENOENT) {
        return MGP_OK; /* nobody has counted yet; or the scrape says that it was removed */
    }
    if (directory < 0) {
        mgp_problems_add(job->problems, "", MGP_FLAW_SYSTEM);
        return MGP_ERR_SYSTEM;
    }
    mgp_reader_init(&folding.archive);
    mgp_reader_init(&folding.file);
    mgp_snapshot_init(&folding.totals, job->hash_key);
    int status = lock_and_fold(&folding, directory);
    if (status == MGP_ERR_SYSTEM) {
        mgp_problems_add(job->problems, "", MGP_FLAW_FOLD);
    }
    *pending = count_pending(&folding);
    mgp_snapshot_fini(&folding.totals);
    mgp_reader_fini(&folding.archive);
    mgp_reader_fini(&folding.file);
    mgp_free(folding.ids.bytes);
    mgp_free(folding.taken.bytes);
    mgp_free(folding.requests.bytes);
    mgp_free(folding.pending.bytes);
    close(directory);
    return status;
}
