/* SPDX-License-Identifier: Apache-2.0
 *
 * Semaphores of a pool; see service.h. What is not hot is Python (ssm/semaphore.py). */
#include "service.h"

static PyObject *raise_release(const struct service_object *self, uint64_t number)
{
    int held = ssm_semaphore_held(self->core);
    if (held < 0)
        return service_raise(self, held);
    return service_raise_error(
        self, ALLOCATOR_AlreadyReleased,
        "semaphore %R of pool %R: this process holds %d of its %llu permits, it cannot release %llu; each "
        "process releases what it has acquired itself, see owned()",
        self->name, self->pool->name, held, (unsigned long long)self->options.first, (unsigned long long)number);
}

PyDoc_STRVAR(semaphore_acquire_doc,
"_acquire($self, timeout, ticket, /)\n--\n\n"
"(acquired, ticket); `ticket` 0 at first, and then what the last call returned: so it keeps its place in the order.");

static PyObject *semaphore_acquire(struct service_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t timeout_ns = SSM_FOREVER;
    if (arguments_are("_acquire", nargs, 2) < 0 || argument_timeout(args[0], &timeout_ns) < 0)
        return NULL;
    uint64_t ticket = PyLong_AsUnsignedLongLong(args[1]);
    if (ticket == UINT64_MAX && PyErr_Occurred())
        return NULL;
    struct wait_scope scope;
    if (!service_begin(self, &scope))
        return NULL;
    scope.subject = (struct wait_subject){.what = "acquire", .object = OBJECT(self)};
    int result = ssm_semaphore_acquire(self->core, timeout_ns, &ticket);
    service_end(&scope);
    if (result != 0 && result != -SSM_E_UNAVAILABLE)
        return service_raise(self, result);
    return Py_BuildValue("(NK)", PyBool_FromLong(result == 0), (unsigned long long)ticket);
}

PyDoc_STRVAR(semaphore_release_doc,
"release($self, n=1, /)\n--\n\n"
"Give permits of this process back, whichever of its threads acquired them; each wakes a call that waits.\n\n"
"Parameters\n----------\n"
"n : int\n    How many, at least 1; all or none.\n\n"
"Raises\n------\n"
"AlreadyReleased\n    This process has not as many (also a ValueError): those of other processes, and those that a forked\n"
"    child's parent has, are not its own.");

static PyObject *semaphore_release(struct service_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    uint64_t number = 1;
    struct wait_scope scope;
    if (nargs > 1)
        return PyErr_Format(PyExc_TypeError, "release() takes at most 1 argument, not %zd", nargs);
    int range = nargs == 1 ? argument_u64(args[0], &number) : 0;
    if (range < 0)
        return NULL;
    if (range == 1 || number == 0)
        return PyErr_Format(PyExc_ValueError, "release(%S): want at least 1", args[0]);
    if (!service_begin(self, &scope))
        return NULL;
    int result = number > SSM_PERMITS_MAX ? -SSM_E_RELEASED : ssm_semaphore_release(self->core, (uint32_t)number);
    PyObject *done = result == -SSM_E_RELEASED ? raise_release(self, number) : NULL;
    service_end(&scope);
    if (result == 0)
        RETURN_NONE;
    return result == -SSM_E_RELEASED ? done : service_raise(self, result);
}

static PyObject *semaphore_held(struct service_object *self, void *unused)
{
    struct wait_scope scope;
    (void)unused;
    if (!service_begin(self, &scope))
        return NULL;
    int result = ssm_semaphore_held(self->core);
    service_end(&scope);
    return result < 0 ? service_raise(self, result) : PyLong_FromLong(result);
}

static PyMethodDef semaphore_methods[] = {
    {"_acquire", FAST(semaphore_acquire), METH_FASTCALL, semaphore_acquire_doc},
    {"release", FAST(semaphore_release), METH_FASTCALL, semaphore_release_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef semaphore_members[] = {
    {"permits", T_ULONGLONG, offsetof(struct service_object, options.first), READONLY,
     "Permits there are, free or not."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef semaphore_attributes[] = {
    {"held", (getter)semaphore_held, NULL, "int : permits that this process has now.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot semaphore_slots[] = {
    {Py_tp_doc, "What ssm.SemaphoreService is built on."},
    {Py_tp_methods, semaphore_methods},
    {Py_tp_members, semaphore_members},
    {Py_tp_getset, semaphore_attributes},
    {0, NULL},
};

PyType_Spec semaphore_spec = {
    .name = "ssm._core.SemaphoreService",
    .basicsize = sizeof(struct service_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = semaphore_slots,
};
