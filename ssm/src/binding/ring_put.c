/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting into a Ring: packets, batches, and bytes that are copied into one.
 *
 * A put that waits keeps this process's reference (SSM_KEEP) and gives it back afterwards: while it sleeps, other threads
 * may view or free the packet, and neither must find it half gone. The packet is handed over all the same
 * (SSM_HANDOVER). A chain cannot be kept so: while its put sleeps, its packets are the call's, and to other threads they
 * look as if they were sent already. */
#include "ring.h"

#include <errno.h>
#include <time.h>

/* ---- put ------------------------------------------------------------------------------------------ */

/* What is put, and whose it is. */
struct parcel {
    const uint64_t              *handles, *deliveries; /* of a batch that is not mixed, one delivery for all */
    uint32_t                     count;
    struct packet_object *const *packets; /* `count` of them, or NULL */
    struct batch_object         *batch;   /* or NULL */
    bool                         kept;    /* after success: this process has the references still */
    const struct ssm_done       *done;    /* what ends with the put, or NULL */
};

/* 0 or -SSM_E_STALE. *viewed_out: there are views, which need the references. With POOL_LOCK. */
static int parcel_look(const struct parcel *parcel, bool *viewed_out)
{
    *viewed_out = false;
    if (parcel->batch != NULL && !batch_is_live(parcel->batch))
        return -SSM_E_STALE;
    for (uint32_t i = 0; parcel->packets != NULL && i < parcel->count; i++) {
        if (!packet_is_live(parcel->packets[i]))
            return -SSM_E_STALE;
        *viewed_out |= parcel->packets[i]->exports > 0;
    }
    return 0;
}

/* With POOL_LOCK. */
static void parcel_sent(const struct parcel *parcel)
{
    if (parcel->batch != NULL)
        batch_sent(parcel->batch, parcel->kept);
    for (uint32_t i = 0; parcel->packets != NULL && i < parcel->count; i++)
        packet_sent(parcel->packets[i], parcel->kept);
}

/* `keep`: the caller keeps the packets; parcel->kept: this process does. */
static int put(struct ring_object *ring, const struct parcel *parcel, bool keep, int64_t timeout_ns)
{
    const uint32_t kept = keep ? SSM_KEEP : parcel->kept ? SSM_KEEP | SSM_HANDOVER : 0u;
    const uint32_t flags = kept | (parcel->batch != NULL && !parcel->batch->mixed ? SSM_ONE_DELIVERY : 0u);
    if (parcel->done != NULL)
        return ssm_ring_put_done(ring->core, parcel->handles, parcel->deliveries, parcel->count, parcel->done, flags,
                                 timeout_ns);
    return ssm_ring_put_of(ring->core, parcel->handles, parcel->deliveries, parcel->count, flags, timeout_ns);
}

/* How many were dropped, or an error. One attempt. Where views need the references, the ring gets some of its own, and the
 * last view gives these back. */
static int put_now(struct ring_object *ring, struct parcel *parcel, bool keep)
{
    bool viewed;
    int result = parcel_look(parcel, &viewed);
    parcel->kept = keep || viewed;
    if (result == 0)
        result = put(ring, parcel, keep, 0);
    if (result >= 0 && !keep)
        parcel_sent(parcel);
    return result;
}

static int put_waiting(struct ring_object *ring, struct parcel *parcel, bool keep, int64_t timeout_ns)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    scope.subject = (struct wait_subject){.what = "put", .object = OBJECT(ring), .count = parcel->count};
    parcel->kept = true;
    int result = put(ring, parcel, keep, timeout_ns);
    if (result >= 0 && !keep) {
        POOL_LOCK(ring->pool)
        parcel_sent(parcel);
        POOL_UNLOCK()
    }
    wait_end(&scope);
    return result;
}

/* With POOL_LOCK. */
static void parcel_mark(const struct parcel *parcel, enum packet_status status)
{
    if (parcel->batch != NULL)
        parcel->batch->status = status;
    for (uint32_t i = 0; parcel->packets != NULL && i < parcel->count; i++)
        parcel->packets[i]->status = status;
}

