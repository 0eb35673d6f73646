/* SPDX-License-Identifier: Apache-2.0
 *
 * Services that hand out numbers: ids, pids, RMIDs. And Pid, which gives its number back when it is freed, left, or
 * dropped by the process that has it. */
#include "service.h"

#define LIVE 1u
#define DONE 0u

struct pid_object {
    PyObject_HEAD
    struct service_object *service;
    uint32_t               number;
    uint32_t               era;    /* of the pool: a forked child's is another, the pid is the parent's */
    uint32_t               status; /* LIVE or DONE */
};

/* ---- ids -------------------------------------------------------------------------------------------- */

static PyObject *raise_id(const struct service_object *self, int code, PyObject *number)
{
    unsigned long long first = self->options.first, last = self->options.last;
    switch (code) {
    case -SSM_E_UNMANAGED:
        return service_raise_error(self, ALLOCATOR_OutOfRange, "id %S is not in the range %llu..%llu", number, first,
                                   last);
    case -SSM_E_NEVER:
        return service_raise_error(self, ALLOCATOR_NeverAllocated, "id %S was never handed out, it cannot be freed",
                                   number);
    case -SSM_E_RELEASED:
        return service_raise_error(self, ALLOCATOR_AlreadyReleased, "id %S is free already, it was released before",
                                   number);
    case -SSM_E_UNAVAILABLE:
        return service_raise_error(self, ALLOCATOR_ResourceNotAvailable,
                                   "all %llu ids of %llu..%llu are in use: free one first", last - first + 1, first,
                                   last);
    case -SSM_E_OVERFLOW:
        return service_raise_error(self, ALLOCATOR_Overflow,
                                   "id 2**32 - 1 is handed out and no id of %llu..%llu is free: free one first", first,
                                   last);
    default: return service_raise(self, code);
    }
}

PyDoc_STRVAR(ids_allocate_doc,
"allocate_id($self, /)\n--\n\n"
"Take the smallest free id: one that was freed before, or the next one never handed out.\n\n"
"Returns\n-------\nint\n\n"
"Raises\n------\n"
"ResourceNotAvailable\n    The whole range is in use.\n"
"Overflow\n    The whole range is in use, and it ends at ``2**32 - 1``.");

static PyObject *ids_allocate(struct service_object *self, PyObject *unused)
{
    struct wait_scope scope;
    uint32_t id = 0;
    (void)unused;
    if (!service_begin(self, &scope))
        return NULL;
    int result = ssm_number_alloc(self->core, 0, &id);
    service_end(&scope);
    return result == 0 ? PyLong_FromUnsignedLong(id) : raise_id(self, result, NULL);
}

PyDoc_STRVAR(ids_free_doc,
"free_id($self, id, /)\n--\n\n"
"Give an id back, whichever process took it.\n\n"
"Returns\n-------\nint\n    The id.\n\n"
"Raises\n------\n"
"OutOfRange, NeverAllocated, AlreadyReleased\n    Nothing was changed.");

static PyObject *ids_free(struct service_object *self, PyObject *value)
{
    struct wait_scope scope;
    uint64_t id;
    int range = argument_u64(value, &id);
    if (range < 0)
        return NULL;
    if (range > 0 || id > UINT32_MAX)
        return raise_id(self, -SSM_E_UNMANAGED, value);
    if (!service_begin(self, &scope))
        return NULL;
    int result = ssm_number_free(self->core, (uint32_t)id, 0);
    service_end(&scope);
    return result == 0 ? PyLong_FromUnsignedLong((uint32_t)id) : raise_id(self, result, value);
}

/* 1, 0, or -1 with an exception set. */
static int numbers_has(struct service_object *self, PyObject *value)
{
    struct wait_scope scope;
    uint64_t number;
    int range = argument_u64(value, &number);
    if (range < 0 || !service_begin(self, &scope))
        return -1;
    int result = range == 0 && number <= UINT32_MAX ? ssm_number_is_allocated(self->core, (uint32_t)number) : 0;
    service_end(&scope);
    if (result < 0)
        service_raise(self, result);
    return result < 0 ? -1 : result;
}

PyDoc_STRVAR(numbers_is_allocated_doc,
"is_allocated($self, number, /)\n--\n\nWhether the number is handed out; False for one that the service has not.");

