/* How a label is forgotten by all processes at one moment: csrc/metrics/forgetting.h. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "../../csrc/base/status.h"
#include "../../csrc/metrics/forgetting.h"
#include "counters_fixture.h"
#include "failing_alloc.h"
#include "harness.h"

#define HITS MGP_WORD_HITS
#define ACTIVE MGP_WORD_ACTIVE_SESSIONS
#define DAY UINT64_C(86400)

static struct mgp_rows first, second;

static void
start(void)
{
    counters_directory_new();
    counters_now_s = 10 * DAY;
    counters_retention_s = 0;
    counters_process_start(&first);
    counters_process_start(&second);
}

static void
end(void)
{
    mgp_rows_fini(&first);
    mgp_rows_fini(&second);
    counters_directory_remove();
}

static void
set_retention(uint64_t seconds)
{
    counters_retention_s = seconds;
    first.forgetting.retention_s = second.forgetting.retention_s = seconds;
}

static int
freeze(struct mgp_rows *rows, const char *label)
{
    return mgp_forgetting_freeze(rows, label, strlen(label), counters_now_s);
}

/* What every process shows: the two that count, and one that only looks. */
static uint64_t
shown(const char *label)
{
    const struct mgp_rows *lookers[] = {NULL, &first, &second};
    uint64_t values[3];
    for (size_t i = 0; i < 3; i++) {
        struct mgp_snapshot snapshot;
        counters_scrape(&snapshot, lookers[i]);
        values[i] = counters_read(&snapshot, label, HITS);
        mgp_snapshot_fini(&snapshot);
    }
    CHECK(values[0] == values[1] && values[1] == values[2]);
    return values[0];
}

static void
upkeep(void)
{
    mgp_forgetting_upkeep(&first, counters_now_s);
    mgp_forgetting_upkeep(&second, counters_now_s);
}

static bool
has_work(void)
{
    struct mgp_snapshot snapshot;
    counters_scrape(&snapshot, &first);
    bool result = mgp_forgetting_has_work(&first, &snapshot, counters_now_s);
    mgp_snapshot_fini(&snapshot);
    return result;
}

static void
no_process_shows_a_part_of_what_is_forgotten(void)
{
    start();
    counters_finished("a", 3);
    CHECK(counters_fold() == MGP_OK);
    counters_add(&first, "a", HITS, 10);
    counters_add(&second, "a", HITS, 100);
    counters_finished("b", 7);
    CHECK(shown("a") == 113);
    CHECK(freeze(&first, "a") == MGP_OK);
    CHECK(shown("a") == 113);
    CHECK(counters_fold_without("a") == MGP_OK && counters_pending == 1);
    CHECK(shown("a") == 113);
    mgp_forgetting_upkeep(&first, counters_now_s); /* its row is in the archive now */
    CHECK(shown("a") == 113 && first.forgetting.cleared_count == 1);
    mgp_forgetting_upkeep(&second, counters_now_s); /* has heard of it */
    CHECK(shown("a") == 113 && !mgp_list_is_empty(&second.frozen));
    CHECK(counters_fold() == MGP_OK && counters_pending == 0);
    CHECK(shown("a") == 0 && shown("b") == 7);
    upkeep();
    CHECK(mgp_list_is_empty(&second.frozen) && second.forgetting.request_count == 0);
    CHECK(shown("a") == 0 && !has_work());
    counters_add(&second, "a", HITS, 2);
    CHECK(shown("a") == 2);
    end();
}

static void
label_that_comes_back_before_goes_on_from_its_old_counts(void)
{
    start();
    counters_add(&first, "a", HITS, 10);
    counters_add(&second, "a", HITS, 100);
    CHECK(freeze(&first, "a") == MGP_OK && freeze(&second, "a") == MGP_OK);
    counters_add(&first, "a", HITS, 1);
    CHECK(shown("a") == 111);
    CHECK(counters_fold_without("a") == MGP_OK && counters_pending == 1);
    CHECK(shown("a") == 111);
    struct mgp_row *row = mgp_rows_ensure(&first, "a", 1);
    mgp_row_hold(row);
    upkeep();
    CHECK(counters_fold() == MGP_OK && shown("a") == 111);
    mgp_count_add(row, HITS, 5);
    CHECK(shown("a") == 116);
    mgp_row_unhold(row);
    upkeep();
    CHECK(shown("a") == 116);
    CHECK(counters_fold() == MGP_OK && shown("a") == 0);
    end();
}

