/* SPDX-License-Identifier: Apache-2.0
 *
 * Constraint: what an allocation asks for; and Policy, the base of allocators.AllocPolicy. Both immutable.
 */
#include "binding.h"

#include <stdio.h>

/* ---- Policy ---- */

static PyObject *policy_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"kind", "address", NULL};
    unsigned int kind;
    unsigned long long address = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "I|K:AllocPolicy", names, &kind, &address))
        return NULL;
    if (kind > AL_TREE_EXACT) {
        PyErr_Format(PyExc_ValueError, "policy kind %u is none of 0 (first), 1 (last), 2 (exact)", kind);
        return NULL;
    }
    struct policy_object *p = object_new(type);
    if (p == NULL)
        return NULL;
    p->kind = kind;
    p->exact = kind == AL_TREE_EXACT ? address : 0;
    return (PyObject *)p;
}

static void policy_dealloc(PyObject *self)
{
    object_free(self);
}

static PyObject *policy_repr(PyObject *self)
{
    struct policy_object *p = (struct policy_object *)self;

    if (p->kind == AL_TREE_EXACT)
        return PyUnicode_FromFormat("AllocPolicy.exact(%s)", hex_text(p->exact).s);
    return PyUnicode_FromString(p->kind == AL_TREE_FIRST ? "AllocPolicy.FIRST_MATCH" : "AllocPolicy.LAST_MATCH");
}

static Py_hash_t policy_hash(PyObject *self)
{
    struct policy_object *p = (struct policy_object *)self;

    return (Py_hash_t)((p->exact * UINT64_C(0x9e3779b97f4a7c15) + p->kind) >> 1);
}

static PyObject *policy_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) != Py_TYPE(self) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    struct policy_object *a = (struct policy_object *)self, *b = (struct policy_object *)other;
    return PyBool_FromLong((a->kind == b->kind && a->exact == b->exact) == (op == Py_EQ));
}

static PyObject *policy_address(PyObject *self, void *closure)
{
    struct policy_object *p = (struct policy_object *)self;
    (void)closure;

    if (p->kind != AL_TREE_EXACT)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(p->exact);
}

static PyObject *policy_reduce(PyObject *self, PyObject *unused)
{
    struct policy_object *p = (struct policy_object *)self;
    (void)unused;

    return Py_BuildValue("O(IK)", (PyObject *)Py_TYPE(self), (unsigned int)p->kind, (unsigned long long)p->exact);
}

