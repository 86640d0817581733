/* Histograms: which bucket an observed duration counts in.
 *
 * A histogram takes MGP_LABELS_BUCKET_WORDS words of a row, from its first word on:
 *
 *   offset                    word
 *   0 ... count - 1           observations in (bound of the bucket before, its own bound]
 *   count                     observations above all bounds: the bucket of +Inf
 *   ... MGP_BUCKETS_MAX       zero
 *   MGP_BUCKET_SUM_OFFSET     sum of all observations in nanoseconds
 *
 * Each observation adds to one bucket and to the sum; the number of observations is the
 * sum of the buckets. So buckets are not cumulative here, as they are in the exposition.
 *
 * Bounds are those of the process: set before anything is counted, constant from then on. */
#ifndef MGP_METRICS_HISTOGRAM_H
#define MGP_METRICS_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "series.h"

#define MGP_BUCKET_SUM_OFFSET (MGP_BUCKETS_MAX + 1)

/* Longest text of a bound, with its end. */
#define MGP_BOUND_TEXT_BYTES 32

#define MGP_HISTOGRAM_TABLE(X) X(ACQUIRE_WAIT_SECONDS) X(CREATE_SECONDS) X(USE_SECONDS)

#define MGP_X(ID) MGP_HISTOGRAM_##ID,
enum mgp_histogram_id { MGP_HISTOGRAM_TABLE(MGP_X) MGP_HISTOGRAM_COUNT };
#undef MGP_X

struct mgp_histogram {
    size_t first_word;                                 /* of a row: MGP_WORD_<ID> */
    size_t count;                                      /* finite bounds: 1 ... MGP_BUCKETS_MAX */
    uint64_t bounds_ns[MGP_BUCKETS_MAX + 1];           /* ascending; then UINT64_MAX */
    char texts[MGP_BUCKETS_MAX][MGP_BOUND_TEXT_BYTES]; /* the bounds in seconds, as label `le` */
};

extern struct mgp_histogram mgp_histograms[MGP_HISTOGRAM_COUNT];

/* The bucket of a duration: the first whose bound is not below it. One after the other: they are few,
 * and a search or a table saves less than 10 ns. */
static inline size_t
mgp_histogram_bucket(const struct mgp_histogram *histogram, uint64_t duration_ns)
{
    size_t bucket = 0;
    while (duration_ns > histogram->bounds_ns[bucket]) {
        bucket++;
    }
    return bucket;
}

/* The histogram of a series of that kind; NULL for another series. */
const struct mgp_histogram *mgp_histogram_of(const struct mgp_series *series);

/* Replaces the bounds of a histogram; `texts` are the same bounds in seconds, in the form
 * of the exposition. MGP_OK, or MGP_ERR_INVALID where there are none, too many, or they do
 * not ascend, or a text is too long: then nothing was changed. Nothing may have been
 * counted yet, and nobody may be counting. */
int mgp_histogram_set_bounds(enum mgp_histogram_id id, const uint64_t *bounds_ns,
                             const char *const *texts, size_t count);

#endif
