/* SPDX-License-Identifier: Apache-2.0
 *
 * IntervalTree, and AddressAllocator on top of it. Memory starts with a few nodes and doubles.
 */
#include "binding.h"

#include <string.h>

#define FIRST_CAPACITY 4u /* nodes; the journal of so few is most of the memory */
#define NODE_ALIGNMENT 64u

struct tree_object {
    PyObject_HEAD
    struct module_state *state;
    struct al_tree       core;
    void                *mem; /* the core's begins at the next multiple of NODE_ALIGNMENT */
    uint64_t             mem_bytes;
};

struct address_object {
    PyObject_HEAD
    struct tree_object *tree;
    uint64_t            base, end;
};

/* ---- memory ---- */

static void *aligned(void *mem)
{
    return (void *)(((uintptr_t)mem + NODE_ALIGNMENT - 1) & ~(uintptr_t)(NODE_ALIGNMENT - 1));
}

/* An empty core in new memory, or one with everything the old one has. */
static int tree_move(struct tree_object *self, uint32_t capacity, const struct al_tree *old)
{
    uint64_t bytes = al_tree_size_bytes(capacity);
    void *mem = bytes == 0 ? NULL : PyMem_Malloc(bytes + NODE_ALIGNMENT);
    struct al_tree core;

    if (mem == NULL)
        return AL_NO_MEMORY;
    int result = old == NULL ? al_tree_init(&core, aligned(mem), bytes, capacity)
                             : al_tree_grow(&core, aligned(mem), bytes, capacity, old);
    if (result != AL_OK) {
        PyMem_Free(mem);
        return result;
    }
    PyMem_Free(self->mem);
    self->core = core;
    self->mem = mem;
    self->mem_bytes = bytes + NODE_ALIGNMENT;
    return AL_OK;
}

static int tree_double(struct tree_object *self)
{
    return tree_move(self, self->core.capacity * 2, &self->core);
}

static struct tree_object *tree_make(struct module_state *state, uint64_t start, uint64_t end)
{
    struct tree_object *self = object_new(state->tree_type);

    if (self == NULL)
        return NULL;
    self->state = state;
    if (tree_move(self, FIRST_CAPACITY, NULL) != AL_OK) {
        Py_DECREF(self);
        return (struct tree_object *)PyErr_NoMemory();
    }
    (void)al_tree_insert(&self->core, start, end, AL_TREE_FREE, 0, NULL); /* into an empty tree */
    return self;
}

/* ---- what both classes do ---- */

/* The argument as a range; NULL with a TypeError set. */
static const struct range_object *range_argument(const struct module_state *state, PyObject *argument)
{
    if (Py_TYPE(argument) == state->range_type)
        return (const struct range_object *)argument;
    PyErr_Format(PyExc_TypeError, "want a RangeInclusive, not %R", argument);
    return NULL;
}

static PyObject *tree_allocate(struct tree_object *self, const struct al_tree_constraint *c)
{
    uint64_t start = 0;
    int result;

    OBJECT_LOCK(self);
    result = al_tree_alloc(&self->core, c, 0, &start);
    if (result == AL_NO_MEMORY && (result = tree_double(self)) == AL_OK)
        result = al_tree_alloc(&self->core, c, 0, &start);
    OBJECT_UNLOCK();
    if (result == AL_OK)
        return range_new(self->state, start, start + (c->size - 1));
    if (result == AL_NO_MEMORY)
        return PyErr_NoMemory();
    if (result != AL_NOT_AVAILABLE) /* the constraint was checked before */
        return raise_corrupt(self->state, "IntervalTree", result);
    if (c->policy == AL_TREE_EXACT)
        return raise_error(self->state, ERROR_ResourceNotAvailable,
                           "%s is not free, or not all of it may be allocated here",
                           range_text(c->exact, c->exact + (c->size - 1)).s);
    return raise_error(self->state, ERROR_ResourceNotAvailable,
                       "no free range within %s holds %s addresses from a multiple of %s on",
                       range_text(c->min, c->max).s, hex_text(c->size).s, hex_text(c->align).s);
}

