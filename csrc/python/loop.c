/* See loop.h. */
#include "loop.h"

#include <math.h>

#include "connection.h"
#include "effects.h"

#ifdef MGP_DEBUG
/* The whole-pool check is O(sessions): beyond this many it is made at some operations only. */
#define CHECK_ALWAYS_BELOW 64
#define CHECK_EVERY 256
#endif

/* ---- time and loop ---------------------------------------------------------- */

static int
read_clock(py_pool *self, int64_t *now_ns)
{
    PyObject *seconds = PyObject_CallNoArgs(self->clock);
    double value = seconds == NULL ? -1.0 : PyFloat_AsDouble(seconds);
    Py_XDECREF(seconds);
    if (value == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    if (isnan(value) || fabs(value) > (double)MGP_DURATION_MAX_NS / NS_PER_SECOND) {
        PyErr_SetString(PyExc_ValueError, "the clock returned no usable number of seconds");
        return -1;
    }
    *now_ns = (int64_t)(value * NS_PER_SECOND);
    return 0;
}

int
py_pool_now(py_pool *self, int64_t *now_ns)
{
    int64_t read_ns;
    if (self->clock == NULL) {
        read_ns = py_monotonic_ns();
    } else if (read_clock(self, &read_ns) < 0) {
        return -1;
    }
    if (read_ns > self->now_ns) {
        self->now_ns = read_ns;
    }
    *now_ns = self->now_ns;
    return 0;
}

int64_t
py_pool_read_time(py_pool *self)
{
    int64_t now_ns = self->now_ns;
    if (self->clock == NULL) {
        (void)py_pool_now(self, &now_ns);
    }
    return now_ns;
}

/* 1 closed, 0 open, -1 error. */
static int
loop_is_closed(py_pool *self, PyObject *loop)
{
    PyObject *is_closed = PyObject_CallMethodNoArgs(loop, self->state->str_is_closed);
    int result = is_closed == NULL ? -1 : PyObject_IsTrue(is_closed);
    Py_XDECREF(is_closed);
    return result;
}

#if PY_VERSION_HEX < 0x030d0000
/* asyncio keeps the running loop in the dict of the thread's state, where looking it up
 * takes longer than all the rest (on 3.11 get_running_loop() makes a system call, too).
 * Each change of a dict gives it a version that no dict ever had: the same version of
 * the same dict means that the same loop is still running. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
static inline uint64_t
dict_version(const PyObject *dict)
{
    return ((const PyDictObject *)dict)->ma_version_tag;
}
#pragma GCC diagnostic pop

static inline bool
loop_is_the_same(const py_pool *self)
{
    PyObject *dict = PyThreadState_GetDict(); /* borrowed */
    return dict != NULL && dict == self->loop_dict && dict_version(dict) == self->loop_version;
}

static void
note_loop(py_pool *self)
{
    PyObject *dict = PyThreadState_GetDict(); /* borrowed */
    self->loop_dict = dict;
    self->loop_version = dict == NULL ? 0 : dict_version(dict);
}
#else
/* From 3.13 on get_running_loop() reads one field, and is asked each time. */
static inline bool
loop_is_the_same(const py_pool *self)
{
    (void)self;
    return false;
}

static void
note_loop(py_pool *self)
{
    (void)self;
}
#endif

/* Whether the pool may leave its loop: 0, or -1 with an exception. What it had there is
 * forgotten. */
static int
leave_loop(py_pool *self, PyObject *loop)
{
    int is_closed = loop_is_closed(self, loop);
    if (is_closed <= 0) {
        if (is_closed == 0) {
            PyErr_SetString(PyExc_RuntimeError,
                            "this session pool belongs to another event loop: make one pool "
                            "for each loop");
        }
        return -1;
    }
    py_pool_keep_identities(self);
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_forget_loop);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The running loop is not the one that the pool knows. Whatever is open lives on a loop that
 * was closed, and cannot be closed any more. */
static int
adopt_loop(py_pool *self, PyObject *running)
{
    while (self->loop != running) {
        PyObject *old = Py_XNewRef(self->loop);
        if (old != NULL && leave_loop(self, old) < 0) {
            Py_DECREF(old);
            return -1;
        }
        /* What ran meanwhile may have used the pool, which has then adopted this loop. */
        if (self->loop == old && py_pool_core(self) != NULL) {
            self->loop = Py_NewRef(running);
            self->armed_ns = INT64_MAX;
            Py_XDECREF(old); /* the pool's reference, not ours */
            if (old != NULL) {
                mgp_pool_abandon(self->core, self->now_ns);
                (void)py_pool_run_effects(self); /* none of these is a close */
            }
        }
        Py_XDECREF(old);
        if (py_pool_core(self) == NULL) {
            break;
        }
    }
    return 0;
}

static int
check_machine(const py_pool *self)
{
    if (py_pool_core(self) != NULL) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    self->core == NULL
                        ? "MCPSessionPool.__init__() was not called"
                        : "this session pool is the parent process's: there was no memory for "
                          "one of the child's own");
    return -1;
}

