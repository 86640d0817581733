/* The pool's clock, its event loop, and what is done after each operation of the machine. */
#ifndef MGP_PYTHON_LOOP_H
#define MGP_PYTHON_LOOP_H

#include "pool_object.h"

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

#endif
