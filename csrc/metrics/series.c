#include "series.h"

#include <stdbool.h>
#include <string.h>

#include "../base/siphash.h"
#include "histogram.h"

#define MGP_X(ID, stem, kind, labels, help)                                                        \
    {stem, MGP_SERIES_##kind, MGP_LABELS_##labels,                                                 \
     help, MGP_WORD_##ID,     MGP_LABELS_##labels##_WORDS},
const struct mgp_series mgp_series_table[] = {MGP_SERIES_TABLE(MGP_X)};
#undef MGP_X

const size_t mgp_series_count = sizeof(mgp_series_table) / sizeof(mgp_series_table[0]);

#define MGP_X(ID, stem, kind, combine, help) {stem, MGP_SERIES_##kind, MGP_COMBINE_##combine, help},
const struct mgp_process_series mgp_process_series_table[] = {MGP_PROCESS_SERIES_TABLE(MGP_X)};
#undef MGP_X

#define MGP_X(ID, value) value,
const char *const mgp_eviction_reason_names[] = {MGP_EVICTION_REASONS(MGP_X)};
const char *const mgp_rejection_reason_names[] = {MGP_REJECTION_REASONS(MGP_X)};
const char *const mgp_unpooled_reason_names[] = {MGP_UNPOOLED_REASONS(MGP_X)};
#undef MGP_X

const char *const *
mgp_series_reasons(enum mgp_series_labels labels)
{
    switch (labels) {
    case MGP_LABELS_EVICTION:
        return mgp_eviction_reason_names;
    case MGP_LABELS_REJECTION:
        return mgp_rejection_reason_names;
    case MGP_LABELS_UNPOOLED:
        return mgp_unpooled_reason_names;
    case MGP_LABELS_GATEWAY:
    case MGP_LABELS_BUCKET:
        break;
    }
    return NULL;
}

enum mgp_combine
mgp_series_combine(const struct mgp_series *series)
{
    switch (series->kind) {
    case MGP_SERIES_COUNTER:
    case MGP_SERIES_HISTOGRAM:
        return MGP_COMBINE_TOTAL;
    case MGP_SERIES_AGE:
        return MGP_COMBINE_OLDEST;
    case MGP_SERIES_GAUGE:
    case MGP_SERIES_DURATION:
        break;
    }
    return MGP_COMBINE_SUM;
}

uint64_t
mgp_process_value(enum mgp_process_word word, uint64_t value)
{
    bool is_limit = mgp_process_series_table[word].combine == MGP_COMBINE_LIMIT;
    return is_limit && value == MGP_UNLIMITED ? 0 : value;
}

uint64_t
mgp_series_fingerprint(void)
{
    struct mgp_siphash_key key = {0, 0};
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        const char *const *reasons = mgp_series_reasons(series->labels);
        const uint64_t meaning[] = {series->kind, series->labels, series->first_word,
                                    series->word_count};
        key.k0 = mgp_siphash(key, series->stem, strlen(series->stem));
        key.k1 = mgp_siphash(key, meaning, sizeof(meaning));
        for (size_t word = 0; reasons != NULL && word < series->word_count; word++) {
            key.k0 = mgp_siphash(key, reasons[word], strlen(reasons[word]));
        }
    }
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        const struct mgp_histogram *histogram = &mgp_histograms[i];
        key.k0 = mgp_siphash(key, histogram->bounds_ns,
                             histogram->count * sizeof(histogram->bounds_ns[0]));
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        const struct mgp_process_series *series = &mgp_process_series_table[i];
        key.k0 = mgp_siphash(key, series->stem, strlen(series->stem));
        key.k1 = mgp_siphash(key, &series->combine, sizeof(series->combine));
    }
    return key.k0 ^ key.k1;
}