static PyObject *tree_allocate_constraint(struct tree_object *self, PyObject *argument)
{
    if (Py_TYPE(argument) != self->state->constraint_type)
        return PyErr_Format(PyExc_TypeError, "want a Constraint, not %R", argument);
    return tree_allocate(self, &((struct constraint_object *)argument)->c);
}

static PyObject *tree_free_range(struct tree_object *self, PyObject *argument)
{
    const struct range_object *r = range_argument(self->state, argument);
    int result;

    if (r == NULL)
        return NULL;
    OBJECT_LOCK(self);
    result = al_tree_free(&self->core, r->start, r->end);
    OBJECT_UNLOCK();
    switch (result) {
    case AL_OK: Py_RETURN_NONE;
    case AL_NOT_AVAILABLE:
        return raise_error(self->state, ERROR_ResourceNotAvailable,
                           "%s was not allocated as one range, it cannot be freed as one",
                           range_text(r->start, r->end).s);
    case AL_INVALID_TRANSITION:
        return raise_error(self->state, ERROR_InvalidStateTransition, "%s is free already",
                           range_text(r->start, r->end).s);
    default: return raise_corrupt(self->state, "IntervalTree", result);
    }
}

/* The nodes that overlap [start, end], or of them only those that are allocated, copied out of the tree. NULL: no
 * memory or a corrupt tree (then an exception is set); free it with PyMem_Free(). */
static struct al_tree_node *collect(struct tree_object *self, uint64_t start, uint64_t end, bool only_allocated,
                                    Py_ssize_t *count_out)
{
    struct al_tree_node *nodes = NULL;
    struct al_tree_iter it;
    Py_ssize_t count = 0, space = 0;
    int result;

    OBJECT_LOCK(self);
    result = al_tree_iterate(&self->core, start, end, &it);
    while (result == AL_OK) {
        if (count == space) {
            space = space == 0 ? 16 : space * 2;
            struct al_tree_node *more = PyMem_Realloc(nodes, (size_t)space * sizeof *nodes);
            if (more == NULL) {
                result = AL_NO_MEMORY;
                break;
            }
            nodes = more;
        }
        result = al_tree_next(&self->core, &it, &nodes[count]);
        count += result == AL_OK && !(only_allocated && nodes[count].state != AL_TREE_ALLOCATED);
    }
    OBJECT_UNLOCK();
    *count_out = count;
    if (result == AL_NOT_AVAILABLE)
        return nodes;
    PyMem_Free(nodes);
    if (result == AL_NO_MEMORY)
        PyErr_NoMemory();
    else
        raise_corrupt(self->state, "IntervalTree", result);
    return NULL;
}

static PyObject *node_object(const struct module_state *state, const struct al_tree_node *n)
{
    PyObject *range = range_new(state, n->start, n->end), *node;

    if (range == NULL)
        return NULL;
    node = PyObject_CallFunctionObjArgs(
        state->node_type, range, state->node_states[n->state == AL_TREE_FREE ? AL_TREE_FREE : AL_TREE_ALLOCATED], NULL);
    Py_DECREF(range);
    return node;
}

/* A list of Nodes, or of RangeInclusives only. */
static PyObject *list_of(struct tree_object *self, uint64_t start, uint64_t end, bool ranges)
{
    Py_ssize_t count;
    struct al_tree_node *nodes = collect(self, start, end, ranges, &count);
    PyObject *list = nodes == NULL ? NULL : PyList_New(count);

    for (Py_ssize_t i = 0; list != NULL && i < count; i++) {
        PyObject *item = ranges ? range_new(self->state, nodes[i].start, nodes[i].end)
                                : node_object(self->state, &nodes[i]);
        if (item == NULL)
            Py_CLEAR(list);
        else
            PyList_SetItem(list, i, item);
    }
    PyMem_Free(nodes);
    return list;
}

/* ---- contents ---- */

