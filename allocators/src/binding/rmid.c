/* SPDX-License-Identifier: Apache-2.0
 *
 * RmidAllocator. Time comes from the caller, from the clock that was given, or from CLOCK_MONOTONIC.
 */
#include "binding.h"

#include <string.h>
#include <time.h>

#include "../rmid.h"

struct rmid_object {
    PyObject_HEAD
    struct module_state *state;
    PyObject            *clock; /* NULL: time.monotonic_ns, read without a call */
    struct al_rmid       core;
};

static int rmid_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT((PyObject *)Py_TYPE(object));
    Py_VISIT(((struct rmid_object *)object)->clock);
    return 0;
}

static int rmid_clear(PyObject *object)
{
    Py_CLEAR(((struct rmid_object *)object)->clock);
    return 0;
}

static void rmid_dealloc(PyObject *object)
{
    PyObject_GC_UnTrack(object);
    (void)rmid_clear(object);
    object_free(object);
}

static PyObject *rmid_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"max_rmid", "min_free_time_ns", "clock", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *max_object, *rest_object = NULL, *clock = NULL;
    uint64_t max_rmid, rest_ns = AL_RMID_DEFAULT_REST_NS;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:RmidAllocator", names, &max_object, &rest_object, &clock))
        return NULL;
    int max_is = argument_u64(max_object, &max_rmid);
    if (max_is < 0)
        return NULL;
    if (max_is > 0 || max_rmid == 0 || max_rmid > AL_RMID_MAX)
        return raise_error(state, ERROR_InvalidRange, "max_rmid %S: want 1 <= max_rmid <= %u", max_object, AL_RMID_MAX);
    int rest_is = rest_object == NULL ? 0 : argument_u64(rest_object, &rest_ns);
    if (rest_is > 0)
        raise_error(state, ERROR_OutOfRange, "min_free_time_ns %S does not lie within 0..2**64 - 1", rest_object);
    if (rest_is != 0)
        return NULL;
    if (clock != NULL && !PyCallable_Check(clock)) {
        PyErr_Format(PyExc_TypeError, "clock %R cannot be called: want a function that gives nanoseconds", clock);
        return NULL;
    }
    struct rmid_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    self->state = state;
    Py_XINCREF(clock);
    self->clock = clock;
    (void)al_rmid_init(&self->core, (al_rmid_u32)max_rmid, rest_ns); /* checked */
    return (PyObject *)self;
}

/* Nanoseconds of the `now` argument, or of the clock. 0, or -1 with an exception set. Runs Python code. */
static int time_now(struct rmid_object *self, PyObject *now, uint64_t *now_ns)
{
    PyObject *read = NULL;

    if (now == NULL || now == Py_None) {
        if (self->clock == NULL) {
            struct timespec t;
            (void)clock_gettime(CLOCK_MONOTONIC, &t);
            *now_ns = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
            return 0;
        }
        now = read = PyObject_CallNoArgs(self->clock);
        if (read == NULL)
            return -1;
    }
    int is = argument_u64(now, now_ns);
    if (is > 0)
        raise_error(self->state, ERROR_OutOfRange, "time %S ns does not lie within 0..2**64 - 1", now);
    Py_XDECREF(read);
    return is == 0 ? 0 : -1;
}

static PyObject *rmid_alloc(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"now"};
    struct rmid_object *self = (struct rmid_object *)object;
    PyObject *now;
    uint64_t now_ns;
    al_rmid_u32 rmid = 0;
    int result;

    if (arguments_bind("alloc", names, 1, 0, args, nargs, kwnames, &now) != 0 || time_now(self, now, &now_ns) != 0)
        return NULL;
    OBJECT_LOCK(object);
    result = al_rmid_alloc(&self->core, now_ns, &rmid);
    OBJECT_UNLOCK();
    if (result == AL_RMID_CORRUPT)
        return raise_corrupt(self->state, "RmidAllocator", result);
    return PyLong_FromUnsignedLong(result == AL_RMID_OK ? rmid : 0);
}

static PyObject *rmid_free(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"rmid", "now"};
    struct rmid_object *self = (struct rmid_object *)object;
    PyObject *given[2];
    uint64_t rmid, now_ns;
    int result = AL_RMID_OUT_OF_RANGE;

    if (arguments_bind("free", names, 2, 1, args, nargs, kwnames, given) != 0)
        return NULL;
    int is = argument_u64(given[0], &rmid);
    if (is < 0 || time_now(self, given[1], &now_ns) != 0)
        return NULL;
    if (is == 0 && rmid <= UINT32_MAX) {
        OBJECT_LOCK(object);
        result = al_rmid_free(&self->core, (al_rmid_u32)rmid, now_ns);
        OBJECT_UNLOCK();
    }
    switch (result) {
    case AL_RMID_OK: Py_RETURN_NONE;
    case AL_RMID_OUT_OF_RANGE:
        return raise_error(self->state, ERROR_OutOfRange, "RMID %S is not one of 1..%u", given[0],
                           (unsigned)self->core.max_rmid);
    case AL_RMID_NEVER_ALLOCATED:
        return raise_error(self->state, ERROR_NeverAllocated, "RMID %S was never allocated, it cannot be freed",
                           given[0]);
    case AL_RMID_ALREADY_RELEASED:
        return raise_error(self->state, ERROR_AlreadyReleased, "RMID %S is free already, it was released before",
                           given[0]);
    default: return raise_corrupt(self->state, "RmidAllocator", result);
    }
}