/* One with chains in it. */
static int put_lent(struct ring_object *ring, struct parcel *parcel, int64_t timeout_ns)
{
    struct wait_scope scope;
    bool viewed;
    int result;
    POOL_LOCK(ring->pool)
    result = parcel_look(parcel, &viewed);
    if (result == 0 && viewed)
        result = -SSM_E_PINNED;
    if (result == 0)
        parcel_mark(parcel, PACKET_SENT);
    POOL_UNLOCK()
    if (result != 0)
        return result;
    parcel->kept = false;
    result = -SSM_E_CLOSED;
    if (wait_begin(&scope, ring->pool, &ring->closed)) {
        scope.subject = (struct wait_subject){.what = "put", .object = OBJECT(ring), .count = parcel->count};
        result = put(ring, parcel, false, timeout_ns);
        wait_end(&scope);
    }
    if (result < 0) {
        POOL_LOCK(ring->pool)
        parcel_mark(parcel, PACKET_LIVE);
        POOL_UNLOCK()
    }
    return result;
}

/* Called inside ring_begin() .. ring_end(). How many were dropped, or an error. */
static int deliver(struct ring_object *ring, struct parcel *parcel, bool keep, int64_t timeout_ns)
{
    int result;
    POOL_CALL(ring->pool, result, put_now(ring, parcel, keep));
    if (result == -SSM_E_FULL && timeout_ns != 0)
        result = put_waiting(ring, parcel, keep, timeout_ns);
    if (result == -SSM_E_CHAIN && !keep)
        result = put_lent(ring, parcel, timeout_ns);
    return result;
}

/* The common case: a packet without views, into a ring with room. All of it under the lock, so nothing needs brackets. How
 * many were dropped; below 0: there is more to it, or an error to be told. */
static int put_at_once(struct ring_object *ring, struct packet_object *packet)
{
    int result = -1;
    POOL_LOCK(ring->pool)
    if (!ring->closed && packet->exports == 0 && packet_is_live(packet)) {
        result = ssm_ring_put_of(ring->core, &packet->handle, &packet->delivery, 1, 0, 0);
        if (result >= 0)
            packet->status = PACKET_SENT;
    }
    POOL_UNLOCK()
    return result;
}

static PyObject *raise_put(struct ring_object *ring, const struct ended *ended, int code)
{
    if (code == -EINVAL && ended_of(ended) != NULL)
        return PyErr_Format(PyExc_ValueError,
                            "ring %R has overflow=\"sample\" and decides on each packet by itself: with done= put one "
                            "packet at a time",
                            ring->name);
    return ring_raise(ring, code, true);
}

static PyObject *put_one(struct ring_object *ring, PyObject *object, PyObject *done, bool keep, int64_t timeout_ns)
{
    struct packet_object *packet = (struct packet_object *)object;
    struct ended ended;
    if (Py_TYPE(object) != ring->state->packet_type)
        return PyErr_Format(PyExc_TypeError,
                            "a ring takes a Packet, not %R; use send() for bytes and put_many() for a batch",
                            Py_TYPE(object));
    if (ring_check_pool(ring, packet->pool, "packet is") < 0)
        return NULL;
    int result = keep || done != NULL ? -1 : put_at_once(ring, packet);
    if (result >= 0)
        return Py_NewRef(result == 0 ? Py_True : Py_False);
    if (ended_begin(ring, done, &ended) < 0)
        return NULL;
    PyObject *answer = NULL;
    if (ring_begin(ring)) {
        struct parcel parcel = {&packet->handle, &packet->delivery, .count = 1, .packets = &packet,
                                .done = ended_of(&ended)};
        result = deliver(ring, &parcel, keep, timeout_ns);
        ring_end(ring);
        answer = result >= 0            ? Py_NewRef(result == 0 ? Py_True : Py_False)
               : result == -SSM_E_STALE ? packet_raise_stale(packet)
                                        : raise_put(ring, &ended, result);
    }
    ended_end(&ended, result >= 0);
    return answer;
}