static PyObject *numbers_is_allocated(struct service_object *self, PyObject *value)
{
    int has = numbers_has(self, value);
    return has < 0 ? NULL : PyBool_FromLong(has);
}

/* ---- pids ------------------------------------------------------------------------------------------- */

PyDoc_STRVAR(pids_allocate_doc,
"allocate($self, /)\n--\n\n"
"Take the smallest free pid.\n\n"
"Returns\n-------\nPid or None\n    None when all are in use.");

static PyObject *pids_allocate(struct service_object *self, PyObject *unused)
{
    struct wait_scope scope;
    uint32_t number = 0;
    (void)unused;
    if (!service_begin(self, &scope))
        return NULL;
    int result = ssm_number_alloc(self->core, 0, &number);
    service_end(&scope);
    if (result == -SSM_E_UNAVAILABLE)
        RETURN_NONE;
    if (result != 0)
        return service_raise(self, result);
    struct pid_object *pid = PyObject_New(struct pid_object, self->state->pid_type);
    if (pid == NULL) {
        (void)ssm_number_free(self->core, number, 0);
        return NULL;
    }
    Py_INCREF(OBJECT(self));
    pid->service = self;
    pid->number = number;
    pid->era = *self->pool->era;
    pid->status = LIVE;
    return OBJECT(pid);
}

static PyObject *pids_order(struct service_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->options.first);
}

static PyObject *pids_capacity(struct service_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(self->options.first * 64);
}

/* ---- Pid -------------------------------------------------------------------------------------------- */

static bool pid_is_inherited(const struct pid_object *pid)
{
    return pid->era != *pid->service->pool->era;
}

/* LIVE -> DONE; true: it was LIVE. */
static bool pid_finish(struct pid_object *pid)
{
    bool live;
    POOL_LOCK(pid->service->pool)
    live = pid->status == LIVE;
    pid->status = DONE;
    POOL_UNLOCK()
    return live;
}

static PyObject *pid_raise_gone(const struct pid_object *pid, const char *remedy)
{
    const struct service_object *service = pid->service;
    if (pid_is_inherited(pid))
        return PyErr_Format(service->state->ours[ERROR_StaleHandle],
                            "pid %u belongs to the process that this one was forked from: allocate another one",
                            pid->number);
    return service_raise_error(service, ALLOCATOR_AlreadyReleased, "pid %u is free already%s", pid->number, remedy);
}

/* 1: it went back; 0: this process has it not (any more); -1 with an exception set. */
static int pid_give_back(struct pid_object *pid)
{
    struct service_object *service = pid->service;
    struct wait_scope scope;
    if (pid_is_inherited(pid) || !pid_finish(pid))
        return 0;
    if (!service_begin(service, &scope))
        return -1;
    int result = ssm_number_free(service->core, pid->number, 0);
    service_end(&scope);
    if (result == 0 || result == -SSM_E_RELEASED)
        return result == 0;
    pid->status = LIVE; /* interrupted while it waited: it may be tried again */
    service_raise(service, result);
    return -1;
}

static void pid_dealloc(struct pid_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    PyObject *kind = NULL, *error = NULL, *trace = NULL;
    bool raising = PyErr_Occurred() != NULL; /* it may be dropped while an exception is on its way */
    if (raising)
        PyErr_Fetch(&kind, &error, &trace);
    if (!self->service->pool->closed && pid_give_back(self) < 0)
        PyErr_Clear();
    if (raising)
        PyErr_Restore(kind, error, trace);
    Py_DECREF(OBJECT(self->service));
    PyObject_Free(self);
    Py_DECREF(OBJECT(type));
}

PyDoc_STRVAR(pid_free_doc,
"free($self, /)\n--\n\n"
"Give the pid back at once.\n\n"
"Raises\n------\n"
"AlreadyReleased\n    It was freed before; nothing was changed.\n"
"StaleHandle\n    It is the parent's: this process was forked since.");

static PyObject *pid_free(struct pid_object *self, PyObject *unused)
{
    (void)unused;
    int given = pid_give_back(self);
    if (given < 0)
        return NULL;
    if (given == 0)
        return pid_raise_gone(self, ", this handle was freed before");
    RETURN_NONE;
}

static PyObject *pid_enter(struct pid_object *self, PyObject *unused)
{
    (void)unused;
    if (pid_is_inherited(self) || self->status != LIVE)
        return pid_raise_gone(self, ": allocate another one to use it in a with statement");
    Py_INCREF(OBJECT(self));
    return OBJECT(self);
}

