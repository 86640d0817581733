/* All rows at one moment: those of this process and, with shared counters, of the other
 * processes, added up by gateway label. Taken once for each scrape, then read at leisure.
 *
 *     struct mgp_snapshot snapshot;
 *     mgp_snapshot_init(&snapshot, hash_key);
 *     mgp_directory_read(..., &snapshot);         other processes; slow, needs no lock of the rows
 *     mgp_snapshot_add_own(&snapshot, rows);      this process
 *     mgp_snapshot_finish(&snapshot);
 *     for (size_t i = 0; i < snapshot.row_count; i++) { ... snapshot.rows[i].words[...] ... }
 *     mgp_snapshot_fini(&snapshot);
 *
 * Rows of other processes are read while they are counted in, so their words are made to agree
 * (mgp_row_reconcile(), mgp_row_end()). Then it holds: size = active + idle;
 * creates = size + sum(evictions), for killed processes, too; misses <= creates; and no counter is smaller than in
 * the snapshot before. */
#ifndef MGP_METRICS_SNAPSHOT_H
#define MGP_METRICS_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../base/table.h"
#include "layout.h"
#include "series.h"

struct mgp_rows;

/* Gauges are added up over processes that live, counters over all. */
enum mgp_life { MGP_LIFE_LIVING, MGP_LIFE_FINISHED };

/* When a label was counted in last, over all of its rows (forgetting.h). */
struct mgp_snapshot_end {
    bool is_open;      /* it may be counted in still */
    uint64_t ended_at; /* else, in seconds since 1970 */
};

struct mgp_snapshot_row {
    const uint8_t *label; /* UTF-8, not ended by NUL; owned by the snapshot */
    size_t label_size;
    uint64_t *words;              /* MGP_WORD_COUNT of them; owned by the snapshot */
    struct mgp_snapshot_end *end; /* owned by the snapshot */
    /* The gateway's name, likewise UTF-8; NULL: not known. Borrowed from whoever knows it, who
     * writes it here once the snapshot is finished. */
    const uint8_t *name;
    size_t name_size;
};

/* Of the archive that a snapshot was read from; all owned. */
struct mgp_snapshot_archive {
    struct mgp_taken_row *own_rows; /* those of this process that it contains, in order */
    size_t own_count;
    struct mgp_label_digest *requests; /* labels to be forgotten, in the order of their bytes */
    size_t request_count;
};

struct mgp_snapshot {
    struct mgp_snapshot_row *rows; /* once finished: the overflow row is the last */
    size_t row_count;
    uint64_t process_words[MGP_PROCESS_WORD_COUNT]; /* see mgp_process_value() */
    struct mgp_snapshot_archive archive;

    /* The rest is for snapshot.c. */
    struct mgp_table by_label;
    struct mgp_snapshot_block *blocks; /* owned; memory of rows and labels */
    size_t capacity;                   /* of `rows` */
    /* How words of a row combine: those that are added up through a mask, the few others
     * one by one. */
    uint64_t living_mask[MGP_WORD_COUNT];
    uint64_t finished_mask[MGP_WORD_COUNT];
    uint16_t special_words[MGP_WORD_COUNT];
    uint8_t special_combine[MGP_WORD_COUNT]; /* by word */
    size_t special_count;
};

void mgp_snapshot_init(struct mgp_snapshot *snapshot, struct mgp_siphash_key hash_key);
void mgp_snapshot_fini(struct mgp_snapshot *snapshot);

/* Each of these: MGP_OK or MGP_ERR_NOMEM; after a failure only fini is allowed. */

/* Adds the rows of this process, but those that the archive contains. Called under whatever keeps
 * other threads from mgp_rows_ensure() and mgp_rows_forget(). */
int mgp_snapshot_add_own(struct mgp_snapshot *snapshot, const struct mgp_rows *rows);
/* `ended_at`: when it was counted in last; 0: it may be still. */
int mgp_snapshot_add_row(struct mgp_snapshot *snapshot, const void *label, size_t size,
                         const uint64_t words[MGP_WORD_COUNT], enum mgp_life life,
                         uint64_t ended_at);
/* Adds what rows past the first max_rows hold to the overflow row, and drops them. */
int mgp_snapshot_limit_rows(struct mgp_snapshot *snapshot, size_t max_rows);

void mgp_snapshot_add_process(struct mgp_snapshot *snapshot,
                              const uint64_t words[MGP_PROCESS_WORD_COUNT], enum mgp_life life);
/* The label may be counted in still, though that row is not added: no effect where it has none. */
void mgp_snapshot_note_open(struct mgp_snapshot *snapshot, const void *label, size_t size);
/* Drops the rows of which `is_dropped` is true: how many. */
size_t mgp_snapshot_drop(struct mgp_snapshot *snapshot,
                         bool (*is_dropped)(const struct mgp_snapshot_row *row, void *context),
                         void *context);
/* Everything was added: puts the overflow row last. */
void mgp_snapshot_finish(struct mgp_snapshot *snapshot);

#endif
