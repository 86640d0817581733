#include "state.h"

#include <pthread.h>

static uint64_t last_number; /* under the GIL */
uint64_t py_machine_first_own = 1;

/* In the child, before anything else: not even a finalizer has run. */
static void
disown_machines(void)
{
    py_machine_first_own = last_number + 1;
}

int
py_machines_watch_forks(void)
{
    static bool is_watched;
    if (!is_watched && pthread_atfork(NULL, NULL, disown_machines) != 0) {
        PyErr_NoMemory();
        return -1;
    }
    is_watched = true;
    return 0;
}

uint64_t
py_machine_next_number(void)
{
    return ++last_number;
}

py_state *
py_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &py_module_definition);
    return module == NULL ? NULL : PyModule_GetState(module);
}
