#define _GNU_SOURCE /* what C11 alone hides */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../base/check.h"
#include "../base/status.h"
#include "files.h"

#define OPEN_ATTEMPTS 8

void
mgp_segment_init(struct mgp_segment *segment)
{
    memset(segment, 0, sizeof(*segment));
}

/* Closes without a trace in errno, as this follows a failure as often as a success. */
static void
close_quietly(int fd)
{
    int error = errno;
    close(fd);
    errno = error;
}

static int
take_lock(struct mgp_segment *segment, int directory, const char *name)
{
    int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    int result = mgp_file_lock(fd) < 0 ? -1 : mgp_anchor_set(&segment->lock, fd);
    close_quietly(fd);
    return result;
}

/* Completes the file, which has the name `unfinished` until then: 0, or -1 and errno. */
static int
complete(struct mgp_segment *segment, int directory, int fd, const char *unfinished)
{
    char name[MGP_FILE_NAME_BYTES];
    if (fchmod(fd, 0600) < 0 || fstat(fd, &segment->file) < 0 ||
        take_lock(segment, directory, unfinished) < 0) {
        return -1;
    }
    segment->header = mgp_mapping_add(&segment->mappings, fd, 0, MGP_FILE_HEADER_BYTES);
    if (segment->header == NULL) {
        return -1;
    }
    segment->header->preamble = mgp_preamble(MGP_FILE_PROCESS, segment->id, 0);
    mgp_file_name(name, MGP_NAME_PROCESS, segment->id);
    return renameat(directory, unfinished, directory, name);
}

/* One attempt: -1 and errno; ENOENT when somebody tidied the unfinished file away. */
static int
open_once(struct mgp_segment *segment, int directory)
{
    char unfinished[MGP_FILE_NAME_BYTES];
    if (mgp_file_id_new(&segment->id) < 0) {
        return -1;
    }
    mgp_file_name(unfinished, MGP_NAME_UNFINISHED, segment->id);
    int fd =
        openat(directory, unfinished, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int result = fd < 0 ? -1 : complete(segment, directory, fd, unfinished);
    int error = errno;
    if (fd >= 0) {
        close(fd);
    }
    if (result < 0) {
        if (fd >= 0) {
            (void)unlinkat(directory, unfinished, 0);
        }
        mgp_segment_close(segment);
    }
    errno = error;
    return result;
}

static int
open_directory(const char *path)
{
    int directory = mgp_file_open_directory(path);
    if (directory >= 0 || errno != ENOENT) {
        return directory;
    }
    /* By chmod(), because the umask may deny its owner what we need. */
    if (mkdir(path, 0700) == 0 ? chmod(path, 0700) < 0 : errno != EEXIST) {
        return -1;
    }
    return mgp_file_open_directory(path);
}

int
mgp_segment_open(struct mgp_segment *segment, const char *directory_path)
{
    int result = -1;
    int directory = open_directory(directory_path);
    if (directory < 0) {
        return MGP_ERR_SYSTEM;
    }
    for (int attempt = 0; attempt < OPEN_ATTEMPTS; attempt++) {
        result = open_once(segment, directory);
        if (result == 0 || (errno != ENOENT && errno != EEXIST)) {
            break;
        }
    }
    segment->directory = directory_path;
    close_quietly(directory);
    return result == 0 ? MGP_OK : MGP_ERR_SYSTEM;
}

bool
mgp_segment_is_removed(const struct mgp_segment *segment)
{
    char name[MGP_FILE_NAME_BYTES];
    int directory = mgp_file_open_directory(segment->directory);
    if (directory < 0) {
        return errno == ENOENT || errno == ENOTDIR;
    }
    mgp_file_name(name, MGP_NAME_PROCESS, segment->id);
    bool is_removed = mgp_file_has_name(&segment->file, directory, name) == 0;
    close(directory);
    return is_removed;
}

/* The file, once more: a descriptor, or -1 and errno. */
static int
open_again(const struct mgp_segment *segment)
{
    char name[MGP_FILE_NAME_BYTES];
    struct stat file;
    int directory = mgp_file_open_directory(segment->directory);
    if (directory < 0) {
        return -1;
    }
    mgp_file_name(name, MGP_NAME_PROCESS, segment->id);
    int fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    close_quietly(directory);
    if (fd < 0) {
        return -1;
    }
    if (fstat(fd, &file) < 0) {
        close_quietly(fd);
        return -1;
    }
    if (file.st_dev != segment->file.st_dev || file.st_ino != segment->file.st_ino) {
        close(fd);
        errno = ENOENT;
        return -1;
    }
    return fd;
}

struct mgp_file_row *
mgp_segment_grow(struct mgp_segment *segment, uint32_t count)
{
    if (segment->row_room + count > MGP_FILE_MAX_ROWS) {
        errno = EFBIG;
        return NULL;
    }
    off_t offset =
        MGP_FILE_HEADER_BYTES + (off_t)segment->row_room * (off_t)sizeof(struct mgp_file_row);
    int fd = open_again(segment);
    if (fd < 0) {
        return NULL;
    }
    struct mgp_file_row *rows =
        mgp_mapping_add(&segment->mappings, fd, offset, count * sizeof(struct mgp_file_row));
    close_quietly(fd);
    if (rows == NULL) {
        return NULL;
    }
    for (uint32_t i = 0; i < count; i++) {
        rows[i].number = segment->row_room + i;
    }
    segment->row_room += count;
    return rows;
}

void
mgp_segment_show(struct mgp_segment *segment, struct mgp_file_row *row, const void *label,
                 size_t size)
{
    uint64_t state = mgp_atomic_load(&row->state) + 1;
    MGP_ASSERT(size <= MGP_LABEL_MAX_BYTES);
    MGP_ASSERT(mgp_file_row_is_used(state));
    memcpy(row->label, label, size);
    row->label_size = (uint32_t)size;
    row->check = mgp_label_check(state, row->label, size);
    mgp_atomic_publish(&row->state, state);
    if (mgp_atomic_load(&segment->header->row_count) <= row->number) {
        mgp_atomic_publish(&segment->header->row_count, row->number + 1);
    }
}

void
mgp_segment_freeze(struct mgp_segment *segment, struct mgp_file_row *row, uint64_t frozen_at)
{
    MGP_ASSERT(frozen_at != 0);
    mgp_atomic_step(&segment->header->change);
    mgp_atomic_store(&row->frozen_at, frozen_at);
    mgp_atomic_step(&segment->header->change);
}

void
mgp_segment_hide(struct mgp_segment *segment, struct mgp_file_row *row)
{
    mgp_atomic_step(&segment->header->change);
    mgp_atomic_step(&row->state);
    mgp_atomic_store(&row->frozen_at, 0);
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        mgp_atomic_store(&row->words[word], 0);
    }
    mgp_atomic_step(&segment->header->change);
}

void
mgp_segment_close(struct mgp_segment *segment)
{
    mgp_mapping_remove_all(&segment->mappings);
    mgp_anchor_lift(&segment->lock);
    mgp_segment_init(segment);
}

void
mgp_segment_abandon(struct mgp_segment *segment)
{
    mgp_mapping_leave_all(&segment->mappings);
    mgp_segment_init(segment); /* the anchor was not inherited */
}
