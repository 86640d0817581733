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
#ifndef MGP_PYTHON_KEY_H
#define MGP_PYTHON_KEY_H

#include "common.h"

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

/* The names that make an identity, lower-cased, in the order of the settings. */
/* Header names longer than this name no identity. */
#define PY_HEADER_NAME_MAX 63

typedef struct {
    const char *bytes; /* of a str in `names` */
    Py_ssize_t size;
    int next_of_size; /* index of the next name of the same size, or -1 */
} py_header_name;

typedef struct {
    PyObject *names;       /* owned tuple of ASCII str */
    py_header_name *views; /* owned array, one for each of them */
    Py_ssize_t count;
    int first_of_size[PY_HEADER_NAME_MAX + 1]; /* index of a name of that size, or -1 */
    bool isolate_by_session;                   /* isolation "session" */
    bool has_affinity;                         /* x-mcp-session-id alone is the identity */
    PyObject *extractor;                       /* owned; NULL for none */
} py_identity;

typedef struct {
    PyObject *pool; /* all borrowed, none NULL */
    PyObject *url;
    PyObject *headers; /* dict or None */
    PyObject *transport_type;
    PyObject *user_identity; /* str or None */
    PyObject *gateway_id;    /* str or None */
} py_key_arguments;

void py_key_init(py_key *key);
/* Wipes and frees: a key holds bearer tokens. */
void py_key_fini(py_key *key);

/* 0, or -1 with TypeError, ValueError, MemoryError, or what a hook raised. `hooks` has
 * bit PY_HOOK_... set for each overridden hook. */
int py_key_build(py_state *state, const py_identity *identity, unsigned hooks,
                 const py_key_arguments *arguments, py_key *key);
/* The identity part alone, as bytes; None for anonymous. New reference or NULL. */
PyObject *py_key_identity(const py_identity *identity, PyObject *pool, PyObject *headers,
                          py_state *state);
/* session_header(headers): the value of x-mcp-session-id, or None. */
PyObject *py_key_session_header(PyObject *module, PyObject *headers);
/* For display: (user, url, gateway id, transport, session or None, identity bytes), or
 * the tuple of str that _make_pool_key() returned. New reference or NULL. */
PyObject *py_key_describe(const void *bytes, size_t size);

#endif
