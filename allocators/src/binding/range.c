/* SPDX-License-Identifier: Apache-2.0
 *
 * RangeInclusive: a closed range of u64, immutable.
 */
#include "binding.h"

#include <stdio.h>

struct text range_text(uint64_t start, uint64_t end)
{
    struct text t;

    (void)snprintf(t.s, sizeof t.s, "[0x%llx, 0x%llx]", (unsigned long long)start, (unsigned long long)end);
    return t;
}

struct text hex_text(uint64_t value)
{
    struct text t;

    (void)snprintf(t.s, sizeof t.s, "0x%llx", (unsigned long long)value);
    return t;
}

PyObject *range_new(const struct module_state *state, uint64_t start, uint64_t end)
{
    struct range_object *r = PyObject_New(struct range_object, state->range_type);

    if (r == NULL)
        return NULL;
    r->start = start;
    r->end = end;
    return (PyObject *)r;
}

static PyObject *range_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"start", "end", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *start_object, *end_object;
    uint64_t start, end;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:RangeInclusive", names, &start_object, &end_object))
        return NULL;
    int start_is = argument_u64(start_object, &start), end_is = start_is < 0 ? -1 : argument_u64(end_object, &end);
    if (end_is < 0)
        return NULL;
    if (start_is != 0 || end_is != 0)
        return raise_error(state, ERROR_InvalidRange, "range %S..%S does not lie within 0..2**64 - 1", start_object,
                           end_object);
    if (start > end)
        return raise_error(state, ERROR_InvalidRange, "range %s ends before it starts", range_text(start, end).s);
    if (start == 0 && end == UINT64_MAX)
        return raise_error(state, ERROR_InvalidRange,
                           "range %s is 2**64 long: lengths must fit into 64 bits, leave one address out",
                           range_text(start, end).s);
    return range_new(state, start, end);
}

static void range_dealloc(PyObject *self)
{
    object_free(self);
}

static PyObject *range_repr(PyObject *self)
{
    struct range_object *r = (struct range_object *)self;
    char text[80];

    (void)snprintf(text, sizeof text, "RangeInclusive(0x%llx, 0x%llx)", (unsigned long long)r->start,
                   (unsigned long long)r->end);
    return PyUnicode_FromString(text);
}

static Py_hash_t range_hash(PyObject *self)
{
    struct range_object *r = (struct range_object *)self;
    uint64_t h = r->start * UINT64_C(0x9e3779b97f4a7c15) ^ r->end * UINT64_C(0xbf58476d1ce4e5b9);

    h ^= h >> 32;
    return (Py_hash_t)h == -1 ? -2 : (Py_hash_t)h;
}

static PyObject *range_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) != Py_TYPE(self))
        Py_RETURN_NOTIMPLEMENTED;
    struct range_object *a = (struct range_object *)self, *b = (struct range_object *)other;
    int order = a->start != b->start ? (a->start < b->start ? -1 : 1) : (a->end > b->end) - (a->end < b->end);
    Py_RETURN_RICHCOMPARE(order, 0, op);
}

static int range_bool(PyObject *self)
{
    (void)self; /* never empty, whether or not its length fits len() */
    return 1;
}

static Py_ssize_t range_len(PyObject *self)
{
    struct range_object *r = (struct range_object *)self;

    if (r->end - r->start >= (uint64_t)PY_SSIZE_T_MAX) {
        PyErr_Format(PyExc_OverflowError, "%s is longer than len() can tell: use .length",
                     range_text(r->start, r->end).s);
        return -1;
    }
    return (Py_ssize_t)(r->end - r->start + 1);
}

static PyObject *range_length(PyObject *self, void *closure)
{
    struct range_object *r = (struct range_object *)self;
    (void)closure;

    if (r->end - r->start == UINT64_MAX) /* only a tree has it: two ranges merged on free */
        return PyLong_FromString("18446744073709551616", NULL, 10);
    return PyLong_FromUnsignedLongLong(r->end - r->start + 1);
}

/* The other range; NULL with a TypeError set when it is something else. */
static struct range_object *range_other(PyObject *self, PyObject *other)
{
    if (Py_TYPE(other) == Py_TYPE(self))
        return (struct range_object *)other;
    PyErr_Format(PyExc_TypeError, "want a RangeInclusive, not %R", other);
    return NULL;
}

static PyObject *range_overlaps(PyObject *self, PyObject *other)
{
    struct range_object *a = (struct range_object *)self, *b = range_other(self, other);

    return b == NULL ? NULL : PyBool_FromLong(a->start <= b->end && b->start <= a->end);
}

static PyObject *range_contains(PyObject *self, PyObject *other)
{
    struct range_object *a = (struct range_object *)self, *b = range_other(self, other);

    return b == NULL ? NULL : PyBool_FromLong(a->start <= b->start && b->end <= a->end);
}

static PyObject *range_reduce(PyObject *self, PyObject *unused)
{
    struct range_object *r = (struct range_object *)self;
    (void)unused;

    return Py_BuildValue("O(KK)", (PyObject *)Py_TYPE(self), (unsigned long long)r->start, (unsigned long long)r->end);
}

static PyMemberDef members[] = {
    {"start", T_ULONGLONG, offsetof(struct range_object, start), READONLY, "First address."},
    {"end", T_ULONGLONG, offsetof(struct range_object, end), READONLY, "Last address, included."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef getters[] = {
    {"length", range_length, NULL, "Addresses in the range, ``end - start + 1``; may be larger than len() can tell.",
     NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef methods[] = {
    {"overlaps", range_overlaps, METH_O,
     "overlaps($self, other, /)\n--\n\nWhether the two ranges have an address in common."},
    {"contains", range_contains, METH_O,
     "contains($self, other, /)\n--\n\nWhether every address of the other range is in this one."},
    {"__reduce__", range_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot type_slots[] = {
    {Py_tp_doc, "RangeInclusive(start, end)\n--\n\n"
                "A closed range of addresses; both ends belong to it.\n\n"
                "Ranges are immutable, hashable and ordered by start, then end.\n\n"
                "Parameters\n----------\n"
                "start, end : int\n"
                "    Addresses, ``0 <= start <= end < 2**64``; not all 2**64 of them, the length is a u64.\n\n"
                "Raises\n------\n"
                "InvalidRange\n"
                "    The ends are not like that."},
    {Py_tp_new, SLOT(range_make)},
    {Py_tp_dealloc, SLOT(range_dealloc)},
    {Py_tp_repr, SLOT(range_repr)},
    {Py_tp_hash, SLOT(range_hash)},
    {Py_tp_richcompare, SLOT(range_compare)},
    {Py_nb_bool, SLOT(range_bool)},
    {Py_mp_length, SLOT(range_len)},
    {Py_tp_members, members},
    {Py_tp_getset, getters},
    {Py_tp_methods, methods},
    {0, NULL},
};

PyType_Spec range_spec = {
    .name = "allocators.RangeInclusive",
    .basicsize = sizeof(struct range_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = type_slots,
};
