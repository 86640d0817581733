/* System calls on files, one by one: a test is asked before each, and may make it fail, or kill
 * the process there. Included by the one file of a test program; it stands before libc, for all that the
 * program links. */
#ifndef MGP_TESTS_SYSTEM_CALLS_H
#define MGP_TESTS_SYSTEM_CALLS_H

#ifndef _GNU_SOURCE
#error "define _GNU_SOURCE before everything else"
#endif

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness.h"

/* Before a call: its name, and the path's last part where it has one, else "". What it returns
 * is the call's errno; 0: the call is made. NULL: all calls are made. */
static int (*system_call_before)(const char *call, const char *name);
/* After an openat() that was made, with the path. */
static void (*system_call_after_open)(const char *path);
/* After a pread() that was made, with what it read. */
static void (*system_call_after_pread)(void *bytes, ssize_t size, off_t offset);

static int
system_call_error(const char *call, const char *path)
{
    const char *slash = strrchr(path, '/');
    return system_call_before == NULL ? 0
                                      : system_call_before(call, slash == NULL ? path : slash + 1);
}

/* The function that libc has of this name, as ISO C lets it be called. */
#define SYSTEM_CALL(result, name, parameters)                                                      \
    static result(*real_##name) parameters;                                                        \
    if (real_##name == NULL) {                                                                     \
        void *found = dlsym(RTLD_NEXT, #name);                                                     \
        CHECK(found != NULL);                                                                      \
        memcpy(&real_##name, &found, sizeof(found));                                               \
    }

#define FAIL_IF(error_now)                                                                         \
    do {                                                                                           \
        int error_ = (error_now);                                                                  \
        if (error_ != 0) {                                                                         \
            errno = error_;                                                                        \
            return -1;                                                                             \
        }                                                                                          \
    } while (0)

int
openat(int directory, const char *path, int flags, ...)
{
    mode_t mode = 0;
    SYSTEM_CALL(int, openat, (int, const char *, int, ...))
    if ((flags & O_CREAT) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        mode = va_arg(arguments, mode_t);
        va_end(arguments);
    }
    FAIL_IF(system_call_error((flags & O_CREAT) != 0 ? "create" : "open", path));
    int fd = real_openat(directory, path, flags, mode);
    if (system_call_after_open != NULL) {
        system_call_after_open(path);
    }
    return fd;
}

ssize_t
pread(int fd, void *bytes, size_t size, off_t offset)
{
    SYSTEM_CALL(ssize_t, pread, (int, void *, size_t, off_t))
    FAIL_IF(system_call_error("pread", ""));
    ssize_t got = real_pread(fd, bytes, size, offset);
    if (system_call_after_pread != NULL) {
        system_call_after_pread(bytes, got, offset);
    }
    return got;
}

ssize_t
write(int fd, const void *bytes, size_t size)
{
    SYSTEM_CALL(ssize_t, write, (int, const void *, size_t))
    FAIL_IF(system_call_error("write", ""));
    return real_write(fd, bytes, size);
}

int
fsync(int fd)
{
    SYSTEM_CALL(int, fsync, (int))
    FAIL_IF(system_call_error("fsync", ""));
    return real_fsync(fd);
}

int
fchmod(int fd, mode_t mode)
{
    SYSTEM_CALL(int, fchmod, (int, mode_t))
    FAIL_IF(system_call_error("fchmod", ""));
    return real_fchmod(fd, mode);
}

int
mkdir(const char *path, mode_t mode)
{
    SYSTEM_CALL(int, mkdir, (const char *, mode_t))
    FAIL_IF(system_call_error("mkdir", path));
    return real_mkdir(path, mode);
}

int
renameat(int from_directory, const char *from, int to_directory, const char *to)
{
    SYSTEM_CALL(int, renameat, (int, const char *, int, const char *))
    FAIL_IF(system_call_error("rename", to));
    return real_renameat(from_directory, from, to_directory, to);
}

int
unlinkat(int directory, const char *path, int flags)
{
    SYSTEM_CALL(int, unlinkat, (int, const char *, int))
    FAIL_IF(system_call_error("unlink", path));
    return real_unlinkat(directory, path, flags);
}

/* Its errno is what it returns. */
int
posix_fallocate(int fd, off_t offset, off_t size)
{
    SYSTEM_CALL(int, posix_fallocate, (int, off_t, off_t))
    int error = system_call_error("fallocate", "");
    return error != 0 ? error : real_posix_fallocate(fd, offset, size);
}

#endif
