/* Sessions in and out of the pool: the hit path, and release. */
#include "checkout.h"

#include "errors.h"
#include "hooks.h"
#include "leaks.h"
#include "loop.h"
#include "pending.h"

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
    int status = MGP_OK;
    if (nargs != 2 || !PyUnicode_Check(args[0])) {
        PyErr_SetString(PyExc_TypeError, "_note_outcome() takes a str and a bool");
        return NULL;
    }
    if ((self->core == NULL || self->loop != NULL ? py_pool_enter(self, &now_ns)
                                                  : py_pool_now(self, &now_ns)) < 0 ||
        text_bytes(args[0], &url_bytes, &url) < 0) {
        return NULL;
    }
    if (args[1] == Py_True) {
        struct mgp_row *row = ensure_row(self, Py_None); /* whose callers it was is not known */
        if (row == NULL) {
            Py_XDECREF(url_bytes);
            return NULL;
        }
        status = mgp_pool_note_failure(self->core, now_ns, url, row);
    } else {
        mgp_pool_note_success(self->core, now_ns, url);
    }
    Py_XDECREF(url_bytes);
    py_pool_leave(self, now_ns);
    if (status < 0) {
        return PyErr_NoMemory();
    }
    Py_RETURN_NONE;
}

static PyObject *
hand_out(const struct mgp_acquired *acquired, const py_connection **connection_out)
{
    py_connection *connection = acquired->payload;
    connection->use_count++;
    *connection_out = connection;
    return py_connection_check_out(connection, acquired->ticket);
}