static void
busy_row_is_not_frozen(void)
{
    start();
    counters_add(&first, "a", HITS, 1);
    counters_add(&first, "a", ACTIVE, 1);
    CHECK(freeze(&first, "a") == MGP_ERR_BUSY);
    mgp_count_decrement(mgp_rows_ensure(&first, "a", 1), ACTIVE);
    CHECK(freeze(&first, "a") == MGP_OK && freeze(&first, "nobody") == MGP_OK);
    end();
}

static void
what_nobody_counted_in_for_the_retention_time_is_forgotten(void)
{
    start();
    set_retention(DAY);
    counters_add(&first, "a", HITS, 1);
    counters_add(&second, "a", HITS, 2);
    counters_add(&first, "kept", HITS, 4);
    counters_finished("a", 8);
    counters_finished("finished", 16);
    CHECK(counters_fold() == MGP_OK);
    upkeep();
    counters_now_s += DAY - 1;
    upkeep();
    CHECK(!has_work() && shown("a") == 11);
    counters_add(&second, "a", HITS, 0); /* an event */
    struct mgp_row *kept = mgp_rows_ensure(&first, "kept", 4);
    mgp_row_hold(kept);
    counters_now_s += 60; /* idle rows are looked for once a minute */
    upkeep();
    CHECK(has_work() && counters_fold() == MGP_OK); /* the first's row of "a", and "finished" */
    CHECK(shown("a") == 11 && shown("finished") == 0 && shown("kept") == 4);
    upkeep();
    CHECK(mgp_list_is_empty(&first.frozen) && !has_work());
    counters_now_s += DAY + 60;
    upkeep();
    CHECK(has_work() && shown("a") == 11);
    CHECK(counters_fold() == MGP_OK);
    CHECK(shown("a") == 0 && shown("kept") == 4);
    mgp_row_unhold(kept);
    end();
}

static void
clock_that_goes_back_forgets_nothing(void)
{
    start();
    set_retention(DAY);
    counters_add(&first, "a", HITS, 1);
    counters_finished("a", 2);
    upkeep();
    CHECK(counters_fold() == MGP_OK);
    counters_now_s -= 5 * DAY;
    upkeep();
    CHECK(counters_fold() == MGP_OK && shown("a") == 3 && mgp_list_is_empty(&first.frozen));
    end();
}

static void
without_a_directory_idle_rows_are_dropped(void)
{
    struct mgp_rows rows;
    mgp_rows_init(&rows, (struct mgp_siphash_key){1, 2}, 10);
    rows.forgetting.retention_s = 100;
    counters_add(&rows, "a", HITS, 1);
    counters_add(&rows, "busy", ACTIVE, 1);
    mgp_forgetting_upkeep(&rows, 1000);
    mgp_forgetting_upkeep(&rows, 1099);
    CHECK(rows.count == 2);
    mgp_forgetting_upkeep(&rows, 1106);
    CHECK(rows.count == 1 && mgp_forgetting_freeze(&rows, "busy", 4, 1106) == MGP_ERR_BUSY);
    mgp_rows_fini(&rows);
}

/* At each step of the way somebody is killed; the others go on, and the sum never falls to a part. */
static void
whoever_ends_at_whatever_step_leaves_no_part(void)
{
    for (int step = 0; step < 6; step++) {
        start();
        counters_add(&first, "a", HITS, 10);
        counters_add(&second, "a", HITS, 100);
        bool is_gone = false;
        for (int at = 0; at < 6; at++) {
            if (at == step) {
                mgp_rows_fini(&first);
                counters_process_start(&first);
            }
            CHECK(shown("a") == (is_gone ? 0u : 110u));
            if (at == 0) {
                CHECK(freeze(&first, "a") == MGP_OK);
            } else if (at == 1) {
                CHECK(counters_fold_without("a") == MGP_OK);
            } else if (at == 2 || at == 4) {
                upkeep();
            } else {
                CHECK(counters_fold() == MGP_OK);
                is_gone = true;
            }
        }
        CHECK(counters_fold() == MGP_OK);
        CHECK(shown("a") == 0);
        end();
    }
}

