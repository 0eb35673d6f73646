/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of ssm.Ring share. */
#ifndef SSM_BINDING_RING_H
#define SSM_BINDING_RING_H

#include "binding.h"

#define RING_DOC(name, text) const char name[] = PyDoc_STR(text) /* in another file than the table of methods */

/* What the core answered to a put, or to a get: NULL with an exception set. */
PyObject *ring_raise(struct ring_object *ring, int code, bool putting);

/* ---- ring_put.c ---------------------------------------------------------------------------------- */

extern const char ring_put_doc[], ring_put_nowait_doc[], ring_put_many_doc[], ring_send_doc[];
PyObject *ring_put(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_put_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_put_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_send(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* -1 with an exception set: the ring was opened through another Pool object. */
int ring_check_pool(const struct ring_object *ring, const struct pool_object *pool, const char *what);

/* ---- ring_roster.c -------------------------------------------------------------------------------- */

extern const char ring_publish_doc[], ring_enrol_doc[], ring_roster_doc[];
PyObject *ring_publish(struct ring_object *self, PyObject *args);
PyObject *ring_enrol(struct ring_object *self, PyObject *args);
PyObject *ring_roster(struct ring_object *self, PyObject *argument);

/* ---- ring_get.c ---------------------------------------------------------------------------------- */

extern const char ring_get_doc[], ring_get_nowait_doc[], ring_get_many_doc[];
PyObject *ring_get(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_get_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_get_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_next(struct ring_object *self);

#endif
