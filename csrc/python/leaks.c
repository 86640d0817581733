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
    int64_t now_ns;
    long count = 0;
    if (self->core == NULL) {
        return PyLong_FromLong(0); /* the pool itself is garbage */
    }
    if (py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    while (self->leaked != NULL) {
        py_connection *connection = self->leaked;
        if (py_connection_ensure_view(self->state, connection) == NULL) {
            return NULL;
        }
        py_connection_unlink_leaked(connection);
        connection->is_leased = false;
        if (mgp_pool_release(self->core, now_ns, py_connection_lease(connection),
                             MGP_VERDICT_LEAKED) == MGP_OK) {
            count++;
        }
    }
    py_pool_leave(self, now_ns);
    return PyLong_FromLong(count);
}
