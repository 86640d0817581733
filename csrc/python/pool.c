#include "pool.h"

#include "../base/alloc.h"
#include "answers.h"
#include "checkout.h"
#include "connection.h"
#include "effects.h"
#include "hooks.h"
#include "key.h"
#include "leaks.h"
#include "loop.h"
#include "pending.h"
#include "sharing.h"
#include "snapshot.h"
#include "views.h"

/* Units of upkeep between two turns of the event loop: half a millisecond at most, with
 * the tasks that they start. */
#define UPKEEP_BUDGET 8

/* ---- life ------------------------------------------------------------------- */

static PyObject *
py_pool_new(PyTypeObject *type, PyObject *Py_UNUSED(args), PyObject *Py_UNUSED(kwargs))
{
    py_state *state = py_state_of_type(type);
    PyObject *no_arguments = state == NULL ? NULL : PyTuple_New(0);
    if (no_arguments == NULL) {
        return NULL;
    }
    /* Not tp_alloc: only this sets up the instance's attributes in the way that the
     * interpreter's fast paths for method calls expect. */
    py_pool *self = (py_pool *)PyBaseObject_Type.tp_new(type, no_arguments, NULL);
    Py_DECREF(no_arguments);
    if (self == NULL) {
        return NULL;
    }
    self->state = state;
    self->armed_ns = INT64_MAX;
    self->now_ns = INT64_MIN;
    self->foreign = PyDict_New();
    if (self->foreign == NULL) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static int
setup_identity(py_pool *self, PyObject *names, int isolate_by_session, PyObject *extractor)
{
    Py_ssize_t count = PyTuple_GET_SIZE(names);
    if (count > UINT8_MAX) {
        PyErr_SetString(PyExc_ValueError, "identity_headers must be at most 255 names");
        return -1;
    }
    py_header_name *views = mgp_alloc((size_t)count * sizeof(*views));
    if (views == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    mgp_free(self->identity.views);
    self->identity.views = views;
    for (size_t size = 0; size <= PY_HEADER_NAME_MAX; size++) {
        self->identity.first_of_size[size] = -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *name = PyTuple_GET_ITEM(names, i);
        if (!PyUnicode_Check(name) || !PyUnicode_IS_COMPACT_ASCII(name)) {
            PyErr_SetString(PyExc_ValueError, "identity_headers must be ASCII str");
            return -1;
        }
        views[i].bytes = (const char *)PyUnicode_1BYTE_DATA(name);
        views[i].size = PyUnicode_GET_LENGTH(name);
        if (views[i].size > PY_HEADER_NAME_MAX) {
            PyErr_Format(PyExc_ValueError, "identity_headers must be at most %d characters long",
                         PY_HEADER_NAME_MAX);
            return -1;
        }
        views[i].next_of_size = self->identity.first_of_size[views[i].size];
        self->identity.first_of_size[views[i].size] = (int)i;
    }
    self->identity.count = count;
    Py_XSETREF(self->identity.names, Py_NewRef(names));
    self->identity.isolate_by_session = isolate_by_session != 0;
    Py_XSETREF(self->identity.extractor, extractor == Py_None ? NULL : Py_NewRef(extractor));
    return 0;
}

/* Durations in nanoseconds. What is no setting (leases, hash key, seed) is left as it is. */
static int
read_config(PyObject *limits, PyObject *times, PyObject *breaker, struct mgp_config *config)
{
    long long lifetime_ns, idle_ns, health_ns, reset_ns, leak_detection_ns;
    int replaces_sessions;
    if (!PyArg_ParseTuple(limits, "IIIIII;limits", &config->max_sessions_per_key,
                          &config->max_total_sessions, &config->max_total_keys,
                          &config->max_waiters_per_key, &config->max_creating_per_endpoint,
                          &config->min_idle_per_key) ||
        !PyArg_ParseTuple(times, "LLLdIpL;times", &lifetime_ns, &idle_ns, &health_ns,
                          &config->lifetime_jitter, &config->checks_per_second, &replaces_sessions,
                          &leak_detection_ns) ||
        !PyArg_ParseTuple(breaker, "ILI;breaker", &config->breaker_threshold, &reset_ns,
                          &config->max_remembered_endpoints)) {
        return -1;
    }
    config->lifetime_ns = lifetime_ns;
    config->replaces_sessions = replaces_sessions != 0;
    config->idle_timeout_ns = idle_ns;
    config->health_interval_ns = health_ns;
    config->breaker_reset_ns = reset_ns;
    config->leak_detection_ns = leak_detection_ns;
    return 0;
}

PyDoc_STRVAR(setup_doc,
             "_setup($self, /, *, limits, times, breaker, identity, clock)\n--\n\n"
             "Once, from __init__(), with values that were checked. Times in nanoseconds.");

static PyObject *
py_pool_setup(py_pool *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limits", "times", "breaker", "identity", "clock", NULL};
    struct mgp_config config = {.max_leases_per_session = 1};
    PyObject *limits, *times, *breaker, *identity_names, *extractor, *clock; /* borrowed */
    int isolate_by_session;
    if (self->core != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "a session pool cannot be initialised twice");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$O!O!O!(O!pO)O:_setup", names, &PyTuple_Type,
                                     &limits, &PyTuple_Type, &times, &PyTuple_Type, &breaker,
                                     &PyTuple_Type, &identity_names, &isolate_by_session,
                                     &extractor, &clock) ||
        read_config(limits, times, breaker, &config) < 0) {
        return NULL;
    }
    config.hash_key = self->state->hash_key;
    config.random_seed = self->state->hash_key.k0 ^ (uint64_t)(uintptr_t)self;
    if (setup_identity(self, identity_names, isolate_by_session, extractor) < 0) {
        return NULL;
    }
    if (self->core != NULL) { /* reading the arguments may have run anything */
        PyErr_SetString(PyExc_RuntimeError, "a session pool cannot be initialised twice");
        return NULL;
    }
    self->config = config;
    self->keeps_arguments = config.replaces_sessions || config.min_idle_per_key > 0;
    Py_XSETREF(self->clock, clock == Py_None ? NULL : Py_NewRef(clock));
    if (mgp_pool_new(&config, &self->core) < 0) {
        return PyErr_NoMemory();
    }
    self->machine = py_machine_next_number();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(configure_doc,
             "_configure($self, /, *, limits, times, breaker, extractor)\n--\n\n"
             "Changes settings of a pool that is in use, as _setup() takes them. A lifetime\n"
             "holds for sessions opened later. The identity headers cannot be changed: keys\n"
             "refer to them by number.");

static PyObject *
py_pool_configure(py_pool *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limits", "times", "breaker", "extractor", NULL};
    struct mgp_config config = self->config;
    PyObject *limits, *times, *breaker, *extractor; /* borrowed */
    if (self->core == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "MCPSessionPool.__init__() was not called");
        return NULL;
    }
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "$O!O!O!O:_configure", names, &PyTuple_Type,
                                     &limits, &PyTuple_Type, &times, &PyTuple_Type, &breaker,
                                     &extractor) ||
        read_config(limits, times, breaker, &config) < 0) {
        return NULL;
    }
    self->config = config;
    self->keeps_arguments = config.replaces_sessions || config.min_idle_per_key > 0;
    self->hooks_version = 0; /* leak detection, perhaps */
    py_pool_apply_config(self);
    Py_XSETREF(self->identity.extractor, extractor == Py_None ? NULL : Py_NewRef(extractor));
    Py_RETURN_NONE;
}

