/* What Python code reports back to the machine: waiters, creations, checks, closes. */
#ifndef MGP_PYTHON_ANSWERS_H
#define MGP_PYTHON_ANSWERS_H

#include "pool_object.h"

PyObject *py_pool_take(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_time_out(py_pool *self, PyObject *object);
PyObject *py_pool_cancel(py_pool *self, PyObject *object);
PyObject *py_pool_created(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_create_failed(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_checked(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_close_ended(py_pool *self, PyObject *object);
PyObject *py_pool_doubt(py_pool *self, PyObject *pooled);
PyObject *py_pool_mark_broken(py_pool *self, PyObject *const *args, Py_ssize_t nargs);

#endif
