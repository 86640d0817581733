/* From the machine's effects to futures and tasks. One loop at a time: Python code that
 * runs meanwhile and calls the pool only adds effects, which this loop then meets. */
#include "effects.h"

#include "connection.h"
#include "key_format.h"
#include "pending.h"
#include "ticket.h"

void
py_pool_drop_error(void)
{
    if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
        PyErr_SetInterrupt();
    }
    PyErr_Clear();
}

/* Wakes a waiter. False when its future did not take it: cancelled, or its loop is closed. */
static bool
wake(py_pool *self, py_pending *pending)
{
    bool has_accepted = false;
    PyObject *future = Py_XNewRef(pending->future);
    PyObject *is_done =
        future == NULL ? NULL : PyObject_CallMethodNoArgs(future, self->state->str_done);
    if (is_done == Py_False) {
        PyObject *result = PyObject_CallMethodOneArg(future, self->state->str_set_result, Py_None);
        has_accepted = result != NULL;
        Py_XDECREF(result);
    }
    Py_XDECREF(is_done);
    Py_XDECREF(future);
    /* set_result() on a closed loop raises: the caller is told by what is undone. */
    if (PyErr_Occurred()) {
        py_pool_drop_error();
    }
    return has_accepted;
}

static void
apply_grant(py_pool *self, py_pending *pending)
{
    Py_INCREF(pending);
    if (!wake(self, pending) && py_pending_is_of(pending, self) && pending->waiter != NULL) {
        struct mgp_waiter *waiter = pending->waiter;
        pending->waiter = NULL;
        pending->status = MGP_ERR_NOMEM; /* where it was not cancelled, that is why */
        mgp_pool_cancel(self->core, self->now_ns, waiter, MGP_CANCEL_BY_CALLER);
    }
    Py_DECREF(pending);
}

static void
apply_fail(py_pool *self, py_pending *pending, int status)
{
    Py_INCREF(pending);
    pending->waiter = NULL;
    pending->status = status;
    (void)wake(self, pending);
    Py_DECREF(pending);
}

/* Calls self.<method>(view, ticket[, reason]). New reference, or NULL with an exception. */
static PyObject *
call_for_session(py_pool *self, PyObject *method, py_connection *connection,
                 struct mgp_ticket ticket, const char *reason)
{
    PyObject *result = NULL, *ticket_object = NULL, *reason_object = NULL;
    uint64_t machine = self->machine;
    PyObject *view = py_connection_ensure_view(self->state, connection);
    if (view == NULL) {
        return NULL;
    }
    ticket_object = py_ticket_new(self->state, machine, ticket);
    if (ticket_object == NULL) {
        goto done;
    }
    if (reason != NULL) {
        reason_object = PyUnicode_FromString(reason);
        if (reason_object == NULL) {
            goto done;
        }
    }
    result = PyObject_CallMethodObjArgs((PyObject *)self, method, view, ticket_object,
                                        reason_object, NULL);
done:
    Py_XDECREF(reason_object);
    Py_XDECREF(ticket_object);
    Py_DECREF(view);
    return result;
}

/* Whether the present exception is no fault of what was called, and is gone a little later. */
static bool
is_passing(void)
{
    return PyErr_ExceptionMatches(PyExc_MemoryError) ||
           PyErr_ExceptionMatches(PyExc_RecursionError) ||
           PyErr_ExceptionMatches(PyExc_KeyboardInterrupt);
}

/* What was called may have forked: `ticket` is then none of the child's machine. */
static bool
is_still(const py_pool *self, uint64_t machine)
{
    return self->machine == machine && py_pool_core(self) != NULL;
}

/* False when the close was put off. */
static bool
apply_close(py_pool *self, py_connection *connection, const struct mgp_effect *effect)
{
    uint64_t machine = self->machine;
    bool is_begun = true;
    Py_INCREF(connection);
    py_connection_end_lease(connection); /* whoever had it */
    py_connection_keep_identity(connection);
    PyObject *closer = call_for_session(self, self->state->str_on_close, connection, effect->ticket,
                                        mgp_eviction_reason_names[effect->reason]);
    if (closer == NULL && is_passing()) {
        py_pool_drop_error();
        if (is_still(self, machine)) {
            mgp_pool_put_off_close(self->core, effect->ticket);
            is_begun = false;
        }
    } else if (closer == NULL || closer == Py_None) {
        /* Nobody will close it: its place must not be lost for that. */
        if (closer == NULL) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        if (is_still(self, machine)) {
            (void)mgp_pool_close_ended(self->core, self->now_ns, effect->ticket);
        }
    } else {
        py_connection_set_closer(connection, closer);
    }
    Py_XDECREF(closer);
    Py_DECREF(connection);
    return is_begun;
}

