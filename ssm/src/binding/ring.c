/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.Ring: a queue of packets between processes, with the manners of queue.Queue.
 *
 * A call tries once without waiting, then, where it may wait, again with the time-out. A put that waits keeps this
 * process's reference (SSM_KEEP) and gives it back afterwards: while it sleeps, other threads may view or free the
 * packet, and neither must find it half gone. The packet is handed over all the same (SSM_HANDOVER). */
#include "binding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

/* ---- errors -------------------------------------------------------------------------------------- */

static PyObject *raise_one(const struct ring_object *ring, enum error_class class)
{
    PyErr_SetObject(ring->state->errors[class], OBJECT(ring)); /* rendered when somebody reads it */
    return NULL;
}

static PyObject *raise_ring_closed(const struct ring_object *ring)
{
    if (ring->pool->closed)
        return raise_closed(ring->pool);
    return PyErr_Format(PyExc_ValueError, "ring is closed: %R of pool %R; open it again with pool.ring()", ring->name,
                        ring->pool->name);
}

static PyObject *raise_ring(const struct ring_object *ring, int code, bool putting)
{
    switch (-code) {
    case SSM_E_FULL:
        return raise_one(ring, ERROR_RingFull);
    case SSM_E_EMPTY:
        return raise_one(ring, ERROR_RingEmpty);
    case SSM_E_SHUTDOWN:
        return raise_one(ring, ERROR_RingShutDown);
    case SSM_E_QUEUED:
        return PyErr_Format(PyExc_ValueError,
                            "the packet is queued in ring %R already, and a ring takes it once; put it again when it was taken "
                            "out (where ring.redeliver: and freed), or into another ring",
                            ring->name);
    case SSM_E_RDONLY:
        return raise_os(PyExc_PermissionError, EACCES, "ring %R is read-only (Acl.RDONLY); set ring.acl = Acl.RDWR to put",
                        ring->name);
    case SSM_E_BUSY:
        return raise_os(ring->state->errors[ERROR_RingBusy], EBUSY,
                        "the %s side of ring %R belongs to another live process (%s=\"one\"); it is free when that process "
                        "closes the ring or ends",
                        putting ? "producer" : "consumer", ring->name, putting ? "producers" : "consumers");
    case EINTR:
        if (PyErr_Occurred())
            return NULL;
        return raise_ring_closed(ring);
    default:
        return raise_code(ring->pool, code);
    }
}

/* ---- life ---------------------------------------------------------------------------------------- */

/* With POOL_LOCK. */
static void link_ring(struct ring_object *ring)
{
    struct pool_object *pool = ring->pool;
    ring->next = pool->rings;
    ring->link = &pool->rings;
    if (ring->next != NULL)
        ring->next->link = &ring->next;
    pool->rings = ring;
}

static void unlink_ring(struct ring_object *ring)
{
    *ring->link = ring->next;
    if (ring->next != NULL)
        ring->next->link = ring->link;
}

void ring_settle(struct ring_object *ring)
{
    if (ring->calls > 0 || ring->core == NULL)
        return;
    ssm_ring_close(ring->core);
    ring->core = NULL;
    unlink_ring(ring);
    pool_settle(ring->pool);
}

bool ring_begin(struct ring_object *ring)
{
    bool open;
    POOL_LOCK(ring->pool)
    open = !ring->closed && !ring->pool->closed;
    ring->calls += open;
    POOL_UNLOCK()
    if (!open)
        raise_ring_closed(ring);
    return open;
}

void ring_end(struct ring_object *ring)
{
    POOL_LOCK(ring->pool)
    ring->calls--;
    if (ring->closed || ring->pool->closed)
        ring_settle(ring);
    POOL_UNLOCK()
}

static void ring_dealloc(struct ring_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(OBJECT(self));
    POOL_LOCK(self->pool)
    ring_settle(self);
    POOL_UNLOCK()
    Py_DECREF(OBJECT(self->pool));
    Py_DECREF(self->name);
    PyObject_Free(self);
    Py_DECREF(OBJECT(type));
}

