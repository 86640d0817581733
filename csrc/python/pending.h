/* What _acquire() returns when there is no session at once. */
#ifndef MGP_PYTHON_PENDING_H
#define MGP_PYTHON_PENDING_H

#include "connection.h"
#include "pool_object.h"

enum py_pending_state {
    PY_PENDING_WAITING,  /* `waiter` is set until it is taken, cancelled or failed */
    PY_PENDING_CREATING, /* `ticket` is a creation, which its caller carries out */
    PY_PENDING_CREATED,  /* `ticket` is the lease of `connection` */
    PY_PENDING_ENDED,
};

typedef struct {
    PyObject_HEAD
    py_pool *pool;      /* owned */
    PyObject *future;   /* owned; NULL when nothing is to be waited for */
    PyObject *error;    /* owned exception to be raised instead of an answer; or NULL */
    PyObject *headers;  /* owned dict that decided the key, or NULL */
    PyObject *trace;    /* owned: who acquires, for leak detection; NULL where that is off */
    PyObject *identity; /* owned bytes: the header identity in the key; NULL where there is none */
    py_connection *connection; /* owned; NULL before it was created */
    struct mgp_waiter *waiter; /* borrowed from the machine */
    struct mgp_ticket ticket;
    uint64_t machine; /* whose `waiter` and `ticket` are */
    uint64_t lease;   /* the number of the checkout that it was answered with; 0: not yet */
    bool is_anonymous;
    int status; /* with which the machine failed the waiter */
    enum py_pending_state state;
} py_pending;

extern PyType_Spec py_pending_spec;

/* An ended one of this pool; or NULL with an exception. Here, because effects.c makes some, and
 * what pending.c does ends in effects. */
static inline py_pending *
py_pending_new(py_pool *pool)
{
    PyTypeObject *type = pool->state->pending_type;
    py_pending *self = (py_pending *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->pool = (py_pool *)Py_NewRef((PyObject *)pool);
        self->state = PY_PENDING_ENDED;
    }
    return self;
}
/* Whether it is of the machine that the pool has now. Else it has ended: in a forked child
 * nothing that it names may be touched. */
static inline bool
py_pending_is_of(const py_pending *pending, const py_pool *pool)
{
    return pending->machine == pool->machine && py_pool_core(pool) != NULL;
}
/* Gives up whatever a pending acquire still holds. A creation goes on where somebody
 * will report its end (`is_reported`), and has failed otherwise. Runs no Python before that
 * is done: its last reference may be gone. */
void py_pending_give_up(py_pending *pending, bool is_reported);

#endif