RING_DOC(ring_put_doc,
"put($self, /, pkt, block=True, timeout=None, *, keep=False, done=None)\n--\n\n"
"Hand a packet over: the Packet is finished, and the packet belongs to the ring, then to its consumer.\n\n"
"Parameters\n----------\n"
"pkt : Packet\n    Of the pool that the ring was opened through. Views and arrays of it stay valid.\n"
"block : bool\n    Whether to wait while the ring is full. A ring with `overflow` does not: it drops or overwrites.\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n"
"keep : bool\n    Keep the packet as well: it can go into other rings, without a copy.\n"
"done : Packet, PacketBatch or iterable of Packet, optional\n    What the packet was made from, out of rings with ``redeliver=True``. It is freed by this call, in one step with\n"
"    the put: if this process dies, either the packet is in the ring, or what it was made from is delivered again.\n\n"
"Returns\n-------\n"
"bool\n    True: it is in the ring. False: the ring is full, with ``overflow=\"drop\"``; the packet was freed, unless kept.\n\n"
"Raises\n------\n"
"RingFull\n    No slot came free in `timeout`. With `overflow`: a stopped process was in the middle of a call all the time.\n"
"RingShutDown\n    The ring is shut down.\n"
"ConsumersGone\n    The ring is full, and the only process that gets from it has died or closed it. See `Pool.ring`.\n"
"RingBusy\n    The ring has ``producers=\"one\"``, and that is another live process.\n"
"PermissionError\n    The ring is read-only.\n"
"ValueError\n    The packet is queued in this ring already, or of another pool; or the ring redelivers, and another process has\n"
"    it from there. It is a segment of a chain; or the head of one, and `keep` is set, the ring redelivers, or there is\n"
"    another Packet of it or of a segment.\n"
"    One of `done` came out of no ring with ``redeliver=True``, is done already, stands there twice, or is `pkt`.\n"
"BufferError\n    It is the head of a chain, and there are views of it or of a segment.\n"
"StaleHandle\n    The packet, or one of `done`, was freed or sent.\n\n"
"After an error all packets are the caller's as before.");

PyObject *ring_put(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {
        "put", {KEYWORD_pkt, KEYWORD_block, KEYWORD_timeout, KEYWORD_keep, KEYWORD_done}, 5, 3, 1};
    PyObject *values[5] = {nargs == 1 ? args[0] : NULL};
    int64_t timeout_ns = SSM_FOREVER;
    bool keep = false;
    if (nargs != 1 || kwnames != NULL) {
        if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
            argument_wait(values[1], values[2], &timeout_ns) < 0 || argument_flag(values[3], &keep) < 0)
            return NULL;
    }
    return put_one(self, values[0], values[4], keep, timeout_ns);
}

RING_DOC(ring_put_nowait_doc,
"put_nowait($self, /, pkt, *, keep=False, done=None)\n--\n\n"
"put() that does not wait.");

PyObject *ring_put_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"put_nowait", {KEYWORD_pkt, KEYWORD_keep, KEYWORD_done}, 3, 1, 1};
    PyObject *values[3] = {nargs == 1 ? args[0] : NULL, NULL, NULL};
    bool keep = false;
    if ((nargs != 1 || kwnames != NULL) && arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    return argument_flag(values[1], &keep) < 0 ? NULL : put_one(self, values[0], values[2], keep, 0);
}

static int check_capacity(const struct ring_object *ring, Py_ssize_t count)
{
    uint32_t capacity = ssm_ring_capacity(ring->core);
    if (count <= (Py_ssize_t)capacity)
        return 0;
    PyErr_Format(PyExc_ValueError, "%zd packets never fit into ring %R at once: its capacity is %u; put them in parts",
                 count, ring->name, capacity);
    return -1;
}

