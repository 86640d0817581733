#include "key.h"

#include <string.h>

#include "../base/alloc.h"

#define SESSION_HEADER "x-mcp-session-id"
/* Names that differ in case only, for one identity header. */
#define MAX_SPELLINGS 16

void
py_key_init(py_key *key)
{
    key->bytes = key->inline_bytes;
    key->size = 0;
    key->capacity = sizeof(key->inline_bytes);
    key->identity = 0;
    key->is_anonymous = false;
    key->is_single_use = false;
}

void
py_key_fini(py_key *key)
{
    mgp_wipe(key->bytes, key->size);
    if (key->bytes != key->inline_bytes) {
        mgp_free(key->bytes);
    }
}

/* Makes room where there is too little. */
static int
key_grow(py_key *key, size_t more)
{
    if (more > SIZE_MAX / 2 - key->size) {
        PyErr_NoMemory();
        return -1;
    }
    size_t capacity = 2 * (key->size + more);
    uint8_t *bytes = mgp_alloc(capacity);
    if (bytes == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(bytes, key->bytes, key->size);
    size_t size = key->size;
    py_key_fini(key);
    key->bytes = bytes;
    key->size = size;
    key->capacity = capacity;
    return 0;
}

static inline int
key_reserve(py_key *key, size_t more)
{
    return more <= key->capacity - key->size ? 0 : key_grow(key, more);
}

static inline int
key_put_byte(py_key *key, uint8_t byte)
{
    if (key_reserve(key, 1) < 0) {
        return -1;
    }
    key->bytes[key->size++] = byte;
    return 0;
}

static inline int
key_put_part(py_key *key, const void *bytes, size_t size)
{
    uint32_t length = (uint32_t)size;
    if (size > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a part of the pool key is longer than 4 GiB");
        return -1;
    }
    if (key_reserve(key, sizeof(length) + size) < 0) {
        return -1;
    }
    uint8_t *end = key->bytes + key->size;
    memcpy(end, &length, sizeof(length));
    memcpy(end + sizeof(length), bytes, size);
    key->size += sizeof(length) + size;
    return 0;
}

static const char *
encode(PyObject *string, Py_ssize_t *size, PyObject **owned)
{
    *owned = NULL;
    const char *bytes = PyUnicode_AsUTF8AndSize(string, size);
    if (bytes != NULL || !PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
        return bytes;
    }
    PyErr_Clear();
    *owned = PyUnicode_AsEncodedString(string, "utf-8", "surrogatepass");
    if (*owned == NULL) {
        return NULL;
    }
    *size = PyBytes_GET_SIZE(*owned);
    return PyBytes_AS_STRING(*owned);
}

/* The UTF-8 of a string, also of one with lone surrogates: then *owned is a new bytes
 * object that the caller drops. Distinct strings have distinct bytes. */
static const char *
string_bytes(PyObject *string, Py_ssize_t *size, PyObject **owned)
{
    /* Values of headers are borrowed meanwhile: no garbage collection, whose finalizers could
     * take them out of the dict. */
    int was_enabled = PyGC_Disable();
    const char *bytes = encode(string, size, owned);
    if (was_enabled) {
        PyGC_Enable();
    }
    return bytes;
}

static int
key_put_string(py_key *key, PyObject *string)
{
    Py_ssize_t size;
    PyObject *owned;
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        return key_put_part(key, PyUnicode_1BYTE_DATA(string),
                            (size_t)PyUnicode_GET_LENGTH(string));
    }
    const char *bytes = string_bytes(string, &size, &owned);
    int result = bytes == NULL ? -1 : key_put_part(key, bytes, (size_t)size);
    Py_XDECREF(owned);
    return result;
}

/* ---- header names ----------------------------------------------------------- */

/* Eight ASCII characters, the capital letters among them made small. */
static inline uint64_t
to_lower(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t is_above_z = word + (0x7f - 'Z') * ones; /* bit 7 of each byte */
    uint64_t is_from_a = word + (0x80 - 'A') * ones;
    return word | (((is_from_a ^ is_above_z) & 0x80 * ones) >> 2);
}

static inline uint64_t
load_word(const char *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof(word));
    return word;
}

