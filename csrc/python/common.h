/* What every file of the binding includes: Python's header first, with the warnings
 * that its own inline functions would raise switched off for it alone. */
#ifndef MGP_PYTHON_COMMON_H
#define MGP_PYTHON_COMMON_H

#define PY_SSIZE_T_CLEAN
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#include <Python.h>
#include <structmember.h>
#pragma GCC diagnostic pop

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_SECOND 1000000000

static inline int64_t
py_monotonic_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * NS_PER_SECOND + now.tv_nsec;
}

#endif