PyObject *ring_open(struct pool_object *pool, PyObject *name, uint32_t capacity, uint32_t flags)
{
    struct ssm_ring_options options = {.capacity = capacity, .flags = flags};
    Py_ssize_t bytes;
    const char *text = PyUnicode_AsUTF8AndSize(name, &bytes);
    if (text == NULL)
        return NULL;
    struct ring_object *ring = PyObject_New(struct ring_object, pool->state->ring_type);
    if (ring == NULL)
        return NULL;
    Py_INCREF(OBJECT(pool));
    Py_INCREF(name);
    ring->weakrefs = NULL;
    ring->state = pool->state;
    ring->pool = pool;
    ring->name = name;
    ring->core = NULL;
    ring->calls = 0;
    ring->closed = false;
    int result;
    POOL_LOCK(pool)
    result = pool->closed ? -SSM_E_CLOSED : ssm_ring_open(pool->core, text, &options, &ring->core);
    if (result == 0)
        link_ring(ring);
    POOL_UNLOCK()
    if (result == 0)
        return OBJECT(ring);
    Py_DECREF(OBJECT(ring));
    if (result == -SSM_E_MISMATCH)
        return PyErr_Format(pool->state->errors[ERROR_RingMismatch],
                            "ring %R of pool %R exists with another capacity, or other producers=, consumers= or redeliver=; open it "
                            "without them, or under another name",
                            name, pool->name);
    return raise_code(pool, result);
}

PyDoc_STRVAR(ring_close_doc,
"close($self, /)\n--\n\n"
"Leave the ring: sides that are exclusive to this process become free. The ring itself stays in the pool.");

static PyObject *ring_close(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    POOL_LOCK(self->pool)
    self->closed = true;
    ring_settle(self);
    POOL_UNLOCK()
    RETURN_NONE;
}

/* ---- put ------------------------------------------------------------------------------------------ */

/* What is put, and whose it is. */
struct parcel {
    const uint64_t *handles;
    uint32_t count;
    struct packet_object *const *packets; /* `count` of them, or NULL */
    struct batch_object *batch;           /* or NULL */
    bool kept;                            /* after success: this process has the references still */
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

/* `kept` in this process, whether or not the caller keeps the packets. */
static uint32_t put_flags(bool kept, bool keep)
{
    return keep ? SSM_KEEP : kept ? SSM_KEEP | SSM_HANDOVER : 0u;
}

/* One attempt. Where views need the references, the ring gets some of its own, and the last view gives these back. */
static int put_now(struct ring_object *ring, struct parcel *parcel, bool keep)
{
    bool viewed;
    int result = parcel_look(parcel, &viewed);
    parcel->kept = keep || viewed;
    if (result == 0)
        result = ssm_ring_put(ring->core, parcel->handles, parcel->count, put_flags(parcel->kept, keep), 0);
    if (result == 0 && !keep)
        parcel_sent(parcel);
    return result;
}

static int put_waiting(struct ring_object *ring, struct parcel *parcel, bool keep, int64_t timeout_ns)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    parcel->kept = true;
    int result = ssm_ring_put(ring->core, parcel->handles, parcel->count, put_flags(true, keep), timeout_ns);
    if (result == 0 && !keep) {
        POOL_LOCK(ring->pool)
        parcel_sent(parcel);
        POOL_UNLOCK()
    }
    wait_end(&scope);
    return result;
}

/* Called inside ring_begin() .. ring_end(). */
static int deliver(struct ring_object *ring, struct parcel *parcel, bool keep, int64_t timeout_ns)
{
    int result;
    POOL_CALL(ring->pool, result, put_now(ring, parcel, keep));
    if (result == -SSM_E_FULL && timeout_ns != 0)
        result = put_waiting(ring, parcel, keep, timeout_ns);
    return result;
}

static int check_pool(const struct ring_object *ring, const struct pool_object *pool, const char *what)
{
    if (ring->pool == pool)
        return 0;
    PyErr_Format(PyExc_ValueError, "the %s of pool %R (generation %llu, attachment %p), ring %R of pool %R (generation %llu, attachment %p): "
                 "take both from one Pool object",
                 what, pool->name, (unsigned long long)pool->info.generation, (const void *)pool, ring->name, ring->pool->name,
                 (unsigned long long)ring->pool->info.generation, (const void *)ring->pool);
    return -1;
}

/* The common case: a packet without views, into a ring with room. All of it under the lock, so nothing needs brackets. False:
 * there is more to it, or an error to be told. */
