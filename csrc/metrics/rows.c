#include "rows.h"

#include <errno.h>
#include <string.h>

#include "../base/alloc.h"
#include "../base/check.h"
#include "../base/status.h"
#include "record.h"

#define NS_PER_SECOND UINT64_C(1000000000)

#define OWN_SLOTS_BYTES (MGP_CACHE_LINE_BYTES - 1 + BLOCK_ROWS * sizeof(struct mgp_file_row))

void
mgp_rows_init(struct mgp_rows *rows, struct mgp_siphash_key hash_key, size_t max_rows)
{
    mgp_table_init(&rows->by_label, hash_key);
    mgp_list_init(&rows->order);
    mgp_list_init(&rows->frozen);
    mgp_list_init(&rows->free);
    mgp_list_init(&rows->blocks);
    rows->forgetting = (struct mgp_rows_forgetting){.retention_s = 0};
    rows->count = 0;
    rows->overflow = NULL;
    rows->process_words = rows->own_process_words;
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        mgp_atomic_store(&rows->own_process_words[i], 0);
    }
    mgp_segment_init(&rows->segment);
    rows->directory = NULL;
    rows->wants_file = false;
    rows->upkeep_at_ns = 0;
    rows->failure = rows->untaken = (struct mgp_rows_failure){.flaw = MGP_FLAW_NONE};
    mgp_rows_set_max(rows, max_rows);
}

/* Takes the label away. What was counted stays in the words. */
static void
record_fini(struct mgp_rows *rows, struct record *record)
{
    mgp_table_remove(&rows->by_label, &record->entry);
    mgp_free(record->label);
    record->label = NULL;
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
    record_fini(rows, record);
    if (is_shown(record)) {
        mgp_segment_hide(&rows->segment, record->slot);
    } else {
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_atomic_store(&record->row.words[word], 0);
        }
    }
    mgp_list_push_front(&rows->free, &record->link);
}

void
mgp_rows_fini(struct mgp_rows *rows)
{
    struct mgp_link *link;
    while ((link = mgp_list_peek_front(&rows->order)) != NULL) {
        record_fini(rows, record_of_link(link));
        mgp_link_detach(link);
    }
    if (rows->overflow != NULL) {
        record_fini(rows, record_of_row(rows->overflow));
    }
    while ((link = mgp_list_peek_front(&rows->frozen)) != NULL) {
        mgp_free(record_of_link(link)->label);
        mgp_link_detach(link);
    }
    mgp_free(rows->forgetting.requests);
    rows->forgetting = (struct mgp_rows_forgetting){.retention_s = 0};
    while ((link = mgp_list_peek_front(&rows->blocks)) != NULL) {
        struct block *block = block_of_link(link);
        mgp_link_detach(link);
        mgp_free(block->own);
        mgp_free(block);
    }
    mgp_list_init(&rows->order);
    mgp_list_init(&rows->free);
    mgp_table_fini(&rows->by_label);
    mgp_segment_close(&rows->segment);
    mgp_free(rows->directory);
    rows->directory = NULL;
    rows->overflow = NULL;
    rows->count = 0;
}

void
mgp_rows_set_max(struct mgp_rows *rows, size_t max_rows)
{
    MGP_ASSERT(max_rows >= 1);
    rows->max_rows = max_rows;
}

int
mgp_rows_share(struct mgp_rows *rows, const char *directory)
{
    MGP_ASSERT(!mgp_segment_is_open(&rows->segment)); /* which borrows the path */
    size_t size = strlen(directory) + 1;
    char *copy = mgp_alloc(size);
    if (copy == NULL) {
        return MGP_ERR_NOMEM;
    }
    memcpy(copy, directory, size);
    mgp_free(rows->directory);
    rows->directory = copy;
    return MGP_OK;
}

/* ---- where the words are ---- */

static void
note_failure(struct mgp_rows *rows, enum mgp_flaw flaw, int error)
{
    struct mgp_rows_failure failure = {flaw, error, rows->segment.id};
    if (failure.flaw != rows->failure.flaw || failure.error != rows->failure.error) {
        rows->untaken = failure;
    }
    rows->failure = failure;
}

struct mgp_rows_failure
mgp_rows_take_failure(struct mgp_rows *rows)
{
    struct mgp_rows_failure failure = rows->untaken;
    rows->untaken.flaw = MGP_FLAW_NONE;
    return failure;
}

/* Slots in memory of this process; *own is what mgp_free() takes. NULL when out of memory. */
static struct mgp_file_row *
own_slots_new(void **own)
{
    *own = mgp_alloc_zeroed(1, OWN_SLOTS_BYTES);
    if (*own == NULL) {
        return NULL;
    }
    size_t padding = (size_t)(-(uintptr_t)*own % MGP_CACHE_LINE_BYTES);
    return (void *)((char *)*own + padding);
}

