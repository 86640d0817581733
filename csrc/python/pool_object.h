/* PoolCore: the object behind MCPSessionPool. It owns the pool machine and one event
 * loop's worth of futures; the files of the binding turn arguments into keys, effects into
 * futures and tasks. */
#ifndef MGP_PYTHON_POOL_OBJECT_H
#define MGP_PYTHON_POOL_OBJECT_H

#include "common.h"

#include "../core/pool.h"
#include "header_identity.h"
#include "state.h"

typedef struct py_connection py_connection; /* see connection.h */

typedef struct py_pool {
    PyObject_HEAD
    py_state *state;       /* borrowed: the type keeps the module alive */
    struct mgp_pool *core; /* owned; NULL before _setup(), and when the pool was cleared */
    uint64_t machine;      /* the number of `core`; see py_pool_core() */
    PyObject *loop;        /* owned: the event loop adopted at first use; NULL before that */
    const void *loop_dict; /* never read through; see loop_is_the_same() */
    uint64_t loop_version;
    PyObject *clock;   /* owned callable giving seconds; NULL for the monotonic clock */
    PyObject *foreign; /* owned dict: address of a duck-typed session -> its records */
    py_identity identity;
    struct mgp_config config;
    py_connection *leaked;  /* records whose PooledSession was dropped; linked, borrowed */
    int64_t now_ns;         /* as last read: time never runs backwards for the machine */
    int64_t armed_ns;       /* when the timer fires; INT64_MAX when it is not armed */
    unsigned hooks;         /* bit PY_HOOK_... for each overridden hook; PY_TRACKS_CHECKOUTS */
    unsigned hooks_version; /* type version for which `hooks` holds; 0: for none */
    bool is_grouped;        /* keys belong to the groups of their user and of their gateway */
    bool keeps_arguments;   /* of acquires, with their sessions: for others like these */
    bool is_running_effects;
    bool is_building_key;    /* an overridden hook that makes the key is running */
    bool has_seen_anonymous; /* ... and asked for the default, which found no identity */
} py_pool;

/* The pool's machine. NULL where there is none, or only the parent's, which a forked child
 * must not touch. Also after each call that may have run Python, which may have forked. */
static inline struct mgp_pool *
py_pool_core(const py_pool *self)
{
    return py_machine_is_own(self->machine) ? self->core : NULL;
}

/* What a pool's keys can be evicted by: see _share(). */
enum py_group { PY_GROUP_USER, PY_GROUP_GATEWAY };

#endif
