/* Sessions in and out of the pool: the hit path, and release. */
#include "checkout.h"

#include <string.h>

#include "errors.h"
#include "hooks.h"
#include "leaks.h"
#include "loop.h"
#include "pending.h"
#include "snapshot.h"
#include "tracking.h"

/* ---- acquire ---------------------------------------------------------------- */

/* The bytes of a str: ASCII as it is, else encoded into *owned, which is a new reference.
 * size 0 for None. 0, or -1 with an exception. */
static int
text_bytes(PyObject *text, PyObject **owned, struct mgp_bytes *bytes)
{
    Py_ssize_t size = 0;
    *bytes = (struct mgp_bytes){"", 0};
    if (text == Py_None) {
        return 0;
    }
    if (PyUnicode_IS_COMPACT_ASCII(text)) {
        bytes->bytes = PyUnicode_AsUTF8AndSize(text, &size);
    } else {
        *owned = PyUnicode_AsEncodedString(text, "utf-8", "surrogatepass");
        if (*owned == NULL) {
            return -1;
        }
        bytes->bytes = PyBytes_AS_STRING(*owned);
        size = PyBytes_GET_SIZE(*owned);
    }
    bytes->size = (size_t)size;
    return bytes->bytes == NULL ? -1 : 0;
}

/* Held: the caller lets go. NULL with an exception. */
static struct mgp_row *
ensure_row(py_pool *self, PyObject *gateway_id)
{
    struct mgp_row *row = NULL;
    Py_ssize_t size;
    PyObject *label = PyObject_CallOneArg(self->state->gateway_label, gateway_id);
    const char *bytes = label == NULL ? NULL : PyUnicode_AsUTF8AndSize(label, &size);
    if (bytes != NULL) {
        row = mgp_rows_ensure(&self->state->rows, bytes, (size_t)size);
        if (row == NULL) {
            PyErr_NoMemory();
        } else {
            mgp_row_hold(row); /* what runs from here on could forget it */
        }
    }
    Py_XDECREF(label);
    return row;
}

/* _note_outcome(url, is_failure). Before the pool has a loop it has no sessions either, so
 * that nothing here needs one. */
