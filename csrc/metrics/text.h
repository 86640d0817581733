/* The text exposition: a snapshot as the text that Prometheus scrapes, in the classic format
 * (0.0.4) or in OpenMetrics 1.0, byte by byte as prometheus_client writes the same samples.
 *
 *     struct mgp_text text;
 *     if (mgp_text_init(&text, &snapshot, now_ns, format, selected) == MGP_OK) {
 *         char *end = mgp_text_write(&text, buffer of mgp_text_bound(&text) bytes);
 *     }
 *     mgp_text_fini(&text);
 *
 * Families come in the order of the tables of series, gateway_info last, within a family the rows in the order
 * of the snapshot. The "# EOF" of OpenMetrics is left to whoever puts the page together.
 *
 * Numbers have the form of a Python float, with the exponents of Go: 3.0, 0.25, 1.5e+06.
 * Counts are whole numbers and durations whole microseconds, which need no more than their
 * own digits. (From 2^53 on, and from 272 years on, that is more digits than the shortest
 * number that reads back the same: correct, though not byte by byte the same.) */
#ifndef MGP_METRICS_TEXT_H
#define MGP_METRICS_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "series.h"
#include "snapshot.h"

#define MGP_SERIES_PREFIX "mcp_session_pool_"

enum mgp_text_format { MGP_TEXT_CLASSIC, MGP_TEXT_OPENMETRICS };

struct mgp_text {
    const struct mgp_snapshot *snapshot; /* borrowed */
    const bool *selected;                /* borrowed; by name; NULL: all */
    int64_t now_ns;
    enum mgp_text_format format;
    struct mgp_text_label *labels; /* owned; one for each row, then the name of each */
    char *escaped;                 /* owned; the bytes of `labels` */
    size_t name_count;             /* rows that have a name */
    size_t bound;
};

/* The names of samples, which `name[]` of a scrape selects: each series has one, a histogram
 * three; that of gateway_info is the last. `name` gets that of the given number; false when there are no more. */
#define MGP_TEXT_NAME_BYTES 96
bool mgp_text_sample_name(size_t number, char name[MGP_TEXT_NAME_BYTES]);

/* Prepares the text of a finished snapshot. `now_ns` is the time of the monotonic clock.
 * `selected`, where it is not NULL, says of each name whether its samples are wanted; then a
 * family without samples is left out. MGP_OK or MGP_ERR_NOMEM; fini in either case. */
int mgp_text_init(struct mgp_text *text, const struct mgp_snapshot *snapshot, int64_t now_ns,
                  enum mgp_text_format format, const bool *selected);
void mgp_text_fini(struct mgp_text *text);

/* No text is longer. */
size_t mgp_text_bound(const struct mgp_text *text);
/* Writes the text, without a NUL at the end; returns its end. */
char *mgp_text_write(const struct mgp_text *text, char *buffer);

#endif
