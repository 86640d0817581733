/* From the machine's effects to futures and tasks. */
#ifndef MGP_PYTHON_EFFECTS_H
#define MGP_PYTHON_EFFECTS_H

#include "pool_object.h"

/* What a callback raised, and nobody is there to be told. An interrupt is not lost: it comes again. */
void py_pool_drop_error(void);
/* False when some were left for the next operation: there was no memory for them now. */
bool py_pool_run_effects(py_pool *self);

#endif
