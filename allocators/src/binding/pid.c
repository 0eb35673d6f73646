/* SPDX-License-Identifier: Apache-2.0
 *
 * PidAllocator, and Pid: the handle that gives its number back when it is freed, left, or dropped.
 */
#include "binding.h"

#include <string.h>

#include "../pid_bitmap.h"

struct pid_allocator_object {
    PyObject_HEAD
    struct module_state *state;
    struct al_pid        core;
    void                *mem;
    uint64_t             mem_bytes;
    uint64_t            *orphans; /* of a copy: bits of the pids in use that have no Pid; NULL: there are none */
};

struct pid_object {
    PyObject_HEAD
    struct pid_allocator_object *allocator;
    uint32_t                     number;
    bool                         live; /* guarded by the allocator's critical section */
};

/* ---- Pid ---- */

/* AL_ALREADY_RELEASED: this handle has given it back before. */
static int give_back(struct pid_object *pid)
{
    int result = AL_ALREADY_RELEASED;

    OBJECT_LOCK(pid->allocator);
    if (pid->live) {
        pid->live = false;
        result = al_pid_free(&pid->allocator->core, pid->number);
    }
    OBJECT_UNLOCK();
    return result;
}

static void pid_dealloc(PyObject *object)
{
    struct pid_object *pid = (struct pid_object *)object;

    if (pid->allocator != NULL) {
        (void)give_back(pid); /* at worst it was freed by hand */
        Py_DECREF(pid->allocator);
    }
    object_free(object);
}

static PyObject *pid_free(PyObject *object, PyObject *unused)
{
    struct pid_object *pid = (struct pid_object *)object;
    const struct module_state *state = pid->allocator->state;
    int result = give_back(pid);
    (void)unused;

    if (result == AL_ALREADY_RELEASED)
        return raise_error(state, ERROR_AlreadyReleased, "pid %u is free already, this handle was freed before",
                           (unsigned)pid->number);
    if (result != AL_OK)
        return raise_corrupt(state, "PidAllocator", result);
    Py_RETURN_NONE;
}

static PyObject *pid_enter(PyObject *object, PyObject *unused)
{
    struct pid_object *pid = (struct pid_object *)object;
    bool live;
    (void)unused;

    OBJECT_LOCK(pid->allocator);
    live = pid->live;
    OBJECT_UNLOCK();
    if (!live)
        return raise_error(pid->allocator->state, ERROR_AlreadyReleased,
                           "pid %u is free already: allocate another one to use it in a with statement",
                           (unsigned)pid->number);
    Py_INCREF(object);
    return object;
}

static PyObject *pid_exit(PyObject *object, PyObject *args)
{
    int result = give_back((struct pid_object *)object);
    (void)args;

    if (result != AL_OK && result != AL_ALREADY_RELEASED)
        return raise_corrupt(((struct pid_object *)object)->allocator->state, "PidAllocator", result);
    Py_RETURN_NONE;
}

static PyObject *pid_int(PyObject *object)
{
    return PyLong_FromUnsignedLong(((struct pid_object *)object)->number);
}

static PyObject *pid_repr(PyObject *object)
{
    struct pid_object *pid = (struct pid_object *)object;
    bool live;

    OBJECT_LOCK(pid->allocator);
    live = pid->live;
    OBJECT_UNLOCK();
    return PyUnicode_FromFormat(live ? "<Pid %u>" : "<Pid %u, freed>", (unsigned)pid->number);
}

