#define _GNU_SOURCE /* madvise() */
#include "mapping.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../base/alloc.h"

struct mgp_mapping {
    struct mgp_mapping *next;
    void *address;
    size_t size;
};

/* Mappings begin on a page, so one may overlap the one before; both show the same memory. */
void *
mgp_mapping_add(struct mgp_mapping **mappings, int fd, off_t offset, size_t size)
{
    size_t lead = (size_t)(offset % (off_t)sysconf(_SC_PAGESIZE));
    struct mgp_mapping *mapping = mgp_alloc(sizeof(*mapping));
    if (mapping == NULL) {
        errno = ENOMEM;
        return NULL;
    }
    /* Without this, a store into a page that the disk has no room for would be a SIGBUS. */
    int error;
    do {
        error = posix_fallocate(fd, offset, (off_t)size);
    } while (error == EINTR);
    if (error != 0) {
        goto failed;
    }
    mapping->size = lead + size;
    mapping->address =
        mmap(NULL, mapping->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset - (off_t)lead);
    if (mapping->address == MAP_FAILED) {
        error = errno;
        goto failed;
    }
    mapping->next = *mappings;
    *mappings = mapping;
    return (char *)mapping->address + lead;
failed:
    mgp_free(mapping);
    errno = error;
    return NULL;
}

static void
end_all(struct mgp_mapping **mappings, bool is_unmapped)
{
    while (*mappings != NULL) {
        struct mgp_mapping *mapping = *mappings;
        *mappings = mapping->next;
        if (is_unmapped) {
            (void)munmap(mapping->address, mapping->size);
        }
        mgp_free(mapping);
    }
}

void
mgp_mapping_remove_all(struct mgp_mapping **mappings)
{
    end_all(mappings, true);
}

void
mgp_mapping_leave_all(struct mgp_mapping **mappings)
{
    end_all(mappings, false);
}

int
mgp_anchor_set(struct mgp_anchor *anchor, int fd)
{
    size_t size = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, size, PROT_NONE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        return -1;
    }
    if (madvise(page, size, MADV_DONTFORK) < 0) {
        int error = errno;
        (void)munmap(page, size);
        errno = error;
        return -1;
    }
    anchor->page = page;
    return 0;
}

void
mgp_anchor_lift(struct mgp_anchor *anchor)
{
    if (anchor->page != NULL) {
        (void)munmap(anchor->page, (size_t)sysconf(_SC_PAGESIZE));
        anchor->page = NULL;
    }
}