static PyGetSetDef policy_getters[] = {
    {"address", policy_address, NULL, "The address that exact() asks for; None for the other policies.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef policy_methods[] = {
    {"__reduce__", policy_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot policy_slots[] = {
    {Py_tp_doc, "Base of allocators.AllocPolicy."},
    {Py_tp_new, SLOT(policy_make)},
    {Py_tp_dealloc, SLOT(policy_dealloc)},
    {Py_tp_repr, SLOT(policy_repr)},
    {Py_tp_hash, SLOT(policy_hash)},
    {Py_tp_richcompare, SLOT(policy_compare)},
    {Py_tp_getset, policy_getters},
    {Py_tp_methods, policy_methods},
    {0, NULL},
};

PyType_Spec policy_spec = {
    .name = "allocators._core.Policy",
    .basicsize = sizeof(struct policy_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_BASETYPE,
    .slots = policy_slots,
};

/* ---- Constraint ---- */

/* One bound; NULL and None leave the default. */
static int set_bound(const struct module_state *state, const char *name, PyObject *value, uint64_t *bound)
{
    if (value == NULL || value == Py_None)
        return 0;
    int is = argument_u64(value, bound);
    if (is > 0)
        raise_error(state, ERROR_InvalidRange, "%s=%S does not lie within 0..2**64 - 1", name, value);
    return is == 0 ? 0 : -1;
}

static int check(const struct module_state *state, const struct al_tree_constraint *c)
{
    switch (al_tree_constraint_check(c)) {
    case AL_OK:           return 0;
    case AL_INVALID_SIZE: raise_error(state, ERROR_InvalidSize, "size 0: want at least 1"); break;
    case AL_INVALID_ALIGNMENT:
        raise_error(state, ERROR_InvalidAlignment, "alignment %llu is not a power of two",
                    (unsigned long long)c->align);
        break;
    case AL_UNALIGNED:
        raise_error(state, ERROR_UnalignedAddress, "exact address %s is no multiple of the alignment %s",
                    hex_text(c->exact).s, hex_text(c->align).s);
        break;
    case AL_OVERFLOW:
        raise_error(state, ERROR_Overflow, "exact address %s with size %s would end after 2**64 - 1",
                    hex_text(c->exact).s, hex_text(c->size).s);
        break;
    default: raise_error(state, ERROR_InvalidRange, "min %s is above max %s", hex_text(c->min).s, hex_text(c->max).s);
    }
    return -1;
}

int constraint_set(const struct module_state *state, struct al_tree_constraint *c, PyObject *size, PyObject *align,
                   PyObject *policy, PyObject *min, PyObject *max)
{
    *c = (struct al_tree_constraint){.align = 4, .max = UINT64_MAX, .policy = AL_TREE_FIRST};
    int size_is = argument_u64(size, &c->size);
    if (size_is > 0)
        raise_error(state, ERROR_InvalidSize, "size %S does not lie within 1..2**64 - 1", size);
    if (size_is != 0)
        return -1;
    int align_is = align == NULL ? 0 : argument_u64(align, &c->align);
    if (align_is > 0)
        raise_error(state, ERROR_InvalidAlignment, "alignment %S is not a power of two below 2**64", align);
    if (align_is != 0)
        return -1;
    if (policy != NULL) {
        int is_policy = PyObject_IsInstance(policy, (PyObject *)state->policy_type);
        if (is_policy == 0)
            PyErr_Format(PyExc_TypeError,
                         "policy %R is none: want AllocPolicy.FIRST_MATCH, .LAST_MATCH or "
                         ".exact(address)",
                         policy);
        if (is_policy <= 0)
            return -1;
        c->policy = ((struct policy_object *)policy)->kind;
        c->exact = ((struct policy_object *)policy)->exact;
    }
    if (set_bound(state, "min", min, &c->min) != 0 || set_bound(state, "max", max, &c->max) != 0)
        return -1;
    return check(state, c);
}

static PyObject *constraint_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"size", "align", "policy", "min", "max", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *size, *align = NULL, *policy = NULL, *min = NULL, *max = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOO:Constraint", names, &size, &align, &policy, &min, &max))
        return NULL;
    struct constraint_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    if (constraint_set(state, &self->c, size, align, policy, min, max) != 0) {
        Py_DECREF(self);
        return NULL;
    }
    Py_XINCREF(policy);
    self->policy = policy;
    return (PyObject *)self;
}

static void constraint_dealloc(PyObject *self)
{
    Py_XDECREF(((struct constraint_object *)self)->policy);
    object_free(self);
}

static PyObject *constraint_policy(PyObject *self, void *closure)
{
    PyObject *policy = ((struct constraint_object *)self)->policy;
    (void)closure;

    if (policy != NULL) {
        Py_INCREF(policy);
        return policy;
    }
    PyObject *module = PyImport_ImportModule("allocators.policy");
    PyObject *class = module == NULL ? NULL : PyObject_GetAttrString(module, "AllocPolicy");
    policy = class == NULL ? NULL : PyObject_GetAttrString(class, "FIRST_MATCH");
    Py_XDECREF(class);
    Py_XDECREF(module);
    return policy;
}

static PyObject *constraint_repr(PyObject *self)
{
    struct constraint_object *o = (struct constraint_object *)self;
    PyObject *policy = constraint_policy(self, NULL);

    if (policy == NULL)
        return NULL;
    PyObject *text = PyUnicode_FromFormat("Constraint(%s, align=%s, policy=%R, min=%s, max=%s)", hex_text(o->c.size).s,
                                          hex_text(o->c.align).s, policy, hex_text(o->c.min).s, hex_text(o->c.max).s);
    Py_DECREF(policy);
    return text;
}

static PyObject *constraint_compare(PyObject *self, PyObject *other, int op)
{
    if (Py_TYPE(other) != Py_TYPE(self) || (op != Py_EQ && op != Py_NE))
        Py_RETURN_NOTIMPLEMENTED;
    const struct al_tree_constraint *a = &((struct constraint_object *)self)->c;
    const struct al_tree_constraint *b = &((struct constraint_object *)other)->c;
    bool equal = a->size == b->size && a->align == b->align && a->min == b->min && a->max == b->max &&
                 a->exact == b->exact && a->policy == b->policy;
    return PyBool_FromLong(equal == (op == Py_EQ));
}

static Py_hash_t constraint_hash(PyObject *self)
{
    const struct al_tree_constraint *c = &((struct constraint_object *)self)->c;
    uint64_t fields[] = {c->size, c->align, c->min, c->max, c->exact, c->policy};
    uint64_t h = 0;

    for (unsigned i = 0; i < sizeof fields / sizeof *fields; i++)
        h = (h ^ fields[i]) * UINT64_C(0x9e3779b97f4a7c15) + (h >> 29);
    return (Py_hash_t)(h >> 1);
}

static PyObject *constraint_reduce(PyObject *self, PyObject *unused)
{
    const struct al_tree_constraint *c = &((struct constraint_object *)self)->c;
    PyObject *policy = constraint_policy(self, NULL);
    (void)unused;

    if (policy == NULL)
        return NULL;
    return Py_BuildValue("O(KKNKK)", (PyObject *)Py_TYPE(self), (unsigned long long)c->size,
                         (unsigned long long)c->align, policy, (unsigned long long)c->min, (unsigned long long)c->max);
}

static PyMemberDef constraint_members[] = {
    {"size", T_ULONGLONG, offsetof(struct constraint_object, c.size), READONLY, "Addresses to allocate."},
    {"align", T_ULONGLONG, offsetof(struct constraint_object, c.align), READONLY,
     "The start is a multiple of this power of two."},
    {"min", T_ULONGLONG, offsetof(struct constraint_object, c.min), READONLY, "Lowest address allowed."},
    {"max", T_ULONGLONG, offsetof(struct constraint_object, c.max), READONLY, "Highest address allowed."},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef constraint_getters[] = {
    {"policy", constraint_policy, NULL, "The AllocPolicy.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef constraint_methods[] = {
    {"__reduce__", constraint_reduce, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot constraint_slots[] = {
    {Py_tp_doc, "Constraint(size, align=4, policy=AllocPolicy.FIRST_MATCH, min=None, max=None)\n--\n\n"
                "What an allocation asks for. Immutable.\n\n"
                "Parameters\n----------\n"
                "size : int\n    Addresses, ``1 <= size < 2**64``.\n"
                "align : int\n    Power of two; the start is a multiple of it.\n"
                "policy : AllocPolicy\n    The lowest place, the highest one, or exactly one.\n"
                "min, max : int or None\n"
                "    The whole range lies within ``min..max``, both included; None is no bound.\n\n"
                "Raises\n------\n"
                "InvalidSize, InvalidAlignment, InvalidRange\n    Not such values, or ``min > max``.\n"
                "UnalignedAddress\n    The exact address is no multiple of `align`.\n"
                "Overflow\n    The exact range would end after ``2**64 - 1``."},
    {Py_tp_new, SLOT(constraint_make)},
    {Py_tp_dealloc, SLOT(constraint_dealloc)},
    {Py_tp_repr, SLOT(constraint_repr)},
    {Py_tp_hash, SLOT(constraint_hash)},
    {Py_tp_richcompare, SLOT(constraint_compare)},
    {Py_tp_members, constraint_members},
    {Py_tp_getset, constraint_getters},
    {Py_tp_methods, constraint_methods},
    {0, NULL},
};

PyType_Spec constraint_spec = {
    .name = "allocators.Constraint",
    .basicsize = sizeof(struct constraint_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = constraint_slots,
};