/* [start, end] of each as a read-only numpy array. */
static PyObject *numpy_table(struct tree_object *self)
{
    Py_ssize_t count;
    struct al_tree_node *nodes = collect(self, 0, UINT64_MAX, true, &count);

    if (nodes == NULL && PyErr_Occurred())
        return NULL;
    uint64_t *pairs = PyMem_Malloc(((size_t)count + 1) * 2 * sizeof *pairs);
    for (Py_ssize_t i = 0; pairs != NULL && i < count; i++) {
        pairs[2 * i] = nodes[i].start;
        pairs[2 * i + 1] = nodes[i].end;
    }
    PyMem_Free(nodes);
    PyObject *table = pairs == NULL ? PyErr_NoMemory() : numpy_of(pairs, (uint64_t)count * 2 * sizeof *pairs, "u8", 2);
    PyMem_Free(pairs);
    return table;
}

/* [[start, end], ...] of the nodes in this state. */
static PyObject *rows_of(const struct al_tree_node *nodes, Py_ssize_t count, unsigned state)
{
    PyObject *rows = PyList_New(0);

    for (Py_ssize_t i = 0; rows != NULL && i < count; i++) {
        if (nodes[i].state != state)
            continue;
        PyObject *row = Py_BuildValue("[KK]", (unsigned long long)nodes[i].start, (unsigned long long)nodes[i].end);
        if (row == NULL || PyList_Append(rows, row) != 0)
            Py_CLEAR(rows);
        Py_XDECREF(row);
    }
    return rows;
}

/* Adds "free" and "allocated" to the dict. 0; -1 with an exception set. */
static int add_rows(struct tree_object *self, PyObject *contents)
{
    Py_ssize_t count;
    struct al_tree_node *nodes = collect(self, 0, UINT64_MAX, false, &count);

    if (nodes == NULL && PyErr_Occurred())
        return -1;
    int failed = contents_set(contents, "free", rows_of(nodes, count, AL_TREE_FREE)) != 0 ||
                 contents_set(contents, "allocated", rows_of(nodes, count, AL_TREE_ALLOCATED)) != 0;
    PyMem_Free(nodes);
    return failed ? -1 : 0;
}

static int insert_growing(struct tree_object *self, uint64_t start, uint64_t end, uint32_t state)
{
    int result = al_tree_insert(&self->core, start, end, state, 0, NULL);

    if (result == AL_NO_MEMORY && (result = tree_double(self)) == AL_OK)
        result = al_tree_insert(&self->core, start, end, state, 0, NULL);
    return result;
}

/* Inserts the ranges of a dict's list. 0; -1 with an exception set. */
static int insert_rows(struct tree_object *self, PyObject *contents, const char *key, uint32_t state)
{
    PyObject *rows = contents_rows(contents, key);
    int failed = rows == NULL ? -1 : 0;
    uint64_t row[2];

    for (Py_ssize_t i = 0; failed == 0 && i < PyList_Size(rows); i++) {
        if ((failed = contents_row(rows, i, 2, row)) != 0)
            break;
        int result = insert_growing(self, row[0], row[1], state);
        if (result == AL_NO_MEMORY)
            PyErr_NoMemory();
        else if (result != AL_OK)
            contents_contradict("IntervalTree", "two of its ranges overlap, or one ends before it starts");
        failed = result == AL_OK ? 0 : -1;
    }
    Py_XDECREF(rows);
    return failed;
}

/* With everything another core has, or empty. */
static struct tree_object *tree_with(struct module_state *state, uint32_t capacity, const struct al_tree *old)
{
    struct tree_object *self = object_new(state->tree_type);
    int result = AL_OK;

    if (self == NULL)
        return NULL;
    self->state = state;
    result = tree_move(self, capacity, old);
    if (result == AL_OK)
        return self;
    Py_DECREF(self);
    return (struct tree_object *)(result == AL_NO_MEMORY ? PyErr_NoMemory()
                                                         : raise_corrupt(state, "IntervalTree", result));
}

static struct tree_object *tree_clone(struct tree_object *self)
{
    struct tree_object *copy;

    OBJECT_LOCK(self);
    copy = tree_with(self->state, self->core.capacity, &self->core);
    OBJECT_UNLOCK();
    return copy;
}

