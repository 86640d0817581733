#include "../../csrc/base/table.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../../csrc/base/container.h"
#include "failing_alloc.h"
#include "harness.h"

#define ITEMS 20000

struct item {
    struct mgp_table_entry entry;
    char bytes[16];
    bool in;   /* the model: whether the table must hold it */
    bool seen; /* by check_visit() */
};

static struct mgp_table table;
static struct item items[ITEMS];

static void
item_init(struct item *item, const char *bytes, size_t size)
{
    memcpy(item->bytes, bytes, size);
    item->entry.bytes = (const uint8_t *)item->bytes;
    item->entry.size = size;
    item->entry.hash = mgp_table_hash(&table, item->bytes, size);
    item->in = false;
}

static void
start(void)
{
    failing_alloc_install();
    mgp_table_init(&table, (struct mgp_siphash_key){harness_random(), harness_random()});
    for (size_t i = 0; i < ITEMS; i++) {
        char bytes[16];
        int size = snprintf(bytes, sizeof(bytes), "%zu", i);
        item_init(&items[i], bytes, (size_t)size);
    }
}

static void
insert(struct item *item)
{
    mgp_table_insert(&table, &item->entry);
    item->in = true;
}

static void
remove_item(struct item *item)
{
    mgp_table_remove(&table, &item->entry);
    item->in = false;
}

static void
check_find(const struct item *item)
{
    /* A copy, so that nothing is found by its address. */
    char bytes[16];
    memcpy(bytes, item->bytes, sizeof(bytes));
    const struct mgp_table_entry *found =
        mgp_table_find(&table, item->entry.hash, bytes, item->entry.size);
    CHECK(found == (item->in ? &item->entry : NULL));
}

static int
item_see(struct mgp_table_entry *entry, void *context)
{
    struct item *item = mgp_container_of(entry, struct item, entry);
    CHECK(item->in);
    CHECK(!item->seen);
    item->seen = true;
    ++*(size_t *)context;
    return 0;
}

/* The table holds exactly what the model says, each once. */
static void
check_visit(void)
{
    size_t seen = 0;
    size_t in = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        items[i].seen = false;
        in += items[i].in;
    }
    CHECK(mgp_table_visit(&table, item_see, &seen) == 0);
    CHECK(seen == in);
    CHECK(table.count == in);
}

static void
remove_all(void)
{
    for (size_t i = 0; i < ITEMS; i++) {
        if (items[i].in) {
            remove_item(&items[i]);
        }
    }
}

static void
end(void)
{
    remove_all();
    CHECK(table.count == 0);
    mgp_table_fini(&table);
    failing_alloc_uninstall();
}

static bool
is_resizing(void)
{
    return table.old_buckets != NULL;
}

/* Finds, which find nothing, until a resize that goes on has ended. */
static void
finish_resize(void)
{
    while (is_resizing()) {
        CHECK(mgp_table_find(&table, harness_random(), "none", 4) == NULL);
    }
}

static void
nothing_is_allocated_for_one_entry(void)
{
    start();
    check_find(&items[0]);
    insert(&items[0]);
    check_find(&items[0]);
    check_find(&items[1]);
    check_visit();
    remove_item(&items[0]);
    check_find(&items[0]);
    CHECK(failing_alloc_calls() == 0);
    end();
}

static void
every_inserted_entry_is_found(void)
{
    start();
    for (size_t i = 0; i < ITEMS; i++) {
        insert(&items[i]);
        check_find(&items[harness_random_below(i + 1)]);
    }
    for (size_t i = 0; i < ITEMS; i++) {
        check_find(&items[i]);
    }
    check_visit();
    end();
}

static void
removed_entry_is_not_found_while_resizing(void)
{
    start();
    size_t removed_while_resizing = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        insert(&items[i]);
        if (is_resizing()) {
            struct item *item = &items[harness_random_below(i + 1)];
            if (item->in) {
                remove_item(item);
                removed_while_resizing++;
            }
            check_find(item);
        }
    }
    CHECK(removed_while_resizing > 100);
    check_visit();
    end();
}

