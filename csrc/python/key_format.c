#include "key_format.h"

#include <string.h>

#include "../base/alloc.h"

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

int
py_key_grow(py_key *key, size_t more)
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

int
py_key_put_string(py_key *key, PyObject *string)
{
    Py_ssize_t size;
    PyObject *owned;
    if (PyUnicode_IS_COMPACT_ASCII(string)) {
        return py_key_put_part(key, PyUnicode_1BYTE_DATA(string),
                               (size_t)PyUnicode_GET_LENGTH(string));
    }
    const char *bytes = string_bytes(string, &size, &owned);
    int result = bytes == NULL ? -1 : py_key_put_part(key, bytes, (size_t)size);
    Py_XDECREF(owned);
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

static void
skip_string(reader *from)
{
    uint32_t size;
    memcpy(&size, from->next, sizeof(size));
    from->next += sizeof(size) + size;
    from->left -= sizeof(size) + size;
}

PyObject *
py_key_identity_part(const void *bytes, size_t size)
{
    reader from = {bytes, size};
    if (size == 0 || read_byte(&from) == 'K') {
        return Py_NewRef(Py_None);
    }
    skip_string(&from); /* user */
    skip_string(&from); /* URL */
    skip_string(&from); /* gateway id */
    (void)read_byte(&from);
    if (read_byte(&from) != 0) {
        skip_string(&from); /* downstream session */
    }
    return PyBytes_FromStringAndSize((const char *)from.next, (Py_ssize_t)from.left);
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
