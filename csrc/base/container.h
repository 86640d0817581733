#ifndef MGP_BASE_CONTAINER_H
#define MGP_BASE_CONTAINER_H

#include <stddef.h>

/* The struct of type `type` whose member `member` is at `pointer`. */
#define mgp_container_of(pointer, type, member)                                                    \
    ((type *)(void *)((char *)(pointer) - offsetof(type, member)))

#endif
