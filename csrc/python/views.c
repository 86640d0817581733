/* Read views of one pool, and the table of series. */
#include "views.h"

#include <string.h>

#include "connection.h"
#include "loop.h"

static int
set_number(PyObject *dict, const char *name, uint64_t value)
{
    PyObject *number = PyLong_FromUnsignedLongLong(value);
    int result = number == NULL ? -1 : PyDict_SetItemString(dict, name, number);
    Py_XDECREF(number);
    return result;
}

PyObject *
py_pool_totals(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *result = PyDict_New();
    uint64_t totals[MGP_WORD_COUNT];
    if (result == NULL || py_pool_core(self) == NULL) {
        return result;
    }
    memcpy(totals, mgp_pool_totals(self->core), sizeof(totals));
    totals[MGP_WORD_IDLE_SESSIONS] = totals[MGP_WORD_SIZE] - totals[MGP_WORD_ACTIVE_SESSIONS];
    for (size_t i = 0; result != NULL && i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        const char *const *reasons = mgp_series_reasons(series->labels);
        if (series->kind != MGP_SERIES_COUNTER && series->kind != MGP_SERIES_GAUGE) {
            continue; /* of the whole process only */
        }
        if (reasons == NULL) {
            if (set_number(result, series->stem, totals[series->first_word]) < 0) {
                Py_CLEAR(result);
            }
            continue;
        }
        PyObject *by_reason = PyDict_New();
        for (size_t k = 0; by_reason != NULL && k < series->word_count; k++) {
            if (set_number(by_reason, reasons[k], totals[series->first_word + k]) < 0) {
                Py_CLEAR(by_reason);
            }
        }
        if (by_reason == NULL || PyDict_SetItemString(result, series->stem, by_reason) < 0) {
            Py_CLEAR(result);
        }
        Py_XDECREF(by_reason);
    }
    return result;
}

PyObject *
py_pool_counts(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    struct mgp_pool_counts counts = {0};
    if (py_pool_core(self) != NULL) {
        mgp_pool_read_counts(self->core, &counts);
    }
    return Py_BuildValue("{snsnsnsnsnsnsnsnsKsK}", "keys", (Py_ssize_t)counts.keys, "endpoints",
                         (Py_ssize_t)counts.endpoints, "waiters", (Py_ssize_t)counts.waiters,
                         "creating", (Py_ssize_t)counts.creating, "active",
                         (Py_ssize_t)counts.active, "idle", (Py_ssize_t)counts.idle, "checking",
                         (Py_ssize_t)counts.checking, "closing", (Py_ssize_t)counts.closing,
                         "keys_evicted", (unsigned long long)counts.keys_evicted, "sessions_reaped",
                         (unsigned long long)counts.sessions_reaped);
}

/* ---- keys: first all keys and records, then the objects, because making those may run
 * Python code that changes the pool ---- */

static int
append_view(void *payload, void *context)
{
    PyObject *view = py_connection_view(payload); /* borrowed */
    return view == NULL ? 0 : PyList_Append(context, view);
}

static int
append_key(const struct mgp_key_view *view, void *context)
{
    int result = -1;
    PyObject *idle = PyList_New(0);
    PyObject *leased = PyList_New(0);
    PyObject *bytes = PyBytes_FromStringAndSize(view->key.bytes, (Py_ssize_t)view->key.size);
    PyObject *entry = NULL;
    if (idle == NULL || leased == NULL || bytes == NULL ||
        mgp_key_visit_sessions(view, MGP_SESSIONS_IDLE, append_view, idle) != 0 ||
        mgp_key_visit_sessions(view, MGP_SESSIONS_LEASED, append_view, leased) != 0) {
        goto done;
    }
    entry = PyTuple_Pack(3, bytes, idle, leased);
    result = entry == NULL ? -1 : PyList_Append(context, entry);
done:
    Py_XDECREF(entry);
    Py_XDECREF(bytes);
    Py_XDECREF(leased);
    Py_XDECREF(idle);
    return result;
}

