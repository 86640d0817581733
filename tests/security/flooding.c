/* What hash flooding costs: the time of a look-up among keys that an attacker chose, as a multiple
 * of that among random keys, under a hash key that the attacker knows and under one of the process's own.
 * Prints the table of docs/security.md. Not a test: tests/c/test_flooding.c counts steps. */
#define _GNU_SOURCE /* what C11 alone hides */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "../../csrc/base/table.h"

#define KEY_BYTES 48
#define COUNT_MAX 4096
#define LOOKUPS 10000 /* short enough to fit between two interruptions */
#define ROUNDS 101

struct item {
    struct mgp_table_entry entry;
    char bytes[KEY_BYTES];
};

struct set {
    struct mgp_table table;
    struct item items[COUNT_MAX];
    size_t count;
    double best_ns; /* of a hash and a look-up */
};

static struct set random_set, flooded_set, chosen_set;

static struct mgp_siphash_key
random_key(void)
{
    struct mgp_siphash_key key;
    if (getrandom(&key, sizeof(key), 0) != (ssize_t)sizeof(key)) {
        perror("getrandom");
        exit(1);
    }
    return key;
}

static void
name_item(struct item *item, uint64_t number)
{
    memset(item->bytes, 'x', KEY_BYTES);
    (void)snprintf(item->bytes, KEY_BYTES, "Bearer %020" PRIu64, number);
}

/* All of one bucket under this hash key; NULL: random ones. */
static void
choose(struct set *set, const struct mgp_siphash_key *hash_key)
{
    uint64_t number = 0;
    for (size_t i = 0; i < set->count; i++) {
        do {
            name_item(&set->items[i], hash_key == NULL ? random_key().k0 : number++);
        } while (hash_key != NULL &&
                 mgp_siphash(*hash_key, set->items[i].bytes, KEY_BYTES) % set->count != 0);
    }
}

static void
fill(struct set *set, struct mgp_siphash_key hash_key)
{
    mgp_table_init(&set->table, hash_key);
    for (size_t i = 0; i < set->count; i++) {
        struct mgp_table_entry *entry = &set->items[i].entry;
        entry->bytes = (const uint8_t *)set->items[i].bytes;
        entry->size = KEY_BYTES;
        entry->hash = mgp_table_hash(&set->table, entry->bytes, entry->size);
        mgp_table_insert(&set->table, entry);
    }
    set->best_ns = 1e9;
}

static double
seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void
measure(struct set *set)
{
    double start = seconds();
    for (size_t i = 0; i < LOOKUPS; i++) {
        const struct item *item = &set->items[i * 31 % set->count];
        uint64_t hash = mgp_table_hash(&set->table, item->bytes, KEY_BYTES);
        if (mgp_table_find(&set->table, hash, item->bytes, KEY_BYTES) != &item->entry) {
            exit(1);
        }
    }
    double each_ns = (seconds() - start) * 1e9 / LOOKUPS;
    set->best_ns = each_ns < set->best_ns ? each_ns : set->best_ns;
}

static void
empty(struct set *set)
{
    for (size_t i = 0; i < set->count; i++) {
        mgp_table_remove(&set->table, &set->items[i].entry);
    }
    mgp_table_fini(&set->table);
}

static void
print_row(size_t count)
{
    struct set *const sets[] = {&random_set, &flooded_set, &chosen_set};
    struct mgp_siphash_key known = random_key(), own = random_key();
    random_set.count = flooded_set.count = chosen_set.count = count;
    choose(&random_set, NULL);
    choose(&flooded_set, &known);
    memcpy(chosen_set.items, flooded_set.items, sizeof(chosen_set.items));
    fill(&random_set, own);
    fill(&flooded_set, known);
    fill(&chosen_set, own);
    for (int round = 0; round < ROUNDS; round++) {
        for (size_t i = 0; i < 3; i++) {
            measure(sets[i]);
        }
    }
    printf("| %zu | %.0f x | %.2f x |\n", count, flooded_set.best_ns / random_set.best_ns,
           chosen_set.best_ns / random_set.best_ns);
    for (size_t i = 0; i < 3; i++) {
        empty(sets[i]);
    }
}

int
main(void)
{
    puts("| keys | chosen keys, hash key known | chosen keys, hash key of the process |");
    puts("|---:|---:|---:|");
    for (size_t count = COUNT_MAX / 16; count <= COUNT_MAX; count *= 4) {
        print_row(count);
    }
    return 0;
}
