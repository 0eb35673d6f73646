/* SPDX-License-Identifier: Apache-2.0
 *
 * The extension module allocators._core: the C cores as Python objects in private memory. Error classes, NodeState and
 * AllocPolicy's constants are Python (allocators/errors.py, node.py, policy.py); everything on a hot path is here.
 *
 * Builds: with the GIL, the limited API of 3.11 (one abi3 file for all later versions); without it, the full API.
 *
 * Threads. With the GIL, the GIL guards everything: the cores never give it up. Without it, the critical section of
 * the object that owns the memory does (OBJECT_LOCK); AddressAllocator uses that of its tree, Pid that of its
 * allocator. No Python code runs and no object is made inside: results are copied out first.
 *
 * Ownership: a Pid holds its PidAllocator, an AddressAllocator its IntervalTree, an RmidAllocator its clock. Only the
 * last can be part of a cycle, so only it is known to the collector.
 */
#ifndef ALLOCATORS_BINDING_H
#define ALLOCATORS_BINDING_H

#include <pyconfig.h>
#if !defined(Py_GIL_DISABLED) && !defined(Py_LIMITED_API)
#define Py_LIMITED_API 0x030B0000
#endif
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <stdbool.h>
#include <stdint.h>

#include "../flat.h"
#include "../range_tree.h"
#include "exported.h"

#ifdef Py_GIL_DISABLED
#define OBJECT_LOCK(object) Py_BEGIN_CRITICAL_SECTION(object)
#define OBJECT_UNLOCK()     Py_END_CRITICAL_SECTION()
#else
#define OBJECT_LOCK(object) {
#define OBJECT_UNLOCK()     }
#endif

#define FAST(function) ((PyCFunction)(void (*)(void))(function)) /* METH_FASTCALL | METH_KEYWORDS */
#define SLOT(function) ((void *)(uintptr_t)(function))

/* ---- module state ------------------------------------------------------------------------------- */

/* The classes of allocators/errors.py that C raises. */
/* clang-format off */
#define ERROR_CLASSES(X)                                                                                               \
    X(Overflow) X(Underflow) X(OutOfRange) X(AlreadyReleased) X(NeverAllocated) X(ResourceNotAvailable)                \
    X(InvalidRange) X(InvalidAlignment) X(InvalidSize) X(Overlap) X(InvalidStateTransition) X(UnalignedAddress)        \
    X(CorruptionError)
/* clang-format on */
enum error_class {
#define X(name) ERROR_##name,
    ERROR_CLASSES(X)
#undef X
        ERROR_COUNT
};

struct module_state {
    PyTypeObject              *id_type, *pid_allocator_type, *pid_type, *tree_type, *address_type, *rmid_type;
    PyTypeObject              *range_type, *policy_type, *constraint_type;
    PyObject                  *errors[ERROR_COUNT];
    PyObject                  *node_type;                          /* allocators.node.Node */
    PyObject                  *node_states[AL_TREE_ALLOCATED + 1]; /* by enum al_tree_state; [0] is NULL */
    struct allocators_exported exported;
};

/* ---- errors (errors.c) -------------------------------------------------------------------------- */

/* Sets an exception of this class with this message. Always NULL. */
PyObject *raise_error(const struct module_state *state, enum error_class class, const char *format, ...);
/* For answers that no caller can cause: AL_CORRUPT, AL_UNFINISHED. Always NULL. */
PyObject *raise_corrupt(const struct module_state *state, const char *what, int code);

/* ---- arguments (arguments.c) -------------------------------------------------------------------- */

/* An integer as u64: 0; -1 with an exception set; 1: it is below 0; 2: above 2^64 - 1. */
int argument_u64(PyObject *value, uint64_t *out);

/* Sorts vectorcall arguments into out[count], by position or name; what was not given is NULL. 0, or -1 with a
 * TypeError set. */
int arguments_bind(const char *function, const char *const *names, Py_ssize_t count, Py_ssize_t required,
                   PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames, PyObject **out);

