#include "../../csrc/metrics/histogram.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/status.h"
#include "../../csrc/metrics/count.h"
#include "harness.h"

#define SECOND UINT64_C(1000000000)

static struct mgp_histogram *const use = &mgp_histograms[MGP_HISTOGRAM_USE_SECONDS];

/* By its definition: the first bound that is not below. */
static size_t
bucket_by_search(const struct mgp_histogram *histogram, uint64_t duration_ns)
{
    size_t bucket = 0;
    while (bucket < histogram->count && duration_ns > histogram->bounds_ns[bucket]) {
        bucket++;
    }
    return bucket;
}

static void
check_buckets_around(const struct mgp_histogram *histogram, uint64_t duration_ns)
{
    for (uint64_t off = 0; off < 3; off++) {
        uint64_t at_ns = duration_ns + off - 1; /* wraps around 0: the longest of all */
        CHECK(mgp_histogram_bucket(histogram, at_ns) == bucket_by_search(histogram, at_ns));
    }
}

static void
check_all_buckets(const struct mgp_histogram *histogram)
{
    for (size_t i = 0; i < histogram->count; i++) {
        check_buckets_around(histogram, histogram->bounds_ns[i]);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        check_buckets_around(histogram, UINT64_C(1) << bit);
    }
    for (int i = 0; i < 2000; i++) {
        check_buckets_around(histogram, harness_random() >> harness_random_below(64));
    }
}

static void
default_bounds_are_what_their_texts_say(void)
{
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        const struct mgp_histogram *histogram = &mgp_histograms[i];
        CHECK(histogram->count >= 10 && histogram->count <= MGP_BUCKETS_MAX);
        for (size_t k = 0; k < histogram->count; k++) {
            double seconds = strtod(histogram->texts[k], NULL);
            CHECK((uint64_t)(seconds * 1e9 + 0.5) == histogram->bounds_ns[k]);
            CHECK(k == 0 || histogram->bounds_ns[k] > histogram->bounds_ns[k - 1]);
        }
        CHECK(histogram->bounds_ns[histogram->count] == UINT64_MAX);
    }
    const struct mgp_histogram *wait = &mgp_histograms[MGP_HISTOGRAM_ACQUIRE_WAIT_SECONDS];
    const struct mgp_histogram *create = &mgp_histograms[MGP_HISTOGRAM_CREATE_SECONDS];
    CHECK(wait->bounds_ns[0] == SECOND / 1000 && wait->bounds_ns[wait->count - 1] == 60 * SECOND);
    CHECK(create->bounds_ns[0] == SECOND / 200);
    CHECK(create->bounds_ns[create->count - 1] == 60 * SECOND);
    CHECK(use->bounds_ns[0] == SECOND / 1000 && use->bounds_ns[use->count - 1] == 300 * SECOND);
}

static void
duration_counts_in_the_first_bucket_that_is_not_below_it(void)
{
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        check_all_buckets(&mgp_histograms[i]);
    }
}

static void
series_of_histograms_have_one_and_others_none(void)
{
    size_t found = 0;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        const struct mgp_histogram *histogram = mgp_histogram_of(series);
        CHECK((histogram != NULL) == (series->kind == MGP_SERIES_HISTOGRAM));
        CHECK((histogram != NULL) == (series->labels == MGP_LABELS_BUCKET));
        CHECK(histogram == NULL || series->word_count == MGP_BUCKET_SUM_OFFSET + 1);
        found += histogram != NULL;
    }
    CHECK(found == MGP_HISTOGRAM_COUNT);
}

static void
negative_duration_counts_as_none(void)
{
    CHECK(mgp_count_bucket(MGP_HISTOGRAM_USE_SECONDS, -1) == MGP_WORD_USE_SECONDS);
    CHECK(mgp_count_bucket(MGP_HISTOGRAM_USE_SECONDS, INT64_MIN) == MGP_WORD_USE_SECONDS);
    CHECK(mgp_count_bucket(MGP_HISTOGRAM_USE_SECONDS, INT64_MAX) ==
          MGP_WORD_USE_SECONDS + use->count);
}

