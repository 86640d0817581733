/* The connection record: see connection.h. */
#include "connection.h"

#include "../base/check.h"
#include "key_format.h"

/* ---- the type --------------------------------------------------------------- */

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
    Py_VISIT(self->arguments);
    Py_VISIT(self->headers_now);
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
    PyObject *view = NULL;
    if (!self->is_pooled) { /* else its pool gives the view back, and may be asked before */
        view = self->owns_view ? self->view : NULL;
        self->owns_view = false;
        self->view = NULL;
    }
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
    Py_CLEAR(self->arguments);
    Py_CLEAR(self->headers_now);
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

static py_connection *
connection_new_foreign(py_state *state, PyObject *object)
{
    py_connection *self = py_connection_new(state);
    if (self != NULL) {
        self->is_foreign = true;
        self->owns_view = true;
        self->view = Py_NewRef(object);
    }
    return self;
}

/* ---- pool ------------------------------------------------------------------- */

py_pool *
py_connection_pool(const py_connection *connection)
{
    if (!connection->is_pooled) {
        return NULL;
    }
    py_pool *pool = connection->pool;
    bool is_alive = Py_REFCNT((PyObject *)pool) > 0 && py_pool_core(pool) != NULL;
    return is_alive ? pool : NULL;
}

bool
py_connection_is_in(const py_connection *connection, const py_pool *pool)
{
    return connection->is_pooled && connection->pool == pool && py_pool_core(pool) != NULL;
}

struct mgp_session *
py_connection_core(const py_connection *connection)
{
    return py_connection_pool(connection) == NULL ? NULL : connection->core;
}

void
py_connection_read_times(const py_connection *connection, struct mgp_session_times *times)
{
    if (!connection->is_pooled) {
        *times = (struct mgp_session_times){
            .created_ns = connection->created_ns,
            .last_used_ns = connection->last_used_ns,
        };
        return;
    }
    mgp_session_read_times(connection->core, times);
    if (py_connection_pool(connection) == NULL && connection->pool->clock != NULL) {
        int64_t offset_ns = py_monotonic_ns() - connection->pool->now_ns;
        times->created_ns += offset_ns; /* whoever reads it has no other clock */
        times->last_used_ns += offset_ns;
    }
}

void
py_connection_set_created(py_connection *connection, int64_t created_ns)
{
    py_pool *pool = py_connection_pool(connection);
    if (pool != NULL) {
        mgp_session_set_created(pool->core, connection->core, created_ns);
    } else if (!connection->is_pooled) {
        connection->created_ns = created_ns;
    }
}

void
py_connection_set_last_used(py_connection *connection, int64_t last_used_ns)
{
    py_pool *pool = py_connection_pool(connection);
    if (pool != NULL) {
        mgp_session_set_last_used(pool->core, connection->core, last_used_ns);
    } else if (!connection->is_pooled) {
        connection->last_used_ns = last_used_ns;
    }
}