static void
equal_hashes_are_told_apart_by_their_bytes(void)
{
    start();
    static const struct {
        const char *bytes;
        size_t size;
    } keys[] = {{"", 0},   {"\0", 1},  {"\0\0", 2}, {"a", 1},
                {"ab", 2}, {"a\0", 2}, {"a\0b", 3}, {"a\0c", 3}};
    enum { KEYS = sizeof(keys) / sizeof(keys[0]) };
    for (size_t i = 0; i < KEYS; i++) {
        item_init(&items[i], keys[i].bytes, keys[i].size);
        items[i].entry.hash = 42;
        check_find(&items[i]);
        insert(&items[i]);
        check_find(&items[i]);
    }
    for (size_t i = 0; i < KEYS; i++) {
        check_find(&items[i]);
        remove_item(&items[i]);
        for (size_t k = 0; k < KEYS; k++) {
            check_find(&items[k]);
        }
    }
    end();
}

static void
equal_bytes_under_another_hash_are_not_found(void)
{
    start();
    insert(&items[7]);
    CHECK(mgp_table_find(&table, items[7].entry.hash + 1, "7", 1) == NULL);
    CHECK(mgp_table_find(&table, items[7].entry.hash, "7", 1) == &items[7].entry);
    end();
}

/* Grows and shrinks several times, through every size: the odds of an insert
 * against a remove drift from one side to the other. */
static void
random_operations_agree_with_the_model(void)
{
    start();
    for (int phase = 0; phase < 8; phase++) {
        size_t insert_odds = phase % 2 == 0 ? 90 : 10;
        size_t range = phase < 4 ? 300 : ITEMS;
        for (size_t step = 0; step < 3 * range; step++) {
            struct item *item = &items[harness_random_below(range)];
            bool want_in = harness_random_below(100) < insert_odds;
            if (want_in && !item->in) {
                insert(item);
            } else if (!want_in && item->in) {
                remove_item(item);
            }
            check_find(item);
            check_find(&items[harness_random_below(range)]);
            if (step % 512 == 0) {
                check_visit();
            }
        }
        check_visit();
    }
    end();
}

/* What one operation may do at most, as table.c promises. */
static void
no_operation_moves_more_than_a_few_buckets(void)
{
    start();
    size_t resizes = 0;
    for (size_t step = 0; step < 4 * ITEMS; step++) {
        size_t moved_before = table.next_to_move;
        size_t old_count = table.old_bucket_count;
        struct item *item = &items[step % ITEMS];
        if (step / ITEMS % 2 == 0) {
            insert(item);
        } else {
            remove_item(item);
        }
        if (old_count != 0 && is_resizing() && table.old_bucket_count == old_count) {
            CHECK(table.next_to_move > moved_before);
            CHECK(table.next_to_move - moved_before <= 2 + 16);
        } else if (old_count != 0) {
            CHECK(old_count - moved_before <= 2 + 16);
            resizes++;
        }
        /* Each resize ends before the next is due, so the load stays at most 1. */
        CHECK(table.count <= table.bucket_count);
    }
    CHECK(resizes > 20);
    end();
}

/* The worst case for a resize: it shrinks, and nothing but inserts follows. */
static void
load_stays_low_when_inserts_follow_a_shrink(void)
{
    start();
    for (size_t i = 0; i < ITEMS; i++) {
        insert(&items[i]);
    }
    finish_resize();
    size_t largest = table.bucket_count;
    size_t shrinks = 0;
    for (size_t i = 0; i < ITEMS; i++) {
        size_t before = table.bucket_count;
        remove_item(&items[i]);
        if (table.bucket_count < before) {
            shrinks++;
            for (size_t back = 0; back < i && is_resizing(); back++) {
                insert(&items[back]);
                CHECK(table.count <= table.bucket_count);
            }
            for (size_t back = 0; back < i; back++) {
                if (items[back].in) {
                    remove_item(&items[back]);
                }
            }
        }
    }
    CHECK(shrinks > 2);
    CHECK(table.count == 0);
    CHECK(table.bucket_count < largest / 100);
    end();
}

static void
emptied_table_gives_its_memory_back(void)
{
    start();
    for (size_t i = 0; i < ITEMS; i++) {
        insert(&items[i]);
    }
    size_t most = failing_alloc_live_bytes();
    remove_all();
    CHECK(failing_alloc_live_bytes() < most / 10);
    finish_resize();
    CHECK(table.bucket_count >= 16);
    end();
}