PyObject *
py_pool_keys(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    PyObject *entries = PyList_New(0);
    if (entries == NULL || py_pool_core(self) == NULL) {
        return entries;
    }
    /* Allocating may collect garbage, and finalizers may call the pool: not now. */
    int was_enabled = PyGC_Disable();
    int status = mgp_pool_visit_keys(self->core, append_key, entries);
    if (was_enabled) {
        PyGC_Enable();
    }
    for (Py_ssize_t i = 0; status == 0 && i < PyList_GET_SIZE(entries); i++) {
        PyObject *entry = PyList_GET_ITEM(entries, i);
        PyObject *bytes = PyTuple_GET_ITEM(entry, 0);
        PyObject *parts =
            py_key_describe(PyBytes_AS_STRING(bytes), (size_t)PyBytes_GET_SIZE(bytes));
        PyObject *described = parts == NULL ? NULL
                                            : PyTuple_Pack(3, parts, PyTuple_GET_ITEM(entry, 1),
                                                           PyTuple_GET_ITEM(entry, 2));
        Py_XDECREF(parts);
        status = described == NULL ? -1 : PyList_SetItem(entries, i, described);
    }
    if (status != 0) {
        Py_CLEAR(entries);
    }
    return entries;
}

struct breaker_list {
    PyObject *list;
    int64_t now_ns;
};

static int
append_breaker(const struct mgp_endpoint_view *view, void *context)
{
    const struct breaker_list *breakers = context;
    PyObject *entry, *until;
    PyObject *url = PyUnicode_DecodeUTF8(view->endpoint.bytes, (Py_ssize_t)view->endpoint.size,
                                         "surrogatepass");
    if (url == NULL) {
        return -1;
    }
    until =
        view->is_open
            ? PyFloat_FromDouble((double)(view->open_until_ns - breakers->now_ns) / NS_PER_SECOND)
            : Py_NewRef(Py_None);
    if (until == NULL) {
        Py_DECREF(url);
        return -1;
    }
    entry = Py_BuildValue("(NIN)", url, view->failures, until);
    int result = entry == NULL ? -1 : PyList_Append(breakers->list, entry);
    Py_XDECREF(entry);
    return result;
}

PyObject *
py_pool_breakers(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    struct breaker_list breakers = {PyList_New(0), self->now_ns};
    if (breakers.list == NULL || py_pool_core(self) == NULL) {
        return breakers.list;
    }
    if (py_pool_now(self, &breakers.now_ns) < 0) {
        Py_DECREF(breakers.list);
        return NULL;
    }
    if (py_pool_core(self) == NULL) {
        return breakers.list; /* the clock has forked */
    }
    int was_enabled = PyGC_Disable();
    int status = mgp_pool_visit_breakers(self->core, append_breaker, &breakers);
    if (was_enabled) {
        PyGC_Enable();
    }
    if (status != 0) {
        Py_CLEAR(breakers.list);
    }
    return breakers.list;
}

const char *
py_series_kind_name(enum mgp_series_kind kind)
{
    switch (kind) {
    case MGP_SERIES_COUNTER:
        return "counter";
    case MGP_SERIES_GAUGE:
        return "gauge";
    case MGP_SERIES_AGE:
        return "age";
    case MGP_SERIES_DURATION:
        return "duration";
    case MGP_SERIES_HISTOGRAM:
        break;
    }
    return "histogram";
}

PyObject *
py_series_table(void)
{
    PyObject *table = PyTuple_New((Py_ssize_t)mgp_series_count);
    for (size_t i = 0; table != NULL && i < mgp_series_count; i++) {
        const struct mgp_series *series = &mgp_series_table[i];
        const char *const *reasons = mgp_series_reasons(series->labels);
        PyObject *values = PyTuple_New(reasons == NULL ? 0 : (Py_ssize_t)series->word_count);
        for (size_t k = 0; values != NULL && reasons != NULL && k < series->word_count; k++) {
            PyObject *reason = PyUnicode_FromString(reasons[k]);
            if (reason == NULL) {
                Py_CLEAR(values);
            } else {
                PyTuple_SET_ITEM(values, (Py_ssize_t)k, reason);
            }
        }
        PyObject *entry =
            values == NULL
                ? NULL
                : Py_BuildValue("(ssNsn)", series->stem, py_series_kind_name(series->kind), values,
                                series->help, (Py_ssize_t)series->first_word);
        if (entry == NULL) {
            Py_CLEAR(table);
        } else {
            PyTuple_SET_ITEM(table, (Py_ssize_t)i, entry);
        }
    }
    return table;
}
