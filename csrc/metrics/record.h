/* What rows are made of: for rows.c and forgetting.c only. */
#ifndef MGP_METRICS_RECORD_H
#define MGP_METRICS_RECORD_H

#include "rows.h"

#include "../base/container.h"

#define BLOCK_ROWS 64

struct record {
    struct mgp_row row;  /* what is handed out */
    struct block *block; /* that it is in */
    struct mgp_table_entry entry;
    struct mgp_link link;      /* in rows->order, ->frozen or ->free; the overflow row: in none */
    uint8_t *label;            /* owned; NULL while the record is free */
    uint64_t idle_since_s;     /* 0: it was counted in since that was looked for last */
    uint64_t frozen_at;        /* not 0: it is in rows->frozen, and found by its label no more */
    struct mgp_file_row *slot; /* where the words are */
};

/* Records that were made together. Their slots are in the file, or in memory of this process. */
struct block {
    struct mgp_link link;
    void *own; /* owned memory of the slots, not on a cache line; NULL: they are in the file */
    struct record records[BLOCK_ROWS];
};

/* The record of a label; NULL: there is none. */
struct record *mgp_record_find(struct mgp_rows *rows, const void *label, size_t size);

static inline struct record *
record_of_row(struct mgp_row *row)
{
    return mgp_container_of(row, struct record, row);
}

static inline struct record *
record_of_link(struct mgp_link *link)
{
    return mgp_container_of(link, struct record, link);
}

static inline struct block *
block_of_link(struct mgp_link *link)
{
    return mgp_container_of(link, struct block, link);
}

static inline bool
is_shown(const struct record *record)
{
    return mgp_file_row_is_used(mgp_atomic_load(&record->slot->state));
}

/* By which an archive names it. */
static inline struct mgp_taken_row
mgp_record_name(const struct mgp_rows *rows, const struct record *record)
{
    return (struct mgp_taken_row){rows->segment.id, record->slot->number,
                                  mgp_atomic_load(&record->slot->state)};
}

#endif