struct traversal {
    visitproc visit;
    void *arg;
};

static int
visit_payload(void *payload, void *context)
{
    const struct traversal *traversal = context;
    return traversal->visit(payload, traversal->arg);
}

static int
py_pool_traverse(py_pool *self, visitproc visit, void *arg)
{
    struct traversal traversal = {visit, arg};
    Py_VISIT(Py_TYPE((PyObject *)self));
    Py_VISIT(self->loop);
    Py_VISIT(self->clock);
    Py_VISIT(self->foreign);
    Py_VISIT(self->identity.names);
    Py_VISIT(self->identity.extractor);
    return self->core == NULL ? 0 : mgp_pool_visit_payloads(self->core, visit_payload, &traversal);
}

static int
detach_payload(void *payload, void *Py_UNUSED(context))
{
    py_connection_detach(payload);
    return 0;
}

/* Gives every payload back without closing it: there is nobody left who could. What that runs
 * finds a pool without a machine. */
static void
drop_core(py_pool *self)
{
    struct mgp_effect effect;
    struct mgp_pool *core = self->core;
    PyObject *type, *value, *traceback;
    bool is_own = py_pool_core(self) != NULL;
    if (core == NULL) {
        return;
    }
    py_pool_keep_identities(self);
    self->core = NULL;
    if (!is_own) { /* the parent's, in a child that had no time to make one: left alone for ever */
        (void)mgp_pool_visit_payloads(core, detach_payload, NULL);
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    mgp_pool_abandon(core, self->now_ns);
    while (mgp_pool_next_effect(core, &effect)) {
        if (effect.kind == MGP_EFFECT_GONE) {
            py_connection_leave_pool(effect.payload, &effect.times);
        } else if (effect.kind == MGP_EFFECT_FAIL) {
            ((py_pending *)effect.payload)->waiter = NULL;
        }
        Py_XDECREF((PyObject *)effect.trace);
    }
    mgp_pool_free(core);
    PyErr_Restore(type, value, traceback);
}

static int
py_pool_clear(py_pool *self)
{
    drop_core(self);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->clock);
    Py_CLEAR(self->identity.extractor);
    return 0;
}

