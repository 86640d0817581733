#include "connection.h"

#include "../base/check.h"

static int
py_connection_traverse(py_connection *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->session);
    Py_VISIT(self->transport_context);
    Py_VISIT(self->url);
    Py_VISIT(self->transport_type);
    Py_VISIT(self->headers);
    Py_VISIT(self->identity_key);
    Py_VISIT(self->user_identity);
    Py_VISIT(self->gateway_id);
    Py_VISIT(self->owner_task);
    Py_VISIT(self->shutdown_event);
    if (!self->is_leaked) {
        Py_VISIT(self->closer);
    }
    if (self->owns_view) {
        Py_VISIT(self->view);
    }
    return 0;
}

static int
py_connection_clear(py_connection *self)
{
    PyObject *view = self->owns_view ? self->view : NULL;
    self->owns_view = false;
    self->view = NULL;
    Py_CLEAR(self->session);
    Py_CLEAR(self->transport_context);
    Py_CLEAR(self->url);
    Py_CLEAR(self->transport_type);
    Py_CLEAR(self->headers);
    Py_CLEAR(self->identity_key);
    Py_CLEAR(self->user_identity);
    Py_CLEAR(self->gateway_id);
    Py_CLEAR(self->owner_task);
    Py_CLEAR(self->shutdown_event);
    if (!self->is_leaked) {
        Py_CLEAR(self->closer);
    }
    Py_XDECREF(view);
    return 0;
}

