/* What Python code reports back to the machine: taken, cancelled, created, checked, closed. */
#include "answers.h"

#include <math.h>

#include "connection.h"
#include "effects.h"
#include "errors.h"
#include "loop.h"
#include "pending.h"
#include "ticket.h"
#include "tracking.h"

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
check_pending(const py_pool *self, PyObject *object)
{
    if (!Py_IS_TYPE(object, self->state->pending_type) || ((py_pending *)object)->pool != self) {
        PyErr_SetString(PyExc_TypeError, "not a Pending of this pool");
        return NULL;
    }
    return (py_pending *)object;
}

static py_ticket *
check_ticket(const py_pool *self, PyObject *object)
{
    if (!py_ticket_check(self->state, object)) {
        PyErr_SetString(PyExc_TypeError, "not a Ticket");
        return NULL;
    }
    return (py_ticket *)object;
}

/* For the report on something that a handle of `machine` names: 1, 0 where that has ended with
 * its machine, or -1 with an exception. */
static int
begin_report(py_pool *self, uint64_t machine)
{
    if (machine != self->machine || py_pool_core(self) == NULL) {
        return 0; /* in a forked child there may not even be a loop */
    }
    if (py_pool_begin_to_report(self) < 0) {
        return -1;
    }
    return machine == self->machine;
}

/* ---- waiters and creations -------------------------------------------------- */

/* Raises what the pending acquire ended with. */
static PyObject *
raise_error(py_pool *self, py_pending *pending, PyObject *url)
{
    PyObject *error = Py_XNewRef(pending->error);
    if (error != NULL && error != Py_None) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    } else {
        (void)py_pool_raise(self, pending->status < 0 ? pending->status : MGP_ERR_CLOSED, url);
    }
    Py_XDECREF(error);
    return NULL;
}

static PyObject *
check_out(py_pending *pending, py_connection *connection, struct mgp_ticket lease)
{
    pending->lease = lease.generation;
    py_pool_track(pending->pool, lease, pending->trace);
    return py_connection_check_out(connection, lease);
}

/* A waiter was woken: what it was granted. */
static PyObject *
take_grant(py_pool *self, py_pending *pending, PyObject *url)
{
    struct mgp_acquired acquired;
    struct mgp_waiter *waiter = pending->waiter;
    PyObject *result = NULL;
    pending->waiter = NULL;
    pending->state = PY_PENDING_ENDED;
    if (waiter == NULL) {
        return raise_error(self, pending, url);
    }
    int status = mgp_pool_take(self->core, self->now_ns, waiter, &acquired);
    if (status == MGP_OK && acquired.answer == MGP_ANSWER_SESSION) {
        py_connection *connection = acquired.payload;
        connection->use_count++;
        result = check_out(pending, connection, acquired.ticket);
        if (self->keeps_arguments) {
            py_connection_note_headers(connection, pending->headers);
        }
    } else if (status == MGP_OK) {
        pending->state = PY_PENDING_CREATING;
        pending->ticket = acquired.ticket;
        result = Py_NewRef((PyObject *)pending);
    }
    py_pool_end(self);
    if (status < 0) {
        (void)py_pool_raise(self, status, url);
    }
    return result;
}

/* A creation has ended: its session. */
static PyObject *
take_created(py_pool *self, py_pending *pending, PyObject *url)
{
    if (pending->state != PY_PENDING_CREATED || mgp_pool_answer(self->core, pending->ticket) < 0) {
        if (pending->state == PY_PENDING_CREATING) {
            pending->status = MGP_ERR_NOMEM; /* why its end was not reported */
            py_pending_give_up(pending, false);
        }
        pending->state = PY_PENDING_ENDED;
        return raise_error(self, pending, url);
    }
    pending->state = PY_PENDING_ENDED;
    PyObject *result = check_out(pending, pending->connection, pending->ticket);
    if (pending->trace != NULL) {
        py_pool_end(self); /* the timer may have to be earlier */
    }
    return result;
}

