#include "forgetting.h"

#include <string.h>
#include <unistd.h>

#include "../base/alloc.h"
#include "../base/ordered.h"
#include "../base/status.h"
#include "directory.h"
#include "record.h"

/* Idle rows are looked for so often in a retention time, and once a minute at least. */
#define SWEEPS 16
#define SWEEP_SECONDS_MAX 60

/* ---- what is due ---- */

bool
mgp_forgetting_is_requested(const void *label, size_t size, const struct mgp_forgetting_rule *rule)
{
    if (rule->request_count == 0) {
        return false;
    }
    struct mgp_label_digest digest = mgp_label_digest(label, size);
    return mgp_ordered_has(rule->requests, rule->request_count, sizeof(digest), &digest);
}

static bool
is_old(uint64_t ended_at, const struct mgp_forgetting_rule *rule)
{
    return rule->retention_s != 0 && ended_at <= rule->now_s &&
           rule->now_s - ended_at >= rule->retention_s;
}

/* What of many labels is counted together is no gateway that could be gone. */
static bool
is_of_one_label(const struct mgp_snapshot_row *row)
{
    return row->label_size != sizeof(MGP_ROWS_OVERFLOW_LABEL) - 1 ||
           memcmp(row->label, MGP_ROWS_OVERFLOW_LABEL, row->label_size) != 0;
}

bool
mgp_forgetting_is_due(const struct mgp_snapshot_row *row, const struct mgp_forgetting_rule *rule)
{
    return !row->end->is_open && ((is_of_one_label(row) && is_old(row->end->ended_at, rule)) ||
                                  mgp_forgetting_is_requested(row->label, row->label_size, rule));
}

bool
mgp_forgetting_has_work(const struct mgp_rows *rows, const struct mgp_snapshot *snapshot,
                        uint64_t now_s)
{
    const struct mgp_forgetting_rule rule = {snapshot->archive.requests,
                                             snapshot->archive.request_count, now_s,
                                             rows->forgetting.retention_s};
    size_t requested_count = 0;
    if (!mgp_list_is_empty(&rows->frozen)) {
        return true;
    }
    for (size_t i = 0; i < snapshot->row_count; i++) {
        const struct mgp_snapshot_row *row = &snapshot->rows[i];
        if (mgp_forgetting_is_due(row, &rule)) {
            return true;
        }
        requested_count += mgp_forgetting_is_requested(row->label, row->label_size, &rule);
    }
    return requested_count < rule.request_count; /* one of them has no row left */
}

/* ---- rows of this process ---- */

static int
record_freeze(struct mgp_rows *rows, struct record *record, uint64_t frozen_at)
{
    if (rows->directory == NULL) {
        return mgp_rows_forget(rows, record->label, record->entry.size);
    }
    if (mgp_row_is_busy(&record->row) || !is_shown(record)) {
        return MGP_ERR_BUSY;
    }
    if (&record->row == rows->overflow) {
        rows->overflow = NULL;
    } else {
        mgp_link_detach(&record->link);
        rows->count--;
    }
    mgp_table_remove(&rows->by_label, &record->entry);
    record->frozen_at = frozen_at == 0 ? 1 : frozen_at;
    mgp_segment_freeze(&rows->segment, record->slot, record->frozen_at);
    mgp_list_push_back(&rows->frozen, &record->link);
    return MGP_OK;
}

int
mgp_forgetting_freeze(struct mgp_rows *rows, const void *label, size_t size, uint64_t now_s)
{
    struct record *record = mgp_record_find(rows, label, size);
    return record == NULL ? MGP_OK : record_freeze(rows, record, now_s);
}