static void
py_connection_dealloc(py_connection *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    (void)py_connection_clear(self);
    PyMem_Free(self->given);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyType_Slot py_connection_slots[] = {
    {Py_tp_traverse, py_connection_traverse},
    {Py_tp_clear, py_connection_clear},
    {Py_tp_dealloc, py_connection_dealloc},
    {0, NULL},
};

PyType_Spec py_connection_spec = {
    .name = "mcpgateway_pool._core._Connection",
    .basicsize = sizeof(py_connection),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = py_connection_slots,
};

py_connection *
py_connection_new(py_state *state)
{
    py_connection *self =
        (py_connection *)state->connection_type->tp_alloc(state->connection_type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->created_ns = py_monotonic_ns();
    self->last_used_ns = self->created_ns;
    return self;
}

py_connection *
py_connection_new_foreign(py_state *state, PyObject *object)
{
    py_connection *self = py_connection_new(state);
    if (self != NULL) {
        self->is_foreign = true;
        self->owns_view = true;
        self->view = Py_NewRef(object);
    }
    return self;
}

/* ---- views ---- */

bool
py_pooled_session_check(py_state *state, PyObject *object)
{
    return PyObject_TypeCheck(object, state->pooled_session_type);
}

PyObject *
py_pooled_session_alloc(PyTypeObject *type, py_connection *connection)
{
    py_pooled_session *self = (py_pooled_session *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->connection = (py_connection *)Py_NewRef((PyObject *)connection);
    connection->view = (PyObject *)self; /* borrowed */
    return (PyObject *)self;
}

PyObject *
py_pooled_session_over(py_state *state, py_connection *connection)
{
    return py_pooled_session_alloc(state->pooled_session_type, connection);
}

PyObject *
py_connection_ensure_view(py_state *state, py_connection *connection)
{
    if (connection->view == NULL) {
        PyObject *view = py_pooled_session_over(state, connection);
        if (view == NULL) {
            return NULL;
        }
        connection->view = view;
        connection->owns_view = true;
    }
    return connection->view;
}

PyObject *
py_connection_check_out(py_connection *connection, struct mgp_ticket lease)
{
    PyObject *view = connection->view;
    connection->lease_index = lease.index;
    connection->lease_generation = lease.generation;
    connection->is_leased = true;
    if (connection->is_foreign) {
        return Py_NewRef(view);
    }
    connection->owns_view = false; /* the reference goes to the caller */
    return view;
}

void
py_connection_check_in(py_connection *connection)
{
    connection->is_leased = false;
    if (!connection->owns_view) {
        Py_INCREF(connection->view);
        connection->owns_view = true;
    }
}

static int
forget_foreign(py_pool *self, py_connection *connection)
{
    PyObject *address = PyLong_FromVoidPtr(connection->view);
    int result = -1;
    if (address == NULL) {
        return -1;
    }
    PyObject *records = PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    if (records != NULL) {
        Py_ssize_t count = PyList_GET_SIZE(records);
        for (Py_ssize_t i = 0; i < count; i++) {
            if (PyList_GET_ITEM(records, i) == (PyObject *)connection) {
                result = count == 1 ? PyDict_DelItem(self->foreign, address)
                                    : PyList_SetSlice(records, i, i + 1, NULL);
                break;
            }
        }
    }
    Py_DECREF(address);
    return result;
}

void
py_connection_join_pool(py_connection *connection, py_pool *pool)
{
    connection->is_pooled = true;
    connection->pool = pool;
    connection->core = NULL;
}

void
py_connection_detach(py_connection *connection, const struct mgp_session_times *times)
{
    /* From the pool's clock to that of a session without a pool. */
    const py_pool *pool = connection->pool;
    bool has_joined = connection->core != NULL;
    int64_t offset_ns =
        has_joined && pool->clock != NULL ? py_monotonic_ns() - pool->last_now_ns : 0;
    connection->is_pooled = false;
    connection->created_ns = times->created_ns + offset_ns;
    connection->last_used_ns = times->last_used_ns + offset_ns;
    connection->is_leased = false;
    connection->is_closed = true;
}

/* Afterwards `closer` is valid again. */
void
py_connection_unlink_leaked(py_connection *connection)
{
    py_connection **where = &connection->pool->leaked;
    while (*where != connection) {
        where = &(*where)->next_leaked;
    }
    *where = connection->next_leaked;
    connection->is_leaked = false;
    connection->closer = NULL;
}

void
py_connection_set_closer(py_connection *connection, PyObject *closer)
{
    if (connection->is_leaked) {
        py_connection_unlink_leaked(
            connection); /* it is being closed: nothing is left to reclaim */
    }
    Py_XSETREF(connection->closer, Py_NewRef(closer));
}

void
py_connection_leave_pool(py_connection *connection, const struct mgp_session_times *times)
{
    py_pool *pool = connection->pool;
    PyObject *view = NULL;
    if (connection->is_foreign && forget_foreign(pool, connection) < 0) {
        PyErr_Clear();
    }
    if (connection->is_leaked) {
        py_connection_unlink_leaked(connection);
    }
    py_connection_detach(connection, times);
    PyObject *closer = connection->closer; /* a task, whose coroutine refers to the view */
    connection->closer = NULL;
    if (connection->owns_view) {
        connection->owns_view = false;
        view = connection->view;
        if (connection->is_foreign) {
            connection->view = NULL;
        }
    }
    Py_XDECREF(closer);
    Py_XDECREF(view);
    Py_DECREF(connection);
}

py_connection *
py_pool_find_connection(py_pool *self, PyObject *pooled)
{
    py_connection *found = NULL;
    if (py_pooled_session_check(self->state, pooled)) {
        found = ((py_pooled_session *)pooled)->connection;
        if (py_connection_pool(found) != self) {
            found = NULL;
        }
        if (PyDict_GET_SIZE(self->foreign) == 0 || (found != NULL && found->is_leased)) {
            return found;
        }
    }
    PyObject *address = PyLong_FromVoidPtr(pooled);
    PyObject *records =
        address == NULL ? NULL : PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    if (records != NULL) {
        for (Py_ssize_t i = PyList_GET_SIZE(records); i-- > 0;) {
            found = (py_connection *)PyList_GET_ITEM(records, i);
            if (found->is_leased) {
                break;
            }
        }
    }
    Py_XDECREF(address);
    return found;
}

void
py_pool_note_leak(py_connection *connection)
{
    py_pool *pool = py_connection_pool(connection);
    PyObject *type, *value, *traceback;
    if (pool == NULL || connection->is_leaked) {
        return;
    }
    MGP_ASSERT(connection->closer == NULL); /* it is in use: nobody closes it */
    connection->is_leaked = true;
    connection->next_leaked = pool->leaked;
    pool->leaked = connection;
    if (pool->loop == NULL || Py_REFCNT((PyObject *)pool) == 0) {
        return; /* no references: the pool is going away, and its __dict__ held the session */
    }
    /* This runs in a finalizer, on any thread: wake the loop, which does the rest. */
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *reap = PyObject_GetAttr((PyObject *)pool, pool->state->str_reap_leaks);
    PyObject *handle =
        reap == NULL
            ? NULL
            : PyObject_CallMethodOneArg(pool->loop, pool->state->str_call_soon_threadsafe, reap);
    Py_XDECREF(handle);
    Py_XDECREF(reap);
    PyErr_Restore(type, value, traceback);
}

py_connection *
py_connection_for(py_pool *self, PyObject *pooled)
{
    /* One that several callers hold at once cannot be noticed when one of them drops it. */
    bool is_shared = self->config.max_leases_per_session > 1;
    if (!is_shared && py_pooled_session_check(self->state, pooled)) {
        py_connection *connection = ((py_pooled_session *)pooled)->connection;
        if (!connection->is_pooled && connection->view == pooled) {
            connection->owns_view = true;
            Py_INCREF(pooled);
            return (py_connection *)Py_NewRef((PyObject *)connection);
        }
        /* An overridden _create_session() returned what is in a pool already. */
    }
    py_connection *connection = py_connection_new_foreign(self->state, pooled);
    PyObject *address = connection == NULL ? NULL : PyLong_FromVoidPtr(pooled);
    PyObject *records = NULL;
    int status = -1;
    if (address == NULL) {
        goto done;
    }
    records = Py_XNewRef(PyDict_GetItemWithError(self->foreign, address));
    if (records == NULL && !PyErr_Occurred()) {
        records = PyList_New(0);
        if (records != NULL && PyDict_SetItem(self->foreign, address, records) < 0) {
            Py_CLEAR(records);
        }
    }
    if (records != NULL) {
        status = PyList_Append(records, (PyObject *)connection);
    }
done:
    Py_XDECREF(records);
    Py_XDECREF(address);
    if (status < 0) {
        Py_CLEAR(connection);
    }
    return connection;
}