/* Slots in the file; NULL: it cannot grow. */
static struct mgp_file_row *
shared_slots_new(struct mgp_rows *rows)
{
    struct mgp_file_row *slots = mgp_segment_grow(&rows->segment, BLOCK_ROWS);
    if (slots == NULL) {
        note_failure(rows, MGP_FLAW_GROW, errno);
    }
    return slots;
}

/* Shows the record's row to others, where that can be. */
static void
record_show(struct mgp_rows *rows, struct record *record)
{
    if (record->block->own == NULL && record->entry.size <= MGP_LABEL_MAX_BYTES) {
        mgp_segment_show(&rows->segment, record->slot, record->label, record->entry.size);
        if (record->frozen_at != 0) {
            mgp_segment_freeze(&rows->segment, record->slot, record->frozen_at);
        }
    }
}

/* Takes what was counted to another slot, which is all zero. Others never see it in two places;
 * where they see it at all, it is complete. */
static void
record_move(struct mgp_rows *rows, struct record *record, struct mgp_file_row *slot)
{
    struct mgp_file_row *before = record->slot;
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        mgp_atomic_store(&slot->words[word], mgp_atomic_load(&before->words[word]));
    }
    if (is_shown(record)) {
        mgp_segment_hide(&rows->segment, before);
    }
    record->slot = slot;
    record->row.words = slot->words;
    if (record->label != NULL) {
        record_show(rows, record);
    }
}

/* The same for all of a block, whose `own` says where the new slots are. */
static void
block_move(struct mgp_rows *rows, struct block *block, struct mgp_file_row *slots)
{
    for (size_t i = 0; i < BLOCK_ROWS; i++) {
        record_move(rows, &block->records[i], &slots[i]);
    }
}

/* The same for the words of the process: they count in one place only. */
static void
process_words_move(struct mgp_rows *rows, mgp_atomic_u64 *words)
{
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        mgp_atomic_store(&words[i], mgp_atomic_load(&rows->process_words[i]));
        mgp_atomic_store(&rows->process_words[i], 0);
    }
    rows->process_words = words;
}

/* From the file, which nobody reads any more, into memory of this process: false when out of
 * memory; then the rest is still where it was. */
static bool
leave_file(struct mgp_rows *rows)
{
    struct mgp_link *link;
    mgp_list_for_each(link, &rows->blocks) {
        struct block *block = block_of_link(link);
        if (block->own != NULL) {
            continue;
        }
        struct mgp_file_row *slots = own_slots_new(&block->own);
        if (slots == NULL) {
            return false;
        }
        block_move(rows, block, slots);
    }
    process_words_move(rows, rows->own_process_words);
    mgp_segment_close(&rows->segment);
    return true;
}

/* Makes sure that there is a file, and that it is there. */
static bool
ensure_file(struct mgp_rows *rows)
{
    if (mgp_segment_is_open(&rows->segment)) {
        if (!mgp_segment_is_removed(&rows->segment)) {
            return true;
        }
        note_failure(rows, MGP_FLAW_REMOVED, 0);
        if (!leave_file(rows)) {
            return false;
        }
    }
    if (mgp_segment_open(&rows->segment, rows->directory) < 0) {
        note_failure(rows, MGP_FLAW_CREATE, errno);
        return false;
    }
    process_words_move(rows, rows->segment.header->process_words);
    return true;
}

void
mgp_rows_share_rest(struct mgp_rows *rows)
{
    struct mgp_link *link;
    if (rows->directory == NULL || !rows->wants_file || !ensure_file(rows)) {
        return;
    }
    mgp_list_for_each(link, &rows->blocks) {
        struct block *block = block_of_link(link);
        if (block->own == NULL) {
            continue;
        }
        struct mgp_file_row *slots = shared_slots_new(rows);
        if (slots == NULL) {
            return;
        }
        void *own = block->own;
        block->own = NULL;
        block_move(rows, block, slots);
        mgp_free(own);
    }
    rows->failure.flaw = MGP_FLAW_NONE;
}

void
mgp_rows_open_file(struct mgp_rows *rows)
{
    rows->wants_file = true;
    mgp_rows_share_rest(rows);
}

bool
mgp_rows_upkeep(struct mgp_rows *rows, int64_t now_ns)
{
    /* A clock that went back, or is another, is as good as the time having passed. */
    uint64_t passed_ns = (uint64_t)now_ns - (uint64_t)rows->upkeep_at_ns;
    if (passed_ns >= MGP_ROWS_UPKEEP_SECONDS * NS_PER_SECOND) {
        rows->upkeep_at_ns = now_ns;
        mgp_rows_share_rest(rows);
        return true;
    }
    return false;
}