static PyMemberDef pid_members[] = {
    {"number", T_UINT, offsetof(struct pid_object, number), READONLY, "The pid as an int, as int(pid) gives it."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef pid_methods[] = {
    {"free", pid_free, METH_NOARGS,
     "free($self, /)\n--\n\n"
     "Give the pid back at once.\n\n"
     "Raises\n------\nAlreadyReleased\n    It was freed before; nothing was changed."},
    {"__enter__", pid_enter, METH_NOARGS, NULL},
    {"__exit__", pid_exit, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pid_slots[] = {
    {Py_tp_doc, "A pid in use, made by PidAllocator.allocate().\n\n"
                "It goes back to its allocator on free(), at the end of a with statement, or when the last reference\n"
                "to this object goes."},
    {Py_tp_dealloc, SLOT(pid_dealloc)},
    {Py_tp_repr, SLOT(pid_repr)},
    {Py_nb_int, SLOT(pid_int)},
    {Py_nb_index, SLOT(pid_int)},
    {Py_tp_members, pid_members},
    {Py_tp_methods, pid_methods},
    {0, NULL},
};

PyType_Spec pid_spec = {
    .name = "allocators.Pid",
    .basicsize = sizeof(struct pid_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = pid_slots,
};

/* ---- PidAllocator ---- */

static PyObject *allocator_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"order", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *order_object;
    uint64_t order;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:PidAllocator", names, &order_object))
        return NULL;
    int is = argument_u64(order_object, &order);
    if (is < 0)
        return NULL;
    if (is > 0 || order == 0 || order > AL_PID_ORDER_MAX)
        return raise_error(state, ERROR_InvalidSize, "order %S: want 1 <= order <= %u, for order * 64 pids",
                           order_object, (unsigned)AL_PID_ORDER_MAX);
    struct pid_allocator_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    self->state = state;
    self->mem_bytes = al_pid_size_bytes((uint32_t)order);
    self->mem = PyMem_Malloc(self->mem_bytes);
    if (self->mem == NULL) {
        Py_DECREF(self);
        return PyErr_NoMemory();
    }
    (void)al_pid_init(&self->core, self->mem, self->mem_bytes, (uint32_t)order); /* checked */
    return (PyObject *)self;
}

static void allocator_dealloc(PyObject *self)
{
    PyMem_Free(((struct pid_allocator_object *)self)->mem);
    PyMem_Free(((struct pid_allocator_object *)self)->orphans);
    object_free(self);
}

static PyObject *allocator_allocate(PyObject *object, PyObject *unused)
{
    struct pid_allocator_object *self = (struct pid_allocator_object *)object;
    struct pid_object *pid = PyObject_New(struct pid_object, self->state->pid_type);
    uint32_t number = 0;
    int result;
    (void)unused;

    if (pid == NULL)
        return NULL;
    pid->allocator = NULL;
    OBJECT_LOCK(object);
    result = al_pid_alloc(&self->core, &number);
    OBJECT_UNLOCK();
    if (result != AL_OK) {
        Py_DECREF(pid);
        if (result != AL_NOT_AVAILABLE)
            return raise_corrupt(self->state, "PidAllocator", result);
        Py_RETURN_NONE;
    }
    Py_INCREF(object);
    pid->allocator = self;
    pid->number = number;
    pid->live = true;
    return (PyObject *)pid;
}

/* Takes the pid out of the orphans. False: it is none of them. */
static bool is_orphan(struct pid_allocator_object *self, uint64_t number)
{
    uint64_t bit = UINT64_C(1) << number % 64;

    if (self->orphans == NULL || number >= self->core.layers.bits || !(self->orphans[number / 64] & bit))
        return false;
    self->orphans[number / 64] &= ~bit;
    return true;
}

static PyObject *allocator_adopt(PyObject *object, PyObject *argument)
{
    struct pid_allocator_object *self = (struct pid_allocator_object *)object;
    uint64_t number;
    bool orphan = false;
    int is = argument_u64(argument, &number);

    if (is < 0)
        return NULL;
    struct pid_object *pid = PyObject_New(struct pid_object, self->state->pid_type);
    if (pid == NULL)
        return NULL;
    pid->allocator = NULL;
    OBJECT_LOCK(object);
    orphan = is == 0 && is_orphan(self, number);
    OBJECT_UNLOCK();
    if (!orphan) {
        Py_DECREF(pid);
        return raise_error(self->state, ERROR_NeverAllocated,
                           "pid %S is not in use here without a Pid: adopt() is for what a copy has taken over",
                           argument);
    }
    Py_INCREF(object);
    pid->allocator = self;
    pid->number = (uint32_t)number;
    pid->live = true;
    return (PyObject *)pid;
}

/* 1, 0, or -1 with an exception set. */
static int allocator_has(PyObject *object, PyObject *argument)
{
    struct pid_allocator_object *self = (struct pid_allocator_object *)object;
    uint64_t number;
    bool allocated;
    int is = argument_u64(argument, &number);

    if (is < 0)
        return -1;
    OBJECT_LOCK(object);
    allocated = is == 0 && number <= UINT32_MAX && al_pid_is_allocated(&self->core, (uint32_t)number);
    OBJECT_UNLOCK();
    return allocated;
}

static PyObject *allocator_contains(PyObject *object, PyObject *argument)
{
    int has = allocator_has(object, argument);

    return has < 0 ? NULL : PyBool_FromLong(has);
}

static PyObject *allocator_order(PyObject *object, void *closure)
{
    (void)closure;
    return PyLong_FromUnsignedLongLong(((struct pid_allocator_object *)object)->core.layers.bits / 64);
}

static PyObject *allocator_repr(PyObject *object)
{
    return PyUnicode_FromFormat("PidAllocator(%llu)",
                                (unsigned long long)(((struct pid_allocator_object *)object)->core.layers.bits / 64));
}

static PyObject *allocator_sizeof(PyObject *object, PyObject *unused)
{
    struct pid_allocator_object *self = (struct pid_allocator_object *)object;
    (void)unused;

    return PyLong_FromUnsignedLongLong(sizeof *self + self->mem_bytes);
}

/* ---- contents ---- */

static struct numbers collect(struct pid_allocator_object *self)
{
    struct numbers n = {NULL, 0};
    uint32_t pid = 0;

    OBJECT_LOCK(self);
    uint64_t room = al_pid_used_count(&self->core);
    n.at = PyMem_Malloc((room + 1) * sizeof *n.at);
    for (; n.at != NULL && n.count < room && al_pid_next(&self->core, pid, &pid) == AL_OK; pid++)
        n.at[n.count++] = pid;
    OBJECT_UNLOCK();
    return n;
}

static PyObject *runs(PyObject *object)
{
    struct numbers n = collect((struct pid_allocator_object *)object);

    return numbers_runs(&n);
}

static PyObject *allocator_iterate(PyObject *object)
{
    struct numbers n = collect((struct pid_allocator_object *)object);

    return numbers_iterate(numbers_list(&n));
}

static PyObject *allocator_numpy(PyObject *object, PyObject *unused)
{
    struct numbers n = collect((struct pid_allocator_object *)object);
    (void)unused;

    return numbers_numpy(&n);
}

/* What is in use in the core is nobody's Pid. 0; -1 with an exception set. */
static int orphan_all(struct pid_allocator_object *self)
{
    uint64_t bytes = self->core.layers.word_count[0] * sizeof(uint64_t);

    self->orphans = PyMem_Malloc(bytes);
    if (self->orphans == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    memcpy(self->orphans, self->core.layers.word[0], bytes); /* whole words of pids: no bit stands for nothing */
    return 0;
}

/* An object with a core in memory of its own, which is `mem` from now on. NULL: with an exception set; mem is freed. */
static PyObject *allocator_own(PyTypeObject *type, void *mem, uint64_t mem_bytes)
{
    struct pid_allocator_object *self = mem == NULL ? (void *)PyErr_NoMemory() : object_new(type);

    if (self == NULL) {
        PyMem_Free(mem);
        return NULL;
    }
    self->state = PyType_GetModuleState(type);
    self->mem = mem;
    self->mem_bytes = mem_bytes;
    bool is_sound = al_pid_attach(&self->core, mem, mem_bytes) == AL_OK && al_pid_check(&self->core, NULL, NULL) == 0;
    if (!is_sound)
        contents_contradict("PidAllocator", "its bitmap contradicts itself");
    if (!is_sound || orphan_all(self) != 0) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static PyObject *allocator_copy(PyObject *object, PyObject *unused)
{
    struct pid_allocator_object *self = (struct pid_allocator_object *)object;
    void *mem = PyMem_Malloc(self->mem_bytes);
    (void)unused;

    OBJECT_LOCK(object);
    if (mem != NULL)
        memcpy(mem, self->mem, self->mem_bytes);
    OBJECT_UNLOCK();
    return allocator_own(Py_TYPE(object), mem, self->mem_bytes);
}

static PyObject *allocator_from_core(PyObject *type, PyObject *args)
{
    const char *bytes;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "y#:_from_core", &bytes, &count))
        return NULL;
    void *mem = PyMem_Malloc((size_t)count + 1);
    if (mem != NULL)
        memcpy(mem, bytes, (size_t)count);
    return allocator_own((PyTypeObject *)type, mem, (uint64_t)count);
}

static PyObject *allocator_to_dict(PyObject *object, PyObject *unused)
{
    PyObject *contents = contents_new("PidAllocator");
    (void)unused;

    if (contents != NULL && (contents_set(contents, "order", allocator_order(object, NULL)) != 0 ||
                             contents_set(contents, "allocated", runs(object)) != 0))
        Py_CLEAR(contents);
    return contents;
}

/* 0; -1 with an exception set. */
static int fill(struct pid_allocator_object *self, PyObject *contents)
{
    PyObject *rows = contents_rows(contents, "allocated");
    int failed = rows == NULL ? -1 : 0;
    uint64_t run[2];

    for (Py_ssize_t i = 0; failed == 0 && i < PyList_Size(rows); i++) {
        failed = contents_row(rows, i, 2, run);
        bool is_run = failed == 0 && run[0] <= run[1] && run[1] < self->core.layers.bits;
        for (uint64_t pid = run[0]; is_run && pid <= run[1]; pid++)
            is_run = al_pid_take(&self->core, (uint32_t)pid) == AL_OK;
        if (failed == 0 && !is_run) {
            contents_contradict("PidAllocator", "a run of pids in use is twice there, or not below order * 64");
            failed = -1;
        }
    }
    Py_XDECREF(rows);
    return failed != 0 ? failed : orphan_all(self);
}

static PyObject *allocator_from_dict(PyObject *type, PyObject *contents)
{
    uint64_t order;

    if (!contents_are(contents, "PidAllocator") || contents_u64(contents, "order", AL_PID_ORDER_MAX, &order) != 0)
        return NULL;
    PyObject *self = PyObject_CallFunction(type, "K", (unsigned long long)order);
    if (self != NULL && fill((struct pid_allocator_object *)self, contents) != 0)
        Py_CLEAR(self);
    return self;
}

static PyObject *allocator_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    return contents_reduce(object, allocator_to_dict(object, NULL), NULL);
}

static PyMemberDef allocator_members[] = {
    {"capacity", T_ULONGLONG, offsetof(struct pid_allocator_object, core.layers.bits), READONLY,
     "Pids there are, order * 64."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef allocator_getters[] = {
    {"order", allocator_order, NULL, "Words of 64 pids.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef allocator_methods[] = {
    {"allocate", allocator_allocate, METH_NOARGS,
     "allocate($self, /)\n--\n\n"
     "Take the smallest free pid.\n\n"
     "Returns\n-------\nPid or None\n    None when all are in use."},
    {"contains", allocator_contains, METH_O,
     "contains($self, number, /)\n--\n\n"
     "Whether this pid, an int or a Pid, is in use; False for a number outside the capacity."},
    {"adopt", allocator_adopt, METH_O,
     "adopt($self, number, /)\n--\n\n"
     "A Pid for a pid that was in use when this allocator was copied, unpickled or made from a dict.\n\n"
     "The Pids of the original give back to the original.\n\n"
     "Parameters\n----------\nnumber : int\n\n"
     "Returns\n-------\nPid\n\n"
     "Raises\n------\nNeverAllocated\n    It is not in use, or has a Pid already."},
    {"to_numpy", allocator_numpy, METH_NOARGS,
     "to_numpy($self, /)\n--\n\nThe pids in use, in order, as a read-only numpy array of uint32."},
    CONTENTS_METHODS(allocator, "PidAllocator"),
    {"__sizeof__", allocator_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot allocator_slots[] = {
    {Py_tp_doc, "PidAllocator(order)\n--\n\n"
                "Hands out ``order * 64`` numbers from 0 on, the smallest free one first. Thread-safe.\n\n"
                "After the pid-allocator crate: words of 64 pids under summary words, so that allocation looks at one\n"
                "word per layer: two layers up to order 64, three up to 4096.\n\n"
                "Iterating gives the numbers in use, in order. It can be copied and pickled; see adopt().\n\n"
                "Parameters\n----------\n"
                "order : int\n    ``1 <= order <= 2**26``.\n\n"
                "Raises\n------\n"
                "InvalidSize\n    It is not like that."},
    {Py_tp_new, SLOT(allocator_make)},
    {Py_tp_dealloc, SLOT(allocator_dealloc)},
    {Py_tp_repr, SLOT(allocator_repr)},
    {Py_tp_iter, SLOT(allocator_iterate)},
    {Py_sq_contains, SLOT(allocator_has)},
    {Py_tp_members, allocator_members},
    {Py_tp_getset, allocator_getters},
    {Py_tp_methods, allocator_methods},
    {0, NULL},
};

PyType_Spec pid_allocator_spec = {
    .name = "allocators.PidAllocator",
    .basicsize = sizeof(struct pid_allocator_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = allocator_slots,
};
