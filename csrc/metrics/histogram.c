#include "histogram.h"

#include <stdbool.h>
#include <string.h>

#include "../base/status.h"

/* The default bounds: what they are compared with, in nanoseconds, and what is shown, in
 * seconds. X is passed on with its argument. */
#define CREATE_SECONDS_BOUNDS(X, a)                                                                \
    X(a, 5000000, "0.005")                                                                         \
    X(a, 10000000, "0.01")                                                                         \
    X(a, 25000000, "0.025")                                                                        \
    X(a, 50000000, "0.05")                                                                         \
    X(a, 100000000, "0.1")                                                                         \
    X(a, 250000000, "0.25")                                                                        \
    X(a, 500000000, "0.5")                                                                         \
    X(a, 1000000000, "1.0")                                                                        \
    X(a, 2500000000, "2.5")                                                                        \
    X(a, 5000000000, "5.0")                                                                        \
    X(a, 10000000000, "10.0")                                                                      \
    X(a, 30000000000, "30.0")                                                                      \
    X(a, 60000000000, "60.0")
#define ACQUIRE_WAIT_SECONDS_BOUNDS(X, a)                                                          \
    X(a, 1000000, "0.001")                                                                         \
    CREATE_SECONDS_BOUNDS(X, a)
#define USE_SECONDS_BOUNDS(X, a)                                                                   \
    ACQUIRE_WAIT_SECONDS_BOUNDS(X, a)                                                              \
    X(a, 120000000000, "120.0")                                                                    \
    X(a, 300000000000, "300.0")

/* first_of_bit_length of the defaults, as constants: counting needs no set-up. */
#define SMALLEST_OF(bits) (UINT64_C(1) << ((bits) == 0 ? 0 : (bits) - 1))
#define IS_BELOW(bits, bound_ns, text) +(UINT64_C(bound_ns) < SMALLEST_OF(bits))
#define FIRST_1(bounds, bits) (uint8_t)(0 bounds(IS_BELOW, bits))
#define FIRST_4(bounds, bits)                                                                      \
    FIRST_1(bounds, bits), FIRST_1(bounds, bits + 1), FIRST_1(bounds, bits + 2),                   \
        FIRST_1(bounds, bits + 3)
#define FIRST_16(bounds, bits)                                                                     \
    FIRST_4(bounds, bits), FIRST_4(bounds, bits + 4), FIRST_4(bounds, bits + 8),                   \
        FIRST_4(bounds, bits + 12)
#define FIRST_65(bounds)                                                                           \
    FIRST_16(bounds, 0), FIRST_16(bounds, 16), FIRST_16(bounds, 32), FIRST_16(bounds, 48),         \
        FIRST_1(bounds, 64)

#define ONE(a, bound_ns, text) +1
#define BOUND(a, bound_ns, text) UINT64_C(bound_ns),
#define TEXT(a, bound_ns, text) text,
#define MGP_X(ID)                                                                                  \
    {                                                                                              \
        .first_word = MGP_WORD_##ID,                                                               \
        .count = 0 ID##_BOUNDS(ONE, 0),                                                            \
        .bounds_ns = {ID##_BOUNDS(BOUND, 0) UINT64_MAX},                                           \
        .first_of_bit_length = {FIRST_65(ID##_BOUNDS)},                                            \
        .texts = {ID##_BOUNDS(TEXT, 0)},                                                           \
    },
struct mgp_histogram mgp_histograms[] = {MGP_HISTOGRAM_TABLE(MGP_X)};
#undef MGP_X

const struct mgp_histogram *
mgp_histogram_of(const struct mgp_series *series)
{
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        if (mgp_histograms[i].first_word == series->first_word) {
            return &mgp_histograms[i];
        }
    }
    return NULL;
}

static bool
are_bounds(const uint64_t *bounds_ns, const char *const *texts, size_t count)
{
    if (count < 1 || count > MGP_BUCKETS_MAX || bounds_ns[count - 1] == UINT64_MAX) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if ((i > 0 && bounds_ns[i] <= bounds_ns[i - 1]) ||
            strlen(texts[i]) >= MGP_BOUND_TEXT_BYTES) {
            return false;
        }
    }
    return true;
}

int
mgp_histogram_set_bounds(enum mgp_histogram_id id, const uint64_t *bounds_ns,
                         const char *const *texts, size_t count)
{
    struct mgp_histogram *histogram = &mgp_histograms[id];
    if (!are_bounds(bounds_ns, texts, count)) {
        return MGP_ERR_INVALID;
    }
    histogram->count = count;
    for (size_t i = 0; i < count; i++) {
        histogram->bounds_ns[i] = bounds_ns[i];
        memcpy(histogram->texts[i], texts[i], strlen(texts[i]) + 1);
    }
    histogram->bounds_ns[count] = UINT64_MAX;
    size_t bucket = 0;
    for (unsigned bits = 0; bits <= 64; bits++) {
        while (histogram->bounds_ns[bucket] < SMALLEST_OF(bits)) {
            bucket++;
        }
        histogram->first_of_bit_length[bits] = (uint8_t)bucket;
    }
    return MGP_OK;
}
