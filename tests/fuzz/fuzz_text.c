/* libFuzzer target: any rows, labels, numbers, limits, bounds of buckets and selection of names
 * through the text writer. The text is read by exposition.c, which is strict; every label comes
 * back as it went in, every number is that of its word, and the samples are exactly those
 * that were selected.
 *
 * A label is made of bytes: as they are where they are UTF-8 (that is what csrc/metrics is
 * given), else each of them as the character of that number. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/utf8.h"
#include "../../csrc/metrics/histogram.h"
#include "../../csrc/metrics/number.h"
#include "../../csrc/metrics/rows.h"
#include "../../csrc/metrics/text.h"
#include "../c/harness.h"
#include "bytes.h"
#include "exposition.h"

#define ROWS_MAX 6
#define LABEL_BYTES_MAX 600
#define NAMES_MAX 64
#define SAMPLE_BITS 59 /* so that the sum of all buckets fits into 64 */

struct expectation {
    const struct mgp_snapshot *snapshot;
    const bool *selected; /* NULL: all */
    int64_t now_ns;
};

/* ---- from bytes to a snapshot --------------------------------------------------------- */

static size_t
take_label(struct bytes *input, uint8_t label[2 * LABEL_BYTES_MAX])
{
    const uint8_t *taken;
    size_t size = bytes_take(input, bytes_number(input, 2) % LABEL_BYTES_MAX, &taken);
    if (mgp_utf8_is_valid(taken, size)) {
        if (size > 0) {
            memcpy(label, taken, size);
        }
        return size;
    }
    size_t label_size = 0;
    for (size_t i = 0; i < size; i++) {
        if (taken[i] < 0x80) {
            label[label_size++] = taken[i];
        } else {
            label[label_size++] = (uint8_t)(0xc0 | taken[i] >> 6);
            label[label_size++] = (uint8_t)(0x80 | (taken[i] & 0x3f));
        }
    }
    return label_size;
}

/* Most words are zero: (index, number) pairs say what the others are. */
static void
take_words(struct bytes *input, uint64_t words[MGP_WORD_COUNT])
{
    memset(words, 0, MGP_WORD_COUNT * sizeof(*words));
    for (unsigned count = bytes_byte(input) % 32; count > 0; count--) {
        size_t word = bytes_byte(input) % MGP_WORD_COUNT;
        words[word] = bytes_any_number(input);
    }
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        const struct mgp_histogram *histogram = &mgp_histograms[i];
        for (size_t k = 0; k <= MGP_BUCKETS_MAX; k++) {
            uint64_t *bucket = &words[histogram->first_word + k];
            *bucket = k > histogram->count ? 0 : *bucket & ((UINT64_C(1) << SAMPLE_BITS) - 1);
        }
    }
}

static void
take_rows(struct bytes *input, struct mgp_snapshot *snapshot)
{
    uint8_t label[2 * LABEL_BYTES_MAX];
    uint64_t words[MGP_WORD_COUNT];
    for (unsigned count = bytes_byte(input) % (ROWS_MAX + 1); count > 0; count--) {
        size_t size = take_label(input, label);
        bool is_new = true;
        for (size_t i = 0; i < snapshot->row_count; i++) {
            const struct mgp_snapshot_row *row = &snapshot->rows[i];
            is_new &= row->label_size != size || memcmp(row->label, label, size) != 0;
        }
        take_words(input, words);
        if (is_new) { /* else the sum of two could be more than 64 bits hold */
            CHECK(mgp_snapshot_add_row(snapshot, label, size, words, MGP_LIFE_LIVING, 0) == 0);
        }
    }
}

/* Whole microseconds, or two texts could be the same. */
static void
take_bounds(struct bytes *input, enum mgp_histogram_id id)
{
    uint64_t bounds_ns[MGP_BUCKETS_MAX], last = 0;
    char texts[MGP_BUCKETS_MAX][MGP_BOUND_TEXT_BYTES];
    const char *views[MGP_BUCKETS_MAX];
    size_t count = 1 + bytes_byte(input) % MGP_BUCKETS_MAX;
    for (size_t i = 0; i < count; i++) {
        last += 1 + bytes_any_number(input) % (UINT64_C(1) << 40);
        bounds_ns[i] = last * 1000;
        *mgp_number_put_seconds(texts[i], bounds_ns[i]) = '\0';
        views[i] = texts[i];
    }
    CHECK(mgp_histogram_set_bounds(id, bounds_ns, views, count) == 0);
}

/* ---- what the samples must be --------------------------------------------------------- */

static double
seconds_of(uint64_t duration_ns)
{
    char text[64];
    uint64_t microseconds = duration_ns / 1000;
    snprintf(text, sizeof(text), "%llu.%06llu", (unsigned long long)(microseconds / 1000000),
             (unsigned long long)(microseconds % 1000000));
    return strtod(text, NULL);
}

