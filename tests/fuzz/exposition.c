#include "exposition.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../csrc/base/siphash.h"
#include "../../csrc/base/utf8.h"
#include "../c/harness.h"

#define FAMILIES_MAX 256

enum type { TYPE_COUNTER, TYPE_GAUGE, TYPE_HISTOGRAM };

struct parser {
    const char *at;
    const char *end;
    enum exposition_format format;
    char families[FAMILIES_MAX][EXPOSITION_NAME_BYTES];
    size_t family_count; /* the last is the present one */
    enum type type;
    uint64_t *series; /* owned; digests of what was seen: name and labels */
    size_t series_count, series_room;
    /* Of the histogram that runs: */
    char *owner; /* owned; gateway label of the last bucket */
    size_t owner_size;
    bool has_owner, has_infinite;
    double last_bound, last_bucket;
};

static bool
is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
}

static bool
is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool
accept(struct parser *parser, const char *string)
{
    size_t size = strlen(string);
    if ((size_t)(parser->end - parser->at) < size || memcmp(parser->at, string, size) != 0) {
        return false;
    }
    parser->at += size;
    return true;
}

static void
expect(struct parser *parser, const char *string)
{
    CHECK(accept(parser, string));
}

/* ---- tokens ------------------------------------------------------------------------- */

static void
read_name(struct parser *parser, bool may_have_colon, char name[EXPOSITION_NAME_BYTES])
{
    size_t size = 0;
    CHECK(parser->at < parser->end && is_letter(*parser->at));
    while (parser->at < parser->end && (is_letter(*parser->at) || is_digit(*parser->at) ||
                                        (may_have_colon && *parser->at == ':'))) {
        CHECK(size + 1 < EXPOSITION_NAME_BYTES);
        name[size++] = *parser->at++;
    }
    name[size] = '\0';
}

/* Up to the quotation mark that ends it; with escapes. */
static size_t
size_of_value(const char *at, const char *end)
{
    const char *start = at;
    while (at < end && *at != '"') {
        at += *at == '\\' ? 2 : 1;
    }
    CHECK(at < end);
    return (size_t)(at - start);
}

static void
read_label(struct parser *parser, struct exposition_label *label)
{
    read_name(parser, false, label->name);
    expect(parser, "=\"");
    label->value = malloc(size_of_value(parser->at, parser->end) + 1);
    CHECK(label->value != NULL);
    label->size = 0;
    while (!accept(parser, "\"")) {
        CHECK(parser->at < parser->end && *parser->at != '\n');
        char c = *parser->at++;
        if (c == '\\') {
            CHECK(parser->at < parser->end);
            c = *parser->at++;
            CHECK(c == '\\' || c == '"' || c == 'n');
            c = c == 'n' ? '\n' : c;
        }
        label->value[label->size++] = c;
    }
    CHECK(mgp_utf8_is_valid(label->value, label->size));
}

double
exposition_number(const char *text, size_t size)
{
    char copy[64], *end;
    size_t at = 0;
    CHECK(size < sizeof(copy));
    while (at < size && is_digit(text[at])) {
        at++;
    }
    CHECK(at > 0 && (at == 1 || text[0] != '0')); /* no leading zero */
    size_t whole = at;
    if (at < size && text[at] == '.') {
        size_t point = at++;
        while (at < size && is_digit(text[at])) {
            at++;
        }
        CHECK(at > point + 1);
    }
    bool has_fraction = at > whole;
    if (at < size) {
        CHECK(text[at] == 'e' && (text[at + 1] == '+' || text[at + 1] == '-'));
        CHECK(whole == 1 && size == at + 4 && is_digit(text[at + 2]) && is_digit(text[at + 3]));
        at = size;
        has_fraction = true;
    }
    CHECK(has_fraction); /* 3.0, as the official client writes it */
    memcpy(copy, text, size);
    copy[size] = '\0';
    double value = strtod(copy, &end);
    CHECK(end == copy + size && isfinite(value));
    return value;
}

/* ---- families ----------------------------------------------------------------------- */

static const char *
family(const struct parser *parser)
{
    CHECK(parser->family_count > 0);
    return parser->families[parser->family_count - 1];
}

static void
end_histogram(struct parser *parser)
{
    CHECK(!parser->has_owner || parser->has_infinite);
    parser->has_owner = false;
}

static void
read_head(struct parser *parser)
{
    char name[EXPOSITION_NAME_BYTES], type[EXPOSITION_NAME_BYTES];
    end_histogram(parser);
    read_name(parser, true, name);
    expect(parser, " ");
    const char *help = parser->at;
    while (!accept(parser, "\n")) {
        CHECK(parser->at < parser->end && *parser->at != '\\');
        parser->at++;
    }
    CHECK(parser->at - help > 1);
    for (size_t i = 0; i < parser->family_count; i++) {
        CHECK(strcmp(parser->families[i], name) != 0);
    }
    CHECK(parser->family_count < FAMILIES_MAX);
    memcpy(parser->families[parser->family_count++], name, sizeof(name));
    expect(parser, "# TYPE ");
    expect(parser, name);
    expect(parser, " ");
    read_name(parser, false, type);
    expect(parser, "\n");
    CHECK(strcmp(type, "counter") == 0 || strcmp(type, "gauge") == 0 ||
          strcmp(type, "histogram") == 0);
    parser->type = type[0] == 'c' ? TYPE_COUNTER : type[0] == 'g' ? TYPE_GAUGE : TYPE_HISTOGRAM;
    size_t size = strlen(name);
    bool ends_total = size > 6 && strcmp(name + size - 6, "_total") == 0;
    CHECK(ends_total == (parser->type == TYPE_COUNTER && parser->format == EXPOSITION_CLASSIC));
}

