#include "leaks.h"

#include "connection.h"
#include "loop.h"

int
py_pool_reclaim_leaked(py_pool *self)
{
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_reap_leaks);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

PyObject *
py_pool_reap_leaks(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    py_connection *connection; /* borrowed: the machine holds it */
    long count = 0;
    if (py_pool_core(self) == NULL) {
        return PyLong_FromLong(0); /* the pool itself is garbage */
    }
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    while ((connection = py_pool_next_leaked(self)) != NULL) {
        connection->is_leased = false;
        if (mgp_pool_release(self->core, self->now_ns, py_connection_lease(connection),
                             MGP_VERDICT_LEAKED) == MGP_OK) {
            count++;
        }
    }
    py_pool_end(self);
    return PyLong_FromLong(count);
}
