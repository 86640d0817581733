/* Sessions whose PooledSession was dropped without a release. */
#ifndef MGP_PYTHON_LEAKS_H
#define MGP_PYTHON_LEAKS_H

#include "pool_object.h"

/* Takes back what was dropped. The loop does that, where there was memory to tell it so: 0 or -1. */
int py_pool_reclaim_leaked(py_pool *self);
PyObject *py_pool_reap_leaks(py_pool *self, PyObject *ignored);

#endif
