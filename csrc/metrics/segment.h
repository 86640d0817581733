/* The counters file of this process, mapped into memory (layout.h): where its rows lie when
 * counters are shared. The only includer of <sys/mman.h>.
 *
 * The file is locked for as long as the process lives, by an OFD lock: the kernel drops it with
 * the last reference to what this one open() made. So that has a descriptor of its own, which
 * nothing duplicates. A mapping is such a reference, too: a forked child, which keeps the
 * mapping, would keep the lock; so what is mapped was opened separately. The child closes
 * the descriptors, by mgp_segment_abandon(). It is not a POSIX record lock, which goes when
 * the process closes any descriptor of the file.
 *
 * One thread at a time, but for adding to words. */
#ifndef MGP_METRICS_SEGMENT_H
#define MGP_METRICS_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>

#include "layout.h"

struct mgp_segment {
    int fd;                         /* what is mapped; -1: there is no file */
    int lock_fd;                    /* the lock, and nothing else */
    struct mgp_file_id id;          /* random; zeros: there is no file */
    struct mgp_file_header *header; /* mapped */
    uint32_t row_room;              /* the file has room for so many */
    struct mgp_segment_map *maps;   /* owned; what mgp_segment_close() unmaps */
};

void mgp_segment_init(struct mgp_segment *segment);

/* Makes the file, with room for no row yet; and its directory (0700), where only that is missing.
 * Nobody sees the file under its name before it is complete and locked. MGP_OK; or
 * MGP_ERR_SYSTEM and errno: then there is no file. */
int mgp_segment_open(struct mgp_segment *segment, const char *directory);

/* `count` more rows in the file, all zero, one behind the other and numbered on; they never
 * move. NULL and errno where the file cannot grow (a full disk): nothing was changed. */
struct mgp_file_row *mgp_segment_grow(struct mgp_segment *segment, uint32_t count);

/* Shows a row to readers: `row` is free, its words are zero. At most MGP_LABEL_MAX_BYTES. */
void mgp_segment_show(struct mgp_segment *segment, struct mgp_file_row *row, const void *label,
                      size_t size);
/* The row is free again, and its words are zero. */
void mgp_segment_hide(struct mgp_segment *segment, struct mgp_file_row *row);

/* Unmaps it and lets go of the lock. The file stays: to others the process has finished. */
void mgp_segment_close(struct mgp_segment *segment);

/* In a forked child: the file is the parent's. Closes the descriptor only; what still points
 * into the mapping stays valid, and nobody may count there. */
void mgp_segment_abandon(struct mgp_segment *segment);

#endif
