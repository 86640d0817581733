#include "../../csrc/metrics/rows.h"

#include <stdio.h>
#include <string.h>

#include "../../csrc/base/status.h"
#include "failing_alloc.h"
#include "harness.h"

#define MAX_ROWS 300

static struct mgp_rows rows;

static void
start(void)
{
    failing_alloc_install();
    mgp_rows_init(&rows, (struct mgp_siphash_key){1, 2}, MAX_ROWS);
}

static void
end(void)
{
    mgp_rows_fini(&rows);
    failing_alloc_uninstall();
}

static struct mgp_row *
ensure(const char *label)
{
    return mgp_rows_ensure(&rows, label, strlen(label));
}

static struct mgp_row *
ensure_number(size_t number)
{
    char label[32];
    snprintf(label, sizeof(label), "gateway-%zu", number);
    return ensure(label);
}

static int
forget(const char *label)
{
    return mgp_rows_forget(&rows, label, strlen(label));
}

static void
check_all_zero(const struct mgp_row *row)
{
    CHECK(row->holds == 0);
    for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
        CHECK(mgp_atomic_load(&row->words[word]) == 0);
    }
}

struct expectation {
    const char *const *labels;
    size_t count;
    size_t seen;
};

static int
label_check(const void *label, size_t size, const struct mgp_row *row, void *context)
{
    struct expectation *expected = context;
    CHECK(row != NULL);
    CHECK(expected->seen < expected->count);
    const char *want = expected->labels[expected->seen++];
    CHECK(size == strlen(want) && memcmp(label, want, size) == 0);
    return 0;
}

/* A visit yields exactly these labels, in this order. */
static void
check_labels(const char *const *labels, size_t count)
{
    struct expectation expected = {labels, count, 0};
    CHECK(mgp_rows_visit(&rows, label_check, &expected) == 0);
    CHECK(expected.seen == count);
}

static void
every_word_belongs_to_one_series(void)
{
    size_t next_word = 0;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        CHECK(series->first_word == next_word);
        CHECK(series->word_count >= 1);
        CHECK(strlen(series->stem) > 0 && strlen(series->help) > 0);
        next_word += series->word_count;
        for (size_t k = 0; k < i; k++) {
            CHECK(strcmp(series->stem, mgp_series_table[k].stem) != 0);
        }
    }
    CHECK(next_word == MGP_WORD_COUNT);
}

static void
series_table_knows_kinds_labels_and_reasons(void)
{
    size_t found = 0;
    for (size_t i = 0; i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        if (strcmp(series->stem, "evictions") == 0) {
            CHECK(series->first_word == MGP_WORD_EVICTIONS);
            CHECK(series->word_count == MGP_EVICTION_REASON_COUNT);
            CHECK(series->kind == MGP_SERIES_COUNTER && series->labels == MGP_LABELS_EVICTION);
            found++;
        }
        if (strcmp(series->stem, "acquire_rejections") == 0) {
            CHECK(series->first_word == MGP_WORD_ACQUIRE_REJECTIONS);
            CHECK(series->word_count == MGP_REJECTION_REASON_COUNT);
            CHECK(series->kind == MGP_SERIES_COUNTER && series->labels == MGP_LABELS_REJECTION);
            found++;
        }
        if (strcmp(series->stem, "unpooled_calls") == 0) {
            CHECK(series->first_word == MGP_WORD_UNPOOLED_CALLS);
            CHECK(series->word_count == MGP_UNPOOLED_REASON_COUNT);
            CHECK(series->kind == MGP_SERIES_COUNTER && series->labels == MGP_LABELS_UNPOOLED);
            found++;
        }
        if (strcmp(series->stem, "active_sessions") == 0) {
            CHECK(series->first_word == MGP_WORD_ACTIVE_SESSIONS && series->word_count == 1);
            CHECK(series->kind == MGP_SERIES_GAUGE && series->labels == MGP_LABELS_GATEWAY);
            found++;
        }
    }
    CHECK(found == 4);
    CHECK(strcmp(mgp_eviction_reason_names[MGP_EVICTION_TTL_EXPIRED], "ttl_expired") == 0);
    CHECK(strcmp(mgp_eviction_reason_names[MGP_EVICTION_LEAKED], "leaked") == 0);
    CHECK(strcmp(mgp_eviction_reason_names[MGP_EVICTION_PROCESS_ENDED], "process_ended") == 0);
    CHECK(strcmp(mgp_rejection_reason_names[MGP_REJECTION_QUEUE_FULL], "queue_full") == 0);
    CHECK(strcmp(mgp_unpooled_reason_names[MGP_UNPOOLED_NO_USER], "no_user") == 0);
}

