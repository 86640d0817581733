/* Leak detection: who acquired a session that is checked out for long. */
#ifndef MGP_PYTHON_TRACKING_H
#define MGP_PYTHON_TRACKING_H

#include "pool_object.h"

/* The stack of whoever acquires, for py_pool_track(). New reference, never NULL. */
PyObject *py_pool_trace(py_pool *self);
/* A checkout has begun: the machine keeps `trace`, a borrowed reference, for as long as it has to.
 * Nothing for NULL. Runs no Python. */
void py_pool_track(py_pool *self, struct mgp_ticket lease, PyObject *trace);

#endif
