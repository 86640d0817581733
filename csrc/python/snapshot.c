#include "snapshot.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "../base/alloc.h"
#include "../base/status.h"
#include "../metrics/archive.h"
#include "../metrics/forgetting.h"

int
py_counters_init(py_state *state)
{
    state->fold_lock = PyThread_allocate_lock();
    if (state->fold_lock == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    mgp_rows_init(&state->rows, state->hash_key, MGP_ROWS_DEFAULT_MAX);
    state->has_rows = true;
    return 0;
}

void
py_counters_fini(py_state *state)
{
    if (state->has_rows) {
        mgp_rows_fini(&state->rows);
        state->has_rows = false;
    }
    if (state->fold_lock != NULL) {
        PyThread_free_lock(state->fold_lock);
        state->fold_lock = NULL;
    }
}

int
py_counters_after_fork(py_state *state)
{
    mgp_rows_after_fork(&state->rows);
    /* Another thread of the parent may hold the old lock for ever: it is left alone. */
    state->fold_lock = PyThread_allocate_lock();
    if (state->fold_lock == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    state->has_finished = false;
    state->problems.count = 0;
    return 0;
}

/* ---- taking a snapshot ---- */

static void
keep_problems(py_state *state, const struct mgp_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++) {
        errno = problems->list[i].error;
        mgp_problems_add(&state->problems, problems->list[i].name, problems->list[i].flaw);
    }
}

static int
read_others_once(py_state *state, struct mgp_snapshot *snapshot, struct mgp_file_id own)
{
    int status;
    bool has_finished = false;
    struct mgp_problems problems = {.count = 0};
    const char *directory = state->rows.directory; /* for ever, once there is one */
    Py_BEGIN_ALLOW_THREADS
    status =
        mgp_directory_read(directory, own, state->hash_key, snapshot, &has_finished, &problems);
    Py_END_ALLOW_THREADS
    int error = errno;
    keep_problems(state, &problems);
    state->has_finished = has_finished;
    errno = error;
    return status;
}

/* Another thread may have made this process's file meanwhile: then it was perhaps read as one of
 * another process, and would count twice. Or it has taken frozen rows away, which are in an archive
 * that is newer than the one that was read. */
static int
read_others(py_state *state, struct mgp_snapshot *snapshot)
{
    for (;;) {
        struct mgp_file_id own = state->rows.segment.id;
        uint64_t cleared_count = state->rows.forgetting.cleared_count;
        int status = read_others_once(state, snapshot, own);
        if (status < 0 || (mgp_file_id_equals(own, state->rows.segment.id) &&
                           cleared_count == state->rows.forgetting.cleared_count)) {
            return status;
        }
        mgp_snapshot_fini(snapshot);
    }
}

static uint64_t
now_s(void)
{
    return (uint64_t)time(NULL);
}

void
py_counters_upkeep(py_state *state, int64_t now_ns)
{
    if (mgp_rows_upkeep(&state->rows, now_ns)) {
        mgp_forgetting_upkeep(&state->rows, now_s());
    }
}

int
py_snapshot_take(py_state *state, struct mgp_snapshot *snapshot)
{
    int status = MGP_OK;
    mgp_snapshot_init(snapshot, state->hash_key);
    mgp_forgetting_upkeep(&state->rows, now_s());
    if (state->rows.directory != NULL) {
        mgp_snapshot_fini(snapshot);
        mgp_rows_share_rest(&state->rows);
        status = read_others(state, snapshot);
    }
    if (status >= 0) {
        status = mgp_snapshot_add_own(snapshot, &state->rows);
    }
    if (status >= 0 && state->rows.directory != NULL) {
        state->has_finished |= mgp_forgetting_has_work(&state->rows, snapshot, now_s());
    }
    if (status == MGP_ERR_SYSTEM) {
        PyErr_SetFromErrnoWithFilename(PyExc_OSError, state->rows.directory);
    } else if (status < 0) {
        PyErr_NoMemory();
    }
    if (status < 0) {
        mgp_snapshot_fini(snapshot);
        return -1;
    }
    mgp_snapshot_finish(snapshot);
    return 0;
}

/* ---- the snapshot in Python ---- */

static PyObject *
numbers(const uint64_t *words, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *number = PyLong_FromUnsignedLongLong(words[i]);
        if (number == NULL) {
            Py_CLEAR(tuple);
        } else {
            PyTuple_SET_ITEM(tuple, i, number);
        }
    }
    return tuple;
}