static PyObject *put_batch(struct ring_object *ring, struct batch_object *batch, const struct ended *ended, bool keep,
                           int64_t timeout_ns)
{
    struct parcel parcel = {batch->handles, batch_deliveries(batch), .count = batch->count, .batch = batch,
                            .done = ended_of(ended)};
    if (ring_check_pool(ring, batch->pool, "batch is") < 0 || !ring_begin(ring))
        return NULL;
    bool fits = check_capacity(ring, batch->count) == 0;
    int result = fits && batch->count == 0 && batch_check(batch) ? 0
               : fits                                            ? deliver(ring, &parcel, keep, timeout_ns)
                                                                 : -EINVAL;
    ring_end(ring);
    if (result >= 0)
        return PyLong_FromLong((long)batch->count - result);
    if (!fits)
        return NULL;
    return result == -SSM_E_STALE ? batch_raise_stale(batch) : raise_put(ring, ended, result);
}

/* Steals the tuple. */
static PyObject *put_tuple(struct ring_object *ring, PyObject *objects, const struct ended *ended, bool keep,
                           int64_t timeout_ns)
{
    const Py_ssize_t count = PyTuple_Size(objects);
    struct collected collected;
    if (collected_begin(ring, objects, &collected) < 0)
        return NULL;
    int result = -EINVAL; /* with its exception */
    if (ring_begin(ring)) {
        struct parcel parcel = {collected.handles, collected.deliveries, .count = collected.count,
                                .packets = collected.packets, .done = ended_of(ended)};
        if (count == 0)
            result = 0;
        else if (check_capacity(ring, count) == 0)
            result = deliver(ring, &parcel, keep, timeout_ns);
        ring_end(ring);
    }
    collected_end(&collected);
    if (result >= 0)
        return PyLong_FromSsize_t(count - result);
    return PyErr_Occurred() ? NULL : raise_put(ring, ended, result);
}

RING_DOC(ring_put_many_doc,
"put_many($self, /, batch, block=True, timeout=None, *, keep=False, done=None)\n--\n\n"
"Hand over many packets at once: all of them, or none; with ``overflow=\"drop\"`` the first ones, as many as there is room\n"
"for.\n\n"
"Parameters\n----------\n"
"batch : PacketBatch or iterable of Packet\n    At most as many as the ring's capacity. They arrive in this order.\n"
"block, timeout, keep, done\n    As for put(): all of `done` end in one step with the put of all of `batch`, which may be empty.\n\n"
"Returns\n-------\n"
"int\n    How many are in the ring; the others were dropped.\n\n"
"Raises\n------\n"
"ValueError\n    There are more than the ring's capacity, one of them stands there twice, is queued already, or is of another\n"
"    pool.\n"
"RingFull, RingShutDown, ConsumersGone, RingBusy, PermissionError, StaleHandle\n    As for put().");

PyObject *ring_put_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {
        "put_many", {KEYWORD_batch, KEYWORD_block, KEYWORD_timeout, KEYWORD_keep, KEYWORD_done}, 5, 3, 1};
    PyObject *values[5];
    struct ended ended;
    int64_t timeout_ns;
    bool keep = false;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        argument_wait(values[1], values[2], &timeout_ns) < 0 || argument_flag(values[3], &keep) < 0)
        return NULL;
    if (Py_TYPE(values[0]) == self->state->packet_type)
        return PyErr_Format(PyExc_TypeError, "put_many() takes a PacketBatch or Packets; put() takes one Packet");
    if (ended_begin(self, values[4], &ended) < 0)
        return NULL;
    PyObject *result = NULL, *packets = NULL;
    if (Py_TYPE(values[0]) == self->state->batch_type)
        result = put_batch(self, (struct batch_object *)values[0], &ended, keep, timeout_ns);
    else if ((packets = PySequence_Tuple(values[0])) != NULL)
        result = put_tuple(self, packets, &ended, keep, timeout_ns);
    ended_end(&ended, result != NULL);
    return result;
}

