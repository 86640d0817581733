/* PoolCore: the type behind MCPSessionPool. It owns the pool machine and one event
 * loop's worth of futures; it turns arguments into keys, effects into futures and tasks. */
#ifndef MGP_PYTHON_POOL_H
#define MGP_PYTHON_POOL_H

#include "common.h"
#include "key.h"
#include "pending.h"
#include "pooled_session.h"

typedef struct py_pool {
    PyObject_HEAD
    py_state *state;       /* borrowed: the type keeps the module alive */
    struct mgp_pool *core; /* owned; NULL before _setup() */
    PyObject *loop;        /* owned: the event loop adopted at first use; NULL before that */
    const void *loop_dict; /* never read through; see loop_is_the_same() */
    uint64_t loop_version;
    PyObject *clock;   /* owned callable giving seconds; NULL for the monotonic clock */
    PyObject *foreign; /* owned dict: address of a duck-typed session -> its record */
    py_identity identity;
    struct mgp_config config;
    py_connection *leaked;  /* records whose PooledSession was dropped; linked, borrowed */
    int64_t last_now_ns;    /* time never runs backwards for the machine */
    int64_t armed_ns;       /* when the timer fires; INT64_MAX when it is not armed */
    unsigned hooks;         /* bit PY_HOOK_... for each overridden hook */
    unsigned hooks_version; /* type version for which `hooks` holds; 0: for none */
    unsigned long thread;   /* of `loop` */
    bool is_grouped;        /* keys belong to the groups of their user and of their gateway */
    bool is_running_effects;
    bool is_building_key;    /* an overridden hook that makes the key is running */
    bool has_seen_anonymous; /* ... and asked for the default, which found no identity */
} py_pool;

extern PyType_Spec py_pool_spec;

/* What a pool's keys can be evicted by: see _share(). */
enum py_group { PY_GROUP_USER, PY_GROUP_GATEWAY };

/* ---- loop.c ---- */
/* The pool's time; 0, or -1 with what the replaced clock raised. */
int py_pool_now(py_pool *self, int64_t *now_ns);
/* Makes sure that the pool is set up and that the running loop is its own: 0 or -1. */
int py_pool_enter(py_pool *self, int64_t *now_ns);
/* The same for what must not be lost, such as the end of a close: where the clock fails, time stands still. */
int py_pool_enter_to_report(py_pool *self, int64_t *now_ns);
/* After each operation on the machine: carries out its effects and keeps the timer
 * early enough. Never fails: what goes wrong with one effect is reported and that
 * effect undone. */
void py_pool_leave(py_pool *self, int64_t now_ns);
/* Sees to it that the timer fires when upkeep is due. */
void py_pool_arm_timer(py_pool *self, int64_t now_ns);
/* Gives up whatever a pending acquire still holds. A creation goes on where somebody
 * will report its end (`is_reported`), and has failed otherwise. */
void py_pool_give_up(py_pool *self, py_pending *pending, bool is_reported);

/* ---- hooks.c ---- */
/* Brings `hooks` up to date: 0 or -1. */
int py_pool_refresh_hooks(py_pool *self);
/* Gives `config` to the machine, with what overridden hooks change of it. */
void py_pool_apply_config(py_pool *self);
int py_pool_setattro(py_pool *self, PyObject *name, PyObject *value);
/* remember_hooks(cls): what the class defines is not an override. */
PyObject *py_module_remember_hooks(PyObject *module, PyObject *cls);

/* Whether the class or the instance may have changed since `hooks` was made. */
static inline bool
py_pool_hooks_are_current(const py_pool *self)
{
    const PyTypeObject *type = Py_TYPE((PyObject *)self);
#if PY_VERSION_HEX < 0x030c0000
    /* 3.11 keeps the tag of a type that was modified, and clears the flag. */
    if (!(type->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG)) {
        return false;
    }
#endif
    return self->hooks_version != 0 && type->tp_version_tag == self->hooks_version;
}

static inline int
py_pool_ensure_hooks(py_pool *self)
{
    bool are_current = self->core == NULL || py_pool_hooks_are_current(self);
    return are_current ? 0 : py_pool_refresh_hooks(self);
}

/* Whether neither acquire() nor release() is overridden: 1, 0, or -1. */
static inline int
py_pool_is_plain(py_pool *self)
{
    if (py_pool_ensure_hooks(self) < 0) {
        return -1;
    }
    return !(self->hooks & (1u << PY_HOOK_ACQUIRE | 1u << PY_HOOK_RELEASE));
}

