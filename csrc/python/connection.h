/* PooledSession, and the connection record behind it.
 *
 * The record holds what has to be closed in the end (session, transport, owner task,
 * event), always strongly. It is the payload of the pool machine. The PooledSession is
 * what callers see of it, the record's *view*. While the session is in the pool, the record
 * owns its view; while it is checked out, the caller does: so a caller who drops it
 * without a release cannot lose the connection, only its view of it, and that is noticed.
 *
 * A duck-typed object that an overridden _create_session returned has a record, too;
 * the record then owns it at all times, and it cannot be noticed when it is dropped.
 *
 * `view` and `pool` are borrowed pointers. Only connection.c reads or writes them: what it
 * gives out is alive. An object whose last reference is gone still runs code (its weak
 * references' callbacks, finalizers of what it holds), which may ask for it. */
#ifndef MGP_PYTHON_CONNECTION_H
#define MGP_PYTHON_CONNECTION_H

#include "pool_object.h"

typedef struct {
    PyObject_HEAD
    PyObject *dict;            /* owned, or NULL */
    PyObject *weakreflist;     /* managed by Python */
    py_connection *connection; /* owned */
} py_pooled_session;

/* Wall-clock times as they were given to the constructor, or assigned. */
typedef struct {
    double created_at;    /* NAN where it never was */
    double last_used;     /* valid while the session's own is last_used_ns */
    int64_t last_used_ns; /* INT64_MIN where it never was */
} py_given_times;

/* There is one for each session: it is kept small. */
struct py_connection {
    PyObject_HEAD
    PyObject *session; /* owned, each of these; NULL in the record of a foreign object */
    PyObject *transport_context;
    PyObject *url;
    PyObject *transport_type;
    PyObject *headers;
    PyObject *identity_key; /* NULL while it is in a pool and nobody has read it */
    PyObject *user_identity;
    PyObject *gateway_id;
    PyObject *owner_task;
    PyObject *shutdown_event;
    PyObject *view; /* what callers get; owned while `owns_view`, else borrowed, or NULL */
    union {
        PyObject *closer;           /* owned: the task that closes it, or NULL */
        py_connection *next_leaked; /* while it is in the pool's list of leaked records */
    };
    union {
        struct {                      /* while it is in a pool */
            py_pool *pool;            /* borrowed: py_connection_pool() */
            struct mgp_session *core; /* borrowed: py_connection_core() */
        };
        struct { /* else: monotonic */
            int64_t created_ns;
            int64_t last_used_ns;
        };
    };
    py_given_times *given; /* owned; NULL where none was ever given */
    PyObject *arguments;   /* owned: with which it was acquired, or NULL; for one like it */
    PyObject *headers_now; /* owned: those of its newest caller, as they were given; or NULL */
    Py_ssize_t use_count;
    uint64_t lease_generation; /* with lease_index, the ticket of the present checkout */
    uint32_t lease_index;
    bool owns_view : 1;
    bool is_foreign : 1;
    bool is_closed : 1;
    bool is_leased : 1;
    bool is_leaked : 1;
    bool is_pooled : 1;
};

extern PyType_Spec py_connection_spec;

/* A record for a PooledSession to come. New reference, or NULL. */
py_connection *py_connection_new(py_state *state);

static inline struct mgp_ticket
py_connection_lease(const py_connection *connection)
{
    return (struct mgp_ticket){connection->lease_index, connection->lease_generation};
}

/* ---- its pool ---- */
/* Borrowed. NULL where it is in none, or in one that is going away, or in the parent's. */
py_pool *py_connection_pool(const py_connection *connection);
bool py_connection_is_in(const py_connection *connection, const py_pool *pool);
/* The same of what the machine knows of it. */
struct mgp_session *py_connection_core(const py_connection *connection);
/* On the clock of its pool, as last read, where it is in one. */
void py_connection_read_times(const py_connection *connection, struct mgp_session_times *times);
void py_connection_set_created(py_connection *connection, int64_t created_ns);
void py_connection_set_last_used(py_connection *connection, int64_t last_used_ns);

/* The record for what a creation returned: the object's own, or a new one. New reference or NULL. */
py_connection *py_connection_for(py_pool *self, PyObject *object);
/* The machine refused it: nothing remembers it. */
void py_connection_forget(py_pool *self, py_connection *connection);
/* The machine took it: the pool holds the record, and the view, from now on. */
void py_connection_join_pool(py_connection *connection, py_pool *pool, struct mgp_session *core);
/* The machine has given the record back: steals the reference. `times` are the session's own
 * from here on. */
void py_connection_leave_pool(py_connection *connection, const struct mgp_session_times *times);
/* No pool knows it any more, and its view is closed. Runs no Python. */
void py_connection_detach(py_connection *connection);
/* The record under which the pool knows an object: borrowed, or NULL. Prefers one that
 * is checked out. */
py_connection *py_pool_find_connection(py_pool *self, PyObject *pooled);

/* The text of its header identity, which the pool's key says: made when it is read, new
 * reference or NULL; and kept when the key goes, for whoever may read it then. */
PyObject *py_connection_identity(py_connection *connection);
void py_connection_keep_identity(py_connection *connection);
void py_pool_keep_identities(py_pool *self); /* of all that somebody else may still read */

/* ---- its view ---- */
bool py_pooled_session_check(py_state *state, PyObject *object);
/* Borrowed; NULL where it has none, or one that is going away. */
PyObject *py_connection_view(const py_connection *connection);
/* Whether somebody else may still read its view. */
bool py_connection_is_seen(const py_connection *connection);
/* A PooledSession over the record, also when the caller's was dropped. New reference or NULL. */
PyObject *py_connection_ensure_view(py_state *state, py_connection *connection);
/* A new PooledSession of this type; it is the record's view where that has none. */
PyObject *py_connection_new_view(PyTypeObject *type, py_connection *connection);
/* A view is going away, and can be had from nowhere any more. True where its caller has lost a
 * session thereby: announce it with the next, once Python may run. */
bool py_connection_lose_view(py_connection *connection, PyObject *view);
void py_connection_announce_leak(py_connection *connection);
/* Takes it from the pool's list of leaked records; NULL where that is empty. Borrowed. */
py_connection *py_pool_next_leaked(py_pool *self);

/* The object that callers get, at each checkout the same. New reference. */
PyObject *py_connection_check_out(py_connection *connection, struct mgp_ticket lease);
void py_connection_check_in(py_connection *connection);
/* It is being closed: no checkout of it holds any more. */
void py_connection_end_lease(py_connection *connection);
/* It was handed out to a caller with these headers. */
void py_connection_note_headers(py_connection *connection, PyObject *headers);
/* The task that closes it, or whatever else is to be awaited for that. */
void py_connection_set_closer(py_connection *connection, PyObject *closer);
/* The same, to be awaited: new reference; None where it is not being closed. */
PyObject *py_connection_closer(const py_connection *connection);

#endif
