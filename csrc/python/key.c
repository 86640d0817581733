#include "key.h"

/* What the extractor says: 1 with a part written, 0 when the headers decide, -1. */
static int
put_extracted(py_key *key, PyObject *pool, PyObject *headers, py_state *state)
{
    int result = 0;
    /* Pool._extract_identity() calls the extractor, and logs once where it fails. */
    PyObject *extracted = PyObject_CallMethodOneArg(pool, state->str_extract_identity, headers);
    if (extracted == NULL) {
        return -1;
    }
    if (PyUnicode_Check(extracted) && PyUnicode_GET_LENGTH(extracted) > 0) {
        result = py_key_put_byte(key, 'E') < 0 || py_key_put_string(key, extracted) < 0 ? -1 : 1;
    }
    Py_DECREF(extracted);
    return result;
}

static int
put_identity(py_key *key, const py_identity *identity, PyObject *pool, PyObject *headers,
             py_state *state)
{
    if (identity->extractor != NULL && headers != Py_None) {
        int result = put_extracted(key, pool, headers, state);
        if (result != 0) {
            return result < 0 ? -1 : 0;
        }
    }
    if (identity->has_affinity) {
        PyObject *session = py_headers_find_session(headers);
        if (session != NULL) {
            return py_key_put_byte(key, 'S') < 0 || py_key_put_string(key, session) < 0 ? -1 : 0;
        }
    }
    return py_headers_put(key, identity, headers);
}

static int
check_headers_type(PyObject *headers)
{
    if (headers != Py_None && !PyDict_Check(headers)) {
        PyErr_Format(PyExc_TypeError, "headers must be a dict or None, not %.100s",
                     Py_TYPE(headers)->tp_name);
        return -1;
    }
    return 0;
}

PyObject *
py_key_session_header(PyObject *Py_UNUSED(module), PyObject *headers)
{
    PyObject *value = PyDict_Check(headers) ? py_headers_find_session(headers) : NULL;
    return Py_NewRef(value == NULL ? Py_None : value);
}

PyObject *
py_key_identity(const py_identity *identity, PyObject *pool, PyObject *headers, py_state *state)
{
    py_key key;
    PyObject *result = NULL;
    py_key_init(&key);
    if (check_headers_type(headers) == 0 &&
        put_identity(&key, identity, pool, headers, state) == 0) {
        result = key.is_anonymous
                     ? Py_NewRef(Py_None)
                     : PyBytes_FromStringAndSize((const char *)key.bytes, (Py_ssize_t)key.size);
    }
    py_key_fini(&key);
    return result;
}

/* ---- the whole key ---------------------------------------------------------- */

