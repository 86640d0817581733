#define _GNU_SOURCE /* what C11 alone hides */
#include "directory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/status.h"

/* Readings that another process's folding may spoil, one after the other. */
#define ATTEMPTS 64

/* ---- problems ---- */

void
mgp_problems_add(struct mgp_problems *problems, const char *name, enum mgp_flaw flaw)
{
    int error = errno;
    for (size_t i = 0; i < problems->count; i++) {
        if (problems->list[i].flaw == flaw && strcmp(problems->list[i].name, name) == 0) {
            return;
        }
    }
    if (problems->count == MGP_PROBLEMS_MAX) {
        return;
    }
    struct mgp_problem *problem = &problems->list[problems->count++];
    snprintf(problem->name, sizeof(problem->name), "%s", name);
    problem->flaw = flaw;
    problem->error = flaw == MGP_FLAW_SYSTEM || flaw >= MGP_FLAW_CREATE ? error : 0;
}

const char *
mgp_flaw_text(enum mgp_flaw flaw)
{
    switch (flaw) {
    case MGP_FLAW_NONE:
    case MGP_FLAW_VANISHED:
        break;
    case MGP_FLAW_NO_MEMORY:
        return "there is not enough memory to read it";
    case MGP_FLAW_SYSTEM:
        return "it cannot be read";
    case MGP_FLAW_NAME:
        return "it has no name that this package gives";
    case MGP_FLAW_NOT_REGULAR:
        return "it is a link, or not a regular file";
    case MGP_FLAW_OWNER:
        return "it belongs to another user";
    case MGP_FLAW_MODE:
        return "its mode is not 0600";
    case MGP_FLAW_MAGIC:
        return "it is no counters file of this machine";
    case MGP_FLAW_VERSION:
        return "another version of mcpgateway-pool, or one with other buckets, has written it";
    case MGP_FLAW_TRUNCATED:
        return "its end is missing";
    case MGP_FLAW_DAMAGED:
        return "its content is damaged";
    case MGP_FLAW_CREATE:
        return "this process cannot make its counters file, so other processes do not see yet "
               "what it counts";
    case MGP_FLAW_GROW:
        return "it cannot grow, so other processes do not see some gateways of this one yet";
    case MGP_FLAW_REMOVED:
        return "somebody has removed it; this process makes another";
    case MGP_FLAW_FOLD:
        return "the files of finished processes cannot be folded into the archive";
    }
    return "";
}

/* ---- files ---- */

int
mgp_directory_visit(int directory,
                    int (*visit)(int directory, const char *name, enum mgp_name kind,
                                 struct mgp_file_id id, void *context),
                    void *context)
{
    int status = MGP_OK;
    struct dirent *entry;
    /* A description of its own: the position in the listing belongs to it. */
    int fd = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);
    if (stream == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return MGP_ERR_SYSTEM;
    }
    while (status >= 0 && (errno = 0, entry = readdir(stream)) != NULL) {
        struct mgp_file_id id = {{0, 0}};
        enum mgp_name kind = mgp_file_name_parse(entry->d_name, &id);
        if (kind != MGP_NAME_OTHER) {
            status = visit(directory, entry->d_name, kind, id, context);
        }
    }
    if (status >= 0 && errno != 0) {
        status = MGP_ERR_SYSTEM;
    }
    int error = errno;
    closedir(stream);
    errno = error;
    return status;
}

static int
open_archive(int directory, enum mgp_flaw *flaw)
{
    char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_ARCHIVE, (struct mgp_file_id){{0, 0}});
    return mgp_file_open(directory, name, O_RDONLY, flaw);
}

int
mgp_directory_open_archive(const char *path)
{
    enum mgp_flaw flaw;
    int directory = mgp_file_open_directory(path);
    if (directory < 0) {
        return -1;
    }
    int fd = open_archive(directory, &flaw);
    close(directory);
    return fd;
}

enum mgp_flaw
mgp_directory_load_archive(int directory, struct mgp_reader *reader)
{
    enum mgp_flaw flaw;
    int fd = open_archive(directory, &flaw);
    if (fd < 0) {
        return flaw;
    }
    flaw = mgp_reader_load(reader, fd, MGP_FILE_ARCHIVE, NULL, MGP_LIFE_FINISHED);
    close(fd);
    return flaw;
}

/* ---- a scrape ---- */

/* This process lacks something just now, and nothing is wrong with the file. What it contains
 * must not look as if it were gone: totals would go back, and then leap. */
static bool
is_shortage(int error)
{
    return error == EMFILE || error == ENFILE || error == ENOMEM;
}