static struct tree_object *tree_of_rows(struct module_state *state, PyObject *contents)
{
    struct tree_object *self = tree_with(state, FIRST_CAPACITY, NULL);

    if (self != NULL && (insert_rows(self, contents, "free", AL_TREE_FREE) != 0 ||
                         insert_rows(self, contents, "allocated", AL_TREE_ALLOCATED) != 0))
        Py_CLEAR(self);
    return self;
}

/* From the bytes of a core elsewhere, which are checked. */
static struct tree_object *tree_of_core(struct module_state *state, const char *bytes, Py_ssize_t count)
{
    void *mem = PyMem_Malloc((size_t)count + NODE_ALIGNMENT);
    struct al_tree core;

    if (mem == NULL)
        return (struct tree_object *)PyErr_NoMemory();
    memcpy(aligned(mem), bytes, (size_t)count);
    struct tree_object *self = NULL;
    if (al_tree_attach(&core, aligned(mem), (uint64_t)count) == AL_OK && al_tree_check(&core, NULL, NULL) == 0)
        self = tree_with(state, core.capacity, &core);
    else
        contents_contradict("IntervalTree", "its nodes contradict each other");
    PyMem_Free(mem);
    return self;
}

static PyObject *tree_copy(PyObject *object, PyObject *unused)
{
    (void)unused;
    return (PyObject *)tree_clone((struct tree_object *)object);
}

static PyObject *tree_to_dict(PyObject *object, PyObject *unused)
{
    PyObject *contents = contents_new("IntervalTree");
    (void)unused;

    if (contents != NULL && add_rows((struct tree_object *)object, contents) != 0)
        Py_CLEAR(contents);
    return contents;
}

static PyObject *tree_from_dict(PyObject *type, PyObject *contents)
{
    if (!contents_are(contents, "IntervalTree"))
        return NULL;
    return (PyObject *)tree_of_rows(PyType_GetModuleState((PyTypeObject *)type), contents);
}

static PyObject *tree_from_core(PyObject *type, PyObject *args)
{
    const char *bytes;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "y#:_from_core", &bytes, &count))
        return NULL;
    return (PyObject *)tree_of_core(PyType_GetModuleState((PyTypeObject *)type), bytes, count);
}

static PyObject *tree_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    return contents_reduce(object, tree_to_dict(object, NULL), NULL);
}

/* ---- IntervalTree ---- */

static PyObject *tree_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"range", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *argument;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:IntervalTree", names, &argument))
        return NULL;
    const struct range_object *r = range_argument(state, argument);
    return r == NULL ? NULL : (PyObject *)tree_make(state, r->start, r->end);
}

static void tree_dealloc(PyObject *object)
{
    PyMem_Free(((struct tree_object *)object)->mem);
    object_free(object);
}

static PyObject *tree_insert(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"range", "state"};
    struct tree_object *self = (struct tree_object *)object;
    PyObject *given[2];
    struct al_tree_node other = {0};
    int result;

    if (arguments_bind("insert", names, 2, 2, args, nargs, kwnames, given) != 0)
        return NULL;
    const struct range_object *r = range_argument(self->state, given[0]);
    if (r == NULL)
        return NULL;
    uint32_t state = given[1] == self->state->node_states[AL_TREE_FREE] ? AL_TREE_FREE : AL_TREE_ALLOCATED;
    if (given[1] != self->state->node_states[state])
        return PyErr_Format(PyExc_TypeError, "state %R is none: want NodeState.FREE or NodeState.ALLOCATED", given[1]);
    OBJECT_LOCK(self);
    result = al_tree_insert(&self->core, r->start, r->end, state, 0, &other);
    if (result == AL_NO_MEMORY && (result = tree_double(self)) == AL_OK)
        result = al_tree_insert(&self->core, r->start, r->end, state, 0, &other);
    OBJECT_UNLOCK();
    switch (result) {
    case AL_OK: Py_RETURN_NONE;
    case AL_OVERLAP:
        return raise_error(self->state, ERROR_Overlap, "%s overlaps %s, which is in the tree",
                           range_text(r->start, r->end).s, range_text(other.start, other.end).s);
    case AL_NO_MEMORY: return PyErr_NoMemory();
    default:           return raise_corrupt(self->state, "IntervalTree", result);
    }
}

