/* Counting: each event once in its row, and once for the pool. */
#ifndef MGP_CORE_COUNTING_H
#define MGP_CORE_COUNTING_H

#include <stddef.h>
#include <stdint.h>

#include "../metrics/histogram.h"

struct mgp_pool;
struct mgp_row;

void mgp_count(struct mgp_pool *pool, struct mgp_row *row, size_t word);
void mgp_uncount(struct mgp_pool *pool, struct mgp_row *row, size_t word);
void mgp_observe(struct mgp_pool *pool, struct mgp_row *row, enum mgp_histogram_id id,
                 int64_t duration_ns);

#endif
