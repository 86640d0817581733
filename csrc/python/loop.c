/* The pool's clock, its event loop, and what is done after each operation of the machine. */
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
    if (read_ns > self->last_now_ns) {
        self->last_now_ns = read_ns;
    }
    *now_ns = self->last_now_ns;
    return 0;
}

/* 1 closed, 0 open, -1 error. */
static int
loop_is_closed(py_pool *self)
{
    PyObject *is_closed = PyObject_CallMethodNoArgs(self->loop, self->state->str_is_closed);
    int result = is_closed == NULL ? -1 : PyObject_IsTrue(is_closed);
    Py_XDECREF(is_closed);
    return result;
}

/* Whatever was open lived on a loop that was closed, and cannot be closed any more. */
static int
abandon(py_pool *self)
{
    mgp_pool_abandon(self->core, self->last_now_ns);
    (void)py_pool_run_effects(self); /* none of these is a close */
    self->armed_ns = INT64_MAX;
    PyObject *result = PyObject_CallMethodNoArgs((PyObject *)self, self->state->str_forget_loop);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
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

/* The running loop is not the one that the pool knows. Steals `running`. */
static int
adopt_loop(py_pool *self, PyObject *running)
{
    if (self->loop != NULL) {
        int is_closed = loop_is_closed(self);
        if (is_closed <= 0) {
            if (is_closed == 0) {
                PyErr_SetString(PyExc_RuntimeError,
                                "this session pool belongs to another event loop: make one pool "
                                "for each loop");
            }
            Py_DECREF(running);
            return -1;
        }
        if (abandon(self) < 0) {
            Py_DECREF(running);
            return -1;
        }
    }
    Py_XSETREF(self->loop, running);
    self->thread = PyThread_get_thread_ident();
    return 0;
}

static int
enter_loop(py_pool *self)
{
    if (self->core == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "MCPSessionPool.__init__() was not called");
        return -1;
    }
    if (!loop_is_the_same(self)) {
        PyObject *running = PyObject_CallNoArgs(self->state->get_running_loop);
        if (running == NULL) {
            return -1;
        }
        if (running == self->loop) {
            Py_DECREF(running);
        } else if (adopt_loop(self, running) < 0) {
            return -1;
        }
        note_loop(self);
    }
    return 0;
}

int
py_pool_enter(py_pool *self, int64_t *now_ns)
{
    return enter_loop(self) < 0 ? -1 : py_pool_now(self, now_ns);
}

int
py_pool_enter_to_report(py_pool *self, int64_t *now_ns)
{
    if (enter_loop(self) < 0) {
        return -1;
    }
    if (py_pool_now(self, now_ns) < 0) {
        py_pool_drop_error();
        *now_ns = self->last_now_ns;
    }
    return 0;
}

void
py_pool_arm_timer(py_pool *self, int64_t now_ns)
{
    int64_t deadline_ns = mgp_pool_next_deadline(self->core);
    if (deadline_ns >= self->armed_ns || self->loop == NULL) {
        return;
    }
    double delay = deadline_ns <= now_ns ? 0.0 : (double)(deadline_ns - now_ns) / NS_PER_SECOND;
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
    Py_DECREF(result);
    self->armed_ns = deadline_ns;
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
run_effects_later(py_pool *self)
{
    PyObject *run = PyObject_GetAttr((PyObject *)self, self->state->str_run_effects);
    PyObject *handle =
        run == NULL || self->loop == NULL
            ? NULL
            : PyObject_CallMethodOneArg(self->loop, self->state->str_call_soon_threadsafe, run);
    Py_XDECREF(handle);
    Py_XDECREF(run);
    PyErr_Clear();
}

void
py_pool_leave(py_pool *self, int64_t now_ns)
{
    PyObject *type, *value, *traceback;
    check_core(self);
    if (self->is_running_effects) {
        return; /* the loop that runs them goes on with ours */
    }
    if (!mgp_pool_has_effects(self->core)) {
        if (mgp_pool_next_deadline(self->core) < self->armed_ns) {
            PyErr_Fetch(&type, &value, &traceback);
            py_pool_arm_timer(self, now_ns);
            PyErr_Restore(type, value, traceback);
        }
        return;
    }
    PyErr_Fetch(&type, &value, &traceback);
    if (self->thread != PyThread_get_thread_ident() || !py_pool_run_effects(self)) {
        run_effects_later(self);
    } else {
        py_pool_arm_timer(self, now_ns);
    }
    PyErr_Restore(type, value, traceback);
}
