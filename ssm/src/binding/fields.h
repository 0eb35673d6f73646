/* SPDX-License-Identifier: Apache-2.0
 *
 * Structs of the core as dicts, see fields.c. */
#ifndef SSM_BINDING_FIELDS_H
#define SSM_BINDING_FIELDS_H

#include "binding.h"

/* RECORD_name is struct ssm_name. */
#define RECORDS(X)                                                                                           \
    X(shard_stats)                                                                                           \
    X(class_stats)                                                                                           \
    X(arena_stats) X(ring_stats) X(service_stats) X(service_owner) X(holder_info) X(usage) X(reaped) X(peek)
enum record {
#define X(name) RECORD_##name,
    RECORDS(X)
#undef X
};

/* A new dict of the struct's fields, or NULL. */
PyObject *fields_dict(enum record record, const void *values);
/* The dict with one more, or NULL. Takes both over, either may be NULL. */
PyObject *fields_add(PyObject *dict, const char *name, PyObject *value);
/* Appends the item, which it takes over. -1: there was none, or no memory; then *list is NULL. */
int list_add(PyObject **list, PyObject *item);
/* Sets dict[key] = count. -1: no memory; then *dict is NULL. */
int counts_add(PyObject **dict, uint64_t key, uint64_t count);

#endif
