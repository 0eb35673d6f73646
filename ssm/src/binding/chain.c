/* SPDX-License-Identifier: Apache-2.0
 *
 * Packet.chain: the segments behind a packet, each with a reference of its own, and the way to hang them there. */
#include "binding.h"

#include <errno.h>

/* ---- looking ------------------------------------------------------------------------------------------ */

/* The handles behind the packet, each held once more: how many, or an error, and none is held. With POOL_LOCK. */
static int hold_segments(const struct packet_object *head, uint64_t *handles_out)
{
    struct ssm_pool *core = head->pool->core;
    uint64_t at = head->handle;
    int count = 0, result = packet_is_live(head) ? 1 : -SSM_E_STALE;
    while (result == 1 && count < (int)SSM_CHAIN_MAX - 1 && (result = ssm_packet_next(core, at, &at)) == 1) {
        int held = ssm_packet_hold(core, at);
        if (held == 0)
            handles_out[count++] = at;
        else
            result = held;
    }
    while (result < 0 && count > 0)
        ssm_free(core, handles_out[--count]);
    return result < 0 ? result : count;
}

/* Takes over the references. */
static PyObject *tuple_of(struct pool_object *pool, const uint64_t *handles, int count)
{
    PyObject *tuple = PyTuple_New(count);
    int made = 0;
    for (struct packet_object *packet; tuple != NULL && made < count; made++) {
        if ((packet = packet_new(pool)) == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        packet_adopt(packet, handles[made], SSM_NO_DELIVERY);
        PyTuple_SetItem(tuple, made, OBJECT(packet));
    }
    POOL_LOCK(pool)
    for (int i = made; i < count && !pool->closed; i++)
        ssm_free(pool->core, handles[i]);
    POOL_UNLOCK()
    return tuple;
}

PyObject *packet_get_chain(struct packet_object *self, void *unused)
{
    uint64_t handles[SSM_CHAIN_MAX];
    int count;
    (void)unused;
    POOL_LOCK(self->pool)
    count = hold_segments(self, handles);
    POOL_UNLOCK()
    if (count == -SSM_E_STALE || count == -SSM_E_CLOSED)
        return packet_raise_stale(self);
    return count < 0 ? raise_code(self->pool, count) : tuple_of(self->pool, handles, count);
}

/* ---- linking ------------------------------------------------------------------------------------------ */

static struct packet_object *segment_at(PyObject *segments, Py_ssize_t i)
{
    return (struct packet_object *)PyTuple_GetItem(segments, i); /* borrowed */
}

static int check_segments(const struct packet_object *head, PyObject *segments)
{
    Py_ssize_t count = PyTuple_Size(segments);
    if (count >= (Py_ssize_t)SSM_CHAIN_MAX) {
        PyErr_Format(PyExc_ValueError,
                     "a chain has at most %d packets, its head included, not %zd; use a larger size class, or "
                     "several messages",
                     (int)SSM_CHAIN_MAX, count + 1);
        return -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *object = OBJECT(segment_at(segments, i));
        if (Py_TYPE(object) != head->state->packet_type) {
            PyErr_Format(PyExc_TypeError, "a chain is made of Packets, not of %R", Py_TYPE(object));
            return -1;
        }
        if (segment_at(segments, i)->pool != head->pool) {
            PyErr_Format(PyExc_ValueError,
                         "segment %zd is of another Pool object than the head (%R and %R): take both from one", i,
                         segment_at(segments, i)->pool->name, head->pool->name);
            return -1;
        }
    }
    return 0;
}

/* The references go with them. With POOL_LOCK. */
static int link_locked(struct packet_object *head, PyObject *segments)
{
    uint64_t handles[SSM_CHAIN_MAX];
    uint32_t count = (uint32_t)PyTuple_Size(segments);
    if (!packet_is_live(head))
        return -SSM_E_STALE;
    for (uint32_t i = 0; i < count; i++) {
        if (!packet_is_live(segment_at(segments, i)))
            return -SSM_E_STALE;
        handles[i] = segment_at(segments, i)->handle;
    }
    int result = ssm_packet_link(head->pool->core, head->handle, handles, count);
    for (uint32_t i = 0; result == 0 && i < count; i++)
        segment_at(segments, i)->status = PACKET_LINKED;
    return result;
}

static void raise_stale_one(const struct packet_object *head, PyObject *segments)
{
    for (Py_ssize_t i = 0; packet_check(head) && i < PyTuple_Size(segments); i++)
        if (!packet_check(segment_at(segments, i))) {
            packet_raise_stale(segment_at(segments, i));
            return;
        }
    packet_raise_stale(head);
}

static void raise_link(const struct packet_object *head, PyObject *segments, int code)
{
    int count = (int)PyTuple_Size(segments);
    switch (-code) {
    case SSM_E_STALE: raise_stale_one(head, segments); break;
    case SSM_E_SEGMENT:
        PyErr_Format(PyExc_ValueError,
                     "cannot make a chain of these %d packets: one of them is a segment already, or stands there "
                     "twice; head.chain = () takes segments out, and those that head.chain gave before stay",
                     count + 1);
        break;
    case SSM_E_CHAIN:
        PyErr_Format(PyExc_ValueError,
                     "cannot make a chain of these %d packets: one of the segments has a chain of its own, or one "
                     "of all came out of a ring with redeliver=True; unlink it first (.chain = ()), or copy it",
                     count + 1);
        break;
    case SSM_E_SHARED:
        PyErr_Format(PyExc_ValueError,
                     "cannot make a chain of these %d packets: a chain belongs to one process, and one of them is "
                     "in a ring or another process as well, or has a second Packet here; free those first",
                     count + 1);
        break;
    case SSM_E_PINNED:
        PyErr_Format(PyExc_BufferError,
                     "cannot make a chain of these %d packets: views or arrays of a segment exist; release them "
                     "first",
                     count + 1);
        break;
    default: raise_code(head->pool, code);
    }
}

int packet_set_chain(struct packet_object *self, PyObject *value, void *unused)
{
    (void)unused;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a packet's chain cannot be deleted; packet.chain = () frees it");
        return -1;
    }
    if (Py_TYPE(value) == self->state->packet_type) {
        PyErr_SetString(PyExc_TypeError, "a chain is set to a sequence of Packets: write packet.chain = [other]");
        return -1;
    }
    PyObject *segments = PySequence_Tuple(value);
    if (segments == NULL)
        return -1;
    int result = check_segments(self, segments) < 0 ? -EINVAL : 0; /* with its exception */
    if (result == 0) {
        POOL_LOCK(self->pool)
        result = link_locked(self, segments);
        POOL_UNLOCK()
        if (result != 0)
            raise_link(self, segments, result);
    }
    Py_DECREF(segments);
    return result == 0 ? 0 : -1;
}