/* What its name has beyond that of its family. */
static const char *
ending_of(const struct parser *parser, const struct exposition_sample *sample)
{
    size_t size = strlen(family(parser));
    CHECK(strncmp(sample->name, family(parser), size) == 0);
    return sample->name + size;
}

static void
judge_histogram(struct parser *parser, const struct exposition_sample *sample, const char *ending)
{
    const struct exposition_label *owner = &sample->labels[0];
    bool is_bucket = strcmp(ending, "_bucket") == 0;
    CHECK(is_bucket || strcmp(ending, "_count") == 0 || strcmp(ending, "_sum") == 0);
    bool is_same = parser->has_owner && owner->size == parser->owner_size &&
                   memcmp(owner->value, parser->owner, owner->size) == 0;
    if (!is_bucket) {
        CHECK(sample->label_count == 1 && (!is_same || parser->has_infinite));
        CHECK(!is_same || ending[1] != 'c' || sample->value == parser->last_bucket);
        return;
    }
    CHECK(sample->label_count == 2 && strcmp(sample->labels[1].name, "le") == 0);
    if (!is_same) {
        end_histogram(parser);
        free(parser->owner);
        parser->owner = malloc(owner->size + 1);
        CHECK(parser->owner != NULL);
        memcpy(parser->owner, owner->value, owner->size);
        parser->owner_size = owner->size;
        parser->has_owner = true;
        parser->has_infinite = false;
        parser->last_bound = -1;
        parser->last_bucket = 0;
    }
    CHECK(!parser->has_infinite);
    const struct exposition_label *bound = &sample->labels[1];
    parser->has_infinite = bound->size == 4 && memcmp(bound->value, "+Inf", 4) == 0;
    if (!parser->has_infinite) {
        double le = exposition_number(bound->value, bound->size);
        CHECK(le > parser->last_bound);
        parser->last_bound = le;
    }
    CHECK(sample->value >= parser->last_bucket);
    parser->last_bucket = sample->value;
}

static void
judge(struct parser *parser, const struct exposition_sample *sample)
{
    const char *ending = ending_of(parser, sample);
    switch (parser->type) {
    case TYPE_COUNTER:
        CHECK(strcmp(ending, parser->format == EXPOSITION_CLASSIC ? "" : "_total") == 0);
        break;
    case TYPE_GAUGE:
        CHECK(strcmp(ending, "") == 0);
        break;
    case TYPE_HISTOGRAM:
        judge_histogram(parser, sample, ending);
        break;
    }
}

/* ---- samples ------------------------------------------------------------------------ */

static void
remember_series(struct parser *parser, const char *start)
{
    if (parser->series_count == parser->series_room) {
        parser->series_room = parser->series_room * 2 + 64;
        parser->series = realloc(parser->series, parser->series_room * sizeof(*parser->series));
        CHECK(parser->series != NULL);
    }
    parser->series[parser->series_count++] =
        mgp_siphash((struct mgp_siphash_key){7, 11}, start, (size_t)(parser->at - start));
}

static void
read_sample(struct parser *parser, struct exposition_sample *sample)
{
    const char *start = parser->at;
    sample->label_count = 0;
    read_name(parser, true, sample->name);
    if (accept(parser, "{")) {
        do {
            CHECK(sample->label_count < EXPOSITION_LABELS_MAX);
            read_label(parser, &sample->labels[sample->label_count++]);
        } while (accept(parser, ","));
        expect(parser, "}");
    }
    CHECK(sample->label_count < 2 || strcmp(sample->labels[0].name, sample->labels[1].name) != 0);
    remember_series(parser, start);
    expect(parser, " ");
    const char *number = parser->at;
    while (parser->at < parser->end && *parser->at != '\n') {
        parser->at++;
    }
    sample->value = exposition_number(number, (size_t)(parser->at - number));
    expect(parser, "\n");
}

static int
compare_digests(const void *a, const void *b)
{
    uint64_t left, right;
    memcpy(&left, a, sizeof(left));
    memcpy(&right, b, sizeof(right));
    return (left > right) - (left < right);
}

size_t
exposition_read(const char *text, size_t size, enum exposition_format format,
                void (*visit)(const struct exposition_sample *sample, void *context), void *context)
{
    static struct parser parser; /* too large for the stack */
    memset(&parser, 0, sizeof(parser));
    parser.at = text;
    parser.end = text + size;
    parser.format = format;
    while (parser.at < parser.end) {
        if (accept(&parser, "# HELP ")) {
            read_head(&parser);
            continue;
        }
        struct exposition_sample sample;
        read_sample(&parser, &sample);
        judge(&parser, &sample);
        visit(&sample, context);
        for (size_t i = 0; i < sample.label_count; i++) {
            free(sample.labels[i].value);
        }
    }
    end_histogram(&parser);
    if (parser.series_count > 0) {
        qsort(parser.series, parser.series_count, sizeof(*parser.series), compare_digests);
    }
    for (size_t i = 1; i < parser.series_count; i++) {
        CHECK(parser.series[i - 1] != parser.series[i]);
    }
    free(parser.series);
    free(parser.owner);
    return parser.series_count;
}