/* No session at once: a Pending. `pending` is made before the machine changes. */
static PyObject *
acquire_slowly(py_pool *self, int64_t now_ns, uint64_t hash, const py_key *key,
               const py_key_arguments *arguments, const py_connection **connection_out)
{
    struct mgp_acquired acquired = {.answer = MGP_ANSWER_NONE};
    PyObject *result = NULL;
    PyObject *url_bytes = NULL, *user_bytes = NULL, *gateway_bytes = NULL;
    py_pending *pending = NULL;
    struct mgp_key_spec spec = {
        .key = {key->bytes, key->size},
        .is_anonymous = key->is_anonymous,
        .is_single_use = key->is_single_use,
    };
    if (self->leaked != NULL && py_pool_reclaim_leaked(self) < 0) {
        return NULL;
    }
    mgp_rows_upkeep(&self->state->rows, now_ns);
    struct mgp_row *row = ensure_row(self, arguments->gateway_id);
    if (row == NULL) {
        return NULL;
    }
    mgp_row_hold(row); /* what runs below could forget it */
    spec.row = row;
    if (text_bytes(arguments->url, &url_bytes, &spec.endpoint) < 0 ||
        (self->is_grouped &&
         (text_bytes(arguments->user_identity, &user_bytes, &spec.groups[PY_GROUP_USER]) < 0 ||
          text_bytes(arguments->gateway_id, &gateway_bytes, &spec.groups[PY_GROUP_GATEWAY]) < 0))) {
        goto done;
    }
    pending = py_pending_new(self->state, self);
    if (pending == NULL) {
        goto done;
    }
    pending->is_anonymous = key->is_anonymous;
    if (key->identity > 0) {
        pending->identity = PyBytes_FromStringAndSize((const char *)key->bytes + key->identity,
                                                      (Py_ssize_t)(key->size - key->identity));
        if (pending->identity == NULL) {
            goto done;
        }
    }
    if (self->clock != NULL) {
        mgp_pool_set_clock_offset(self->core, py_monotonic_ns() - now_ns);
    }
    int status = mgp_pool_acquire(self->core, now_ns, hash, &spec, &acquired);
    if (status < 0) {
        (void)py_pool_raise(self, status, arguments->url);
    } else if (acquired.answer == MGP_ANSWER_SESSION) {
        result = hand_out(&acquired, connection_out);
    } else if (acquired.answer == MGP_ANSWER_CREATE) {
        pending->state = PY_PENDING_CREATING;
        pending->ticket = acquired.ticket;
        result = Py_NewRef((PyObject *)pending);
    } else {
        pending->state = PY_PENDING_WAITING;
        pending->waiter = acquired.waiter;
        mgp_waiter_set_payload(acquired.waiter, pending);
        pending->future = PyObject_CallMethodNoArgs(self->loop, self->state->str_create_future);
        if (pending->future == NULL) {
            py_pool_give_up(self, pending, false);
        } else {
            result = Py_NewRef((PyObject *)pending);
        }
    }
    py_pool_leave(self, now_ns);
done:
    mgp_row_unhold(row);
    Py_XDECREF((PyObject *)pending);
    Py_XDECREF(url_bytes);
    Py_XDECREF(user_bytes);
    Py_XDECREF(gateway_bytes);
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

static int
build_key(py_pool *self, const py_key_arguments *arguments, py_key *key)
{
    unsigned make_key = 1u << PY_HOOK_MAKE_POOL_KEY;
    if (!(self->hooks & (make_key | 1u << PY_HOOK_COMPUTE_IDENTITY_HASH))) {
        return py_key_build(self->state, &self->identity, 0, arguments, key);
    }
    self->is_building_key = true;
    self->has_seen_anonymous = false;
    int result = py_key_build(self->state, &self->identity, self->hooks, arguments, key);
    self->is_building_key = false;
    if (self->hooks & make_key) {
        PyObject *user = arguments->user_identity;
        bool has_user = user != Py_None && PyUnicode_Check(user) && PyUnicode_GET_LENGTH(user) > 0;
        key->is_anonymous = self->has_seen_anonymous && !has_user;
    }
    return result;
}

/* A default _compute_identity_hash() that found no identity asks: is it called for an
 * acquire, which counts for itself? */
PyObject *
py_pool_note_anonymous(py_pool *self, PyObject *Py_UNUSED(ignored))
{
    self->has_seen_anonymous = true;
    return PyBool_FromLong(self->is_building_key);
}

PyObject *
py_pool_acquire(py_pool *self, const py_key_arguments *arguments,
                const py_connection **connection_out)
{
    struct mgp_acquired acquired;
    int64_t now_ns;
    py_key key;
    PyObject *result = NULL;
    *connection_out = NULL;
    py_key_init(&key);
    if (py_pool_enter(self, &now_ns) < 0 || build_key(self, arguments, &key) < 0) {
        goto done;
    }
    uint64_t hash = mgp_pool_hash(self->core, key.bytes, key.size);
    mgp_pool_try_acquire(self->core, now_ns, hash, key.bytes, key.size, &acquired);
    if (acquired.answer == MGP_ANSWER_SESSION) {
        result = hand_out(&acquired, connection_out);
    } else {
        result = acquire_slowly(self, now_ns, hash, &key, arguments, connection_out);
    }
done:
    py_key_fini(&key);
    return result;
}

PyObject *
py_module_acquire(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const py_connection *connection;
    py_pool *self = check_pool(PyModule_GetState(module), args, nargs, 6);
    if (self == NULL || py_pool_ensure_hooks(self) < 0) {
        return NULL;
    }
    py_key_arguments arguments = {args[0], args[1], args[2], args[3], args[4], args[5]};
    return py_pool_acquire(self, &arguments, &connection);
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
    int64_t now_ns;
    PyObject *result = NULL;
    if (py_pool_enter_to_report(self, &now_ns) < 0) {
        return NULL;
    }
    py_connection *connection = py_pool_find_connection(self, pooled);
    if (connection == NULL) {
        return PyErr_Occurred() ? NULL : Py_NewRef(Py_NotImplemented);
    }
    Py_INCREF(connection);
    int is_closed = connection->is_closed;
    if (connection->is_foreign) {
        is_closed = py_pool_foreign_is_closed(self, pooled);
        if (is_closed < 0) {
            goto done;
        }
    }
    if (!connection->is_leased || py_connection_core(connection) == NULL) {
        result = Py_NewRef(Py_False);
        goto done;
    }
    py_connection_check_in(connection);
    (void)mgp_pool_release(self->core, now_ns, py_connection_lease(connection),
                           is_closed ? MGP_VERDICT_BROKEN : verdict);
    py_pool_leave(self, now_ns);
    result = Py_NewRef(connection->closer == NULL ? Py_None : connection->closer);
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
