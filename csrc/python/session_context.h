/* What pool.session() returns, as far as C makes the common path of it: the arguments of
 * an acquire to come, and what it got. */
#ifndef MGP_PYTHON_SESSION_CONTEXT_H
#define MGP_PYTHON_SESSION_CONTEXT_H

#include "common.h"

extern PyType_Spec py_session_context_spec;

/* make_context(class, pool, what acquire() takes): a context of this class. */
PyObject *py_module_make_context(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
/* enter(context): acquire; and leave(context): release. Both leave everything else, and
 * what needs awaiting, to Python. */
PyObject *py_module_enter(PyObject *module, PyObject *object);
PyObject *py_module_leave(PyObject *module, PyObject *object);

#endif