static void
apply_probe(py_pool *self, py_connection *connection, const struct mgp_effect *effect)
{
    uint64_t machine = self->machine;
    Py_INCREF(connection);
    PyObject *checker =
        call_for_session(self, self->state->str_on_check, connection, effect->ticket, NULL);
    if (checker == NULL || checker == Py_None) {
        if (checker == NULL && PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
            py_pool_drop_error();
        } else if (checker == NULL) {
            PyErr_WriteUnraisable((PyObject *)self);
        }
        if (is_still(self, machine)) {
            (void)mgp_pool_checked(self->core, self->now_ns, effect->ticket, false);
        }
    }
    Py_XDECREF(checker);
    Py_DECREF(connection);
}

/* Calls self._on_create(pending, view, arguments, headers): it reports how the creation ends. */
static bool
begin_create(py_pool *self, py_connection *like, py_pending *pending)
{
    PyObject *result = NULL;
    PyObject *view = py_connection_ensure_view(self->state, like);
    PyObject *arguments = Py_NewRef(like->arguments == NULL ? Py_None : like->arguments);
    PyObject *headers = Py_NewRef(like->headers_now == NULL ? Py_None : like->headers_now);
    if (view != NULL) {
        result = PyObject_CallMethodObjArgs((PyObject *)self, self->state->str_on_create,
                                            (PyObject *)pending, view, arguments, headers, NULL);
    }
    Py_DECREF(headers);
    Py_DECREF(arguments);
    Py_XDECREF(view);
    bool is_begun = result != NULL && result != Py_None;
    Py_XDECREF(result);
    return is_begun;
}

static void
apply_create(py_pool *self, py_connection *like, const struct mgp_effect *effect)
{
    uint64_t machine = self->machine;
    bool is_begun = false;
    py_pending *pending = NULL;
    if (like != NULL) {
        Py_INCREF(like);
        pending = py_pending_new(self);
    }
    /* Making it may have run anything. */
    if (pending != NULL && is_still(self, machine)) {
        pending->machine = machine;
        pending->state = PY_PENDING_CREATING;
        pending->ticket = effect->ticket;
        struct mgp_session *core = py_connection_core(like);
        if (core != NULL) {
            struct mgp_bytes key = mgp_session_key(core);
            PyObject *identity = py_key_identity_part(key.bytes, key.size);
            if (identity != NULL && identity != Py_None) {
                pending->identity = Py_NewRef(identity);
            }
            Py_XDECREF(identity);
            is_begun = !PyErr_Occurred() && begin_create(self, like, pending);
        }
    }
    if (PyErr_Occurred() && is_passing()) {
        py_pool_drop_error(); /* without that session, then */
    } else if (PyErr_Occurred()) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    if (!is_begun && is_still(self, machine)) {
        if (pending != NULL) {
            pending->state = PY_PENDING_ENDED;
        }
        (void)mgp_pool_create_failed(self->core, self->now_ns, effect->ticket, MGP_FAULT_CALLER);
    }
    Py_XDECREF((PyObject *)pending);
    Py_XDECREF((PyObject *)like);
}

/* Calls self._on_long_checkout(view, trace). */
static void
apply_long_checkout(py_pool *self, py_connection *connection, PyObject *trace)
{
    Py_INCREF(connection);
    PyObject *view = py_connection_ensure_view(self->state, connection);
    PyObject *result = view == NULL ? NULL
                                    : PyObject_CallMethodObjArgs((PyObject *)self,
                                                                 self->state->str_on_long_checkout,
                                                                 view, trace, NULL);
    if (result == NULL && is_passing()) {
        py_pool_drop_error(); /* it was counted all the same */
    } else if (result == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    Py_XDECREF(result);
    Py_XDECREF(view);
    Py_DECREF(connection);
}

bool
py_pool_run_effects(py_pool *self)
{
    struct mgp_effect effect;
    uint64_t machine = self->machine;
    bool is_put_off = false;
    if (self->is_running_effects) {
        return true;
    }
    self->is_running_effects = true;
    while (!is_put_off && is_still(self, machine) && mgp_pool_next_effect(self->core, &effect)) {
        switch (effect.kind) {
        case MGP_EFFECT_GRANT:
            apply_grant(self, effect.payload);
            break;
        case MGP_EFFECT_FAIL:
            apply_fail(self, effect.payload, effect.status);
            break;
        case MGP_EFFECT_CLOSE:
            is_put_off = !apply_close(self, effect.payload, &effect);
            break;
        case MGP_EFFECT_PROBE:
            apply_probe(self, effect.payload, &effect);
            break;
        case MGP_EFFECT_CREATE:
            apply_create(self, effect.payload, &effect);
            break;
        case MGP_EFFECT_GONE:
            py_connection_leave_pool(effect.payload, &effect.times);
            break;
        case MGP_EFFECT_LONG_CHECKOUT:
            apply_long_checkout(self, effect.payload, effect.trace);
            break;
        case MGP_EFFECT_UNTRACKED:
            break;
        }
        Py_XDECREF((PyObject *)effect.trace);
    }
    self->is_running_effects = false;
    return !is_put_off;
}