/* A pool finds the records of duck-typed objects by their address. 0, or -1 with an exception. */
static int
remember_foreign(py_pool *self, py_connection *connection)
{
    PyObject *address = PyLong_FromVoidPtr(connection->view);
    PyObject *records = NULL;
    int status = -1;
    if (address == NULL) {
        return -1;
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
    Py_XDECREF(records);
    Py_DECREF(address);
    return status;
}

/* Where there is no memory for it, the record stays in the dict, and is passed over there. */
static void
forget_foreign(py_pool *self, py_connection *connection)
{
    PyObject *address = PyLong_FromVoidPtr(connection->view);
    PyObject *records =
        address == NULL ? NULL : PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    Py_ssize_t count = records == NULL ? 0 : PyList_GET_SIZE(records);
    for (Py_ssize_t i = 0; i < count; i++) {
        if (PyList_GET_ITEM(records, i) == (PyObject *)connection) {
            (void)(count == 1 ? PyDict_DelItem(self->foreign, address)
                              : PyList_SetSlice(records, i, i + 1, NULL));
            break;
        }
    }
    Py_XDECREF(address);
    PyErr_Clear();
}

py_connection *
py_connection_for(py_pool *self, PyObject *object)
{
    /* One that several callers hold at once cannot be noticed when one of them drops it. */
    bool is_shared = self->config.max_leases_per_session > 1;
    if (!is_shared && py_pooled_session_check(self->state, object)) {
        py_connection *own = ((py_pooled_session *)object)->connection;
        if (!own->is_pooled && own->view == object) {
            return (py_connection *)Py_NewRef((PyObject *)own);
        }
        /* An overridden _create_session() returned what is in a pool already. */
    }
    py_connection *connection = connection_new_foreign(self->state, object);
    if (connection != NULL && remember_foreign(self, connection) < 0) {
        Py_CLEAR(connection);
    }
    return connection;
}

void
py_connection_forget(py_pool *self, py_connection *connection)
{
    if (connection->is_foreign) {
        forget_foreign(self, connection);
    }
}

void
py_connection_join_pool(py_connection *connection, py_pool *pool, struct mgp_session *core)
{
    MGP_ASSERT(!connection->is_pooled);
    connection->is_pooled = true;
    connection->pool = pool;
    connection->core = core;
    Py_INCREF(connection);
    if (!connection->owns_view) {
        Py_INCREF(connection->view);
        connection->owns_view = true;
    }
}

/* Afterwards `closer` is valid again. */
static void
unlink_leaked(py_connection *connection)
{
    py_connection **where = &connection->pool->leaked;
    while (*where != connection) {
        where = &(*where)->next_leaked;
    }
    *where = connection->next_leaked;
    connection->is_leaked = false;
    connection->closer = NULL;
}

/* `times` are those of the pool's clock. */
static void
detach(py_connection *connection, const struct mgp_session_times *times)
{
    const py_pool *pool = connection->pool;
    int64_t offset_ns = pool->clock != NULL ? py_monotonic_ns() - pool->now_ns : 0;
    if (connection->is_leaked) {
        unlink_leaked(connection);
    }
    connection->is_pooled = false;
    connection->created_ns = times->created_ns + offset_ns;
    connection->last_used_ns = times->last_used_ns + offset_ns;
    connection->is_leased = false;
    connection->is_closed = true;
}

void
py_connection_detach(py_connection *connection)
{
    struct mgp_session_times times;
    mgp_session_read_times(connection->core, &times);
    detach(connection, &times);
}

void
py_connection_leave_pool(py_connection *connection, const struct mgp_session_times *times)
{
    py_pool *pool = connection->pool;
    PyObject *view = NULL;
    detach(connection, times);
    PyObject *closer = connection->closer; /* a task, whose coroutine refers to the view */
    connection->closer = NULL;
    py_connection_forget(pool, connection);
    if (connection->owns_view) {
        connection->owns_view = false;
        view = connection->view;
        if (connection->is_foreign) {
            connection->view = NULL;
        }
    }
    PyObject *arguments = connection->arguments, *headers = connection->headers_now;
    connection->arguments = NULL;
    connection->headers_now = NULL;
    Py_XDECREF(arguments);
    Py_XDECREF(headers);
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
        if (!py_connection_is_in(found, self)) {
            found = NULL;
        }
        if (PyDict_GET_SIZE(self->foreign) == 0 || (found != NULL && found->is_leased)) {
            return found;
        }
    }
    PyObject *address = PyLong_FromVoidPtr(pooled);
    PyObject *records =
        address == NULL ? NULL : PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    for (Py_ssize_t i = records == NULL ? 0 : PyList_GET_SIZE(records); i-- > 0;) {
        py_connection *record = (py_connection *)PyList_GET_ITEM(records, i);
        if (!record->is_pooled) {
            continue;
        }
        found = record;
        if (found->is_leased) {
            break;
        }
    }
    Py_XDECREF(address);
    return found;
}

/* ---- header identity -------------------------------------------------------- */

/* As bytes. Runs no Python. None where the session's key has none, or it is in no pool. */
static PyObject *
identity_bytes(const py_connection *connection)
{
    if (!connection->is_pooled) {
        return Py_NewRef(Py_None);
    }
    struct mgp_bytes key = mgp_session_key(connection->core);
    return py_key_identity_part(key.bytes, key.size);
}

PyObject *
py_connection_identity(py_connection *connection)
{
    PyObject *module = NULL, *text = NULL;
    if (connection->identity_key != NULL) {
        return Py_NewRef(connection->identity_key);
    }
    PyObject *identity = identity_bytes(connection);
    if (identity == NULL || identity == Py_None) {
        return identity;
    }
    module = PyImport_ImportModule("mcpgateway_pool.pool.views");
    if (module != NULL) {
        text = PyObject_CallMethod(module, "identity_digest", "O", identity);
    }
    Py_XDECREF(module);
    Py_DECREF(identity);
    return text;
}

void
py_connection_keep_identity(py_connection *connection)
{
    PyObject *type, *value, *traceback;
    if (connection->identity_key != NULL || connection->is_foreign) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *text = py_connection_identity(connection);
    if (text != NULL && connection->identity_key == NULL) {
        connection->identity_key = Py_NewRef(text);
    }
    Py_XDECREF(text);
    PyErr_Restore(type, value, traceback);
}

static int
append_record(void *payload, void *context)
{
    const py_connection *connection = payload;
    bool is_wanted = connection->identity_key == NULL && py_connection_is_seen(connection);
    return is_wanted ? PyList_Append(context, payload) : 0;
}