static void
no_rows_need_no_memory(void)
{
    start();
    check_labels(NULL, 0);
    CHECK(forget("a") == MGP_OK);
    CHECK(failing_alloc_calls() == 0);
    end();
}

static void
same_label_is_the_same_row(void)
{
    start();
    struct mgp_row *a = ensure("a");
    struct mgp_row *b = ensure("b");
    CHECK(a != b && a->words != b->words);
    check_all_zero(a);
    CHECK(ensure("a") == a);
    CHECK(ensure("b") == b);
    check_labels((const char *[]){"a", "b"}, 2);
    end();
}

static void
label_is_any_bytes(void)
{
    start();
    static const struct {
        const char *bytes;
        size_t size;
    } labels[] = {{"", 0},     {"\0", 1},   {"a", 1},     {"a\0", 2},
                  {"a\0b", 3}, {"a\0c", 3}, {"\"\\\n", 3}};
    enum { LABELS = sizeof(labels) / sizeof(labels[0]) };
    struct mgp_row *found[LABELS];
    for (size_t i = 0; i < LABELS; i++) {
        found[i] = mgp_rows_ensure(&rows, labels[i].bytes, labels[i].size);
        for (size_t k = 0; k < i; k++) {
            CHECK(found[k] != found[i]);
        }
    }
    for (size_t i = 0; i < LABELS; i++) {
        CHECK(mgp_rows_ensure(&rows, labels[i].bytes, labels[i].size) == found[i]);
    }
    CHECK(mgp_rows_forget(&rows, "a\0b", 3) == MGP_OK);
    CHECK(mgp_rows_ensure(&rows, "a\0c", 3) == found[5]);
    CHECK(rows.count == LABELS - 1);
    end();
}

static void
label_is_copied(void)
{
    start();
    char label[] = "a";
    struct mgp_row *row = ensure(label);
    label[0] = 'b';
    CHECK(ensure("a") == row);
    check_labels((const char *[]){"a"}, 1);
    end();
}

static void
handles_stay_valid_while_rows_grow(void)
{
    start();
    struct mgp_row *handles[MAX_ROWS];
    mgp_atomic_u64 *words[MAX_ROWS];
    for (size_t i = 0; i < MAX_ROWS; i++) {
        handles[i] = ensure_number(i);
        words[i] = handles[i]->words;
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            mgp_count_add(handles[i], word, i * MGP_WORD_COUNT + word);
        }
    }
    for (size_t i = 0; i < MAX_ROWS; i++) {
        CHECK(ensure_number(i) == handles[i]);
        CHECK(handles[i]->words == words[i]);
        for (size_t word = 0; word < MGP_WORD_COUNT; word++) {
            CHECK(mgp_atomic_load(&words[i][word]) == i * MGP_WORD_COUNT + word);
        }
    }
    end();
}

static void
gauge_goes_up_and_down(void)
{
    start();
    struct mgp_row *row = ensure("a");
    mgp_count_increment(row, MGP_WORD_SIZE);
    mgp_count_add(row, MGP_WORD_SIZE, 2);
    mgp_count_decrement(row, MGP_WORD_SIZE);
    CHECK(mgp_atomic_load(&row->words[MGP_WORD_SIZE]) == 2);
    end();
}

static void
labels_past_the_bound_share_the_overflow_row(void)
{
    start();
    mgp_rows_set_max(&rows, 2);
    struct mgp_row *a = ensure("a");
    struct mgp_row *b = ensure("b");
    CHECK(rows.overflow == NULL);
    struct mgp_row *overflow = ensure("c");
    CHECK(overflow != NULL && overflow != a && overflow != b);
    CHECK(overflow == rows.overflow);
    CHECK(ensure("d") == overflow);
    CHECK(ensure("c") == overflow);
    CHECK(ensure("a") == a);
    CHECK(rows.count == 2);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == 3);
    check_labels((const char *[]){"a", "b", MGP_ROWS_OVERFLOW_LABEL}, 3);
    end();
}

