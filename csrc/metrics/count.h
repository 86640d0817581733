/* The increment header: all that csrc/core knows of metrics. A row handle stays
 * valid while anything holds the row; where its words are may change (rows.h), so
 * nobody keeps a pointer to them. */
#ifndef MGP_METRICS_COUNT_H
#define MGP_METRICS_COUNT_H

#include <stddef.h>

#include "../base/atomic.h"
#include "../base/check.h"
#include "histogram.h"

/* One caller that waits now, as its row knows it: in the order of arrival. */
struct mgp_row_waiter {
    struct mgp_row_waiter *older; /* NULL for the oldest */
    struct mgp_row_waiter *newer; /* NULL for the newest */
    int64_t since_ns;             /* of the monotonic clock */
};

/* All zero but for `words`, where nothing holds it and nobody waits. */
struct mgp_row {
    mgp_atomic_u64 *words; /* MGP_WORD_COUNT of them */
    size_t holds;          /* keys and endpoints that count into the row; see mgp_rows_forget() */
    struct mgp_row_waiter *oldest_waiter; /* borrowed, as all of the list */
    struct mgp_row_waiter *newest_waiter;
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

/* Which word of a histogram counts this duration; a negative one is taken as 0. */
static inline size_t
mgp_count_bucket(enum mgp_histogram_id id, int64_t duration_ns)
{
    const struct mgp_histogram *histogram = &mgp_histograms[id];
    return histogram->first_word +
           mgp_histogram_bucket(histogram, duration_ns > 0 ? (uint64_t)duration_ns : 0);
}

/* For gauges only. */
static inline void
mgp_count_decrement(struct mgp_row *row, size_t word)
{
    mgp_atomic_sub(&row->words[word], 1);
}

static inline void
mgp_row_show_oldest(struct mgp_row *row)
{
    const struct mgp_row_waiter *oldest = row->oldest_waiter;
    mgp_atomic_store(&row->words[MGP_WORD_OLDEST_WAITER_SECONDS],
                     oldest == NULL ? 0 : (uint64_t)oldest->since_ns);
}

/* A caller begins to wait, after all others of the row. `since_ns` is the time of the
 * monotonic clock, also where the pool has a clock of its own. */
static inline void
mgp_row_add_waiter(struct mgp_row *row, struct mgp_row_waiter *waiter, int64_t since_ns)
{
    waiter->since_ns = since_ns;
    waiter->newer = NULL;
    waiter->older = row->newest_waiter;
    row->newest_waiter = waiter;
    if (waiter->older == NULL) {
        row->oldest_waiter = waiter;
        mgp_row_show_oldest(row);
    } else {
        waiter->older->newer = waiter;
    }
}

static inline void
mgp_row_remove_waiter(struct mgp_row *row, struct mgp_row_waiter *waiter)
{
    if (waiter->newer == NULL) {
        row->newest_waiter = waiter->older;
    } else {
        waiter->newer->older = waiter->older;
    }
    if (waiter->older == NULL) {
        row->oldest_waiter = waiter->newer;
        mgp_row_show_oldest(row);
    } else {
        waiter->older->newer = waiter->newer;
    }
}

#endif
