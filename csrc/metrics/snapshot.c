#include "snapshot.h"

#include <string.h>

#include "../base/alloc.h"
#include "../base/container.h"
#include "../base/ordered.h"
#include "../base/status.h"
#include "rows.h"

#define BLOCK_BYTES ((size_t)256 * 1024)
#define FIRST_CAPACITY 64

/* Memory for nodes: they go all at once. */
struct mgp_snapshot_block {
    struct mgp_snapshot_block *next;
    size_t used;
    size_t size;
    alignas(max_align_t) uint8_t bytes[];
};

struct node {
    struct mgp_table_entry entry;
    struct mgp_snapshot_end end;
    uint64_t words[MGP_WORD_COUNT];
    uint8_t label[];
};

/* A word that is not added up, or only for some. */
static void
mask_series(struct mgp_snapshot *snapshot, const struct mgp_series *series)
{
    enum mgp_combine combine = mgp_series_combine(series);
    for (size_t i = 0; i < series->word_count; i++) {
        size_t word = series->first_word + i;
        snapshot->finished_mask[word] = combine == MGP_COMBINE_TOTAL ? UINT64_MAX : 0;
        if (combine == MGP_COMBINE_TOTAL || combine == MGP_COMBINE_SUM) {
            snapshot->living_mask[word] = UINT64_MAX;
            continue;
        }
        snapshot->living_mask[word] = 0;
        snapshot->special_words[snapshot->special_count++] = (uint16_t)word;
        snapshot->special_combine[word] = (uint8_t)combine;
    }
}

void
mgp_snapshot_init(struct mgp_snapshot *snapshot, struct mgp_siphash_key hash_key)
{
    memset(snapshot, 0, sizeof(*snapshot));
    mgp_table_init(&snapshot->by_label, hash_key);
    for (size_t i = 0; i < mgp_series_count; i++) {
        mask_series(snapshot, &mgp_series_table[i]);
    }
}

static struct node *
node_of(struct mgp_table_entry *entry)
{
    return mgp_container_of(entry, struct node, entry);
}

static struct node *
node_of_words(uint64_t *words)
{
    return (struct node *)(void *)((char *)words - offsetof(struct node, words));
}

void
mgp_snapshot_fini(struct mgp_snapshot *snapshot)
{
    for (size_t i = 0; i < snapshot->row_count; i++) {
        mgp_table_remove(&snapshot->by_label, &node_of_words(snapshot->rows[i].words)->entry);
    }
    mgp_table_fini(&snapshot->by_label);
    mgp_free(snapshot->rows);
    mgp_free(snapshot->archive.own_rows);
    mgp_free(snapshot->archive.requests);
    memset(&snapshot->archive, 0, sizeof(snapshot->archive));
    while (snapshot->blocks != NULL) {
        struct mgp_snapshot_block *block = snapshot->blocks;
        snapshot->blocks = block->next;
        mgp_free(block);
    }
    snapshot->rows = NULL;
    snapshot->row_count = snapshot->capacity = 0;
}

static void *
block_alloc(struct mgp_snapshot *snapshot, size_t size)
{
    struct mgp_snapshot_block *block = snapshot->blocks;
    size = (size + alignof(struct node) - 1) / alignof(struct node) * alignof(struct node);
    if (block == NULL || block->size - block->used < size) {
        size_t room = size > BLOCK_BYTES ? size : BLOCK_BYTES;
        block = mgp_alloc(sizeof(*block) + room);
        if (block == NULL) {
            return NULL;
        }
        block->next = snapshot->blocks;
        block->used = 0;
        block->size = room;
        snapshot->blocks = block;
    }
    void *bytes = block->bytes + block->used;
    block->used += size;
    return bytes;
}

static int
rows_reserve(struct mgp_snapshot *snapshot)
{
    if (snapshot->row_count < snapshot->capacity) {
        return MGP_OK;
    }
    size_t capacity = snapshot->capacity == 0 ? FIRST_CAPACITY : snapshot->capacity * 2;
    struct mgp_snapshot_row *rows =
        mgp_realloc_array(snapshot->rows, capacity, sizeof(*snapshot->rows));
    if (rows == NULL) {
        return MGP_ERR_NOMEM;
    }
    snapshot->rows = rows;
    snapshot->capacity = capacity;
    return MGP_OK;
}