void
mgp_rows_after_fork(struct mgp_rows *rows)
{
    char *directory = rows->directory;
    uint64_t retention_s = rows->forgetting.retention_s;
    mgp_segment_abandon(&rows->segment);
    mgp_rows_init(rows, rows->by_label.hash_key, rows->max_rows);
    rows->directory = directory;
    rows->forgetting.retention_s = retention_s;
}

/* ---- rows ---- */

/* Makes sure that the free list is not empty. */
static int
free_reserve(struct mgp_rows *rows)
{
    if (!mgp_list_is_empty(&rows->free)) {
        return MGP_OK;
    }
    /* Memory first: rows of the file that nobody can use would be lost. */
    struct block *block = mgp_alloc_zeroed(1, sizeof(*block));
    if (block == NULL) {
        return MGP_ERR_NOMEM;
    }
    mgp_rows_open_file(rows);
    struct mgp_file_row *slots = NULL;
    if (mgp_segment_is_open(&rows->segment)) {
        slots = shared_slots_new(rows);
    }
    if (slots == NULL) {
        slots = own_slots_new(&block->own);
    }
    if (slots == NULL) {
        mgp_free(block);
        return MGP_ERR_NOMEM;
    }
    for (size_t i = 0; i < BLOCK_ROWS; i++) {
        struct record *record = &block->records[i];
        record->block = block;
        record->slot = &slots[i];
        record->row.words = slots[i].words;
        mgp_list_push_back(&rows->free, &record->link);
    }
    mgp_list_push_back(&rows->blocks, &block->link);
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
    record->idle_since_s = record->frozen_at = 0;
    mgp_table_insert(&rows->by_label, &record->entry);
    record_show(rows, record);
    return record;
}

struct record *
mgp_record_find(struct mgp_rows *rows, const void *label, size_t size)
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
    struct record *record = mgp_record_find(rows, label, size);
    if (record != NULL) {
        record->idle_since_s = 0;
        return &record->row;
    }
    if (is_overflow_label(label, size)) {
        return overflow_ensure(rows);
    }
    if (rows->count >= rows->max_rows) {
        struct mgp_row *overflow = overflow_ensure(rows);
        if (overflow != NULL) {
            mgp_atomic_add(&rows->process_words[MGP_PROCESS_LABEL_OVERFLOW], 1);
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

bool
mgp_row_is_busy(const struct mgp_row *row)
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
    struct record *record = mgp_record_find(rows, label, size);
    if (record == NULL) {
        return MGP_OK;
    }
    if (mgp_row_is_busy(&record->row)) {
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

int
mgp_rows_visit_frozen(const struct mgp_rows *rows,
                      int (*visit)(const void *label, size_t size,
                                   const struct mgp_frozen_row *frozen, void *context),
                      void *context)
{
    const struct mgp_link *link;
    mgp_list_for_each(link, &rows->frozen) {
        const struct record *record = mgp_container_of(link, struct record, link);
        const struct mgp_frozen_row frozen = {&record->row, mgp_record_name(rows, record),
                                              record->frozen_at};
        int result = visit(record->label, record->entry.size, &frozen, context);
        if (result != 0) {
            return result;
        }
    }
    return 0;
}

void
mgp_row_read(const struct mgp_row *row, uint64_t words[MGP_WORD_COUNT])
{
    for (size_t i = 0; i < MGP_WORD_COUNT; i++) {
        words[i] = mgp_atomic_load(&row->words[i]);
    }
    words[MGP_WORD_IDLE_SESSIONS] = words[MGP_WORD_SIZE] - words[MGP_WORD_ACTIVE_SESSIONS];
}

void
mgp_row_reconcile(uint64_t words[MGP_WORD_COUNT])
{
    uint64_t evictions = 0;
    for (size_t i = 0; i < MGP_EVICTION_REASON_COUNT; i++) {
        evictions += words[MGP_EVICTION_WORD(i)];
    }
    uint64_t least = words[MGP_WORD_MISSES] > evictions ? words[MGP_WORD_MISSES] : evictions;
    if (words[MGP_WORD_CREATES] < least) {
        words[MGP_WORD_CREATES] = least;
    }
    uint64_t size = words[MGP_WORD_CREATES] - evictions;
    words[MGP_WORD_SIZE] = size;
    if (words[MGP_WORD_ACTIVE_SESSIONS] > size) {
        words[MGP_WORD_ACTIVE_SESSIONS] = size;
    }
    words[MGP_WORD_IDLE_SESSIONS] = size - words[MGP_WORD_ACTIVE_SESSIONS];
}

void
mgp_row_end(uint64_t words[MGP_WORD_COUNT])
{
    mgp_row_reconcile(words);
    words[MGP_EVICTION_WORD(MGP_EVICTION_PROCESS_ENDED)] += words[MGP_WORD_SIZE];
    words[MGP_WORD_SIZE] = 0;
    words[MGP_WORD_ACTIVE_SESSIONS] = 0;
    words[MGP_WORD_IDLE_SESSIONS] = 0;
}