/* ---- checkout.c: sessions in and out ---- */
/* A session at once, and its record (borrowed); or a Pending, and NULL for the record; or
 * NULL with an exception. The hooks must be current. */
PyObject *py_pool_acquire(py_pool *self, const py_key_arguments *arguments,
                          const py_connection **connection_out);
/* None; the task that closes the session; False when it was not checked out; NotImplemented
 * when it is not of this pool. New reference, or NULL with an exception. */
PyObject *py_pool_release(py_pool *self, PyObject *pooled, enum mgp_verdict verdict);
/* The object that callers get, at each checkout the same. New reference. */
PyObject *py_connection_check_out(py_connection *connection, struct mgp_ticket lease);
/* A PooledSession over the record, also when the caller's was dropped. Borrowed or NULL. */
PyObject *py_connection_ensure_view(py_state *state, py_connection *connection);
/* The record belongs to the pool from now on; the machine is about to take it. */
void py_connection_join_pool(py_connection *connection, py_pool *pool);
/* The machine has given the record back: steals the reference. `times` are the session's own
 * from here on. */
void py_connection_leave_pool(py_connection *connection, const struct mgp_session_times *times);
/* No pool knows it any more, and its view is closed. */
void py_connection_detach(py_connection *connection, const struct mgp_session_times *times);
/* The task that closes it, or whatever else is to be awaited for that. */
void py_connection_set_closer(py_connection *connection, PyObject *closer);
void py_pool_note_leak(py_connection *connection);
/* Takes back what was dropped. The loop does that, where there was memory to tell it so: 0 or -1. */
int py_pool_reclaim_leaked(py_pool *self);
PyObject *py_module_acquire(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_module_release(PyObject *module, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_lease_of(py_pool *self, PyObject *pooled);
PyObject *py_pool_holds(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_note_anonymous(py_pool *self, PyObject *ignored);
PyObject *py_pool_reap_leaks(py_pool *self, PyObject *ignored);
PyObject *py_pool_note_outcome(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
/* The record under which the pool knows an object: borrowed, or NULL. Prefers one that
 * is checked out. */
py_connection *py_pool_find_connection(py_pool *self, PyObject *pooled);

/* Whether a duck-typed session says that it is closed. A mock answers with a mock: only
 * True counts; one that cannot say is as good as closed. 1, 0, or -1. */
int py_pool_foreign_is_closed(py_pool *self, PyObject *pooled);

/* ---- sharing.c: sessions that several callers use at once, and groups of keys ---- */
PyObject *py_pool_share(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_retire(py_pool *self, PyObject *pooled);
PyObject *py_pool_lease_ticket(py_pool *self, PyObject *pooled);
PyObject *py_pool_release_lease(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_evict_group(py_pool *self, PyObject *const *args, Py_ssize_t nargs);

/* ---- effects.c ---- */
/* What a callback raised, and nobody is there to be told. An interrupt is not lost: it comes again. */
void py_pool_drop_error(void);
/* False when some were left for the next operation: there was no memory for them now. */
bool py_pool_run_effects(py_pool *self);

/* ---- answers.c: waiters, creations, checks, closes ---- */
PyObject *py_pool_take(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_time_out(py_pool *self, PyObject *object);
PyObject *py_pool_cancel(py_pool *self, PyObject *object);
PyObject *py_pool_created(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_create_failed(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_checked(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *py_pool_close_ended(py_pool *self, PyObject *object);
PyObject *py_pool_doubt(py_pool *self, PyObject *pooled);
PyObject *py_pool_mark_broken(py_pool *self, PyObject *const *args, Py_ssize_t nargs);
/* Raises what a status of the machine means for a caller; always -1. */
int py_pool_raise(py_pool *self, int status, PyObject *url);

/* ---- views.c ---- */
PyObject *py_pool_totals(py_pool *self, PyObject *ignored);
PyObject *py_pool_counts(py_pool *self, PyObject *ignored);
PyObject *py_pool_keys(py_pool *self, PyObject *ignored);
PyObject *py_pool_breakers(py_pool *self, PyObject *ignored);
/* module functions over the rows */
PyObject *py_series_table(void);

/* ---- metrics.c ---- */
PyObject *py_module_buckets(PyObject *module, PyObject *ignored);
PyObject *py_module_set_buckets(PyObject *module, PyObject *args);
PyObject *py_module_text(PyObject *module, PyObject *args);
PyObject *py_process_series_table(void);

#endif
