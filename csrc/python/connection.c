/* The connection record: see pooled_session.h. */
#include "pooled_session.h"

#include <math.h>
#include <time.h>

int64_t
py_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

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