static PyObject *
process_numbers(const struct mgp_snapshot *snapshot)
{
    uint64_t words[MGP_PROCESS_WORD_COUNT];
    for (size_t i = 0; i < MGP_PROCESS_WORD_COUNT; i++) {
        words[i] = mgp_process_value((enum mgp_process_word)i, snapshot->process_words[i]);
    }
    return numbers(words, MGP_PROCESS_WORD_COUNT);
}

PyObject *
py_row_label(const struct mgp_snapshot_row *row)
{
    return PyUnicode_DecodeUTF8((const char *)row->label, (Py_ssize_t)row->label_size, "replace");
}

static PyObject *
row_entry(const struct mgp_snapshot_row *row)
{
    PyObject *entry = NULL;
    PyObject *name = py_row_label(row);
    PyObject *words = numbers(row->words, MGP_WORD_COUNT);
    if (name != NULL && words != NULL) {
        entry = PyTuple_Pack(2, name, words);
    }
    Py_XDECREF(words);
    Py_XDECREF(name);
    return entry;
}

/* A list of what `make` makes of each row. */
static PyObject *
list_rows(const struct mgp_snapshot *snapshot,
          PyObject *(*make)(const struct mgp_snapshot_row *row))
{
    PyObject *list = PyList_New((Py_ssize_t)snapshot->row_count);
    for (size_t i = 0; list != NULL && i < snapshot->row_count; i++) {
        PyObject *entry = make(&snapshot->rows[i]);
        if (entry == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, entry);
        }
    }
    return list;
}

PyObject *
py_module_row_labels(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    struct mgp_snapshot snapshot;
    if (py_snapshot_take(PyModule_GetState(module), &snapshot) < 0) {
        return NULL;
    }
    PyObject *labels = list_rows(&snapshot, py_row_label);
    mgp_snapshot_fini(&snapshot);
    return labels;
}

PyObject *
py_module_snapshot(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_state *state = PyModule_GetState(module);
    struct mgp_snapshot snapshot;
    PyObject *result = NULL, *process = NULL;
    if (py_snapshot_take(state, &snapshot) < 0) {
        return NULL;
    }
    PyObject *rows = list_rows(&snapshot, row_entry);
    process = rows == NULL ? NULL : process_numbers(&snapshot);
    result = process == NULL ? NULL : PyTuple_Pack(2, rows, process);
    Py_XDECREF(process);
    Py_XDECREF(rows);
    mgp_snapshot_fini(&snapshot);
    return result;
}

/* ---- rows ---- */

PyObject *
py_module_forget_row(PyObject *module, PyObject *label)
{
    py_state *state = PyModule_GetState(module);
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(label, &size);
    if (bytes == NULL) {
        return NULL;
    }
    return PyBool_FromLong(mgp_forgetting_freeze(&state->rows, bytes, (size_t)size, now_s()) ==
                           MGP_OK);
}

/* Counts one in the row of a label, which is made where there is none. */
static PyObject *
count_once(py_state *state, PyObject *label, size_t word)
{
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(label, &size);
    if (bytes == NULL) {
        return NULL;
    }
    struct mgp_row *row = mgp_rows_ensure(&state->rows, bytes, (size_t)size);
    if (row == NULL) {
        return PyErr_NoMemory();
    }
    mgp_count_increment(row, word);
    Py_RETURN_NONE;
}

