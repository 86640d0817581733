/* The name of a check, a close or a checkout, as Python carries it about. It says of which
 * machine: to any other, also in a forked child, what it names has ended. */
#ifndef MGP_PYTHON_TICKET_H
#define MGP_PYTHON_TICKET_H

#include "common.h"

#include "../base/slots.h"
#include "state.h"

typedef struct {
    PyObject_HEAD
    struct mgp_ticket ticket;
    uint64_t machine; /* whose ticket it is */
} py_ticket;

extern PyType_Spec py_ticket_spec;

bool py_ticket_check(py_state *state, PyObject *object);
PyObject *py_ticket_new(py_state *state, uint64_t machine, struct mgp_ticket ticket);

#endif
