#include "table.h"

#include <string.h>

#include "alloc.h"
#include "check.h"

/* An operation moves at most MOVES_MAX buckets that hold something and skips at
 * most SKIPS_MAX empty ones. That is fast enough for the load to stay at most 1
 * when operations do nothing but insert meanwhile:
 * - growing from n to 2n buckets ends within n / MOVES_MAX operations;
 * - shrinking from n to n / SHRINK_BY, with n / SPARSE_RATIO entries, ends within
 *   n / SKIPS_MAX + (n / SPARSE_RATIO) / MOVES_MAX = n / 8 of them. This is why an
 *   array does not shrink to any size at once. */
#define MOVES_MAX 2
#define SKIPS_MAX 16

#define ARRAY_MIN 16   /* buckets in the smallest allocated array */
#define SPARSE_RATIO 8 /* with fewer entries than a bucket in 8, the array shrinks */
#define SHRINK_BY 4

void
mgp_table_init(struct mgp_table *table, struct mgp_siphash_key hash_key)
{
    *table = (struct mgp_table){.bucket_count = 1, .hash_key = hash_key};
    table->buckets = &table->first_bucket;
}

static void
buckets_free(struct mgp_table *table, struct mgp_table_entry **buckets)
{
    if (buckets != &table->first_bucket) {
        mgp_free(buckets);
    }
}

void
mgp_table_fini(struct mgp_table *table)
{
    MGP_ASSERT(table->count == 0);
    if (table->old_buckets != table->buckets) {
        buckets_free(table, table->old_buckets);
    }
    buckets_free(table, table->buckets);
    mgp_table_init(table, table->hash_key);
}

uint64_t
mgp_table_hash(const struct mgp_table *table, const void *bytes, size_t size)
{
    return mgp_siphash(table->hash_key, bytes, size);
}

static inline size_t
bucket_index(uint64_t hash, size_t bucket_count)
{
    return (size_t)hash & (bucket_count - 1);
}

static void
bucket_move(struct mgp_table *table, struct mgp_table_entry *entry)
{
    while (entry != NULL) {
        struct mgp_table_entry *next = entry->next;
        struct mgp_table_entry **bucket =
            &table->buckets[bucket_index(entry->hash, table->bucket_count)];
        entry->next = *bucket;
        *bucket = entry;
        entry = next;
    }
}

/* The old array is empty, or, where it shrinks in place, its end is. */
static void
resize_end(struct mgp_table *table)
{
    if (table->old_buckets != table->buckets) {
        buckets_free(table, table->old_buckets);
    } else {
        size_t bytes = table->bucket_count * sizeof(*table->buckets);
        struct mgp_table_entry **buckets = mgp_realloc(table->buckets, bytes);
        if (buckets != NULL) { /* else it keeps the room that it has */
            table->buckets = buckets;
        }
    }
    table->old_buckets = NULL;
    table->old_bucket_count = 0;
    table->next_to_move = 0;
}

static void
resize_step(struct mgp_table *table)
{
    int moves = MOVES_MAX;
    int skips = SKIPS_MAX;
    while (moves > 0 && skips > 0) {
        struct mgp_table_entry *entry = table->old_buckets[table->next_to_move];
        if (entry == NULL) {
            skips--;
        } else {
            moves--;
            table->old_buckets[table->next_to_move] = NULL;
            bucket_move(table, entry);
        }
        table->next_to_move++;
        if (table->next_to_move == table->old_bucket_count) {
            resize_end(table);
            return;
        }
    }
}

/* Out of line, to keep the way of a table at rest short. */
static struct mgp_table_entry **
bucket_find_resizing(struct mgp_table *table, uint64_t hash)
{
    resize_step(table);
    if (table->old_buckets != NULL) {
        size_t index = bucket_index(hash, table->old_bucket_count);
        if (index >= table->next_to_move) {
            return &table->old_buckets[index];
        }
    }
    return &table->buckets[bucket_index(hash, table->bucket_count)];
}

