/* The type PoolCore: its life, and what concerns the whole pool. */
#ifndef MGP_PYTHON_POOL_H
#define MGP_PYTHON_POOL_H

#include "common.h"

extern PyType_Spec py_pool_spec;

#endif