static size_t
row_of(const struct expectation *expected, const struct exposition_label *label)
{
    CHECK(strcmp(label->name, "gateway_id") == 0);
    for (size_t i = 0; i < expected->snapshot->row_count; i++) {
        const struct mgp_snapshot_row *row = &expected->snapshot->rows[i];
        if (row->label_size == label->size && memcmp(row->label, label->value, label->size) == 0) {
            return i;
        }
    }
    harness_fail(__FILE__, __LINE__, "the label is one of those that went in");
}

static size_t
reason_of(const struct mgp_series *series, const struct exposition_label *label)
{
    const char *const *reasons = mgp_series_reasons(series->labels);
    CHECK(strcmp(label->name, "reason") == 0 && reasons != NULL);
    for (size_t i = 0; i < series->word_count; i++) {
        if (strlen(reasons[i]) == label->size &&
            memcmp(reasons[i], label->value, label->size) == 0) {
            return i;
        }
    }
    harness_fail(__FILE__, __LINE__, "the reason is one of the table");
}

/* How many buckets a sample adds up: those whose bound is not above its `le`. */
static size_t
bucket_count_of(const struct mgp_histogram *histogram, const struct exposition_label *le)
{
    for (size_t i = 0; i < histogram->count; i++) {
        if (strlen(histogram->texts[i]) == le->size &&
            memcmp(histogram->texts[i], le->value, le->size) == 0) {
            CHECK(exposition_number(le->value, le->size) == seconds_of(histogram->bounds_ns[i]));
            return i + 1;
        }
    }
    CHECK(le->size == 4 && memcmp(le->value, "+Inf", 4) == 0);
    return histogram->count + 1;
}

static double
histogram_value(const struct mgp_series *series, const uint64_t *words,
                const struct exposition_sample *sample)
{
    const struct mgp_histogram *histogram = mgp_histogram_of(series);
    size_t size = strlen(sample->name);
    CHECK(histogram != NULL);
    if (strcmp(sample->name + size - 4, "_sum") == 0) {
        return seconds_of(words[MGP_BUCKET_SUM_OFFSET]);
    }
    size_t bucket_count = histogram->count + 1;
    if (sample->label_count == 2) {
        bucket_count = bucket_count_of(histogram, &sample->labels[1]);
    }
    uint64_t sum = 0;
    for (size_t i = 0; i < bucket_count; i++) {
        sum += words[i];
    }
    return (double)sum;
}

static double
value_of(const struct expectation *expected, const struct mgp_series *series,
         const struct exposition_sample *sample)
{
    CHECK(sample->label_count >= 1);
    const struct mgp_snapshot_row *row =
        &expected->snapshot->rows[row_of(expected, &sample->labels[0])];
    const uint64_t *words = row->words + series->first_word;
    if (series->kind == MGP_SERIES_HISTOGRAM) {
        return histogram_value(series, words, sample);
    }
    if (series->kind == MGP_SERIES_AGE) {
        uint64_t now_ns = (uint64_t)expected->now_ns;
        bool is_past = words[0] > 0 && words[0] <= now_ns;
        return is_past ? seconds_of(now_ns - words[0]) : 0;
    }
    size_t word = sample->label_count == 2 ? reason_of(series, &sample->labels[1]) : 0;
    CHECK(sample->label_count == 2 || series->word_count == 1);
    return (double)words[word];
}

/* Whether `name` is the stem of a series with one of its endings. */
static bool
is_of_stem(const char *name, const char *stem, enum mgp_series_kind kind)
{
    static const char *const histogram[] = {"_bucket", "_count", "_sum"};
    size_t prefix = strlen(MGP_SERIES_PREFIX), size = strlen(stem);
    if (strncmp(name, MGP_SERIES_PREFIX, prefix) != 0 || strncmp(name + prefix, stem, size) != 0) {
        return false;
    }
    const char *ending = name + prefix + size;
    if (kind == MGP_SERIES_HISTOGRAM) {
        for (size_t i = 0; i < 3; i++) {
            if (strcmp(ending, histogram[i]) == 0) {
                return true;
            }
        }
        return false;
    }
    return strcmp(ending, kind == MGP_SERIES_COUNTER ? "_total" : "") == 0;
}

static void
check_selected(const struct expectation *expected, const char *name)
{
    static char known[NAMES_MAX][MGP_TEXT_NAME_BYTES];
    static size_t known_count;
    while (known_count < NAMES_MAX && mgp_text_sample_name(known_count, known[known_count])) {
        known_count++;
    }
    for (size_t i = 0; i < known_count; i++) {
        if (strcmp(known[i], name) == 0) {
            CHECK(expected->selected == NULL || expected->selected[i]);
            return;
        }
    }
    harness_fail(__FILE__, __LINE__, "the name is one that can be selected");
}

