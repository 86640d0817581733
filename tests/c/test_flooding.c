/* Hash flooding: keys that were chosen to share one bucket do so only under the hash key that
 * they were chosen for. That key is of the process and comes from the operating system, so
 * nobody outside can choose such keys. What is counted are steps along chains, not time. */
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../../csrc/base/table.h"
#include "harness.h"

#define COUNT 1000
#define BUCKETS 1024 /* of a table of so many entries */
#define KEY_BYTES 48

struct item {
    struct mgp_table_entry entry;
    char bytes[KEY_BYTES];
};

static struct mgp_table table;
static struct item items[COUNT];

static struct mgp_siphash_key
random_key(void)
{
    return (struct mgp_siphash_key){harness_random(), harness_random()};
}

static void
fill(struct mgp_siphash_key hash_key)
{
    mgp_table_init(&table, hash_key);
    for (size_t i = 0; i < COUNT; i++) {
        struct mgp_table_entry *entry = &items[i].entry;
        entry->bytes = (const uint8_t *)items[i].bytes;
        entry->size = KEY_BYTES;
        entry->hash = mgp_table_hash(&table, entry->bytes, entry->size);
        CHECK(mgp_table_find(&table, entry->hash, entry->bytes, entry->size) == NULL);
        mgp_table_insert(&table, entry);
    }
    /* What is left of a resize goes on with each look-up. */
    for (size_t i = 0; table.old_buckets != NULL; i++) {
        CHECK(i <= BUCKETS);
        (void)mgp_table_find(&table, 0, "", 0);
    }
    CHECK(table.bucket_count == BUCKETS);
}

static void
empty(void)
{
    for (size_t i = 0; i < COUNT; i++) {
        mgp_table_remove(&table, &items[i].entry);
    }
    mgp_table_fini(&table);
}

/* Entries looked at by one successful look-up of each entry; and the longest chain. */
static size_t
count_steps(size_t *longest)
{
    size_t steps = 0;
    *longest = 0;
    for (size_t i = 0; i < table.bucket_count; i++) {
        size_t length = 0;
        for (struct mgp_table_entry *entry = table.buckets[i]; entry != NULL; entry = entry->next) {
            steps += ++length;
        }
        *longest = length > *longest ? length : *longest;
    }
    return steps;
}

static void
measure(struct mgp_siphash_key hash_key, size_t *steps, size_t *longest)
{
    fill(hash_key);
    *steps = count_steps(longest);
    empty();
}

/* A key's text: a bearer token, in the shape that callers choose. */
static void
name_item(struct item *item, uint64_t number)
{
    memset(item->bytes, 'x', KEY_BYTES);
    (void)snprintf(item->bytes, KEY_BYTES, "Bearer %020llu", (unsigned long long)number);
}

static void
choose_random(void)
{
    for (size_t i = 0; i < COUNT; i++) {
        name_item(&items[i], harness_random());
    }
}

/* The attack: numbers are tried until their hash ends as that of the first bucket. */
static void
choose_for(struct mgp_siphash_key hash_key)
{
    uint64_t number = 0;
    for (size_t i = 0; i < COUNT; i++) {
        do {
            name_item(&items[i], number++);
        } while (mgp_siphash(hash_key, items[i].bytes, KEY_BYTES) % BUCKETS != 0);
    }
}

/* With as many buckets as entries a look-up takes 1.5 steps on average; the longest chain of
 * 1,000 random ones is 6 or 7, and longer than 12 once in 10^9 tables. */
static void
check_is_as_random(struct mgp_siphash_key hash_key)
{
    size_t steps, longest;
    measure(hash_key, &steps, &longest);
    CHECK(steps < COUNT * 17 / 10);
    CHECK(longest <= 12);
}

static void
random_keys_take_one_and_a_half_steps(void)
{
    for (int round = 0; round < 20; round++) {
        choose_random();
        check_is_as_random(random_key());
    }
}

/* Or the claims below would show nothing. */
static void
keys_chosen_for_a_known_hash_key_share_one_bucket_under_it(void)
{
    struct mgp_siphash_key known = random_key();
    size_t steps, longest;
    choose_for(known);
    measure(known, &steps, &longest);
    CHECK(longest == COUNT);
    CHECK(steps == COUNT * (COUNT + 1) / 2);
}

static void
keys_chosen_for_another_hash_key_are_as_random_ones(void)
{
    struct mgp_siphash_key known = random_key();
    choose_for(known);
    for (int round = 0; round < 20; round++) {
        check_is_as_random(random_key());
    }
    /* Not even where it differs by one bit. */
    for (int bit = 0; bit < 64; bit += 7) {
        check_is_as_random((struct mgp_siphash_key){known.k0 ^ UINT64_C(1) << bit, known.k1});
        check_is_as_random((struct mgp_siphash_key){known.k0, known.k1 ^ UINT64_C(1) << bit});
    }
}

static void
keys_chosen_for_an_unkeyed_hash_are_as_random_ones(void)
{
    choose_for((struct mgp_siphash_key){0, 0});
    check_is_as_random(random_key());
}

/* What collides in weak hash functions: the same bytes in another order, a difference in one
 * place only, words that cancel each other out by XOR or by addition. */
static void
keys_of_a_regular_shape_are_as_random_ones(void)
{
    for (size_t place = 0; place + 8 <= KEY_BYTES; place += 5) {
        for (size_t i = 0; i < COUNT; i++) {
            memset(items[i].bytes, 0, KEY_BYTES);
            for (size_t digit = 0; digit < 4; digit++) {
                items[i].bytes[place + digit] = (char)(i >> (3 * digit) & 7);
            }
        }
        check_is_as_random(random_key());
        for (size_t i = 0; i < COUNT; i++) {
            uint64_t word = i * UINT64_C(0x0101010101010101), opposite = 0 - word;
            memset(items[i].bytes, 0, KEY_BYTES);
            memcpy(items[i].bytes + (place & ~(size_t)7) % 40, &word, sizeof(word));
            memcpy(items[i].bytes + 40, &opposite, sizeof(opposite));
        }
        check_is_as_random(random_key());
    }
}

static void
equal_hashes_do_not_make_equal_keys(void)
{
    mgp_table_init(&table, random_key());
    for (size_t i = 0; i < COUNT; i++) {
        name_item(&items[i], i);
        items[i].entry =
            (struct mgp_table_entry){NULL, (const uint8_t *)items[i].bytes, KEY_BYTES, 7};
        mgp_table_insert(&table, &items[i].entry);
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK(mgp_table_find(&table, 7, items[i].bytes, KEY_BYTES) == &items[i].entry);
    }
    CHECK(mgp_table_find(&table, 7, items[0].bytes, KEY_BYTES - 1) == NULL);
    empty();
}

int
main(void)
{
    RUN(random_keys_take_one_and_a_half_steps);
    RUN(keys_chosen_for_a_known_hash_key_share_one_bucket_under_it);
    RUN(keys_chosen_for_another_hash_key_are_as_random_ones);
    RUN(keys_chosen_for_an_unkeyed_hash_are_as_random_ones);
    RUN(keys_of_a_regular_shape_are_as_random_ones);
    RUN(equal_hashes_do_not_make_equal_keys);
    return harness_end();
}
