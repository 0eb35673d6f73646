/* SPDX-License-Identifier: Apache-2.0
 *
 * The lowest part of a Packet: its reference to the core's packet, the views that pin it, and its errors. And Span, a pinned
 * stretch of a packet: what partial memoryviews and numpy arrays keep alive. */
#include "binding.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

#define RETURN_TRIES  100 /* while another process is at the registry, */
#define RETURN_NAP_NS 5000000
#define SPARE_MAX     256 /* dead Packets kept for reuse: 5 ns less for alloc + drop */

/* ---- life ---------------------------------------------------------------------------------------- */

#ifdef Py_GIL_DISABLED
/* mimalloc's heaps are per thread already: nothing is gained by keeping objects. */
static struct packet_object *take_spare(struct module_state *state)
{
    return PyObject_New(struct packet_object, state->packet_type);
}

void packet_keep_spare(struct packet_object *packet)
{
    PyObject_Free(packet);
}

void packet_clear_spare(struct module_state *state)
{
    (void)state;
}
#else
static struct packet_object *take_spare(struct module_state *state)
{
    struct packet_object *packet = state->spare;
    if (packet == NULL)
        return PyObject_New(struct packet_object, state->packet_type);
    state->spare = (struct packet_object *)packet->pool;
    state->spare_count--;
    return (struct packet_object *)PyObject_Init(OBJECT(packet), state->packet_type);
}

void packet_keep_spare(struct packet_object *packet)
{
    struct module_state *state = packet->state;
    if (state->spare_count >= SPARE_MAX) {
        PyObject_Free(packet);
        return;
    }
    packet->pool = (struct pool_object *)state->spare;
    state->spare = packet;
    state->spare_count++;
}

void packet_clear_spare(struct module_state *state)
{
    while (state->spare != NULL) {
        struct packet_object *packet = state->spare;
        state->spare = (struct packet_object *)packet->pool;
        PyObject_Free(packet);
    }
    state->spare_count = SPARE_MAX; /* Packets that die after the module are not kept */
}
#endif

struct packet_object *packet_new(struct pool_object *pool)
{
    struct packet_object *packet = take_spare(pool->state);
    if (packet == NULL)
        return NULL;
    Py_INCREF(OBJECT(pool));
    packet->state = pool->state;
    packet->pool = pool;
    packet->exports = 0;
    packet->status = PACKET_EMPTY;
    packet->readonly = false;
    return packet;
}

void packet_adopt(struct packet_object *packet, uint64_t handle, uint64_t delivery)
{
    packet->handle = handle;
    packet->delivery = delivery;
    packet->era = *packet->pool->era;
    packet->status = PACKET_LIVE;
}

static bool finish_locked(struct packet_object *packet, enum packet_status status)
{
    if (!packet_is_live(packet))
        return false;
    packet->status = status;
    if (packet->exports == 0)
        ssm_free_of(packet->pool->core, packet->handle, packet->delivery, true);
    else
        ssm_delivery_done(packet->pool->core, packet->handle, packet->delivery);
    return true;
}

bool packet_finish(struct packet_object *packet)
{
    bool done;
    POOL_LOCK(packet->pool)
    done = finish_locked(packet, PACKET_FREED);
    POOL_UNLOCK()
    return done;
}

bool packets_return(struct pool_object *pool, const uint64_t *handles, uint32_t count, uint64_t delivery)
{
    const struct timespec nap = {.tv_nsec = RETURN_NAP_NS};
    bool all = true;
    for (uint32_t i = 0, tries = 0; i < count; i++, tries = 0) {
        int result;
        POOL_CALL(pool, result, ssm_delivery_return(pool->core, handles[i], delivery));
        while (result == -ETIMEDOUT && tries++ < RETURN_TRIES) {
            Py_BEGIN_ALLOW_THREADS
            nanosleep(&nap, NULL);
            Py_END_ALLOW_THREADS
            POOL_CALL(pool, result, ssm_delivery_return(pool->core, handles[i], delivery));
        }
        all = all && result != -ETIMEDOUT;
    }
    return all;
}

void packet_return(struct packet_object *packet)
{
    if (!packet_check(packet))
        return;
    const bool back = packets_return(packet->pool, &packet->handle, 1, packet->delivery);
    POOL_LOCK(packet->pool)
    if (back)
        finish_locked(packet, PACKET_RETURNED);
    else if (packet_is_live(packet))
        packet->status = PACKET_RETURNED; /* with its reference, until this process ends */
    POOL_UNLOCK()
}

void packet_sent(struct packet_object *packet, bool kept)
{
    if (kept)
        finish_locked(packet, PACKET_SENT);
    else
        packet->status = PACKET_SENT;
}

