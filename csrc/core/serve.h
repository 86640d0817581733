/* Waiters and places: the rule of fairness, see serve.c. */
#ifndef MGP_CORE_SERVE_H
#define MGP_CORE_SERVE_H

#include <stdbool.h>
#include <stdint.h>

struct mgp_endpoint;
struct mgp_key;
struct mgp_pool;
struct mgp_session;
struct mgp_waiter;

/* A session that can be handed out at once, or NULL. Closes unfit ones on the way. */
struct mgp_session *mgp_key_next_session(struct mgp_pool *pool, int64_t now_ns,
                                         struct mgp_key *key);
/* Begins a check of the idle session that is to be handed out next, where none is fresh.
 * False: there is none. Closes unfit ones on the way. */
bool mgp_key_begin_check(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key);
/* Whether nothing is open that the key's callers could get, while its breaker refuses. */
bool mgp_key_is_stranded(const struct mgp_key *key, int64_t now_ns);
bool mgp_key_has_room(const struct mgp_pool *pool, const struct mgp_key *key);
bool mgp_pool_has_room(const struct mgp_pool *pool);
/* The least recently used idle session of any key, or NULL. */
struct mgp_session *mgp_pool_find_victim(struct mgp_pool *pool);
void mgp_waiter_park(struct mgp_pool *pool, struct mgp_key *key, struct mgp_waiter *waiter);
/* Takes a WAITING waiter out of its queue, in whatever state it goes on. */
void mgp_waiter_unpark(struct mgp_pool *pool, struct mgp_waiter *waiter);
void mgp_waiter_fail(struct mgp_pool *pool, struct mgp_waiter *waiter, int status);
/* After each change of a key with waiters, or of what its endpoint permits: says which places
 * its waiters wait for. */
void mgp_key_update_claims(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key);
/* A key, or what its endpoint permits, has changed: gives its waiters the sessions that there
 * are for them, and free places to whoever has waited longest; says what the rest waits for. */
void mgp_key_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_key *key);
/* An endpoint may permit more creations than before. */
void mgp_endpoint_serve(struct mgp_pool *pool, int64_t now_ns, struct mgp_endpoint *endpoint);
/* Whether its waiters may create by now, which is not noticed yet: the time of its breaker is
 * over. */
bool mgp_endpoint_is_due(const struct mgp_endpoint *endpoint, int64_t now_ns);
/* A session is free, or was just opened: to the oldest waiter, idle, or closed. */
void mgp_session_return(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session);
void mgp_settle(struct mgp_pool *pool, int64_t now_ns);

#endif