PyObject *
py_pool_note_outcome(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t now_ns;
    struct mgp_bytes url;
    PyObject *url_bytes = NULL;
    struct mgp_row *row = NULL;
    int status = MGP_OK;
    if (nargs != 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_note_outcome() takes a str and a bool");
        return NULL;
    }
    bool has_loop = py_pool_core(self) == NULL || self->loop != NULL;
    if ((has_loop ? py_pool_begin(self) : py_pool_now(self, &now_ns)) < 0 ||
        text_bytes(args[0], &url_bytes, &url) < 0) {
        return NULL;
    }
    uint64_t machine = self->machine;
    if (args[1] == Py_True) {
        row = ensure_row(self, Py_None); /* whose callers it was is not known */
        if (row == NULL) {
            Py_XDECREF(url_bytes);
            return NULL;
        }
    }
    if (self->machine == machine && py_pool_core(self) != NULL) {
        if (row == NULL) {
            mgp_pool_note_success(self->core, self->now_ns, url);
        } else {
            status = mgp_pool_note_failure(self->core, self->now_ns, url, row);
            mgp_row_unhold(row);
        }
        py_pool_end_anywhere(self);
    }
    Py_XDECREF(url_bytes);
    if (status < 0) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *
hand_out(const py_pool *self, const py_key_arguments *arguments,
         const struct mgp_acquired *acquired, uint64_t *lease)
{
    py_connection *connection = acquired->payload;
    connection->use_count++;
    *lease = acquired->ticket.generation;
    PyObject *pooled = py_connection_check_out(connection, acquired->ticket);
    if (self->keeps_arguments && connection->headers_now != arguments->headers) {
        py_connection_note_headers(connection, arguments->headers); /* it is the caller's: last */
    }
    return pooled;
}

/* All that an acquire without a session at once may need, made before the machine changes:
 * making any of it may run Python. */
struct slow_acquire {
    struct mgp_key_spec spec;
    PyObject *url, *user, *gateway; /* owned bytes, or NULL */
    PyObject *future;               /* owned */
    py_pending *pending;            /* owned */
    uint64_t machine;               /* for which all this was made */
};

static void
slow_acquire_fini(py_pool *self, struct slow_acquire *made)
{
    /* In a child that was forked meanwhile, the row is the parent's. */
    if (made->spec.row != NULL && self->machine == made->machine && py_pool_core(self) != NULL) {
        mgp_row_unhold(made->spec.row);
    }
    Py_XDECREF((PyObject *)made->pending);
    Py_XDECREF(made->future);
    Py_XDECREF(made->url);
    Py_XDECREF(made->user);
    Py_XDECREF(made->gateway);
}

/* 0, or -1 with an exception. */
static int
slow_acquire_init(py_pool *self, const py_key *key, const py_key_arguments *arguments,
                  struct slow_acquire *made)
{
    struct mgp_key_spec *spec = &made->spec;
    *made = (struct slow_acquire){
        .spec = {.key = {key->bytes, key->size},
                 .is_anonymous = key->is_anonymous || arguments->is_anonymous,
                 .is_single_use = key->is_single_use},
        .machine = self->machine,
    };
    if (self->leaked != NULL && py_pool_reclaim_leaked(self) < 0) {
        return -1;
    }
    py_counters_upkeep(self->state, self->now_ns);
    spec->row = ensure_row(self, arguments->gateway_id);
    if (spec->row == NULL || text_bytes(arguments->url, &made->url, &spec->endpoint) < 0 ||
        (self->is_grouped &&
         (text_bytes(arguments->user_identity, &made->user, &spec->groups[PY_GROUP_USER]) < 0 ||
          text_bytes(arguments->gateway_id, &made->gateway, &spec->groups[PY_GROUP_GATEWAY]) <
              0))) {
        return -1;
    }
    made->pending = py_pending_new(self);
    if (made->pending == NULL) {
        return -1;
    }
    made->pending->is_anonymous = key->is_anonymous;
    if (key->identity > 0) {
        made->pending->identity = PyBytes_FromStringAndSize(
            (const char *)key->bytes + key->identity, (Py_ssize_t)(key->size - key->identity));
        if (made->pending->identity == NULL) {
            return -1;
        }
    }
    made->future = PyObject_CallMethodNoArgs(self->loop, self->state->str_create_future);
    if (made->future == NULL) {
        return -1;
    }
    return py_pool_check_machine(self, made->machine);
}

/* No session at once: a Pending, but where one came meanwhile. `trace` may be NULL. */
static PyObject *
acquire_slowly(py_pool *self, uint64_t hash, const py_key *key, const py_key_arguments *arguments,
               PyObject *trace, uint64_t *lease)
{
    struct mgp_acquired acquired = {.answer = MGP_ANSWER_NONE};
    struct slow_acquire made;
    PyObject *result = NULL;
    if (slow_acquire_init(self, key, arguments, &made) < 0) {
        goto done;
    }
    py_pending *pending = made.pending;
    pending->headers = arguments->headers == Py_None ? NULL : Py_NewRef(arguments->headers);
    pending->trace = Py_XNewRef(trace);
    if (self->clock != NULL) {
        mgp_pool_set_clock_offset(self->core, py_monotonic_ns() - self->now_ns);
    }
    int status = mgp_pool_acquire(self->core, self->now_ns, hash, &made.spec, &acquired);
    if (status == MGP_OK && acquired.answer == MGP_ANSWER_SESSION) {
        py_pool_track(self, acquired.ticket, trace);
        result = hand_out(self, arguments, &acquired, lease);
    } else if (status == MGP_OK) {
        pending->machine = self->machine;
        if (acquired.answer == MGP_ANSWER_CREATE) {
            pending->state = PY_PENDING_CREATING;
            pending->ticket = acquired.ticket;
        } else {
            pending->state = PY_PENDING_WAITING;
            pending->waiter = acquired.waiter;
            mgp_waiter_set_payload(acquired.waiter, pending);
            pending->future = made.future;
            made.future = NULL;
        }
        result = Py_NewRef((PyObject *)pending);
    }
    py_pool_end(self);
    if (status < 0) {
        (void)py_pool_raise(self, status, arguments->url);
    }
done:
    slow_acquire_fini(self, &made);
    return result;
}

/* The pool that a function of the module is called with, or NULL with TypeError. The
 * common path is made of functions because the interpreter calls those faster than
 * methods of a base class. */
static py_pool *
check_pool(py_state *state, PyObject *const *args, Py_ssize_t nargs, Py_ssize_t expected)
{
    if (nargs != expected) {
        PyErr_Format(PyExc_TypeError, "expected %zd arguments, got %zd", expected, nargs);
        return NULL;
    }
    const PyTypeObject *type = Py_TYPE(args[0]);
    /* MCPSessionPool or a subclass of it: told by two pointers. */
    bool is_pool = type->tp_base != NULL && (type->tp_base == state->pool_type ||
                                             type->tp_base->tp_base == state->pool_type);
    if (!is_pool && !PyObject_TypeCheck(args[0], state->pool_type)) {
        PyErr_Format(PyExc_TypeError, "expected a pool, not %.100s", Py_TYPE(args[0])->tp_name);
        return NULL;
    }
    return (py_pool *)args[0];
}

/* 0; 1 where the checkout is to be tracked, too; -1 with an exception. The common path makes one
 * test of whether anything is special. */
static int
build_key(py_pool *self, const py_key_arguments *arguments, py_key *key)
{
    const unsigned make_key = 1u << PY_HOOK_MAKE_POOL_KEY;
    const unsigned of_key = make_key | 1u << PY_HOOK_COMPUTE_IDENTITY_HASH;
    if (!(self->hooks & (of_key | PY_TRACKS_CHECKOUTS))) {
        return py_key_build(self->state, &self->identity, 0, arguments, key);
    }
    unsigned hooks = self->hooks;
    bool was_building = self->is_building_key, had_seen = self->has_seen_anonymous;
    self->is_building_key = true;
    self->has_seen_anonymous = false;
    int result = py_key_build(self->state, &self->identity, hooks & of_key, arguments, key);
    if (hooks & make_key) {
        PyObject *user = arguments->user_identity;
        bool has_user = user != Py_None && PyUnicode_Check(user) && PyUnicode_GET_LENGTH(user) > 0;
        key->is_anonymous = self->has_seen_anonymous && !has_user;
    }
    self->is_building_key = was_building; /* a hook may have acquired, too */
    self->has_seen_anonymous = had_seen;
    return result == 0 && hooks & PY_TRACKS_CHECKOUTS ? 1 : result;
}

/* A default _compute_identity_hash() that found no identity asks: is it called for an
 * acquire, which counts for itself? */
PyObject *
py_pool_note_anonymous(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    self->has_seen_anonymous = true;
    return PyBool_FromLong(self->is_building_key);
}

/* The same as acquire(), with the stack of whoever acquires. It takes the longer way also where a
 * session is idle, so that the common path is free of all this. */
static PyObject *
acquire_tracked(py_pool *self, const py_key *key, const py_key_arguments *arguments,
                uint64_t *lease)
{
    PyObject *result = NULL;
    uint64_t machine = self->machine;
    PyObject *trace = py_pool_trace(self);
    if (py_pool_check_machine(self, machine) == 0) {
        uint64_t hash = mgp_pool_hash(self->core, key->bytes, key->size);
        result = acquire_slowly(self, hash, key, arguments, trace, lease);
    }
    Py_DECREF(trace);
    return result;
}

static PyObject *
acquire(py_pool *self, const py_key_arguments *arguments, uint64_t *lease)
{
    struct mgp_acquired acquired;
    py_key key;
    PyObject *result = NULL;
    *lease = 0;
    py_key_init(&key);
    if (py_pool_begin(self) < 0) {
        goto done;
    }
    uint64_t machine = self->machine;
    int is_tracked = build_key(self, arguments, &key);
    if (is_tracked != 0) {
        result = is_tracked < 0 || py_pool_check_machine(self, machine) < 0
                     ? NULL
                     : acquire_tracked(self, &key, arguments, lease);
        goto done;
    }
    if (py_pool_check_machine(self, machine) < 0) {
        goto done;
    }
    uint64_t hash = mgp_pool_hash(self->core, key.bytes, key.size);
    mgp_pool_try_acquire(self->core, self->now_ns, hash, key.bytes, key.size, &acquired);
    if (acquired.answer == MGP_ANSWER_SESSION) {
        result = hand_out(self, arguments, &acquired, lease);
    } else {
        result = acquire_slowly(self, hash, &key, arguments, NULL, lease);
    }
done:
    py_key_fini(&key);
    return result;
}

/* Headers that are a mapping of another kind are read once: what they say decides the key, and
 * is sent. Another reading could say something else, of another user. */
static PyObject *
acquire_by_mapping(py_pool *self, const py_key_arguments *arguments, uint64_t *lease)
{
    PyObject *result = NULL;
    PyObject *headers = py_headers_read(arguments->headers);
    if (headers != NULL) {
        py_key_arguments read = *arguments;
        read.headers = headers;
        result = acquire(self, &read, lease);
        Py_DECREF(headers);
    }
    return result;
}

PyObject *
py_pool_acquire(py_pool *self, const py_key_arguments *arguments, uint64_t *lease)
{
    if (arguments->headers != Py_None && !PyDict_Check(arguments->headers)) {
        *lease = 0;
        return acquire_by_mapping(self, arguments, lease);
    }
    return acquire(self, arguments, lease);
}

/* _warm(url, headers, transport_type, user_identity, gateway_id, sessions) */
PyObject *
py_pool_warm(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    struct slow_acquire made;
    struct mgp_key_view view;
    struct mgp_ticket ticket;
    py_key key;
    PyObject *result = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_warm() takes 6 positional arguments");
        return NULL;
    }
    unsigned long sessions = PyLong_AsUnsignedLong(args[5]);
    if (PyErr_Occurred() || py_pool_ensure_hooks(self) < 0 || py_pool_begin(self) < 0) {
        return NULL;
    }
    py_key_arguments arguments = {(PyObject *)self, args[0], args[1], args[2],
                                  args[3],          args[4], false};
    uint64_t machine = self->machine;
    py_key_init(&key);
    made = (struct slow_acquire){.machine = machine};
    if (build_key(self, &arguments, &key) < 0 || py_pool_check_machine(self, machine) < 0 ||
        slow_acquire_init(self, &key, &arguments, &made) < 0) {
        goto done;
    }
    uint64_t hash = mgp_pool_hash(self->core, key.bytes, key.size);
    int status = mgp_pool_warm(self->core, self->now_ns, hash, &made.spec,
                               (uint32_t)(sessions < UINT32_MAX ? sessions : UINT32_MAX), &ticket);
    if (status == MGP_OK && ticket.generation != 0) {
        made.pending->machine = self->machine;
        made.pending->state = PY_PENDING_CREATING;
        made.pending->ticket = ticket;
        made.pending->headers = Py_XNewRef(args[1] == Py_None ? NULL : args[1]);
        result = Py_NewRef((PyObject *)made.pending);
    } else if (status == MGP_OK || status == MGP_ERR_EXHAUSTED) {
        mgp_pool_view_key(self->core, hash, made.spec.key, &view);
        result = PyLong_FromSize_t(view.idle + view.checking);
    }
    py_pool_end(self);
    if (status < 0 && status != MGP_ERR_EXHAUSTED) {
        (void)py_pool_raise(self, status, args[0]);
    }
done:
    slow_acquire_fini(self, &made);
    py_key_fini(&key);
    return result;
}

