/* SPDX-License-Identifier: Apache-2.0
 *
 * What a call that puts names besides the packet or batch that it puts: Packets one by one, and with done= those whose
 * deliveries end with the put. */
#include "ring.h"

/* ---- Packets one by one ------------------------------------------------------------------------------ */

/* Looks at each object and notes it, its handle and its delivery. -1 with an exception set. */
static int collect(const struct ring_object *ring, struct collected *of)
{
    for (uint32_t i = 0; i < of->count; i++) {
        PyObject *object = PyTuple_GetItem(of->objects, i); /* borrowed */
        if (Py_TYPE(object) != ring->state->packet_type) {
            PyErr_Format(PyExc_TypeError, "put_many() and done= take a PacketBatch or Packets, not %R",
                         Py_TYPE(object));
            return -1;
        }
        struct packet_object *packet = of->packets[i] = (struct packet_object *)object;
        if (ring_check_pool(ring, packet->pool, "packet is") < 0)
            return -1;
        if (!packet_check(packet)) {
            packet_raise_stale(packet);
            return -1;
        }
        of->handles[i] = packet->handle;
        of->deliveries[i] = packet->delivery;
    }
    return 0;
}

void collected_end(struct collected *of)
{
    PyMem_Free(of->handles);
    PyMem_Free(of->deliveries);
    PyMem_Free(of->packets);
    Py_XDECREF(of->objects);
}

int collected_begin(const struct ring_object *ring, PyObject *objects, struct collected *out)
{
    const size_t count = (size_t)PyTuple_Size(objects);
    *out = (struct collected){.objects = objects, .count = (uint32_t)count};
    out->handles = PyMem_Calloc(count, sizeof *out->handles);
    out->deliveries = PyMem_Calloc(count, sizeof *out->deliveries);
    out->packets = PyMem_Calloc(count, sizeof(struct packet_object *));
    if (out->handles == NULL || out->deliveries == NULL || out->packets == NULL)
        PyErr_NoMemory();
    else if (collect(ring, out) == 0)
        return 0;
    collected_end(out);
    return -1;
}

/* ---- done= ---------------------------------------------------------------------------------------- */

static int begin_batch(const struct ring_object *ring, struct batch_object *batch, struct ended *out)
{
    if (ring_check_pool(ring, batch->pool, "batch is") < 0)
        return -1;
    if (!batch_check(batch)) {
        batch_raise_stale(batch);
        return -1;
    }
    Py_INCREF(OBJECT(batch));
    out->batch = batch;
    out->done = (struct ssm_done){batch->handles, batch_deliveries(batch), batch->count, !batch->mixed};
    return 0;
}

int ended_begin(const struct ring_object *ring, PyObject *value, struct ended *out)
{
    *out = (struct ended){.batch = NULL};
    if (value == NULL || value == Py_None)
        return 0;
    if (Py_TYPE(value) == ring->state->batch_type)
        return begin_batch(ring, (struct batch_object *)value, out);
    PyObject *objects = Py_TYPE(value) == ring->state->packet_type ? PyTuple_Pack(1, value) : PySequence_Tuple(value);
    if (objects == NULL || collected_begin(ring, objects, &out->packets) < 0)
        return -1;
    out->done = (struct ssm_done){out->packets.handles, out->packets.deliveries, out->packets.count, 0};
    return 0;
}

const struct ssm_done *ended_of(const struct ended *of)
{
    return of->done.count > 0 ? &of->done : NULL;
}

void ended_end(struct ended *of, bool put)
{
    if (put && of->batch != NULL)
        batch_finish(of->batch);
    for (uint32_t i = 0; put && i < of->packets.count; i++)
        packet_finish(of->packets.packets[i]);
    Py_XDECREF(OBJECT(of->batch));
    collected_end(&of->packets);
}
