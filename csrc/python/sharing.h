/* Sessions that several callers use at once, and groups of keys. */
#ifndef MGP_PYTHON_SHARING_H
#define MGP_PYTHON_SHARING_H

#include "pool_object.h"

PyObject *py_pool_share(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_retire(py_pool *self, PyObject *pooled);
PyObject *py_pool_lease_ticket(py_pool *self, PyObject *pooled);
PyObject *py_pool_release_lease(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_evict_group(py_pool *self, PyObject *const *args, Py_ssize_t nargs);

#endif
