/* From the arguments of acquire() to the bytes of a pool key, and back for display.
 *
 * A key is a sequence of parts, each preceded by its length, so that no value can
 * imitate another split:
 *
 *   P | user | url | gateway id | transport (1 byte) | downstream session | identity
 *   K | downstream session | what an overridden _make_pool_key() returned, part by part
 *
 * downstream session: 0, or 1 and the value of x-mcp-session-id (isolation "session")
 * identity: a kind, and what belongs to it
 *   A   none: anonymous
 *   E   what the identity extractor returned
 *   S   x-mcp-session-id alone (session affinity)
 *   H   for each identity header that is present, in the order of the settings: its
 *       number, how many values it has (names that differ in case only), the values sorted
 *   C   what an overridden _compute_identity_hash() returned
 */
#ifndef MGP_PYTHON_KEY_FORMAT_H
#define MGP_PYTHON_KEY_FORMAT_H

#include "common.h"

#include <string.h>

/* Enough for most keys without the heap. */
#define PY_KEY_INLINE_BYTES 1024

typedef struct {
    uint8_t *bytes; /* inline_bytes, or owned */
    size_t size;
    size_t capacity;
    size_t identity;    /* where the identity begins; 0 in a key of _make_pool_key() */
    bool is_anonymous;  /* neither a user nor a header identity */
    bool is_single_use; /* isolation "session", and no downstream session */
    uint8_t inline_bytes[PY_KEY_INLINE_BYTES];
} py_key;

void py_key_init(py_key *key);
/* Wipes and frees: a key holds bearer tokens. */
void py_key_fini(py_key *key);

/* Makes room where there is too little. The functions below: 0, or -1 with an exception. */
int py_key_grow(py_key *key, size_t more);

static inline int
py_key_reserve(py_key *key, size_t more)
{
    return more <= key->capacity - key->size ? 0 : py_key_grow(key, more);
}

static inline int
py_key_put_byte(py_key *key, uint8_t byte)
{
    if (py_key_reserve(key, 1) < 0) {
        return -1;
    }
    key->bytes[key->size++] = byte;
    return 0;
}

static inline int
py_key_put_part(py_key *key, const void *bytes, size_t size)
{
    uint32_t length = (uint32_t)size;
    if (size > UINT32_MAX) {
        PyErr_SetString(PyExc_ValueError, "a part of the pool key is longer than 4 GiB");
        return -1;
    }
    if (py_key_reserve(key, sizeof(length) + size) < 0) {
        return -1;
    }
    uint8_t *end = key->bytes + key->size;
    memcpy(end, &length, sizeof(length));
    memcpy(end + sizeof(length), bytes, size);
    key->size += sizeof(length) + size;
    return 0;
}

/* A string of any kind, as a part. Distinct strings have distinct bytes. */
int py_key_put_string(py_key *key, PyObject *string);

/* The identity in a key, bytes; None where _make_pool_key() made the key. New reference or NULL. */
PyObject *py_key_identity_part(const void *bytes, size_t size);
/* For display: (user, url, gateway id, transport, session or None, identity bytes), or
 * the tuple of str that _make_pool_key() returned. New reference or NULL. */
PyObject *py_key_describe(const void *bytes, size_t size);

#endif
