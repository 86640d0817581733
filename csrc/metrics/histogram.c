#include "histogram.h"

#include <stdbool.h>
#include <string.h>

#include "../base/status.h"

/* The default bounds: what they are compared with, in nanoseconds, and what is shown, in
 * seconds. */
#define CREATE_SECONDS_BOUNDS(X)                                                                   \
    X(5000000, "0.005")                                                                            \
    X(10000000, "0.01")                                                                            \
    X(25000000, "0.025")                                                                           \
    X(50000000, "0.05")                                                                            \
    X(100000000, "0.1")                                                                            \
    X(250000000, "0.25")                                                                           \
    X(500000000, "0.5")                                                                            \
    X(1000000000, "1.0")                                                                           \
    X(2500000000, "2.5")                                                                           \
    X(5000000000, "5.0")                                                                           \
    X(10000000000, "10.0")                                                                         \
    X(30000000000, "30.0")                                                                         \
    X(60000000000, "60.0")
#define ACQUIRE_WAIT_SECONDS_BOUNDS(X)                                                             \
    X(1000000, "0.001")                                                                            \
    CREATE_SECONDS_BOUNDS(X)
#define USE_SECONDS_BOUNDS(X)                                                                      \
    ACQUIRE_WAIT_SECONDS_BOUNDS(X)                                                                 \
    X(120000000000, "120.0")                                                                       \
    X(300000000000, "300.0")

#define ONE(bound_ns, text) +1
#define BOUND(bound_ns, text) UINT64_C(bound_ns),
#define TEXT(bound_ns, text) text,
#define MGP_X(ID)                                                                                  \
    {                                                                                              \
        .first_word = MGP_WORD_##ID,                                                               \
        .count = 0 ID##_BOUNDS(ONE),                                                               \
        .bounds_ns = {ID##_BOUNDS(BOUND) UINT64_MAX},                                              \
        .texts = {ID##_BOUNDS(TEXT)},                                                              \
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
    return MGP_OK;
}
