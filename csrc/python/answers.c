/* What Python code reports back to the machine: taken, cancelled, created, checked, closed. */
#include "answers.h"

#include <math.h>

#include "connection.h"
#include "errors.h"
#include "loop.h"
#include "pending.h"
#include "ticket.h"

/* False with TypeError when `name`() got another number of arguments. */
static bool
has_two_arguments(Py_ssize_t nargs, const char *name)
{
    if (nargs != 2) {
        PyErr_Format(PyExc_TypeError, "%s() takes 2 positional arguments", name);
    }
    return nargs == 2;
}

static py_pending *
check_pending(py_pool *self, PyObject *object)
{
    if (!Py_IS_TYPE(object, self->state->pending_type) || ((py_pending *)object)->pool != self) {
        PyErr_SetString(PyExc_TypeError, "not a Pending of this pool");
        return NULL;
    }
    return (py_pending *)object;
}

static py_ticket *
check_ticket(py_pool *self, PyObject *object)
{
    if (!Py_IS_TYPE(object, self->state->ticket_type)) {
        PyErr_SetString(PyExc_TypeError, "not a Ticket");
        return NULL;
    }
    return (py_ticket *)object;
}

/* ---- waiters and creations -------------------------------------------------- */

/* Raises what the pending acquire ended with. */
static PyObject *
raise_error(py_pool *self, py_pending *pending, PyObject *url)
{
    if (pending->error != NULL && pending->error != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(pending->error), pending->error);
    } else {
        (void)py_pool_raise(self, pending->status < 0 ? pending->status : MGP_ERR_CLOSED, url);
    }
    return NULL;
}

/* A waiter was woken: what it was granted. */
static PyObject *
take_grant(py_pool *self, int64_t now_ns, py_pending *pending, PyObject *url)
{
    struct mgp_acquired acquired;
    struct mgp_waiter *waiter = pending->waiter;
    PyObject *result = NULL;
    pending->waiter = NULL;
    pending->state = PY_PENDING_ENDED;
    if (waiter == NULL) {
        return raise_error(self, pending, url);
    }
    int status = mgp_pool_take(self->core, now_ns, waiter, &acquired);
    if (status < 0) {
        (void)py_pool_raise(self, status, url);
    } else if (acquired.answer == MGP_ANSWER_SESSION) {
        py_connection *connection = acquired.payload;
        connection->use_count++;
        result = py_connection_check_out(connection, acquired.ticket);
    } else {
        pending->state = PY_PENDING_CREATING;
        pending->ticket = acquired.ticket;
        result = Py_NewRef((PyObject *)pending);
    }
    py_pool_leave(self, now_ns);
    return result;
}

/* A creation has ended: its session. */
static PyObject *
take_created(py_pool *self, py_pending *pending, PyObject *url)
{
    py_connection *connection = pending->connection;
    if (pending->state != PY_PENDING_CREATED || mgp_pool_answer(self->core, pending->ticket) < 0) {
        if (pending->state == PY_PENDING_CREATING) {
            pending->status = MGP_ERR_NOMEM; /* why its end was not reported */
            py_pool_give_up(self, pending, false);
        }
        pending->state = PY_PENDING_ENDED;
        return raise_error(self, pending, url);
    }
    pending->state = PY_PENDING_ENDED;
    return py_connection_check_out(connection, pending->ticket);
}

