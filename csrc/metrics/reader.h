/* Reads a counters file (layout.h) by pread() and adds it to a snapshot. Believes nothing: any
 * bytes are either a file that its writer could have left, or are refused whole. */
#ifndef MGP_METRICS_READER_H
#define MGP_METRICS_READER_H

#include <stddef.h>
#include <stdint.h>

#include "files.h"
#include "layout.h"
#include "snapshot.h"

struct mgp_reader {
    uint8_t *block;  /* owned */
    uint8_t *buffer; /* in it, on a cache line: the file read last */
    size_t capacity;
    /* Of the file read last: */
    const struct mgp_file_header *header;
    uint8_t *rows;
    size_t row_count;
    bool is_steady; /* no row was frozen or taken away meanwhile */
    /* Archives; not aligned. */
    const uint8_t *folded_ids; /* struct mgp_file_id */
    size_t folded_count;
    const uint8_t *taken_rows; /* struct mgp_taken_row, in the order of their bytes */
    size_t taken_count;
    const uint8_t *requests; /* struct mgp_label_digest, in the order of their bytes */
    size_t request_count;
};

void mgp_reader_init(struct mgp_reader *reader);
void mgp_reader_fini(struct mgp_reader *reader);

/* Reads and judges a whole file. `id` is what its name says, or NULL. A file of a process that
 * lives may change meanwhile: it is read again until it stood still, for a bounded time.
 * `errno` tells more of MGP_FLAW_SYSTEM. */
enum mgp_flaw mgp_reader_load(struct mgp_reader *reader, int fd, enum mgp_file_kind kind,
                              const struct mgp_file_id *id, enum mgp_life life);

/* Of an archive only what follows its rows: it is loaded without any. */
enum mgp_flaw mgp_reader_load_tail(struct mgp_reader *reader, int fd);

const struct mgp_file_row *mgp_reader_row(const struct mgp_reader *reader, size_t index);
/* Whether it is in use, and not counted in any more. */
bool mgp_reader_is_frozen(const struct mgp_reader *reader, size_t index);
/* The name by which an archive knows a row of the loaded file. */
struct mgp_taken_row mgp_reader_taken_row(const struct mgp_reader *reader,
                                          const struct mgp_file_row *row);

/* Adds the file that was loaded, without the rows that `archive` (NULL: none) has taken. A row
 * that is not frozen ended at `ended_at`; 0: it may be counted in. MGP_OK or MGP_ERR_NOMEM. */
int mgp_reader_add(const struct mgp_reader *reader, enum mgp_life life,
                   const struct mgp_reader *archive, uint64_t ended_at,
                   struct mgp_snapshot *snapshot);
/* The same for one of its rows. */
int mgp_reader_add_row(const struct mgp_reader *reader, size_t index, enum mgp_life life,
                       uint64_t ended_at, struct mgp_snapshot *snapshot);

/* Whether the loaded archive contains the file with this id, or this row of a file. */
bool mgp_reader_has_folded(const struct mgp_reader *reader, struct mgp_file_id id);
bool mgp_reader_has_taken(const struct mgp_reader *reader, struct mgp_taken_row row);

/* Only the beginning of a file: its id. */
enum mgp_flaw mgp_reader_peek_id(int fd, struct mgp_file_id *id);

#endif
