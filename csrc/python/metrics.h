/* What is shown of the counters: buckets, and the text exposition. */
#ifndef MGP_PYTHON_METRICS_H
#define MGP_PYTHON_METRICS_H

#include "common.h"

PyObject *py_module_buckets(PyObject *module, PyObject *ignored);
PyObject *py_module_set_buckets(PyObject *module, PyObject *args);
PyObject *py_module_text(PyObject *module, PyObject *args);
PyObject *py_process_series_table(void);
PyObject *py_gateway_info_series(void);

#endif
