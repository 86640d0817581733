/* The directory of shared counters, as a scrape sees it: the files of processes that live, of
 * those that have finished, and the archive into which those are folded (archive.h). */
#ifndef MGP_METRICS_DIRECTORY_H
#define MGP_METRICS_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>

#include "files.h"
#include "reader.h"
#include "snapshot.h"

#define MGP_PROBLEMS_MAX 64

/* Something that an operator should know: which file, what, and errno where it says more. */
struct mgp_problem {
    char name[MGP_FILE_NAME_BYTES];
    enum mgp_flaw flaw;
    int error;
};

struct mgp_problems {
    struct mgp_problem list[MGP_PROBLEMS_MAX];
    size_t count; /* further ones are dropped */
};

/* Reads errno, too. */
void mgp_problems_add(struct mgp_problems *problems, const char *name, enum mgp_flaw flaw);
/* In words that follow "left out": a phrase without the file's name. */
const char *mgp_flaw_text(enum mgp_flaw flaw);

/* Adds all files but the one with the id `own` (zeros: there is none) to a new snapshot, which this initialises; the
 * caller ends it with fini even after a failure. No file is counted twice or left out because
 * another process folds meanwhile. `*has_finished` says whether there is something to fold.
 * What cannot be read is a problem, and left out; a directory that is missing is empty, until
 * this process has a file there. MGP_OK; MGP_ERR_NOMEM; or MGP_ERR_SYSTEM and errno where this
 * process is short of descriptors, or others folded all the time. */
int mgp_directory_read(const char *path, struct mgp_file_id own, struct mgp_siphash_key hash_key,
                       struct mgp_snapshot *snapshot, bool *has_finished,
                       struct mgp_problems *problems);

/* For archive.c and forgetting.c. */

/* Calls `visit` for each file that is named like ours; stops at a status below 0. */
int mgp_directory_visit(int directory,
                        int (*visit)(int directory, const char *name, enum mgp_name kind,
                                     struct mgp_file_id id, void *context),
                        void *context);

/* A descriptor of the archive of this build's fingerprint, or -1. */
int mgp_directory_open_archive(const char *path);
/* Loads it; MGP_FLAW_VANISHED where there is none. */
enum mgp_flaw mgp_directory_load_archive(int directory, struct mgp_reader *reader);

#endif
