/* Every change of a session's state: each in one function, which keeps lists, counts and
 * series in step. */
#ifndef MGP_CORE_TRANSITION_H
#define MGP_CORE_TRANSITION_H

#include <stdbool.h>
#include <stdint.h>

#include "../base/list.h"
#include "../base/slots.h"
#include "../metrics/series.h"

struct mgp_pool;
struct mgp_key;
struct mgp_lease;
struct mgp_session;

struct mgp_ticket mgp_session_begin_create(struct mgp_pool *pool, int64_t now_ns,
                                           struct mgp_session *spare, struct mgp_key *key);
struct mgp_lease *mgp_session_begin_lease(struct mgp_pool *pool, struct mgp_session *session);
/* Whether the active session takes no more leases, as far as is known. */
void mgp_session_set_full(struct mgp_session *session, bool is_full);
/* Ends the lease; the session keeps its state. */
void mgp_session_end_lease(struct mgp_pool *pool, int64_t now_ns, struct mgp_lease *lease);
void mgp_session_make_idle(struct mgp_pool *pool, struct mgp_session *session);
/* Its PROBE effect comes when its endpoint has fewer checks under way than it permits. */
void mgp_session_begin_check(struct mgp_pool *pool, struct mgp_session *session);
/* From any open state, without leases. */
void mgp_session_begin_close(struct mgp_pool *pool, struct mgp_session *session,
                             enum mgp_eviction_reason reason);
/* It is retired, and from now on keeps nobody of its key from a place, as long as it may take
 * to end; it still counts in the pool. Not from IDLE, nor GONE. */
void mgp_session_set_apart(struct mgp_session *session);
/* All of one list of a key that are open; those being created or closed are passed over. */
void mgp_sessions_close(struct mgp_pool *pool, struct mgp_list *sessions,
                        enum mgp_eviction_reason reason);
/* From CLOSING: its place is free, its payload queued as GONE. */
void mgp_session_make_gone(struct mgp_pool *pool, struct mgp_session *session);
/* From CREATING: its place is free; the struct is freed. */
void mgp_session_drop_creation(struct mgp_pool *pool, struct mgp_session *session);
/* CREATING ends well: counts, lifetime, verification. The caller leases it or makes it idle. */
void mgp_session_open(struct mgp_pool *pool, int64_t now_ns, struct mgp_session *session,
                      void *payload);

#endif
