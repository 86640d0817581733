#include "pooled_session.h"

#include <math.h>
#include <time.h>

#include "connection.h"
#include "loop.h"

static double
wall_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / NS_PER_SECOND;
}

/* On the clock of the session's pool, where it is in one. The clock is asked first: that may
 * run anything. 0, or -1 with what it raised. */
static int
read_times(py_connection *self, int64_t *now_ns, struct mgp_session_times *times)
{
    py_pool *pool = py_connection_pool(self);
    if (pool == NULL) {
        *now_ns = py_monotonic_ns();
    } else {
        Py_INCREF(pool);
        int status = py_pool_now(pool, now_ns);
        Py_DECREF(pool);
        if (status < 0) {
            return -1;
        }
    }
    py_connection_read_times(self, times);
    return 0;
}

/* ---- PooledSession ---------------------------------------------------------- */

/* The monotonic time of a wall-clock time, kept within a range that cannot overflow. */
static int
from_wall(int64_t now_ns, double wall, int64_t *result_ns)
{
    double age_seconds = wall_seconds() - wall;
    if (isnan(age_seconds)) {
        PyErr_SetString(PyExc_ValueError, "a time must be a number of seconds, not NaN");
        return -1;
    }
    double bound = (double)MGP_DURATION_MAX_NS / NS_PER_SECOND;
    age_seconds = fmin(fmax(age_seconds, -bound), bound);
    *result_ns = now_ns - (int64_t)(age_seconds * NS_PER_SECOND);
    return 0;
}

static py_given_times *
ensure_given_times(py_connection *self)
{
    if (self->given == NULL) {
        self->given = PyMem_Malloc(sizeof(*self->given));
        if (self->given == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *self->given = (py_given_times){NAN, NAN, INT64_MIN};
    }
    return self->given;
}

static int
set_time(py_connection *self, PyObject *value, bool is_created)
{
    struct mgp_session_times times;
    int64_t now_ns, time_ns;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a time of a session cannot be deleted");
        return -1;
    }
    double wall = PyFloat_AsDouble(value);
    if ((wall == -1.0 && PyErr_Occurred()) || read_times(self, &now_ns, &times) < 0 ||
        from_wall(now_ns, wall, &time_ns) < 0) {
        return -1;
    }
    py_given_times *given = ensure_given_times(self);
    if (given == NULL) {
        return -1;
    }
    if (is_created) {
        given->created_at = wall;
        py_connection_set_created(self, time_ns);
    } else {
        given->last_used = wall;
        given->last_used_ns = time_ns;
        py_connection_set_last_used(self, time_ns);
    }
    py_pool *pool = py_connection_pool(self);
    if (pool != NULL) {
        Py_INCREF(pool);
        py_pool_end_anywhere(pool); /* it may be due sooner now */
        Py_DECREF(pool);
    }
    return 0;
}

