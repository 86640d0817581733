/* Which hooks are overridden: on a subclass, on the class itself, or on one instance.
 * The answer is kept for as long as the type's version tag says that neither the class
 * nor a base of it was changed; writing an attribute of the instance drops it. So a pool
 * whose hooks are not overridden pays one comparison. */
#include "hooks.h"

PyObject *
py_module_remember_hooks(PyObject *module, PyObject *cls)
{
    py_state *state = PyModule_GetState(module);
    for (int i = 0; i < PY_HOOK_COUNT; i++) {
        PyObject *original = PyObject_GetAttr(cls, state->hook_names[i]);
        if (original == NULL) {
            return NULL;
        }
        Py_XSETREF(state->hook_originals[i], original);
    }
    Py_RETURN_NONE;
}

/* 1 overridden, 0 not, -1 error. */
static int
is_overridden(py_pool *self, int hook)
{
    PyObject *found = PyObject_GetAttr((PyObject *)self, self->state->hook_names[hook]);
    if (found == NULL) {
        return -1;
    }
    bool is_original =
        PyMethod_Check(found) && PyMethod_GET_FUNCTION(found) == self->state->hook_originals[hook];
    Py_DECREF(found);
    return !is_original;
}

void
py_pool_apply_config(py_pool *self)
{
    struct mgp_config config = self->config;
    /* An overridden validation is asked at each hand-out of an idle session. */
    if (self->hooks & 1u << PY_HOOK_VALIDATE_SESSION) {
        config.health_interval_ns = 0;
    }
    if (py_pool_core(self) != NULL) {
        mgp_pool_configure(self->core, &config);
    }
}

int
py_pool_refresh_hooks(py_pool *self)
{
    unsigned hooks = self->config.leak_detection_ns > 0 ? PY_TRACKS_CHECKOUTS : 0;
    for (int i = 0; i < PY_HOOK_COUNT; i++) {
        int overridden = is_overridden(self, i);
        if (overridden < 0) {
            return -1;
        }
        hooks |= (unsigned)overridden << i;
    }
    if (hooks != self->hooks) {
        self->hooks = hooks;
        py_pool_apply_config(self);
    }
    /* The look-ups above have assigned one, as long as there are any left. */
    self->hooks_version = Py_TYPE((PyObject *)self)->tp_version_tag;
    return 0;
}

int
py_pool_setattro(py_pool *self, PyObject *name, PyObject *value)
{
    int result = PyObject_GenericSetAttr((PyObject *)self, name, value);
    self->hooks_version = 0; /* whatever looked at them meanwhile */
    return result;
}