/* Only series that nothing but these calls counts: what the machine counts is its own. */
PyObject *
py_module_count_replay(PyObject *module, PyObject *label)
{
    return count_once(PyModule_GetState(module), label, MGP_WORD_REPLAYS);
}

PyObject *
py_module_count_unpooled(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "count_unpooled() takes a label and a reason");
        return NULL;
    }
    const char *reason = PyUnicode_AsUTF8(args[1]);
    if (reason == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < MGP_UNPOOLED_REASON_COUNT; i++) {
        if (strcmp(reason, mgp_unpooled_reason_names[i]) == 0) {
            return count_once(PyModule_GetState(module), args[0], MGP_WORD_UNPOOLED_CALLS + i);
        }
    }
    PyErr_Format(PyExc_ValueError, "not a reason of unpooled calls: %R", args[1]);
    return NULL;
}

PyObject *
py_module_set_retention(PyObject *module, PyObject *value)
{
    py_state *state = PyModule_GetState(module);
    unsigned long long seconds = PyLong_AsUnsignedLongLong(value);
    if (seconds == (unsigned long long)-1 && PyErr_Occurred()) {
        return NULL;
    }
    state->rows.forgetting.retention_s = seconds;
    Py_RETURN_NONE;
}

PyObject *
py_module_set_max_rows(PyObject *module, PyObject *value)
{
    py_state *state = PyModule_GetState(module);
    Py_ssize_t max_rows = PyLong_AsSsize_t(value);
    if (max_rows == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (max_rows < 1) {
        PyErr_SetString(PyExc_ValueError, "the bound on gateways must be at least 1");
        return NULL;
    }
    mgp_rows_set_max(&state->rows, (size_t)max_rows);
    Py_RETURN_NONE;
}

PyObject *
py_module_publish_limits(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    py_state *state = PyModule_GetState(module);
    static const enum mgp_process_word words[] = {
        MGP_PROCESS_MAX_SESSIONS_PER_KEY, MGP_PROCESS_MAX_TOTAL_SESSIONS,
        MGP_PROCESS_MAX_TOTAL_KEYS, MGP_PROCESS_ACQUIRE_TIMEOUT_SECONDS, MGP_PROCESS_PROCESSES};
    enum { LIMITS = sizeof(words) / sizeof(words[0]) };
    uint64_t values[LIMITS];
    if (nargs != LIMITS) {
        PyErr_Format(PyExc_TypeError, "publish_limits() takes %d arguments", LIMITS);
        return NULL;
    }
    for (size_t i = 0; i < LIMITS; i++) {
        values[i] = MGP_UNLIMITED;
        if (args[i] == Py_None) {
            continue;
        }
        values[i] = PyLong_AsUnsignedLongLong(args[i]);
        if (values[i] == UINT64_MAX && PyErr_Occurred()) {
            return NULL;
        }
    }
    for (size_t i = 0; i < LIMITS; i++) {
        mgp_atomic_store(&state->rows.process_words[words[i]], values[i]);
    }
    Py_RETURN_NONE;
}

/* ---- shared counters ---- */

PyObject *
py_module_use_directory(PyObject *module, PyObject *path)
{
    py_state *state = PyModule_GetState(module);
    PyObject *bytes;
    if (state->rows.directory != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the counters are shared already");
        return NULL;
    }
    if (!PyUnicode_FSConverter(path, &bytes)) {
        return NULL;
    }
    int status = mgp_rows_share(&state->rows, PyBytes_AS_STRING(bytes));
    Py_DECREF(bytes);
    if (status < 0) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

PyObject *
py_module_open_file(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_state *state = PyModule_GetState(module);
    mgp_rows_open_file(&state->rows);
    Py_RETURN_NONE;
}

PyObject *
py_module_share_rest(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_state *state = PyModule_GetState(module);
    mgp_rows_share_rest(&state->rows);
    Py_RETURN_NONE;
}

PyObject *
py_module_has_finished(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_state *state = PyModule_GetState(module);
    return PyBool_FromLong(state->has_finished);
}

/* Labels as the C side has them; the strings stay owned by the tuple. */
static struct mgp_label *
labels_of(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_GET_SIZE(tuple);
    struct mgp_label *labels = mgp_alloc_zeroed((size_t)count, sizeof(*labels));
    if (labels == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_ssize_t size;
        labels[i].bytes = PyUnicode_AsUTF8AndSize(PyTuple_GET_ITEM(tuple, i), &size);
        labels[i].size = (size_t)size;
        if (labels[i].bytes == NULL) {
            mgp_free(labels);
            return NULL;
        }
    }
    return labels;
}

PyObject *
py_module_fold(PyObject *module, PyObject *forgotten)
{
    py_state *state = PyModule_GetState(module);
    struct mgp_problems problems = {.count = 0};
    int status;
    size_t pending;
    if (!PyTuple_Check(forgotten)) {
        PyErr_SetString(PyExc_TypeError, "fold() takes a tuple of labels");
        return NULL;
    }
    if (state->rows.directory == NULL) {
        return PyLong_FromLong(0);
    }
    struct mgp_label *labels = labels_of(forgotten);
    if (labels == NULL) {
        return NULL;
    }
    struct mgp_archive_job job = {
        .path = state->rows.directory,
        .hash_key = state->hash_key,
        .max_rows = state->rows.max_rows,
        .forgotten = labels,
        .forgotten_count = (size_t)PyTuple_GET_SIZE(forgotten),
        .now_s = now_s(),
        .retention_s = state->rows.forgetting.retention_s,
        .has_hidden_rows = state->rows.failure.flaw != MGP_FLAW_NONE,
        .problems = &problems,
    };
    if (!PyThread_acquire_lock(state->fold_lock, NOWAIT_LOCK)) {
        mgp_free(labels);
        Py_RETURN_NONE; /* another thread does it */
    }
    state->has_finished = false;
    Py_BEGIN_ALLOW_THREADS
    status = mgp_archive_fold(&job, &pending);
    Py_END_ALLOW_THREADS
    PyThread_release_lock(state->fold_lock);
    keep_problems(state, &problems);
    mgp_free(labels);
    mgp_forgetting_upkeep(&state->rows, now_s()); /* what was taken goes */
    if (status < 0) {
        Py_RETURN_NONE;
    }
    return PyLong_FromSize_t(pending);
}

static int
append_problem(PyObject *list, const char *name, enum mgp_flaw flaw, int error)
{
    PyObject *entry =
        Py_BuildValue("(Nsi)", PyUnicode_DecodeFSDefault(name), mgp_flaw_text(flaw), error);
    int result = entry == NULL ? -1 : PyList_Append(list, entry);
    Py_XDECREF(entry);
    return result;
}

PyObject *
py_module_take_problems(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    py_state *state = PyModule_GetState(module);
    PyObject *list = PyList_New(0);
    if (list == NULL) {
        return NULL;
    }
    struct mgp_rows_failure failure = mgp_rows_take_failure(&state->rows);
    if (failure.flaw != MGP_FLAW_NONE) {
        char name[MGP_FILE_NAME_BYTES] = "";
        if (!mgp_file_id_equals(failure.id, (struct mgp_file_id){{0, 0}})) {
            mgp_file_name(name, MGP_NAME_PROCESS, failure.id);
        }
        errno = failure.error;
        mgp_problems_add(&state->problems, name, failure.flaw);
    }
    for (size_t i = 0; i < state->problems.count; i++) {
        const struct mgp_problem *problem = &state->problems.list[i];
        if (append_problem(list, problem->name, problem->flaw, problem->error) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    state->problems.count = 0;
    return list;
}
