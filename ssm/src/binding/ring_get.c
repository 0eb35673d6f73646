/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking out of a Ring. */
#include "ring.h"

#include <errno.h>

/* Called inside ring_begin() .. ring_end(). */
static int take(struct ring_object *ring, uint64_t *handles_out, uint32_t count, int64_t timeout_ns)
{
    int result;
    POOL_CALL(ring->pool, result, ssm_ring_get(ring->core, handles_out, count, 0));
    if (result != -SSM_E_EMPTY || timeout_ns == 0)
        return result;
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    scope.subject = (struct wait_subject){.what = "get", .object = OBJECT(ring)};
    result = ssm_ring_get(ring->core, handles_out, count, timeout_ns);
    wait_end(&scope);
    return result;
}

/* Of what was just taken out. */
static uint64_t delivery_from(const struct ring_object *ring, uint64_t handle)
{
    return ssm_ring_flags(ring->core) & SSM_REDELIVER ? ssm_packet_delivery(ring->pool->core, handle) : SSM_NO_DELIVERY;
}

/* The common case: there is one. All of it under the lock, as in put_at_once(). */
static int get_at_once(struct ring_object *ring, struct packet_object *packet)
{
    uint64_t handle;
    int result;
    POOL_LOCK(ring->pool)
    result = ring->closed || ring->pool->closed ? -SSM_E_CLOSED : ssm_ring_get(ring->core, &handle, 1, 0);
    if (result == 1)
        packet_adopt(packet, handle, delivery_from(ring, handle));
    POOL_UNLOCK()
    return result;
}

/* Called inside ring_begin() .. ring_end(). */
static int get_waiting(struct ring_object *ring, struct packet_object *packet, int64_t timeout_ns)
{
    uint64_t handle;
    int result = take(ring, &handle, 1, timeout_ns);
    if (result == 1)
        packet_adopt(packet, handle, delivery_from(ring, handle));
    return result;
}

/* The object is made first: a packet that was taken out is never lost for want of memory. NULL without an exception
 * at the end of an iteration. */
static PyObject *get_one(struct ring_object *ring, int64_t timeout_ns, bool readonly, bool iterating)
{
    struct packet_object *packet = packet_new(ring->pool);
    if (packet == NULL)
        return NULL;
    packet->readonly = readonly;
    int result = get_at_once(ring, packet);
    if (result == -SSM_E_CLOSED || (result == -SSM_E_EMPTY && timeout_ns != 0)) {
        if (!ring_begin(ring)) {
            Py_DECREF(OBJECT(packet));
            return NULL;
        }
        result = get_waiting(ring, packet, timeout_ns);
        ring_end(ring);
    }
    if (result == 1)
        return OBJECT(packet);
    Py_DECREF(OBJECT(packet));
    return iterating && result == -SSM_E_SHUTDOWN ? NULL : ring_raise(ring, result, false);
}

RING_DOC(ring_get_doc,
"get($self, /, block=True, timeout=None, *, readonly=False)\n--\n\n"
"Take the next packet out.\n\n"
"Parameters\n----------\n"
"block : bool\n    Whether to wait while the ring is empty.\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n"
"readonly : bool\n    Views and arrays of the packet cannot be written to: for consumers that share it with others. It may be put\n"
"    on; the next consumer chooses anew.\n\n"
"Returns\n-------\n"
"Packet\n    This process holds it now.\n\n"
"Raises\n------\n"
"RingEmpty\n    No packet came in `timeout`.\n"
"RingShutDown\n    The ring is shut down, and drained.\n"
"ProducersGone\n    The ring is empty, and the only process that puts into it has died or closed it. See `Pool.ring`.\n"
"RingBusy\n    The ring has ``consumers=\"one\"``, and that is another live process.");

PyObject *ring_get(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"get", {KEYWORD_block, KEYWORD_timeout, KEYWORD_readonly}, 3, 2, 0};
    PyObject *values[3];
    int64_t timeout_ns = SSM_FOREVER;
    bool readonly = false;
    if ((nargs != 0 || kwnames != NULL) &&
        (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
         argument_wait(values[0], values[1], &timeout_ns) < 0 || argument_flag(values[2], &readonly) < 0))
        return NULL;
    return get_one(self, timeout_ns, readonly, false);
}

RING_DOC(ring_get_nowait_doc,
"get_nowait($self, /, *, readonly=False)\n--\n\n"
"get() that does not wait.");

PyObject *ring_get_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"get_nowait", {KEYWORD_readonly}, 1, 0, 0};
    PyObject *values[1];
    bool readonly = false;
    if ((nargs != 0 || kwnames != NULL) &&
        (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
         argument_flag(values[0], &readonly) < 0))
        return NULL;
    return get_one(self, 0, readonly, false);
}

PyObject *ring_next(struct ring_object *self)
{
    return get_one(self, SSM_FOREVER, false, true);
}

