/* Sessions that several callers use at once, each under a lease of its own; and the groups
 * of keys that are evicted together. A registry of sessions needs both, a pool neither. */
#include "sharing.h"

#include "checkout.h"
#include "connection.h"
#include "hooks.h"
#include "loop.h"
#include "ticket.h"

/* _share(max_leases, is_grouped), once, before the first acquire. */
PyObject *
py_pool_share(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_share() takes 2 positional arguments");
        return NULL;
    }
    unsigned long max_leases = PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (py_pool_core(self) == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "MCPSessionPool.__init__() was not called");
        return NULL;
    }
    if (max_leases < 1 || max_leases > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "max_leases must be from 1 to 2**32 - 1");
        return NULL;
    }
    self->config.max_leases_per_session = (uint32_t)max_leases;
    self->is_grouped = args[1] == Py_True;
    py_pool_apply_config(self);
    Py_RETURN_NONE;
}

/* _retire(pooled): whether the pool knows it. */
PyObject *
py_pool_retire(py_pool *self, PyObject *pooled)
{
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    const py_connection *connection = py_pool_find_connection(self, pooled); /* borrowed */
    struct mgp_session *session = connection == NULL ? NULL : py_connection_core(connection);
    if (session == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_False);
    }
    mgp_session_retire(self->core, self->now_ns, session);
    py_pool_end(self);
    Py_RETURN_TRUE;
}

/* The ticket of the latest checkout of a session; None where it is not checked out. */
PyObject *
py_pool_lease_ticket(py_pool *self, PyObject *pooled)
{
    const py_connection *connection = py_pool_find_connection(self, pooled);
    if (connection == NULL || !connection->is_leased) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    return py_ticket_new(self->state, self->machine, py_connection_lease(connection));
}

/* _release_lease(ticket, verdict): the task that closes the session, None where it stays
 * open, or False where this lease has ended before. */
PyObject *
py_pool_release_lease(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    PyObject *result = NULL;
    if (nargs != 2 || !py_ticket_check(self->state, args[0])) {
        PyErr_SetString(PyExc_TypeError, "_release_lease() takes a Ticket and a verdict");
        return NULL;
    }
    const py_ticket *ticket = (const py_ticket *)args[0];
    long verdict = PyLong_AsLong(args[1]);
    if (verdict == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (verdict < MGP_VERDICT_GOOD || verdict > MGP_VERDICT_BROKEN) {
        PyErr_SetString(PyExc_ValueError, "not a verdict");
        return NULL;
    }
    if (ticket->machine != self->machine || py_pool_core(self) == NULL) {
        Py_RETURN_FALSE; /* in a forked child there may not even be a loop */
    }
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    py_connection *connection = mgp_pool_leased_payload(self->core, ticket->ticket); /* borrowed */
    if (connection == NULL || ticket->machine != self->machine) {
        Py_RETURN_FALSE;
    }
    if (!connection->is_foreign) {
        PyErr_SetString(PyExc_TypeError, "a PooledSession is given back by release()");
        return NULL;
    }
    Py_INCREF(connection);
    PyObject *object = Py_XNewRef(py_connection_view(connection));
    int is_closed = object == NULL ? 1 : py_pool_foreign_is_closed(self, object);
    Py_XDECREF(object);
    if (is_closed < 0) {
        goto done;
    }
    /* Asking it may have run anything. */
    struct mgp_session *session = py_connection_core(connection);
    if (session != NULL && ticket->machine == self->machine) {
        (void)mgp_pool_release(self->core, self->now_ns, ticket->ticket,
                               is_closed ? MGP_VERDICT_BROKEN : (enum mgp_verdict)verdict);
        connection->is_leased = mgp_session_is_leased(session);
        py_pool_end(self);
    }
    result = py_connection_closer(connection);
done:
    Py_DECREF(connection);
    return result;
}

/* _evict_group(which, name): how many open sessions go; those in use, when they come back. */
PyObject *
py_pool_evict_group(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2 || !PyUnicode_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "_evict_group() takes a group and a str");
        return NULL;
    }
    unsigned long which = PyLong_AsUnsignedLong(args[0]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    if (which > PY_GROUP_GATEWAY) {
        PyErr_SetString(PyExc_ValueError, "not a group");
        return NULL;
    }
    PyObject *name = PyUnicode_AsEncodedString(args[1], "utf-8", "surrogatepass");
    if (name == NULL) {
        return NULL;
    }
    PyObject *result = NULL;
    if (py_pool_begin(self) == 0) {
        size_t count = mgp_pool_evict_group(
            self->core, self->now_ns, which,
            (struct mgp_bytes){PyBytes_AS_STRING(name), (size_t)PyBytes_GET_SIZE(name)});
        py_pool_end(self);
        result = PyLong_FromSize_t(count);
    }
    Py_DECREF(name);
    return result;
}
