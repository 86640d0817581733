/* What _acquire() returns when there is no session at once (Pending), and the names of
 * the machine's operations as Python carries them about (Ticket). */
#ifndef MGP_PYTHON_PENDING_H
#define MGP_PYTHON_PENDING_H

#include "common.h"
#include "pooled_session.h"

enum py_pending_state {
    PY_PENDING_WAITING,  /* `waiter` is set until it is taken, cancelled or failed */
    PY_PENDING_CREATING, /* `ticket` is a creation, which its caller carries out */
    PY_PENDING_CREATED,  /* `ticket` is the lease of `connection` */
    PY_PENDING_ENDED,
};

typedef struct {
    PyObject_HEAD
    struct py_pool *pool; /* owned */
    PyObject *future;     /* owned; NULL when nothing is to be waited for */
    PyObject *error;      /* owned exception to be raised instead of an answer; or NULL */
    PyObject *identity; /* owned bytes: the header identity in the key; NULL where there is none */
    py_connection *connection; /* owned; NULL before it was created */
    struct mgp_waiter *waiter; /* borrowed from the machine */
    struct mgp_ticket ticket;
    bool is_anonymous;
    int status; /* with which the machine failed the waiter */
    enum py_pending_state state;
} py_pending;

typedef struct {
    PyObject_HEAD
    struct mgp_ticket ticket;
} py_ticket;

extern PyType_Spec py_pending_spec;
extern PyType_Spec py_ticket_spec;

py_pending *py_pending_new(py_state *state, struct py_pool *pool);
PyObject *py_ticket_new(py_state *state, struct mgp_ticket ticket);

#endif