static PyObject *rmid_is_allocated(PyObject *object, PyObject *argument)
{
    struct rmid_object *self = (struct rmid_object *)object;
    uint64_t rmid;
    bool allocated;
    int is = argument_u64(argument, &rmid);

    if (is < 0)
        return NULL;
    OBJECT_LOCK(object);
    allocated = is == 0 && rmid <= UINT32_MAX && al_rmid_is_allocated(&self->core, (al_rmid_u32)rmid);
    OBJECT_UNLOCK();
    return PyBool_FromLong(allocated);
}

static PyObject *rmid_repr(PyObject *object)
{
    struct rmid_object *self = (struct rmid_object *)object;

    return PyUnicode_FromFormat("RmidAllocator(%u, min_free_time_ns=%llu)", (unsigned)self->core.max_rmid,
                                (unsigned long long)self->core.min_free_time_ns);
}

/* ---- contents ---- */

/* All of the core, of one moment. */
static void read_core(PyObject *object, struct al_rmid *out)
{
    OBJECT_LOCK(object);
    *out = ((struct rmid_object *)object)->core;
    OBJECT_UNLOCK();
}

static struct numbers collect(PyObject *object)
{
    struct numbers n = {PyMem_Malloc(AL_RMID_MAX * sizeof *n.at), 0};
    struct al_rmid *core = PyMem_Malloc(sizeof *core);

    if (n.at == NULL || core == NULL) {
        PyMem_Free(n.at);
        n.at = NULL;
    } else {
        read_core(object, core);
        for (uint32_t rmid = 1; rmid <= core->max_rmid; rmid++)
            if (al_rmid_is_allocated(core, rmid))
                n.at[n.count++] = rmid;
    }
    PyMem_Free(core);
    return n;
}

static PyObject *rmid_iterate(PyObject *object)
{
    struct numbers n = collect(object);

    return numbers_iterate(numbers_list(&n));
}

static PyObject *rmid_numpy(PyObject *object, PyObject *unused)
{
    struct numbers n = collect(object);
    (void)unused;

    return numbers_numpy(&n);
}

static int rmid_has(PyObject *object, PyObject *argument)
{
    PyObject *answer = rmid_is_allocated(object, argument);
    int has = answer == NULL ? -1 : answer == Py_True;

    Py_XDECREF(answer);
    return has;
}

static PyObject *own(PyTypeObject *type, const struct al_rmid *core, PyObject *clock)
{
    if (al_rmid_check(core, NULL, NULL) != 0)
        return contents_contradict("RmidAllocator", "its queue contradicts itself");
    struct rmid_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    self->state = PyType_GetModuleState(type);
    Py_XINCREF(clock);
    self->clock = clock;
    self->core = *core;
    return (PyObject *)self;
}

static PyObject *rmid_copy(PyObject *object, PyObject *unused)
{
    struct al_rmid *core = PyMem_Malloc(sizeof *core);
    (void)unused;

    if (core == NULL)
        return PyErr_NoMemory();
    read_core(object, core);
    PyObject *copy = own(Py_TYPE(object), core, ((struct rmid_object *)object)->clock);
    PyMem_Free(core);
    return copy;
}

static PyObject *rmid_from_core(PyObject *type, PyObject *args)
{
    const char *bytes;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "y#:_from_core", &bytes, &count))
        return NULL;
    if ((size_t)count < sizeof(struct al_rmid))
        return contents_contradict("RmidAllocator", "its memory is too short");
    struct al_rmid *core = PyMem_Malloc(sizeof *core);
    if (core == NULL)
        return PyErr_NoMemory();
    memcpy(core, bytes, sizeof *core);
    PyObject *self = own((PyTypeObject *)type, core, NULL);
    PyMem_Free(core);
    return self;
}

