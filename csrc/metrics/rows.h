/* The counter rows of a process: one per gateway label, found by its bytes.
 *
 * Rows lie in blocks that never move, so a row handle stays valid until
 * mgp_rows_fini(); but a row that was forgotten is reused for another label, so
 * who keeps a handle holds the row. Rows are bounded: past max_rows, a new label
 * gets the one overflow row, labelled "__overflow__", and label_overflow_total
 * rises with each mgp_rows_ensure() turned away that way. A gateway that is
 * really called "__overflow__" counts into the overflow row, too.
 *
 * Rows are shared when mgp_rows_share() names a directory: their words lie in a file there, which
 * other processes read (segment.h). Where the file cannot be made, cannot grow or was removed,
 * words lie in memory of this process: only it sees them, and it loses nothing. Once there is
 * a file with room again, mgp_rows_share_rest() carries them there. The row stays where it is; what
 * moves is where its handle points.
 *
 * Adding to a row is atomic, so that any thread may read meanwhile. Everything else is called by
 * one thread at a time (the binding holds the GIL); while the words of rows move, in
 * mgp_rows_share_rest(), mgp_rows_upkeep() and mgp_rows_ensure() of a new label, and only where
 * counters are shared, nobody adds either. */
#ifndef MGP_METRICS_ROWS_H
#define MGP_METRICS_ROWS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/list.h"
#include "../base/table.h"
#include "count.h"
#include "files.h"
#include "segment.h"

#define MGP_ROWS_OVERFLOW_LABEL "__overflow__"
#define MGP_ROWS_DEFAULT_MAX 10000
#define MGP_ROWS_UPKEEP_SECONDS 5

/* Why rows are not in a file that others read. */
struct mgp_rows_failure {
    enum mgp_flaw flaw;    /* MGP_FLAW_CREATE, _GROW or _REMOVED; _NONE: they are */
    int error;             /* errno of that; 0: it says nothing more */
    struct mgp_file_id id; /* of the file; zeros: there is none */
};

/* For forgetting.c. */
struct mgp_rows_forgetting {
    uint64_t retention_s;              /* 0: for ever */
    uint64_t swept_at_s;               /* when idle rows were looked for last */
    uint64_t cleared_count;            /* frozen rows that were taken away */
    struct mgp_file_id archive_id;     /* the archive that was looked at last */
    struct mgp_label_digest *requests; /* owned; what it says is to be forgotten, in order */
    size_t request_count;
};

struct mgp_rows {
    struct mgp_table by_label;
    struct mgp_list order;  /* every live row, oldest first: the order of exposition */
    struct mgp_list frozen; /* rows that are counted in no more, and not taken yet: forgetting.h */
    struct mgp_list free;   /* rows without a label: forgotten, or not used yet */
    struct mgp_list blocks;
    size_t max_rows;
    size_t count;             /* live rows, the overflow row not counted */
    struct mgp_row *overflow; /* NULL until it is needed */
    /* MGP_PROCESS_WORD_COUNT words; own_process_words while there is no file. */
    mgp_atomic_u64 *process_words;
    mgp_atomic_u64 own_process_words[MGP_PROCESS_WORD_COUNT];
    struct mgp_segment segment;
    char *directory;                 /* owned; NULL: nothing is shared */
    bool wants_file;                 /* there is something to share */
    int64_t upkeep_at_ns;            /* when mgp_rows_upkeep() looked last */
    struct mgp_rows_failure failure; /* the last; nothing but a success ends it */
    struct mgp_rows_failure untaken; /* the last that nobody has heard of */
    struct mgp_rows_forgetting forgetting;
};

void mgp_rows_init(struct mgp_rows *rows, struct mgp_siphash_key hash_key, size_t max_rows);
void mgp_rows_fini(struct mgp_rows *rows);

/* From now on, rows to come are shared with other processes through a file in this directory.
 * The file is made with the first row, or by mgp_rows_open_file(), and the directory with it: this
 * is called before. MGP_OK or MGP_ERR_NOMEM. */
int mgp_rows_share(struct mgp_rows *rows, const char *directory);
/* Makes the file now, if it is to be made and was not. */
void mgp_rows_open_file(struct mgp_rows *rows);
/* Tries again what failed: makes the file where there is none, another where it was removed,
 * and carries all rows there that are not in it. Costs three system calls where all is well. */
void mgp_rows_share_rest(struct mgp_rows *rows);
/* The same, at most every MGP_ROWS_UPKEEP_SECONDS: whether that time has come. */
bool mgp_rows_upkeep(struct mgp_rows *rows, int64_t now_ns);
/* What went wrong since this was asked last; flaw MGP_FLAW_NONE when nothing did, or only the
 * same again. */
struct mgp_rows_failure mgp_rows_take_failure(struct mgp_rows *rows);

/* In a forked child: rows of its own, none yet, with the same bound and directory. The parent's
 * stay where they are, because what the child has of its pools still points there. */
void mgp_rows_after_fork(struct mgp_rows *rows);

/* Changes the bound for labels to come; rows that exist stay. max_rows >= 1. */
void mgp_rows_set_max(struct mgp_rows *rows, size_t max_rows);

/* The row of this label, made where there is none (or the overflow row past the
 * bound). NULL when out of memory: nothing was changed. Only a label of at most
 * MGP_LABEL_MAX_BYTES is shared. */
struct mgp_row *mgp_rows_ensure(struct mgp_rows *rows, const void *label, size_t size);

/* Drops the row of a label once nothing of it is open: MGP_OK (also when there
 * is none), or MGP_ERR_BUSY while any of its gauges is not zero or while it is
 * held (mgp_row_hold). Others who show it see the sum of all processes fall: where
 * counters are shared, mgp_forgetting_freeze() begins what forgets it everywhere at once. */
int mgp_rows_forget(struct mgp_rows *rows, const void *label, size_t size);

/* Whether anything that the row counts is still open, or it is held. */
bool mgp_row_is_busy(const struct mgp_row *row);

/* Visits each live row, oldest first, the overflow row last. `label` is valid
 * during the call; `visit` must not ensure or forget. Stops at the first non-zero
 * result and returns it. */
int mgp_rows_visit(const struct mgp_rows *rows,
                   int (*visit)(const void *label, size_t size, const struct mgp_row *row,
                                void *context),
                   void *context);

/* The same for frozen rows (forgetting.h). */
struct mgp_frozen_row {
    const struct mgp_row *row;
    struct mgp_taken_row name; /* by which an archive names it */
    uint64_t frozen_at;        /* seconds since 1970 */
};
int mgp_rows_visit_frozen(const struct mgp_rows *rows,
                          int (*visit)(const void *label, size_t size,
                                       const struct mgp_frozen_row *frozen, void *context),
                          void *context);

/* All words of a row at one moment, as they are shown: idle sessions are those that are
 * open and not active, so that the three always agree. */
void mgp_row_read(const struct mgp_row *row, uint64_t words[MGP_WORD_COUNT]);

/* Makes words agree that were read one after the other while another process counted. What
 * was counted last may be missing in some of them: a session is counted as created before
 * it is counted as anything else, so creates is at least what the others say. */
void mgp_row_reconcile(uint64_t words[MGP_WORD_COUNT]);

/* The words of a process that has finished: what it had open it has no more, which counts as
 * evicted with the reason "process_ended". Done once more, it changes nothing. */
void mgp_row_end(uint64_t words[MGP_WORD_COUNT]);

#endif
