/* Hash table of intrusive entries, found by their bytes. Chained, with
 * incremental resizing: no single operation moves more than a few buckets, so
 * growing to a million entries stops nobody (compare redis dict.c).
 *
 * Entries are embedded in the caller's structs; the table owns only its bucket
 * arrays. Inserting cannot fail: where a larger bucket array cannot be had, the
 * chains grow longer. Removing asks for no memory: an array shrinks in place. Nothing is allocated before the second entry: until then
 * the one bucket is `first_bucket`. Cost: O(1) expected for find, insert and remove.
 *
 * While old_buckets is emptied, an entry is in the old array if and only if the
 * bucket it has there was not moved yet: each hash belongs to exactly one chain.
 *
 * A table must not be moved in memory: `buckets` may point into it.
 * An entry's bytes must stay unchanged and alive while it is in a table; they
 * are not NULL, even where their size is 0.
 * Two entries of equal bytes must not be inserted: find first. */
#ifndef MGP_BASE_TABLE_H
#define MGP_BASE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "siphash.h"

struct mgp_table_entry {
    struct mgp_table_entry *next; /* in the chain of its bucket */
    const uint8_t *bytes;         /* borrowed from the struct around the entry */
    size_t size;
    uint64_t hash;
};

struct mgp_table {
    struct mgp_table_entry **buckets;     /* owned, or &first_bucket; the newer array */
    struct mgp_table_entry **old_buckets; /* likewise; being emptied, or NULL; to shrink: buckets */
    size_t bucket_count;                  /* a power of two */
    size_t old_bucket_count;
    size_t next_to_move; /* first bucket of old_buckets that was not emptied yet */
    size_t count;        /* entries in both arrays */
    struct mgp_siphash_key hash_key;
    struct mgp_table_entry *first_bucket;
};

void mgp_table_init(struct mgp_table *table, struct mgp_siphash_key hash_key);
/* The table must be empty: entries belong to the caller, who removes them first. */
void mgp_table_fini(struct mgp_table *table);

uint64_t mgp_table_hash(const struct mgp_table *table, const void *bytes, size_t size);
/* The entry with these bytes, or NULL; `hash` is mgp_table_hash() of them.
 * Like insert and remove, goes on with the resizing: not for two threads at once. */
struct mgp_table_entry *mgp_table_find(struct mgp_table *table, uint64_t hash, const void *bytes,
                                       size_t size);
/* entry->bytes, ->size and ->hash are set by the caller. */
void mgp_table_insert(struct mgp_table *table, struct mgp_table_entry *entry);
/* The entry must be in the table. */
void mgp_table_remove(struct mgp_table *table, struct mgp_table_entry *entry);

/* Visits every entry, in no order; `visit` must not insert or remove. Stops at
 * the first non-zero result and returns it. O(n + buckets). */
int mgp_table_visit(const struct mgp_table *table,
                    int (*visit)(struct mgp_table_entry *entry, void *context), void *context);

#endif