static int
set(size_t count, const uint64_t *bounds_ns)
{
    const char *texts[MGP_BUCKETS_MAX + 1];
    for (size_t i = 0; i <= MGP_BUCKETS_MAX; i++) {
        texts[i] = "1.0";
    }
    return mgp_histogram_set_bounds(MGP_HISTOGRAM_USE_SECONDS, bounds_ns, texts, count);
}

static void
bounds_can_be_replaced(void)
{
    struct mgp_histogram before = *use;
    uint64_t bounds_ns[MGP_BUCKETS_MAX];
    for (int round = 0; round < 300; round++) {
        size_t count = 1 + harness_random_below(MGP_BUCKETS_MAX);
        uint64_t last_ns = 0;
        for (size_t i = 0; i < count; i++) {
            /* Close together, or far apart: several in the range of a bit length, or none. */
            last_ns += 1 + (harness_random() >> (6 + harness_random_below(58)));
            bounds_ns[i] = last_ns;
        }
        CHECK(set(count, bounds_ns) == MGP_OK);
        CHECK(use->count == count && use->first_word == before.first_word);
        check_all_buckets(use);
    }
    *use = before;
}

static void
bounds_that_are_none_change_nothing(void)
{
    struct mgp_histogram before = *use;
    uint64_t too_many[MGP_BUCKETS_MAX + 1];
    const char *long_text = "1.00000000000000000000000000000000000000000";
    for (size_t i = 0; i <= MGP_BUCKETS_MAX; i++) {
        too_many[i] = i + 1;
    }
    CHECK(set(MGP_BUCKETS_MAX + 1, too_many) == MGP_ERR_INVALID);
    CHECK(set(0, too_many) == MGP_ERR_INVALID);
    CHECK(set(2, (uint64_t[]){5, 5}) == MGP_ERR_INVALID);
    CHECK(set(2, (uint64_t[]){5, 4}) == MGP_ERR_INVALID);
    CHECK(set(1, (uint64_t[]){UINT64_MAX}) == MGP_ERR_INVALID);
    CHECK(mgp_histogram_set_bounds(MGP_HISTOGRAM_USE_SECONDS, (uint64_t[]){5}, &long_text, 1) ==
          MGP_ERR_INVALID);
    CHECK(memcmp(&before, use, sizeof(before)) == 0);
    CHECK(set(MGP_BUCKETS_MAX, too_many) == MGP_OK);
    *use = before;
}

static void
waiters_of_a_row_show_when_the_oldest_came(void)
{
    static mgp_atomic_u64 words[MGP_WORD_COUNT];
    struct mgp_row row = {.words = words};
    struct mgp_row_waiter waiters[20];
    const mgp_atomic_u64 *shown = &words[MGP_WORD_OLDEST_WAITER_SECONDS];
    bool waits[20] = {false};
    int first = 0;
    for (int step = 0; step < 2000; step++) {
        int last = 0, oldest = -1;
        for (int i = 0; i < 20; i++) { /* in a ring, so that arrival is in order of time */
            int at = (first + i) % 20;
            if (waits[at]) {
                last = i + 1;
                oldest = oldest < 0 ? at : oldest;
            }
        }
        CHECK(mgp_atomic_load(shown) == (oldest < 0 ? 0 : (uint64_t)waiters[oldest].since_ns));
        if (oldest < 0) {
            CHECK(row.oldest_waiter == NULL && row.newest_waiter == NULL);
        }
        int one = (first + (int)harness_random_below(20)) % 20;
        if (waits[one]) {
            mgp_row_remove_waiter(&row, &waiters[one]);
            waits[one] = false;
        } else if (last < 20) {
            one = (first + last) % 20;
            mgp_row_add_waiter(&row, &waiters[one], step + 1);
            waits[one] = true;
        }
        while (last > 0 && !waits[first]) {
            first = (first + 1) % 20;
            last--;
        }
    }
}

int
main(void)
{
    RUN(default_bounds_are_what_their_texts_say);
    RUN(duration_counts_in_the_first_bucket_that_is_not_below_it);
    RUN(series_of_histograms_have_one_and_others_none);
    RUN(negative_duration_counts_as_none);
    RUN(bounds_can_be_replaced);
    RUN(bounds_that_are_none_change_nothing);
    RUN(waiters_of_a_row_show_when_the_oldest_came);
    return harness_end();
}
