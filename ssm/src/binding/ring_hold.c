/* SPDX-License-Identifier: Apache-2.0
 *
 * The lowest part of a Ring: its place among the rings of its Pool, the calls that keep the core's ring, and its errors. */
#include "ring.h"

#include <errno.h>
#include <string.h>

/* ---- errors -------------------------------------------------------------------------------------- */

static PyObject *raise_ring_closed(const struct ring_object *ring)
{
    if (ring->pool->closed)
        return raise_closed(ring->pool);
    return PyErr_Format(PyExc_ValueError, "ring is closed: %R of pool %R; open it again with pool.ring()", ring->name,
                        ring->pool->name);
}

/* The figures of this moment; ssm/errors.py makes the text when it is read. */
static PyObject *raise_state(struct ring_object *ring, enum ours class)
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
        PyErr_SetObject(ring->state->ours[class], arguments);
    Py_XDECREF(arguments);
    for (int i = 0; i < 3; i++)
        Py_XDECREF(figures[i]);
    return NULL;
}

/* How long ago, in words. */
static PyObject *age_text(uint64_t ago_ns)
{
    const unsigned long long tenths = ago_ns / 100000000;
    return PyUnicode_FromFormat("%llu.%llu s ago", tenths / 10, tenths % 10);
}

/* The process that was the ring's last producer, or consumer: which one, and what became of it. */
static PyObject *partner_text(const struct ssm_partner_info *partner)
{
    PyObject *name = PyUnicode_DecodeUTF8(partner->name, (Py_ssize_t)strlen(partner->name), "backslashreplace");
    PyObject *age = age_text(partner->gone_ns), *text = NULL;
    if (name != NULL && age != NULL && partner->pid == 0)
        text = PyUnicode_FromFormat("it is not known which process, found dead %U", age);
    else if (name != NULL && age != NULL && partner->gone_ns == 0) /* another one came since */
        text = PyUnicode_FromFormat("process %R (pid %u) has come since", name, partner->pid);
    else if (name != NULL && age != NULL)
        text = PyUnicode_FromFormat("process %R (pid %u) %s %U", name, partner->pid,
                                    partner->died ? "was found dead" : "closed it", age);
    Py_XDECREF(name);
    Py_XDECREF(age);
    return text;
}

/* The other side has no process left. */
static PyObject *raise_orphaned(struct ring_object *ring, bool putting)
{
    struct ssm_partner_info partner;
    if (!ring_begin(ring))
        return NULL;
    const uint32_t flags = ssm_ring_flags(ring->core);
    ssm_ring_partner(ring->core, putting ? SSM_READY_TO_PUT : SSM_READY_TO_GET, &partner);
    ring_end(ring);
    PyObject *who = partner_text(&partner);
    if (who == NULL)
        return NULL;
    const bool only = flags & (putting ? SSM_ONE_CONSUMER : SSM_ONE_PRODUCER);
    static const char advice[] = "one makes the ring usable again; with alive_for= calls wait so many seconds for it, "
                                 "and with peers=False for ever";
    if (putting)
        raise_os(ring->state->ours[ERROR_ConsumersGone], EPIPE,
                 "ring %R of pool %R is full, and its %s is gone: %U. The packets are yours as before. A new %s",
                 ring->name, ring->pool->name, only ? "only consumer" : "last consumer", who, advice);
    else
        PyErr_Format(ring->state->ours[ERROR_ProducersGone],
                     "ring %R of pool %R is empty, and its %s is gone: %U. A new %s", ring->name, ring->pool->name,
                     only ? "only producer" : "last producer", who, advice);
    Py_DECREF(who);
    return NULL;
}

PyObject *ring_raise(struct ring_object *ring, int code, bool putting)
{
    switch (-code) {
    case SSM_E_FULL:     return raise_state(ring, ERROR_RingFull);
    case SSM_E_EMPTY:    return raise_state(ring, ERROR_RingEmpty);
    case SSM_E_SHUTDOWN: return raise_state(ring, ERROR_RingShutDown);
    case SSM_E_ORPHANED: return raise_orphaned(ring, putting);
    case SSM_E_QUEUED:
        return PyErr_Format(
            PyExc_ValueError,
            "the packet is queued in ring %R already, and a ring takes it once; put it again when it was taken "
            "out (where ring.redeliver: and freed), or into another ring",
            ring->name);
    case SSM_E_DONE:
        return PyErr_Format(
            PyExc_ValueError,
            "done= takes packets that came out of a ring with redeliver=True and are not done yet, each once, and none "
            "that the call puts itself, whose put ends its delivery; nothing was put into ring %R",
            ring->name);
    case SSM_E_SEGMENT:
        return PyErr_Format(
            PyExc_ValueError,
            "the packet is a segment of a chain and goes into ring %R with its head only; put the head, or take "
            "the segments out with head.chain = ()",
            ring->name);
    case SSM_E_CHAIN:
        return PyErr_Format(
            PyExc_ValueError,
            "a chain goes whole and from hand to hand: put it into ring %R without keep=True, and into no ring "
            "with redeliver=True; or take the segments out with packet.chain = ()",
            ring->name);
    case SSM_E_SHARED:
        return PyErr_Format(
            PyExc_ValueError,
            "a chain goes whole, and this process has another Packet of its head or of a segment: free those "
            "that .chain gave, then put it into ring %R",
            ring->name);
    case SSM_E_PINNED:
        return PyErr_Format(
            PyExc_BufferError,
            "a chain goes whole, and there are views or arrays of its head or of a segment: release them, then "
            "put it into ring %R",
            ring->name);
    case SSM_E_RDONLY:
        return raise_os(PyExc_PermissionError, EACCES,
                        "ring %R is read-only (Acl.RDONLY); set ring.acl = Acl.RDWR to put", ring->name);
    case SSM_E_BUSY:
        return raise_os(
            ring->state->ours[ERROR_RingBusy], EBUSY,
            "the %s side of ring %R belongs to another live process (%s=\"one\"); it is free when that process "
            "closes the ring or ends",
            putting ? "producer" : "consumer", ring->name, putting ? "producers" : "consumers");
    case SSM_E_UNLINKED:
        return raise_os(PyExc_FileNotFoundError, ENOENT,
                        "ring %R was unlinked, and its last user had closed it before this forked process used it for "
                        "the first time; open the ring of that name with pool.ring()",
                        ring->name);
    case EINTR:
        if (PyErr_Occurred())
            return NULL;
        return raise_ring_closed(ring);
    default: return raise_code(ring->pool, code);
    }
}

int ring_check_pool(const struct ring_object *ring, const struct pool_object *pool, const char *what)
{
    if (ring->pool == pool)
        return 0;
    PyErr_Format(
        PyExc_ValueError,
        "the %s of pool %R (generation %llu, attachment %p), ring %R of pool %R (generation %llu, attachment %p): "
        "take both from one Pool object",
        what, pool->name, (unsigned long long)pool->info.generation, (const void *)pool, ring->name, ring->pool->name,
        (unsigned long long)ring->pool->info.generation, (const void *)ring->pool);
    return -1;
}

/* ---- holding ------------------------------------------------------------------------------------ */

void ring_link(struct ring_object *ring)
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
