/* The counters file of this process, mapped into memory (layout.h): where its rows lie when
 * counters are shared.
 *
 * The file is locked for as long as the process lives, by an OFD lock: the kernel drops it with
 * the last reference to what this one open() made. That reference is an anchor (mapping.h), and no
 * descriptor: nobody can close it, and no child inherits it. A mapping of the words would do,
 * but a forked child keeps that, and would keep the lock; so what is mapped was opened
 * separately. It is not a POSIX record lock, which goes when the process closes any descriptor
 * of the file. No descriptor stays open: to grow, the file is opened by its name again.
 *
 * One thread at a time, but for adding to words. */
#ifndef MGP_METRICS_SEGMENT_H
#define MGP_METRICS_SEGMENT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include "layout.h"
#include "mapping.h"

struct mgp_segment {
    const char *directory;          /* borrowed; its path */
    struct mgp_file_id id;          /* zeros: there is no file */
    struct stat file;               /* which file it is: device and inode */
    struct mgp_file_header *header; /* mapped; NULL: there is no file */
    uint32_t row_room;              /* the file has room for so many */
    struct mgp_mapping *mappings;   /* owned */
    struct mgp_anchor lock;
};

void mgp_segment_init(struct mgp_segment *segment);

static inline bool
mgp_segment_is_open(const struct mgp_segment *segment)
{
    return segment->header != NULL;
}

/* Makes the file, with room for no row yet; and its directory (0700), where only that is missing.
 * Nobody sees the file under its name before it is complete and locked. MGP_OK; or
 * MGP_ERR_SYSTEM and errno: then there is no file. `directory` stays as long as the segment. */
int mgp_segment_open(struct mgp_segment *segment, const char *directory);

/* Whether somebody has removed the file from the directory, or the directory. What cannot be
 * found out is no. */
bool mgp_segment_is_removed(const struct mgp_segment *segment);

/* `count` more rows in the file, all zero, one behind the other and numbered on; they never
 * move. NULL and errno where the file cannot grow (a full disk) or was removed (ENOENT):
 * nothing was changed. */
struct mgp_file_row *mgp_segment_grow(struct mgp_segment *segment, uint32_t count);

/* Shows a row to readers: `row` is free, its words are zero. At most MGP_LABEL_MAX_BYTES. */
void mgp_segment_show(struct mgp_segment *segment, struct mgp_file_row *row, const void *label,
                      size_t size);
/* Nothing is counted in the row any more: readers see that, and all that was. `frozen_at` is in
 * seconds since 1970, not 0. */
void mgp_segment_freeze(struct mgp_segment *segment, struct mgp_file_row *row, uint64_t frozen_at);
/* The row is free again, and its words are zero. */
void mgp_segment_hide(struct mgp_segment *segment, struct mgp_file_row *row);

/* Unmaps it and lets go of the lock. The file stays: to others the process has finished. */
void mgp_segment_close(struct mgp_segment *segment);

/* In a forked child: the file is the parent's, and so is its lock. What still points into the
 * mapping stays valid, and nobody may count there. */
void mgp_segment_abandon(struct mgp_segment *segment);

#endif
