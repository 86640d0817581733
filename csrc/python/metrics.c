/* What is shown of the counters: buckets, and the text exposition. */
#include "metrics.h"

#include <string.h>

#include "../base/status.h"
#include "../metrics/text.h"
#include "snapshot.h"
#include "state.h"
#include "views.h"

/* ---- buckets ---------------------------------------------------------------- */

static const char *
stem_of(const struct mgp_histogram *histogram)
{
    for (size_t i = 0; i < mgp_series_count; i++) {
        if (mgp_series_table[i].first_word == histogram->first_word) {
            return mgp_series_table[i].stem;
        }
    }
    return NULL;
}

PyObject *
py_module_buckets(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyDict_New();
    for (size_t i = 0; result != NULL && i < MGP_HISTOGRAM_COUNT; i++) {
        const struct mgp_histogram *histogram = &mgp_histograms[i];
        PyObject *texts = PyTuple_New((Py_ssize_t)histogram->count);
        for (size_t k = 0; texts != NULL && k < histogram->count; k++) {
            PyObject *text = PyUnicode_FromString(histogram->texts[k]);
            if (text == NULL) {
                Py_CLEAR(texts);
            } else {
                PyTuple_SET_ITEM(texts, (Py_ssize_t)k, text);
            }
        }
        if (texts == NULL || PyDict_SetItemString(result, stem_of(histogram), texts) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(texts);
    }
    return result;
}

/* set_buckets(stem, ((bound_ns, text), ...)) */
PyObject *
py_module_set_buckets(PyObject *module, PyObject *args)
{
    py_state *state = PyModule_GetState(module);
    const char *stem, *texts[MGP_BUCKETS_MAX] = {NULL};
    uint64_t bounds_ns[MGP_BUCKETS_MAX] = {0};
    PyObject *bounds; /* borrowed */
    if (!PyArg_ParseTuple(args, "sO!:set_buckets", &stem, &PyTuple_Type, &bounds)) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_GET_SIZE(bounds);
    for (Py_ssize_t i = 0; i < count && i < MGP_BUCKETS_MAX; i++) {
        unsigned long long bound_ns;
        if (!PyArg_ParseTuple(PyTuple_GET_ITEM(bounds, i), "Ks", &bound_ns, &texts[i])) {
            return NULL;
        }
        bounds_ns[i] = bound_ns;
    }
    /* The file's header and its name say which buckets its words are of. */
    if (state->rows.count > 0 || state->rows.overflow != NULL ||
        mgp_segment_is_open(&state->rows.segment)) {
        PyErr_SetString(PyExc_RuntimeError,
                        "buckets must be set before the first pool of the process is made");
        return NULL;
    }
    for (size_t i = 0; i < MGP_HISTOGRAM_COUNT; i++) {
        if (strcmp(stem_of(&mgp_histograms[i]), stem) == 0 &&
            mgp_histogram_set_bounds((enum mgp_histogram_id)i, bounds_ns, texts, (size_t)count) ==
                MGP_OK) {
            Py_RETURN_NONE;
        }
    }
    PyErr_SetString(PyExc_ValueError, "no such histogram, or bounds that do not ascend");
    return NULL;
}

/* ---- the text --------------------------------------------------------------- */

#define NAMES_MAX 128

/* Which samples a container of names asks for: 0 or -1. */
static int
select_names(PyObject *names, bool selected[NAMES_MAX])
{
    char name[MGP_TEXT_NAME_BYTES];
    for (size_t i = 0; mgp_text_sample_name(i, name); i++) {
        PyObject *string = PyUnicode_FromString(name);
        int is_selected = string == NULL ? -1 : PySequence_Contains(names, string);
        Py_XDECREF(string);
        if (is_selected < 0) {
            return -1;
        }
        MGP_ASSERT(i < NAMES_MAX);
        selected[i] = is_selected != 0;
    }
    return 0;
}

/* Between two pieces of the page. New reference, or NULL. */
static PyObject *
write_text(const struct mgp_text *text, PyObject *before, PyObject *after)
{
    size_t before_size = (size_t)PyBytes_GET_SIZE(before);
    size_t after_size = (size_t)PyBytes_GET_SIZE(after);
    size_t bound = before_size + mgp_text_bound(text) + after_size;
    if (bound > PY_SSIZE_T_MAX) {
        return PyErr_NoMemory();
    }
    PyObject *page = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bound);
    if (page == NULL) {
        return NULL;
    }
    char *start = PyBytes_AS_STRING(page), *end;
    Py_BEGIN_ALLOW_THREADS
    memcpy(start, PyBytes_AS_STRING(before), before_size);
    end = mgp_text_write(text, start + before_size);
    memcpy(end, PyBytes_AS_STRING(after), after_size);
    Py_END_ALLOW_THREADS(void)
    _PyBytes_Resize(&page, end - start + (Py_ssize_t)after_size); /* NULL on failure */
    return page;
}

