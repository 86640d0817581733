#include "rows.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "../base/status.h"

/* A row's words start on a cache line of their own: two gateways that are
 * counted by two threads do not slow each other down. */
#define CACHE_LINE_BYTES 64
#define CACHE_LINE_WORDS (CACHE_LINE_BYTES / sizeof(mgp_atomic_u64))
#define ROW_STRIDE ((MGP_WORD_COUNT + CACHE_LINE_WORDS - 1) / CACHE_LINE_WORDS * CACHE_LINE_WORDS)

#define SEGMENT_ROWS 64

struct record {
    struct mgp_row row; /* what is handed out */
    struct mgp_table_entry entry;
    struct mgp_link link; /* in rows->order or rows->free; the overflow row: in none */
    uint8_t *label;       /* owned; NULL while the record is free */
};

/* One block: the struct, and behind it the words of its rows. */
struct segment {
    struct mgp_link link;
    struct record records[SEGMENT_ROWS];
};

#define SEGMENT_WORDS_BYTES (SEGMENT_ROWS * ROW_STRIDE * sizeof(mgp_atomic_u64))
#define SEGMENT_BYTES (sizeof(struct segment) + CACHE_LINE_BYTES - 1 + SEGMENT_WORDS_BYTES)

void
mgp_rows_init(struct mgp_rows *rows, struct mgp_siphash_key hash_key, size_t max_rows)
{
    mgp_table_init(&rows->by_label, hash_key);
    mgp_list_init(&rows->order);
    mgp_list_init(&rows->free);
    mgp_list_init(&rows->segments);
    rows->count = 0;
    mgp_atomic_store(&rows->label_overflow_total, 0);
    rows->overflow = NULL;
    mgp_rows_set_max(rows, max_rows);
}

static struct record *
record_of_row(struct mgp_row *row)
{
    return mgp_container_of(row, struct record, row);
}

static struct record *
record_of_link(struct mgp_link *link)
{
    return mgp_container_of(link, struct record, link);
}

static void
record_free(struct mgp_rows *rows, struct record *record)
{
    if (&record->row == rows->overflow) {
        rows->overflow = NULL;
    } else {
        mgp_link_detach(&record->link);
        rows->count--;
    }
    mgp_table_remove(&rows->by_label, &record->entry);
    mgp_free(record->label);
    record->label = NULL;
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        mgp_atomic_store(&record->row.words[word], 0);
    }
    mgp_list_push_front(&rows->free, &record->link);
}

void
mgp_rows_fini(struct mgp_rows *rows)
{
    struct mgp_link *link;
    while ((link = mgp_list_peek_front(&rows->order)) != NULL) {
        record_free(rows, record_of_link(link));
    }
    if (rows->overflow != NULL) {
        record_free(rows, record_of_row(rows->overflow));
    }
    while ((link = mgp_list_peek_front(&rows->segments)) != NULL) {
        mgp_link_detach(link);
        mgp_free(mgp_container_of(link, struct segment, link));
    }
    mgp_list_init(&rows->free);
    mgp_table_fini(&rows->by_label);
}

void
mgp_rows_set_max(struct mgp_rows *rows, size_t max_rows)
{
    MGP_ASSERT(max_rows >= 1);
    rows->max_rows = max_rows;
}

/* Makes sure that the free list is not empty. */
static int
free_reserve(struct mgp_rows *rows)
{
    if (!mgp_list_is_empty(&rows->free)) {
        return MGP_OK;
    }
    struct segment *segment = mgp_alloc_zeroed(1, SEGMENT_BYTES);
    if (segment == NULL) {
        return MGP_ERR_NOMEM;
    }
    uintptr_t end = (uintptr_t)(segment + 1);
    size_t padding = (size_t)(-end % CACHE_LINE_BYTES);
    mgp_atomic_u64 *words = (void *)((char *)(segment + 1) + padding);
    for (size_t i = 0; i < SEGMENT_ROWS; i++) {
        segment->records[i].row.words = words + i * ROW_STRIDE;
        mgp_list_push_back(&rows->free, &segment->records[i].link);
    }
    mgp_list_push_back(&rows->segments, &segment->link);
    return MGP_OK;
}

/* A row for a label that has none yet, in no order; NULL when out of memory (then
 * the free list may have become longer, which nobody sees). */
