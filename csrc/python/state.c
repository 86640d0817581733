#include "state.h"

#include <pthread.h>

#include "../metrics/archive_lock.h"

static uint64_t last_number; /* under the GIL */
uint64_t py_machine_first_own = 1;

/* In the child, before anything else: not even a finalizer has run. */
static void
disown_machines(void)
{
    py_machine_first_own = last_number + 1;
}

int
py_watch_forks(void)
{
    static bool machines_are_watched, archive_is_watched;
    if (!machines_are_watched) {
        machines_are_watched = pthread_atfork(NULL, NULL, disown_machines) == 0;
    }
    if (!archive_is_watched) {
        archive_is_watched = mgp_archive_lock_watch_forks() == 0;
    }
    if (!machines_are_watched || !archive_is_watched) {
        PyErr_NoMemory();
        return -1;
    }
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