PyObject *
py_pool_take(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    py_pending *pending = has_two_arguments(nargs, "_take") ? check_pending(self, args[0]) : NULL;
    if (pending == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    if (pending->state == PY_PENDING_WAITING) {
        return take_grant(self, now_ns, pending, args[1]);
    }
    return take_created(self, pending, args[1]);
}

PyObject *
py_pool_time_out(py_pool *self, PyObject *object)
{
    int64_t now_ns;
    struct mgp_key_view view;
    py_pending *pending = check_pending(self, object);
    if (pending == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    if (pending->state != PY_PENDING_WAITING || pending->waiter == NULL) {
        Py_RETURN_NONE;
    }
    mgp_waiter_view_key(pending->waiter, &view);
    if (view.waiters == 0) {
        Py_RETURN_NONE; /* granted already */
    }
    PyObject *numbers = Py_BuildValue(
        "(nnnnn)", (Py_ssize_t)view.active, (Py_ssize_t)(view.idle + view.checking),
        (Py_ssize_t)view.creating, (Py_ssize_t)view.closing, (Py_ssize_t)view.waiters);
    if (numbers != NULL) {
        struct mgp_waiter *waiter = pending->waiter;
        pending->waiter = NULL;
        mgp_pool_cancel(self->core, now_ns, waiter, MGP_CANCEL_BY_TIMEOUT);
        py_pool_leave(self, now_ns);
    }
    return numbers;
}

PyObject *
py_pool_cancel(py_pool *self, PyObject *object)
{
    py_pending *pending = check_pending(self, object);
    if (pending == NULL) {
        return NULL;
    }
    py_pool_give_up(self, pending, true);
    Py_RETURN_NONE;
}

/* _created(pending, pooled): True when the machine took the session, False when the
 * creation was given up before. */
PyObject *
py_pool_created(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    struct mgp_ticket lease;
    struct mgp_session *session;
    py_pending *pending =
        has_two_arguments(nargs, "_created") ? check_pending(self, args[0]) : NULL;
    if (pending == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    if (pending->state != PY_PENDING_CREATING) {
        Py_RETURN_FALSE;
    }
    py_connection *connection = py_connection_for(self, args[1]);
    if (connection == NULL) {
        return NULL;
    }
    const struct mgp_session_times times = {
        .created_ns = connection->created_ns,
        .last_used_ns = connection->last_used_ns,
    };
    bool has_given_age = connection->given != NULL && !isnan(connection->given->created_at);
    int64_t age_ns = py_monotonic_ns() - times.created_ns;
    py_connection_join_pool(connection, self); /* so that a GONE effect finds its way */
    Py_INCREF(connection);                     /* the machine's reference */
    int status =
        mgp_pool_created(self->core, now_ns, pending->ticket, connection, &session, &lease);
    if (status == MGP_ERR_STALE) {
        py_connection_leave_pool(connection, &times);
        Py_DECREF(connection);
        connection->is_closed = false;
        Py_RETURN_FALSE;
    }
    connection->core = session;
    if (has_given_age && !connection->is_foreign) {
        mgp_session_set_created(self->core, session, now_ns - age_ns);
    }
    pending->status = status;
    pending->state = PY_PENDING_ENDED;
    if (lease.generation != 0) {
        pending->state = PY_PENDING_CREATED;
        pending->ticket = lease;
        pending->connection = (py_connection *)Py_NewRef((PyObject *)connection);
    }
    Py_DECREF(connection);
    py_pool_leave(self, now_ns);
    Py_RETURN_TRUE;
}

/* _create_failed(pending, counts): `counts` tells whether it counts for the breaker. */
PyObject *
py_pool_create_failed(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    py_pending *pending =
        has_two_arguments(nargs, "_create_failed") ? check_pending(self, args[0]) : NULL;
    if (pending == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    if (pending->state == PY_PENDING_CREATING) {
        pending->state = PY_PENDING_ENDED;
        (void)mgp_pool_create_failed(self->core, now_ns, pending->ticket,
                                     args[1] == Py_True ? MGP_FAULT_ENDPOINT : MGP_FAULT_CALLER);
        py_pool_leave(self, now_ns);
    }
    Py_RETURN_NONE;
}

/* ---- checks, closes, deaths ------------------------------------------------- */

PyObject *
py_pool_checked(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    py_ticket *ticket = has_two_arguments(nargs, "_checked") ? check_ticket(self, args[0]) : NULL;
    if (ticket == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    int status = mgp_pool_checked(self->core, now_ns, ticket->ticket, args[1] == Py_True);
    py_pool_leave(self, now_ns);
    return PyBool_FromLong(status == MGP_OK);
}

PyObject *
py_pool_close_ended(py_pool *self, PyObject *object)
{
    int64_t now_ns;
    py_ticket *ticket = check_ticket(self, object);
    if (ticket == NULL || py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    int status = mgp_pool_close_ended(self->core, now_ns, ticket->ticket);
    py_pool_leave(self, now_ns);
    return PyBool_FromLong(status == MGP_OK);
}

/* _doubt(pooled) */
PyObject *
py_pool_doubt(py_pool *self, PyObject *pooled)
{
    int64_t now_ns;
    if (py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    py_connection *connection = py_pool_find_connection(self, pooled);
    if (connection == NULL || py_connection_core(connection) == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    mgp_session_doubt(connection->core);
    py_pool_leave(self, now_ns);
    Py_RETURN_TRUE;
}

/* _mark_broken(pooled, is_dead, is_suspect) */
PyObject *
py_pool_mark_broken(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_mark_broken() takes 3 positional arguments");
        return NULL;
    }
    if (py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    py_connection *connection = py_pool_find_connection(self, args[0]);
    if (connection == NULL || py_connection_core(connection) == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    if (args[2] == Py_True) {
        mgp_session_suspect(self->core, connection->core);
    }
    if (args[1] == Py_True) {
        mgp_session_broken(self->core, now_ns, connection->core);
    }
    py_pool_leave(self, now_ns);
    Py_RETURN_TRUE;
}