/* What a dict says is the name of each row's gateway, into the rows: 0 or -1. The bytes are the
 * dict's. */
static int
put_gateway_names(struct mgp_snapshot *snapshot, PyObject *gateway_names)
{
    for (size_t i = 0; PyDict_GET_SIZE(gateway_names) > 0 && i < snapshot->row_count; i++) {
        struct mgp_snapshot_row *row = &snapshot->rows[i];
        PyObject *label = py_row_label(row);
        PyObject *name = label == NULL ? NULL : PyDict_GetItemWithError(gateway_names, label);
        Py_XDECREF(label);
        if (name == NULL && PyErr_Occurred()) {
            return -1;
        }
        if (name == NULL) {
            continue;
        }
        Py_ssize_t size;
        row->name = (const uint8_t *)PyUnicode_AsUTF8AndSize(name, &size);
        if (row->name == NULL) {
            return -1;
        }
        row->name_size = (size_t)size;
    }
    return 0;
}

/* text(before, after, is_openmetrics, names, gateway_names) */
PyObject *
py_module_text(PyObject *module, PyObject *args)
{
    py_state *state = PyModule_GetState(module);
    PyObject *before, *after, *names, *known; /* borrowed */
    PyObject *gateway_names, *page = NULL;    /* owned */
    int is_openmetrics, status;
    bool selected[NAMES_MAX] = {false};
    struct mgp_snapshot snapshot;
    struct mgp_text text;
    if (!PyArg_ParseTuple(args, "SSpOO!:text", &before, &after, &is_openmetrics, &names,
                          &PyDict_Type, &known) ||
        (names != Py_None && select_names(names, selected) < 0)) {
        return NULL;
    }
    /* Nobody changes a copy while the text borrows from it. */
    gateway_names = PyDict_Copy(known);
    if (gateway_names == NULL || py_snapshot_take(state, &snapshot) < 0) {
        Py_XDECREF(gateway_names);
        return NULL;
    }
    if (put_gateway_names(&snapshot, gateway_names) < 0) {
        goto done;
    }
    int64_t now_ns = py_monotonic_ns();
    Py_BEGIN_ALLOW_THREADS
    status = mgp_text_init(&text, &snapshot, now_ns,
                           is_openmetrics ? MGP_TEXT_OPENMETRICS : MGP_TEXT_CLASSIC,
                           names == Py_None ? NULL : selected);
    Py_END_ALLOW_THREADS
    if (status < 0) {
        PyErr_NoMemory();
    } else {
        page = write_text(&text, before, after);
    }
    mgp_text_fini(&text);
done:
    mgp_snapshot_fini(&snapshot);
    Py_DECREF(gateway_names);
    return page;
}

/* (stem, kind, help) of the series that says the names of gateways */
PyObject *
py_gateway_info_series(void)
{
    return Py_BuildValue("(sss)", MGP_GATEWAY_INFO_STEM, "gauge", MGP_GATEWAY_INFO_HELP);
}

/* ((stem, kind, help), ...) of the series that the process has as a whole */
PyObject *
py_process_series_table(void)
{
    PyObject *table = PyTuple_New(MGP_PROCESS_WORD_COUNT);
    for (Py_ssize_t i = 0; table != NULL && i < MGP_PROCESS_WORD_COUNT; i++) {
        const struct mgp_process_series *series = &mgp_process_series_table[i];
        PyObject *entry =
            Py_BuildValue("(sss)", series->stem, py_series_kind_name(series->kind), series->help);
        if (entry == NULL) {
            Py_CLEAR(table);
        } else {
            PyTuple_SET_ITEM(table, i, entry);
        }
    }
    return table;
}
