/* SPDX-License-Identifier: Apache-2.0
 *
 * What the files of ssm.Ring share. */
#ifndef SSM_BINDING_RING_H
#define SSM_BINDING_RING_H

#include "binding.h"

#define RING_DOC(name, text) const char name[] = PyDoc_STR(text) /* in another file than the table of methods */

/* What the core answered to a put, or to a get: NULL with an exception set. */
PyObject *ring_raise(struct ring_object *ring, int code, bool putting);
/* -1 with an exception set: the ring was opened through another Pool object. */
int ring_check_pool(const struct ring_object *ring, const struct pool_object *pool, const char *what);

/* ---- ring_put.c ---------------------------------------------------------------------------------- */

extern const char ring_put_doc[], ring_put_nowait_doc[], ring_put_many_doc[], ring_send_doc[];
PyObject *ring_put(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_put_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_put_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_send(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);

/* ---- ring_done.c --------------------------------------------------------------------------------- */

/* Packets that a call names one by one. Nobody changes the tuple while the call sleeps. */
struct collected {
    PyObject              *objects; /* a tuple of Packets, which it keeps */
    uint64_t              *handles, *deliveries;
    struct packet_object **packets;
    uint32_t               count;
};
/* Steals the tuple. -1 with an exception set, and nothing to end. */
int collected_begin(const struct ring_object *ring, PyObject *objects, struct collected *out);
void collected_end(struct collected *of);

/* What done= names: Packets, or a PacketBatch. */
struct ended {
    struct collected     packets;
    struct batch_object *batch; /* or NULL */
    struct ssm_done      done;
};
/* `value` may be NULL. -1 with an exception set, and nothing to end. */
int ended_begin(const struct ring_object *ring, PyObject *value, struct ended *out);
const struct ssm_done *ended_of(const struct ended *of); /* NULL: there are none */
/* `put`: the core has ended the deliveries; the packets are freed, unless another thread has done so. */
void ended_end(struct ended *of, bool put);

/* ---- ring_roster.c -------------------------------------------------------------------------------- */

extern const char ring_publish_doc[], ring_enrol_doc[], ring_roster_doc[];
PyObject *ring_publish(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *ring_enrol(struct ring_object *self, PyObject *args);
PyObject *ring_roster(struct ring_object *self, PyObject *argument);

/* ---- ring_get.c ---------------------------------------------------------------------------------- */

extern const char ring_get_doc[], ring_get_nowait_doc[], ring_get_many_doc[], ring_get_enough_doc[];
PyObject *ring_get(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_get_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_get_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames);
PyObject *ring_get_enough(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs);
PyObject *ring_next(struct ring_object *self);

#endif