static PyObject *tree_delete(PyObject *object, PyObject *argument)
{
    struct tree_object *self = (struct tree_object *)object;
    const struct range_object *r = range_argument(self->state, argument);
    int result;

    if (r == NULL)
        return NULL;
    OBJECT_LOCK(self);
    result = al_tree_delete(&self->core, r->start, r->end);
    OBJECT_UNLOCK();
    if (result == AL_OK)
        Py_RETURN_NONE;
    if (result != AL_NOT_AVAILABLE)
        return raise_corrupt(self->state, "IntervalTree", result);
    return raise_error(self->state, ERROR_ResourceNotAvailable, "%s is not in the tree",
                       range_text(r->start, r->end).s);
}

static PyObject *tree_find(PyObject *object, PyObject *argument, bool superset)
{
    struct tree_object *self = (struct tree_object *)object;
    const struct range_object *r = range_argument(self->state, argument);
    struct al_tree_node n = {0};
    int result;

    if (r == NULL)
        return NULL;
    OBJECT_LOCK(self);
    result = superset ? al_tree_superset(&self->core, r->start, r->end, &n)
                      : al_tree_search(&self->core, r->start, r->end, &n);
    OBJECT_UNLOCK();
    if (result == AL_OK)
        return node_object(self->state, &n);
    if (result != AL_NOT_AVAILABLE)
        return raise_corrupt(self->state, "IntervalTree", result);
    Py_RETURN_NONE;
}

static PyObject *tree_search(PyObject *object, PyObject *argument)
{
    return tree_find(object, argument, false);
}

static PyObject *tree_superset(PyObject *object, PyObject *argument)
{
    return tree_find(object, argument, true);
}

static PyObject *tree_overlapping(PyObject *object, PyObject *argument)
{
    struct tree_object *self = (struct tree_object *)object;
    const struct range_object *r = range_argument(self->state, argument);

    return r == NULL ? NULL : list_of(self, r->start, r->end, false);
}

static PyObject *tree_nodes(PyObject *object, PyObject *unused)
{
    (void)unused;
    return list_of((struct tree_object *)object, 0, UINT64_MAX, false);
}

static PyObject *tree_allocate_method(PyObject *object, PyObject *argument)
{
    return tree_allocate_constraint((struct tree_object *)object, argument);
}

static PyObject *tree_free_method(PyObject *object, PyObject *argument)
{
    return tree_free_range((struct tree_object *)object, argument);
}

static PyObject *tree_height(PyObject *object, void *closure)
{
    uint32_t height;
    (void)closure;

    OBJECT_LOCK(object);
    height = al_tree_height(&((struct tree_object *)object)->core);
    OBJECT_UNLOCK();
    return PyLong_FromUnsignedLong(height);
}

static PyObject *tree_sizeof(PyObject *object, PyObject *unused)
{
    uint64_t mem_bytes;
    (void)unused;

    OBJECT_LOCK(object);
    mem_bytes = ((struct tree_object *)object)->mem_bytes;
    OBJECT_UNLOCK();
    return PyLong_FromUnsignedLongLong(sizeof(struct tree_object) + mem_bytes);
}

static PyObject *tree_repr(PyObject *object)
{
    struct tree_object *self = (struct tree_object *)object;
    uint32_t used, allocated;

    OBJECT_LOCK(object);
    used = al_tree_used_count(&self->core);
    allocated = al_tree_allocated_count(&self->core);
    OBJECT_UNLOCK();
    return PyUnicode_FromFormat("<IntervalTree: %u ranges, %u of them allocated>", (unsigned)used, (unsigned)allocated);
}

