/* SPDX-License-Identifier: Apache-2.0
 *
 * Services of a pool: the base class, address spaces, and the directory; see service.h. What is not hot is Python
 * (ssm/service.py): the checks of parameters and requests, which it has from the standalone allocators. */
#include "service.h"
#include "fields.h"

#include "../../../allocators/src/binding/exported.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

PyObject *service_raise_error(const struct service_object *service, enum ours class, const char *format, ...)
{
    va_list list;
    va_start(list, format);
    PyErr_FormatV(service->state->ours[class], format, list);
    va_end(list);
    return NULL;
}

PyObject *service_raise(const struct service_object *service, int code)
{
    if (code == -SSM_E_CORRUPT)
        return service_raise_error(
            service, ALLOCATOR_CorruptionError,
            "service %R of pool %R contradicts itself: something wrote over it; pool.check() says "
            "what",
            service->name, service->pool->name);
    return raise_code(service->pool, code);
}

/* ---- opening -------------------------------------------------------------------------------------- */

static PyObject *raise_open(const struct service_object *service, int code)
{
    const struct pool_object *pool = service->pool;
    switch (code) {
    case -SSM_E_MISMATCH:
        return PyErr_Format(
            pool->state->ours[ERROR_ServiceMismatch],
            "service %R of pool %R exists with other parameters, see pool.stats().services; open it with those, "
            "or under another name",
            service->name, pool->name);
    case -SSM_E_METADATA:
        return raise_os(
            pool->state->ours[ERROR_MetadataExhausted], ENOSPC,
            "pool %R has no room left for service %R of that size, or %d services already; ask for less, or create "
            "the pool with a larger metadata=",
            pool->name, service->name, SSM_SERVICE_MAX);
    case -ENOENT:
        return raise_os(PyExc_FileNotFoundError, ENOENT,
                        "pool %R has no board %R, and cannot make one: it is attached readonly; a process that is not "
                        "has to open the board first",
                        pool->name, service->name);
    case -EINVAL: return PyErr_Format(PyExc_ValueError, "service %R: such parameters cannot be", service->name);
    default:      return service_raise(service, code);
    }
}

/* Which of the types of add_services() it is, or is built on. */
static uint32_t kind_of(const struct module_state *state, PyTypeObject *type)
{
    uint32_t kind = SSM_SERVICE_KIND_MAX;
    while (kind != SSM_SERVICE_NONE && !PyType_IsSubtype(type, state->service_types[kind]))
        kind--;
    return kind;
}

static PyObject *service_kind(PyTypeObject *type, PyObject *unused)
{
    (void)unused;
    struct module_state *state = state_of(type);
    return state != NULL ? PyUnicode_FromString(ssm_service_kind_name(kind_of(state, type))) : NULL;
}

PyDoc_STRVAR(service_open_doc,
"_open($type, pool, name, reclaim, first, last, ranges, /)\n--\n\n"
"Open or create the service; the parameters are those of struct ssm_service_options, and the type says the kind.");

static PyObject *service_open(PyTypeObject *type, PyObject *args)
{
    PyObject *pool_argument, *name;
    unsigned int ranges;
    int reclaim;
    unsigned long long first, last;
    if (!PyArg_ParseTuple(args, "OUpKKI:_open", &pool_argument, &name, &reclaim, &first, &last, &ranges))
        return NULL;
    struct pool_object *pool = pool_of(type, pool_argument);
    if (pool == NULL)
        return NULL;
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL || pool->closed)
        return text == NULL ? NULL : raise_closed(pool);
    struct service_object *self = (struct service_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type, 0);
    if (self == NULL)
        return NULL;
    Py_INCREF(pool_argument);
    Py_INCREF(name);
    self->state = pool->state;
    self->pool = pool;
    self->name = name;
    self->options = (struct ssm_service_options){
        .kind = kind_of(pool->state, type),
        .flags = reclaim ? SSM_RECLAIM : 0u,
        .first = first,
        .last = last,
        .ranges = ranges,
    };
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    if (wait_begin(&scope, pool, NULL)) {
        result = ssm_service_open(pool->core, text, &self->options, &self->core);
        wait_end(&scope);
    }
    if (result == 0)
        return OBJECT(self);
    raise_open(self, result);
    Py_DECREF(OBJECT(self));
    return NULL;
}

