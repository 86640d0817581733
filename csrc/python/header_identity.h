/* Which of a request's headers make an identity, and what it is. */
#ifndef MGP_PYTHON_HEADER_IDENTITY_H
#define MGP_PYTHON_HEADER_IDENTITY_H

#include "common.h"
#include "key_format.h"

/* Header names longer than this name no identity. */
#define PY_HEADER_NAME_MAX 63

typedef struct {
    const char *bytes; /* of a str in `names` */
    Py_ssize_t size;
    int next_of_size; /* index of the next name of the same size, or -1 */
} py_header_name;

/* The names that make an identity, lower-cased, in the order of the settings. */
typedef struct {
    PyObject *names;       /* owned tuple of ASCII str */
    py_header_name *views; /* owned array, one for each of them */
    Py_ssize_t count;
    int first_of_size[PY_HEADER_NAME_MAX + 1]; /* index of a name of that size, or -1 */
    bool isolate_by_session;                   /* isolation "session" */
    bool has_affinity;                         /* x-mcp-session-id alone is the identity */
    PyObject *extractor;                       /* owned; NULL for none */
} py_identity;

/* The headers of a mapping that is no dict: a new dict, or NULL with TypeError, or with what the
 * mapping raised. */
PyObject *py_headers_read(PyObject *mapping);
/* The value of x-mcp-session-id, borrowed; NULL where it is missing or empty. */
PyObject *py_headers_find_session(PyObject *headers);
/* Kind H, or A where no identity header is present. Checks every header on the way: 0, or -1
 * with an exception. */
int py_headers_put(py_key *key, const py_identity *identity, PyObject *headers);

#endif
