/* How creations end. */
#ifndef MGP_CORE_CREATION_H
#define MGP_CORE_CREATION_H

#include <stdint.h>

struct mgp_pool;
struct mgp_session;

/* A creation ended without a session and without a verdict about its endpoint. */
void mgp_creation_give_up(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);

#endif
