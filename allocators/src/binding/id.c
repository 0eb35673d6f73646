/* SPDX-License-Identifier: Apache-2.0
 *
 * IdAllocator. Memory starts small and doubles when ids run into its end, so a range costs what its highest id ever
 * handed out costs: 1.02 bits an id, at most twice that.
 */
#include "binding.h"

#include <string.h>

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
    static char *names[] = {"range_base", "range_end", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *base_object, *end_object;
    uint64_t base, end;

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
    uint64_t count = (uint64_t)self->range_end - self->range_base + 1;
    uint64_t capacity = self->core.layers.bits * 2 < count ? self->core.layers.bits * 2 : count;
    uint64_t mem_bytes = al_id_size_bytes(capacity);
    void *mem = PyMem_Malloc(mem_bytes);
    struct al_id larger;

    if (mem == NULL)
        return AL_NO_MEMORY;
    int result = al_id_grow(&larger, mem, mem_bytes, capacity, &self->core);
    if (result != AL_OK) {
        PyMem_Free(mem);
        return result;
    }
    PyMem_Free(self->mem);
    self->core = larger;
    self->mem = mem;
    self->mem_bytes = mem_bytes;
    return AL_OK;
}

static PyObject *raise_code(const struct id_object *self, int result, unsigned long long id)
{
    unsigned long long base = self->range_base, end = self->range_end;

    switch (result) {
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
    case AL_NO_MEMORY: return PyErr_NoMemory();
    default:           return raise_corrupt(self->state, "IdAllocator", result);
    }
}

static PyObject *id_allocate(PyObject *object, PyObject *unused)
{
    struct id_object *self = (struct id_object *)object;
    uint32_t id = 0;
    int result;
    (void)unused;

    OBJECT_LOCK(object);
    result = al_id_alloc(&self->core, &id);
    if (result == AL_NO_MEMORY && (result = grow(self)) == AL_OK)
        result = al_id_alloc(&self->core, &id);
    OBJECT_UNLOCK();
    return result == AL_OK ? PyLong_FromUnsignedLong(id) : raise_code(self, result, 0);
}

static PyObject *id_free(PyObject *object, PyObject *argument)
{
    struct id_object *self = (struct id_object *)object;
    uint64_t id;
    int result, is = argument_u64(argument, &id);

    if (is < 0)
        return NULL;
    if (is > 0 || id > UINT32_MAX)
        return raise_error(self->state, ERROR_OutOfRange, "id %S is not in the range %u..%u", argument,
                           (unsigned)self->range_base, (unsigned)self->range_end);
    OBJECT_LOCK(object);
    result = al_id_free(&self->core, (uint32_t)id);
    OBJECT_UNLOCK();
    if (result != AL_OK)
        return raise_code(self, result, id);
    return PyLong_FromUnsignedLong((uint32_t)id);
}

static PyObject *id_is_allocated(PyObject *object, PyObject *argument)
{
    struct id_object *self = (struct id_object *)object;
    uint64_t id;
    bool allocated = false;
    int is = argument_u64(argument, &id);

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
    uint64_t mem_bytes;
    (void)unused;

    OBJECT_LOCK(object);
    mem_bytes = self->mem_bytes;
    OBJECT_UNLOCK();
    return PyLong_FromUnsignedLongLong(sizeof *self + mem_bytes);
}

static PyObject *id_repr(PyObject *object)
{
    struct id_object *self = (struct id_object *)object;

    return PyUnicode_FromFormat("IdAllocator(%u, %u)", (unsigned)self->range_base, (unsigned)self->range_end);
}

/* ---- contents ---- */

static struct numbers collect(struct id_object *self)
{
    struct numbers n = {NULL, 0};
    uint32_t id = self->range_base;

    OBJECT_LOCK(self);
    n.at = PyMem_Malloc((al_id_used_count(&self->core) + 1) * sizeof *n.at);
    for (uint64_t room = al_id_used_count(&self->core); n.at != NULL && n.count < room; id++) {
        if (al_id_next(&self->core, id, &id) != AL_OK)
            break;
        n.at[n.count++] = id;
        if (id == UINT32_MAX)
            break;
    }
    OBJECT_UNLOCK();
    return n;
}

static PyObject *runs(PyObject *object)
{
    struct numbers n = collect((struct id_object *)object);

    return numbers_runs(&n);
}

static PyObject *id_ids(PyObject *object, PyObject *unused)
{
    struct numbers n = collect((struct id_object *)object);
    (void)unused;

    return numbers_list(&n);
}

static PyObject *id_iterate(PyObject *object)
{
    return numbers_iterate(id_ids(object, NULL));
}

static PyObject *id_numpy(PyObject *object, PyObject *unused)
{
    struct numbers n = collect((struct id_object *)object);
    (void)unused;

    return numbers_numpy(&n);
}

