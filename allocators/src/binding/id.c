/* SPDX-License-Identifier: Apache-2.0
 *
 * IdAllocator. Memory starts small and doubles when ids run into its end, so a range costs what its highest id ever
 * handed out costs: 1.02 bits an id, at most twice that.
 */
#include "binding.h"

#include "../id.h"

#define FIRST_CAPACITY UINT64_C(512) /* ids; a tenth of a kilobyte */

struct id_object {
    PyObject_HEAD
    struct module_state *state;
    struct al_id         core;
    void                *mem;
    uint64_t             mem_bytes;
    uint32_t             range_base, range_end; /* those of the core, which is replaced when it grows */
};

static PyObject *id_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char         *names[] = {"range_base", "range_end", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject            *base_object, *end_object;
    uint64_t             base, end;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:IdAllocator", names, &base_object, &end_object))
        return NULL;
    int base_is = argument_u64(base_object, &base), end_is = base_is < 0 ? -1 : argument_u64(end_object, &end);
    if (end_is < 0)
        return NULL;
    if (base_is != 0 || end_is != 0 || end > UINT32_MAX || base > end)
        return raise_error(state, ERROR_InvalidRange, "id range %S..%S: want 0 <= range_base <= range_end <= 2**32 - 1",
                           base_object, end_object);

    struct id_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    uint64_t capacity = end - base + 1 < FIRST_CAPACITY ? end - base + 1 : FIRST_CAPACITY;
    self->state = state;
    self->range_base = (uint32_t)base;
    self->range_end = (uint32_t)end;
    self->mem_bytes = al_id_size_bytes(capacity);
    self->mem = PyMem_Malloc(self->mem_bytes);
    if (self->mem == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    /* Cannot fail, the arguments are checked. */
    (void)al_id_init(&self->core, self->mem, self->mem_bytes, self->range_base, self->range_end, capacity);
    return (PyObject *)self;
}

static void id_dealloc(PyObject *self)
{
    PyMem_Free(((struct id_object *)self)->mem);
    object_free(self);
}

/* Twice the memory. AL_NO_MEMORY: there is none. */
static int grow(struct id_object *self)
{
    uint64_t     count = (uint64_t)self->range_end - self->range_base + 1;
    uint64_t     capacity = self->core.layers.bits * 2 < count ? self->core.layers.bits * 2 : count;
    uint64_t     mem_bytes = al_id_size_bytes(capacity);
    void        *mem = PyMem_Malloc(mem_bytes);
    struct al_id larger;

    if (mem == NULL)
        return AL_NO_MEMORY;
    int rc = al_id_grow(&larger, mem, mem_bytes, capacity, &self->core);
    if (rc != AL_OK) {
        PyMem_Free(mem);
        return rc;
    }
    PyMem_Free(self->mem);
    self->core = larger;
    self->mem = mem;
    self->mem_bytes = mem_bytes;
    return AL_OK;
}

static PyObject *raise_code(const struct id_object *self, int rc, unsigned long long id)
{
    unsigned long long base = self->range_base, end = self->range_end;

    switch (rc) {
    case AL_OUT_OF_RANGE:
        return raise_error(self->state, ERROR_OutOfRange, "id %llu is not in the range %llu..%llu", id, base, end);
    case AL_NEVER_ALLOCATED:
        return raise_error(self->state, ERROR_NeverAllocated, "id %llu was never allocated, it cannot be freed", id);
    case AL_ALREADY_RELEASED:
        return raise_error(self->state, ERROR_AlreadyReleased, "id %llu is free already, it was released before", id);
    case AL_NOT_AVAILABLE:
        return raise_error(self->state, ERROR_ResourceNotAvailable,
                           "all %llu ids of %llu..%llu are in use: free one first", end - base + 1, base, end);
    case AL_OVERFLOW:
        return raise_error(self->state, ERROR_Overflow,
                           "id 2**32 - 1 is handed out and no id of %llu..%llu is free: free one first", base, end);
    case AL_NO_MEMORY:
        return PyErr_NoMemory();
    default:
        return raise_corrupt(self->state, "IdAllocator", rc);
    }
}

static PyObject *id_allocate(PyObject *object, PyObject *unused)
{
    struct id_object *self = (struct id_object *)object;
    uint32_t          id = 0;
    int               rc;
    (void)unused;

    OBJECT_LOCK(object);
    rc = al_id_alloc(&self->core, &id);
    if (rc == AL_NO_MEMORY && (rc = grow(self)) == AL_OK)
        rc = al_id_alloc(&self->core, &id);
    OBJECT_UNLOCK();
    return rc == AL_OK ? PyLong_FromUnsignedLong(id) : raise_code(self, rc, 0);
}

static PyObject *id_free(PyObject *object, PyObject *argument)
{
    struct id_object *self = (struct id_object *)object;
    uint64_t          id;
    int               rc, is = argument_u64(argument, &id);

    if (is < 0)
        return NULL;
    if (is > 0 || id > UINT32_MAX)
        return raise_error(self->state, ERROR_OutOfRange, "id %S is not in the range %u..%u", argument,
                           (unsigned)self->range_base, (unsigned)self->range_end);
    OBJECT_LOCK(object);
    rc = al_id_free(&self->core, (uint32_t)id);
    OBJECT_UNLOCK();
    if (rc != AL_OK)
        return raise_code(self, rc, id);
    return PyLong_FromUnsignedLong((uint32_t)id);
}

static PyObject *id_is_allocated(PyObject *object, PyObject *argument)
{
    struct id_object *self = (struct id_object *)object;
    uint64_t          id;
    bool              allocated = false;
    int               is = argument_u64(argument, &id);

    if (is < 0)
        return NULL;
    OBJECT_LOCK(object);
    allocated = is == 0 && id <= UINT32_MAX && al_id_is_allocated(&self->core, (uint32_t)id);
    OBJECT_UNLOCK();
    return PyBool_FromLong(allocated);
}

static PyObject *id_sizeof(PyObject *object, PyObject *unused)
{
    struct id_object *self = (struct id_object *)object;
    uint64_t          mem_bytes;
    (void)unused;

    OBJECT_LOCK(object);
    mem_bytes = self->mem_bytes;
    OBJECT_UNLOCK();
    return PyLong_FromUnsignedLongLong(sizeof *self + mem_bytes);
}

static PyObject *id_repr(PyObject *object)
{
    struct id_object *self = (struct id_object *)object;

    return PyUnicode_FromFormat("IdAllocator(%u, %u)", (unsigned)self->range_base,
                                (unsigned)self->range_end);
}

static PyMemberDef members[] = {
    {"range_base", T_UINT, offsetof(struct id_object, range_base), READONLY, "First id of the range."},
    {"range_end", T_UINT, offsetof(struct id_object, range_end), READONLY, "Last id of the range, included."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"allocate_id", id_allocate, METH_NOARGS,
     "allocate_id($self, /)\n--\n\n"
     "Take the smallest free id: one that was freed before, or the next one never handed out.\n\n"
     "Returns\n-------\nint\n\n"
     "Raises\n------\n"
     "ResourceNotAvailable\n    The whole range is in use.\n"
     "Overflow\n    The whole range is in use, and it ends at ``2**32 - 1``."},
    {"free_id", id_free, METH_O,
     "free_id($self, id, /)\n--\n\n"
     "Give an id back.\n\n"
     "Returns\n-------\nint\n    The id.\n\n"
     "Raises\n------\n"
     "OutOfRange, NeverAllocated, AlreadyReleased\n    Nothing was changed."},
    {"is_allocated", id_is_allocated, METH_O,
     "is_allocated($self, id, /)\n--\n\nWhether the id is handed out; False for one outside the range."},
    {"__sizeof__", id_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "IdAllocator(range_base, range_end)\n--\n\n"
                "Hands out integers of a closed range, the smallest free one first. Thread-safe.\n\n"
                "The behaviour is that of rust-vmm's vm-allocator; the structure is a layered bitmap, so an operation\n"
                "looks at six words at most. Memory is used for the ids handed out so far, not for the range.\n\n"
                "Parameters\n----------\n"
                "range_base, range_end : int\n    ``0 <= range_base <= range_end < 2**32``, both included.\n\n"
                "Raises\n------\n"
                "InvalidRange\n    They are not like that."},
    {Py_tp_new, SLOT(id_make)},
    {Py_tp_dealloc, SLOT(id_dealloc)},
    {Py_tp_repr, SLOT(id_repr)},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec id_spec = {
    .name = "allocators.IdAllocator",
    .basicsize = sizeof(struct id_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};