static int
enter_loop(py_pool *self)
{
    if (check_machine(self) < 0) {
        return -1;
    }
    if (!loop_is_the_same(self)) {
        PyObject *running = PyObject_CallNoArgs(self->state->get_running_loop);
        if (running == NULL) {
            return -1;
        }
        int status = running == self->loop ? 0 : adopt_loop(self, running);
        Py_DECREF(running);
        if (status < 0 || check_machine(self) < 0) {
            return -1;
        }
        note_loop(self);
    }
    return 0;
}

int
py_pool_check_machine(const py_pool *self, uint64_t machine)
{
    if (self->machine == machine && py_pool_core(self) != NULL) {
        return 0;
    }
    PyErr_SetString(PyExc_RuntimeError,
                    "the process was forked in the middle of an operation of this session pool");
    return -1;
}

int
py_pool_begin(py_pool *self)
{
    int64_t now_ns;
    if (enter_loop(self) < 0) {
        return -1;
    }
    uint64_t machine = self->machine;
    if (py_pool_now(self, &now_ns) < 0) {
        return -1;
    }
    return self->clock == NULL ? 0 : py_pool_check_machine(self, machine);
}

int
py_pool_begin_to_report(py_pool *self)
{
    int64_t now_ns;
    if (enter_loop(self) < 0) {
        return -1;
    }
    uint64_t machine = self->machine;
    if (py_pool_now(self, &now_ns) < 0) {
        py_pool_drop_error();
    }
    return self->clock == NULL ? 0 : py_pool_check_machine(self, machine);
}

static void
arm_timer(py_pool *self)
{
    int64_t deadline_ns;
    /* Again, where something armed another one meanwhile, which the later call replaced. */
    while (py_pool_core(self) != NULL && self->loop != NULL &&
           (deadline_ns = mgp_pool_next_deadline(self->core)) < self->armed_ns) {
        double delay = deadline_ns <= self->now_ns
                           ? 0.0
                           : (double)(deadline_ns - self->now_ns) / NS_PER_SECOND;
        PyObject *seconds = PyFloat_FromDouble(delay);
        PyObject *result =
            seconds == NULL
                ? NULL
                : PyObject_CallMethodOneArg((PyObject *)self, self->state->str_arm_timer, seconds);
        Py_XDECREF(seconds);
        if (result == NULL) {
            if (PyErr_ExceptionMatches(PyExc_KeyboardInterrupt)) {
                py_pool_drop_error();
            } else {
                PyErr_WriteUnraisable((PyObject *)self);
            }
            return; /* the next operation tries again */
        }
        self->armed_ns = deadline_ns;
        Py_DECREF(result);
    }
}

static void
check_core(py_pool *self)
{
#ifdef MGP_DEBUG
    static unsigned operations; /* debug builds only: any thread may skew it, harmlessly */
    struct mgp_pool_counts counts;
    mgp_pool_read_counts(self->core, &counts);
    if (counts.keys + counts.idle + counts.waiters < CHECK_ALWAYS_BELOW ||
        ++operations % CHECK_EVERY == 0) {
        mgp_pool_check(self->core);
    }
#else
    (void)self;
#endif
}

/* Effects were left, by an operation on another thread or for want of memory: the loop
 * carries them out; where even that cannot be arranged, the next operation. */
static void
tell_loop(py_pool *self)
{
    PyObject *loop = Py_XNewRef(self->loop);
    PyObject *run =
        loop == NULL ? NULL : PyObject_GetAttr((PyObject *)self, self->state->str_run_effects);
    PyObject *handle =
        run == NULL ? NULL
                    : PyObject_CallMethodOneArg(loop, self->state->str_call_soon_threadsafe, run);
    Py_XDECREF(handle);
    Py_XDECREF(run);
    Py_XDECREF(loop);
    PyErr_Clear();
}

/* Whether the pool's loop runs on this thread. */
static bool
is_on_loop(py_pool *self)
{
    PyObject *running =
        self->loop == NULL ? NULL : PyObject_CallNoArgs(self->state->get_running_loop);
    bool is_its_own = running != NULL && running == self->loop;
    Py_XDECREF(running);
    PyErr_Clear();
    return is_its_own;
}

static inline bool
has_nothing_to_do(const py_pool *self)
{
    /* Whoever runs effects goes on with ours, and arms the timer. */
    return self->is_running_effects || (!mgp_pool_has_effects(self->core) &&
                                        mgp_pool_next_deadline(self->core) >= self->armed_ns);
}

static void
finish(py_pool *self, bool is_known_to_be_on_loop)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_INCREF(self);
    if ((is_known_to_be_on_loop || is_on_loop(self)) && py_pool_run_effects(self)) {
        arm_timer(self);
    } else {
        tell_loop(self);
    }
    PyErr_Restore(type, value, traceback);
    Py_DECREF(self);
}

void
py_pool_end(py_pool *self)
{
    check_core(self);
    if (!has_nothing_to_do(self)) {
        finish(self, true);
    }
}

void
py_pool_end_anywhere(py_pool *self)
{
    check_core(self);
    if (!has_nothing_to_do(self)) {
        finish(self, false);
    }
}
