#include "header_identity.h"

#include <string.h>

/* Names that differ in case only, for one identity header. */
#define MAX_SPELLINGS 16
#define SESSION_HEADER "x-mcp-session-id"

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

PyObject *
py_headers_find_session(PyObject *headers)
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

PyObject *
py_headers_read(PyObject *mapping)
{
    /* Whatever has keys() is a mapping, as for dict(). */
    PyObject *keys = PyObject_GetAttrString(mapping, "keys");
    if (keys == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Format(PyExc_TypeError, "headers must be a mapping or None, not %.100s",
                         Py_TYPE(mapping)->tp_name);
        }
        return NULL;
    }
    Py_DECREF(keys);
    PyObject *headers = PyDict_New();
    if (headers != NULL && PyDict_Update(headers, mapping) < 0) {
        Py_CLEAR(headers);
    }
    return headers;
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
    if (py_key_put_byte(key, number) < 0 || py_key_put_byte(key, count) < 0) {
        return -1;
    }
    for (uint8_t i = 0; i < count; i++) {
        if (py_key_put_string(key, values[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

int
py_headers_put(py_key *key, const py_identity *identity, PyObject *headers)
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
        return py_key_put_byte(key, 'A');
    }
    if (py_key_put_byte(key, 'H') < 0) {
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
        } else if (py_key_put_byte(key, number) < 0 || py_key_put_byte(key, 1) < 0 ||
                   py_key_put_string(key, found[i]) < 0) {
            return -1;
        }
    }
    return 0;
}