/* `name` is ASCII, in any case, and as long as `lower_case`. */
static bool
is_same_name(const char *name, const char *lower_case, Py_ssize_t size)
{
    if (size < (Py_ssize_t)sizeof(uint64_t)) {
        for (Py_ssize_t i = 0; i < size; i++) {
            if ((to_lower((unsigned char)name[i]) & 0xff) != (unsigned char)lower_case[i]) {
                return false;
            }
        }
        return true;
    }
    /* The last word overlaps the one before it. */
    Py_ssize_t last = size - (Py_ssize_t)sizeof(uint64_t);
    for (Py_ssize_t i = 0; i < last; i += (Py_ssize_t)sizeof(uint64_t)) {
        if (to_lower(load_word(name + i)) != load_word(lower_case + i)) {
            return false;
        }
    }
    return to_lower(load_word(name + last)) == load_word(lower_case + last);
}

/* Whether a header's name is `lower_case`, whatever its case. Names that are not ASCII are
 * no HTTP header names and match nothing. Those of subclasses of str (members of a StrEnum)
 * are not compact; their characters count, not what they override. */
static bool
header_matches(PyObject *name, const char *lower_case, Py_ssize_t size)
{
    return PyUnicode_GET_LENGTH(name) == size && PyUnicode_IS_ASCII(name) &&
           is_same_name((const char *)PyUnicode_1BYTE_DATA(name), lower_case, size);
}

static int
check_header(PyObject *name, PyObject *value)
{
    if (!PyUnicode_Check(name)) {
        PyErr_Format(PyExc_TypeError, "header names must be str, not %.100s",
                     Py_TYPE(name)->tp_name);
        return -1;
    }
    if (!PyUnicode_Check(value)) {
        PyErr_Format(PyExc_TypeError, "the value of header %.100R must be str, not %.100s", name,
                     Py_TYPE(value)->tp_name);
        return -1;
    }
    return 0;
}

/* The value of x-mcp-session-id, borrowed; NULL where it is missing or empty. */
static PyObject *
find_session_header(PyObject *headers)
{
    PyObject *name, *value, *found = NULL;
    Py_ssize_t position = 0;
    while (headers != Py_None && PyDict_Next(headers, &position, &name, &value)) {
        if (PyUnicode_Check(name) && PyUnicode_Check(value) &&
            header_matches(name, SESSION_HEADER, sizeof(SESSION_HEADER) - 1) &&
            PyUnicode_GET_LENGTH(value) > 0 &&
            (found == NULL || PyUnicode_Compare(value, found) < 0)) {
            found = value;
        }
    }
    return found;
}

/* ---- identity --------------------------------------------------------------- */

/* One identity header that several spellings name: all values, in sorted order, so that
 * the order of the dict does not matter. */
