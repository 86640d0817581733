#include "text.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "../base/status.h"
#include "histogram.h"
#include "number.h"

#define NAME_BYTES MGP_TEXT_NAME_BYTES
/* The longest middle of a line: a bound as the second label. */
#define MIDDLE_BYTES (sizeof("\",reason=\"\"} ") + MGP_BOUND_TEXT_BYTES)
/* What a line has besides its stem and the label of its gateway, at most. */
#define LINE_BYTES                                                                                 \
    (sizeof(MGP_SERIES_PREFIX "_bucket{gateway_id=\"") + MIDDLE_BYTES + MGP_NUMBER_BYTES + 1)
#define INFO_MIDDLE "\",name=\""
#define INFO_END "\"} "
/* The lines HELP and TYPE, without the text of HELP. */
#define HEAD_BYTES (2 * (size_t)NAME_BYTES + sizeof("# HELP  \n# TYPE  histogram\n"))

struct mgp_text_label {
    const char *bytes; /* escaped */
    size_t size;
};

/* A piece of a line that is the same for many. */
struct piece {
    size_t size;
    char bytes[NAME_BYTES];
};

static char *
put(char *at, const void *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

static char *
put_string(char *at, const char *string)
{
    return put(at, string, strlen(string));
}

/* ---- names ------------------------------------------------------------------ */

/* What the names of the samples of a series end with; NULL: no more. */
static const char *
name_ending(enum mgp_series_kind kind, size_t which)
{
    static const char *const endings[] = {"_bucket", "_count", "_sum"};
    switch (kind) {
    case MGP_SERIES_COUNTER:
        return which == 0 ? "_total" : NULL;
    case MGP_SERIES_GAUGE:
    case MGP_SERIES_AGE:
    case MGP_SERIES_DURATION:
        return which == 0 ? "" : NULL;
    case MGP_SERIES_HISTOGRAM:
        break;
    }
    return which < sizeof(endings) / sizeof(endings[0]) ? endings[which] : NULL;
}

static size_t
count_names(enum mgp_series_kind kind)
{
    size_t count = 0;
    while (name_ending(kind, count) != NULL) {
        count++;
    }
    return count;
}

static char *
put_name(char *at, const char *stem, const char *ending)
{
    at = put(at, MGP_SERIES_PREFIX, sizeof(MGP_SERIES_PREFIX) - 1);
    return put_string(put_string(at, stem), ending);
}

static void
name_of(const char *stem, enum mgp_series_kind kind, size_t which, char name[NAME_BYTES])
{
    MGP_ASSERT(sizeof(MGP_SERIES_PREFIX "_bucket{gateway_id=") + strlen(stem) < NAME_BYTES);
    *put_name(name, stem, name_ending(kind, which)) = '\0';
}

bool
mgp_text_sample_name(size_t number, char name[MGP_TEXT_NAME_BYTES])
{
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        if (number < count_names(series->kind)) {
            name_of(series->stem, series->kind, number, name);
            return true;
        }
        number -= count_names(series->kind);
    }
    if (number < MGP_PROCESS_WORD_COUNT) {
        const struct mgp_process_series *series = &mgp_process_series_table[number];
        name_of(series->stem, series->kind, 0, name);
        return true;
    }
    if (number == MGP_PROCESS_WORD_COUNT) {
        name_of(MGP_GATEWAY_INFO_STEM, MGP_SERIES_GAUGE, 0, name);
        return true;
    }
    return false;
}

/* ---- labels ----------------------------------------------------------------- */

static char
escape_of(uint8_t byte)
{
    switch (byte) {
    case '\\':
        return '\\';
    case '"':
        return '"';
    case '\n':
        return 'n';
    default:
        return '\0';
    }
}

static size_t
escaped_size(const uint8_t *bytes, size_t size)
{
    size_t escaped = size;
    for (size_t i = 0; i < size; i++) {
        escaped += escape_of(bytes[i]) != '\0';
    }
    return escaped;
}

static char *
put_escaped(char *at, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        char escape = escape_of(bytes[i]);
        if (escape != '\0') {
            *at++ = '\\';
            *at++ = escape;
        } else {
            *at++ = (char)bytes[i];
        }
    }
    return at;
}

