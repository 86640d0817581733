#include "state.h"

py_state *
py_state_of_type(PyTypeObject *type)
{
    PyObject *module = PyType_GetModuleByDef(type, &py_module_definition);
    return module == NULL ? NULL : PyModule_GetState(module);
}
