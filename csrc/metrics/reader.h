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
    const uint8_t *folded_ids; /* archives; 16 bytes each, not aligned */
    size_t folded_count;
};

void mgp_reader_init(struct mgp_reader *reader);
void mgp_reader_fini(struct mgp_reader *reader);

/* Reads and judges a whole file. `id` is what its name says, or NULL. A file of a process that
 * lives may change meanwhile: it is read again until it stood still, for a bounded time.
 * `errno` tells more of MGP_FLAW_SYSTEM. */
enum mgp_flaw mgp_reader_load(struct mgp_reader *reader, int fd, enum mgp_file_kind kind,
                              const struct mgp_file_id *id, enum mgp_life life);

/* Adds the file that was loaded: MGP_OK or MGP_ERR_NOMEM. */
int mgp_reader_add(const struct mgp_reader *reader, enum mgp_life life,
                   struct mgp_snapshot *snapshot);

/* Whether the loaded archive contains the file with this id. */
bool mgp_reader_has_folded(const struct mgp_reader *reader, struct mgp_file_id id);

/* Only the beginning of a file: its id. */
enum mgp_flaw mgp_reader_peek_id(int fd, struct mgp_file_id *id);

#endif
