/* OFD locks are not in POSIX before 2024; Linux has them since 3.15. */
#define _GNU_SOURCE
#include "files.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODE_BITS 07777
#define MODE 0600
/* Where one of these is set, others may have written, or the mode means more than access. */
#define MODE_BITS_OF_OTHERS 07022
#define ID_DIGITS 32
#define HEX "0123456789abcdef"

static const char *const suffixes[] = {
    [MGP_NAME_PROCESS] = ".counters",        [MGP_NAME_UNFINISHED] = ".counters.new",
    [MGP_NAME_ARCHIVE] = ".archive",         [MGP_NAME_NEW_ARCHIVE] = ".archive.new",
    [MGP_NAME_BAD_ARCHIVE] = ".archive.bad",
};

void
mgp_file_name(char name[MGP_FILE_NAME_BYTES], enum mgp_name kind, struct mgp_file_id id)
{
    if (kind == MGP_NAME_PROCESS || kind == MGP_NAME_UNFINISHED) {
        snprintf(name, MGP_FILE_NAME_BYTES, MGP_FILE_PREFIX "%016" PRIx64 "%016" PRIx64 "%s",
                 id.parts[0], id.parts[1], suffixes[kind]);
    } else {
        snprintf(name, MGP_FILE_NAME_BYTES, MGP_FILE_PREFIX "%016" PRIx64 "%s",
                 mgp_layout_fingerprint(), suffixes[kind]);
    }
}

enum mgp_name
mgp_file_name_parse(const char *name, struct mgp_file_id *id)
{
    static const size_t prefix_size = sizeof(MGP_FILE_PREFIX) - 1;
    if (strncmp(name, MGP_FILE_PREFIX, prefix_size) != 0) {
        return MGP_NAME_OTHER;
    }
    const char *digits = name + prefix_size;
    size_t digit_count = strspn(digits, HEX);
    enum mgp_name kind = MGP_NAME_PROCESS;
    while (strcmp(digits + digit_count, suffixes[kind]) != 0) {
        if (kind == MGP_NAME_BAD_ARCHIVE) {
            return MGP_NAME_STRANGE;
        }
        kind++;
    }
    if (kind != MGP_NAME_PROCESS && kind != MGP_NAME_UNFINISHED) {
        return digit_count == ID_DIGITS / 2 ? kind : MGP_NAME_STRANGE;
    }
    if (digit_count != ID_DIGITS) {
        return MGP_NAME_STRANGE;
    }
    char half[ID_DIGITS / 2 + 1] = {0};
    for (size_t i = 0; i < 2; i++) {
        memcpy(half, digits + i * (ID_DIGITS / 2), ID_DIGITS / 2);
        id->parts[i] = strtoull(half, NULL, 16);
    }
    return kind;
}

int
mgp_file_id_new(struct mgp_file_id *id)
{
    /* Not getrandom(): glibc has it from 2.25 on, and this is to run on older ones, too. */
    return syscall(SYS_getrandom, id, sizeof(*id), 0) == (long)sizeof(*id) ? 0 : -1;
}

int
mgp_file_open_directory(const char *path)
{
    return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* Whether the mode is right, or is now. A file with a second name may be no file of ours. */
static bool
mend_mode(int fd, const struct stat *stat)
{
    mode_t mode = stat->st_mode & MODE_BITS;
    return mode == MODE ||
           ((mode & MODE_BITS_OF_OTHERS) == 0 && stat->st_nlink == 1 && fchmod(fd, MODE) == 0);
}

int
mgp_file_open(int directory, const char *name, int flags, enum mgp_flaw *flaw)
{
    struct stat stat;
    int fd = openat(directory, name, flags | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, MODE);
    *flaw = MGP_FLAW_NONE;
    if (fd < 0) {
        *flaw = errno == ENOENT                    ? MGP_FLAW_VANISHED
                : errno == ELOOP || errno == ENXIO ? MGP_FLAW_NOT_REGULAR
                                                   : MGP_FLAW_SYSTEM;
        return -1;
    }
    if (fstat(fd, &stat) < 0) {
        *flaw = MGP_FLAW_SYSTEM;
    } else if (!S_ISREG(stat.st_mode)) {
        *flaw = MGP_FLAW_NOT_REGULAR;
    } else if (stat.st_uid != geteuid()) {
        *flaw = MGP_FLAW_OWNER;
    } else if (!mend_mode(fd, &stat)) {
        *flaw = MGP_FLAW_MODE;
    }
    if (*flaw != MGP_FLAW_NONE) {
        int error = errno;
        close(fd);
        errno = error;
        return -1;
    }
    return fd;
}

int
mgp_file_has_name(const struct stat *file, int directory, const char *name)
{
    struct stat named;
    if (fstatat(directory, name, &named, AT_SYMLINK_NOFOLLOW) < 0) {
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    }
    return named.st_dev == file->st_dev && named.st_ino == file->st_ino;
}

static struct flock
whole_file(short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
}

int
mgp_file_lock(int fd)
{
    struct flock lock = whole_file(F_WRLCK);
    return fcntl(fd, F_OFD_SETLK, &lock);
}

void
mgp_file_unlock(int fd)
{
    struct flock lock = whole_file(F_UNLCK);
    (void)fcntl(fd, F_OFD_SETLK, &lock);
}

int
mgp_file_is_locked(int fd)
{
    struct flock lock = whole_file(F_WRLCK);
    return fcntl(fd, F_OFD_GETLK, &lock) < 0 ? -1 : lock.l_type != F_UNLCK;
}