static bool put_at_once(struct ring_object *ring, struct packet_object *packet)
{
    bool done = false;
    POOL_LOCK(ring->pool)
    if (!ring->closed && packet->exports == 0 && packet_is_live(packet)) {
        done = ssm_ring_put(ring->core, &packet->handle, 1, 0, 0) == 0;
        if (done)
            packet->status = PACKET_SENT;
    }
    POOL_UNLOCK()
    return done;
}

static PyObject *put_one(struct ring_object *ring, PyObject *object, bool keep, int64_t timeout_ns)
{
    struct packet_object *packet = (struct packet_object *)object;
    if (Py_TYPE(object) != ring->state->packet_type)
        return PyErr_Format(PyExc_TypeError, "a ring takes a Packet, not %R; use send() for bytes and put_many() for a batch",
                            Py_TYPE(object));
    if (check_pool(ring, packet->pool, "packet is") < 0)
        return NULL;
    if (!keep && put_at_once(ring, packet))
        RETURN_NONE;
    if (!ring_begin(ring))
        return NULL;
    struct parcel parcel = {.handles = &packet->handle, .count = 1, .packets = &packet};
    int result = deliver(ring, &parcel, keep, timeout_ns);
    ring_end(ring);
    if (result == 0)
        RETURN_NONE;
    return result == -SSM_E_STALE ? packet_raise_stale(packet) : raise_ring(ring, result, true);
}

PyDoc_STRVAR(ring_put_doc,
"put($self, /, pkt, block=True, timeout=None, *, keep=False)\n--\n\n"
"Hand a packet over: the Packet is finished, whoever takes it out has it.\n\n"
"Parameters\n----------\n"
"pkt : Packet\n    Of the pool that the ring was opened through. Views and arrays of it stay valid.\n"
"block : bool\n    Whether to wait while the ring is full.\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n"
"keep : bool\n    Keep the packet as well: it can go into other rings, without a copy.\n\n"
"Raises\n------\n"
"RingFull\n    No slot came free in `timeout`.\n"
"RingShutDown\n    The ring is shut down.\n"
"RingBusy\n    The ring has ``producers=\"one\"``, and that is another live process.\n"
"PermissionError\n    The ring is read-only.\n"
"ValueError\n    The packet is queued in this ring already, or of another pool; or the ring redelivers, and another process has\n"
"    it from there.\n"
"StaleHandle\n    The packet was freed or sent.\n\n"
"After an error the packet is the caller's as before.");

static PyObject *ring_put(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"put", {KEYWORD_pkt, KEYWORD_block, KEYWORD_timeout, KEYWORD_keep}, 4, 3, 1};
    PyObject *values[4] = {nargs == 1 ? args[0] : NULL};
    int64_t timeout_ns = SSM_FOREVER;
    bool keep = false;
    if (nargs != 1 || kwnames != NULL) {
        if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
            argument_wait(values[1], values[2], &timeout_ns) < 0 || argument_flag(values[3], &keep) < 0)
            return NULL;
    }
    return put_one(self, values[0], keep, timeout_ns);
}

PyDoc_STRVAR(ring_put_nowait_doc,
"put_nowait($self, /, pkt, *, keep=False)\n--\n\n"
"put() that does not wait.");

static PyObject *ring_put_nowait(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"put_nowait", {KEYWORD_pkt, KEYWORD_keep}, 2, 1, 1};
    PyObject *values[2] = {nargs == 1 ? args[0] : NULL, NULL};
    bool keep = false;
    if ((nargs != 1 || kwnames != NULL) && arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    return argument_flag(values[1], &keep) < 0 ? NULL : put_one(self, values[0], keep, 0);
}

static int check_capacity(const struct ring_object *ring, Py_ssize_t count)
{
    uint32_t capacity = ssm_ring_capacity(ring->core);
    if (count <= (Py_ssize_t)capacity)
        return 0;
    PyErr_Format(PyExc_ValueError, "%zd packets never fit into ring %R at once: its capacity is %u; put them in parts", count,
                 ring->name, capacity);
    return -1;
}

