/* How a label is forgotten: in all processes, and in the archive, at one moment.
 *
 * If each process dropped its own row, the sum over them would fall step by step, which Prometheus
 * takes for a restart of the counter and adds to its rates. So nobody drops a row that others show:
 *
 *   1. Who counts in a row freezes it, once nothing of it is open and either it was idle for the
 *      retention time, or an archive says that the label is to be forgotten. A frozen row stays in
 *      its file and is shown; an acquire for its label gets another row.
 *   2. Folding (archive.h) takes frozen rows into the archive, as it takes files of finished
 *      processes, each exactly once: sums stay. Then their owners take them away.
 *   3. A label that nobody may count in any more, and that is to be forgotten or was idle for the
 *      retention time, is left out of the archive that a folding writes. One rename(): from that
 *      moment on no process shows it.
 *
 * A label that comes back before that goes on from its old counts; one that comes back afterwards
 * begins at zero. Nobody ever sees a part of its counts. Whoever is killed at whatever moment, the
 * next folding goes on from there. */
#ifndef MGP_METRICS_FORGETTING_H
#define MGP_METRICS_FORGETTING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rows.h"
#include "snapshot.h"

/* The rule of step 3. */
struct mgp_forgetting_rule {
    const struct mgp_label_digest *requests; /* in the order of their bytes */
    size_t request_count;
    uint64_t now_s;       /* since 1970 */
    uint64_t retention_s; /* 0: for ever */
};

bool mgp_forgetting_is_due(const struct mgp_snapshot_row *row,
                           const struct mgp_forgetting_rule *rule);
bool mgp_forgetting_is_requested(const void *label, size_t size,
                                 const struct mgp_forgetting_rule *rule);
/* Whether folding would take a row of this process, forget something, or find a request done. The
 * snapshot is of all processes. */
bool mgp_forgetting_has_work(const struct mgp_rows *rows, const struct mgp_snapshot *snapshot,
                             uint64_t now_s);

/* Freezes the row of a label; where counters are not shared, drops it. MGP_OK, also where there is
 * none; or MGP_ERR_BUSY while it is busy (mgp_row_is_busy()), or is not in a file yet. */
int mgp_forgetting_freeze(struct mgp_rows *rows, const void *label, size_t size, uint64_t now_s);

/* Takes frozen rows away that an archive contains, and freezes those that are to be forgotten.
 * Called every few seconds, and before each scrape. */
void mgp_forgetting_upkeep(struct mgp_rows *rows, uint64_t now_s);

#endif