static PyGetSetDef tree_getters[] = {
    {"height", tree_height, NULL, "Nodes on the longest way down; 0 when the tree is empty.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMethodDef tree_methods[] = {
    {"insert", FAST(tree_insert), METH_FASTCALL | METH_KEYWORDS,
     "insert($self, /, range, state)\n--\n\n"
     "Add a range, free or allocated. It is not merged with its neighbours.\n\n"
     "Raises\n------\nOverlap\n    An address of it is in the tree already."},
    {"allocate", tree_allocate_method, METH_O,
     "allocate($self, constraint, /)\n--\n\n"
     "Allocate part of a free range; what is left of it stays free.\n\n"
     "Returns\n-------\nRangeInclusive\n\n"
     "Raises\n------\nResourceNotAvailable\n    Nothing free fits."},
    {"free", tree_free_method, METH_O,
     "free($self, range, /)\n--\n\n"
     "Make an allocated range free and merge it with free neighbours.\n\n"
     "Raises\n------\n"
     "InvalidStateTransition\n    It is free already.\n"
     "ResourceNotAvailable\n    There is no such range. Nothing was changed."},
    {"delete", tree_delete, METH_O,
     "delete($self, range, /)\n--\n\n"
     "Take a range out of the tree, free or allocated.\n\n"
     "Raises\n------\nResourceNotAvailable\n    There is no such range."},
    {"search", tree_search, METH_O, "search($self, range, /)\n--\n\nThe Node with exactly this range, or None."},
    {"search_superset", tree_superset, METH_O,
     "search_superset($self, range, /)\n--\n\nThe Node whose range contains this one, or None."},
    {"overlapping", tree_overlapping, METH_O,
     "overlapping($self, range, /)\n--\n\nA list of the Nodes that overlap this range, in order. O(log n + m) for m."},
    {"nodes", tree_nodes, METH_NOARGS, "nodes($self, /)\n--\n\nA list of all Nodes, in order."},
    CONTENTS_METHODS(tree, "IntervalTree"),
    {"__sizeof__", tree_sizeof, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot tree_slots[] = {
    {Py_tp_doc,
     "IntervalTree(range)\n--\n\n"
     "Ranges of addresses, each free or allocated, in a balanced tree. Thread-safe.\n\n"
     "An AVL tree (Adelson-Velsky and Landis 1962) ordered by start, each node of which knows the largest\n"
     "free range below it: the behaviour is that of rust-vmm's vm-allocator, the first and the last match\n"
     "take O(log n). Of up to ten alignments in use a node also knows the largest range they leave: searches\n"
     "with one that free ranges do not start at are slow only until it is one of those.\n\n"
     "Legal transitions: none -> FREE or ALLOCATED by insert(), FREE -> ALLOCATED by allocate(),\n"
     "ALLOCATED -> FREE by free(), any -> none by delete().\n\n"
     "Parameters\n----------\n"
     "range : RangeInclusive\n    The first node, free."},
    {Py_tp_new, SLOT(tree_new)},
    {Py_tp_dealloc, SLOT(tree_dealloc)},
    {Py_tp_repr, SLOT(tree_repr)},
    {Py_tp_getset, tree_getters},
    {Py_tp_methods, tree_methods},
    {0, NULL},
};

PyType_Spec tree_spec = {
    .name = "allocators.IntervalTree",
    .basicsize = sizeof(struct tree_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tree_slots,
};

/* ---- AddressAllocator ---- */

static PyObject *address_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"base", "size", NULL};
    struct module_state *state = PyType_GetModuleState(type);
    PyObject *base_object, *size_object;
    uint64_t base, size;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "OO:AddressAllocator", names, &base_object, &size_object))
        return NULL;
    int base_is = argument_u64(base_object, &base), size_is = base_is < 0 ? -1 : argument_u64(size_object, &size);
    if (size_is < 0)
        return NULL;
    if (base_is == 1)
        return raise_error(state, ERROR_InvalidRange, "base %S is below 0", base_object);
    if (size_is == 1 || (size_is == 0 && size == 0))
        return raise_error(state, ERROR_Underflow, "size %S: want at least 1", size_object);
    if (base_is == 2 || size_is == 2 || base > UINT64_MAX - (size - 1))
        return raise_error(state, ERROR_Overflow, "base %S with size %S would end after 2**64 - 1", base_object,
                           size_object);
    struct address_object *self = object_new(type);
    if (self == NULL)
        return NULL;
    self->base = base;
    self->end = base + (size - 1);
    self->tree = tree_make(state, self->base, self->end);
    if (self->tree == NULL) {
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void address_dealloc(PyObject *object)
{
    Py_XDECREF((PyObject *)((struct address_object *)object)->tree);
    object_free(object);
}

static PyObject *address_allocate(PyObject *object, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const char *const names[] = {"size", "alignment", "policy"};
    struct tree_object *tree = ((struct address_object *)object)->tree;
    PyObject *given[3];
    struct al_tree_constraint c;

    if (arguments_bind("allocate", names, 3, 1, args, nargs, kwnames, given) != 0 ||
        constraint_set(tree->state, &c, given[0], given[1], given[2], NULL, NULL) != 0)
        return NULL;
    return tree_allocate(tree, &c);
}

static PyObject *address_allocate_constraint(PyObject *object, PyObject *argument)
{
    return tree_allocate_constraint(((struct address_object *)object)->tree, argument);
}

static PyObject *address_free(PyObject *object, PyObject *argument)
{
    return tree_free_range(((struct address_object *)object)->tree, argument);
}

static PyObject *address_ranges(PyObject *object, PyObject *unused)
{
    (void)unused;
    return list_of(((struct address_object *)object)->tree, 0, UINT64_MAX, true);
}

static PyObject *address_iterate(PyObject *object)
{
    return numbers_iterate(address_ranges(object, NULL));
}

static PyObject *address_numpy(PyObject *object, PyObject *unused)
{
    (void)unused;
    return numpy_table(((struct address_object *)object)->tree);
}

/* With this tree, which goes over to it; NULL: an exception is set. */
static PyObject *address_with(PyTypeObject *type, uint64_t base, uint64_t end, struct tree_object *tree)
{
    struct address_object *self = tree == NULL ? NULL : object_new(type);

    if (self == NULL) {
        Py_XDECREF((PyObject *)tree);
        return NULL;
    }
    self->base = base;
    self->end = end;
    self->tree = tree;
    return (PyObject *)self;
}

static PyObject *address_copy(PyObject *object, PyObject *unused)
{
    struct address_object *self = (struct address_object *)object;
    (void)unused;

    return address_with(Py_TYPE(object), self->base, self->end, tree_clone(self->tree));
}

static PyObject *address_to_dict(PyObject *object, PyObject *unused)
{
    struct address_object *self = (struct address_object *)object;
    PyObject *contents = contents_new("AddressAllocator");
    (void)unused;

    if (contents != NULL && (contents_set(contents, "base", PyLong_FromUnsignedLongLong(self->base)) != 0 ||
                             contents_set(contents, "end", PyLong_FromUnsignedLongLong(self->end)) != 0 ||
                             add_rows(self->tree, contents) != 0))
        Py_CLEAR(contents);
    return contents;
}

static PyObject *address_from_dict(PyObject *type, PyObject *contents)
{
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    uint64_t base, end;

    if (!contents_are(contents, "AddressAllocator") || contents_u64(contents, "base", UINT64_MAX, &base) != 0 ||
        contents_u64(contents, "end", UINT64_MAX, &end) != 0)
        return NULL;
    if (base > end)
        return contents_contradict("AddressAllocator", "it ends before its base");
    return address_with((PyTypeObject *)type, base, end, tree_of_rows(state, contents));
}

static PyObject *address_from_core(PyObject *type, PyObject *args)
{
    unsigned long long base, end;
    const char *bytes;
    Py_ssize_t count;

    if (!PyArg_ParseTuple(args, "KKy#:_from_core", &base, &end, &bytes, &count))
        return NULL;
    struct module_state *state = PyType_GetModuleState((PyTypeObject *)type);
    return address_with((PyTypeObject *)type, base, end, tree_of_core(state, bytes, count));
}

static PyObject *address_reduce(PyObject *object, PyObject *unused)
{
    (void)unused;
    return contents_reduce(object, address_to_dict(object, NULL), NULL);
}

static PyObject *address_repr(PyObject *object)
{
    struct address_object *self = (struct address_object *)object;

    return PyUnicode_FromFormat("AddressAllocator(%s, %s)", hex_text(self->base).s,
                                hex_text(self->end - self->base + 1).s);
}

static PyMemberDef address_members[] = {
    {"base", T_ULONGLONG, offsetof(struct address_object, base), READONLY, "First address managed."},
    {"end", T_ULONGLONG, offsetof(struct address_object, end), READONLY, "Last address managed, included."},
    {"tree", T_OBJECT_EX, offsetof(struct address_object, tree), READONLY,
     "The IntervalTree beneath. What changes it changes this allocator."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef address_methods[] = {
    {"allocate", FAST(address_allocate), METH_FASTCALL | METH_KEYWORDS,
     "allocate($self, /, size, alignment=4, policy=AllocPolicy.FIRST_MATCH)\n--\n\n"
     "Allocate a range of addresses.\n\n"
     "Parameters\n----------\n"
     "size : int\n    Addresses, at least 1.\n"
     "alignment : int\n    Power of two; the start is a multiple of it.\n"
     "policy : AllocPolicy\n    The lowest place, the highest one, or exactly one.\n\n"
     "Returns\n-------\nRangeInclusive\n\n"
     "Raises\n------\n"
     "InvalidSize, InvalidAlignment, UnalignedAddress, Overflow\n    As Constraint raises them.\n"
     "ResourceNotAvailable\n    Nothing free fits."},
    {"allocate_constraint", address_allocate_constraint, METH_O,
     "allocate_constraint($self, constraint, /)\n--\n\n"
     "Allocate a range as the Constraint says.\n\n"
     "Returns\n-------\nRangeInclusive\n\n"
     "Raises\n------\nResourceNotAvailable\n    Nothing free fits."},
    {"free", address_free, METH_O,
     "free($self, range, /)\n--\n\n"
     "Give back a range, as allocate() returned it.\n\n"
     "Raises\n------\n"
     "InvalidStateTransition\n    It is free already.\n"
     "ResourceNotAvailable\n    It was not allocated as one range. Nothing was changed."},
    {"ranges", address_ranges, METH_NOARGS,
     "ranges($self, /)\n--\n\nA list of the ranges that are allocated, in order."},
    {"to_numpy", address_numpy, METH_NOARGS,
     "to_numpy($self, /)\n--\n\n"
     "The ranges that are allocated, in order, as a read-only numpy array of uint64.\n\n"
     "Returns\n-------\nnumpy.ndarray\n    Of shape (ranges, 2): first and last address, both included."},
    CONTENTS_METHODS(address, "AddressAllocator"),
    {NULL, NULL, 0, NULL},
};

static PyType_Slot address_slots[] = {
    {Py_tp_doc,
     "AddressAllocator(base, size)\n--\n\n"
     "Allocates ranges of an address space, after rust-vmm's vm-allocator. Thread-safe.\n\n"
     "Costs and worst case: see IntervalTree. Iterating gives the ranges that are allocated, in order. It can\n"
     "be copied and pickled.\n\n"
     "Parameters\n----------\n"
     "base : int\n    First address.\n"
     "size : int\n    Addresses; the last one, ``base + size - 1``, is below ``2**64``.\n\n"
     "Raises\n------\n"
     "Underflow\n    The size is 0.\n"
     "Overflow\n    The last address is not below ``2**64``.\n"
     "InvalidRange\n    The base is negative."},
    {Py_tp_new, SLOT(address_new)},
    {Py_tp_dealloc, SLOT(address_dealloc)},
    {Py_tp_repr, SLOT(address_repr)},
    {Py_tp_iter, SLOT(address_iterate)},
    {Py_tp_members, address_members},
    {Py_tp_methods, address_methods},
    {0, NULL},
};

PyType_Spec address_spec = {
    .name = "allocators.AddressAllocator",
    .basicsize = sizeof(struct address_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = address_slots,
};