static PyObject *put_batch(struct ring_object *ring, struct batch_object *batch, bool keep, int64_t timeout_ns)
{
    struct parcel parcel = {.handles = batch->handles, .count = batch->count, .batch = batch};
    if (check_pool(ring, batch->pool, "batch is") < 0 || !ring_begin(ring))
        return NULL;
    bool fits = check_capacity(ring, batch->count) == 0;
    int result = fits ? deliver(ring, &parcel, keep, timeout_ns) : -EINVAL;
    ring_end(ring);
    if (result == 0)
        RETURN_NONE;
    if (!fits)
        return NULL;
    return result == -SSM_E_STALE ? batch_raise_stale(batch) : raise_ring(ring, result, true);
}

/* Looks at each object and notes it and its handle; -1 with an exception set. */
static int collect(struct ring_object *ring, PyObject *objects, uint64_t *handles, struct packet_object **packets)
{
    Py_ssize_t count = PyTuple_Size(objects);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *object = PyTuple_GetItem(objects, i); /* borrowed */
        if (Py_TYPE(object) != ring->state->packet_type) {
            PyErr_Format(PyExc_TypeError, "put_many() takes a PacketBatch or Packets, not %R", Py_TYPE(object));
            return -1;
        }
        packets[i] = (struct packet_object *)object;
        if (check_pool(ring, packets[i]->pool, "packet is") < 0)
            return -1;
        if (!packet_check(packets[i])) {
            packet_raise_stale(packets[i]);
            return -1;
        }
        handles[i] = packets[i]->handle;
    }
    return 0;
}

/* `objects` is a tuple: nobody changes it while the call sleeps. -1 with an exception set. */
static int put_collected(struct ring_object *ring, PyObject *objects, bool keep, int64_t timeout_ns)
{
    Py_ssize_t count = PyTuple_Size(objects);
    uint64_t *handles = PyMem_Calloc((size_t)count, sizeof(*handles));
    struct packet_object **packets = PyMem_Calloc((size_t)count, sizeof(struct packet_object *));
    int result = -EINVAL; /* with its exception */
    if (handles == NULL || packets == NULL) {
        PyErr_NoMemory();
    } else if (collect(ring, objects, handles, packets) == 0) {
        struct parcel parcel = {.handles = handles, .count = (uint32_t)count, .packets = packets};
        result = deliver(ring, &parcel, keep, timeout_ns);
    }
    PyMem_Free(handles);
    PyMem_Free(packets);
    return result;
}

static PyObject *put_tuple(struct ring_object *ring, PyObject *objects, bool keep, int64_t timeout_ns)
{
    if (!ring_begin(ring))
        return NULL;
    int result = 0;
    if (PyTuple_Size(objects) > 0)
        result = check_capacity(ring, PyTuple_Size(objects)) == 0 ? put_collected(ring, objects, keep, timeout_ns) : -EINVAL;
    ring_end(ring);
    if (result == 0)
        RETURN_NONE;
    return PyErr_Occurred() ? NULL : raise_ring(ring, result, true);
}

PyDoc_STRVAR(ring_put_many_doc,
"put_many($self, /, batch, block=True, timeout=None, *, keep=False)\n--\n\n"
"Hand over many packets at once: all of them, or none.\n\n"
"Parameters\n----------\n"
"batch : PacketBatch or iterable of Packet\n    At most as many as the ring's capacity. They arrive in this order.\n"
"block, timeout, keep\n    As for put().\n\n"
"Raises\n------\n"
"ValueError\n    There are more than the ring's capacity, one of them stands there twice, is queued already, or is of another\n"
"    pool.\n"
"RingFull, RingShutDown, RingBusy, PermissionError, StaleHandle\n    As for put().");

static PyObject *ring_put_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"put_many", {KEYWORD_batch, KEYWORD_block, KEYWORD_timeout, KEYWORD_keep}, 4, 3, 1};
    PyObject *values[4];
    int64_t timeout_ns;
    bool keep = false;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        argument_wait(values[1], values[2], &timeout_ns) < 0 || argument_flag(values[3], &keep) < 0)
        return NULL;
    if (Py_TYPE(values[0]) == self->state->batch_type)
        return put_batch(self, (struct batch_object *)values[0], keep, timeout_ns);
    PyObject *packets = Py_TYPE(values[0]) == self->state->packet_type ? NULL : PySequence_Tuple(values[0]);
    if (packets == NULL)
        return PyErr_Occurred() ? NULL
                                : PyErr_Format(PyExc_TypeError, "put_many() takes a PacketBatch or Packets; put() takes one Packet");
    PyObject *result = put_tuple(self, packets, keep, timeout_ns);
    Py_DECREF(packets);
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
    if (result != -SSM_E_EXHAUSTED || timeout_ns == 0)
        return result;
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    result = ssm_alloc(ring->pool->core, size, timeout_ns, handle_out);
    wait_end(&scope);
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
    return raise_ring(ring, code, true);
}

