#include "errors.h"

/* Seconds until somebody may try the URL again; 0 where somebody is trying. -1 with an exception. */
static double
retry_after(py_pool *self, PyObject *url)
{
    struct mgp_endpoint_view view;
    double seconds = 0.0;
    PyObject *bytes = PyUnicode_AsEncodedString(url, "utf-8", "surrogatepass");
    if (bytes == NULL) {
        return -1.0;
    }
    struct mgp_bytes name = {PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes)};
    if (py_pool_core(self) != NULL && mgp_pool_view_breaker(self->core, name, &view) &&
        view.is_open && view.open_until_ns > self->now_ns) {
        seconds = (double)(view.open_until_ns - self->now_ns) / NS_PER_SECOND;
    }
    Py_DECREF(bytes);
    return seconds;
}

/* Pool._circuit_open_error() makes it: it knows what opened the breaker. */
static int
raise_circuit_open(py_pool *self, PyObject *url)
{
    double seconds = retry_after(self, url);
    PyObject *after = seconds < 0 ? NULL : PyFloat_FromDouble(seconds);
    PyObject *error =
        after == NULL
            ? NULL
            : PyObject_CallMethodObjArgs((PyObject *)self, self->state->str_circuit_open_error, url,
                                         after, NULL);
    if (error != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(error), error);
    }
    Py_XDECREF(error);
    Py_XDECREF(after);
    return -1;
}

int
py_pool_raise(py_pool *self, int status, PyObject *url)
{
    py_state *state = self->state;
    PyObject *safe_url = NULL;
    if (status == MGP_ERR_CLOSED) {
        PyErr_SetString(state->closed_error, "Session pool is closed");
        return -1;
    }
    if (status == MGP_ERR_NOMEM) {
        PyErr_NoMemory();
        return -1;
    }
    if (status == MGP_ERR_CIRCUIT_OPEN) {
        return raise_circuit_open(self, url);
    }
    safe_url = PyObject_CallOneArg(state->safe_url, url);
    if (safe_url == NULL) {
        return -1;
    }
    if (status == MGP_ERR_QUEUE_FULL) {
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
    Py_DECREF(safe_url);
    return -1;
}