PyObject *
py_pool_take(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    py_pending *pending = has_two_arguments(nargs, "_take") ? check_pending(self, args[0]) : NULL;
    int has_begun = pending == NULL ? -1 : begin_report(self, pending->machine);
    if (has_begun < 0) {
        return NULL;
    }
    if (!has_begun) {
        py_pending_give_up(pending, false);
        return raise_error(self, pending, args[1]);
    }
    if (pending->state == PY_PENDING_WAITING) {
        return take_grant(self, pending, args[1]);
    }
    return take_created(self, pending, args[1]);
}

/* The five numbers of a time-out's message. Runs no Python. 0, or -1 with MemoryError. */
static int
fill_numbers(PyObject *numbers, const struct mgp_key_view *view)
{
    const size_t values[] = {view->active, view->idle + view->checking, view->creating,
                             view->closing, view->waiters};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(numbers); i++) {
        PyObject *value = PyLong_FromSize_t(values[i]);
        if (value == NULL) {
            return -1;
        }
        PyTuple_SET_ITEM(numbers, i, value);
    }
    return 0;
}

PyObject *
py_pool_time_out(py_pool *self, PyObject *object)
{
    struct mgp_key_view view = {.waiters = 0};
    py_pending *pending = check_pending(self, object);
    int has_begun = pending == NULL ? -1 : begin_report(self, pending->machine);
    PyObject *numbers = has_begun < 0 ? NULL : PyTuple_New(5);
    if (numbers == NULL) {
        return NULL;
    }
    /* Making the tuple may have run what answered it, or forked. */
    struct mgp_waiter *waiter = pending->waiter;
    if (py_pending_is_of(pending, self) && pending->state == PY_PENDING_WAITING && waiter != NULL) {
        mgp_waiter_view_key(waiter, &view);
    }
    if (view.waiters == 0) {
        Py_DECREF(numbers);
        Py_RETURN_NONE; /* granted already, or ended */
    }
    if (fill_numbers(numbers, &view) < 0) {
        Py_DECREF(numbers);
        return NULL;
    }
    pending->waiter = NULL;
    mgp_pool_cancel(self->core, self->now_ns, waiter, MGP_CANCEL_BY_TIMEOUT);
    py_pool_end(self);
    return numbers;
}

PyObject *
py_pool_cancel(py_pool *self, PyObject *object)
{
    int64_t now_ns;
    py_pending *pending = check_pending(self, object);
    if (pending == NULL) {
        return NULL;
    }
    if (py_pool_now(self, &now_ns) < 0) {
        py_pool_drop_error();
    }
    py_pending_give_up(pending, true);
    Py_RETURN_NONE;
}

/* _created(pending, pooled[, arguments]): True when the machine took the session, False when the
 * creation was given up before. */
PyObject *
py_pool_created(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct mgp_session_times times;
    struct mgp_ticket lease;
    struct mgp_session *session;
    if (nargs != 2 && nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_created() takes 2 or 3 positional arguments");
        return NULL;
    }
    py_pending *pending = check_pending(self, args[0]);
    int has_begun = pending == NULL ? -1 : begin_report(self, pending->machine);
    if (has_begun < 0) {
        return NULL;
    }
    if (!has_begun || pending->state != PY_PENDING_CREATING) {
        Py_RETURN_FALSE;
    }
    py_connection *connection = py_connection_for(self, args[1]);
    if (connection == NULL) {
        return NULL;
    }
    py_connection_read_times(connection, &times);
    const py_given_times *given = connection->given;
    bool has_given_age = !connection->is_foreign && given != NULL && !isnan(given->created_at);
    int64_t age_ns = has_given_age ? py_monotonic_ns() - times.created_ns : 0;
    int status = py_pending_is_of(pending, self)
                     ? mgp_pool_created(self->core, self->now_ns, pending->ticket, connection,
                                        &session, &lease)
                     : MGP_ERR_STALE;
    if (status == MGP_ERR_STALE) {
        py_connection_forget(self, connection);
        Py_DECREF(connection);
        Py_RETURN_FALSE;
    }
    py_connection_join_pool(connection, self, session);
    if (nargs == 3 && self->keeps_arguments) {
        connection->arguments = Py_NewRef(args[2]); /* it had none: it was in no pool */
    }
    if (has_given_age) {
        mgp_session_set_created(self->core, session, self->now_ns - age_ns);
    }
    pending->status = status;
    pending->state = PY_PENDING_ENDED;
    if (lease.generation != 0) {
        pending->state = PY_PENDING_CREATED;
        pending->ticket = lease;
        pending->connection = (py_connection *)Py_NewRef((PyObject *)connection);
    }
    py_pool_end(self);
    if (pending->identity != NULL && !connection->is_foreign && connection->is_pooled) {
        Py_CLEAR(connection->identity_key); /* its key says it */
    }
    Py_DECREF(connection);
    Py_RETURN_TRUE;
}