/* Dropped while it is open: nobody will close its sessions. */
static void
py_pool_finalize(py_pool *self)
{
    struct mgp_pool_counts counts;
    PyObject *type, *value, *traceback;
    if (py_pool_core(self) == NULL || mgp_pool_is_closed(self->core)) {
        return;
    }
    mgp_pool_read_counts(self->core, &counts);
    if (counts.active + counts.idle + counts.checking == 0) {
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (PyErr_ResourceWarning((PyObject *)self, 1,
                              "%R was dropped without being closed: await pool.close(), or use "
                              "\"async with\"",
                              self) < 0) {
        PyErr_WriteUnraisable((PyObject *)self);
    }
    PyErr_Restore(type, value, traceback);
}

static void
py_pool_dealloc(py_pool *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);
    PyObject_GC_UnTrack(self);
    (void)py_pool_clear(self);
    Py_CLEAR(self->foreign);
    Py_CLEAR(self->identity.names);
    mgp_free(self->identity.views);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

PyDoc_STRVAR(after_fork_doc,
             "_after_fork($self, /)\n--\n\n"
             "In a forked child: the pool is empty again. What the parent had open is left\n"
             "alone for ever, because dropping it would disturb what both still share.");

static PyObject *
py_pool_after_fork(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    struct mgp_pool *parents = self->core;
    struct mgp_pool *own;
    if (parents == NULL || py_pool_core(self) != NULL) {
        Py_RETURN_NONE;
    }
    PyObject *foreign = PyDict_New();
    PyObject *result =
        foreign == NULL
            ? NULL
            : PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_leave_to_parent);
    Py_XDECREF(result);
    if (result == NULL) {
        Py_XDECREF(foreign);
        return NULL;
    }
    py_pool_keep_identities(self);
    if (mgp_pool_new(&self->config, &own) < 0) {
        Py_DECREF(foreign);
        return PyErr_NoMemory();
    }
    (void)mgp_pool_visit_payloads(parents, detach_payload, NULL);
    mgp_pool_set_closed(own, mgp_pool_is_closed(parents));
    mgp_pool_number_after(own, parents);
    /* Kept alive on purpose, with all that they refer to: the loop's selector, the parent's
     * machine and its payloads. */
    self->core = own;
    self->machine = py_machine_next_number();
    self->loop = NULL;
    self->loop_dict = NULL;
    self->foreign = foreign;
    self->armed_ns = INT64_MAX;
    self->hooks_version = 0;
    self->hooks = 0;
    self->is_running_effects = false;
    self->is_building_key = false;
    Py_RETURN_NONE;
}