static int
py_pooled_session_init(py_pooled_session *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {
        "session",      "transport_context", "url",         "transport_type",  "headers",
        "identity_key", "user_identity",     "gateway_id",  "created_at",      "last_used",
        "use_count",    "_closed",           "_owner_task", "_shutdown_event", NULL};
    PyObject *session, *transport_context, *url, *transport_type, *headers, *identity_key;
    PyObject *user_identity = NULL, *gateway_id = NULL, *created_at = NULL, *last_used = NULL;
    PyObject *owner_task = Py_None, *shutdown_event = Py_None;
    Py_ssize_t use_count = 0;
    int is_closed = 0;
    if (!PyArg_ParseTupleAndKeywords(
            args, kwargs, "OOOOOO|OOOOnpOO:PooledSession", names, &session, &transport_context,
            &url, &transport_type, &headers, &identity_key, &user_identity, &gateway_id,
            &created_at, &last_used, &use_count, &is_closed, &owner_task, &shutdown_event)) {
        return -1;
    }
    py_connection *connection = self->connection;
    if (connection->is_pooled) {
        PyErr_SetString(PyExc_RuntimeError,
                        "a session that is in a pool cannot be initialised again");
        return -1;
    }
    if (user_identity == NULL) {
        user_identity = PyUnicode_FromString("anonymous");
    } else {
        Py_INCREF(user_identity);
    }
    if (gateway_id == NULL) {
        gateway_id = PyUnicode_FromString("");
    } else {
        Py_INCREF(gateway_id);
    }
    if (user_identity == NULL || gateway_id == NULL) {
        Py_XDECREF(user_identity);
        Py_XDECREF(gateway_id);
        return -1;
    }
    Py_XSETREF(connection->session, Py_NewRef(session));
    Py_XSETREF(connection->transport_context, Py_NewRef(transport_context));
    Py_XSETREF(connection->url, Py_NewRef(url));
    Py_XSETREF(connection->transport_type, Py_NewRef(transport_type));
    Py_XSETREF(connection->headers, Py_NewRef(headers));
    Py_XSETREF(connection->identity_key, Py_NewRef(identity_key));
    Py_XSETREF(connection->user_identity, user_identity);
    Py_XSETREF(connection->gateway_id, gateway_id);
    Py_XSETREF(connection->owner_task, Py_NewRef(owner_task));
    Py_XSETREF(connection->shutdown_event, Py_NewRef(shutdown_event));
    connection->use_count = use_count;
    connection->is_closed = is_closed != 0;
    if ((created_at != NULL && set_time(connection, created_at, true) < 0) ||
        (last_used != NULL && set_time(connection, last_used, false) < 0)) {
        return -1;
    }
    return 0;
}

static PyObject *
py_pooled_session_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    py_state *state = py_state_of_type(type);
    py_connection *connection = state == NULL ? NULL : py_connection_new(state);
    if (connection == NULL) {
        return NULL;
    }
    PyObject *self = py_connection_new_view(type, connection);
    Py_DECREF(connection);
    return self;
}

static int
py_pooled_session_traverse(py_pooled_session *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->dict);
    Py_VISIT(self->connection);
    return 0;
}

static int
py_pooled_session_clear(py_pooled_session *self)
{
    /* Not the connection: a session in use must stay whole until its view is gone. */
    Py_CLEAR(self->dict);
    return 0;
}

static void
py_pooled_session_dealloc(py_pooled_session *self)
{
    PyTypeObject *type = Py_TYPE(self);
    py_connection *connection = self->connection;
    bool is_leaked = false;
    PyObject_GC_UnTrack(self);
    /* First of all nobody finds it any more: what follows runs Python. */
    self->connection = NULL;
    if (connection != NULL) {
        is_leaked = py_connection_lose_view(connection, (PyObject *)self);
    }
    if (self->weakreflist != NULL) {
        PyObject_ClearWeakRefs((PyObject *)self);
    }
    if (is_leaked) {
        py_connection_announce_leak(connection);
    }
    Py_CLEAR(self->dict);
    Py_XDECREF((PyObject *)connection);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyObject *
py_pooled_session_repr(py_pooled_session *self)
{
    py_connection *connection = self->connection;
    py_state *state = py_state_of_type(Py_TYPE(self));
    PyObject *gateway_id = NULL, *url = NULL, *result = NULL;
    if (state == NULL) {
        return NULL;
    }
    if (connection->url != NULL && PyUnicode_Check(connection->url)) {
        PyObject *full = Py_NewRef(connection->url);
        url = PyObject_CallOneArg(state->safe_url, full);
        Py_DECREF(full);
    } else {
        url = PyUnicode_FromString("?");
    }
    if (url != NULL) {
        gateway_id = Py_NewRef(connection->gateway_id ? connection->gateway_id : Py_None);
        result = PyUnicode_FromFormat(
            "<%s of %R, gateway_id=%.200R, use_count=%zd%s>", Py_TYPE(self)->tp_name, url,
            gateway_id, connection->use_count, connection->is_closed ? ", closed" : "");
        Py_DECREF(gateway_id);
        Py_DECREF(url);
    }
    return result;
}

/* ---- attributes ------------------------------------------------------------- */

/* `closure` is the offset of the field in py_connection. */
static PyObject *
get_field(py_pooled_session *self, void *closure)
{
    PyObject *value = *(PyObject **)(void *)((char *)self->connection + (size_t)closure);
    return Py_NewRef(value == NULL ? Py_None : value);
}

static int
set_field(py_pooled_session *self, PyObject *value, void *closure)
{
    PyObject **field = (PyObject **)(void *)((char *)self->connection + (size_t)closure);
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "an attribute of a session cannot be deleted");
        return -1;
    }
    Py_XSETREF(*field, Py_NewRef(value));
    return 0;
}

