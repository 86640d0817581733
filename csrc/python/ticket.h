/* The names of the machine's operations as Python carries them about. */
#ifndef MGP_PYTHON_TICKET_H
#define MGP_PYTHON_TICKET_H

#include "common.h"

#include "../base/slots.h"
#include "state.h"

typedef struct {
    PyObject_HEAD
    struct mgp_ticket ticket;
} py_ticket;

extern PyType_Spec py_ticket_spec;

PyObject *py_ticket_new(py_state *state, struct mgp_ticket ticket);

#endif