static PyObject *pid_exit(struct pid_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    (void)args, (void)nargs;
    if (pid_give_back(self) < 0)
        return NULL;
    RETURN_NONE;
}

static PyObject *pid_int(struct pid_object *self)
{
    return PyLong_FromUnsignedLong(self->number);
}

static PyObject *pid_repr(struct pid_object *self)
{
    const char *format = pid_is_inherited(self) ? "<Pid %u, the parent's>"
                       : self->status == LIVE   ? "<Pid %u>"
                                                : "<Pid %u, freed>";
    return PyUnicode_FromFormat(format, self->number);
}

static PyMemberDef pid_members[] = {
    {"number", T_UINT, offsetof(struct pid_object, number), READONLY, "The pid as an int, as int(pid) gives it."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef pid_methods[] = {
    {"free", (PyCFunction)pid_free, METH_NOARGS, pid_free_doc},
    {"__enter__", (PyCFunction)pid_enter, METH_NOARGS, NULL},
    {"__exit__", FAST(pid_exit), METH_FASTCALL, NULL},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(pid_doc,
"A pid in use, made by PidService.allocate().\n\n"
"It goes back on free(), at the end of a with statement, or when the last reference to this object goes; not when the\n"
"pool is closed before, unless the service reclaims. One that was inherited by fork is the parent's.");

/* clang-format off */
static PyType_Slot pid_slots[] = {
    {Py_tp_doc, (void *)pid_doc},
    {Py_tp_dealloc, pid_dealloc},
    {Py_tp_repr, pid_repr},
    {Py_nb_int, pid_int},
    {Py_nb_index, pid_int},
    {Py_tp_members, pid_members},
    {Py_tp_methods, pid_methods},
    {0, NULL},
};
/* clang-format on */

PyType_Spec pid_spec = {
    .name = "ssm.Pid",
    .basicsize = sizeof(struct pid_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pid_slots,
};

/* ---- RMIDs ------------------------------------------------------------------------------------------ */

/* Nanoseconds; NULL and None: of the machine's clock. 0, or -1 with an exception set. */
static int time_now(const struct service_object *self, PyObject *value, uint64_t *now_ns)
{
    if (value == NULL || value == Py_None) {
        *now_ns = ssm_clock_ns();
        return 0;
    }
    int range = argument_u64(value, now_ns);
    if (range > 0)
        service_raise_error(self, ALLOCATOR_OutOfRange, "time %S ns does not lie within 0..2**64 - 1", value);
    return range == 0 ? 0 : -1;
}

PyDoc_STRVAR(rmids_alloc_doc,
"alloc($self, /, now=None)\n--\n\n"
"Take the RMID that was freed first, once it has rested.\n\n"
"Parameters\n----------\n"
"now : int or None\n    Time in nanoseconds; None asks CLOCK_MONOTONIC, less what the time namespace adds.\n\n"
"Returns\n-------\nint\n    0 when none is free, or when the first of them has not rested long enough.");

static PyObject *rmids_alloc(struct service_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"alloc", {KEYWORD_now}, 1, 1, 0};
    PyObject *values[1];
    struct wait_scope scope;
    uint64_t now_ns;
    uint32_t rmid = 0;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        time_now(self, values[0], &now_ns) < 0 || !service_begin(self, &scope))
        return NULL;
    int result = ssm_number_alloc(self->core, now_ns, &rmid);
    service_end(&scope);
    if (result == -SSM_E_UNAVAILABLE || result == -SSM_E_RESTING)
        return PyLong_FromLong(0);
    return result == 0 ? PyLong_FromUnsignedLong(rmid) : service_raise(self, result);
}

PyDoc_STRVAR(rmids_free_doc,
"free($self, /, rmid, now=None)\n--\n\n"
"Give an RMID back; it rests from now on.\n\n"
"Parameters\n----------\n"
"rmid : int\n"
"now : int or None\n    Time in nanoseconds; None asks CLOCK_MONOTONIC, less what the time namespace adds.\n\n"
"Raises\n------\n"
"OutOfRange, NeverAllocated, AlreadyReleased\n    Nothing was changed.");

static PyObject *rmids_free(struct service_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"free", {KEYWORD_rmid, KEYWORD_now}, 2, 2, 1};
    PyObject *values[2];
    struct wait_scope scope;
    uint64_t rmid, now_ns;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    int range = argument_u64(values[0], &rmid), result = -SSM_E_UNMANAGED;
    if (range < 0 || time_now(self, values[1], &now_ns) < 0 || !service_begin(self, &scope))
        return NULL;
    if (range == 0 && rmid <= UINT32_MAX)
        result = ssm_number_free(self->core, (uint32_t)rmid, now_ns);
    service_end(&scope);
    switch (result) {
    case 0: RETURN_NONE;
    case -SSM_E_UNMANAGED:
        return service_raise_error(self, ALLOCATOR_OutOfRange, "RMID %S is not one of 1..%llu", values[0],
                                   (unsigned long long)self->options.first);
    case -SSM_E_NEVER:
        return service_raise_error(self, ALLOCATOR_NeverAllocated, "RMID %S was never allocated, it cannot be freed",
                                   values[0]);
    case -SSM_E_RELEASED:
        return service_raise_error(self, ALLOCATOR_AlreadyReleased, "RMID %S is free already, it was released before",
                                   values[0]);
    default: return service_raise(self, result);
    }
}

/* ---- types ------------------------------------------------------------------------------------------ */

static PyMethodDef ids_methods[] = {
    {"allocate_id", (PyCFunction)ids_allocate, METH_NOARGS, ids_allocate_doc},
    {"free_id", (PyCFunction)ids_free, METH_O, ids_free_doc},
    {"is_allocated", (PyCFunction)numbers_is_allocated, METH_O, numbers_is_allocated_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef ids_members[] = {
    {"range_base", T_ULONGLONG, offsetof(struct service_object, options.first), READONLY, "First id of the range."},
    {"range_end", T_ULONGLONG, offsetof(struct service_object, options.last), READONLY,
     "Last id of the range, included."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef pids_methods[] = {
    {"allocate", (PyCFunction)pids_allocate, METH_NOARGS, pids_allocate_doc},
    {"contains", (PyCFunction)numbers_is_allocated, METH_O,
     "contains($self, number, /)\n--\n\nWhether this pid, an int or a Pid, is in use; False for one that does not exist."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef pids_attributes[] = {
    {"order", (getter)pids_order, NULL, "Words of 64 pids.", NULL},
    {"capacity", (getter)pids_capacity, NULL, "Pids there are, order * 64.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef rmids_methods[] = {
    {"alloc", FAST(rmids_alloc), METH_FASTCALL | METH_KEYWORDS, rmids_alloc_doc},
    {"free", FAST(rmids_free), METH_FASTCALL | METH_KEYWORDS, rmids_free_doc},
    {"is_allocated", (PyCFunction)numbers_is_allocated, METH_O, numbers_is_allocated_doc},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef rmids_members[] = {
    {"max_rmid", T_ULONGLONG, offsetof(struct service_object, options.first), READONLY, "The highest RMID."},
    {"min_free_time_ns", T_ULONGLONG, offsetof(struct service_object, options.last), READONLY,
     "How long an RMID rests after it was freed, in nanoseconds."},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot ids_slots[] = {
    {Py_tp_doc, "What ssm.IdService is built on."},
    {Py_tp_methods, ids_methods},
    {Py_tp_members, ids_members},
    {0, NULL},
};

static PyType_Slot pids_slots[] = {
    {Py_tp_doc, "What ssm.PidService is built on."},
    {Py_tp_methods, pids_methods},
    {Py_tp_getset, pids_attributes},
    {Py_sq_contains, numbers_has},
    {0, NULL},
};

static PyType_Slot rmids_slots[] = {
    {Py_tp_doc, "What ssm.RmidService is built on."},
    {Py_tp_methods, rmids_methods},
    {Py_tp_members, rmids_members},
    {0, NULL},
};

#define SPEC(type_name, type_slots)                                                   \
    {                                                                                 \
        .name = type_name,                                                            \
        .basicsize = sizeof(struct service_object),                                   \
        .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE, \
        .slots = type_slots,                                                          \
    }
PyType_Spec ids_spec = SPEC("ssm._core.IdService", ids_slots);
PyType_Spec pids_spec = SPEC("ssm._core.PidService", pids_slots);
PyType_Spec rmids_spec = SPEC("ssm._core.RmidService", rmids_slots);