void
py_pool_keep_identities(py_pool *self)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *records = PyList_New(0);
    if (records != NULL && self->core != NULL) {
        int was_enabled = PyGC_Disable(); /* nothing may change the machine meanwhile */
        (void)mgp_pool_visit_payloads(self->core, append_record, records);
        if (was_enabled) {
            PyGC_Enable();
        }
        for (Py_ssize_t i = 0; i < PyList_GET_SIZE(records); i++) {
            py_connection_keep_identity((py_connection *)PyList_GET_ITEM(records, i));
        }
    }
    Py_XDECREF(records);
    PyErr_Restore(type, value, traceback); /* for want of memory it is not kept */
}

/* ---- view ------------------------------------------------------------------- */

bool
py_pooled_session_check(py_state *state, PyObject *object)
{
    return PyObject_TypeCheck(object, state->pooled_session_type);
}

PyObject *
py_connection_view(const py_connection *connection)
{
    PyObject *view = connection->view;
    return view == NULL || Py_REFCNT(view) == 0 ? NULL : view;
}

bool
py_connection_is_seen(const py_connection *connection)
{
    PyObject *view = py_connection_view(connection);
    return view != NULL && (!connection->owns_view || Py_REFCNT(view) > 1);
}

PyObject *
py_connection_new_view(PyTypeObject *type, py_connection *connection)
{
    py_pooled_session *view = (py_pooled_session *)type->tp_alloc(type, 0);
    if (view != NULL) {
        view->connection = (py_connection *)Py_NewRef((PyObject *)connection);
        /* Allocating may have run what made one. */
        if (py_connection_view(connection) == NULL) {
            connection->view = (PyObject *)view; /* borrowed */
            connection->owns_view = false;
        }
    }
    return (PyObject *)view;
}

PyObject *
py_connection_ensure_view(py_state *state, py_connection *connection)
{
    PyObject *made = NULL;
    if (py_connection_view(connection) == NULL) {
        made = py_connection_new_view(state->pooled_session_type, connection);
        if (made == NULL) {
            return NULL;
        }
        if (connection->view == made && connection->is_pooled) {
            connection->owns_view = true;
            return Py_NewRef(made);
        }
    }
    PyObject *view = Py_NewRef(connection->view);
    Py_XDECREF(made);
    return view;
}

bool
py_connection_lose_view(py_connection *connection, PyObject *view)
{
    if (connection->view != view) {
        return false;
    }
    connection->view = NULL;
    connection->owns_view = false;
    py_pool *pool = py_connection_pool(connection);
    if (pool == NULL || !connection->is_leased || connection->is_leaked) {
        return false;
    }
    MGP_ASSERT(connection->closer == NULL); /* it is in use: nobody closes it */
    connection->is_leaked = true;
    connection->next_leaked = pool->leaked;
    pool->leaked = connection;
    return true;
}

/* This runs in a finalizer, on any thread: it wakes the loop, which does the rest. */
void
py_connection_announce_leak(py_connection *connection)
{
    py_pool *pool = py_connection_pool(connection);
    PyObject *type, *value, *traceback;
    if (pool == NULL || !connection->is_leaked || pool->loop == NULL) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(pool);
    PyObject *loop = Py_NewRef(pool->loop);
    PyObject *reap = PyObject_GetAttr((PyObject *)pool, pool->state->str_reap_leaks);
    PyObject *handle =
        reap == NULL ? NULL
                     : PyObject_CallMethodOneArg(loop, pool->state->str_call_soon_threadsafe, reap);
    Py_XDECREF(handle);
    Py_XDECREF(reap);
    Py_DECREF(loop);
    PyErr_Restore(type, value, traceback);
    Py_DECREF(pool);
}

py_connection *
py_pool_next_leaked(py_pool *self)
{
    py_connection *connection = self->leaked;
    if (connection != NULL) {
        unlink_leaked(connection);
    }
    return connection;
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

void
py_connection_end_lease(py_connection *connection)
{
    connection->is_leased = false;
    if (connection->is_leaked) {
        unlink_leaked(connection); /* nothing is left to reclaim */
    }
}

void
py_connection_note_headers(py_connection *connection, PyObject *headers)
{
    Py_XSETREF(connection->headers_now, Py_XNewRef(headers));
}

void
py_connection_set_closer(py_connection *connection, PyObject *closer)
{
    Py_XSETREF(connection->closer, Py_NewRef(closer));
}

PyObject *
py_connection_closer(const py_connection *connection)
{
    PyObject *closer = connection->is_leaked ? NULL : connection->closer;
    return Py_NewRef(closer == NULL ? Py_None : closer);
}
