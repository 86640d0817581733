#include "errors.h"

int
py_pool_raise(py_pool *self, int status, PyObject *url)
{
    py_state *state = self->state;
    PyObject *safe_url = NULL, *why = NULL;
    if (status == MGP_ERR_CLOSED) {
        PyErr_SetString(state->closed_error, "Session pool is closed");
        return -1;
    }
    if (status == MGP_ERR_NOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    safe_url = PyObject_CallOneArg(state->safe_url, url);
    if (safe_url == NULL) {
        return -1;
    }
    if (status == MGP_ERR_CIRCUIT_OPEN) {
        why = PyObject_CallMethodOneArg((PyObject *)self, state->str_why_open, url);
        if (why != NULL) {
            PyErr_Format(state->circuit_open_error, "Circuit breaker open for %U%S", safe_url, why);
        }
    } else if (status == MGP_ERR_QUEUE_FULL) {
        PyErr_Format(state->exhausted_error,
                     "Too many callers wait for a session for %U already: max_waiters is %u",
                     safe_url, self->config.max_waiters_per_key);
    } else if (status == MGP_ERR_EXHAUSTED) {
        PyErr_Format(state->exhausted_error,
                     "Session pool is exhausted for %U: max_total_sessions is %u, max_total_keys "
                     "is %u, and nothing idle can be closed",
                     safe_url, self->config.max_total_sessions, self->config.max_total_keys);
    } else {
        PyErr_Format(PyExc_SystemError, "unexpected status %d of the pool machine", status);
    }
    Py_XDECREF(why);
    Py_DECREF(safe_url);
    return -1;
}