/* What a flaw means for the whole reading: MGP_OK where the file is left out, or there is none. */
static int
note_flaw(struct mgp_problems *problems, const char *name, enum mgp_flaw flaw)
{
    if (flaw == MGP_FLAW_NO_MEMORY) {
        return MGP_ERR_NOMEM;
    }
    if (flaw == MGP_FLAW_SYSTEM && is_shortage(errno)) {
        return MGP_ERR_SYSTEM;
    }
    if (flaw != MGP_FLAW_NONE && flaw != MGP_FLAW_VANISHED) {
        mgp_problems_add(problems, name, flaw);
    }
    return MGP_OK;
}

struct reading {
    struct mgp_file_id own;
    struct mgp_reader archive; /* holds the ids that it contains */
    struct mgp_reader file;
    struct mgp_snapshot *snapshot;
    struct mgp_problems *problems;
    bool has_finished;
    bool has_seen_own;
};

/* Whether folding would take a row of a process that lives. */
static bool
has_frozen(const struct mgp_reader *file, const struct mgp_reader *archive)
{
    for (size_t i = 0; file->is_steady && i < file->row_count; i++) {
        if (mgp_reader_is_frozen(file, i) &&
            !mgp_reader_has_taken(archive, mgp_reader_taken_row(file, mgp_reader_row(file, i)))) {
            return true;
        }
    }
    return false;
}

/* What those who add this process's rows, and who forget, have to know of the archive. */
static int
keep_archive(const struct reading *reading)
{
    const struct mgp_reader *reader = &reading->archive;
    struct mgp_snapshot_archive *archive = &reading->snapshot->archive;
    size_t requests_size = reader->request_count * sizeof(*archive->requests);
    archive->requests = mgp_alloc(requests_size + 1);
    archive->own_rows = mgp_alloc(reader->taken_count * sizeof(*archive->own_rows) + 1);
    if (archive->requests == NULL || archive->own_rows == NULL) {
        return MGP_ERR_NOMEM;
    }
    memcpy(archive->requests, reader->requests, requests_size);
    archive->request_count = reader->request_count;
    for (size_t i = 0; i < reader->taken_count; i++) {
        struct mgp_taken_row row;
        memcpy(&row, reader->taken_rows + i * sizeof(row), sizeof(row));
        if (mgp_file_id_equals(row.file, reading->own)) {
            archive->own_rows[archive->own_count++] = row;
        }
    }
    return MGP_OK;
}

static int
read_process(struct reading *reading, int directory, const char *name, struct mgp_file_id id)
{
    enum mgp_flaw flaw;
    int status = MGP_OK;
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd >= 0) {
        /* First whether it lives: of one that has finished, everything can be read. */
        int is_locked = mgp_file_is_locked(fd);
        enum mgp_life life = is_locked == 1 ? MGP_LIFE_LIVING : MGP_LIFE_FINISHED;
        flaw = is_locked < 0 ? MGP_FLAW_SYSTEM
                             : mgp_reader_load(&reading->file, fd, MGP_FILE_PROCESS, &id, life);
        if (flaw == MGP_FLAW_NONE) {
            reading->has_finished |=
                life == MGP_LIFE_FINISHED || has_frozen(&reading->file, &reading->archive);
            status = mgp_reader_add(&reading->file, life, &reading->archive, 0, reading->snapshot);
        }
    }
    if (flaw != MGP_FLAW_NONE) {
        status = note_flaw(reading->problems, name, flaw);
    }
    if (fd >= 0) {
        int error = errno;
        close(fd);
        errno = error;
    }
    return status;
}

static int
read_file(int directory, const char *name, enum mgp_name kind, struct mgp_file_id id, void *context)
{
    struct reading *reading = context;
    char archive[MGP_FILE_NAME_BYTES];
    switch (kind) {
    case MGP_NAME_OTHER:
    case MGP_NAME_NEW_ARCHIVE:
    case MGP_NAME_BAD_ARCHIVE:
        return MGP_OK;
    case MGP_NAME_UNFINISHED: /* perhaps nobody's: folding tidies it away */
        reading->has_finished |= !mgp_file_id_equals(id, reading->own);
        return MGP_OK;
    case MGP_NAME_ARCHIVE:
        mgp_file_name(archive, MGP_NAME_ARCHIVE, id);
        if (strcmp(name, archive) != 0) {
            mgp_problems_add(reading->problems, name, MGP_FLAW_VERSION);
        }
        return MGP_OK;
    case MGP_NAME_STRANGE:
        mgp_problems_add(reading->problems, name, MGP_FLAW_NAME);
        return MGP_OK;
    case MGP_NAME_PROCESS:
        break;
    }
    if (mgp_file_id_equals(id, reading->own)) {
        reading->has_seen_own = true;
        return MGP_OK;
    }
    if (mgp_reader_has_folded(&reading->archive, id)) {
        reading->has_finished = true; /* counted in the archive; only its file is left */
        return MGP_OK;
    }
    return read_process(reading, directory, name, id);
}

