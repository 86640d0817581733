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
#include "series.h"

struct mgp_rows;

/* Gauges are added up over processes that live, counters over all. */
enum mgp_life { MGP_LIFE_LIVING, MGP_LIFE_FINISHED };

struct mgp_snapshot_row {
    const uint8_t *label; /* UTF-8, not ended by NUL; owned by the snapshot */
    size_t label_size;
    uint64_t *words; /* MGP_WORD_COUNT of them; owned by the snapshot */
};

struct mgp_snapshot {
    struct mgp_snapshot_row *rows; /* once finished: the overflow row is the last */
    size_t row_count;
    uint64_t process_words[MGP_PROCESS_WORD_COUNT]; /* see mgp_process_value() */

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

/* Adds the rows of this process. Called under whatever keeps other threads from
 * mgp_rows_ensure() and mgp_rows_forget(). */
int mgp_snapshot_add_own(struct mgp_snapshot *snapshot, const struct mgp_rows *rows);
int mgp_snapshot_add_row(struct mgp_snapshot *snapshot, const void *label, size_t size,
                         const uint64_t words[MGP_WORD_COUNT], enum mgp_life life);
/* Adds what rows past the first max_rows hold to the overflow row, and drops them. */
int mgp_snapshot_limit_rows(struct mgp_snapshot *snapshot, size_t max_rows);

void mgp_snapshot_add_process(struct mgp_snapshot *snapshot,
                              const uint64_t words[MGP_PROCESS_WORD_COUNT], enum mgp_life life);
/* Whether there was such a row. */
bool mgp_snapshot_drop_row(struct mgp_snapshot *snapshot, const void *label, size_t size);
/* Everything was added: puts the overflow row last. */
void mgp_snapshot_finish(struct mgp_snapshot *snapshot);

#endif