static void
new_bound_is_for_labels_to_come(void)
{
    start();
    mgp_rows_set_max(&rows, 1);
    struct mgp_row *a = ensure("a");
    struct mgp_row *overflow = ensure("b");
    mgp_rows_set_max(&rows, 3);
    struct mgp_row *b = ensure("b");
    CHECK(b != overflow);
    ensure("c");
    mgp_rows_set_max(&rows, 1);
    CHECK(ensure("a") == a && ensure("b") == b);
    CHECK(ensure("d") == overflow);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == 2);
    check_labels((const char *[]){"a", "b", "c", MGP_ROWS_OVERFLOW_LABEL}, 4);
    end();
}

static void
gateway_named_overflow_is_the_overflow_row(void)
{
    start();
    mgp_rows_set_max(&rows, 1);
    struct mgp_row *named = ensure(MGP_ROWS_OVERFLOW_LABEL);
    CHECK(rows.count == 0);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == 0);
    CHECK(ensure("a") != named);
    CHECK(ensure("b") == named);
    CHECK(ensure(MGP_ROWS_OVERFLOW_LABEL) == named);
    check_labels((const char *[]){"a", MGP_ROWS_OVERFLOW_LABEL}, 2);
    end();
}

static void
forgotten_row_is_gone_and_reused_with_zeros(void)
{
    start();
    ensure("a");
    struct mgp_row *b = ensure("b");
    ensure("c");
    mgp_count_add(b, MGP_WORD_HITS, 5);
    mgp_count_add(b, MGP_WORD_EVICTIONS_LAST, 5);
    CHECK(forget("b") == MGP_OK);
    CHECK(rows.count == 2);
    check_labels((const char *[]){"a", "c"}, 2);
    CHECK(forget("b") == MGP_OK);
    CHECK(rows.count == 2);
    struct mgp_row *d = ensure("d");
    CHECK(d == b);
    check_all_zero(d);
    check_labels((const char *[]){"a", "c", "d"}, 3);
    end();
}

static void
forgetting_makes_room_below_the_bound(void)
{
    start();
    mgp_rows_set_max(&rows, 2);
    ensure("a");
    ensure("b");
    struct mgp_row *overflow = ensure("c");
    CHECK(forget("a") == MGP_OK);
    CHECK(ensure("c") != overflow);
    CHECK(ensure("a") == overflow);
    end();
}

static void
row_with_something_open_is_busy(void)
{
    start();
    struct mgp_row *row = ensure("a");
    for (size_t i = 0; i < mgp_series_count; i++) {
        for (size_t w = 0; w < mgp_series_table[i].word_count; w++) {
            size_t word = mgp_series_table[i].first_word + w;
            mgp_count_increment(row, word);
            if (mgp_series_table[i].kind == MGP_SERIES_GAUGE) {
                CHECK(forget("a") == MGP_ERR_BUSY);
                CHECK(mgp_atomic_load(&row->words[word]) == 1);
                mgp_count_decrement(row, word);
            }
        }
    }
    CHECK(ensure("a") == row);
    CHECK(forget("a") == MGP_OK);
    check_all_zero(row);
    end();
}

static void
held_row_is_busy(void)
{
    start();
    struct mgp_row *row = ensure("a");
    mgp_row_hold(row);
    mgp_row_hold(row);
    CHECK(forget("a") == MGP_ERR_BUSY);
    mgp_row_unhold(row);
    CHECK(forget("a") == MGP_ERR_BUSY);
    mgp_row_unhold(row);
    CHECK(forget("a") == MGP_OK);
    end();
}

static void
overflow_row_can_be_forgotten(void)
{
    start();
    mgp_rows_set_max(&rows, 1);
    ensure("a");
    struct mgp_row *overflow = ensure("b");
    mgp_row_hold(overflow);
    CHECK(forget(MGP_ROWS_OVERFLOW_LABEL) == MGP_ERR_BUSY);
    mgp_row_unhold(overflow);
    mgp_count_increment(overflow, MGP_WORD_HITS);
    CHECK(forget(MGP_ROWS_OVERFLOW_LABEL) == MGP_OK);
    CHECK(rows.overflow == NULL && rows.count == 1);
    check_labels((const char *[]){"a"}, 1);
    overflow = ensure("b");
    check_all_zero(overflow);
    check_labels((const char *[]){"a", MGP_ROWS_OVERFLOW_LABEL}, 2);
    end();
}

static int
visit_stop(const void *label, size_t size, const struct mgp_row *row, void *context)
{
    (void)label;
    (void)size;
    (void)row;
    return --*(int *)context == 0 ? -99 : 0;
}