/* Writes it to `at`, where `label` says that it is afterwards; returns its end. */
static char *
make_label(char *at, const uint8_t *bytes, size_t size, struct mgp_text_label *label)
{
    char *end = put_escaped(at, bytes, size);
    *label = (struct mgp_text_label){at, (size_t)(end - at)};
    return end;
}

static int
make_labels(struct mgp_text *text, size_t *labels_size, size_t *names_size)
{
    const struct mgp_snapshot *snapshot = text->snapshot;
    size_t size = 0, row_count = snapshot->row_count;
    for (size_t i = 0; i < row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        size += escaped_size(row->label, row->label_size);
    }
    *labels_size = size;
    *names_size = 0;
    for (size_t i = 0; i < row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        *names_size += row->name == NULL ? 0 : escaped_size(row->name, row->name_size);
    }
    text->escaped = mgp_alloc(size + *names_size);
    text->labels = mgp_alloc_zeroed(2 * row_count, sizeof(*text->labels));
    if (text->escaped == NULL || text->labels == NULL) {
        return MGP_ERR_NOMEM;
    }
    char *at = text->escaped;
    for (size_t i = 0; i < row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        at = make_label(at, row->label, row->label_size, &text->labels[i]);
    }
    for (size_t i = 0; i < row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        if (row->name != NULL) {
            at = make_label(at, row->name, row->name_size, &text->labels[row_count + i]);
            text->name_count++;
        }
    }
    return MGP_OK;
}

/* ---- lines ------------------------------------------------------------------ */

static char *
put_head(const struct mgp_text *text, char *at, const char *stem, enum mgp_series_kind kind,
         const char *help)
{
    static const char *const types[] = {
        [MGP_SERIES_COUNTER] = "counter",     [MGP_SERIES_GAUGE] = "gauge",
        [MGP_SERIES_AGE] = "gauge",           [MGP_SERIES_DURATION] = "gauge",
        [MGP_SERIES_HISTOGRAM] = "histogram",
    };
    /* OpenMetrics names the family, the classic format the sample. */
    bool is_classic_counter = kind == MGP_SERIES_COUNTER && text->format == MGP_TEXT_CLASSIC;
    const char *ending = is_classic_counter ? "_total" : "";
    at = put_name(put_string(at, "# HELP "), stem, ending);
    *at++ = ' ';
    at = put_string(at, help);
    at = put_name(put_string(at, "\n# TYPE "), stem, ending);
    *at++ = ' ';
    at = put_string(at, types[kind]);
    *at++ = '\n';
    return at;
}

/* Up to the value of the label gateway_id. */
static struct piece
line_start(const char *stem, const char *ending)
{
    struct piece piece;
    char *end = put_string(put_name(piece.bytes, stem, ending), "{gateway_id=\"");
    piece.size = (size_t)(end - piece.bytes);
    return piece;
}

/* From there up to the number; `name` NULL: there is no second label. */
static struct piece
line_middle(const char *name, const char *value)
{
    struct piece piece;
    char *at = piece.bytes;
    *at++ = '"';
    if (name != NULL) {
        *at++ = ',';
        at = put_string(put_string(at, name), "=\"");
        at = put_string(at, value);
        *at++ = '"';
    }
    at = put_string(at, "} ");
    piece.size = (size_t)(at - piece.bytes);
    MGP_ASSERT(piece.size <= MIDDLE_BYTES);
    return piece;
}

static char *
put_line_start(char *at, const struct piece *start, const struct mgp_text_label *label,
               const struct piece *middle)
{
    at = put(at, start->bytes, start->size);
    at = put(at, label->bytes, label->size);
    return put(at, middle->bytes, middle->size);
}

static char *
put_count_line(char *at, const struct piece *start, const struct mgp_text_label *label,
               const struct piece *middle, uint64_t count)
{
    at = mgp_number_put_count(put_line_start(at, start, label, middle), count);
    *at++ = '\n';
    return at;
}

static char *
put_duration_line(char *at, const struct piece *start, const struct mgp_text_label *label,
                  const struct piece *middle, uint64_t duration_ns)
{
    at = mgp_number_put_seconds(put_line_start(at, start, label, middle), duration_ns);
    *at++ = '\n';
    return at;
}