/* ---- errors -------------------------------------------------------------------------------------- */

static const char *why_stale(const struct packet_object *packet)
{
    if (packet->status == PACKET_FREED)
        return "was freed; take a new one with pool.alloc()";
    if (packet->status == PACKET_SENT)
        return "was put into a ring and belongs to its reader; ring.put(packet, keep=True) keeps it as well";
    if (packet->status == PACKET_RETURNED)
        return "went back to its ring: the block of its with statement raised an exception";
    if (packet->status == PACKET_LINKED)
        return "became a segment of a chain; the chain of its head has it";
    if (packet->pool->closed)
        return "went back when its pool was closed";
    if (packet->era != *packet->pool->era)
        return "belongs to the parent process; a forked child gets packets through a ring";
    return "is not held by this process any more";
}

PyObject *packet_raise_stale(const struct packet_object *packet)
{
    const char *why;
    char handle[32];
    POOL_LOCK(packet->pool)
    why = why_stale(packet);
    POOL_UNLOCK()
    snprintf(handle, sizeof(handle), "0x%016llx", (unsigned long long)packet->handle);
    return PyErr_Format(packet->state->ours[ERROR_StaleHandle], "packet %s of pool %R %s", handle, packet->pool->name,
                        why);
}

PyObject *packet_raise(const struct packet_object *packet, int code)
{
    if (code == -SSM_E_STALE || code == -SSM_E_CLOSED)
        return packet_raise_stale(packet);
    return raise_code(packet->pool, code);
}

int packet_raise_readonly(PyObject *class)
{
    PyErr_SetString(class,
                    "the packet was taken out with readonly=True; write to a copy, or take it without readonly=True");
    return -1;
}

/* ---- views --------------------------------------------------------------------------------------- */

static int export_locked(struct packet_object *packet, struct ssm_packet *window_out)
{
    struct pool_object *pool = packet->pool;
    if (!packet_is_live(packet))
        return -SSM_E_STALE;
    int result = ssm_packet_view(pool->core, packet->handle, window_out);
    if (result == 0 && packet->exports == 0)
        result = ssm_packet_pin(pool->core, packet->handle);
    if (result == 0) {
        packet->exports++;
        pool->exports++;
    }
    return result;
}

int packet_export(struct packet_object *packet, struct ssm_packet *window_out)
{
    int result;
    POOL_LOCK(packet->pool)
    result = export_locked(packet, window_out);
    POOL_UNLOCK()
    if (result == 0)
        return 0;
    packet_raise(packet, result);
    return -1;
}

void packet_unexport(struct packet_object *packet)
{
    struct pool_object *pool = packet->pool;
    POOL_LOCK(pool)
    if (--packet->exports == 0 && packet->era == *pool->era)
        ssm_packet_unpin(pool->core, packet->handle, packet->status != PACKET_LIVE);
    pool->exports--;
    pool_settle(pool);
    POOL_UNLOCK()
}

#ifndef Py_GIL_DISABLED
int packet_raise_unopened(struct packet_object *packet, int result)
{
    packet_raise(packet, result);
    return -1;
}
#endif

/* ---- Span ---------------------------------------------------------------------------------------- */

struct span_object *span_new(struct packet_object *packet)
{
    struct ssm_packet window;
    struct span_object *span = PyObject_New(struct span_object, packet->state->span_type);
    if (span == NULL)
        return NULL;
    span->packet = NULL;
    if (packet_export(packet, &window) < 0) {
        Py_DECREF(OBJECT(span));
        return NULL;
    }
    Py_INCREF(OBJECT(packet));
    span->packet = packet;
    span->data = window.data;
    span->length = (Py_ssize_t)window.length;
    return span;
}

static void span_dealloc(struct span_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    if (self->packet != NULL) {
        packet_unexport(self->packet);
        Py_DECREF(OBJECT(self->packet));
    }
    PyObject_Free(self);
    Py_DECREF(OBJECT(type));
}

static int span_getbuffer(struct span_object *self, Py_buffer *view, int flags)
{
    return PyBuffer_FillInfo(view, OBJECT(self), self->data, self->length, self->packet->readonly, flags);
}

static PyType_Slot span_slots[] = {
    {Py_tp_doc, "A stretch of a packet's bytes; keeps its block out of the pool for as long as it lives."},
    {Py_tp_dealloc, span_dealloc},
    {Py_bf_getbuffer, span_getbuffer},
    {0, NULL},
};

PyType_Spec span_spec = {
    .name = "ssm._core.Span",
    .basicsize = sizeof(struct span_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .slots = span_slots,
};