static PyObject *send(struct ring_object *ring, const Py_buffer *source, int64_t timeout_ns)
{
    int64_t since_ns = timeout_ns > 0 ? now_ns() : 0;
    uint64_t handle;
    struct parcel parcel = {.handles = &handle, .count = 1};
    if (!ring_begin(ring))
        return NULL;
    int result = alloc_for(ring, (uint64_t)source->len, timeout_ns, &handle);
    if (result == 0) {
        result = copy_in(ring->pool, handle, source);
        if (result == 0)
            result = deliver(ring, &parcel, false, remaining(timeout_ns, since_ns));
        if (result != 0 || parcel.kept)
            ssm_free(ring->pool->core, handle);
    }
    ring_end(ring);
    if (result == 0)
        RETURN_NONE;
    return raise_send(ring, result, (uint64_t)source->len);
}

PyDoc_STRVAR(ring_send_doc,
"send($self, /, data, block=True, timeout=None)\n--\n\n"
"Copy `data` into a packet and put it.\n\n"
"Parameters\n----------\n"
"data : bytes or any buffer\n    Up to `pool.max_size` bytes; may be empty.\n"
"block : bool\n    Whether to wait, for a block and for a slot in the ring.\n"
"timeout : float or None\n    Seconds to wait for both together; ``None`` waits for ever.\n\n"
"Raises\n------\n"
"PoolExhausted\n    No block came free in `timeout`.\n"
"PacketTooLarge\n    No size class has blocks large enough.\n"
"RingFull, RingShutDown, RingBusy, PermissionError\n    As for put(). The block went back to the pool.");

static PyObject *ring_send(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"send", {KEYWORD_data, KEYWORD_block, KEYWORD_timeout}, 3, 3, 1};
    PyObject *values[3] = {nargs == 1 ? args[0] : NULL};
    int64_t timeout_ns = SSM_FOREVER;
    Py_buffer source;
    if ((nargs != 1 || kwnames != NULL) && (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
                                            argument_wait(values[1], values[2], &timeout_ns) < 0))
        return NULL;
    if (PyObject_GetBuffer(values[0], &source, PyBUF_FULL_RO) < 0)
        return NULL;
    PyObject *result = send(self, &source, timeout_ns);
    PyBuffer_Release(&source);
    return result;
}

/* ---- get ------------------------------------------------------------------------------------------ */

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
    result = ssm_ring_get(ring->core, handles_out, count, timeout_ns);
    wait_end(&scope);
    return result;
}

/* The common case: there is one. All of it under the lock, as in put_at_once(). */
static int get_at_once(struct ring_object *ring, struct packet_object *packet)
{
    uint64_t handle;
    int result;
    POOL_LOCK(ring->pool)
    result = ring->closed || ring->pool->closed ? -SSM_E_CLOSED : ssm_ring_get(ring->core, &handle, 1, 0);
    if (result == 1)
        packet_adopt(packet, handle);
    POOL_UNLOCK()
    return result;
}

/* Called inside ring_begin() .. ring_end(). */
static int get_waiting(struct ring_object *ring, struct packet_object *packet, int64_t timeout_ns)
{
    uint64_t handle;
    int result = take(ring, &handle, 1, timeout_ns);
    if (result == 1)
        packet_adopt(packet, handle);
    return result;
}

/* The object is made first: a packet that was taken out is never lost for want of memory. NULL without an exception
 * at the end of an iteration. */
static PyObject *get_one(struct ring_object *ring, int64_t timeout_ns, bool iterating)
{
    struct packet_object *packet = packet_new(ring->pool);
    if (packet == NULL)
        return NULL;
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
    return iterating && result == -SSM_E_SHUTDOWN ? NULL : raise_ring(ring, result, false);
}