static struct node *
node_ensure(struct mgp_snapshot *snapshot, const void *label, size_t size)
{
    uint64_t hash = mgp_table_hash(&snapshot->by_label, label, size);
    struct mgp_table_entry *entry = mgp_table_find(&snapshot->by_label, hash, label, size);
    if (entry != NULL) {
        return node_of(entry);
    }
    if (rows_reserve(snapshot) < 0) {
        return NULL;
    }
    struct node *node = block_alloc(snapshot, sizeof(*node) + size);
    if (node == NULL) {
        return NULL;
    }
    memcpy(node->label, label, size);
    memset(node->words, 0, sizeof(node->words));
    node->end = (struct mgp_snapshot_end){.is_open = false};
    node->entry.bytes = node->label;
    node->entry.size = size;
    node->entry.hash = hash;
    mgp_table_insert(&snapshot->by_label, &node->entry);
    snapshot->rows[snapshot->row_count++] = (struct mgp_snapshot_row){
        .label = node->label,
        .label_size = size,
        .words = node->words,
        .end = &node->end,
    };
    return node;
}

static uint64_t
combined(enum mgp_combine combine, uint64_t a, uint64_t b)
{
    switch (combine) {
    case MGP_COMBINE_TOTAL:
    case MGP_COMBINE_SUM:
        break;
    case MGP_COMBINE_MAX:
        return a > b ? a : b;
    case MGP_COMBINE_OLDEST:
        return a == 0 || (b != 0 && b < a) ? b : a;
    case MGP_COMBINE_LIMIT:
        if (a == MGP_UNLIMITED || b == MGP_UNLIMITED) {
            return MGP_UNLIMITED;
        }
        break;
    }
    return a + b;
}

int
mgp_snapshot_add_row(struct mgp_snapshot *snapshot, const void *label, size_t size,
                     const uint64_t words[MGP_WORD_COUNT], enum mgp_life life, uint64_t ended_at)
{
    struct node *node = node_ensure(snapshot, label, size);
    if (node == NULL) {
        return MGP_ERR_NOMEM;
    }
    node->end.is_open |= ended_at == 0;
    if (node->end.ended_at < ended_at) {
        node->end.ended_at = ended_at;
    }
    const uint64_t *mask =
        life == MGP_LIFE_LIVING ? snapshot->living_mask : snapshot->finished_mask;
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        node->words[word] += words[word] & mask[word];
    }
    for (size_t i = 0; life == MGP_LIFE_LIVING && i < snapshot->special_count; i++) {
        size_t word = snapshot->special_words[i];
        node->words[word] = combined((enum mgp_combine)snapshot->special_combine[word],
                                     node->words[word], words[word]);
    }
    return MGP_OK;
}

void
mgp_snapshot_add_process(struct mgp_snapshot *snapshot,
                         const uint64_t words[MGP_PROCESS_WORD_COUNT], enum mgp_life life)
{
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        enum mgp_combine combine = mgp_process_series_table[i].combine;
        if (life == MGP_LIFE_LIVING || combine == MGP_COMBINE_TOTAL) {
            snapshot->process_words[i] = combined(combine, snapshot->process_words[i], words[i]);
        }
    }
}

static int
add_own_row(const void *label, size_t size, const struct mgp_row *row, void *context)
{
    uint64_t words[MGP_WORD_COUNT];
    mgp_row_read(row, words);
    return mgp_snapshot_add_row(context, label, size, words, MGP_LIFE_LIVING, 0);
}

static int
add_own_frozen(const void *label, size_t size, const struct mgp_frozen_row *frozen, void *context)
{
    struct mgp_snapshot *snapshot = context;
    const struct mgp_snapshot_archive *archive = &snapshot->archive;
    uint64_t words[MGP_WORD_COUNT];
    if (mgp_ordered_has(archive->own_rows, archive->own_count, sizeof(frozen->name),
                        &frozen->name)) {
        return MGP_OK;
    }
    mgp_row_read(frozen->row, words);
    return mgp_snapshot_add_row(snapshot, label, size, words, MGP_LIFE_FINISHED, frozen->frozen_at);
}