static void service_dealloc(struct service_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    ssm_service_close(self->core);
    Py_XDECREF(OBJECT(self->pool));
    Py_XDECREF(self->name);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

static PyObject *service_refuse(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    return PyErr_Format(PyExc_TypeError,
                        "%R is not called: use pool.ids(), addresses(), pids(), rmids(), semaphore() or board()", type);
}

/* ---- what is allocated ----------------------------------------------------------------------------- */

/* All items of one moment; NULL with an exception set. */
static struct ssm_service_item *list_items(struct service_object *self, uint64_t start, uint64_t end,
                                           int64_t *count_out)
{
    uint64_t room = 64;
    for (;;) {
        struct ssm_service_item *items = PyMem_Calloc(room, sizeof(*items));
        struct wait_scope scope;
        if (items == NULL)
            return (struct ssm_service_item *)PyErr_NoMemory();
        if (!service_begin(self, &scope)) {
            PyMem_Free(items);
            return NULL;
        }
        *count_out = ssm_service_list(self->core, start, end, items, room);
        service_end(&scope);
        if (*count_out >= 0 && (uint64_t)*count_out <= room)
            return items;
        PyMem_Free(items);
        if (*count_out < 0)
            return (struct ssm_service_item *)service_raise(self, (int)*count_out);
        room =
            2 *
            (uint64_t)*count_out; /* others may be at work; so it takes as many turns as a number has bits, at most */
    }
}

PyDoc_STRVAR(service_list_doc,
"_list($self, start, end, /)\n--\n\n"
"[(first, last, owner, allocated)] of what overlaps start .. end; of an address space, the free ranges too.");

static PyObject *service_list(struct service_object *self, PyObject *args)
{
    unsigned long long start, end;
    int64_t count;
    if (!PyArg_ParseTuple(args, "KK:_list", &start, &end))
        return NULL;
    struct ssm_service_item *items = list_items(self, start, end, &count);
    PyObject *list = items != NULL ? PyList_New((Py_ssize_t)count) : NULL;
    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = Py_BuildValue("(KKIN)", (unsigned long long)items[i].start, (unsigned long long)items[i].end,
                                       items[i].owner, PyBool_FromLong(items[i].allocated != 0));
        if (item == NULL || PyList_SetItem(list, i, item) < 0)
            Py_CLEAR(list);
    }
    PyMem_Free(items);
    return list;
}

PyDoc_STRVAR(service_core_doc, "_core($self, /)\n--\n\nThe bytes of the allocator, of one moment, without owners.");

static PyObject *service_core(struct service_object *self, PyObject *unused)
{
    (void)unused;
    int64_t bytes = ssm_service_snapshot(self->core, NULL, 0); /* of private memory: the pool may be closed */
    struct wait_scope scope;
    PyObject *core = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)bytes);
    if (core == NULL || !service_begin(self, &scope)) {
        Py_XDECREF(core);
        return NULL;
    }
    int64_t result = ssm_service_snapshot(self->core, PyBytes_AsString(core), (uint64_t)bytes);
    service_end(&scope);
    if (result >= 0)
        return core;
    Py_DECREF(core);
    return service_raise(self, (int)result);
}

PyDoc_STRVAR(service_owner_doc, "_owner($self, owner, /)\n--\n\nAs Owner.");

static PyObject *service_owner(struct service_object *self, PyObject *value)
{
    unsigned long owner = PyLong_AsUnsignedLong(value);
    struct ssm_service_owner o;
    if (owner == (unsigned long)-1 && PyErr_Occurred())
        return NULL;
    if (self->pool->closed)
        return raise_closed(self->pool);
    int result = ssm_service_owner(self->core, (uint32_t)owner, &o);
    return result < 0 ? service_raise(self, result) : fields_dict(RECORD_service_owner, &o);
}

/* ---- address spaces --------------------------------------------------------------------------------- */

struct text { char s[64]; };

