/* The pool's clock and its event loop; and what stands around each operation of the machine:
 *
 *     begin            the pool is set up, the loop that runs here is its own, the time is read
 *     ...              whatever else may run Python: arguments, objects to be filled
 *     the operation    on `core`, at `now_ns`; with what the binding keeps of it
 *     end              its effects are carried out, and the timer is early enough
 *
 * Nothing that can run Python stands between the operation and its end. */
#ifndef MGP_PYTHON_LOOP_H
#define MGP_PYTHON_LOOP_H

#include "pool_object.h"

/* The pool's time; 0, or -1 with what the replaced clock raised. Also in now_ns. */
int py_pool_now(py_pool *self, int64_t *now_ns);
/* The same without running Python: of a replaced clock, the time when it was asked last. */
int64_t py_pool_read_time(py_pool *self);

/* On the loop's thread alone. 0, or -1 with an exception. */
int py_pool_begin(py_pool *self);
/* The same for what must not be lost, such as the end of a close: where the clock fails, time stands still. */
int py_pool_begin_to_report(py_pool *self);
/* After Python ran between begin and the operation: it may have forked, and the child's pool
 * has another machine, and no loop. 0, or -1 with RuntimeError. */
int py_pool_check_machine(const py_pool *self, uint64_t machine);
/* Never fails: what goes wrong with one effect is reported and that effect undone. */
void py_pool_end(py_pool *self);
/* The end of what happened on any thread, without a begin: elsewhere, the loop is told to carry
 * out the effects. */
void py_pool_end_anywhere(py_pool *self);

#endif