/* _create_failed(pending, counts): `counts` tells whether it counts for the breaker. */
PyObject *
py_pool_create_failed(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    py_pending *pending =
        has_two_arguments(nargs, "_create_failed") ? check_pending(self, args[0]) : NULL;
    int has_begun = pending == NULL ? -1 : begin_report(self, pending->machine);
    if (has_begun < 0) {
        return NULL;
    }
    if (has_begun && pending->state == PY_PENDING_CREATING) {
        pending->state = PY_PENDING_ENDED;
        (void)mgp_pool_create_failed(self->core, self->now_ns, pending->ticket,
                                     args[1] == Py_True ? MGP_FAULT_ENDPOINT : MGP_FAULT_CALLER);
        py_pool_end(self);
    }
    Py_RETURN_NONE;
}

/* ---- checks, closes, deaths ------------------------------------------------- */

PyObject *
py_pool_checked(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int status = MGP_ERR_STALE;
    py_ticket *ticket = has_two_arguments(nargs, "_checked") ? check_ticket(self, args[0]) : NULL;
    int has_begun = ticket == NULL ? -1 : begin_report(self, ticket->machine);
    if (has_begun < 0) {
        return NULL;
    }
    if (has_begun) {
        status = mgp_pool_checked(self->core, self->now_ns, ticket->ticket, args[1] == Py_True);
        py_pool_end(self);
    }
    return PyBool_FromLong(status == MGP_OK);
}

PyObject *
py_pool_close_ended(py_pool *self, PyObject *object)
{
    int status = MGP_ERR_STALE;
    py_ticket *ticket = check_ticket(self, object);
    int has_begun = ticket == NULL ? -1 : begin_report(self, ticket->machine);
    if (has_begun < 0) {
        return NULL;
    }
    if (has_begun) {
        status = mgp_pool_close_ended(self->core, self->now_ns, ticket->ticket);
        py_pool_end(self);
    }
    return PyBool_FromLong(status == MGP_OK);
}

/* What the machine knows of a session of this pool: borrowed. NULL, perhaps with an exception,
 * where it knows nothing. */
static struct mgp_session *
find_session(py_pool *self, PyObject *pooled)
{
    const py_connection *connection = py_pool_find_connection(self, pooled);
    return connection == NULL ? NULL : py_connection_core(connection);
}

/* _doubt(pooled) */
PyObject *
py_pool_doubt(py_pool *self, PyObject *pooled)
{
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    struct mgp_session *session = find_session(self, pooled);
    if (session == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    mgp_session_doubt(session);
    py_pool_end(self);
    Py_RETURN_TRUE;
}

/* _mark_broken(pooled, is_dead, is_suspect) */
PyObject *
py_pool_mark_broken(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 3) {
        PyErr_SetString(PyExc_TypeError, "_mark_broken() takes 3 positional arguments");
        return NULL;
    }
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    struct mgp_session *session = find_session(self, args[0]);
    if (session == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    if (args[2] == Py_True) {
        mgp_session_suspect(self->core, session);
    }
    if (args[1] == Py_True) {
        mgp_session_broken(self->core, self->now_ns, session);
    }
    py_pool_end(self);
    Py_RETURN_TRUE;
}