static struct text range_text(uint64_t start, uint64_t end)
{
    struct text t;
    (void)snprintf(t.s, sizeof(t.s), "[0x%llx, 0x%llx]", (unsigned long long)start, (unsigned long long)end);
    return t;
}

static struct text hex_text(uint64_t value)
{
    struct text t;
    (void)snprintf(t.s, sizeof(t.s), "0x%llx", (unsigned long long)value);
    return t;
}

static PyObject *raise_allocate(const struct service_object *self, int code, const struct al_tree_constraint *c)
{
    switch (code) {
    case -SSM_E_UNAVAILABLE:
        if (c->policy == AL_TREE_EXACT)
            return service_raise_error(self, ALLOCATOR_ResourceNotAvailable,
                                       "%s is not free, or not all of it may be allocated here",
                                       range_text(c->exact, c->exact + (c->size - 1)).s);
        return service_raise_error(self, ALLOCATOR_ResourceNotAvailable,
                                   "no free range within %s holds %s addresses from a multiple of %s on",
                                   range_text(c->min, c->max).s, hex_text(c->size).s, hex_text(c->align).s);
    case -SSM_E_CROWDED:
        return service_raise_error(
            self, ALLOCATOR_ResourceNotAvailable,
            "%R has no room for one more range: free one, or create the service with a larger ranges=", self->name);
    default: return service_raise(self, code);
    }
}

static PyObject *allocate(struct service_object *self, const struct al_tree_constraint *c)
{
    const struct ssm_range_request request = {
        .size = c->size,
        .align = c->align,
        .min = c->min,
        .max = c->max,
        .exact = c->exact,
        .policy = c->policy,
    };
    struct wait_scope scope;
    uint64_t start;
    if (!service_begin(self, &scope))
        return NULL;
    int result = ssm_range_alloc(self->core, &request, &start);
    service_end(&scope);
    const struct allocators_exported *exported = self->state->exported;
    return result == 0 ? exported->range_new(exported->state, start, start + (c->size - 1))
                       : raise_allocate(self, result, c);
}

PyDoc_STRVAR(addresses_allocate_doc,
"allocate($self, /, size, alignment=4, policy=AllocPolicy.FIRST_MATCH)\n--\n\n"
"Allocate a range of addresses.\n\n"
"Parameters\n----------\n"
"size : int\n    Addresses, at least 1.\n"
"alignment : int\n    Power of two; the start is a multiple of it.\n"
"policy : AllocPolicy\n    The lowest place, the highest one, or exactly one.\n\n"
"Returns\n-------\nRangeInclusive\n\n"
"Raises\n------\n"
"InvalidSize, InvalidAlignment, UnalignedAddress, Overflow\n    As Constraint raises them.\n"
"ResourceNotAvailable\n    Nothing free fits, or the service has room for no more ranges.");

static PyObject *addresses_allocate(struct service_object *self, PyObject *const *args, Py_ssize_t nargs,
                                    PyObject *kwnames)
{
    static const struct parameters parameters = {
        "allocate", {KEYWORD_size, KEYWORD_alignment, KEYWORD_policy}, 3, 3, 1};
    const struct allocators_exported *exported = self->state->exported;
    PyObject *values[3];
    struct al_tree_constraint c;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        exported->constraint_set(exported->state, values[0], values[1], values[2], &c) != 0)
        return NULL;
    return allocate(self, &c);
}

PyDoc_STRVAR(addresses_allocate_constraint_doc,
"allocate_constraint($self, constraint, /)\n--\n\n"
"Allocate a range as the Constraint says.\n\n"
"Returns\n-------\nRangeInclusive\n\n"
"Raises\n------\nResourceNotAvailable\n    Nothing free fits, or the service has room for no more ranges.");

static PyObject *addresses_allocate_constraint(struct service_object *self, PyObject *constraint)
{
    const struct allocators_exported *exported = self->state->exported;
    struct al_tree_constraint c;
    return exported->constraint_of(exported->state, constraint, &c) != 0 ? NULL : allocate(self, &c);
}

