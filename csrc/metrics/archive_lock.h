/* The lock of who folds: on a file beside the archive, and never waited for. */
#ifndef MGP_METRICS_ARCHIVE_LOCK_H
#define MGP_METRICS_ARCHIVE_LOCK_H

#include <stdbool.h>
#include <sys/stat.h>

#include "directory.h"
#include "mapping.h"

struct mgp_archive_lock {
    struct stat file; /* which one is locked */
    struct mgp_anchor anchor;
};

/* MGP_OK, and `lock`, which was all zero, is held; else MGP_ERR_BUSY or MGP_ERR_SYSTEM and errno. To be
 * released in each case. */
int mgp_archive_lock_take(struct mgp_archive_lock *lock, int directory,
                          struct mgp_problems *problems);
/* Somebody may have removed the file that is locked, and another have locked the next of that
 * name: he folds now. */
bool mgp_archive_lock_is_held(const struct mgp_archive_lock *lock, int directory);
/* errno stays as it is. */
void mgp_archive_lock_release(struct mgp_archive_lock *lock);

/* Once in a process that folds in one thread and forks in another: a child does not keep the lock of a
 * folding that was under way. 0 or an errno. */
int mgp_archive_lock_watch_forks(void);

#endif
