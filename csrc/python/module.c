/* mcpgateway_pool._core: multi-phase initialisation, heap types, all state in the module. */
#include "state.h"

#include <string.h>

#ifdef MGP_DEBUG
#include "../base/alloc.h"
#endif
#include "checkout.h"
#include "connection.h"
#include "hooks.h"
#include "key.h"
#include "metrics.h"
#include "pending.h"
#include "pool.h"
#include "pooled_session.h"
#include "session_context.h"
#include "snapshot.h"
#include "ticket.h"
#include "views.h"

static PyObject *
py_module_after_fork(PyObject *module, PyObject *Py_UNUSED(ignored))
{
    if (py_counters_after_fork(PyModule_GetState(module)) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyMethodDef core_methods[] = {
    {"acquire", (PyCFunction)(void (*)(void))py_module_acquire, METH_FASTCALL,
     PyDoc_STR("acquire(pool, url, headers, transport_type, user_identity, gateway_id, "
               "is_anonymous=False, /)\n--\n\n"
               "A session at once, or a Pending.")},
    {"release", (PyCFunction)(void (*)(void))py_module_release, METH_FASTCALL,
     PyDoc_STR("release(pool, pooled, verdict, /)\n--\n\n"
               "None; the task that closes the session; False when it was not checked out;\n"
               "NotImplemented when it is not of this pool.")},
    {"make_context", (PyCFunction)(void (*)(void))py_module_make_context, METH_FASTCALL,
     PyDoc_STR(
         "make_context(cls, pool, url, headers, transport_type, httpx_client_factory, timeout,\n"
         "             user_identity, gateway_id, wait_timeout, /)\n--\n\n"
         "A session context of this class.")},
    {"enter", py_module_enter, METH_O,
     PyDoc_STR("enter(context, /)\n--\n\n"
               "A session at once, or a Pending; NotImplemented where acquire() or release()\n"
               "is overridden.")},
    {"leave", py_module_leave, METH_O,
     PyDoc_STR("leave(context, /)\n--\n\n"
               "None where the session of enter() went back; NotImplemented where that is for\n"
               "Python to find out; else what release() returns.")},
    {"row_labels", py_module_row_labels, METH_NOARGS,
     PyDoc_STR("row_labels()\n--\n\n"
               "The labels of all rows that a snapshot has.")},
    {"snapshot", py_module_snapshot, METH_NOARGS,
     PyDoc_STR("snapshot()\n--\n\n"
               "([(gateway label, words), ...], words of the process), all of one moment;\n"
               "with shared counters, of all processes together.")},
    {"forget_row", py_module_forget_row, METH_O,
     PyDoc_STR("forget_row(label, /)\n--\n\n"
               "Drops the row of a gateway label; False while something of it is open.")},
    {"count_replay", py_module_count_replay, METH_O,
     PyDoc_STR("count_replay(label, /)\n--\n\nCount a request that is sent once more.")},
    {"count_unpooled", (PyCFunction)(void (*)(void))py_module_count_unpooled, METH_FASTCALL,
     PyDoc_STR("count_unpooled(label, reason, /)\n--\n\n"
               "Count a call that goes the gateway's own way.")},
    {"set_max_rows", py_module_set_max_rows, METH_O,
     PyDoc_STR("set_max_rows(count, /)\n--\n\nBounds the gateway labels to come.")},
    {"set_retention", py_module_set_retention, METH_O,
     PyDoc_STR("set_retention(seconds, /)\n--\n\n"
               "Forgets labels that nobody counted in for so long; 0: none.")},
    {"buckets", py_module_buckets, METH_NOARGS,
     PyDoc_STR("buckets()\n--\n\nThe finite bounds of each histogram: stem -> (le, ...).")},
    {"set_buckets", py_module_set_buckets, METH_VARARGS,
     PyDoc_STR("set_buckets(stem, bounds, /)\n--\n\n"
               "Replaces the bounds of a histogram: ((nanoseconds, le), ...).")},
    {"text", py_module_text, METH_VARARGS,
     PyDoc_STR("text(before, after, is_openmetrics, names, gateway_names, /)\n--\n\n"
               "The text of all series, or of the samples of these names, between two texts;\n"
               "with the names of gateways by label.")},
    {"publish_limits", (PyCFunction)(void (*)(void))py_module_publish_limits, METH_FASTCALL,
     PyDoc_STR("publish_limits(max_sessions_per_key, max_total_sessions, max_total_keys,\n"
               "acquire_timeout_ns, processes, /)\n--\n\n"
               "What the pools of this process may do together; None: unlimited.")},
    {"use_directory", py_module_use_directory, METH_O,
     PyDoc_STR("use_directory(path, /)\n--\n\n"
               "Shares the rows to come with other processes, through a file there. Once.")},
    {"open_file", py_module_open_file, METH_NOARGS,
     PyDoc_STR("open_file()\n--\n\n"
               "Makes this process's file of shared counters, where there is to be one.")},
    {"share_rest", py_module_share_rest, METH_NOARGS,
     PyDoc_STR("share_rest()\n--\n\n"
               "Tries again to bring everything that was counted into that file.")},
    {"has_finished", py_module_has_finished, METH_NOARGS,
     PyDoc_STR("has_finished()\n--\n\n"
               "Whether the last snapshot saw something to fold.")},
    {"fold", py_module_fold, METH_O,
     PyDoc_STR("fold(forgotten, /)\n--\n\n"
               "Folds the files of finished processes into the archive, and has these labels\n"
               "forgotten by all processes. How many of them others count in still, which do it\n"
               "when nothing of them is open; None when all is to be tried again.")},
    {"take_problems", py_module_take_problems, METH_NOARGS,
     PyDoc_STR("take_problems()\n--\n\n"
               "[(file name or '', what, errno or 0), ...] since this was called last.")},
    {"session_header", py_key_session_header, METH_O,
     PyDoc_STR("session_header(headers, /)\n--\n\n"
               "The value of x-mcp-session-id, in any case; None where it is missing or empty,\n"
               "and for what is no dict.")},
    {"remember_hooks", py_module_remember_hooks, METH_O,
     PyDoc_STR("remember_hooks(cls, /)\n--\n\nWhat this class defines is not an override.")},
    {"after_fork", py_module_after_fork, METH_NOARGS,
     PyDoc_STR("after_fork()\n--\n\nIn a forked child: rows of its own, all zero.")},
    {NULL, NULL, 0, NULL},
};

/* ---- initialisation --------------------------------------------------------- */

static int
import_name(PyObject **where, const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL) {
        return -1;
    }
    *where = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *where == NULL ? -1 : 0;
}

static int
import_names(py_state *state)
{
    const struct {
        PyObject **where;
        const char *module;
        const char *name;
    } names[] = {
        {&state->transport_class, "mcpgateway_pool.config", "TransportType"},
        {&state->closed_error, "mcpgateway_pool.errors", "PoolClosedError"},
        {&state->exhausted_error, "mcpgateway_pool.errors", "PoolExhaustedError"},
        {&state->gateway_label, "mcpgateway_pool.labels", "gateway_label"},
        {&state->safe_url, "mcpgateway_pool.redact", "safe_url"},
        {&state->is_known_to_be_closed, "mcpgateway_pool.upstream.sdk", "is_known_to_be_closed"},
        {&state->get_running_loop, "asyncio", "get_running_loop"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (import_name(names[i].where, names[i].module, names[i].name) < 0) {
            return -1;
        }
    }
    state->transport_sse = PyObject_GetAttrString(state->transport_class, "SSE");
    state->transport_streamable_http =
        PyObject_GetAttrString(state->transport_class, "STREAMABLE_HTTP");
    return state->transport_sse == NULL || state->transport_streamable_http == NULL ? -1 : 0;
}

static int
intern_names(py_state *state)
{
    const struct {
        PyObject **where;
        const char *name;
    } names[] = {
        {&state->hook_names[PY_HOOK_VALIDATE_SESSION], "_validate_session"},
        {&state->hook_names[PY_HOOK_COMPUTE_IDENTITY_HASH], "_compute_identity_hash"},
        {&state->hook_names[PY_HOOK_MAKE_POOL_KEY], "_make_pool_key"},
        {&state->hook_names[PY_HOOK_ACQUIRE], "acquire"},
        {&state->hook_names[PY_HOOK_RELEASE], "release"},
        {&state->str_set_result, "set_result"},
        {&state->str_done, "done"},
        {&state->str_is_closed, "is_closed"},
        {&state->str_create_future, "create_future"},
        {&state->str_call_soon_threadsafe, "call_soon_threadsafe"},
        {&state->str_on_close, "_on_close"},
        {&state->str_on_check, "_on_check"},
        {&state->str_on_create, "_on_create"},
        {&state->str_on_long_checkout, "_on_long_checkout"},
        {&state->str_trace_of_caller, "_trace_of_caller"},
        {&state->str_circuit_open_error, "_circuit_open_error"},
        {&state->str_arm_timer, "_arm_timer"},
        {&state->str_reap_leaks, "_reclaim_leaked"},
        {&state->str_run_effects, "_run_effects"},
        {&state->str_forget_loop, "_forget_loop"},
        {&state->str_leave_to_parent, "_leave_to_parent"},
        {&state->str_extract_identity, "_extract_identity"},
    };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        *names[i].where = PyUnicode_InternFromString(names[i].name);
        if (*names[i].where == NULL) {
            return -1;
        }
    }
    return 0;
}

/* A key of the process, from the operating system: nobody outside can choose collisions. */
static int
make_hash_key(py_state *state)
{
    PyObject *urandom = NULL, *bytes = NULL;
    int result = -1;
    if (import_name(&urandom, "os", "urandom") < 0) {
        return -1;
    }
    bytes = PyObject_CallFunction(urandom, "i", (int)sizeof(state->hash_key));
    if (bytes != NULL && PyBytes_Check(bytes) &&
        PyBytes_GET_SIZE(bytes) == (Py_ssize_t)sizeof(state->hash_key)) {
        memcpy(&state->hash_key, PyBytes_AS_STRING(bytes), sizeof(state->hash_key));
        result = 0;
    }
    Py_XDECREF(bytes);
    Py_DECREF(urandom);
    return result;
}

static int
add_type(PyObject *module, PyTypeObject **where, PyType_Spec *spec, bool is_public)
{
    *where = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    if (*where == NULL) {
        return -1;
    }
    return is_public ? PyModule_AddType(module, *where) : 0;
}

/* Steals the reference, which may be NULL. */
static int
add_table(PyObject *module, const char *name, PyObject *table)
{
    int result = table == NULL ? -1 : PyModule_AddObjectRef(module, name, table);
    Py_XDECREF(table);
    return result;
}

#ifdef MGP_DEBUG
static void *
python_realloc(void *Py_UNUSED(context), void *block, size_t size)
{
    return PyMem_RawRealloc(block, size);
}

static void
python_free(void *Py_UNUSED(context), void *block)
{
    PyMem_RawFree(block);
}

/* Debug builds take all memory from Python: what checks its blocks then checks ours, and
 * what makes its n-th allocation fail makes ours fail. Raw: some of it is without the GIL. */
static void
use_python_memory(void)
{
    static const struct mgp_allocator allocator = {python_realloc, python_free, NULL};
    mgp_allocator_set(&allocator);
}
#endif

static int
core_exec(PyObject *module)
{
    py_state *state = PyModule_GetState(module);
#ifdef MGP_DEBUG
    use_python_memory();
#endif
    if (py_watch_forks() < 0 || make_hash_key(state) < 0 || intern_names(state) < 0 ||
        import_names(state) < 0) {
        return -1;
    }
    if (py_counters_init(state) < 0) {
        return -1;
    }
    if (add_type(module, &state->connection_type, &py_connection_spec, false) < 0 ||
        add_type(module, &state->pooled_session_type, &py_pooled_session_spec, true) < 0 ||
        add_type(module, &state->pending_type, &py_pending_spec, true) < 0 ||
        add_type(module, &state->ticket_type, &py_ticket_spec, true) < 0 ||
        add_type(module, &state->pool_type, &py_pool_spec, true) < 0 ||
        add_type(module, &state->session_context_type, &py_session_context_spec, true) < 0) {
        return -1;
    }
    if (add_table(module, "SERIES", py_series_table()) < 0 ||
        add_table(module, "PROCESS_SERIES", py_process_series_table()) < 0 ||
        add_table(module, "GATEWAY_INFO_SERIES", py_gateway_info_series()) < 0 ||
        PyModule_AddStringConstant(module, "OVERFLOW_LABEL", MGP_ROWS_OVERFLOW_LABEL) < 0 ||
        PyModule_AddIntConstant(module, "BUCKETS_MAX", MGP_BUCKETS_MAX) < 0 ||
        PyModule_AddIntConstant(module, "VERDICT_GOOD", MGP_VERDICT_GOOD) < 0 ||
        PyModule_AddIntConstant(module, "VERDICT_DISCARD", MGP_VERDICT_DISCARD) < 0 ||
        PyModule_AddIntConstant(module, "VERDICT_BROKEN", MGP_VERDICT_BROKEN) < 0) {
        return -1;
    }
    return 0;
}

static int
core_traverse(PyObject *module, visitproc visit, void *arg)
{
    py_state *state = PyModule_GetState(module);
    Py_VISIT(state->pool_type);
    Py_VISIT(state->pooled_session_type);
    Py_VISIT(state->connection_type);
    Py_VISIT(state->pending_type);
    Py_VISIT(state->ticket_type);
    Py_VISIT(state->session_context_type);
    Py_VISIT(state->transport_class);
    Py_VISIT(state->transport_sse);
    Py_VISIT(state->transport_streamable_http);
    Py_VISIT(state->exhausted_error);
    Py_VISIT(state->is_known_to_be_closed);
    Py_VISIT(state->closed_error);
    Py_VISIT(state->get_running_loop);
    Py_VISIT(state->gateway_label);
    Py_VISIT(state->safe_url);
    for (int i = 0; i < PY_HOOK_COUNT; i++) {
        Py_VISIT(state->hook_originals[i]);
    }
    return 0;
}

static int
core_clear(PyObject *module)
{
    py_state *state = PyModule_GetState(module);
    Py_CLEAR(state->pool_type);
    Py_CLEAR(state->pooled_session_type);
    Py_CLEAR(state->connection_type);
    Py_CLEAR(state->pending_type);
    Py_CLEAR(state->ticket_type);
    Py_CLEAR(state->session_context_type);
    Py_CLEAR(state->transport_class);
    Py_CLEAR(state->transport_sse);
    Py_CLEAR(state->transport_streamable_http);
    Py_CLEAR(state->exhausted_error);
    Py_CLEAR(state->is_known_to_be_closed);
    Py_CLEAR(state->closed_error);
    Py_CLEAR(state->get_running_loop);
    Py_CLEAR(state->gateway_label);
    Py_CLEAR(state->safe_url);
    for (int i = 0; i < PY_HOOK_COUNT; i++) {
        Py_CLEAR(state->hook_originals[i]);
        Py_CLEAR(state->hook_names[i]);
    }
    Py_CLEAR(state->str_set_result);
    Py_CLEAR(state->str_done);
    Py_CLEAR(state->str_is_closed);
    Py_CLEAR(state->str_create_future);
    Py_CLEAR(state->str_call_soon_threadsafe);
    Py_CLEAR(state->str_on_close);
    Py_CLEAR(state->str_on_check);
    Py_CLEAR(state->str_on_create);
    Py_CLEAR(state->str_on_long_checkout);
    Py_CLEAR(state->str_trace_of_caller);
    Py_CLEAR(state->str_circuit_open_error);
    Py_CLEAR(state->str_arm_timer);
    Py_CLEAR(state->str_reap_leaks);
    Py_CLEAR(state->str_run_effects);
    Py_CLEAR(state->str_forget_loop);
    Py_CLEAR(state->str_leave_to_parent);
    Py_CLEAR(state->str_extract_identity);
    return 0;
}

static void
core_free(void *module)
{
    py_state *state = PyModule_GetState(module);
    (void)core_clear(module);
    py_counters_fini(state);
}

static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030c0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

PyDoc_STRVAR(core_doc, "The pool machine and its counters. Use mcpgateway_pool instead.");

struct PyModuleDef py_module_definition = {
    PyModuleDef_HEAD_INIT,       .m_name = "mcpgateway_pool._core",
    .m_doc = core_doc,           .m_size = sizeof(py_state),
    .m_methods = core_methods,   .m_slots = core_slots,
    .m_traverse = core_traverse, .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC
PyInit__core(void)
{
    return PyModuleDef_Init(&py_module_definition);
}
