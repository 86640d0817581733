#include "ticket.h"

bool
py_ticket_check(py_state *state, PyObject *object)
{
    return Py_IS_TYPE(object, state->ticket_type);
}

PyObject *
py_ticket_new(py_state *state, uint64_t machine, struct mgp_ticket ticket)
{
    py_ticket *self = (py_ticket *)state->ticket_type->tp_alloc(state->ticket_type, 0);
    if (self != NULL) {
        self->machine = machine;
        self->ticket = ticket;
    }
    return (PyObject *)self;
}

static void
py_ticket_dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    type->tp_free(self);
    Py_DECREF(type);
}

static PyType_Slot py_ticket_slots[] = {
    {Py_tp_doc, "Names one health check, close or checkout of a pool."},
    {Py_tp_dealloc, py_ticket_dealloc},
    {0, NULL},
};

PyType_Spec py_ticket_spec = {
    .name = "mcpgateway_pool._core.Ticket",
    .basicsize = sizeof(py_ticket),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = py_ticket_slots,
};