/* ---- send ----------------------------------------------------------------------------------------- */

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What is left of a time-out that began at `since_ns`. */
static int64_t remaining(int64_t timeout_ns, int64_t since_ns)
{
    int64_t left_ns = timeout_ns - (now_ns() - since_ns);
    return timeout_ns <= 0 ? timeout_ns : left_ns > 0 ? left_ns : 0;
}

static int alloc_for(struct ring_object *ring, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    int result;
    POOL_CALL(ring->pool, result, ssm_alloc(ring->pool->core, size, 0, handle_out));
    if (result == -SSM_E_EXHAUSTED || result == -SSM_E_QUOTA)
        result = pool_take(ring->pool, &ring->closed, size, 1, timeout_ns, handle_out);
    return result;
}

static int copy_in(struct pool_object *pool, uint64_t handle, const Py_buffer *source)
{
    struct ssm_packet window;
    int result = ssm_packet_pin(pool->core, handle); /* against a close in another thread, where there is no GIL */
    if (result != 0)
        return result;
    result = ssm_packet_view(pool->core, handle, &window);
    if (result == 0 && PyBuffer_ToContiguous(window.data, source, source->len, 'C') < 0)
        result = -EINTR; /* with its exception */
    ssm_packet_unpin(pool->core, handle, 0);
    return result;
}

static PyObject *raise_send(struct ring_object *ring, int code, uint64_t size)
{
    if (code == -SSM_E_EXHAUSTED)
        return pool_raise_exhausted(ring->pool, size, 1);
    if (code == -SSM_E_TOO_LARGE)
        return pool_raise_too_large(ring->pool, size);
    return ring_raise(ring, code, true);
}

static PyObject *send(struct ring_object *ring, const Py_buffer *source, int64_t timeout_ns)
{
    int64_t since_ns = timeout_ns > 0 ? now_ns() : 0;
    uint64_t handle;
    const uint64_t delivery = SSM_NO_DELIVERY;
    struct parcel parcel = {&handle, &delivery, .count = 1};
    if (!ring_begin(ring))
        return NULL;
    int result = alloc_for(ring, (uint64_t)source->len, timeout_ns, &handle);
    if (result == 0) {
        result = copy_in(ring->pool, handle, source);
        if (result == 0)
            result = deliver(ring, &parcel, false, remaining(timeout_ns, since_ns));
        if (result < 0 || parcel.kept)
            ssm_free(ring->pool->core, handle);
    }
    ring_end(ring);
    if (result >= 0)
        return Py_NewRef(result == 0 ? Py_True : Py_False);
    return raise_send(ring, result, (uint64_t)source->len);
}

RING_DOC(ring_send_doc,
"send($self, /, data, block=True, timeout=None)\n--\n\n"
"Copy `data` into a packet and put it.\n\n"
"Parameters\n----------\n"
"data : bytes or any buffer\n    Up to `pool.max_size` bytes; may be empty.\n"
"block : bool\n    Whether to wait, for a block and for a slot in the ring.\n"
"timeout : float or None\n    Seconds to wait for both together; ``None`` waits for ever.\n\n"
"Returns\n-------\n"
"bool\n    As for put().\n\n"
"Raises\n------\n"
"PoolExhausted\n    No block came free in `timeout`.\n"
"PacketTooLarge\n    No size class has blocks large enough.\n"
"RingFull, RingShutDown, RingBusy, PermissionError\n    As for put(). The block went back to the pool.");

PyObject *ring_send(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"send", {KEYWORD_data, KEYWORD_block, KEYWORD_timeout}, 3, 3, 1};
    PyObject *values[3] = {nargs == 1 ? args[0] : NULL};
    int64_t timeout_ns = SSM_FOREVER;
    Py_buffer source;
    if ((nargs != 1 || kwnames != NULL) &&
        (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
         argument_wait(values[1], values[2], &timeout_ns) < 0))
        return NULL;
    if (PyObject_GetBuffer(values[0], &source, PyBUF_FULL_RO) < 0)
        return NULL;
    PyObject *result = send(self, &source, timeout_ns);
    PyBuffer_Release(&source);
    return result;
}