int
mgp_snapshot_add_own(struct mgp_snapshot *snapshot, const struct mgp_rows *rows)
{
    uint64_t words[MGP_PROCESS_WORD_COUNT];
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        words[i] = mgp_atomic_load(&rows->process_words[i]);
    }
    mgp_snapshot_add_process(snapshot, words, MGP_LIFE_LIVING);
    int status = mgp_rows_visit(rows, add_own_row, snapshot);
    return status < 0 ? status : mgp_rows_visit_frozen(rows, add_own_frozen, snapshot);
}

/* Which of `rows` has this label; row_count where none has. */
static size_t
index_of(struct mgp_snapshot *snapshot, const void *label, size_t size)
{
    uint64_t hash = mgp_table_hash(&snapshot->by_label, label, size);
    struct mgp_table_entry *entry = mgp_table_find(&snapshot->by_label, hash, label, size);
    size_t index = entry == NULL ? snapshot->row_count : 0;
    while (index < snapshot->row_count && snapshot->rows[index].words != node_of(entry)->words) {
        index++;
    }
    return index;
}

static struct mgp_snapshot_row
row_take(struct mgp_snapshot *snapshot, size_t index)
{
    struct mgp_snapshot_row row = snapshot->rows[index];
    memmove(&snapshot->rows[index], &snapshot->rows[index + 1],
            (snapshot->row_count - index - 1) * sizeof(row));
    snapshot->row_count--;
    return row;
}

void
mgp_snapshot_note_open(struct mgp_snapshot *snapshot, const void *label, size_t size)
{
    uint64_t hash = mgp_table_hash(&snapshot->by_label, label, size);
    struct mgp_table_entry *entry = mgp_table_find(&snapshot->by_label, hash, label, size);
    if (entry != NULL) {
        node_of(entry)->end.is_open = true;
    }
}

size_t
mgp_snapshot_drop(struct mgp_snapshot *snapshot,
                  bool (*is_dropped)(const struct mgp_snapshot_row *row, void *context),
                  void *context)
{
    size_t kept = 0;
    for (size_t i = 0; i < snapshot->row_count; i++) {
        struct mgp_snapshot_row row = snapshot->rows[i];
        if (is_dropped(&row, context)) {
            mgp_table_remove(&snapshot->by_label, &node_of_words(row.words)->entry);
        } else {
            snapshot->rows[kept++] = row;
        }
    }
    size_t dropped = snapshot->row_count - kept;
    snapshot->row_count = kept;
    return dropped;
}

int
mgp_snapshot_limit_rows(struct mgp_snapshot *snapshot, size_t max_rows)
{
    static const char overflow[] = MGP_ROWS_OVERFLOW_LABEL;
    mgp_snapshot_finish(snapshot);
    size_t has_overflow = index_of(snapshot, overflow, sizeof(overflow) - 1) < snapshot->row_count;
    while (snapshot->row_count - has_overflow > max_rows) {
        struct mgp_snapshot_row row = row_take(snapshot, snapshot->row_count - 1 - has_overflow);
        mgp_table_remove(&snapshot->by_label, &node_of_words(row.words)->entry);
        int status = mgp_snapshot_add_row(snapshot, overflow, sizeof(overflow) - 1, row.words,
                                          MGP_LIFE_LIVING, row.end->ended_at);
        if (status < 0) {
            return status;
        }
        has_overflow = 1;
    }
    return MGP_OK;
}

void
mgp_snapshot_finish(struct mgp_snapshot *snapshot)
{
    static const char overflow[] = MGP_ROWS_OVERFLOW_LABEL;
    size_t index = index_of(snapshot, overflow, sizeof(overflow) - 1);
    if (index < snapshot->row_count) {
        struct mgp_snapshot_row row = row_take(snapshot, index);
        snapshot->rows[snapshot->row_count++] = row;
    }
}
