/* The increment header: all that csrc/core knows of metrics. A row handle stays
 * valid, and its words stay where they are, while anything holds the row. */
#ifndef MGP_METRICS_COUNT_H
#define MGP_METRICS_COUNT_H

#include <stddef.h>

#include "../base/atomic.h"
#include "../base/check.h"
#include "series.h"

struct mgp_row {
    mgp_atomic_u64 *words; /* MGP_WORD_COUNT of them, in a segment that never moves */
    size_t holds;          /* keys and endpoints that count into the row; see mgp_rows_forget() */
};

/* A holder keeps its row from being forgotten. Called by the thread that owns the pool. */
static inline void
mgp_row_hold(struct mgp_row *row)
{
    row->holds++;
}

static inline void
mgp_row_unhold(struct mgp_row *row)
{
    MGP_ASSERT(row->holds > 0);
    row->holds--;
}

static inline void
mgp_count_add(struct mgp_row *row, size_t word, uint64_t amount)
{
    mgp_atomic_add(&row->words[word], amount);
}

static inline void
mgp_count_increment(struct mgp_row *row, size_t word)
{
    mgp_atomic_add(&row->words[word], 1);
}

/* For gauges only. */
static inline void
mgp_count_decrement(struct mgp_row *row, size_t word)
{
    mgp_atomic_sub(&row->words[word], 1);
}

#endif
