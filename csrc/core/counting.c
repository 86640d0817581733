#include "counting.h"

#include "machine.h"

void
mgp_count(struct mgp_pool *pool, struct mgp_row *row, size_t word)
{
    mgp_count_increment(row, word);
    pool->totals[word]++;
}

void
mgp_uncount(struct mgp_pool *pool, struct mgp_row *row, size_t word)
{
    mgp_count_decrement(row, word);
    pool->totals[word]--;
}

void
mgp_observe(struct mgp_pool *pool, struct mgp_row *row, enum mgp_histogram_id id,
            int64_t duration_ns)
{
    size_t bucket = mgp_count_bucket(id, duration_ns);
    size_t sum = mgp_histograms[id].first_word + MGP_BUCKET_SUM_OFFSET;
    uint64_t amount_ns = duration_ns > 0 ? (uint64_t)duration_ns : 0;
    mgp_count_increment(row, bucket);
    mgp_count_add(row, sum, amount_ns);
    pool->totals[bucket]++;
    pool->totals[sum] += amount_ns;
}
