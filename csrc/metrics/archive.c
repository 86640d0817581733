#define _GNU_SOURCE /* what C11 alone hides */
#include "archive.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "mapping.h"

struct folding {
    const struct mgp_archive_job *job;
    struct mgp_reader archive; /* the old one */
    struct mgp_reader file;
    struct mgp_snapshot totals;
    struct mgp_file_id *ids; /* owned; of the files that the new archive contains */
    size_t id_count;
    size_t id_capacity;
    bool has_changed; /* there is something to write */
    struct stat lock; /* which file is locked */
};

static const struct mgp_file_id no_id = {{0, 0}};

static int
ids_add(struct folding *folding, struct mgp_file_id id)
{
    if (folding->id_count == folding->id_capacity) {
        size_t capacity = folding->id_capacity == 0 ? 16 : folding->id_capacity * 2;
        struct mgp_file_id *ids = mgp_realloc_array(folding->ids, capacity, sizeof(*ids));
        if (ids == NULL) {
            return MGP_ERR_NOMEM;
        }
        folding->ids = ids;
        folding->id_capacity = capacity;
    }
    folding->ids[folding->id_count++] = id;
    return MGP_OK;
}

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

/* Adds a finished process's file to the totals. What is wrong with a file, the scrape that
 * found it has reported. */
static int
fold_file(struct folding *folding, int directory, const char *name, struct mgp_file_id id)
{
    enum mgp_flaw flaw;
    int status = MGP_OK;
    if (folding->id_count == MGP_FILE_MAX_ROWS) {
        return MGP_OK; /* the next folding goes on */
    }
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd < 0) {
        return MGP_OK;
    }
    if (mgp_file_is_locked(fd) == 0 && mgp_reader_load(&folding->file, fd, MGP_FILE_PROCESS, &id,
                                                       MGP_LIFE_FINISHED) == MGP_FLAW_NONE) {
        status = ids_add(folding, id);
        if (status >= 0) {
            status = mgp_reader_add(&folding->file, MGP_LIFE_FINISHED, &folding->totals);
        }
        folding->has_changed = true;
    }
    close(fd);
    return status;
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
    header->preamble = mgp_preamble(MGP_FILE_ARCHIVE, id, (uint32_t)folding->id_count);
    mgp_atomic_store(&header->row_count, folding->totals.row_count);
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        mgp_atomic_store(&header->process_words[i], folding->totals.process_words[i]);
    }
    return write_all(fd, bytes, sizeof(bytes));
}

/* Somebody may have removed the file that is locked, and another have locked the next of that
 * name: he folds now. */
static bool
still_has_lock(const struct folding *folding, int directory)
{
    return mgp_file_has_name(&folding->lock, directory, MGP_FILE_LOCK_NAME) == 1;
}

/* What was written is on the disk. A file system that cannot be told to, has done what it can. */
static int
put_on_disk(int fd)
{
    return fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : -1;
}

/* Writes all of the new archive: 0, or -1 and errno. */
static int
write_archive(const struct folding *folding, int fd)
{
    size_t ids_size = folding->id_count * sizeof(*folding->ids);
    if (fchmod(fd, 0600) < 0 || write_header(fd, folding) < 0 ||
        write_rows(fd, &folding->totals) < 0 || write_all(fd, folding->ids, ids_size) < 0) {
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
    if (status == MGP_OK && !still_has_lock(folding, directory)) {
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
    for (size_t i = 0; i < folding->id_count; i++) {
        mgp_file_name(name, MGP_NAME_PROCESS, folding->ids[i]);
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
        return mgp_reader_add(&folding->archive, MGP_LIFE_FINISHED, &folding->totals);
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
    for (size_t i = 0; status >= 0 && i < job->forgotten_count; i++) {
        folding->has_changed |= mgp_snapshot_drop_row(&folding->totals, job->forgotten[i].bytes,
                                                      job->forgotten[i].size);
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

/* Locks the file beside the archive: MGP_OK, and `lock` holds it; else MGP_ERR_BUSY or
 * MGP_ERR_SYSTEM and errno. */
static int
take_lock(struct folding *folding, int directory, struct mgp_anchor *lock)
{
    enum mgp_flaw flaw;
    int status = MGP_ERR_SYSTEM;
    int *fd = folding->job->lock_fd;
    *fd = mgp_file_open(directory, MGP_FILE_LOCK_NAME, O_RDWR | O_CREAT, &flaw);
    if (*fd < 0) {
        mgp_problems_add(folding->job->problems, MGP_FILE_LOCK_NAME, flaw);
        return MGP_ERR_BUSY;
    }
    if (mgp_file_lock(*fd) < 0) {
        status = errno == EAGAIN || errno == EACCES ? MGP_ERR_BUSY : MGP_ERR_SYSTEM;
    } else if (fstat(*fd, &folding->lock) == 0 && mgp_anchor_set(lock, *fd) == 0) {
        /* It may have been removed between open() and lock: that one nobody else tries to lock. */
        status = still_has_lock(folding, directory) ? MGP_OK : MGP_ERR_BUSY;
    }
    int error = errno;
    close(*fd);
    *fd = -1;
    errno = error;
    return status;
}

static int
lock_and_fold(struct folding *folding, int directory)
{
    struct mgp_anchor lock = {NULL};
    int status = take_lock(folding, directory, &lock);
    if (status >= 0) {
        status = fold_locked(folding, directory);
    }
    int error = errno;
    mgp_anchor_lift(&lock);
    errno = error;
    return status;
}

int
mgp_archive_fold(const struct mgp_archive_job *job)
{
    struct folding folding = {.job = job};
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
    mgp_snapshot_fini(&folding.totals);
    mgp_reader_fini(&folding.archive);
    mgp_reader_fini(&folding.file);
    mgp_free(folding.ids);
    close(directory);
    return status;
}

void
mgp_archive_after_fork(int *lock_fd)
{
    if (*lock_fd >= 0) {
        close(*lock_fd); /* without unlocking: the parent has just locked it */
        *lock_fd = -1;
    }
}