/* ---- families --------------------------------------------------------------- */

/* Counters and gauges: a line for each word of each row. */
static char *
put_counts(const struct mgp_text *text, char *at, const struct mgp_series *series)
{
    const char *const *reasons = mgp_series_reasons(series->labels);
    struct piece start = line_start(series->stem, name_ending(series->kind, 0));
    struct piece middles[MGP_EVICTION_REASON_COUNT];
    MGP_ASSERT(series->word_count <= sizeof(middles) / sizeof(middles[0]));
    for (size_t k = 0; k < series->word_count; k++) {
        middles[k] = reasons == NULL ? line_middle(NULL, NULL) : line_middle("reason", reasons[k]);
    }
    for (size_t i = 0; i < text->snapshot->row_count; i++) {
        const uint64_t *words = text->snapshot->rows[i].words + series->first_word;
        for (size_t k = 0; k < series->word_count; k++) {
            at = put_count_line(at, &start, &text->labels[i], &middles[k], words[k]);
        }
    }
    return at;
}

static char *
put_ages(const struct mgp_text *text, char *at, const struct mgp_series *series)
{
    struct piece start = line_start(series->stem, name_ending(series->kind, 0));
    struct piece middle = line_middle(NULL, NULL);
    for (size_t i = 0; i < text->snapshot->row_count; i++) {
        uint64_t since_ns = text->snapshot->rows[i].words[series->first_word];
        uint64_t now_ns = (uint64_t)text->now_ns;
        uint64_t age_ns = since_ns == 0 || since_ns > now_ns ? 0 : now_ns - since_ns;
        at = put_duration_line(at, &start, &text->labels[i], &middle, age_ns);
    }
    return at;
}

/* `wanted` says of each of the three names whether its samples are. */
static char *
put_histogram(const struct mgp_text *text, char *at, const struct mgp_series *series,
              const bool wanted[])
{
    const struct mgp_histogram *histogram = mgp_histogram_of(series);
    struct piece bucket_start = line_start(series->stem, name_ending(series->kind, 0));
    struct piece count_start = line_start(series->stem, name_ending(series->kind, 1));
    struct piece sum_start = line_start(series->stem, name_ending(series->kind, 2));
    struct piece middles[MGP_BUCKETS_MAX + 1];
    struct piece middle = line_middle(NULL, NULL);
    MGP_ASSERT(histogram != NULL);
    for (size_t k = 0; k < histogram->count; k++) {
        middles[k] = line_middle("le", histogram->texts[k]);
    }
    middles[histogram->count] = line_middle("le", "+Inf");
    for (size_t i = 0; i < text->snapshot->row_count; i++) {
        const uint64_t *words = text->snapshot->rows[i].words + series->first_word;
        const struct mgp_text_label *label = &text->labels[i];
        uint64_t count = 0;
        for (size_t k = 0; k <= histogram->count; k++) {
            count += words[k];
            if (wanted[0]) {
                at = put_count_line(at, &bucket_start, label, &middles[k], count);
            }
        }
        if (wanted[1]) {
            at = put_count_line(at, &count_start, label, &middle, count);
        }
        if (wanted[2]) {
            at = put_duration_line(at, &sum_start, label, &middle, words[MGP_BUCKET_SUM_OFFSET]);
        }
    }
    return at;
}

static char *
put_series(const struct mgp_text *text, char *at, const struct mgp_series *series,
           const bool wanted[])
{
    at = put_head(text, at, series->stem, series->kind, series->help);
    switch (series->kind) {
    case MGP_SERIES_COUNTER:
    case MGP_SERIES_GAUGE:
        return put_counts(text, at, series);
    case MGP_SERIES_AGE:
        return put_ages(text, at, series);
    case MGP_SERIES_DURATION: /* no series of rows */
    case MGP_SERIES_HISTOGRAM:
        break;
    }
    return put_histogram(text, at, series, wanted);
}

