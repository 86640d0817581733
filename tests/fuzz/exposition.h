/* A strict reader of the text exposition, written from the formats' descriptions and not from
 * csrc/metrics/text.c: the classic format (0.0.4), and OpenMetrics 1.0 as far as this package
 * uses it (no exemplars, no time stamps, no "# EOF", which is left to whoever ends the page).
 *
 * What is not right aborts, with the line. It must hold:
 *   - every line ends with a newline; the text is UTF-8;
 *   - a family is HELP, TYPE, then its samples; no family comes twice;
 *   - samples have a name that their family's type allows, labels with unique and proper names,
 *     values with the three escapes only, and a finite number of the plain form;
 *   - no series comes twice;
 *   - buckets of a histogram ascend in `le` and do not fall, end with +Inf, and the count is
 *     that of +Inf. */
#ifndef MGP_TESTS_EXPOSITION_H
#define MGP_TESTS_EXPOSITION_H

#include <stdbool.h>
#include <stddef.h>

#define EXPOSITION_LABELS_MAX 2
#define EXPOSITION_NAME_BYTES 128

struct exposition_label {
    char name[EXPOSITION_NAME_BYTES];
    char *value; /* without escapes; may contain NUL */
    size_t size;
};

struct exposition_sample {
    char name[EXPOSITION_NAME_BYTES];
    struct exposition_label labels[EXPOSITION_LABELS_MAX];
    size_t label_count;
    double value;
};

enum exposition_format { EXPOSITION_CLASSIC, EXPOSITION_OPENMETRICS };

/* Calls `visit` for each sample; returns how many there are. */
size_t exposition_read(const char *text, size_t size, enum exposition_format format,
                       void (*visit)(const struct exposition_sample *sample, void *context),
                       void *context);

/* One number as it may stand in a sample: its value; aborts where it is none. */
double exposition_number(const char *text, size_t size);

#endif
