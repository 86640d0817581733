/* From the arguments of acquire() to the bytes of a pool key: see key_format.h. */
#ifndef MGP_PYTHON_KEY_H
#define MGP_PYTHON_KEY_H

#include "header_identity.h"
#include "key_format.h"
#include "state.h"

typedef struct {
    PyObject *pool; /* all borrowed, none NULL */
    PyObject *url;
    PyObject *headers; /* dict or None */
    PyObject *transport_type;
    PyObject *user_identity; /* str or None */
    PyObject *gateway_id;    /* str or None */
    bool is_anonymous;       /* counted as such, though its key names somebody */
} py_key_arguments;

/* 0, or -1 with TypeError, ValueError, MemoryError, or what a hook raised. `hooks` has
 * bit PY_HOOK_... set for each overridden hook. */
int py_key_build(py_state *state, const py_identity *identity, unsigned hooks,
                 const py_key_arguments *arguments, py_key *key);
/* The identity part alone, as bytes; None for anonymous. New reference or NULL. */
PyObject *py_key_identity(const py_identity *identity, PyObject *pool, PyObject *headers,
                          py_state *state);
/* session_header(headers): the value of x-mcp-session-id, or None. */
PyObject *py_key_session_header(PyObject *module, PyObject *headers);

#endif
