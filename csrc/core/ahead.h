/* Sessions ready before they are needed; see ahead.c. */
#ifndef MGP_CORE_AHEAD_H
#define MGP_CORE_AHEAD_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/slots.h"

struct mgp_key;
struct mgp_pool;
struct mgp_session;

enum mgp_ahead {
    MGP_AHEAD_REPLACEMENT, /* of a session that nears the end of its life */
    MGP_AHEAD_RESERVE,     /* min_idle_per_key */
    MGP_AHEAD_WARM,        /* asked for by mgp_pool_warm(): no CREATE effect, its caller opens it */
};

/* Whether there is a place that nobody wants: for one more session of the key, or of a new key
 * (NULL). */
bool mgp_pool_has_place_to_spare(const struct mgp_pool *pool, const struct mgp_key *key);
/* All the memory that mgp_key_open_ahead() needs; NULL: there is none. */
struct mgp_session *mgp_ahead_reserve(struct mgp_pool *pool);
/* Begins one creation for nobody in particular, in a place that is to spare. */
struct mgp_ticket mgp_key_open_ahead(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key,
                                     enum mgp_ahead kind, struct mgp_session *spare);
/* It nears the end of its life: opens its replacement, where its key is in use and there is
 * room for one. */
void mgp_session_replace(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);
/* One key that is short of idle sessions. False: none is due. */
bool mgp_reserve_step(struct mgp_pool *pool, int64_t now_ns);

#endif
