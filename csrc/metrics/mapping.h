/* Files mapped into memory. The only includer of <sys/mman.h>. */
#ifndef MGP_METRICS_MAPPING_H
#define MGP_METRICS_MAPPING_H

#include <stddef.h>
#include <sys/types.h>

/* The mapped parts of one file: a list, NULL at first. */
struct mgp_mapping;

/* Reserves bytes of the file on its disk and maps them, to read and write: their address, or
 * NULL and errno: then nothing was mapped. The descriptor may be closed afterwards. */
void *mgp_mapping_add(struct mgp_mapping **mappings, int fd, off_t offset, size_t size);
/* Unmaps all of them. */
void mgp_mapping_remove_all(struct mgp_mapping **mappings);
/* In a forked child: what points into them stays valid. */
void mgp_mapping_leave_all(struct mgp_mapping **mappings);

/* Keeps what one open() made, and so the lock that was taken on it, when its descriptor is closed.
 * A lock that hangs on a descriptor alone is lost to whoever closes descriptors that are not his
 * (a program that becomes a daemon closes all), and lives on in whoever inherits one. A forked
 * child does not inherit an anchor. */
struct mgp_anchor {
    void *page; /* mapped, and never touched; NULL: there is none */
};

/* 0, or -1 and errno. `fd` is open for reading. */
int mgp_anchor_set(struct mgp_anchor *anchor, int fd);
/* The lock is gone with it, where no descriptor of the same open() is left. */
void mgp_anchor_lift(struct mgp_anchor *anchor);

#endif