/* Of a session that lies idle in its pool. Whoever asks for it has released it: from its next
 * checkout on, two callers would use it at once. A hook that checks or closes it may ask. */
static PyObject *
get_session(py_pooled_session *self, void *closure)
{
    const py_connection *connection = self->connection;
    if (!connection->is_leased) {
        const struct mgp_session *core = py_connection_core(connection);
        if (core != NULL && mgp_session_is_idle(core) &&
            PyErr_WarnEx(PyExc_RuntimeWarning,
                         "this session was released: it may be another caller's at any moment; "
                         "use it between acquire and release only",
                         1) < 0) {
            return NULL;
        }
    }
    return get_field(self, closure);
}

static PyObject *
get_identity_key(py_pooled_session *self, void *Py_UNUSED(closure))
{
    return py_connection_identity(self->connection);
}

static PyObject *
time_as_wall(int64_t now_ns, int64_t time_ns)
{
    return PyFloat_FromDouble(wall_seconds() - (double)(now_ns - time_ns) / NS_PER_SECOND);
}

static PyObject *
get_created_at(py_pooled_session *self, void *Py_UNUSED(closure))
{
    struct mgp_session_times times;
    int64_t now_ns;
    const py_given_times *given = self->connection->given;
    if (given != NULL && !isnan(given->created_at)) {
        return PyFloat_FromDouble(given->created_at);
    }
    if (read_times(self->connection, &now_ns, &times) < 0) {
        return NULL;
    }
    return time_as_wall(now_ns, times.created_ns);
}

static PyObject *
get_last_used(py_pooled_session *self, void *Py_UNUSED(closure))
{
    struct mgp_session_times times;
    int64_t now_ns;
    py_connection *connection = self->connection;
    if (read_times(connection, &now_ns, &times) < 0) {
        return NULL;
    }
    const py_given_times *given = connection->given;
    if (given != NULL && times.last_used_ns == given->last_used_ns) {
        return PyFloat_FromDouble(given->last_used);
    }
    return time_as_wall(now_ns, times.last_used_ns);
}

static int
set_created_at(py_pooled_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_time(self->connection, value, true);
}

static int
set_last_used(py_pooled_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    return set_time(self->connection, value, false);
}

static PyObject *
get_age_seconds(py_pooled_session *self, void *closure)
{
    struct mgp_session_times times;
    int64_t now_ns;
    if (read_times(self->connection, &now_ns, &times) < 0) {
        return NULL;
    }
    int64_t since_ns = closure == NULL ? times.created_ns : times.last_used_ns;
    return PyFloat_FromDouble((double)(now_ns - since_ns) / NS_PER_SECOND);
}

static PyObject *
get_use_count(py_pooled_session *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSsize_t(self->connection->use_count);
}

static int
set_use_count(py_pooled_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "an attribute of a session cannot be deleted");
        return -1;
    }
    Py_ssize_t use_count = PyLong_AsSsize_t(value);
    if (use_count == -1 && PyErr_Occurred()) {
        return -1;
    }
    self->connection->use_count = use_count;
    return 0;
}

static PyObject *
get_pool(py_pooled_session *self, void *Py_UNUSED(closure))
{
    PyObject *pool = (PyObject *)py_connection_pool(self->connection);
    return Py_NewRef(pool == NULL ? Py_None : pool);
}