static void
check_sample(const struct exposition_sample *sample, void *context)
{
    const struct expectation *expected = context;
    check_selected(expected, sample->name);
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        if (is_of_stem(sample->name, series->stem, series->kind)) {
            CHECK(sample->value == value_of(expected, series, sample));
            return;
        }
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        const struct mgp_process_series *series = &mgp_process_series_table[i];
        if (is_of_stem(sample->name, series->stem, series->kind)) {
            uint64_t word = expected->snapshot->process_words[i];
            CHECK(sample->label_count == 0);
            uint64_t value = mgp_process_value((enum mgp_process_word)i, word);
            CHECK(sample->value ==
                  (series->kind == MGP_SERIES_DURATION ? seconds_of(value) : (double)value));
            return;
        }
    }
    if (is_of_stem(sample->name, MGP_GATEWAY_INFO_STEM, MGP_SERIES_GAUGE)) {
        CHECK(sample->label_count == 2);
        const struct mgp_snapshot_row *row =
            &expected->snapshot->rows[row_of(expected, &sample->labels[0])];
        const struct exposition_label *name = &sample->labels[1];
        CHECK(strcmp(name->name, "name") == 0 && row->name != NULL);
        CHECK(name->size == row->name_size && memcmp(name->value, row->name, name->size) == 0);
        CHECK(sample->value == 1);
        return;
    }
    harness_fail(__FILE__, __LINE__, "the sample is of a series of the tables");
}

/* How many samples there are in all: no series is forgotten. */
static size_t
count_samples(const struct expectation *expected)
{
    size_t number = 0, count = 0, row_count = expected->snapshot->row_count;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        if (series->kind != MGP_SERIES_HISTOGRAM) {
            bool is_wanted = expected->selected == NULL || expected->selected[number];
            count += is_wanted ? series->word_count * row_count : 0;
            number++;
            continue;
        }
        size_t lines[] = {mgp_histogram_of(series)->count + 1, 1, 1};
        for (size_t k = 0; k < 3; k++, number++) {
            bool is_wanted = expected->selected == NULL || expected->selected[number];
            count += is_wanted ? lines[k] * row_count : 0;
        }
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++, number++) {
        count += expected->selected == NULL || expected->selected[number];
    }
    for (size_t i = 0; i < row_count; i++) {
        bool is_wanted = expected->selected == NULL || expected->selected[number];
        count += is_wanted && expected->snapshot->rows[i].name != NULL;
    }
    return count;
}

/* ---- the target ----------------------------------------------------------------------- */

static void
write_and_read(const struct expectation *expected, enum mgp_text_format format)
{
    struct mgp_text text;
    CHECK(mgp_text_init(&text, expected->snapshot, expected->now_ns, format, expected->selected) ==
          0);
    char *buffer = malloc(mgp_text_bound(&text));
    CHECK(buffer != NULL);
    size_t size = (size_t)(mgp_text_write(&text, buffer) - buffer);
    CHECK(size <= mgp_text_bound(&text));
    size_t count = exposition_read(
        buffer, size, format == MGP_TEXT_CLASSIC ? EXPOSITION_CLASSIC : EXPOSITION_OPENMETRICS,
        check_sample, (void *)(uintptr_t)expected);
    CHECK(count == count_samples(expected));
    free(buffer);
    mgp_text_fini(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct mgp_histogram defaults[MGP_HISTOGRAM_COUNT];
    static bool has_defaults;
    struct bytes input = {data, size};
    struct mgp_snapshot snapshot;
    bool selected[NAMES_MAX];
    if (!has_defaults) {
        memcpy(defaults, mgp_histograms, sizeof(defaults));
        has_defaults = true;
    }
    memcpy(mgp_histograms, defaults, sizeof(defaults));
    uint8_t how = bytes_byte(&input);
    uint64_t selection = bytes_number(&input, 8);
    struct expectation expected = {
        .snapshot = &snapshot,
        .selected = how & 1 ? selected : NULL,
        .now_ns = (int64_t)(bytes_any_number(&input) & INT64_MAX),
    };
    for (size_t i = 0; i < NAMES_MAX; i++) {
        selected[i] = (selection >> i & 1) != 0;
    }
    if (how & 2) {
        for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
            take_bounds(&input, (enum mgp_histogram_id)i);
        }
    }
    mgp_snapshot_init(&snapshot, (struct mgp_siphash_key){how, 5});
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        snapshot.process_words[i] = how & 4 ? bytes_any_number(&input) : i;
    }
    take_rows(&input, &snapshot);
    if (how & 8) {
        CHECK(mgp_snapshot_limit_rows(&snapshot, 1 + selection % 2) == 0);
    }
    mgp_snapshot_finish(&snapshot);
    for (size_t i = 0; i < snapshot.row_count; i += how & 32 ? 2 : 1) {
        const struct mgp_snapshot_row *other = &snapshot.rows[snapshot.row_count - 1 - i];
        snapshot.rows[i].name = other->label;
        snapshot.rows[i].name_size = other->label_size;
    }
    write_and_read(&expected, how & 16 ? MGP_TEXT_OPENMETRICS : MGP_TEXT_CLASSIC);
    mgp_snapshot_fini(&snapshot);
    return 0;
}