/* ---- the whole pool --------------------------------------------------------- */

static PyObject *
py_pool_upkeep(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    self->armed_ns = INT64_MAX; /* the timer has fired, or will be replaced */
    if (py_pool_begin(self) < 0) {
        return NULL;
    }
    uint64_t machine = self->machine;
    if (self->leaked != NULL &&
        (py_pool_reclaim_leaked(self) < 0 || py_pool_check_machine(self, machine) < 0)) {
        return NULL;
    }
    py_counters_upkeep(self->state, self->now_ns);
    bool has_more = mgp_pool_upkeep(self->core, self->now_ns, UPKEEP_BUDGET);
    py_pool_end(self);
    return PyBool_FromLong(has_more);
}

static PyObject *
py_pool_drain(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    if (py_pool_begin(self) < 0) {
        return NULL;
    }
    mgp_pool_drain(self->core);
    py_pool_end(self);
    Py_RETURN_NONE;
}

static PyObject *
py_pool_close(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    if (py_pool_begin(self) < 0) {
        return NULL;
    }
    mgp_pool_close(self->core, self->now_ns);
    py_pool_end(self);
    Py_RETURN_NONE;
}

static PyObject *
py_pool_run_effects_method(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    if (py_pool_begin(self) < 0) {
        return NULL;
    }
    py_pool_end(self);
    Py_RETURN_NONE;
}

static PyObject *
py_pool_now_method(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    int64_t now_ns;
    return py_pool_now(self, &now_ns) < 0 ? NULL
                                          : PyFloat_FromDouble((double)now_ns / NS_PER_SECOND);
}

static PyObject *
py_pool_identity(py_pool *self, PyObject *headers)
{
    if (self->core == NULL) { /* also the parent's: this reads nothing of it */
        PyErr_SetString(PyExc_RuntimeError, "MCPSessionPool.__init__() was not called");
        return NULL;
    }
    return py_key_identity(&self->identity, (PyObject *)self, headers, self->state);
}

static PyObject *
get_closed(py_pool *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(py_pool_core(self) != NULL && mgp_pool_is_closed(self->core));
}

static int
set_closed(py_pool *self, PyObject *value, void *Py_UNUSED(closure))
{
    int is_closed = value == NULL ? 0 : PyObject_IsTrue(value);
    if (is_closed < 0 || py_pool_core(self) == NULL) {
        return is_closed < 0 ? -1 : 0;
    }
    mgp_pool_set_closed(self->core, is_closed != 0);
    if (!is_closed) {
        self->armed_ns = INT64_MAX; /* close_all() has cancelled the timer */
    }
    return 0;
}

static PyObject *
get_loop(py_pool *self, void *Py_UNUSED(closure))
{
    return Py_NewRef(self->loop == NULL ? Py_None : self->loop);
}

static PyObject *
get_is_plain(py_pool *self, void *Py_UNUSED(closure))
{
    int is_plain = py_pool_is_plain(self);
    return is_plain < 0 ? NULL : PyBool_FromLong(is_plain);
}

static PyObject *
get_affinity(py_pool *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->identity.has_affinity);
}

static int
set_affinity(py_pool *self, PyObject *value, void *Py_UNUSED(closure))
{
    int has_affinity = value == NULL ? 0 : PyObject_IsTrue(value);
    if (has_affinity < 0) {
        return -1;
    }
    self->identity.has_affinity = has_affinity != 0;
    return 0;
}

#define METHOD(name, function, flags, doc)                                                         \
    {name, (PyCFunction)(void (*)(void))function, flags, PyDoc_STR(doc)}