static int
put_spellings(py_key *key, PyObject *headers, const py_header_name *wanted, uint8_t number)
{
    PyObject *values[MAX_SPELLINGS]; /* borrowed */
    PyObject *name, *value;
    uint8_t count = 0;
    Py_ssize_t position = 0;
    while (PyDict_Next(headers, &position, &name, &value)) {
        if (!header_matches(name, wanted->bytes, wanted->size)) {
            continue;
        }
        if (count == MAX_SPELLINGS) {
            PyErr_Format(PyExc_ValueError, "header '%s' is given in more than %d spellings",
                         wanted->bytes, MAX_SPELLINGS);
            return -1;
        }
        uint8_t place = count++;
        for (; place > 0 && PyUnicode_Compare(value, values[place - 1]) < 0; place--) {
            values[place] = values[place - 1];
        }
        values[place] = value;
    }
    if (key_put_byte(key, number) < 0 || key_put_byte(key, count) < 0) {
        return -1;
    }
    for (uint8_t i = 0; i < count; i++) {
        if (key_put_string(key, values[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

/* Kind H, or A where no identity header is present. Checks every header on the way. */
static int
put_headers(py_key *key, const py_identity *identity, PyObject *headers)
{
    PyObject *found[UINT8_MAX + 1]; /* borrowed */
    bool has_spellings[UINT8_MAX + 1];
    PyObject *name, *value;
    Py_ssize_t position = 0;
    Py_ssize_t name_count = identity->count;
    bool is_anonymous = true;
    for (Py_ssize_t i = 0; i < name_count; i++) {
        found[i] = NULL;
    }
    while (headers != Py_None && PyDict_Next(headers, &position, &name, &value)) {
        if (check_header(name, value) < 0) {
            return -1;
        }
        Py_ssize_t size = PyUnicode_GET_LENGTH(name);
        int i = size <= PY_HEADER_NAME_MAX ? identity->first_of_size[size] : -1;
        for (; i >= 0; i = identity->views[i].next_of_size) {
            if (header_matches(name, identity->views[i].bytes, size)) {
                has_spellings[i] = found[i] != NULL;
                found[i] = value;
                is_anonymous = false;
                break;
            }
        }
    }
    if (is_anonymous) {
        key->is_anonymous = true;
        return key_put_byte(key, 'A');
    }
    if (key_put_byte(key, 'H') < 0) {
        return -1;
    }
    for (Py_ssize_t i = 0; i < name_count; i++) {
        uint8_t number = (uint8_t)i;
        if (found[i] == NULL) {
            continue;
        }
        if (has_spellings[i]) {
            if (put_spellings(key, headers, &identity->views[i], number) < 0) {
                return -1;
            }
        } else if (key_put_byte(key, number) < 0 || key_put_byte(key, 1) < 0 ||
                   key_put_string(key, found[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

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
        result = key_put_byte(key, 'E') < 0 || key_put_string(key, extracted) < 0 ? -1 : 1;
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
        PyObject *session = find_session_header(headers);
        if (session != NULL) {
            return key_put_byte(key, 'S') < 0 || key_put_string(key, session) < 0 ? -1 : 0;
        }
    }
    return put_headers(key, identity, headers);
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
    PyObject *value = PyDict_Check(headers) ? find_session_header(headers) : NULL;
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
        return key_put_byte(key, 'h');
    }
    if (transport_type == state->transport_sse) {
        return key_put_byte(key, 's');
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
    PyObject *session = identity->isolate_by_session ? find_session_header(headers) : NULL;
    if (session == NULL) {
        key->is_single_use = identity->isolate_by_session;
        return key_put_byte(key, 0);
    }
    return key_put_byte(key, 1) < 0 || key_put_string(key, session) < 0 ? -1 : 0;
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
    if (key_put_byte(key, 'K') < 0 ||
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
        if (key_put_string(key, part) < 0) {
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
        result = key_put_byte(key, 'C') < 0 || key_put_string(key, identity) < 0 ? -1 : 0;
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
    if (key_put_byte(key, 'P') < 0 ||
        (has_user ? key_put_string(key, arguments->user_identity)
                  : key_put_part(key, "anonymous", 9)) < 0 ||
        key_put_string(key, arguments->url) < 0 ||
        (has_gateway ? key_put_string(key, arguments->gateway_id) : key_put_part(key, "", 0)) < 0 ||
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

/* ---- display ---------------------------------------------------------------- */

typedef struct {
    const uint8_t *next;
    size_t left;
} reader;

/* A part as str. The bytes are the pool's own, and so well-formed. */
static PyObject *
read_string(reader *from)
{
    uint32_t size;
    memcpy(&size, from->next, sizeof(size));
    const char *bytes = (const char *)from->next + sizeof(size);
    from->next += sizeof(size) + size;
    from->left -= sizeof(size) + size;
    return PyUnicode_DecodeUTF8(bytes, (Py_ssize_t)size, "surrogatepass");
}

static uint8_t
read_byte(reader *from)
{
    from->left--;
    return *from->next++;
}

static PyObject *
describe_hooked_key(reader *from)
{
    PyObject *session = read_byte(from) == 0 ? Py_NewRef(Py_None) : read_string(from);
    PyObject *parts = session == NULL ? NULL : PyList_New(0);
    PyObject *result = NULL;
    while (parts != NULL && from->left > 0) {
        PyObject *part = read_string(from);
        if (part == NULL || PyList_Append(parts, part) < 0) {
            Py_XDECREF(part);
            goto done;
        }
        Py_DECREF(part);
    }
    if (parts != NULL) {
        result = Py_BuildValue("(NO)", PyList_AsTuple(parts), session);
    }
done:
    Py_XDECREF(parts);
    Py_XDECREF(session);
    return result;
}

PyObject *
py_key_describe(const void *bytes, size_t size)
{
    reader from = {bytes, size};
    PyObject *result = NULL, *user = NULL, *url = NULL, *gateway_id = NULL, *session = NULL;
    if (read_byte(&from) == 'K') {
        return describe_hooked_key(&from);
    }
    user = read_string(&from);
    url = user == NULL ? NULL : read_string(&from);
    gateway_id = url == NULL ? NULL : read_string(&from);
    if (gateway_id != NULL) {
        const char *transport = read_byte(&from) == 's' ? "sse" : "streamablehttp";
        session = read_byte(&from) == 0 ? Py_NewRef(Py_None) : read_string(&from);
        if (session != NULL) {
            result = Py_BuildValue("(OOOsOy#)", user, url, gateway_id, transport, session,
                                   (const char *)from.next, (Py_ssize_t)from.left);
        }
    }
    Py_XDECREF(user);
    Py_XDECREF(url);
    Py_XDECREF(gateway_id);
    Py_XDECREF(session);
    return result;
}