PyDoc_STRVAR(ring_get_doc,
"get($self, /, block=True, timeout=None)\n--\n\n"
"Take the next packet out.\n\n"
"Parameters\n----------\n"
"block : bool\n    Whether to wait while the ring is empty.\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n\n"
"Returns\n-------\n"
"Packet\n    This process holds it now.\n\n"
"Raises\n------\n"
"RingEmpty\n    No packet came in `timeout`.\n"
"RingShutDown\n    The ring is shut down, and drained.\n"
"RingBusy\n    The ring has ``consumers=\"one\"``, and that is another live process.");

static PyObject *ring_get(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"get", {KEYWORD_block, KEYWORD_timeout}, 2, 2, 0};
    PyObject *values[2];
    int64_t timeout_ns = SSM_FOREVER;
    if ((nargs != 0 || kwnames != NULL) && (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
                                            argument_wait(values[0], values[1], &timeout_ns) < 0))
        return NULL;
    return get_one(self, timeout_ns, false);
}

PyDoc_STRVAR(ring_get_nowait_doc,
"get_nowait($self, /)\n--\n\n"
"get() that does not wait.");

static PyObject *ring_get_nowait(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    return get_one(self, 0, false);
}

static PyObject *ring_next(struct ring_object *self)
{
    return get_one(self, SSM_FOREVER, true);
}

static PyObject *get_batch(struct ring_object *ring, uint32_t count, int64_t timeout_ns)
{
    if (!ring_begin(ring))
        return NULL;
    uint32_t capacity = ssm_ring_capacity(ring->core), room = count < capacity ? count : capacity;
    struct batch_object *batch = batch_new(ring->pool, room);
    int result = batch != NULL ? take(ring, batch->handles, room, timeout_ns) : -ENOMEM;
    if (result > 0)
        batch_adopt(batch, (uint32_t)result);
    ring_end(ring);
    if (result > 0)
        return OBJECT(batch);
    if (batch == NULL)
        return NULL;
    Py_DECREF(OBJECT(batch));
    return raise_ring(ring, result, false);
}

PyDoc_STRVAR(ring_get_many_doc,
"get_many($self, /, n, block=True, timeout=None)\n--\n\n"
"Take up to `n` packets out: waits for the first, not for the others.\n\n"
"Parameters\n----------\n"
"n : int\n    At least 1.\n"
"block, timeout\n    As for get().\n\n"
"Returns\n-------\n"
"PacketBatch\n    1 .. `n` packets, in order.\n\n"
"Raises\n------\n"
"RingEmpty, RingShutDown, RingBusy\n    As for get().");

static PyObject *ring_get_many(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"get_many", {KEYWORD_n, KEYWORD_block, KEYWORD_timeout}, 3, 3, 1};
    PyObject *values[3];
    int64_t timeout_ns;
    uint64_t count;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        argument_wait(values[1], values[2], &timeout_ns) < 0)
        return NULL;
    int range = argument_u64(values[0], &count);
    if (range < 0)
        return NULL;
    if (range == 1 || (range == 0 && count == 0))
        return PyErr_Format(PyExc_ValueError, "n must be 1 or more packets, not %S", values[0]);
    return get_batch(self, range == 2 || count > UINT32_MAX ? UINT32_MAX : (uint32_t)count, timeout_ns);
}

/* ---- the rest ------------------------------------------------------------------------------------- */

PyDoc_STRVAR(ring_shutdown_doc,
"shutdown($self, /, immediate=False)\n--\n\n"
"End the ring for every process, as queue.Queue.shutdown() does: put() raises RingShutDown from now on, get() does so\n"
"once the ring is drained.\n\n"
"Parameters\n----------\n"
"immediate : bool\n    Free what is queued, so that get() raises at once.");

static PyObject *ring_shutdown(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"shutdown", {KEYWORD_immediate}, 1, 1, 0};
    PyObject *values[1];
    bool immediate = false;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 || argument_flag(values[0], &immediate) < 0 ||
        !ring_begin(self))
        return NULL;
    int result = ssm_ring_shutdown(self->core, immediate);
    ring_end(self);
    if (result < 0)
        return raise_ring(self, result, true);
    RETURN_NONE;
}

