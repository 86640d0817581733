/* The type of PooledSession: what callers see of a connection record. */
#ifndef MGP_PYTHON_POOLED_SESSION_H
#define MGP_PYTHON_POOLED_SESSION_H

#include "common.h"

extern PyType_Spec py_pooled_session_spec;

#endif
