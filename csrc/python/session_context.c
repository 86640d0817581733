/* The async context manager of one checkout: SessionContext in session_context.py. Its entry and
 * its exit are coroutines there; here is what they do where nothing has to be awaited. */
#include "session_context.h"

#include "checkout.h"
#include "connection.h"
#include "hooks.h"

/* In the order of the parameters of acquire(). */
enum argument {
    ARGUMENT_URL,
    ARGUMENT_HEADERS,
    ARGUMENT_TRANSPORT_TYPE,
    ARGUMENT_CLIENT_FACTORY,
    ARGUMENT_TIMEOUT,
    ARGUMENT_USER_IDENTITY,
    ARGUMENT_GATEWAY_ID,
    ARGUMENT_WAIT_TIMEOUT,
    ARGUMENT_COUNT,
};

typedef struct {
    PyObject_HEAD
    PyObject *pool;                      /* owned: a py_pool */
    PyObject *arguments[ARGUMENT_COUNT]; /* owned */
    PyObject *pooled; /* owned: what was acquired and not released yet, or NULL */
    uint64_t lease;   /* the generation of its checkout; 0: not known */
} py_session_context;

/* Arrays instead of a tuple of arguments, which takes longer to make than the context. */
PyObject *
py_module_make_context(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const py_state *state = PyModule_GetState(module);
    if (nargs != 2 + ARGUMENT_COUNT || !PyType_Check(args[0]) ||
        !PyType_IsSubtype((PyTypeObject *)args[0], state->session_context_type) ||
        !PyObject_TypeCheck(args[1], state->pool_type)) {
        PyErr_SetString(PyExc_TypeError, "make_context() takes a class of session contexts, a pool "
                                         "and the arguments of its acquire()");
        return NULL;
    }
    PyTypeObject *type = (PyTypeObject *)args[0];
    py_session_context *self = (py_session_context *)type->tp_alloc(type, 0);
    if (self != NULL) {
        self->pool = Py_NewRef(args[1]);
        for (Py_ssize_t i = 0; i < ARGUMENT_COUNT; i++) {
            self->arguments[i] = Py_NewRef(args[2 + i]);
        }
    }
    return (PyObject *)self;
}

static int
py_session_context_traverse(py_session_context *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->pool);
    for (int i = 0; i < ARGUMENT_COUNT; i++) {
        Py_VISIT(self->arguments[i]);
    }
    Py_VISIT(self->pooled);
    return 0;
}

/* enter() and leave() rely on the pool, which breaks cycles through itself, and on there
 * being arguments. */
static int
py_session_context_clear(py_session_context *self)
{
    for (int i = 0; i < ARGUMENT_COUNT; i++) {
        Py_XSETREF(self->arguments[i], Py_NewRef(Py_None));
    }
    Py_CLEAR(self->pooled);
    return 0;
}

static void
py_session_context_dealloc(py_session_context *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    Py_CLEAR(self->pooled);
    Py_CLEAR(self->pool);
    for (int i = 0; i < ARGUMENT_COUNT; i++) {
        Py_CLEAR(self->arguments[i]);
    }
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static py_session_context *
check_context(PyObject *module, PyObject *object)
{
    py_state *state = PyModule_GetState(module);
    if (!PyObject_TypeCheck(object, state->session_context_type)) {
        PyErr_Format(PyExc_TypeError, "expected a session context, not %.100s",
                     Py_TYPE(object)->tp_name);
        return NULL;
    }
    return (py_session_context *)object;
}

PyObject *
py_module_enter(PyObject *module, PyObject *object)
{
    uint64_t lease;
    py_session_context *self = check_context(module, object);
    if (self == NULL) {
        return NULL;
    }
    py_pool *pool = (py_pool *)self->pool;
    int is_plain = py_pool_is_plain(pool);
    if (is_plain <= 0) {
        return is_plain < 0 ? NULL : Py_NewRef(Py_NotImplemented);
    }
    const py_key_arguments arguments = {
        self->pool,
        self->arguments[ARGUMENT_URL],
        self->arguments[ARGUMENT_HEADERS],
        self->arguments[ARGUMENT_TRANSPORT_TYPE],
        self->arguments[ARGUMENT_USER_IDENTITY],
        self->arguments[ARGUMENT_GATEWAY_ID],
        false,
    };
    PyObject *pooled = py_pool_acquire(pool, &arguments, &lease);
    if (pooled != NULL && lease != 0) {
        self->lease = lease;
        Py_XSETREF(self->pooled, Py_NewRef(pooled));
    }
    return pooled;
}

PyObject *
py_module_leave(PyObject *module, PyObject *object)
{
    py_session_context *self = check_context(module, object);
    if (self == NULL) {
        return NULL;
    }
    py_pool *pool = (py_pool *)self->pool;
    int is_plain = py_pool_is_plain(pool);
    if (is_plain < 0) {
        return NULL;
    }
    if (!is_plain || self->pooled == NULL || !py_pooled_session_check(pool->state, self->pooled)) {
        return Py_NewRef(Py_NotImplemented);
    }
    const py_connection *connection = ((py_pooled_session *)self->pooled)->connection;
    if (connection->is_foreign || !connection->is_leased ||
        connection->lease_generation != self->lease) {
        return Py_NewRef(Py_NotImplemented);
    }
    PyObject *pooled = self->pooled; /* owned from here on */
    self->pooled = NULL;
    PyObject *closing = py_pool_release(pool, pooled, MGP_VERDICT_GOOD);
    if (closing == NULL || closing != Py_None) {
        self->pooled = Py_NewRef(pooled); /* what Python goes on with */
    }
    Py_DECREF(pooled);
    return closing;
}

static PyObject *
get_arguments(py_session_context *self, void *Py_UNUSED(closure))
{
    PyObject *arguments = PyTuple_New(ARGUMENT_COUNT);
    for (Py_ssize_t i = 0; arguments != NULL && i < ARGUMENT_COUNT; i++) {
        PyTuple_SET_ITEM(arguments, i, Py_NewRef(self->arguments[i]));
    }
    return arguments;
}

static PyGetSetDef py_session_context_attributes[] = {
    {"_arguments", (getter)get_arguments, NULL, "Those of acquire(), a tuple.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef py_session_context_members[] = {
    {"_pool", T_OBJECT_EX, offsetof(py_session_context, pool), READONLY, "The pool."},
    {"_pooled", T_OBJECT, offsetof(py_session_context, pooled), 0,
     "What was acquired and not released yet, or None."},
    {"_lease", T_ULONGLONG, offsetof(py_session_context, lease), 0,
     "The number of its checkout; 0 where it is not known."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot py_session_context_slots[] = {
    {Py_tp_doc, "One checkout of a session; see SessionContext."},
    {Py_tp_traverse, py_session_context_traverse},
    {Py_tp_clear, py_session_context_clear},
    {Py_tp_dealloc, py_session_context_dealloc},
    {Py_tp_members, py_session_context_members},
    {Py_tp_getset, py_session_context_attributes},
    {0, NULL},
};

PyType_Spec py_session_context_spec = {
    .name = "mcpgateway_pool._core.SessionContextCore",
    .basicsize = sizeof(py_session_context),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE |
             Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = py_session_context_slots,
};