/* _is_like(pooled, url, headers, transport_type, user_identity, gateway_id) */
PyObject *
py_pool_is_like(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    py_key key;
    PyObject *result = NULL;
    if (nargs != 6) {
        PyErr_SetString(PyExc_TypeError, "_is_like() takes 6 positional arguments");
        return NULL;
    }
    if (py_pool_ensure_hooks(self) < 0 || py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    py_key_arguments arguments = {(PyObject *)self, args[1], args[2], args[3],
                                  args[4],          args[5], false};
    uint64_t machine = self->machine;
    py_key_init(&key);
    if (build_key(self, &arguments, &key) >= 0 && py_pool_check_machine(self, machine) == 0) {
        const py_connection *connection = py_pool_find_connection(self, args[0]); /* borrowed */
        const struct mgp_session *core = connection == NULL ? NULL : py_connection_core(connection);
        struct mgp_bytes own = {"", 0};
        if (core != NULL) {
            own = mgp_session_key(core);
        }
        result = PyErr_Occurred() ? NULL
                                  : PyBool_FromLong(own.size == key.size && own.size > 0 &&
                                                    memcmp(own.bytes, key.bytes, own.size) == 0);
    }
    py_key_fini(&key);
    return result;
}

PyObject *
py_module_acquire(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t lease;
    py_pool *self = check_pool(PyModule_GetState(module), args, nargs, nargs == 7 ? 7 : 6);
    if (self == NULL || py_pool_ensure_hooks(self) < 0) {
        return NULL;
    }
    py_key_arguments arguments = {
        args[0], args[1], args[2], args[3], args[4], args[5], nargs == 7 && args[6] == Py_True};
    return py_pool_acquire(self, &arguments, &lease);
}

/* ---- release ---------------------------------------------------------------- */

int
py_pool_foreign_is_closed(py_pool *self, PyObject *pooled)
{
    PyObject *is_closed = PyObject_GetAttr(pooled, self->state->str_is_closed);
    if (is_closed == NULL) {
        bool has_none = PyErr_ExceptionMatches(PyExc_AttributeError);
        if (!PyErr_ExceptionMatches(PyExc_Exception)) {
            return -1;
        }
        PyErr_Clear();
        return !has_none;
    }
    Py_DECREF(is_closed);
    return is_closed == Py_True;
}

PyObject *
py_pool_release(py_pool *self, PyObject *pooled, enum mgp_verdict verdict)
{
    PyObject *result = NULL;
    if (py_pool_begin_to_report(self) < 0) {
        return NULL;
    }
    py_connection *connection = py_pool_find_connection(self, pooled);
    if (connection == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    }
    Py_INCREF(connection);
    int is_closed = connection->is_closed;
    struct mgp_ticket lease = py_connection_lease(connection);
    if (connection->is_foreign) {
        is_closed = py_pool_foreign_is_closed(self, pooled);
        if (is_closed < 0) {
            goto done;
        }
    }
    /* Asking it may have run anything: also what ended this checkout, and began another. */
    if (!connection->is_leased || connection->lease_generation != lease.generation ||
        !py_connection_is_in(connection, self)) {
        result = Py_NewRef(Py_False);
        goto done;
    }
    py_connection_check_in(connection);
    (void)mgp_pool_release(self->core, self->now_ns, lease,
                           is_closed ? MGP_VERDICT_BROKEN : verdict);
    py_pool_end(self);
    result = py_connection_closer(connection);
done:
    Py_DECREF(connection);
    return result;
}

PyObject *
py_module_release(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    py_pool *self = check_pool(PyModule_GetState(module), args, nargs, 3);
    if (self == NULL) {
        return NULL;
    }
    /* False and True are numbers, too: GOOD and DISCARD. */
    long verdict = args[2] == Py_False ? MGP_VERDICT_GOOD : PyLong_AsLong(args[2]);
    if (verdict == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (verdict < MGP_VERDICT_GOOD || verdict > MGP_VERDICT_BROKEN) {
        PyErr_SetString(PyExc_ValueError, "not a verdict");
        return NULL;
    }
    return py_pool_release(self, args[1], (enum mgp_verdict)verdict);
}

/* _holds(pooled, lease). A duck-typed object may be several sessions at once: the one of
 * this lease is put last, where the release that follows finds it. */
PyObject *
py_pool_holds(py_pool *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (nargs != 2) {
        PyErr_SetString(PyExc_TypeError, "_holds() takes 2 positional arguments");
        return NULL;
    }
    PyObject *pooled = args[0];
    py_connection *connection = py_pool_find_connection(self, pooled);
    if (args[1] == Py_None || connection == NULL) {
        bool is_leased = connection != NULL && connection->is_leased;
        return PyErr_Occurred() ? NULL : PyBool_FromLong(!is_leased && args[1] == Py_None);
    }
    unsigned long long lease = PyLong_AsUnsignedLongLong(args[1]);
    if (PyErr_Occurred()) {
        return NULL;
    }
    bool holds = connection->is_leased && connection->lease_generation == lease;
    PyObject *address = PyDict_GET_SIZE(self->foreign) == 0 ? NULL : PyLong_FromVoidPtr(pooled);
    PyObject *records =
        address == NULL ? NULL : PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    for (Py_ssize_t i = 0; records != NULL && i < PyList_GET_SIZE(records); i++) {
        connection = (py_connection *)PyList_GET_ITEM(records, i);
        if (connection->is_leased && connection->lease_generation == lease) {
            Py_ssize_t last = PyList_GET_SIZE(records) - 1;
            PyList_SET_ITEM(records, i, PyList_GET_ITEM(records, last));
            PyList_SET_ITEM(records, last, (PyObject *)connection);
            holds = true;
            break;
        }
    }
    Py_XDECREF(address);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(holds);
}

PyObject *
py_pool_lease_of(py_pool *self, PyObject *pooled)
{
    py_connection *connection = py_pool_find_connection(self, pooled);
    if (connection == NULL || !connection->is_leased) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
    }
    unsigned long long lease = connection->lease_generation;
    PyObject *address = PyDict_GET_SIZE(self->foreign) == 0 ? NULL : PyLong_FromVoidPtr(pooled);
    PyObject *records =
        address == NULL ? NULL : PyDict_GetItemWithError(self->foreign, address); /* borrowed */
    for (Py_ssize_t i = 0; records != NULL && i < PyList_GET_SIZE(records); i++) {
        connection = (py_connection *)PyList_GET_ITEM(records, i);
        if (connection->is_leased && connection->lease_generation > lease) {
            lease = connection->lease_generation; /* of several, the latest checkout */
        }
    }
    Py_XDECREF(address);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(lease);
}
