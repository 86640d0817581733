/* How much memory the machine holds: by a counting allocator behind csrc/base/alloc.h, and as the
 * kernel sees the process. */
#ifndef MGP_SIMULATION_MEMORY_H
#define MGP_SIMULATION_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* From now on every block of the machine is counted, with what malloc() adds to it. For figures
 * of memory only: it makes large arrays be cleared at once, which malloc()'s own need not. */
void memory_count(void);
/* What is allocated now, and the part of it in blocks so large that they are arrays: of hash
 * tables, heaps and tickets, which grow by doubling. */
uint64_t memory_live_bytes(void);
uint64_t memory_array_bytes(void);

/* The resident set of this process, in bytes; 0 where it cannot be read. */
uint64_t memory_resident_bytes(void);

#endif