static void
table_without_memory_finds_all_and_grows_later(void)
{
    start();
    failing_alloc_fail_from(1);
    for (size_t i = 0; i < 2000; i++) {
        insert(&items[i]);
    }
    CHECK(failing_alloc_has_failed());
    CHECK(failing_alloc_live_blocks() == 0);
    for (size_t i = 0; i < 2100; i++) {
        check_find(&items[i]);
    }
    for (size_t i = 0; i < 2000; i += 2) {
        remove_item(&items[i]);
    }
    check_visit();

    failing_alloc_fail_at(0);
    insert(&items[2000]);
    finish_resize();
    CHECK(table.bucket_count >= table.count);
    for (size_t i = 0; i < 2100; i++) {
        check_find(&items[i]);
    }
    check_visit();
    end();
}

static void
failed_growth_leaves_the_table_as_it_was_and_shrinking_needs_no_memory(void)
{
    start();
    for (size_t i = 0; i < 16; i++) {
        insert(&items[i]);
    }
    finish_resize();
    CHECK(table.bucket_count == 16);
    failing_alloc_fail_from(1);
    for (size_t i = 16; i < 100; i++) {
        insert(&items[i]);
        CHECK(table.bucket_count == 16 && !is_resizing());
        check_find(&items[i]);
    }
    check_visit();
    failing_alloc_fail_at(0);
    for (size_t i = 100; i < ITEMS; i++) {
        insert(&items[i]);
    }
    finish_resize();
    size_t bucket_count = table.bucket_count;
    failing_alloc_fail_from(1);
    for (size_t i = 0; i < ITEMS - 3; i++) {
        remove_item(&items[i]);
        check_find(&items[i]);
    }
    CHECK(failing_alloc_has_failed()); /* to give back what is free now */
    CHECK(table.bucket_count < bucket_count / 100);
    check_visit();
    for (size_t i = 0; i < ITEMS - 3; i++) { /* from an array that has more room than it knows */
        insert(&items[i]);
        check_find(&items[i]);
    }
    check_visit();
    end();
}

static void
table_that_could_give_nothing_back_can_be_finished(void)
{
    start();
    for (size_t i = 0; i < ITEMS; i++) {
        insert(&items[i]);
    }
    size_t most = failing_alloc_live_bytes();
    failing_alloc_fail_from(1);
    for (size_t i = 0; i < ITEMS; i++) {
        remove_item(&items[i]);
    }
    CHECK(failing_alloc_live_bytes() >= most / 2 && failing_alloc_live_blocks() == 1);
    mgp_table_fini(&table);
    CHECK(failing_alloc_live_blocks() == 0);
    end();
}

static int
visit_stop(struct mgp_table_entry *entry, void *context)
{
    (void)entry;
    return --*(int *)context == 0 ? 99 : 0;
}

static void
visit_stops_at_the_first_result(void)
{
    start();
    for (size_t i = 0; i < 65; i++) {
        insert(&items[i]);
    }
    CHECK(is_resizing());
    for (int stop = 1; stop <= 65; stop++) {
        int countdown = stop;
        CHECK(mgp_table_visit(&table, visit_stop, &countdown) == 99);
        CHECK(countdown == 0);
    }
    int countdown = 66;
    CHECK(mgp_table_visit(&table, visit_stop, &countdown) == 0);
    CHECK(countdown == 1);
    end();
}

int
main(void)
{
    RUN(nothing_is_allocated_for_one_entry);
    RUN(every_inserted_entry_is_found);
    RUN(removed_entry_is_not_found_while_resizing);
    RUN(equal_hashes_are_told_apart_by_their_bytes);
    RUN(equal_bytes_under_another_hash_are_not_found);
    RUN(random_operations_agree_with_the_model);
    RUN(no_operation_moves_more_than_a_few_buckets);
    RUN(load_stays_low_when_inserts_follow_a_shrink);
    RUN(emptied_table_gives_its_memory_back);
    RUN(table_without_memory_finds_all_and_grows_later);
    RUN(failed_growth_leaves_the_table_as_it_was_and_shrinking_needs_no_memory);
    RUN(table_that_could_give_nothing_back_can_be_finished);
    RUN(visit_stops_at_the_first_result);
    return harness_end();
}
