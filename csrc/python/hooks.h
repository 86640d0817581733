/* Which hooks are overridden. */
#ifndef MGP_PYTHON_HOOKS_H
#define MGP_PYTHON_HOOKS_H

#include "pool_object.h"

/* Brings `hooks` up to date: 0 or -1. */
int py_pool_refresh_hooks(py_pool *self);
/* Gives `config` to the machine, with what overridden hooks change of it. */
void py_pool_apply_config(py_pool *self);
int py_pool_setattro(py_pool *self, PyObject *name, PyObject *value);
/* remember_hooks(cls): what the class defines is not an override. */
PyObject *py_module_remember_hooks(PyObject *module, PyObject *cls);

/* Whether the class or the instance may have changed since `hooks` was made. */
static inline bool
py_pool_hooks_are_current(const py_pool *self)
{
    const PyTypeObject *type = Py_TYPE((PyObject *)self);
#if PY_VERSION_HEX < 0x030c0000
    /* 3.11 keeps the tag of a type that was modified, and clears the flag. */
    if (!(type->tp_flags & Py_TPFLAGS_VALID_VERSION_TAG)) {
        return false;
    }
#endif
    return self->hooks_version != 0 && type->tp_version_tag == self->hooks_version;
}

static inline int
py_pool_ensure_hooks(py_pool *self)
{
    bool are_current = self->core == NULL || py_pool_hooks_are_current(self);
    return are_current ? 0 : py_pool_refresh_hooks(self);
}

/* Whether neither acquire() nor release() is overridden: 1, 0, or -1. */
static inline int
py_pool_is_plain(py_pool *self)
{
    if (py_pool_ensure_hooks(self) < 0) {
        return -1;
    }
    return !(self->hooks & (1u << PY_HOOK_ACQUIRE | 1u << PY_HOOK_RELEASE));
}

#endif