/* ---- objects ------------------------------------------------------------------------------------ */

/* A new object of a heap type, zeroed but for its header, and the end of one. Not for types the collector knows. */
void *object_new(PyTypeObject *type);
void object_free(PyObject *self);

struct range_object {
    PyObject_HEAD
    uint64_t start, end;
};

struct policy_object {
    PyObject_HEAD
    uint64_t exact;
    uint32_t kind; /* enum al_tree_policy */
};

struct constraint_object {
    PyObject_HEAD
    struct al_tree_constraint c;
    PyObject                 *policy;
};

/* range.c */
PyObject *range_new(const struct module_state *state, uint64_t start, uint64_t end);
/* "[0x1000, 0x1fff]" */
struct text { char s[64]; };
struct text range_text(uint64_t start, uint64_t end);
struct text hex_text(uint64_t value);

/* constraint.c: size, align and so on as Python gave them, NULL for the default. 0, or -1 with an exception set. */
int constraint_set(const struct module_state *state, struct al_tree_constraint *c, PyObject *size, PyObject *align,
                   PyObject *policy, PyObject *min, PyObject *max);

/* ---- contents as plain Python (contents.c) -------------------------------------------------------- */

/* Numbers in order, of PyMem_Malloc; `at` is NULL where there was no memory. Whoever is given them frees them. */
struct numbers {
    uint32_t *at;
    uint64_t  count;
};
PyObject *numbers_list(struct numbers *n);
PyObject *numbers_iterate(PyObject *list); /* of a list, which it keeps */
PyObject *numbers_runs(struct numbers *n); /* [[first, last], ...] */
PyObject *numbers_numpy(struct numbers *n);
/* A read-only array with a copy of these bytes; rows of `columns`, where there is more than one. */
PyObject *numpy_of(const void *at, uint64_t bytes, const char *dtype, int columns);

/* {"kind": ..., "version": ...}; and one more entry, whose value goes over to it (NULL: an exception is set). */
PyObject *contents_new(const char *kind);
int contents_set(PyObject *contents, const char *key, PyObject *value);
/* What the caller gave from_dict(): false, NULL or -1 with an exception set where it cannot be. */
bool contents_are(PyObject *contents, const char *kind);
int contents_u64(PyObject *contents, const char *key, uint64_t most, uint64_t *out);
PyObject *contents_rows(PyObject *contents, const char *key); /* a list, a new reference */
int contents_row(PyObject *rows, Py_ssize_t index, int columns, uint64_t *out);
PyObject *contents_contradict(const char *kind, const char *why); /* NULL */
/* (type.from_dict, (contents[, more])), for __reduce__; `contents` goes over to it. */
PyObject *contents_reduce(PyObject *object, PyObject *contents, PyObject *more);

#define CONTENTS_METHODS(prefix, class)                                                                             \
    {"to_dict", prefix##_to_dict, METH_NOARGS,                                                                      \
     "to_dict($self, /)\n--\n\nAll of it as a dict of plain values, for JSON and the like; from_dict() takes it."}, \
        {"from_dict", prefix##_from_dict, METH_O | METH_CLASS,                                                      \
         "from_dict($type, contents, /)\n--\n\n"                                                                    \
         "A new one with what to_dict() gave.\n\n"                                                                  \
         "Raises\n------\nValueError\n    It is none of a " class ", or of a later version."},                      \
        {"__copy__", prefix##_copy, METH_NOARGS, NULL}, {"__deepcopy__", prefix##_copy, METH_O, NULL},              \
        {"__reduce__", prefix##_reduce, METH_NOARGS, NULL},                                                         \
    {                                                                                                               \
        "_from_core", prefix##_from_core, METH_VARARGS | METH_CLASS, NULL                                           \
    }

extern PyType_Spec id_spec, pid_allocator_spec, pid_spec, tree_spec, address_spec, rmid_spec, range_spec, policy_spec,
    constraint_spec;

#endif
