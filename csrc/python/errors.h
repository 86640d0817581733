/* What a status of the machine means for a caller. */
#ifndef MGP_PYTHON_ERRORS_H
#define MGP_PYTHON_ERRORS_H

#include "pool_object.h"

/* Raises it; always -1. */
int py_pool_raise(py_pool *self, int status, PyObject *url);

#endif