/* Whether the archive is still the one that was read. */
static bool
archive_is_the_same(struct reading *reading, int directory, enum mgp_flaw first)
{
    char name[MGP_FILE_NAME_BYTES];
    struct mgp_file_id id;
    enum mgp_flaw flaw;
    mgp_file_name(name, MGP_NAME_ARCHIVE, (struct mgp_file_id){{0, 0}});
    int fd = mgp_file_open(directory, name, O_RDONLY, &flaw);
    if (fd < 0) {
        return flaw == first;
    }
    flaw = mgp_reader_peek_id(fd, &id);
    close(fd);
    if (first != MGP_FLAW_NONE || flaw != MGP_FLAW_NONE) {
        return first != MGP_FLAW_NONE && first != MGP_FLAW_VANISHED;
    }
    return mgp_file_id_equals(id, reading->archive.header->preamble.id);
}

/* One reading: MGP_ERR_STALE when a process folded meanwhile. The archive is read first. If it is unchanged at the end, then no file went into it in between: each was either
 * in it and is known by its id, or was read from its own file. */
static int
read_once(struct reading *reading, int directory)
{
    char name[MGP_FILE_NAME_BYTES];
    mgp_file_name(name, MGP_NAME_ARCHIVE, (struct mgp_file_id){{0, 0}});
    enum mgp_flaw flaw = mgp_directory_load_archive(directory, &reading->archive);
    int status = note_flaw(reading->problems, name, flaw);
    if (flaw == MGP_FLAW_NONE) {
        status = mgp_reader_add(&reading->archive, MGP_LIFE_FINISHED, NULL, 0, reading->snapshot);
        status = status < 0 ? status : keep_archive(reading);
    }
    if (status >= 0) {
        status = mgp_directory_visit(directory, read_file, reading);
    }
    if (status == MGP_ERR_SYSTEM && !is_shortage(errno)) {
        mgp_problems_add(reading->problems, "", MGP_FLAW_SYSTEM);
        return MGP_OK;
    }
    if (status >= 0 && !archive_is_the_same(reading, directory, flaw)) {
        status = MGP_ERR_STALE;
    }
    return status;
}

int
mgp_directory_read(const char *path, struct mgp_file_id own, struct mgp_siphash_key hash_key,
                   struct mgp_snapshot *snapshot, bool *has_finished, struct mgp_problems *problems)
{
    int status = MGP_OK;
    struct reading reading = {.own = own, .snapshot = snapshot, .problems = problems};
    bool has_own = !mgp_file_id_equals(own, (struct mgp_file_id){{0, 0}});
    *has_finished = false;
    mgp_snapshot_init(snapshot, hash_key);
    int directory = mgp_file_open_directory(path);
    if (directory < 0) {
        /* The first file brings the directory with it. */
        enum mgp_flaw flaw = errno == ENOENT && !has_own ? MGP_FLAW_VANISHED : MGP_FLAW_SYSTEM;
        return note_flaw(problems, "", flaw);
    }
    mgp_reader_init(&reading.archive);
    mgp_reader_init(&reading.file);
    for (int attempt = 0; attempt < ATTEMPTS; attempt++) {
        reading.has_finished = false;
        status = read_once(&reading, directory);
        if (status != MGP_ERR_STALE) {
            break;
        }
        mgp_snapshot_fini(snapshot);
        mgp_snapshot_init(snapshot, hash_key);
    }
    if (status == MGP_ERR_STALE) {
        status = MGP_ERR_SYSTEM;
        errno = EAGAIN;
    }
    if (status == MGP_OK && !reading.has_seen_own && has_own) {
        char name[MGP_FILE_NAME_BYTES];
        mgp_file_name(name, MGP_NAME_PROCESS, own);
        errno = 0;
        mgp_problems_add(problems, name, MGP_FLAW_REMOVED);
    }
    int error = errno;
    mgp_reader_fini(&reading.archive);
    mgp_reader_fini(&reading.file);
    close(directory);
    errno = error;
    *has_finished = reading.has_finished;
    return status;
}
