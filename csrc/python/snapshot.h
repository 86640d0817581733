/* The rows of the whole process, and with shared counters those of all processes. */
#ifndef MGP_PYTHON_SNAPSHOT_H
#define MGP_PYTHON_SNAPSHOT_H

#include "common.h"

#include "../metrics/snapshot.h"
#include "state.h"

/* Takes a finished snapshot: 0, or -1 with an exception and nothing to free. Reads the files of
 * other processes without the GIL, then this process's rows, at one moment, under it. What was
 * wrong with files is kept for take_problems(). The caller calls mgp_snapshot_fini(). */
int py_snapshot_take(py_state *state, struct mgp_snapshot *snapshot);

/* The value of a row's label gateway_id: new reference, or NULL. */
PyObject *py_row_label(const struct mgp_snapshot_row *row);

/* 0, or -1 with an exception. */
int py_counters_init(py_state *state);
void py_counters_fini(py_state *state);
int py_counters_after_fork(py_state *state);
/* Every few seconds: shares what is not shared, forgets what is idle. */
void py_counters_upkeep(py_state *state, int64_t now_ns);

/* module functions */
PyObject *py_module_snapshot(PyObject *module, PyObject *ignored);
PyObject *py_module_row_labels(PyObject *module, PyObject *ignored);
PyObject *py_module_forget_row(PyObject *module, PyObject *label);
PyObject *py_module_count_replay(PyObject *module, PyObject *label);
PyObject *py_module_count_unpooled(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_module_set_max_rows(PyObject *module, PyObject *value);
PyObject *py_module_set_retention(PyObject *module, PyObject *value);
PyObject *py_module_use_directory(PyObject *module, PyObject *path);
PyObject *py_module_open_file(PyObject *module, PyObject *ignored);
PyObject *py_module_share_rest(PyObject *module, PyObject *ignored);
PyObject *py_module_publish_limits(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_module_take_problems(PyObject *module, PyObject *ignored);
PyObject *py_module_fold(PyObject *module, PyObject *forgotten);
PyObject *py_module_has_finished(PyObject *module, PyObject *ignored);

#endif