static PyObject *
get_closed(py_pooled_session *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->connection->is_closed);
}

static void
mark_closed(py_connection *connection, bool is_closed)
{
    connection->is_closed = is_closed;
    struct mgp_session *core = py_connection_core(connection);
    if (is_closed && core != NULL) {
        mgp_session_mark_broken(core);
    }
}

static int
set_closed(py_pooled_session *self, PyObject *value, void *Py_UNUSED(closure))
{
    int is_closed = value == NULL ? -1 : PyObject_IsTrue(value);
    if (is_closed < 0) {
        if (!PyErr_Occurred()) {
            PyErr_SetString(PyExc_AttributeError, "an attribute of a session cannot be deleted");
        }
        return -1;
    }
    mark_closed(self->connection, is_closed != 0);
    return 0;
}

PyDoc_STRVAR(
    is_closed_doc,
    "Whether the session was closed, or its owner task or its transport has ended (bool).");

/* Whether its transport is known to have ended, though nobody said so: 1, 0, or -1 with an
 * exception. */
static int
transport_is_closed(const py_state *state, py_connection *connection)
{
    PyObject *session = Py_XNewRef(connection->session);
    PyObject *is_closed = session == NULL
                              ? Py_NewRef(Py_False)
                              : PyObject_CallOneArg(state->is_known_to_be_closed, session);
    int result = is_closed == NULL ? -1 : is_closed == Py_True;
    Py_XDECREF(is_closed);
    Py_XDECREF(session);
    return result;
}

static PyObject *
get_is_closed(py_pooled_session *self, void *Py_UNUSED(closure))
{
    py_connection *connection = self->connection;
    py_state *state = py_state_of_type(Py_TYPE(self));
    if (state == NULL) {
        return NULL;
    }
    int is_closed = connection->is_closed;
    if (!is_closed && connection->owner_task != NULL && connection->owner_task != Py_None) {
        PyObject *task = Py_NewRef(connection->owner_task);
        PyObject *is_done = PyObject_CallMethodNoArgs(task, state->str_done);
        Py_DECREF(task);
        if (is_done == NULL) {
            return NULL;
        }
        /* An owner task that is a mock answers with a mock: only True counts. */
        is_closed = is_done == Py_True;
        Py_DECREF(is_done);
    }
    if (!is_closed) {
        is_closed = transport_is_closed(state, connection);
    }
    return is_closed < 0 ? NULL : PyBool_FromLong(is_closed);
}

PyDoc_STRVAR(mark_closed_doc,
             "mark_closed($self, /)\n--\n\n"
             "Say that the session is closed: its pool does not hand it out again.");

static PyObject *
py_pooled_session_mark_closed(py_pooled_session *self, PyObject *Py_UNUSED(ignored))
{
    mark_closed(self->connection, true);
    Py_RETURN_NONE;
}

static PyObject *
refuse_copy(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(args))
{
    PyErr_SetString(PyExc_TypeError,
                    "a PooledSession is a live connection: it cannot be copied or pickled");
    return NULL;
}

