#include "tracking.h"

#include "effects.h"

/* What cannot be had, for want of memory, is None: no acquire fails for that. */
PyObject *
py_pool_trace(py_pool *self)
{
    PyObject *trace = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_trace_of_caller);
    if (trace == NULL) {
        py_pool_drop_error();
        trace = Py_NewRef(Py_None);
    }
    return trace;
}

void
py_pool_track(py_pool *self, struct mgp_ticket lease, PyObject *trace)
{
    if (trace != NULL && mgp_pool_track(self->core, self->now_ns, lease, trace) == MGP_OK) {
        Py_INCREF(trace);
    }
}