static Py_ssize_t ring_length(struct ring_object *self)
{
    if (!ring_begin(self))
        return -1;
    uint32_t depth = ssm_ring_depth(self->core);
    ring_end(self);
    return depth;
}

PyDoc_STRVAR(ring_qsize_doc, "qsize($self, /)\n--\n\nPackets queued now, as len().");

static PyObject *ring_qsize(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t depth = ring_length(self);
    return depth < 0 ? NULL : PyLong_FromSsize_t(depth);
}

PyDoc_STRVAR(ring_empty_doc, "empty($self, /)\n--\n\nTrue when no packet is queued now; another process may change that at once.");

static PyObject *ring_empty(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t depth = ring_length(self);
    return depth < 0 ? NULL : PyBool_FromLong(depth == 0);
}

static PyObject *ring_get_capacity(struct ring_object *self, void *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    uint32_t capacity = ssm_ring_capacity(self->core);
    ring_end(self);
    return PyLong_FromUnsignedLong(capacity);
}

PyDoc_STRVAR(ring_full_doc, "full($self, /)\n--\n\nTrue when no slot is free now; another process may change that at once.");

static PyObject *ring_full(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    bool full = ssm_ring_room(self->core) == 0;
    ring_end(self);
    return PyBool_FromLong(full);
}

static PyObject *ring_get_acl(struct ring_object *self, void *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    uint32_t acl = ssm_ring_acl(self->core);
    ring_end(self);
    return PyObject_CallFunction(self->state->acl_type, "I", acl);
}

static int ring_set_acl(struct ring_object *self, PyObject *value, void *unused)
{
    (void)unused;
    uint64_t acl;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a ring's acl cannot be deleted; set it to Acl.RDWR");
        return -1;
    }
    int range = argument_u64(value, &acl);
    if (range < 0)
        return -1;
    if (range > 0 || acl & ~(uint64_t)(SSM_ACL_RDONLY | SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER)) {
        PyErr_Format(PyExc_ValueError, "acl is made of Acl.RDWR, RDONLY, FLOWDOWN and FLOWPEER, not %R", value);
        return -1;
    }
    if (!ring_begin(self))
        return -1;
    int result = ssm_ring_set_acl(self->core, (uint32_t)acl);
    ring_end(self);
    if (result < 0)
        raise_ring(self, result, true);
    return result < 0 ? -1 : 0;
}

static PyObject *ring_get_name(struct ring_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(self->name);
    return self->name;
}

static PyObject *ring_get_pool(struct ring_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(OBJECT(self->pool));
    return OBJECT(self->pool);
}

/* The closure is the flag. */
static PyObject *ring_get_side(struct ring_object *self, void *flag)
{
    if (!ring_begin(self))
        return NULL;
    uint32_t flags = ssm_ring_flags(self->core);
    ring_end(self);
    return PyUnicode_FromString(flags & (uint32_t)(uintptr_t)flag ? "one" : "many");
}

static PyObject *ring_get_redeliver(struct ring_object *self, void *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    uint32_t flags = ssm_ring_flags(self->core);
    ring_end(self);
    return PyBool_FromLong(flags & SSM_REDELIVER);
}

static PyObject *ring_repr(struct ring_object *self)
{
    if (!ring_begin(self)) {
        PyErr_Clear();
        return PyUnicode_FromFormat("<ssm.Ring %R of pool %R: closed>", self->name, self->pool->name);
    }
    uint32_t depth = ssm_ring_depth(self->core), capacity = ssm_ring_capacity(self->core);
    ring_end(self);
    return PyUnicode_FromFormat("<ssm.Ring %R of pool %R: %u of %u>", self->name, self->pool->name, depth, capacity);
}

/* ---- awaiting (ready.c) ----------------------------------------------------------------------------- */

PyDoc_STRVAR(ring_aget_doc,
"aget($self, /)\n--\n\n"
"get() that is awaited: the event loop goes on while the ring is empty.");

static PyObject *ring_aget(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    return ring_async(self, "get", NULL, NULL);
}

PyDoc_STRVAR(ring_aget_many_doc,
"aget_many($self, /, n)\n--\n\n"
"get_many() that is awaited.");

static PyObject *ring_aget_many(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_async(self, "get_many", args, kwargs);
}

