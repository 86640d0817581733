/* The archive: one counters file that contains what finished processes counted.
 *
 * Folding puts their files into it and removes them. Each is contained exactly once, whoever
 * dies when: the new archive, with the counts and the ids of what was folded, replaces the old
 * one in a single rename(), and only then are the files removed. A file whose id is in the archive
 * is never read again, only removed. An id leaves the archive when a later folding no longer
 * finds its file. Who folds has locked a file beside it; a lock that is taken is not
 * waited for, because whoever has it does the work.
 *
 * Frozen rows of processes that live are taken into it in the same way, row by row: the archive
 * names each row that it contains until its owner has taken it away. It also keeps which labels
 * are to be forgotten, and leaves out what is due (forgetting.h). */
#ifndef MGP_METRICS_ARCHIVE_H
#define MGP_METRICS_ARCHIVE_H

#include <stdbool.h>
#include <stddef.h>

#include "directory.h"

/* A label that is to be forgotten, by all processes. */
struct mgp_label {
    const void *bytes;
    size_t size;
};

struct mgp_archive_job {
    const char *path; /* of the directory */
    struct mgp_siphash_key hash_key;
    size_t max_rows; /* of the archive; what is beyond counts in its overflow row */
    const struct mgp_label *forgotten;
    size_t forgotten_count;
    uint64_t now_s;       /* since 1970 */
    uint64_t retention_s; /* a label that nobody counted in for so long is forgotten; 0: none is */
    /* Rows of this process are in no file, so that nobody knows which labels are counted in still:
     * none is forgotten. */
    bool has_hidden_rows;
    struct mgp_problems *problems;
};

/* MGP_OK, and `*pending` says how many of the labels others count in still: they are forgotten later.
 * MGP_ERR_BUSY where another process folds; MGP_ERR_NOMEM, or MGP_ERR_SYSTEM with a
 * problem: nothing is lost then, and nothing was counted twice. */
int mgp_archive_fold(const struct mgp_archive_job *job, size_t *pending);

#endif
