/* PooledSession, and the connection record behind it.
 *
 * The record holds what has to be closed in the end (session, transport, owner task,
 * event), always strongly. It is the payload of the pool machine. The PooledSession is
 * what callers see of it. While the session is in the pool, the record owns its
 * PooledSession; while it is checked out, the caller does: so a caller who drops it
 * without a release cannot lose the connection, only its view of it, and that is noticed.
 *
 * A duck-typed object that an overridden _create_session returned has a record, too;
 * the record then owns it at all times, and it cannot be noticed when it is dropped. */
#ifndef MGP_PYTHON_POOLED_SESSION_H
#define MGP_PYTHON_POOLED_SESSION_H

#include "common.h"

typedef struct py_connection py_connection;
struct py_pool;

typedef struct {
    PyObject_HEAD
    PyObject *dict;            /* owned, or NULL */
    PyObject *weakreflist;     /* managed by Python */
    py_connection *connection; /* owned */
} py_pooled_session;

struct py_connection {
    PyObject_HEAD
    PyObject *session; /* owned, each of these; NULL in the record of a foreign object */
    PyObject *transport_context;
    PyObject *url;
    PyObject *transport_type;
    PyObject *headers;
    PyObject *identity_key;
    PyObject *user_identity;
    PyObject *gateway_id;
    PyObject *owner_task;
    PyObject *shutdown_event;
    PyObject *view;       /* what callers get; owned while `owns_view`, else borrowed, or NULL */
    PyObject *closer;     /* owned: the task that closes it, or NULL */
    struct py_pool *pool; /* borrowed; NULL when it is in no pool */
    struct mgp_session *core;   /* borrowed; NULL when it is in no pool */
    struct mgp_ticket lease;    /* of the present checkout */
    py_connection *next_leaked; /* in the pool's list of leaked records */
    double created_at_given;    /* wall clock as given or assigned; NAN when it never was */
    double last_used_given;     /* likewise; valid while last_used_ns == last_used_given_ns */
    int64_t created_ns;         /* monotonic; authoritative while it is in no pool */
    int64_t last_used_ns;
    int64_t last_used_given_ns;
    Py_ssize_t use_count;
    bool owns_view;
    bool is_foreign;
    bool is_closed;
    bool is_leased;
    bool is_leaked;
};

extern PyType_Spec py_pooled_session_spec;
extern PyType_Spec py_connection_spec;

bool py_pooled_session_check(py_state *state, PyObject *object);
/* A new PooledSession over a record. New reference, or NULL with an exception. */
PyObject *py_pooled_session_over(py_state *state, py_connection *connection);
/* A record for a PooledSession to come. New reference, or NULL. */
py_connection *py_connection_new(py_state *state);
/* A record for an object that is no PooledSession. New reference, or NULL. */
py_connection *py_connection_new_foreign(py_state *state, PyObject *object);
int64_t py_monotonic_ns(void);

#endif
