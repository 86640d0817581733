/* Read views of one pool, and the table of series. */
#ifndef MGP_PYTHON_VIEWS_H
#define MGP_PYTHON_VIEWS_H

#include "pool_object.h"

PyObject *py_pool_totals(py_pool *self, PyObject *ignored);
PyObject *py_pool_counts(py_pool *self, PyObject *ignored);
PyObject *py_pool_keys(py_pool *self, PyObject *ignored);
PyObject *py_pool_breakers(py_pool *self, PyObject *ignored);
PyObject *py_series_table(void);
/* What the tables of series call a kind. */
const char *py_series_kind_name(enum mgp_series_kind kind);

#endif
