/* The state of the module: types, names, and the counters of the process; and which pool
 * machines are this process's own. */
#ifndef MGP_PYTHON_STATE_H
#define MGP_PYTHON_STATE_H

#include "common.h"

#include "../base/siphash.h"
#include "../metrics/directory.h"
#include "../metrics/rows.h"

/* The hooks whose overriding changes what the C side does; the others are simply
 * called on `self`. */
enum py_hook {
    PY_HOOK_VALIDATE_SESSION,
    PY_HOOK_COMPUTE_IDENTITY_HASH,
    PY_HOOK_MAKE_POOL_KEY,
    PY_HOOK_ACQUIRE,
    PY_HOOK_RELEASE,
    PY_HOOK_COUNT,
};

/* Beside the bits of overridden hooks: leak detection is on. */
#define PY_TRACKS_CHECKOUTS (1u << PY_HOOK_COUNT)

/* Module state. Every PyObject * is owned. */
typedef struct {
    PyTypeObject *pool_type;
    PyTypeObject *pooled_session_type;
    PyTypeObject *connection_type;
    PyTypeObject *pending_type;
    PyTypeObject *ticket_type;
    PyTypeObject *session_context_type;

    PyObject *transport_sse; /* TransportType members, and the class */
    PyObject *transport_streamable_http;
    PyObject *transport_class;
    PyObject *exhausted_error;
    PyObject *closed_error;
    PyObject *get_running_loop;      /* asyncio's C function */
    PyObject *gateway_label;         /* mcpgateway_pool.labels.gateway_label */
    PyObject *safe_url;              /* mcpgateway_pool.redact.safe_url */
    PyObject *is_known_to_be_closed; /* mcpgateway_pool.upstream.sdk.is_known_to_be_closed */

    PyObject *hook_names[PY_HOOK_COUNT];     /* interned */
    PyObject *hook_originals[PY_HOOK_COUNT]; /* what MCPSessionPool defines; NULL before that */

    PyObject *str_set_result; /* interned names of what is called on Python objects */
    PyObject *str_done;
    PyObject *str_is_closed;
    PyObject *str_create_future;
    PyObject *str_call_soon_threadsafe;
    PyObject *str_on_close;
    PyObject *str_on_check;
    PyObject *str_on_create;
    PyObject *str_on_long_checkout;
    PyObject *str_trace_of_caller;
    PyObject *str_circuit_open_error;
    PyObject *str_arm_timer;
    PyObject *str_reap_leaks;
    PyObject *str_run_effects;
    PyObject *str_forget_loop;
    PyObject *str_leave_to_parent;
    PyObject *str_extract_identity;

    struct mgp_siphash_key hash_key;
    struct mgp_rows rows;
    bool has_rows;

    /* Shared counters; all of it under the GIL. */
    PyThread_type_lock fold_lock; /* never waited for */
    bool has_finished;            /* the last snapshot saw files that can be folded */
    struct mgp_problems problems; /* not reported yet */
} py_state;

py_state *py_state_of_type(PyTypeObject *type); /* of any type of this module */

extern struct PyModuleDef py_module_definition;

/* Once for all modules: what must happen at a fork. 0, or -1 with an exception. */
int py_watch_forks(void);

/* ---- machines: each pool machine has a number of its own, and so have the handles that name
 * something of it. After a fork, those of before are the parent's: the rows that they count in
 * are shared with it. The child sees that before any of its Python code runs. ---- */
uint64_t py_machine_next_number(void);

extern uint64_t py_machine_first_own; /* of this process */

static inline bool
py_machine_is_own(uint64_t number)
{
    return number >= py_machine_first_own;
}

#endif