/* The new archive names rows whose owner was killed before it could take them away. */
static void
taken_row_of_a_file_that_is_folded_counts_once(void)
{
    start();
    counters_add(&first, "a", HITS, 10);
    counters_add(&first, "b", HITS, 20);
    CHECK(freeze(&first, "a") == MGP_OK && counters_fold() == MGP_OK);
    counters_add(&first, "a", HITS, 1);
    mgp_rows_fini(&first);
    counters_process_start(&first);
    CHECK(shown("a") == 11 && shown("b") == 20);
    CHECK(counters_fold() == MGP_OK && counters_fold() == MGP_OK);
    CHECK(shown("a") == 11 && shown("b") == 20);
    end();
}

static void
slot_that_is_used_again_is_not_taken_for_the_row_that_was_there(void)
{
    start();
    counters_add(&first, "a", HITS, 10);
    CHECK(freeze(&first, "a") == MGP_OK && counters_fold() == MGP_OK);
    upkeep();
    counters_add(&first, "b", HITS, 3); /* in its place; the archive still names that one */
    CHECK(shown("a") == 10 && shown("b") == 3);
    counters_finished("c", 1);
    CHECK(counters_fold() == MGP_OK && shown("a") == 10 && shown("b") == 3);
    end();
}

static void
file_that_cannot_be_looked_at_loses_nothing_that_was_taken(void)
{
    start();
    counters_add(&first, "a", HITS, 10);
    CHECK(freeze(&first, "a") == MGP_OK && counters_fold() == MGP_OK);
    char path[1024];
    snprintf(path, sizeof(path), "%s", counters_path_of(&first));
    CHECK(chmod(path, 0660) == 0); /* others may have written: left out */
    counters_finished("b", 1);
    CHECK(counters_fold() == MGP_OK);
    CHECK(chmod(path, 0600) == 0);
    CHECK(shown("a") == 10);
    end();
}

static void
row_that_is_in_no_file_is_not_frozen_and_stops_forgetting(void)
{
    start();
    counters_finished("a", 5);
    CHECK(counters_fold() == MGP_OK);
    counters_limit_files(100);
    counters_add(&first, "a", HITS, 10);
    CHECK(freeze(&first, "a") == MGP_ERR_BUSY && shown("b") == 0);
    counters_limit_files(RLIM_INFINITY);
    mgp_rows_share_rest(&first);
    CHECK(freeze(&first, "a") == MGP_OK && shown("a") == 15);
    CHECK(counters_fold_without("a") == MGP_OK && shown("a") == 0);
    end();
}

static void
removed_file_takes_frozen_rows_along(void)
{
    start();
    counters_add(&first, "a", HITS, 10);
    CHECK(freeze(&first, "a") == MGP_OK);
    CHECK(unlink(counters_path_of(&first)) == 0);
    mgp_rows_share_rest(&first);
    CHECK(shown("a") == 10);
    CHECK(counters_fold_without("a") == MGP_OK && shown("a") == 0);
    end();
}

static void
overflow_row_goes_only_where_that_is_asked_for(void)
{
    start();
    set_retention(DAY);
    mgp_rows_set_max(&first, 1);
    counters_add(&first, "a", HITS, 1);
    counters_add(&first, "b", HITS, 2);
    counters_finished(MGP_ROWS_OVERFLOW_LABEL, 4);
    CHECK(counters_fold() == MGP_OK);
    upkeep();
    counters_now_s += 2 * DAY;
    upkeep();
    CHECK(counters_fold() == MGP_OK && shown("a") == 0 && shown(MGP_ROWS_OVERFLOW_LABEL) == 6);
    CHECK(freeze(&first, MGP_ROWS_OVERFLOW_LABEL) == MGP_OK);
    CHECK(counters_fold_without(MGP_ROWS_OVERFLOW_LABEL) == MGP_OK);
    CHECK(shown(MGP_ROWS_OVERFLOW_LABEL) == 0);
    end();
}

