/* SPDX-License-Identifier: Apache-2.0
 *
 * What allocators._core offers to other extension modules, in the capsule allocators._core._exported: its Constraint and
 * RangeInclusive, read and made without a call through Python. A pool's shared address spaces take and give them.
 *
 * Valid while the module allocators._core is referred to.
 */
#ifndef ALLOCATORS_EXPORTED_H
#define ALLOCATORS_EXPORTED_H

#include <Python.h>
#include <stdint.h>

#include "../range_tree.h"

#define ALLOCATORS_EXPORTED "allocators._core._exported"

struct allocators_exported {
    const void *state; /* the first argument of each */
    /* 0; -1 with an exception set. What was not given is NULL. */
    int (*constraint_of)(const void *state, PyObject *constraint, struct al_tree_constraint *out);
    int (*constraint_set)(const void *state, PyObject *size, PyObject *align, PyObject *policy,
                          struct al_tree_constraint *out);
    int (*range_of)(const void *state, PyObject *range, uint64_t *start_out, uint64_t *end_out);
    PyObject *(*range_new)(const void *state, uint64_t start, uint64_t end);
};

#endif