static PyMethodDef py_pool_methods[] = {
    METHOD("_setup", py_pool_setup, METH_VARARGS | METH_KEYWORDS, setup_doc),
    METHOD("_configure", py_pool_configure, METH_VARARGS | METH_KEYWORDS, configure_doc),
    METHOD("_lease_of", py_pool_lease_of, METH_O,
           "_lease_of($self, pooled, /)\n--\n\n"
           "The number of the present checkout (int), or None."),
    METHOD("_holds", py_pool_holds, METH_FASTCALL,
           "_holds($self, pooled, lease, /)\n--\n\n"
           "Whether what _lease_of() said still holds (bool)."),
    METHOD("_share", py_pool_share, METH_FASTCALL,
           "_share($self, max_leases, is_grouped, /)\n--\n\n"
           "Once, before the first acquire: how many callers may use a session at once, and\n"
           "whether keys can be evicted by user (group 0) and gateway (group 1)."),
    METHOD("_retire", py_pool_retire, METH_O,
           "_retire($self, pooled, /)\n--\n\n"
           "It is not wanted any more: closed now, or when it comes back. Whether it is known."),
    METHOD("_lease_ticket", py_pool_lease_ticket, METH_O,
           "_lease_ticket($self, pooled, /)\n--\n\n"
           "The Ticket of the latest checkout, for _release_lease(); or None."),
    METHOD("_release_lease", py_pool_release_lease, METH_FASTCALL,
           "_release_lease($self, ticket, verdict, /)\n--\n\n"
           "Ends one checkout of a duck-typed session: the task that closes it, None where it\n"
           "stays open, False where this checkout has ended before."),
    METHOD("_evict_group", py_pool_evict_group, METH_FASTCALL,
           "_evict_group($self, which, name, /)\n--\n\n"
           "Closes the idle sessions of a group's keys, those in use when they come back, and\n"
           "returns how many these are (int)."),
    METHOD("_take", py_pool_take, METH_FASTCALL,
           "_take($self, pending, url, /)\n--\n\n"
           "The session that a pending acquire got; or the pending again, when its caller\n"
           "is to create one. Raises what the acquire ended with."),
    METHOD("_time_out", py_pool_time_out, METH_O,
           "_time_out($self, pending, /)\n--\n\n"
           "(active, idle, creating, closing, waiting) of its key when it was still waiting,\n"
           "and waits no longer; else None."),
    METHOD("_cancel", py_pool_cancel, METH_O,
           "_cancel($self, pending, /)\n--\n\nIts caller was cancelled: nothing is lost."),
    METHOD("_created", py_pool_created, METH_FASTCALL,
           "_created($self, pending, pooled, arguments=None, /)\n--\n\n"
           "Whether the pool took the session; False when it no longer waits for it. The\n"
           "arguments of its acquire are kept for sessions that are opened like it."),
    METHOD("_warm", py_pool_warm, METH_FASTCALL,
           "_warm($self, url, headers, transport_type, user_identity, gateway_id, sessions, /)"
           "\n--\n\n"
           "A Pending whose creation is to be carried out, so that the key has so many idle\n"
           "sessions; or how many it has (int), where there is nothing to do, or no place."),
    METHOD("_is_like", py_pool_is_like, METH_FASTCALL,
           "_is_like($self, pooled, url, headers, transport_type, user_identity, gateway_id, /)"
           "\n--\n\n"
           "Whether these arguments make the key of this session."),
    METHOD("_create_failed", py_pool_create_failed, METH_FASTCALL,
           "_create_failed($self, pending, counts, /)\n--\n\n"
           "The creation failed; `counts`: for the circuit breaker."),
    METHOD("_note_outcome", py_pool_note_outcome, METH_FASTCALL,
           "_note_outcome($self, url, is_failure, /)\n--\n\n"
           "A creation that somebody else made for this URL; counts for its circuit breaker."),
    METHOD("_checked", py_pool_checked, METH_FASTCALL,
           "_checked($self, ticket, is_usable, /)\n--\n\nA health check has ended."),
    METHOD("_close_ended", py_pool_close_ended, METH_O,
           "_close_ended($self, ticket, /)\n--\n\nA close has ended, or its bound has passed."),
    METHOD("_doubt", py_pool_doubt, METH_O,
           "_doubt($self, pooled, /)\n--\n\n"
           "The session may be dead: it is checked before it is handed out again."),
    METHOD("_mark_broken", py_pool_mark_broken, METH_FASTCALL,
           "_mark_broken($self, pooled, is_dead, is_suspect, /)\n--\n\n"
           "The session is dead; its URL is suspect."),
    METHOD("_reap_leaks", py_pool_reap_leaks, METH_NOARGS,
           "_reap_leaks($self, /)\n--\n\n"
           "Takes back sessions whose PooledSession was dropped; how many (int)."),
    METHOD("_upkeep", py_pool_upkeep, METH_NOARGS,
           "_upkeep($self, /)\n--\n\nOne slice of what is due; whether more is (bool)."),
    METHOD("_drain", py_pool_drain, METH_NOARGS, "_drain($self, /)\n--\n\nSee drain_all()."),
    METHOD("_close", py_pool_close, METH_NOARGS, "_close($self, /)\n--\n\nSee close_all()."),
    METHOD("_run_effects", py_pool_run_effects_method, METH_NOARGS,
           "_run_effects($self, /)\n--\n\nCarries out what another thread left."),
    METHOD("_now", py_pool_now_method, METH_NOARGS,
           "_now($self, /)\n--\n\nThe pool's time in seconds (float)."),
    METHOD("_note_anonymous", py_pool_note_anonymous, METH_NOARGS,
           "_note_anonymous($self, /)\n--\n\n"
           "Whether an acquire is about to count that it is anonymous (bool)."),
    METHOD("_identity", py_pool_identity, METH_O,
           "_identity($self, headers, /)\n--\n\n"
           "The header identity (bytes), or None for anonymous."),
    METHOD("_totals", py_pool_totals, METH_NOARGS,
           "_totals($self, /)\n--\n\nWhat this pool counted: stem -> int, or reason -> int."),
    METHOD("_counts", py_pool_counts, METH_NOARGS,
           "_counts($self, /)\n--\n\nNumbers of keys, sessions by state, waiters: name -> int."),
    METHOD("_keys", py_pool_keys, METH_NOARGS,
           "_keys($self, /)\n--\n\n[(key parts, idle sessions, leased sessions), ...]"),
    METHOD("_breakers", py_pool_breakers, METH_NOARGS,
           "_breakers($self, /)\n--\n\n"
           "[(url, failures, seconds until it may be tried, or None), ...]"),
    METHOD("_after_fork", py_pool_after_fork, METH_NOARGS, after_fork_doc),
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef py_pool_getset[] = {
    {"_closed", (getter)get_closed, (setter)set_closed, "Whether acquires are refused (bool).",
     NULL},
    {"_loop", (getter)get_loop, NULL, "The event loop of the pool, or None.", NULL},
    {"_is_plain", (getter)get_is_plain, NULL,
     "Whether neither acquire() nor release() is overridden (bool).", NULL},
    {"_affinity", (getter)get_affinity, (setter)set_affinity,
     "Whether x-mcp-session-id alone is the header identity (bool).", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot py_pool_slots[] = {
    {Py_tp_doc, "The C side of MCPSessionPool."},
    {Py_tp_new, py_pool_new},
    {Py_tp_traverse, py_pool_traverse},
    {Py_tp_clear, py_pool_clear},
    {Py_tp_finalize, py_pool_finalize},
    {Py_tp_dealloc, py_pool_dealloc},
    {Py_tp_setattro, py_pool_setattro},
    {Py_tp_methods, py_pool_methods},
    {Py_tp_getset, py_pool_getset},
    {0, NULL},
};

PyType_Spec py_pool_spec = {
    .name = "mcpgateway_pool._core.PoolCore",
    .basicsize = sizeof(py_pool),
    .flags =
        Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = py_pool_slots,
};
