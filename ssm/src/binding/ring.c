/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.Ring: a queue of packets between processes, with the manners of queue.Queue. Here: its errors, its life, its look;
 * ring_put.c puts, ring_get.c gets. A call tries once without waiting, then, where it may wait, again with the time-out. */
#include "ring.h"

#include <errno.h>

/* ---- errors -------------------------------------------------------------------------------------- */

static PyObject *raise_ring_closed(const struct ring_object *ring)
{
    if (ring->pool->closed)
        return raise_closed(ring->pool);
    return PyErr_Format(PyExc_ValueError, "ring is closed: %R of pool %R; open it again with pool.ring()", ring->name,
                        ring->pool->name);
}

/* The figures of this moment; ssm/errors.py makes the words when somebody reads them. */
static PyObject *raise_state(struct ring_object *ring, enum error_class class)
{
    PyObject *figures[3] = {NULL}, *arguments = NULL;
    if (!ring_begin(ring))
        return NULL;
    figures[0] = PyLong_FromUnsignedLong(ssm_ring_capacity(ring->core));
    figures[1] = PyLong_FromUnsignedLong(ssm_ring_depth(ring->core));
    figures[2] = PyLong_FromUnsignedLong(ssm_ring_acl(ring->core));
    ring_end(ring);
    if (figures[0] != NULL && figures[1] != NULL && figures[2] != NULL)
        arguments = PyTuple_Pack(4, ring->name, figures[0], figures[1], figures[2]);
    if (arguments != NULL)
        PyErr_SetObject(ring->state->errors[class], arguments);
    Py_XDECREF(arguments);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(figures[i]);
    return NULL;
}