#define ONCE INT64_MIN /* as a time-out: fewer than `at_least` stay, and nothing waits */

/* As take(), for at least that many. */
static int take_least(struct ring_object *ring, uint64_t *handles_out, uint32_t count, uint32_t at_least,
                      int64_t timeout_ns)
{
    struct wait_scope scope;
    if (timeout_ns == ONCE) {
        int result;
        POOL_CALL(ring->pool, result, ssm_ring_get_enough(ring->core, handles_out, count, at_least));
        return result;
    }
    if (at_least <= 1 || timeout_ns == 0)
        return take(ring, handles_out, count, timeout_ns);
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    scope.subject = (struct wait_subject){.what = "get", .object = OBJECT(ring), .count = at_least};
    int result = ssm_ring_get_least(ring->core, handles_out, count, at_least, timeout_ns);
    wait_end(&scope);
    return result;
}

static PyObject *get_batch(struct ring_object *ring, uint32_t count, uint32_t at_least, int64_t timeout_ns,
                           bool readonly)
{
    if (!ring_begin(ring))
        return NULL;
    uint32_t capacity = ssm_ring_capacity(ring->core), room = count < capacity ? count : capacity;
    if (at_least > room) {
        ring_end(ring);
        return PyErr_Format(
            PyExc_ValueError,
            "at_least is %u packets, and n is %u, the capacity of ring %R %u: ask for no more than both", at_least,
            count, ring->name, capacity);
    }
    struct batch_object *batch = batch_new(ring->pool, room);
    int result = batch != NULL ? take_least(ring, batch->handles, room, at_least, timeout_ns) : -ENOMEM;
    if (result > 0)
        batch_adopt(batch, (uint32_t)result, delivery_from(ring, batch->handles[0]));
    ring_end(ring);
    if (batch != NULL)
        batch->readonly = readonly;
    if (result > 0)
        return OBJECT(batch);
    if (batch == NULL)
        return NULL;
    Py_DECREF(OBJECT(batch));
    return ring_raise(ring, result, false);
}

RING_DOC(ring_get_many_doc,
"get_many($self, /, n, block=True, timeout=None, *, readonly=False, at_least=1)\n--\n\n"
"Take up to `n` packets out: waits for the first, or for `at_least`, and not for the others.\n\n"
"Parameters\n----------\n"
"n : int\n    At least 1.\n"
"block, timeout, readonly\n    As for get().\n"
"at_least : int\n    Fewer are left in the ring until `timeout` is over, or the ring is shut down; then what is there is taken. A packet\n"
"    that comes back comes at once, and alone. 1 .. `n`, and not more than the capacity.\n\n"
"Returns\n-------\n"
"PacketBatch\n    1 .. `n` packets, in order.\n\n"
"Raises\n------\n"
"RingEmpty, RingShutDown, ProducersGone, RingBusy\n    As for get().");

static uint32_t at_most_u32(uint64_t value)
{
    return value > UINT32_MAX ? UINT32_MAX : (uint32_t)value;
}

static PyObject *get_many(struct ring_object *self, PyObject *n, PyObject *least, int64_t timeout_ns, bool readonly)
{
    uint64_t count, at_least = 1;
    int range = argument_u64(n, &count); /* 2: UINT64_MAX */
    if (range < 0)
        return NULL;
    if (range == 1 || (range == 0 && count == 0))
        return PyErr_Format(PyExc_ValueError, "n must be 1 or more packets, not %S", n);
    range = least != NULL ? argument_u64(least, &at_least) : 0;
    if (range < 0)
        return NULL;
    if (range == 1 || (range == 0 && at_least == 0))
        return PyErr_Format(PyExc_ValueError, "at_least must be 1 or more packets, not %S", least);
    return get_batch(self, at_most_u32(count), at_most_u32(at_least), timeout_ns, readonly);
}

PyObject *ring_get_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {
        "get_many", {KEYWORD_n, KEYWORD_block, KEYWORD_timeout, KEYWORD_readonly, KEYWORD_at_least}, 5, 3, 1};
    PyObject *values[5];
    int64_t timeout_ns;
    bool readonly = false;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        argument_wait(values[1], values[2], &timeout_ns) < 0 || argument_flag(values[3], &readonly) < 0)
        return NULL;
    return get_many(self, values[0], values[4], timeout_ns, readonly);
}

RING_DOC(ring_get_enough_doc,
"_get_enough($self, n, at_least, readonly, /)\n--\n\n"
"get_many() that tries once: RingEmpty also if fewer are there, and more may come.");

PyObject *ring_get_enough(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs)
{
    bool readonly = false;
    if (arguments_are("_get_enough", nargs, 3) < 0 || argument_flag(args[2], &readonly) < 0)
        return NULL;
    return get_many(self, args[0], args[1], ONCE, readonly);
}