/* [[rmid, freed_ns], ...] in the order in which they will be given. */
static PyObject *queue(const struct al_rmid *core)
{
    PyObject *list = PyList_New(0);

    for (uint64_t t = core->head; list != NULL && t < core->tail; t++) {
        uint32_t rmid = core->ring[t & AL_RMID_MASK];
        PyObject *row = Py_BuildValue("[kK]", (unsigned long)rmid,
                                      (unsigned long long)core->freed_ns[al_rmid_slot(rmid)]);
        if (row == NULL || PyList_Append(list, row) != 0)
            Py_CLEAR(list);
        Py_XDECREF(row);
    }
    return list;
}

static PyObject *rmid_to_dict(PyObject *object, PyObject *unused)
{
    struct al_rmid *core = PyMem_Malloc(sizeof *core);
    PyObject *contents = core == NULL ? PyErr_NoMemory() : contents_new("RmidAllocator");
    (void)unused;

    if (contents != NULL) {
        read_core(object, core);
        if (contents_set(contents, "max_rmid", PyLong_FromUnsignedLong(core->max_rmid)) != 0 ||
            contents_set(contents, "min_free_time_ns", PyLong_FromUnsignedLongLong(core->min_free_time_ns)) != 0 ||
            contents_set(contents, "head", PyLong_FromUnsignedLongLong(core->head)) != 0 ||
            contents_set(contents, "queue", queue(core)) != 0 ||
            contents_set(contents, "latest_ns", PyLong_FromUnsignedLongLong(core->latest_ns)) != 0 ||
            contents_set(contents, "behind_ticket", PyLong_FromUnsignedLongLong(core->behind_ticket)) != 0 ||
            contents_set(contents, "behind_ns", PyLong_FromUnsignedLongLong(core->behind_ns)) != 0)
            Py_CLEAR(contents);
    }
    PyMem_Free(core);
    return contents;
}

/* Allocates all of a new core, and queues what is free. False: it cannot be; an exception may be set. */
static bool fill(struct al_rmid *core, PyObject *rows, uint64_t head)
{
    Py_ssize_t count = PyList_Size(rows);
    uint64_t row[2];

    if (count > (Py_ssize_t)core->max_rmid || head > UINT64_MAX / 2 || head + (uint64_t)count < core->max_rmid)
        return false;
    for (uint32_t rmid = 1; rmid <= core->max_rmid; rmid++)
        core->state[al_rmid_slot(rmid)] = AL_RMID_ALLOCATED;
    core->head = head;
    core->tail = head + (uint64_t)count;
    for (uint64_t t = head; t < core->tail; t++) {
        if (contents_row(rows, (Py_ssize_t)(t - head), 2, row) != 0 || row[0] > UINT32_MAX ||
            !al_rmid_is_allocated(core, (uint32_t)row[0]) || (t < core->max_rmid && row[0] != t + 1))
            return false; /* the first max_rmid tickets are of RMIDs never handed out, in order */
        core->state[al_rmid_slot((uint32_t)row[0])] = t;
        core->freed_ns[al_rmid_slot((uint32_t)row[0])] = row[1];
        core->ring[t & AL_RMID_MASK] = (uint32_t)row[0];
    }
    return true;
}

static PyObject *from_dict(PyTypeObject *type, PyObject *contents, PyObject *clock)
{
    uint64_t max_rmid, rest_ns, head, latest_ns, behind_ticket, behind_ns;

    if (!contents_are(contents, "RmidAllocator") || contents_u64(contents, "max_rmid", AL_RMID_MAX, &max_rmid) != 0 ||
        contents_u64(contents, "min_free_time_ns", UINT64_MAX, &rest_ns) != 0 ||
        contents_u64(contents, "head", UINT64_MAX, &head) != 0 ||
        contents_u64(contents, "latest_ns", UINT64_MAX, &latest_ns) != 0 ||
        contents_u64(contents, "behind_ticket", UINT64_MAX, &behind_ticket) != 0 ||
        contents_u64(contents, "behind_ns", UINT64_MAX, &behind_ns) != 0)
        return NULL;
    PyObject *rows = contents_rows(contents, "queue"), *self = NULL;
    struct al_rmid *core = PyMem_Malloc(sizeof *core);
    if (core == NULL)
        PyErr_NoMemory();
    if (rows != NULL && core != NULL) {
        memset(core, 0, sizeof *core);
        if (al_rmid_init(core, (al_rmid_u32)max_rmid, rest_ns) == AL_RMID_OK && fill(core, rows, head)) {
            core->latest_ns = latest_ns;
            core->behind_ticket = behind_ticket;
            core->behind_ns = behind_ns;
            self = own(type, core, clock);
        } else if (!PyErr_Occurred()) {
            contents_contradict("RmidAllocator", "an RMID of the queue is twice there, or none, or too few are");
        }
    }
    PyMem_Free(core);
    Py_XDECREF(rows);
    return self;
}

