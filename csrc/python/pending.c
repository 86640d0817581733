#include "pending.h"

#include "loop.h"

/* Its machine is gone, or is the parent's. */
static void
end_without_machine(py_pending *pending)
{
    struct mgp_waiter *waiter = pending->waiter;
    pending->state = PY_PENDING_ENDED;
    pending->waiter = NULL;
    if (waiter != NULL && py_machine_is_own(pending->machine)) {
        mgp_waiter_forget(waiter); /* granted, and never taken */
    }
}

void
py_pending_give_up(py_pending *pending, bool is_reported)
{
    py_pool *pool = pending->pool;
    enum py_pending_state state = pending->state;
    struct mgp_waiter *waiter = pending->waiter;
    if (!py_pending_is_of(pending, pool)) {
        end_without_machine(pending);
        return;
    }
    int64_t now_ns = py_pool_read_time(pool);
    pending->state = PY_PENDING_ENDED;
    pending->waiter = NULL;
    if (state == PY_PENDING_CREATING && is_reported) {
        (void)mgp_pool_creation_unwanted(pool->core, pending->ticket);
        pending->state = PY_PENDING_CREATING;
    } else if (state == PY_PENDING_CREATING) {
        (void)mgp_pool_create_failed(pool->core, now_ns, pending->ticket, MGP_FAULT_CALLER);
    } else if (state == PY_PENDING_CREATED) {
        (void)mgp_pool_undo(pool->core, now_ns, pending->ticket);
    } else if (waiter != NULL) {
        mgp_pool_cancel(pool->core, now_ns, waiter, MGP_CANCEL_BY_CALLER);
    } else {
        return;
    }
    py_pool_end_anywhere(pool);
}

static int
py_pending_traverse(py_pending *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->pool);
    Py_VISIT(self->future);
    Py_VISIT(self->error);
    Py_VISIT(self->headers);
    Py_VISIT(self->trace);
    Py_VISIT(self->connection);
    return 0;
}

static int
py_pending_clear(py_pending *self)
{
    Py_CLEAR(self->future);
    Py_CLEAR(self->error);
    return 0;
}

static void
py_pending_dealloc(py_pending *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    /* The coroutine that holds it gives up first; this is for one that could not run. */
    py_pending_give_up(self, false);
    (void)py_pending_clear(self);
    Py_CLEAR(self->headers);
    Py_CLEAR(self->trace);
    Py_CLEAR(self->identity);
    Py_CLEAR(self->connection);
    Py_CLEAR(self->pool);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMemberDef py_pending_members[] = {
    {"future", T_OBJECT, offsetof(py_pending, future), READONLY,
     "The future to await first, or None when the caller is to create at once."},
    {"error", T_OBJECT, offsetof(py_pending, error), 0,
     "An exception to be raised instead of an answer, or None."},
    {"headers", T_OBJECT, offsetof(py_pending, headers), READONLY,
     "The headers that decided the key, read of the caller's where these are no dict; or None."},
    {"identity", T_OBJECT, offsetof(py_pending, identity), READONLY,
     "The header identity in the key (bytes), or None where _make_pool_key() is overridden."},
    {"lease", T_ULONGLONG, offsetof(py_pending, lease), READONLY,
     "The number of the checkout that it was answered with (int); 0: not yet."},
    {"is_anonymous", T_BOOL, offsetof(py_pending, is_anonymous), READONLY,
     "Whether there is neither a user nor a header identity (bool)."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot py_pending_slots[] = {
    {Py_tp_doc, "An acquire that has not been answered yet."},
    {Py_tp_traverse, py_pending_traverse},
    {Py_tp_clear, py_pending_clear},
    {Py_tp_dealloc, py_pending_dealloc},
    {Py_tp_members, py_pending_members},
    {0, NULL},
};

PyType_Spec py_pending_spec = {
    .name = "mcpgateway_pool._core.Pending",
    .basicsize = sizeof(py_pending),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = py_pending_slots,
};