static PyMethodDef py_pooled_session_methods[] = {
    {"mark_closed", (PyCFunction)py_pooled_session_mark_closed, METH_NOARGS, mark_closed_doc},
    {"__copy__", refuse_copy, METH_NOARGS, NULL},
    {"__deepcopy__", refuse_copy, METH_O, NULL},
    {"__reduce__", refuse_copy, METH_NOARGS, NULL},
    {"__reduce_ex__", refuse_copy, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

#define FIELD(name, field, doc)                                                                    \
    {name, (getter)get_field, (setter)set_field, doc, (void *)offsetof(py_connection, field)}

static PyGetSetDef py_pooled_session_getset[] = {
    {"session", (getter)get_session, (setter)set_field,
     "The mcp.ClientSession. RuntimeWarning where it was released, and lies in the pool.",
     (void *)offsetof(py_connection, session)},
    FIELD("transport_context", transport_context, "What keeps the transport open."),
    FIELD("url", url, "URL of the MCP server (str)."),
    FIELD("transport_type", transport_type, "TransportType."),
    FIELD("headers", headers, "Headers sent upstream (dict)."),
    {"identity_key", (getter)get_identity_key, (setter)set_field,
     "Digest of the header identity, or 'anonymous' (str).",
     (void *)offsetof(py_connection, identity_key)},
    FIELD("user_identity", user_identity, "Identity of the user, or 'anonymous' (str)."),
    FIELD("gateway_id", gateway_id, "Id of the gateway, '' for none (str)."),
    FIELD("_owner_task", owner_task, "See owner_task."),
    FIELD("_shutdown_event", shutdown_event, "See shutdown_event."),
    {"owner_task", (getter)get_field, NULL,
     "The asyncio.Task that owns transport and session, or None.",
     (void *)offsetof(py_connection, owner_task)},
    {"shutdown_event", (getter)get_field, NULL,
     "The asyncio.Event that asks the owner task to end, or None.",
     (void *)offsetof(py_connection, shutdown_event)},
    {"created_at", (getter)get_created_at, (setter)set_created_at,
     "Wall-clock time of creation, seconds since the epoch (float). Writing it changes the age.",
     NULL},
    {"last_used", (getter)get_last_used, (setter)set_last_used,
     "Wall-clock time of last use, seconds since the epoch (float). Writing it changes "
     "idle_seconds.",
     NULL},
    {"age_seconds", (getter)get_age_seconds, NULL, "Seconds since creation, monotonic (float).",
     NULL},
    {"idle_seconds", (getter)get_age_seconds, NULL, "Seconds since last use, monotonic (float).",
     (void *)1},
    {"use_count", (getter)get_use_count, (setter)set_use_count,
     "How often the session was handed out again after its creation (int).", NULL},
    {"_closed", (getter)get_closed, (setter)set_closed, "Whether it was marked closed (bool).",
     NULL},
    {"_pool", (getter)get_pool, NULL, "The pool that the session is in, or None.", NULL},
    {"is_closed", (getter)get_is_closed, NULL, is_closed_doc, NULL},
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef py_pooled_session_members[] = {
    {"__dictoffset__", T_PYSSIZET, offsetof(py_pooled_session, dict), READONLY, NULL},
    {"__weaklistoffset__", T_PYSSIZET, offsetof(py_pooled_session, weakreflist), READONLY, NULL},
    {NULL, 0, 0, 0, NULL},
};

PyDoc_STRVAR(
    py_pooled_session_doc,
    "PooledSession(session, transport_context, url, transport_type, headers, identity_key,\n"
    "              user_identity='anonymous', gateway_id='', created_at=now, last_used=now,\n"
    "              use_count=0, _closed=False, _owner_task=None, _shutdown_event=None)\n"
    "--\n\n"
    "An open MCP session as the pool hands it out: call tools through ``.session``.\n\n"
    "Hashes and compares by identity; cannot be copied or pickled. Times are in seconds.");

static PyType_Slot py_pooled_session_slots[] = {
    {Py_tp_doc, (void *)py_pooled_session_doc},
    {Py_tp_new, py_pooled_session_new},
    {Py_tp_init, py_pooled_session_init},
    {Py_tp_traverse, py_pooled_session_traverse},
    {Py_tp_clear, py_pooled_session_clear},
    {Py_tp_dealloc, py_pooled_session_dealloc},
    {Py_tp_repr, py_pooled_session_repr},
    {Py_tp_methods, py_pooled_session_methods},
    {Py_tp_getset, py_pooled_session_getset},
    {Py_tp_members, py_pooled_session_members},
    {0, NULL},
};

PyType_Spec py_pooled_session_spec = {
    .name = "mcpgateway_pool.PooledSession",
    .basicsize = sizeof(py_pooled_session),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    .slots = py_pooled_session_slots,
};