PyObject *ring_raise(struct ring_object *ring, int code, bool putting)
{
    switch (-code) {
    case SSM_E_FULL:
        return raise_state(ring, ERROR_RingFull);
    case SSM_E_EMPTY:
        return raise_state(ring, ERROR_RingEmpty);
    case SSM_E_SHUTDOWN:
        return raise_state(ring, ERROR_RingShutDown);
    case SSM_E_QUEUED:
        return PyErr_Format(PyExc_ValueError,
                            "the packet is queued in ring %R already, and a ring takes it once; put it again when it was taken "
                            "out (where ring.redeliver: and freed), or into another ring",
                            ring->name);
    case SSM_E_SEGMENT:
        return PyErr_Format(PyExc_ValueError,
                            "the packet is a segment of a chain and goes into ring %R with its head only; put the head, or take "
                            "the segments out with head.chain = ()",
                            ring->name);
    case SSM_E_CHAIN:
        return PyErr_Format(PyExc_ValueError,
                            "a chain goes whole and from hand to hand: put it into ring %R without keep=True, and into no ring "
                            "with redeliver=True; or take the segments out with packet.chain = ()",
                            ring->name);
    case SSM_E_SHARED:
        return PyErr_Format(PyExc_ValueError,
                            "a chain goes whole, and this process has another Packet of its head or of a segment: free those "
                            "that .chain gave, then put it into ring %R",
                            ring->name);
    case SSM_E_PINNED:
        return PyErr_Format(PyExc_BufferError,
                            "a chain goes whole, and there are views or arrays of its head or of a segment: release them, then "
                            "put it into ring %R",
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

/* The core's ring goes first: a callback of a weak reference may open the ring anew, and claim its sides. */
static void ring_dealloc(struct ring_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    POOL_LOCK(self->pool)
    ring_settle(self);
    POOL_UNLOCK()
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(OBJECT(self));
    Py_XDECREF(self->reference);
    Py_DECREF(OBJECT(self->pool));
    Py_DECREF(self->name);
    PyObject_Free(self);
    Py_DECREF(OBJECT(type));
}

/* A new reference; NULL: it is being deallocated. */
static PyObject *strong_reference(const struct ring_object *ring)
{
#ifdef Py_GIL_DISABLED
    PyObject *object;
    return PyWeakref_GetRef(ring->reference, &object) == 1 ? object : NULL;
#else
    PyObject *object = PyWeakref_GetObject(ring->reference); /* borrowed */
    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

/* A new reference to the open Ring of that name, or NULL. With POOL_LOCK; runs no Python code. */
static PyObject *find_open(const struct pool_object *pool, PyObject *name)
{
    PyObject *found = NULL;
    for (struct ring_object *ring = pool->rings; ring != NULL && found == NULL && !pool->closed; ring = ring->next)
        if (!ring->closed && PyUnicode_Compare(ring->name, name) == 0)
            found = strong_reference(ring);
    return found;
}

PyObject *ring_opened(struct pool_object *pool, PyObject *name)
{
    PyObject *found;
    POOL_LOCK(pool)
    found = find_open(pool, name);
    POOL_UNLOCK()
    return found != NULL ? found : Py_NewRef(Py_None);
}

/* Takes over the core's ring; or gives it up for the Ring that another thread, or a signal handler, opened while the core
 * slept: a new reference to that. With POOL_LOCK. */
static PyObject *take_over(struct ring_object *ring, struct ssm_ring *core)
{
    PyObject *other = find_open(ring->pool, ring->name);
    if (other != NULL) {
        ssm_ring_close_spare(core);
        return other;
    }
    ring->core = core;
    link_ring(ring);
    return NULL;
}

PyObject *ring_open(struct pool_object *pool, PyObject *name, uint32_t capacity, uint32_t flags, const char *type)
{
    struct ssm_ring_options options = {.capacity = capacity, .flags = flags, .type = type};
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
    ring->reference = PyWeakref_NewRef(OBJECT(ring), NULL);
    if (ring->reference == NULL) {
        Py_DECREF(OBJECT(ring));
        return NULL;
    }
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    PyObject *other = NULL;
    if (wait_begin(&scope, pool, NULL)) {
        struct ssm_ring *core;
        POOL_LOCK(pool)
        result = ssm_ring_open(pool->core, text, &options, &core);
        if (result == 0)
            other = take_over(ring, core);
        POOL_UNLOCK()
        wait_end(&scope);
    }
    if (result == 0 && other == NULL)
        return OBJECT(ring);
    Py_DECREF(OBJECT(ring));
    if (other != NULL)
        return other;
    if (result == -SSM_E_MISMATCH)
        return PyErr_Format(pool->state->errors[ERROR_RingMismatch],
                            "ring %R of pool %R exists with another capacity, or other producers=, consumers=, redeliver=, overflow= or dtype=; "
                            "open it without them, or under another name",
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
        return ring_raise(self, result, true);
    RETURN_NONE;
}

PyDoc_STRVAR(ring_task_done_doc,
"task_done($self, /)\n--\n\n"
"Say that one packet that was taken out is dealt with, for those who join().\n\n"
"Raises\n------\n"
"ValueError\n    As many were said to be done as were ever put.");

static PyObject *ring_task_done(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    int result = ssm_ring_task_done(self->core);
    ring_end(self);
    if (result == -EINVAL)
        return PyErr_Format(PyExc_ValueError,
                            "task_done() was called more often than packets were put into ring %R; call it once for each that "
                            "was taken out",
                            self->name);
    if (result < 0)
        return ring_raise(self, result, false);
    RETURN_NONE;
}

PyDoc_STRVAR(ring_join_doc,
"join($self, /, timeout=None)\n--\n\n"
"Wait until task_done() was said as often as packets were put.\n\n"
"Packets that a shutdown discards are done. One that a process had taken when it died is so when somebody says it in its\n"
"place, as the worker that gets it once more does where the ring has ``redeliver=True``.\n\n"
"Parameters\n----------\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n\n"
"Returns\n-------\n"
"bool\n    False: not all were done in `timeout`.");

/* Called inside ring_begin() .. ring_end(). */
static int join(struct ring_object *ring, int64_t timeout_ns)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    int result = ssm_ring_join(ring->core, timeout_ns);
    wait_end(&scope);
    return result;
}

static PyObject *ring_join(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"join", {KEYWORD_timeout}, 1, 1, 0};
    PyObject *values[1];
    int64_t timeout_ns = SSM_FOREVER;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        (values[0] != NULL && argument_timeout(values[0], &timeout_ns) < 0) || !ring_begin(self))
        return NULL;
    int result = join(self, timeout_ns);
    ring_end(self);
    return result == 0 || result == -ETIMEDOUT ? PyBool_FromLong(result == 0) : ring_raise(self, result, false);
}

static PyObject *ring_get_unfinished(struct ring_object *self, void *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    uint64_t unfinished = ssm_ring_unfinished(self->core);
    ring_end(self);
    return PyLong_FromUnsignedLongLong(unfinished);
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
        ring_raise(self, result, true);
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

static PyObject *ring_get_overflow(struct ring_object *self, void *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    uint32_t flags = ssm_ring_flags(self->core);
    ring_end(self);
    return PyUnicode_FromString(flags & SSM_OVERFLOW_DROP        ? "drop"
                                : flags & SSM_OVERFLOW_OVERWRITE ? "overwrite"
                                                                 : "block");
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
"aget($self, /, *, readonly=False)\n--\n\n"
"get() that is awaited: the event loop goes on while the ring is empty.");

static PyObject *ring_aget(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.aio", "get", args, kwargs);
}

PyDoc_STRVAR(ring_aget_many_doc,
"aget_many($self, /, n, *, readonly=False)\n--\n\n"
"get_many() that is awaited.");

static PyObject *ring_aget_many(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.aio", "get_many", args, kwargs);
}

PyDoc_STRVAR(ring_aput_doc,
"aput($self, /, pkt, *, keep=False)\n--\n\n"
"put() that is awaited: the event loop goes on while the ring is full.");

static PyObject *ring_aput(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.aio", "put", args, kwargs);
}

static PyObject *ring_anext(struct ring_object *self)
{
    return ring_in_python(self, "ssm.aio", "next_packet", NULL, NULL);
}

/* ---- records (ssm/records.py) ------------------------------------------------------------------------- */

PyDoc_STRVAR(ring_send_record_doc,
"send_record($self, /, value, block=True, timeout=None)\n--\n\n"
"send() of one record of the ring's `dtype`.\n\n"
"Parameters\n----------\n"
"value : tuple, numpy record or whatever numpy assigns to that dtype\n"
"block, timeout\n    As for put().\n\n"
"Returns\n-------\n"
"bool\n    The record is in the ring; see put().\n\n"
"Raises\n------\n"
"TypeError, ValueError\n    The value does not fit the dtype, or the ring has none.");

static PyObject *ring_send_record(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.records", "send_record", args, kwargs);
}

PyDoc_STRVAR(ring_send_records_doc,
"send_records($self, /, array, block=True, timeout=None)\n--\n\n"
"Send the records of an array, each as a packet of its own, copied by one loop in C; in batches, each as by put_many().\n\n"
"Returns\n-------\n"
"int\n    How many went in, from the front: all, but for a ring that drops, or one that became full, was shut down or ran\n"
"    out of packets behind some batches. What raises at the first batch, raises: then none went in.");

static PyObject *ring_send_records(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.records", "send_records", args, kwargs);
}

PyDoc_STRVAR(ring_get_record_doc,
"get_record($self, /, block=True, timeout=None)\n--\n\n"
"get() of one record.\n\n"
"Returns\n-------\n"
"numpy.void or numpy scalar\n    A structured one is a view of the packet, which it keeps.\n\n"
"Raises\n------\n"
"RecordMismatch\n    A packet of another size was there; the exception has it, as `packet`.");

static PyObject *ring_get_record(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.records", "get_record", args, kwargs);
}

PyDoc_STRVAR(ring_get_records_doc,
"get_records($self, /, n, block=True, timeout=None)\n--\n\n"
"get_many() of records, copied into one array by one loop in C.\n\n"
"Returns\n-------\n"
"numpy.ndarray\n    Shape ``(k,)`` of the ring's dtype, 1 <= k <= n.\n\n"
"Raises\n------\n"
"RecordMismatch\n    One had another size; the exception has all of them, as `packet`: a PacketBatch.");

static PyObject *ring_get_records(struct ring_object *self, PyObject *args, PyObject *kwargs)
{
    return ring_in_python(self, "ssm.records", "get_records", args, kwargs);
}

static PyObject *ring_get_dtype(struct ring_object *self, void *unused)
{
    (void)unused;
    return ring_in_python(self, "ssm.records", "dtype_of", NULL, NULL);
}

static PyObject *ring_get_type(struct ring_object *self, void *unused)
{
    (void)unused;
    char text[SSM_TYPE_SIZE];
    if (!ring_begin(self))
        return NULL;
    int bytes = ssm_ring_type(self->core, text);
    ring_end(self);
    return bytes < 0 ? ring_raise(self, bytes, false) : PyUnicode_DecodeUTF8(text, bytes, "backslashreplace");
}

static PyGetSetDef ring_attributes[] = {
    {"name", (getter)ring_get_name, NULL, "str : its name in the pool.", NULL},
    {"pool", (getter)ring_get_pool, NULL, "Pool : that it was opened through.", NULL},
    {"capacity", (getter)ring_get_capacity, NULL, "int : packets that it takes.", NULL},
    {"producers", (getter)ring_get_side, NULL, "str : \"one\" process puts, or \"many\".", (void *)(uintptr_t)SSM_ONE_PRODUCER},
    {"consumers", (getter)ring_get_side, NULL, "str : \"one\" process gets, or \"many\".", (void *)(uintptr_t)SSM_ONE_CONSUMER},
    {"redeliver", (getter)ring_get_redeliver, NULL, "bool : what a dead process had taken comes out once more.", NULL},
    {"overflow", (getter)ring_get_overflow, NULL,
     "str : what a put does that finds it full: \"block\" waits, \"drop\" frees the new packet, \"overwrite\" the oldest.", NULL},
    {"dtype", (getter)ring_get_dtype, NULL, "numpy.dtype or None : of the records in its packets, as given to `Pool.ring`.", NULL},
    {"_type", (getter)ring_get_type, NULL, "str : the text that says so.", NULL},
    {"unfinished", (getter)ring_get_unfinished, NULL, "int : packets that were put and are not said to be done; see task_done().", NULL},
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
    {"get_nowait", FAST(ring_get_nowait), METH_FASTCALL | METH_KEYWORDS, ring_get_nowait_doc},
    {"get_many", FAST(ring_get_many), METH_FASTCALL | METH_KEYWORDS, ring_get_many_doc},
    {"send_record", (PyCFunction)(void (*)(void))ring_send_record, METH_VARARGS | METH_KEYWORDS, ring_send_record_doc},
    {"send_records", (PyCFunction)(void (*)(void))ring_send_records, METH_VARARGS | METH_KEYWORDS, ring_send_records_doc},
    {"get_record", (PyCFunction)(void (*)(void))ring_get_record, METH_VARARGS | METH_KEYWORDS, ring_get_record_doc},
    {"get_records", (PyCFunction)(void (*)(void))ring_get_records, METH_VARARGS | METH_KEYWORDS, ring_get_records_doc},
    {"aget", (PyCFunction)(void (*)(void))ring_aget, METH_VARARGS | METH_KEYWORDS, ring_aget_doc},
    {"aget_many", (PyCFunction)(void (*)(void))ring_aget_many, METH_VARARGS | METH_KEYWORDS, ring_aget_many_doc},
    {"aput", (PyCFunction)(void (*)(void))ring_aput, METH_VARARGS | METH_KEYWORDS, ring_aput_doc},
    {"shutdown", FAST(ring_shutdown), METH_FASTCALL | METH_KEYWORDS, ring_shutdown_doc},
    {"task_done", (PyCFunction)ring_task_done, METH_NOARGS, ring_task_done_doc},
    {"join", FAST(ring_join), METH_FASTCALL | METH_KEYWORDS, ring_join_doc},
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
