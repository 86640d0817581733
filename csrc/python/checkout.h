/* Sessions in and out of the pool: the hit path, and release. */
#ifndef MGP_PYTHON_CHECKOUT_H
#define MGP_PYTHON_CHECKOUT_H

#include "connection.h"
#include "key.h"
#include "pool_object.h"

/* A session at once, and the number of its lease; or a Pending, and 0; or NULL with an
 * exception. The hooks must be current. */
PyObject *py_pool_acquire(py_pool *self, const py_key_arguments *arguments, uint64_t *lease);
/* None; the task that closes the session; False when it was not checked out; NotImplemented
 * when it is not of this pool. New reference, or NULL with an exception. */
PyObject *py_pool_release(py_pool *self, PyObject *pooled, enum mgp_verdict verdict);
PyObject *py_module_acquire(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_module_release(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_warm(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_is_like(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_lease_of(py_pool *self, PyObject *pooled);
PyObject *py_pool_holds(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_note_anonymous(py_pool *self, PyObject *ignored);
PyObject *py_pool_note_outcome(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
/* Whether a duck-typed session says that it is closed. A mock answers with a mock: only
 * True counts; one that cannot say is as good as closed. 1, 0, or -1. */
int py_pool_foreign_is_closed(py_pool *self, PyObject *pooled);

#endif