static int
check_optional_string(PyObject *value, const char *name)
{
    if (value != Py_None && !PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "%s must be str or None, not %.100s", name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    return 0;
}

static int
check_arguments(const py_key_arguments *arguments)
{
    if (!PyUnicode_Check(arguments->url)) {
        PyErr_Format(PyExc_TypeError, "url must be str, not %.100s",
                     Py_TYPE(arguments->url)->tp_name);
        return -1;
    }
    if (PyUnicode_GET_LENGTH(arguments->url) == 0) {
        PyErr_SetString(PyExc_ValueError, "url must not be empty");
        return -1;
    }
    if (check_headers_type(arguments->headers) < 0 ||
        check_optional_string(arguments->user_identity, "user_identity") < 0) {
        return -1;
    }
    return check_optional_string(arguments->gateway_id, "gateway_id");
}

static int
put_transport(py_key *key, py_state *state, PyObject *transport_type)
{
    if (transport_type == state->transport_streamable_http) {
        return py_key_put_byte(key, 'h');
    }
    if (transport_type == state->transport_sse) {
        return py_key_put_byte(key, 's');
    }
    PyErr_Format(PyExc_TypeError, "transport_type must be a TransportType, not %.100s",
                 Py_TYPE(transport_type)->tp_name);
    return -1;
}

static PyObject *
user_or_anonymous(const py_key_arguments *arguments)
{
    bool has_user =
        arguments->user_identity != Py_None && PyUnicode_GET_LENGTH(arguments->user_identity) > 0;
    return has_user ? Py_NewRef(arguments->user_identity) : PyUnicode_FromString("anonymous");
}

static int
put_downstream_session(py_key *key, const py_identity *identity, PyObject *headers)
{
    PyObject *session = identity->isolate_by_session ? py_headers_find_session(headers) : NULL;
    if (session == NULL) {
        key->is_single_use = identity->isolate_by_session;
        return py_key_put_byte(key, 0);
    }
    return py_key_put_byte(key, 1) < 0 || py_key_put_string(key, session) < 0 ? -1 : 0;
}

/* Kind K: the downstream session, and the parts that _make_pool_key() of `pool` returned. */
static int
put_hooked_key(py_key *key, const py_identity *identity, py_state *state,
               const py_key_arguments *arguments)
{
    int result = -1;
    PyObject *user = user_or_anonymous(arguments);
    PyObject *parts =
        user == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(
                  arguments->pool, state->hook_names[PY_HOOK_MAKE_POOL_KEY], arguments->url,
                  arguments->headers, arguments->transport_type, user, arguments->gateway_id, NULL);
    Py_XDECREF(user);
    if (parts == NULL) {
        return -1;
    }
    if (!PyTuple_Check(parts)) {
        PyErr_Format(PyExc_TypeError, "_make_pool_key() must return a tuple of str, not %.100s",
                     Py_TYPE(parts)->tp_name);
        goto done;
    }
    if (py_key_put_byte(key, 'K') < 0 ||
        put_downstream_session(key, identity, arguments->headers) < 0) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(parts); i++) {
        PyObject *part = PyTuple_GET_ITEM(parts, i);
        if (!PyUnicode_Check(part)) {
            PyErr_Format(PyExc_TypeError,
                         "_make_pool_key() must return a tuple of str: item %zd is %.100s", i,
                         Py_TYPE(part)->tp_name);
            goto done;
        }
        if (py_key_put_string(key, part) < 0) {
            goto done;
        }
    }
    result = 0;
done:
    Py_DECREF(parts);
    return result;
}

/* Kind C: what _compute_identity_hash() of `pool` returned. */
static int
put_hooked_identity(py_key *key, py_state *state, const py_key_arguments *arguments)
{
    int result = -1;
    PyObject *identity = PyObject_CallMethodOneArg(
        arguments->pool, state->hook_names[PY_HOOK_COMPUTE_IDENTITY_HASH], arguments->headers);
    if (identity == NULL) {
        return -1;
    }
    if (PyUnicode_Check(identity)) {
        key->is_anonymous = PyUnicode_CompareWithASCIIString(identity, "anonymous") == 0;
        result = py_key_put_byte(key, 'C') < 0 || py_key_put_string(key, identity) < 0 ? -1 : 0;
    } else {
        PyErr_Format(PyExc_TypeError, "_compute_identity_hash() must return str, not %.100s",
                     Py_TYPE(identity)->tp_name);
    }
    Py_DECREF(identity);
    return result;
}

int
py_key_build(py_state *state, const py_identity *identity, unsigned hooks,
             const py_key_arguments *arguments, py_key *key)
{
    bool has_user = arguments->user_identity != Py_None;
    bool has_gateway = arguments->gateway_id != Py_None;
    if (check_arguments(arguments) < 0) {
        return -1;
    }
    if (hooks & 1u << PY_HOOK_MAKE_POOL_KEY) {
        return put_hooked_key(key, identity, state, arguments);
    }
    has_user = has_user && PyUnicode_GET_LENGTH(arguments->user_identity) > 0;
    if (py_key_put_byte(key, 'P') < 0 ||
        (has_user ? py_key_put_string(key, arguments->user_identity)
                  : py_key_put_part(key, "anonymous", 9)) < 0 ||
        py_key_put_string(key, arguments->url) < 0 ||
        (has_gateway ? py_key_put_string(key, arguments->gateway_id)
                     : py_key_put_part(key, "", 0)) < 0 ||
        put_transport(key, state, arguments->transport_type) < 0 ||
        put_downstream_session(key, identity, arguments->headers) < 0) {
        return -1;
    }
    key->identity = key->size;
    int result = hooks & 1u << PY_HOOK_COMPUTE_IDENTITY_HASH
                     ? put_hooked_identity(key, state, arguments)
                     : put_identity(key, identity, arguments->pool, arguments->headers, state);
    key->is_anonymous = key->is_anonymous && !has_user;
    return result;
}
