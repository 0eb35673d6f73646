/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring of a topic that has its latest packets, as ssm/topic.py needs it: see rings/ring_roster.c. */
#include "ring.h"

#include <errno.h>

/* Called inside ring_begin() .. ring_end(). The packet stays this process's. */
static int publish(struct ring_object *ring, const struct packet_object *packet, int64_t timeout_ns,
                   uint32_t *roster_out)
{
    int result;
    POOL_CALL(ring->pool, result,
              packet_is_live(packet) ? ssm_ring_publish(ring->core, packet->handle, 0, roster_out) : -SSM_E_STALE);
    if (result != -SSM_E_FULL || timeout_ns == 0)
        return result;
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    result = ssm_ring_publish(ring->core, packet->handle, timeout_ns, roster_out);
    wait_end(&scope);
    return result;
}

RING_DOC(ring_publish_doc,
"_publish($self, pkt, timeout, /)\n--\n\n"
"put() of a packet that is kept; returns how many subscriptions were counted when it went in.");

PyObject *ring_publish(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t timeout_ns = SSM_FOREVER;
    uint32_t roster = 0;
    if (arguments_are("_publish", nargs, 2) < 0 || argument_timeout(args[1], &timeout_ns) < 0)
        return NULL;
    if (!PyObject_TypeCheck(args[0], self->state->packet_type))
        return PyErr_Format(PyExc_TypeError, "a Packet is published, not %R", Py_TYPE(args[0]));
    struct packet_object *packet = (struct packet_object *)args[0];
    if (ring_check_pool(self, packet->pool, "packet is") < 0 || !ring_begin(self))
        return NULL;
    int result = publish(self, packet, timeout_ns, &roster);
    ring_end(self);
    if (result >= 0)
        return PyLong_FromUnsignedLong(roster);
    return result == -SSM_E_STALE ? packet_raise_stale(packet) : ring_raise(self, result, true);
}

RING_DOC(ring_enrol_doc,
"_enrol($self, n, subscription, /)\n--\n\n"
"Put the latest `n` packets into that ring, which is new, and count it as a subscription, at one moment; returns how many\n"
"they were.");

static int enrol(struct ring_object *topic, struct ring_object *subscription, uint32_t count)
{
    uint64_t *room = PyMem_Calloc(count > 0 ? count : 1, sizeof *room);
    struct wait_scope scope;
    int result = room != NULL ? -SSM_E_CLOSED : -ENOMEM;
    if (room != NULL && wait_begin(&scope, topic->pool, &topic->closed)) {
        POOL_CALL(topic->pool, result, ssm_ring_enrol(topic->core, subscription->core, count, room));
        wait_end(&scope);
    }
    PyMem_Free(room);
    return result;
}

PyObject *ring_enrol(struct ring_object *self, PyObject *args)
{
    PyObject *object;
    unsigned int count;
    if (!PyArg_ParseTuple(args, "IO!:_enrol", &count, self->state->ring_type, &object) || !ring_begin(self))
        return NULL;
    struct ring_object *subscription = (struct ring_object *)object;
    if (!ring_begin(subscription)) {
        ring_end(self);
        return NULL;
    }
    int result = enrol(self, subscription, count);
    ring_end(subscription);
    ring_end(self);
    return result >= 0 ? PyLong_FromLong(result) : ring_raise(self, result, true);
}

RING_DOC(ring_roster_doc,
"_roster($self, known, /)\n--\n\n"
"How many subscriptions were ever counted; where it is not `known`, their rings can be found.");

PyObject *ring_roster(struct ring_object *self, PyObject *argument)
{
    uint64_t known;
    uint32_t roster = 0;
    if (argument_u64(argument, &known) < 0 || !ring_begin(self))
        return NULL;
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    if (wait_begin(&scope, self->pool, &self->closed)) {
        result = ssm_ring_roster(self->core, (uint32_t)known, &roster);
        wait_end(&scope);
    }
    ring_end(self);
    return result == 0 ? PyLong_FromUnsignedLong(roster) : ring_raise(self, result, true);
}