PyDoc_STRVAR(addresses_free_doc,
"free($self, range, /)\n--\n\n"
"Give back a range, as allocate() returned it; whichever process has it.\n\n"
"Raises\n------\n"
"InvalidStateTransition\n    It is free already.\n"
"ResourceNotAvailable\n    It was not allocated as one range. Nothing was changed.");

static PyObject *addresses_free(struct service_object *self, PyObject *range)
{
    const struct allocators_exported *exported = self->state->exported;
    uint64_t start, end;
    struct wait_scope scope;
    if (exported->range_of(exported->state, range, &start, &end) != 0 || !service_begin(self, &scope))
        return NULL;
    int result = ssm_range_free(self->core, start, end);
    service_end(&scope);
    switch (result) {
    case 0: RETURN_NONE;
    case -SSM_E_UNAVAILABLE:
        return service_raise_error(self, ALLOCATOR_ResourceNotAvailable,
                                   "%s was not allocated as one range, it cannot be freed as one",
                                   range_text(start, end).s);
    case -SSM_E_RELEASED:
        return service_raise_error(self, ALLOCATOR_InvalidStateTransition, "%s is free already",
                                   range_text(start, end).s);
    default: return service_raise(self, result);
    }
}

/* ---- types ------------------------------------------------------------------------------------------ */

static PyObject *service_get_name(struct service_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(self->name);
    return self->name;
}

static PyObject *service_get_pool(struct service_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(OBJECT(self->pool));
    return OBJECT(self->pool);
}

static PyObject *service_get_reclaim(struct service_object *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong((self->options.flags & SSM_RECLAIM) != 0);
}

/* What ssm/service.py needs to open it again. */
static PyObject *service_get_parameters(struct service_object *self, void *unused)
{
    (void)unused;
    const struct ssm_service_options *o = &self->options;
    return Py_BuildValue("(NKKI)", PyBool_FromLong((o->flags & SSM_RECLAIM) != 0), (unsigned long long)o->first,
                         (unsigned long long)o->last, o->ranges);
}


static PyGetSetDef service_attributes[] = {
    {"name", (getter)service_get_name, NULL, "str : its name in the pool.", NULL},
    {"pool", (getter)service_get_pool, NULL, "Pool : that it was opened through.", NULL},
    {"reclaim", (getter)service_get_reclaim, NULL, "bool : what a process has goes back when it leaves or dies.", NULL},
    {"_parameters", (getter)service_get_parameters, NULL, "(reclaim, first, last, ranges)", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef service_methods[] = {
    {"_open", (PyCFunction)service_open, METH_VARARGS | METH_CLASS, service_open_doc},
    {"_kind", (PyCFunction)service_kind, METH_NOARGS | METH_CLASS, "_kind($type, /)\n--\n\nAs in ServiceStats.kind."},
    {"_list", (PyCFunction)service_list, METH_VARARGS, service_list_doc},
    {"_owner", (PyCFunction)service_owner, METH_O, service_owner_doc},
    {"_core", (PyCFunction)service_core, METH_NOARGS, service_core_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot service_slots[] = {
    {Py_tp_doc, "What the services in ssm/service.py are built on."},
    {Py_tp_new, service_refuse},
    {Py_tp_dealloc, service_dealloc},
    {Py_tp_methods, service_methods},
    {Py_tp_getset, service_attributes},
    {0, NULL},
};

PyType_Spec service_spec = {
    .name = "ssm._core.Service",
    .basicsize = sizeof(struct service_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = service_slots,
};

static PyMethodDef addresses_methods[] = {
    {"allocate", FAST(addresses_allocate), METH_FASTCALL | METH_KEYWORDS, addresses_allocate_doc},
    {"allocate_constraint", (PyCFunction)addresses_allocate_constraint, METH_O, addresses_allocate_constraint_doc},
    {"free", (PyCFunction)addresses_free, METH_O, addresses_free_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot addresses_slots[] = {
    {Py_tp_doc, "What ssm.AddressService is built on."},
    {Py_tp_methods, addresses_methods},
    {0, NULL},
};

PyType_Spec addresses_spec = {
    .name = "ssm._core.AddressService",
    .basicsize = sizeof(struct service_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = addresses_slots,
};