static PyObject *rmid_from_dict(PyObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"", "clock", NULL};
    PyObject *contents, *clock = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:from_dict", names, &contents, &clock))
        return NULL;
    if (clock != NULL && !PyCallable_Check(clock))
        return PyErr_Format(PyExc_TypeError, "clock %R cannot be called: want a function that gives nanoseconds",
                            clock);
    return from_dict((PyTypeObject *)type, contents, clock);
}

static PyObject *rmid_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    return contents_reduce(object, rmid_to_dict(object, NULL), ((struct rmid_object *)object)->clock);
}

static PyMemberDef members[] = {
    {"max_rmid", T_UINT, offsetof(struct rmid_object, core.max_rmid), READONLY, "The highest RMID."},
    {"min_free_time_ns", T_ULONGLONG, offsetof(struct rmid_object, core.min_free_time_ns), READONLY,
     "How long an RMID rests after it was freed, in nanoseconds."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef methods[] = {
    {"alloc", FAST(rmid_alloc), METH_FASTCALL | METH_KEYWORDS,
     "alloc($self, /, now=None)\n--\n\n"
     "Take the RMID that was freed first, once it has rested.\n\n"
     "Parameters\n----------\n"
     "now : int or None\n    Time in nanoseconds; None asks the clock.\n\n"
     "Returns\n-------\nint\n    0 when none is free, or when the first of them has not rested long enough."},
    {"free", FAST(rmid_free), METH_FASTCALL | METH_KEYWORDS,
     "free($self, /, rmid, now=None)\n--\n\n"
     "Give an RMID back; it rests from now on.\n\n"
     "Parameters\n----------\n"
     "rmid : int\n"
     "now : int or None\n    Time in nanoseconds; None asks the clock.\n\n"
     "Raises\n------\n"
     "OutOfRange, NeverAllocated, AlreadyReleased\n    Nothing was changed."},
    {"is_allocated", rmid_is_allocated, METH_O,
     "is_allocated($self, rmid, /)\n--\n\nWhether the RMID is handed out; False for one that does not exist."},
    {"to_numpy", rmid_numpy, METH_NOARGS,
     "to_numpy($self, /)\n--\n\nThe RMIDs that are handed out, in order, as a read-only numpy array of uint32."},
    {"to_dict", rmid_to_dict, METH_NOARGS,
     "to_dict($self, /)\n--\n\n"
     "All of it but the clock as a dict of plain values, for JSON and the like; from_dict() takes it.\n\n"
     "Times in it are those of the clock. After a start of the machine CLOCK_MONOTONIC is another one: what rests then\n"
     "begins its rest anew."},
    {"from_dict", FAST(rmid_from_dict), METH_VARARGS | METH_KEYWORDS | METH_CLASS,
     "from_dict($type, contents, /, clock=time.monotonic_ns)\n--\n\n"
     "A new one with what to_dict() gave.\n\n"
     "Raises\n------\nValueError\n    It is none of an RmidAllocator, or of a later version."},
    {"__copy__", rmid_copy, METH_NOARGS, NULL},
    {"__deepcopy__", rmid_copy, METH_O, NULL},
    {"__reduce__", rmid_reduce, METH_NOARGS, NULL},
    {"_from_core", rmid_from_core, METH_VARARGS | METH_CLASS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc,
     "RmidAllocator(max_rmid, min_free_time_ns=2_000_000, clock=time.monotonic_ns)\n--\n\n"
     "Hands out resource monitoring ids 1..max_rmid; first freed, first reused. Thread-safe.\n"
     "Iterating gives those that are handed out, in order. It can be copied, and pickled if its clock can.\n\n"
     "After the rmid_allocator of memory-collector. A freed RMID rests, so that what is still counted\n"
     "under it is not booked on its next user; one that was never used does not. The same core runs in\n"
     "BPF.\n\n"
     "Parameters\n----------\n"
     "max_rmid : int\n    ``1 <= max_rmid <= 1024``.\n"
     "min_free_time_ns : int\n    Nanoseconds of rest; where the clock went back, they count anew.\n"
     "clock : callable\n    Gives the time in nanoseconds, where alloc() and free() are not told.\n\n"
     "Raises\n------\n"
     "InvalidRange\n    max_rmid is not like that."},
    {Py_tp_new, SLOT(rmid_make)},
    {Py_tp_dealloc, SLOT(rmid_dealloc)},
    {Py_tp_traverse, SLOT(rmid_traverse)},
    {Py_tp_clear, SLOT(rmid_clear)},
    {Py_tp_repr, SLOT(rmid_repr)},
    {Py_tp_iter, SLOT(rmid_iterate)},
    {Py_sq_contains, SLOT(rmid_has)},
    {Py_tp_members, members},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec rmid_spec = {
    .name = "allocators.RmidAllocator",
    .basicsize = sizeof(struct rmid_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_HAVE_GC,
    .slots = type_slots,
};