PyDoc_STRVAR(ring_aput_doc,
"aput($self, /, pkt, *, keep=False)\n--\n\n"
"put() that is awaited: the event loop goes on while the ring is full.");

static PyObject *ring_aput(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_async(self, "put", args, kwargs);
}

static PyObject *ring_anext(struct ring_object *self)
{
    return ring_async(self, "next_packet", NULL, NULL);
}

static PyGetSetDef ring_attributes[] = {
    {"name", (getter)ring_get_name, NULL, "str : its name in the pool.", NULL},
    {"pool", (getter)ring_get_pool, NULL, "Pool : that it was opened through.", NULL},
    {"capacity", (getter)ring_get_capacity, NULL, "int : packets that it takes.", NULL},
    {"producers", (getter)ring_get_side, NULL, "str : \"one\" process puts, or \"many\".", (void *)(uintptr_t)SSM_ONE_PRODUCER},
    {"consumers", (getter)ring_get_side, NULL, "str : \"one\" process gets, or \"many\".", (void *)(uintptr_t)SSM_ONE_CONSUMER},
    {"redeliver", (getter)ring_get_redeliver, NULL, "bool : what a dead process had taken comes out once more.", NULL},
    {"acl", (getter)ring_get_acl, (setter)ring_set_acl, "Acl : flags for every process; setting them wakes those who wait.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef ring_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct ring_object, weakrefs), READONLY, NULL},
    {"closed", T_BOOL, offsetof(struct ring_object, closed), READONLY, "bool : close() was called."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef ring_methods[] = {
    {"put", FAST(ring_put), METH_FASTCALL | METH_KEYWORDS, ring_put_doc},
    {"put_nowait", FAST(ring_put_nowait), METH_FASTCALL | METH_KEYWORDS, ring_put_nowait_doc},
    {"put_many", FAST(ring_put_many), METH_FASTCALL | METH_KEYWORDS, ring_put_many_doc},
    {"send", FAST(ring_send), METH_FASTCALL | METH_KEYWORDS, ring_send_doc},
    {"get", FAST(ring_get), METH_FASTCALL | METH_KEYWORDS, ring_get_doc},
    {"get_nowait", (PyCFunction)ring_get_nowait, METH_NOARGS, ring_get_nowait_doc},
    {"get_many", FAST(ring_get_many), METH_FASTCALL | METH_KEYWORDS, ring_get_many_doc},
    {"aget", (PyCFunction)ring_aget, METH_NOARGS, ring_aget_doc},
    {"aget_many", (PyCFunction)(void (*)(void))ring_aget_many, METH_VARARGS | METH_KEYWORDS, ring_aget_many_doc},
    {"aput", (PyCFunction)(void (*)(void))ring_aput, METH_VARARGS | METH_KEYWORDS, ring_aput_doc},
    {"shutdown", FAST(ring_shutdown), METH_FASTCALL | METH_KEYWORDS, ring_shutdown_doc},
    {"qsize", (PyCFunction)ring_qsize, METH_NOARGS, ring_qsize_doc},
    {"empty", (PyCFunction)ring_empty, METH_NOARGS, ring_empty_doc},
    {"full", (PyCFunction)ring_full, METH_NOARGS, ring_full_doc},
    {"close", (PyCFunction)ring_close, METH_NOARGS, ring_close_doc},
    {NULL, NULL, 0, NULL},
};

PyDoc_STRVAR(ring_doc,
"A queue of packets between processes, in the pool's memory; made by `Pool.ring`.\n\n"
"Methods are those of queue.Queue. ``for packet in ring`` ends when the ring is shut down and drained. A Ring can be\n"
"sent to other processes (fork, forkserver, spawn): they attach to the pool and open the ring by name.");

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, (void *)ring_doc},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_repr, ring_repr},
    {Py_tp_methods, ring_methods},
    {Py_tp_members, ring_members},
    {Py_tp_getset, ring_attributes},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ring_next},
    {Py_mp_length, ring_length},
    {Py_am_aiter, PyObject_SelfIter},
    {Py_am_anext, ring_anext},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "ssm.Ring",
    .basicsize = sizeof(struct ring_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = ring_slots,
};

int ring_exec(PyObject *module, struct module_state *state)
{
    state->ring_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    return state->ring_type == NULL ? -1 : PyModule_AddType(module, state->ring_type);
}