/* Takes away what the archive contains. */
static void
clear_taken(struct mgp_rows *rows, const struct mgp_reader *archive)
{
    struct mgp_link *link = mgp_list_peek_front(&rows->frozen);
    for (size_t left = mgp_list_length(&rows->frozen); left > 0; left--) {
        struct record *record = record_of_link(link);
        link = link->next;
        if (!is_shown(record) || !mgp_reader_has_taken(archive, mgp_record_name(rows, record))) {
            continue;
        }
        mgp_segment_hide(&rows->segment, record->slot);
        mgp_free(record->label);
        record->label = NULL;
        record->frozen_at = 0;
        mgp_link_detach(&record->link);
        mgp_list_push_front(&rows->free, &record->link);
        rows->forgetting.cleared_count++;
    }
}

/* Remembers the requests of the archive: false when out of memory. */
static bool
keep_requests(struct mgp_rows_forgetting *forgetting, const struct mgp_reader *archive)
{
    struct mgp_label_digest *requests = NULL;
    size_t size = archive->request_count * sizeof(*requests);
    if (size > 0) {
        requests = mgp_alloc(size);
        if (requests == NULL) {
            return false;
        }
        memcpy(requests, archive->requests, size);
    }
    mgp_free(forgetting->requests);
    forgetting->requests = requests;
    forgetting->request_count = archive->request_count;
    return true;
}

/* Looks at the archive, where it is another than the last time. */
static void
look_at_archive(struct mgp_rows *rows)
{
    struct mgp_rows_forgetting *forgetting = &rows->forgetting;
    struct mgp_reader archive;
    struct mgp_file_id id;
    int fd = mgp_directory_open_archive(rows->directory);
    if (fd < 0) {
        return;
    }
    mgp_reader_init(&archive);
    if (mgp_reader_peek_id(fd, &id) == MGP_FLAW_NONE &&
        !mgp_file_id_equals(id, forgetting->archive_id) &&
        mgp_reader_load_tail(&archive, fd) == MGP_FLAW_NONE &&
        keep_requests(forgetting, &archive)) {
        clear_taken(rows, &archive);
        forgetting->archive_id = id;
        forgetting->swept_at_s = 0;
    }
    mgp_reader_fini(&archive);
    close(fd);
}

/* Freezes the record where it has been idle for long, or is to be forgotten. */
static void
freeze_idle(struct mgp_rows *rows, struct record *record, const struct mgp_forgetting_rule *rule)
{
    if (mgp_row_is_busy(&record->row)) {
        record->idle_since_s = 0;
        return;
    }
    if (record->idle_since_s == 0 || record->idle_since_s > rule->now_s) {
        record->idle_since_s = rule->now_s;
    }
    if (mgp_forgetting_is_requested(record->label, record->entry.size, rule)) {
        (void)record_freeze(rows, record, rule->now_s);
    } else if (is_old(record->idle_since_s, rule)) {
        (void)record_freeze(rows, record, record->idle_since_s);
    }
}

static void
sweep(struct mgp_rows *rows, uint64_t now_s)
{
    const struct mgp_rows_forgetting *forgetting = &rows->forgetting;
    const struct mgp_forgetting_rule rule = {forgetting->requests, forgetting->request_count, now_s,
                                             forgetting->retention_s};
    struct mgp_link *link = mgp_list_peek_front(&rows->order);
    for (size_t left = rows->count; left > 0; left--) {
        struct record *record = record_of_link(link);
        link = link->next;
        freeze_idle(rows, record, &rule);
    }
}

void
mgp_forgetting_upkeep(struct mgp_rows *rows, uint64_t now_s)
{
    struct mgp_rows_forgetting *forgetting = &rows->forgetting;
    if (mgp_segment_is_open(&rows->segment)) {
        look_at_archive(rows);
    }
    uint64_t interval_s = forgetting->retention_s / SWEEPS;
    interval_s = interval_s < SWEEP_SECONDS_MAX ? interval_s : SWEEP_SECONDS_MAX;
    uint64_t passed_s = now_s - forgetting->swept_at_s; /* large where the clock went back */
    if (forgetting->request_count > 0 || (forgetting->retention_s != 0 && passed_s >= interval_s)) {
        forgetting->swept_at_s = now_s;
        sweep(rows, now_s);
    }
}