/* The one chain that entries of this hash are in; goes on with a resize. */
static inline struct mgp_table_entry **
bucket_find(struct mgp_table *table, uint64_t hash)
{
    if (table->old_buckets != NULL) {
        return bucket_find_resizing(table, hash);
    }
    return &table->buckets[bucket_index(hash, table->bucket_count)];
}

static inline struct mgp_table_entry *
chain_find(struct mgp_table_entry *entry, uint64_t hash, const void *bytes, size_t size)
{
    while (entry != NULL) {
        if (entry->hash == hash && entry->size == size && memcmp(entry->bytes, bytes, size) == 0) {
            return entry;
        }
        entry = entry->next;
    }
    return NULL;
}

struct mgp_table_entry *
mgp_table_find(struct mgp_table *table, uint64_t hash, const void *bytes, size_t size)
{
    return chain_find(*bucket_find(table, hash), hash, bytes, size);
}

/* No memory for the new array: the table stays as it is, and the next insert tries again. */
static void
grow(struct mgp_table *table, size_t bucket_count)
{
    struct mgp_table_entry **buckets = mgp_alloc_zeroed(bucket_count, sizeof(*buckets));
    if (buckets == NULL) {
        return;
    }
    table->old_buckets = table->buckets;
    table->old_bucket_count = table->bucket_count;
    table->next_to_move = 0;
    table->buckets = buckets;
    table->bucket_count = bucket_count;
}

static void
grow_if_full(struct mgp_table *table)
{
    if (table->count < table->bucket_count || table->old_buckets != NULL) {
        return;
    }
    size_t bucket_count = ARRAY_MIN;
    while (bucket_count / 2 < table->count) {
        bucket_count *= 2;
    }
    grow(table, bucket_count);
}

/* In place: what is beyond the new end is moved before it. A new array would be asked of malloc()
 * just after many entries were freed; it then sorts them all first, which takes milliseconds. */
static void
shrink_if_sparse(struct mgp_table *table)
{
    if (table->count >= table->bucket_count / SPARSE_RATIO || table->old_buckets != NULL) {
        return;
    }
    size_t bucket_count = table->bucket_count / SHRINK_BY;
    if (bucket_count >= ARRAY_MIN) {
        table->old_buckets = table->buckets;
        table->old_bucket_count = table->bucket_count;
        table->next_to_move = bucket_count;
        table->bucket_count = bucket_count;
    }
}

void
mgp_table_insert(struct mgp_table *table, struct mgp_table_entry *entry)
{
    grow_if_full(table);
    struct mgp_table_entry **bucket = bucket_find(table, entry->hash);
    MGP_ASSERT(chain_find(*bucket, entry->hash, entry->bytes, entry->size) == NULL);
    entry->next = *bucket;
    *bucket = entry;
    table->count++;
}

void
mgp_table_remove(struct mgp_table *table, struct mgp_table_entry *entry)
{
    struct mgp_table_entry **at = bucket_find(table, entry->hash);
    while (*at != entry) {
        MGP_ASSERT(*at != NULL);
        at = &(*at)->next;
    }
    *at = entry->next;
    entry->next = NULL;
    table->count--;
    shrink_if_sparse(table);
}

static int
buckets_visit(struct mgp_table_entry *const *buckets, size_t from, size_t bucket_count,
              int (*visit)(struct mgp_table_entry *entry, void *context), void *context)
{
    for (size_t i = from; i < bucket_count; i++) {
        for (struct mgp_table_entry *entry = buckets[i]; entry != NULL; entry = entry->next) {
            int result = visit(entry, context);
            if (result != 0) {
                return result;
            }
        }
    }
    return 0;
}

int
mgp_table_visit(const struct mgp_table *table,
                int (*visit)(struct mgp_table_entry *entry, void *context), void *context)
{
    int result = buckets_visit(table->old_buckets, table->next_to_move, table->old_bucket_count,
                               visit, context);
    if (result != 0) {
        return result;
    }
    return buckets_visit(table->buckets, 0, table->bucket_count, visit, context);
}
