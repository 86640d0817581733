#define _GNU_SOURCE /* what C11 alone hides */
#include "archive_lock.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <unistd.h>

#include "../base/status.h"
#include "files.h"

/* Whoever has it has a descriptor of the lock. A child that is forked in this moment would inherit that, and
 * keep the lock as long as it lives: so a fork waits until there is none. */
static pthread_mutex_t lock_descriptor = PTHREAD_MUTEX_INITIALIZER;

static void
before_fork(void)
{
    (void)pthread_mutex_lock(&lock_descriptor);
}

static void
after_fork(void)
{
    (void)pthread_mutex_unlock(&lock_descriptor);
}

int
mgp_archive_lock_watch_forks(void)
{
    return pthread_atfork(before_fork, after_fork, after_fork);
}

static int
take(struct mgp_archive_lock *lock, int directory, struct mgp_problems *problems)
{
    enum mgp_flaw flaw;
    int status = MGP_ERR_SYSTEM;
    int fd = mgp_file_open(directory, MGP_FILE_LOCK_NAME, O_RDWR | O_CREAT, &flaw);
    if (fd < 0) {
        mgp_problems_add(problems, MGP_FILE_LOCK_NAME, flaw);
        return MGP_ERR_BUSY;
    }
    if (mgp_file_lock(fd) < 0) {
        status = errno == EAGAIN || errno == EACCES ? MGP_ERR_BUSY : MGP_ERR_SYSTEM;
    } else if (fstat(fd, &lock->file) == 0 && mgp_anchor_set(&lock->anchor, fd) == 0) {
        /* It may have been removed between open() and lock: that one nobody else tries to lock. */
        status = mgp_archive_lock_is_held(lock, directory) ? MGP_OK : MGP_ERR_BUSY;
    }
    int error = errno;
    close(fd);
    errno = error;
    return status;
}

int
mgp_archive_lock_take(struct mgp_archive_lock *lock, int directory, struct mgp_problems *problems)
{
    (void)pthread_mutex_lock(&lock_descriptor);
    int status = take(lock, directory, problems);
    (void)pthread_mutex_unlock(&lock_descriptor);
    return status;
}

bool
mgp_archive_lock_is_held(const struct mgp_archive_lock *lock, int directory)
{
    return mgp_file_has_name(&lock->file, directory, MGP_FILE_LOCK_NAME) == 1;
}

void
mgp_archive_lock_release(struct mgp_archive_lock *lock)
{
    int error = errno;
    mgp_anchor_lift(&lock->anchor);
    errno = error;
}