/* An object with a core in memory of its own, which is `mem` from now on. NULL: with an exception set; mem is freed. */
static PyObject *id_adopt(PyTypeObject *type, void *mem, uint64_t mem_bytes)
{
    struct id_object *self = mem == NULL ? (struct id_object *)PyErr_NoMemory() : object_new(type);

    if (self == NULL) {
        PyMem_Free(mem);
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->mem = mem;
    self->mem_bytes = mem_bytes;
    if (al_id_attach(&self->core, mem, mem_bytes) != AL_OK || al_id_check(&self->core, NULL, NULL) != 0) {
        Py_DECREF(self);
        return contents_contradict("IdAllocator", "its bitmap contradicts itself");
    }
    self->range_base = self->core.range_base;
    self->range_end = self->core.range_end;
    return (PyObject *)self;
}

static PyObject *id_copy(PyObject *object, PyObject *unused)
{
    struct id_object *self = (struct id_object *)object;
    void *mem;
    uint64_t mem_bytes;
    (void)unused;

    OBJECT_LOCK(object);
    mem_bytes = self->mem_bytes;
    mem = PyMem_Malloc(mem_bytes);
    if (mem != NULL)
        memcpy(mem, self->mem, mem_bytes);
    OBJECT_UNLOCK();
    return id_adopt(Py_TYPE(object), mem, mem_bytes);
}

static PyObject *id_from_core(PyObject *type, PyObject *args)
{
    const char *bytes;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "y#:_from_core", &bytes, &count))
        return NULL;
    void *mem = PyMem_Malloc((size_t)count + 1);
    if (mem != NULL)
        memcpy(mem, bytes, (size_t)count);
    return id_adopt((PyTypeObject *)type, mem, (uint64_t)count);
}

static PyObject *id_to_dict(PyObject *object, PyObject *unused)
{
    struct id_object *self = (struct id_object *)object;
    PyObject *contents = contents_new("IdAllocator"), *copy = id_copy(object, NULL); /* of one moment */
    (void)unused;

    if (contents == NULL || copy == NULL ||
        contents_set(contents, "range_base", PyLong_FromUnsignedLong(self->range_base)) != 0 ||
        contents_set(contents, "range_end", PyLong_FromUnsignedLong(self->range_end)) != 0 ||
        contents_set(contents, "next",
                     PyLong_FromUnsignedLongLong(self->range_base + ((struct id_object *)copy)->core.head->next)) !=
            0 ||
        contents_set(contents, "allocated", runs(copy)) != 0)
        Py_CLEAR(contents);
    Py_XDECREF(copy);
    return contents;
}

/* One run of allocated ids, relative to the base, all below `next`; false: it cannot be. */
static bool set_run(struct id_object *self, uint64_t first, uint64_t last, uint64_t next)
{
    if (first > last || first < self->range_base || last - self->range_base >= next)
        return false;
    for (uint64_t bit = first - self->range_base; bit <= last - self->range_base; bit++)
        if (al_layers_is_set(&self->core.layers, bit) || al_layers_set(&self->core.layers, bit) != AL_OK)
            return false;
    return true;
}

/* 0; -1 with an exception set. */
static int fill(struct id_object *self, PyObject *contents, uint64_t next)
{
    PyObject *rows = contents_rows(contents, "allocated");
    int failed = rows == NULL ? -1 : 0;
    uint64_t run[2];

    while (failed == 0 && self->core.layers.bits < next)
        if (grow(self) != AL_OK) {
            PyErr_NoMemory();
            failed = -1;
        }
    if (failed == 0)
        self->core.head->next = next;
    for (Py_ssize_t i = 0; failed == 0 && i < PyList_Size(rows); i++) {
        failed = contents_row(rows, i, 2, run);
        if (failed == 0 && !set_run(self, run[0], run[1], next)) {
            contents_contradict("IdAllocator", "a run of allocated ids is twice there, or not below next");
            failed = -1;
        }
    }
    Py_XDECREF(rows);
    return failed;
}

static PyObject *id_from_dict(PyObject *type, PyObject *contents)
{
    uint64_t base, end, next;

    if (!contents_are(contents, "IdAllocator") || contents_u64(contents, "range_base", UINT32_MAX, &base) != 0 ||
        contents_u64(contents, "range_end", UINT32_MAX, &end) != 0 ||
        contents_u64(contents, "next", (uint64_t)UINT32_MAX + 1, &next) != 0)
        return NULL;
    if (base > end || next < base || next > end + 1)
        return contents_contradict("IdAllocator", "want range_base <= next <= range_end + 1");
    PyObject *self = PyObject_CallFunction(type, "KK", (unsigned long long)base, (unsigned long long)end);
    if (self != NULL && fill((struct id_object *)self, contents, next - base) != 0)
        Py_CLEAR(self);
    return self;
}

static PyObject *id_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    return contents_reduce(object, id_to_dict(object, NULL), NULL);
}

static int id_has(PyObject *object, PyObject *argument)
{
    PyObject *answer = id_is_allocated(object, argument);
    int has = answer == NULL ? -1 : answer == Py_True;

    Py_XDECREF(answer);
    return has;
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
    {"ids", id_ids, METH_NOARGS, "ids($self, /)\n--\n\nA list of the ids that are handed out, in order."},
    {"to_numpy", id_numpy, METH_NOARGS,
     "to_numpy($self, /)\n--\n\nThe ids that are handed out, in order, as a read-only numpy array of uint32."},
    CONTENTS_METHODS(id, "IdAllocator"),
    {"__sizeof__", id_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "IdAllocator(range_base, range_end)\n--\n\n"
                "Hands out integers of a closed range, the smallest free one first. Thread-safe.\n\n"
                "The behaviour is that of rust-vmm's vm-allocator; the structure is a layered bitmap, so an operation\n"
                "looks at six words at most. Memory is used for the ids handed out so far, not for the range.\n\n"
                "Iterating gives the ids that are handed out, in order. It can be copied and pickled.\n\n"
                "Parameters\n----------\n"
                "range_base, range_end : int\n    ``0 <= range_base <= range_end < 2**32``, both included.\n\n"
                "Raises\n------\n"
                "InvalidRange\n    They are not like that."},
    {Py_tp_new, SLOT(id_make)},
    {Py_tp_dealloc, SLOT(id_dealloc)},
    {Py_tp_repr, SLOT(id_repr)},
    {Py_tp_iter, SLOT(id_iterate)},
    {Py_sq_contains, SLOT(id_has)},
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
