/* Files of the directory of shared counters: their names, their locks, and whether one that
 * was found there may be believed to be ours. */
#ifndef MGP_METRICS_FILES_H
#define MGP_METRICS_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "layout.h"

/* None ends in ".db", which prometheus_client would take for its own. */
#define MGP_FILE_PREFIX "mcpgateway_pool-"
#define MGP_FILE_LOCK_NAME "mcpgateway_pool.lock"
#define MGP_FILE_NAME_BYTES 80

enum mgp_name {
    MGP_NAME_OTHER,      /* not of this package */
    MGP_NAME_STRANGE,    /* begins like ours, but is none of these */
    MGP_NAME_PROCESS,    /* a process's counters; the id follows the prefix */
    MGP_NAME_UNFINISHED, /* the same, before it is complete */
    MGP_NAME_ARCHIVE,    /* of finished processes; the fingerprint follows the prefix */
    MGP_NAME_NEW_ARCHIVE,
    MGP_NAME_BAD_ARCHIVE, /* put aside, because it could not be read */
};

/* Why a file is left out. */
enum mgp_flaw {
    MGP_FLAW_NONE,
    MGP_FLAW_NO_MEMORY, /* nothing wrong with the file */
    MGP_FLAW_VANISHED,  /* it is gone: nothing to leave out */
    MGP_FLAW_SYSTEM,    /* errno says why it cannot be read */
    MGP_FLAW_NAME,
    MGP_FLAW_NOT_REGULAR,
    MGP_FLAW_OWNER,
    MGP_FLAW_MODE,
    MGP_FLAW_MAGIC,
    MGP_FLAW_VERSION,
    MGP_FLAW_TRUNCATED,
    MGP_FLAW_DAMAGED,
    /* Not of a file that was found, but of what this process wants to do there. */
    MGP_FLAW_CREATE,
    MGP_FLAW_GROW,
    MGP_FLAW_REMOVED,
    MGP_FLAW_FOLD,
};

/* The name, with its NUL, of a file of this kind and id (archives: of this build's fingerprint). */
void mgp_file_name(char name[MGP_FILE_NAME_BYTES], enum mgp_name kind, struct mgp_file_id id);
/* What a name says; `id` is set for processes and what is unfinished. */
enum mgp_name mgp_file_name_parse(const char *name, struct mgp_file_id *id);

static inline bool
mgp_file_id_equals(struct mgp_file_id a, struct mgp_file_id b)
{
    return a.parts[0] == b.parts[0] && a.parts[1] == b.parts[1];
}

/* An id that no other file has: 0, or -1 and errno. */
int mgp_file_id_new(struct mgp_file_id *id);

/* A descriptor of the directory, or -1 and errno. */
int mgp_file_open_directory(const char *path);

/* Opens a file that somebody may have put there: never follows a link, never waits, and takes
 * only a regular file of this user, which nobody else may read or write. Where others could
 * only read it, its mode is set right. A descriptor, or -1 and why. */
int mgp_file_open(int directory, const char *name, int flags, enum mgp_flaw *flaw);

/* Whether the file still has this name there: 1, 0, or -1 and errno. */
int mgp_file_has_name(const struct stat *file, int directory, const char *name);

/* The whole file, exclusively, without waiting: 0, or -1 and errno (EAGAIN: another has it).
 * `fd` is open for writing. */
int mgp_file_lock(int fd);
void mgp_file_unlock(int fd);
/* Whether anybody has locked it: 1, 0, or -1 and errno. Takes no lock, so that nobody who
 * asks the same meanwhile is misled. */
int mgp_file_is_locked(int fd);

#endif
