/* How leases end. */
#ifndef MGP_CORE_RELEASE_H
#define MGP_CORE_RELEASE_H

#include <stdint.h>

struct mgp_pool;
struct mgp_lease;
struct mgp_row;

/* A lease ends without having been used; its session is as good as it was. Returns the row
 * that counts for it. */
struct mgp_row *mgp_lease_undo(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease);

#endif
