#define _GNU_SOURCE /* what C11 alone hides */
#include "segment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "../base/status.h"
#include "files.h"

#define OPEN_ATTEMPTS 8

struct mgp_segment_map {
    struct mgp_segment_map *next;
    void *address;
    size_t size;
};

void
mgp_segment_init(struct mgp_segment *segment)
{
    memset(segment, 0, sizeof(*segment));
    segment->fd = -1;
    segment->lock_fd = -1;
}

/* Reserves bytes of the file and maps them: NULL and errno. Mappings begin on a page, so one
 * may overlap the one before; both show the same memory. */
static void *
map_more(struct mgp_segment *segment, off_t offset, size_t size)
{
    off_t page = (off_t)sysconf(_SC_PAGESIZE);
    size_t lead = (size_t)(offset % page);
    struct mgp_segment_map *map = mgp_alloc(sizeof(*map));
    if (map == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    /* Without this, a store into a page that the disk has no room for would be a SIGBUS. */
    int error;
    do {
        error = posix_fallocate(segment->fd, offset, (off_t)size);
    } while (error == EINTR);
    if (error != 0) {
        goto failed;
    }
    map->size = lead + size;
    map->address = mmap(NULL, map->size, PROT_READ | PROT_WRITE, MAP_SHARED, segment->fd,
                        offset - (off_t)lead);
    if (map->address == MAP_FAILED) {
        error = errno;
        goto failed;
    }
    map->next = segment->maps;
    segment->maps = map;
    return (char *)map->address + lead;
failed:
    mgp_free(map);
    errno = error;
    return NULL;
}

static int
prepare(struct mgp_segment *segment, int directory, const char *name)
{
    segment->lock_fd = openat(directory, name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (segment->lock_fd < 0 || mgp_file_lock(segment->lock_fd) < 0) {
        return MGP_ERR_SYSTEM;
    }
    segment->header = map_more(segment, 0, MGP_FILE_HEADER_BYTES);
    if (segment->header == NULL) {
        return MGP_ERR_SYSTEM;
    }
    segment->header->preamble = mgp_preamble(MGP_FILE_PROCESS, segment->id, 0);
    return MGP_OK;
}

/* One attempt: -1 and errno; ENOENT when somebody tidied the unfinished file away. */
static int
open_once(struct mgp_segment *segment, int directory)
{
    char name[MGP_FILE_NAME_BYTES], unfinished[MGP_FILE_NAME_BYTES];
    if (getrandom(&segment->id, sizeof(segment->id), 0) != (ssize_t)sizeof(segment->id)) {
        return -1;
    }
    mgp_file_name(name, MGP_NAME_PROCESS, segment->id);
    mgp_file_name(unfinished, MGP_NAME_UNFINISHED, segment->id);
    segment->fd =
        openat(directory, unfinished, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (segment->fd < 0) {
        mgp_segment_init(segment); /* no file: no id */
        return -1;
    }
    if (fchmod(segment->fd, 0600) == 0 && prepare(segment, directory, unfinished) == MGP_OK &&
        renameat(directory, unfinished, directory, name) == 0) {
        return 0;
    }
    int error = errno;
    (void)unlinkat(directory, unfinished, 0);
    mgp_segment_close(segment);
    errno = error;
    return -1;
}

static int
open_directory(const char *path)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC;
    int directory = open(path, flags);
    if (directory < 0 && errno == ENOENT && (mkdir(path, 0700) == 0 || errno == EEXIST)) {
        directory = open(path, flags);
    }
    return directory;
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
    int error = errno;
    close(directory);
    errno = error;
    return result == 0 ? MGP_OK : MGP_ERR_SYSTEM;
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
    struct mgp_file_row *rows = map_more(segment, offset, count * sizeof(struct mgp_file_row));
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
mgp_segment_hide(struct mgp_segment *segment, struct mgp_file_row *row)
{
    mgp_atomic_step(&segment->header->change);
    mgp_atomic_step(&row->state);
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        mgp_atomic_store(&row->words[word], 0);
    }
    mgp_atomic_step(&segment->header->change);
}

void
mgp_segment_close(struct mgp_segment *segment)
{
    while (segment->maps != NULL) {
        struct mgp_segment_map *map = segment->maps;
        segment->maps = map->next;
        (void)munmap(map->address, map->size);
        mgp_free(map);
    }
    mgp_segment_abandon(segment);
}

void
mgp_segment_abandon(struct mgp_segment *segment)
{
    if (segment->lock_fd >= 0) {
        close(segment->lock_fd);
    }
    if (segment->fd >= 0) {
        close(segment->fd);
    }
    mgp_segment_init(segment);
}