static void
request_for_what_nobody_counts_writes_nothing(void)
{
    start();
    CHECK(counters_fold_without("nobody") == MGP_OK && counters_pending == 0);
    CHECK(counters_count_files(MGP_NAME_ARCHIVE) == 0);
    end();
}

static void
out_of_memory_while_forgetting_loses_nothing(void)
{
    bool has_failed = true;
    for (size_t number = 1; has_failed; number++) {
        failing_alloc_install();
        start();
        counters_finished("a", 3);
        counters_add(&first, "a", HITS, 10);
        counters_add(&second, "b", HITS, 20);
        CHECK(freeze(&first, "a") == MGP_OK && freeze(&second, "b") == MGP_OK);
        failing_alloc_fail_at(number);
        int status = counters_fold_without("a");
        upkeep();
        has_failed = failing_alloc_has_failed();
        failing_alloc_fail_at(0);
        CHECK(status == MGP_OK || (status == MGP_ERR_NOMEM && has_failed));
        CHECK(shown("b") == 20);
        CHECK(shown("a") == 13 || (status == MGP_OK && shown("a") == 0));
        CHECK(counters_fold_without("a") == MGP_OK && shown("a") == 0 && shown("b") == 20);
        end();
        failing_alloc_uninstall();
    }
}

/* 10,000 gateways that two processes count, and that are deleted at once. */
static void
many_labels_are_forgotten_at_once(void)
{
    enum { MANY = 10000 };
    char label[32];
    struct mgp_snapshot snapshot;
    start();
    set_retention(DAY);
    for (int i = 0; i < MANY; i++) {
        snprintf(label, sizeof(label), "gateway %d", i);
        counters_add(&first, label, HITS, 1);
        counters_add(&second, label, HITS, 1);
    }
    counters_finished("gateway 0", 1);
    upkeep();
    counters_now_s += DAY;
    upkeep();
    CHECK(counters_scrape_sum(HITS) == 2 * MANY + 1);
    CHECK(counters_fold() == MGP_OK);
    CHECK(counters_scrape_sum(HITS) == 3); /* of "gateway 0": who ended may just have counted it */
    upkeep();
    CHECK(mgp_list_is_empty(&first.frozen) && mgp_list_is_empty(&second.frozen));
    CHECK(counters_scrape_sum(HITS) == 3);
    counters_now_s += DAY;
    CHECK(counters_fold() == MGP_OK);
    counters_scrape(&snapshot, &first);
    CHECK(snapshot.row_count == 0);
    mgp_snapshot_fini(&snapshot);
    end();
}

int
main(void)
{
    RUN(no_process_shows_a_part_of_what_is_forgotten);
    RUN(label_that_comes_back_before_goes_on_from_its_old_counts);
    RUN(busy_row_is_not_frozen);
    RUN(what_nobody_counted_in_for_the_retention_time_is_forgotten);
    RUN(clock_that_goes_back_forgets_nothing);
    RUN(without_a_directory_idle_rows_are_dropped);
    RUN(whoever_ends_at_whatever_step_leaves_no_part);
    RUN(taken_row_of_a_file_that_is_folded_counts_once);
    RUN(slot_that_is_used_again_is_not_taken_for_the_row_that_was_there);
    RUN(file_that_cannot_be_looked_at_loses_nothing_that_was_taken);
    RUN(row_that_is_in_no_file_is_not_frozen_and_stops_forgetting);
    RUN(removed_file_takes_frozen_rows_along);
    RUN(overflow_row_goes_only_where_that_is_asked_for);
    RUN(request_for_what_nobody_counts_writes_nothing);
    RUN(out_of_memory_while_forgetting_loses_nothing);
    RUN(many_labels_are_forgotten_at_once);
    return harness_end();
}