static char *
put_process_series(const struct mgp_text *text, char *at, enum mgp_process_word word)
{
    const struct mgp_process_series *series = &mgp_process_series_table[word];
    uint64_t value = mgp_process_value(word, text->snapshot->process_words[word]);
    at = put_head(text, at, series->stem, series->kind, series->help);
    at = put_name(at, series->stem, name_ending(series->kind, 0));
    *at++ = ' ';
    at = series->kind == MGP_SERIES_DURATION ? mgp_number_put_seconds(at, value)
                                             : mgp_number_put_count(at, value);
    *at++ = '\n';
    return at;
}

static char *
put_gateway_info(const struct mgp_text *text, char *at)
{
    const struct mgp_text_label *names = text->labels + text->snapshot->row_count;
    struct piece start = line_start(MGP_GATEWAY_INFO_STEM, name_ending(MGP_SERIES_GAUGE, 0));
    at = put_head(text, at, MGP_GATEWAY_INFO_STEM, MGP_SERIES_GAUGE, MGP_GATEWAY_INFO_HELP);
    for (size_t i = 0; i < text->snapshot->row_count; i++) {
        if (names[i].bytes == NULL) {
            continue;
        }
        at = put(at, start.bytes, start.size);
        at = put(at, text->labels[i].bytes, text->labels[i].size);
        at = put_string(at, INFO_MIDDLE);
        at = put(at, names[i].bytes, names[i].size);
        at = mgp_number_put_count(put_string(at, INFO_END), 1);
        *at++ = '\n';
    }
    return at;
}

/* ---- the whole -------------------------------------------------------------- */

static size_t
bound_of(const struct mgp_text *text, size_t labels_size, size_t names_size)
{
    size_t row_count = text->snapshot->row_count, bound = 0;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        size_t lines = series->word_count + 1; /* with the count of a histogram */
        bound += HEAD_BYTES + strlen(series->help);
        bound += lines * (row_count * (strlen(series->stem) + LINE_BYTES) + labels_size);
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        const struct mgp_process_series *series = &mgp_process_series_table[i];
        bound += HEAD_BYTES + strlen(series->help) + strlen(series->stem) + LINE_BYTES;
    }
    bound += HEAD_BYTES + sizeof(MGP_GATEWAY_INFO_HELP) + labels_size + names_size;
    bound += row_count * (sizeof(MGP_GATEWAY_INFO_STEM INFO_MIDDLE INFO_END) + LINE_BYTES);
    return bound;
}

int
mgp_text_init(struct mgp_text *text, const struct mgp_snapshot *snapshot, int64_t now_ns,
              enum mgp_text_format format, const bool *selected)
{
    size_t labels_size, names_size;
    *text = (struct mgp_text){
        .snapshot = snapshot,
        .selected = selected,
        .now_ns = now_ns,
        .format = format,
    };
    int status = make_labels(text, &labels_size, &names_size);
    text->bound = bound_of(text, labels_size, names_size);
    return status;
}

void
mgp_text_fini(struct mgp_text *text)
{
    mgp_free(text->labels);
    mgp_free(text->escaped);
    text->labels = NULL;
    text->escaped = NULL;
}

size_t
mgp_text_bound(const struct mgp_text *text)
{
    return text->bound;
}

static bool
any_of(const bool *wanted, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (wanted[i]) {
            return true;
        }
    }
    return false;
}

char *
mgp_text_write(const struct mgp_text *text, char *buffer)
{
    static const bool all[] = {true, true, true};
    const bool *wanted = text->selected == NULL ? all : text->selected;
    char *at = buffer;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        size_t name_count = count_names(series->kind);
        bool is_shown =
            text->selected == NULL || (any_of(wanted, name_count) && text->snapshot->row_count > 0);
        if (is_shown) {
            at = put_series(text, at, series, wanted);
        }
        wanted += text->selected == NULL ? 0 : name_count;
    }
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        if (text->selected == NULL || wanted[i]) {
            at = put_process_series(text, at, (enum mgp_process_word)i);
        }
    }
    if (text->selected == NULL || (wanted[MGP_PROCESS_WORD_COUNT] && text->name_count > 0)) {
        at = put_gateway_info(text, at);
    }
    MGP_ASSERT((size_t)(at - buffer) <= text->bound);
    return at;
}