static struct record *
record_new(struct mgp_rows *rows, const void *label, size_t size)
{
    if (free_reserve(rows) < 0) {
        return NULL;
    }
    uint8_t *copy = mgp_alloc(size);
    if (copy == NULL) {
        return NULL;
    }
    memcpy(copy, label, size);
    struct record *record = record_of_link(mgp_list_peek_front(&rows->free));
    mgp_link_detach(&record->link);
    record->label = copy;
    record->entry.bytes = copy;
    record->entry.size = size;
    record->entry.hash = mgp_table_hash(&rows->by_label, copy, size);
    mgp_table_insert(&rows->by_label, &record->entry);
    return record;
}

static struct record *
record_find(struct mgp_rows *rows, const void *label, size_t size)
{
    uint64_t hash = mgp_table_hash(&rows->by_label, label, size);
    struct mgp_table_entry *entry = mgp_table_find(&rows->by_label, hash, label, size);
    return entry == NULL ? NULL : mgp_container_of(entry, struct record, entry);
}

static struct mgp_row *
overflow_ensure(struct mgp_rows *rows)
{
    if (rows->overflow == NULL) {
        struct record *record =
            record_new(rows, MGP_ROWS_OVERFLOW_LABEL, sizeof(MGP_ROWS_OVERFLOW_LABEL) - 1);
        if (record != NULL) {
            rows->overflow = &record->row;
        }
    }
    return rows->overflow;
}

static bool
is_overflow_label(const void *label, size_t size)
{
    return size == sizeof(MGP_ROWS_OVERFLOW_LABEL) - 1 &&
           memcmp(label, MGP_ROWS_OVERFLOW_LABEL, size) == 0;
}

struct mgp_row *
mgp_rows_ensure(struct mgp_rows *rows, const void *label, size_t size)
{
    struct record *record = record_find(rows, label, size);
    if (record != NULL) {
        return &record->row;
    }
    if (is_overflow_label(label, size)) {
        return overflow_ensure(rows);
    }
    if (rows->count >= rows->max_rows) {
        struct mgp_row *overflow = overflow_ensure(rows);
        if (overflow != NULL) {
            mgp_atomic_add(&rows->label_overflow_total, 1);
        }
        return overflow;
    }
    record = record_new(rows, label, size);
    if (record == NULL) {
        return NULL;
    }
    mgp_list_push_back(&rows->order, &record->link);
    rows->count++;
    return &record->row;
}

/* Whether anything that the row counts is still open. */
static bool
row_is_busy(const struct mgp_row *row)
{
    if (row->holds > 0) {
        return true;
    }
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        if (series->kind != MGP_SERIES_GAUGE) {
            continue;
        }
        for (size_t word = 0; word < series->word_count; word++) {
            if (mgp_atomic_load(&row->words[series->first_word + word]) != 0) {
                return true;
            }
        }
    }
    return false;
}

int
mgp_rows_forget(struct mgp_rows *rows, const void *label, size_t size)
{
    struct record *record = record_find(rows, label, size);
    if (record == NULL) {
        return MGP_OK;
    }
    if (row_is_busy(&record->row)) {
        return MGP_ERR_BUSY;
    }
    record_free(rows, record);
    return MGP_OK;
}

int
mgp_rows_visit(const struct mgp_rows *rows,
               int (*visit)(const void *label, size_t size, const struct mgp_row *row,
                            void *context),
               void *context)
{
    const struct mgp_link *link;
    mgp_list_for_each(link, &rows->order) {
        const struct record *record = mgp_container_of(link, struct record, link);
        int result = visit(record->entry.bytes, record->entry.size, &record->row, context);
        if (result != 0) {
            return result;
        }
    }
    if (rows->overflow == NULL) {
        return 0;
    }
    const struct record *record = record_of_row(rows->overflow);
    return visit(record->entry.bytes, record->entry.size, &record->row, context);
}

void
mgp_row_read(const struct mgp_row *row, uint64_t words[MGP_WORD_COUNT])
{
    for (size_t i = 0; i < MGP_WORD_COUNT; i++) {
        words[i] = mgp_atomic_load(&row->words[i]);
    }
    words[MGP_WORD_IDLE_SESSIONS] = words[MGP_WORD_SIZE] - words[MGP_WORD_ACTIVE_SESSIONS];
}
