/* Shared counters in a directory of the test's own. Several `struct mgp_rows` of one program
 * stand for several processes: each has a file and a lock of its own, and the lock belongs to
 * the open file, not to the process. */
#ifndef MGP_TESTS_COUNTERS_FIXTURE_H
#define MGP_TESTS_COUNTERS_FIXTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/resource.h>

#include "../../csrc/metrics/archive.h"
#include "../../csrc/metrics/rows.h"

/* A new, empty directory, and its removal with all that is in it; by then no descriptor of the
 * test's is open. */
const char *counters_directory_new(void);
void counters_directory_remove(void);

/* The path of a file there. */
const char *counters_path(const char *name);
/* The path of a process's file. */
const char *counters_path_of(const struct mgp_rows *rows);
/* How many files there have names of this kind. */
size_t counters_count_files(enum mgp_name kind);

/* A process that shares its counters; it ends with mgp_rows_fini(), whatever ends it. */
void counters_process_start(struct mgp_rows *rows);
void counters_add(struct mgp_rows *rows, const char *label, size_t word, uint64_t amount);

/* Whether this went wrong with its file since this was asked last (MGP_FLAW_NONE: nothing). */
bool counters_took_failure(struct mgp_rows *rows, enum mgp_flaw flaw, int error);

/* Files may have only so many bytes from now on, as on a full disk: RLIM_INFINITY ends it. */
void counters_limit_files(rlim_t bytes);

/* A process that has counted so many hits, had one waiter, and ended. */
struct mgp_file_id counters_finished(const char *label, uint64_t hits);
/* Copies a file within the directory. */
void counters_copy_file(const char *from, const char *to);

/* What a scrape of `own` (NULL: of a process that counts nothing) sees. */
struct mgp_problems *counters_scrape(struct mgp_snapshot *snapshot, const struct mgp_rows *own);
/* A word of a row; 0 where there is no such row. */
uint64_t counters_read(const struct mgp_snapshot *snapshot, const char *label, size_t word);
/* One scrape, one word of a row. */
uint64_t counters_scrape_word(const char *label, size_t word);
/* The same over all rows, for random labels. */
uint64_t counters_scrape_sum(size_t word);

/* The clock of a folding, its retention time, and how many labels it left pending. */
extern uint64_t counters_now_s;
extern uint64_t counters_retention_s;
extern size_t counters_pending;

int counters_fold(void);
int counters_fold_without(const char *label);

#endif
