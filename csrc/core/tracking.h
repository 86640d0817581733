/* Checkouts whose length is watched: leak detection. See tracking.c. */
#ifndef MGP_CORE_TRACKING_H
#define MGP_CORE_TRACKING_H

#include <stdint.h>

#include "effect.h"

struct mgp_lease;
struct mgp_pool;

/* Its node is in the pool's `tracked` while the checkout lasts, then in the effect queue. */
struct mgp_tracked {
    struct mgp_effect_node effect;
    struct mgp_lease *lease; /* valid while it is in the pool's `tracked` */
    void *payload;           /* of its session, borrowed; valid once its effect is queued */
    void *trace;             /* one owned reference */
    int64_t since_ns;
};

/* A lease that is TRACKED is to end: it is TAKEN from now on. */
void mgp_tracking_end(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease);
/* Its reminder is due: reports one checkout that is too long, or waits for the next. */
void mgp_tracking_step(struct mgp_pool *pool, int64_t now_ns);
/* leak_detection_ns has changed. */
void mgp_tracking_update(struct mgp_pool *pool);

#endif