static void
visit_stops_at_the_first_result(void)
{
    start();
    mgp_rows_set_max(&rows, 2);
    ensure("a");
    ensure("b");
    ensure("c");
    for (int calls = 1; calls <= 3; calls++) {
        int countdown = calls;
        CHECK(mgp_rows_visit(&rows, visit_stop, &countdown) == -99);
        CHECK(countdown == 0);
    }
    int countdown = 4;
    CHECK(mgp_rows_visit(&rows, visit_stop, &countdown) == 0);
    end();
}

static void
out_of_memory_changes_nothing(void)
{
    start();
    mgp_rows_set_max(&rows, 130);
    size_t failures = 0;
    for (size_t i = 0; i < 132; i++) {
        char label[32];
        snprintf(label, sizeof(label), "%zu", i);
        for (size_t n = 1;; n++) {
            size_t count = rows.count;
            uint64_t overflows = mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]);
            struct mgp_row *overflow = rows.overflow;
            failing_alloc_fail_at(n);
            struct mgp_row *row = ensure(label);
            if (row != NULL) {
                break;
            }
            CHECK(failing_alloc_has_failed());
            CHECK(rows.count == count && rows.overflow == overflow);
            CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == overflows);
            failures++;
        }
        failing_alloc_fail_at(0);
    }
    CHECK(failures > 130);
    CHECK(rows.count == 130);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == 2);
    end();
}

/* The model: which of the labels has a row, and what was counted in it. */
static void
random_operations_agree_with_the_model(void)
{
    enum { LABELS = 400, BOUND = 250 };
    static struct {
        struct mgp_row *row; /* NULL: has none */
        uint64_t hits;
    } model[LABELS];
    start();
    mgp_rows_set_max(&rows, BOUND);
    size_t count = 0;
    uint64_t turned_away = 0;
    for (int step = 0; step < 50000; step++) {
        size_t i = harness_random_below(LABELS);
        if (harness_random_below(3) > 0) {
            struct mgp_row *row = ensure_number(i);
            if (model[i].row != NULL) {
                CHECK(row == model[i].row);
            } else if (count == BOUND) {
                CHECK(row == rows.overflow);
                turned_away++;
                continue;
            } else {
                check_all_zero(row);
                model[i].row = row;
                model[i].hits = 0;
                count++;
            }
            mgp_count_increment(row, MGP_WORD_HITS);
            model[i].hits++;
            CHECK(mgp_atomic_load(&row->words[MGP_WORD_HITS]) == model[i].hits);
        } else {
            char label[32];
            snprintf(label, sizeof(label), "gateway-%zu", i);
            CHECK(forget(label) == MGP_OK);
            count -= model[i].row != NULL;
            model[i].row = NULL;
        }
        CHECK(rows.count == count);
        CHECK(mgp_list_length(&rows.order) == count);
    }
    CHECK(turned_away > 0);
    CHECK(mgp_atomic_load(&rows.process_words[MGP_PROCESS_LABEL_OVERFLOW]) == turned_away);
    end();
}

uint64_t renamed_series_fingerprint(void); /* series_renamed.c */

static void
fingerprint_depends_on_the_names_of_reasons(void)
{
    CHECK(mgp_series_fingerprint() == mgp_series_fingerprint());
    CHECK(renamed_series_fingerprint() != mgp_series_fingerprint());
}

int
main(void)
{
    RUN(every_word_belongs_to_one_series);
    RUN(series_table_knows_kinds_labels_and_reasons);
    RUN(no_rows_need_no_memory);
    RUN(same_label_is_the_same_row);
    RUN(label_is_any_bytes);
    RUN(label_is_copied);
    RUN(handles_stay_valid_while_rows_grow);
    RUN(gauge_goes_up_and_down);
    RUN(labels_past_the_bound_share_the_overflow_row);
    RUN(new_bound_is_for_labels_to_come);
    RUN(gateway_named_overflow_is_the_overflow_row);
    RUN(forgotten_row_is_gone_and_reused_with_zeros);
    RUN(forgetting_makes_room_below_the_bound);
    RUN(row_with_something_open_is_busy);
    RUN(held_row_is_busy);
    RUN(overflow_row_can_be_forgotten);
    RUN(visit_stops_at_the_first_result);
    RUN(out_of_memory_changes_nothing);
    RUN(random_operations_agree_with_the_model);
    RUN(fingerprint_depends_on_the_names_of_reasons);
    return harness_end();
}
