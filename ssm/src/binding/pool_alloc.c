/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking packets from a pool, and the errors of it. What is exhausted waits in garbage.c. */
#include "binding.h"

#include <errno.h>

/* ---- errors ------------------------------------------------------------------------------------- */

/* Bytes of the largest block. */
static uint64_t largest_block(const struct pool_object *pool)
{
    const struct ssm_pool_info *info = &pool->info;
    return info->arena_bytes > 0 ? info->arena_bytes : info->classes[info->class_count - 1].block_size;
}

uint64_t pool_max_size(const struct pool_object *pool)
{
    uint64_t largest = largest_block(pool), overhead = (uint64_t)pool->info.headroom + pool->info.tailroom;
    return largest > overhead ? largest - overhead : 0;
}

/* How many packets of `size` bytes there can be at once, by their number alone; 0: none is so large. */
static uint64_t packets_of(const struct pool_object *pool, uint64_t size)
{
    const struct ssm_pool_info *info = &pool->info;
    uint64_t overhead = (uint64_t)info->headroom + info->tailroom;
    for (uint32_t i = 0; i < info->class_count; i++)
        if (size <= info->classes[i].block_size && overhead <= info->classes[i].block_size - size)
            return info->classes[i].block_count;
    return size <= info->arena_bytes && overhead <= info->arena_bytes - size ? info->arena_packets : 0;
}

PyObject *pool_raise_exhausted(struct pool_object *pool, uint64_t size, uint64_t count)
{
    return exhausted_raise(pool, PyLong_FromUnsignedLongLong(size), PyLong_FromUnsignedLongLong(count));
}

static PyObject *raise_too_large_for(struct pool_object *pool, PyObject *size)
{
    const struct ssm_pool_info *info = &pool->info;
    const unsigned long long wanted = PyLong_AsUnsignedLongLong(size), largest = largest_block(pool);
    const bool fits_bare = !PyErr_Occurred() && wanted <= largest && info->tailroom <= largest - wanted;
    PyErr_Clear(); /* a size beyond all integers of C is too large as well */
    return PyErr_Format(pool->state->ours[ERROR_PacketTooLarge],
                        "a packet of %S bytes is too large for pool %R: the limit is %llu (pool.max_size: %s of %llu "
                        "bytes less %u headroom and %u tailroom); send it in parts, or create the pool with "
                        "%sa larger %s",
                        size, pool->name, (unsigned long long)pool_max_size(pool),
                        info->arena_bytes > 0 ? "an arena" : "blocks", largest, info->headroom, info->tailroom,
                        fits_bare ? "headroom=0, or with " : "",
                        info->arena_bytes > 0 ? "arena=" : "class or an arena=");
}

PyObject *pool_raise_too_large(struct pool_object *pool, uint64_t size)
{
    PyObject *number = PyLong_FromUnsignedLongLong(size);
    if (number != NULL) {
        raise_too_large_for(pool, number);
        Py_DECREF(number);
    }
    return NULL;
}

static PyObject *raise_alloc(struct pool_object *pool, int code, uint64_t size, uint64_t count)
{
    if (code == -SSM_E_EXHAUSTED || code == -EINVAL) /* the arena has no room for so many, ever */
        return pool_raise_exhausted(pool, size, count);
    if (code == -SSM_E_TOO_LARGE)
        return pool_raise_too_large(pool, size);
    if (code == -SSM_E_QUOTA)
        return PyErr_Format(
            pool->state->ours[ERROR_QuotaExceeded],
            "%llu x %llu bytes would exceed this process's quota in pool %R: free packets first, or attach with "
            "a larger quota=",
            (unsigned long long)count, (unsigned long long)size, pool->name);
    return raise_code(pool, code);
}

/* ---- allocating ---------------------------------------------------------------------------------- */

static int parse_size(struct pool_object *pool, PyObject *value, uint64_t *size_out)
{
    int range = argument_u64(value, size_out);
    if (range == 2)
        raise_too_large_for(pool, value);
    else if (range == 1 || (range == 0 && *size_out == 0))
        PyErr_Format(PyExc_ValueError, "size must be 1 .. %llu (pool.max_size) bytes, not %S",
                     (unsigned long long)pool_max_size(pool), value);
    else
        return range;
    return -1;
}

const char pool_alloc_doc[] = PyDoc_STR(
    "alloc($self, /, size, timeout=0)\n--\n\n"
    "Take one packet buffer from the pool.\n\n"
    "Parameters\n----------\n"
    "size : int\n    Payload bytes, ``1 <= size <= pool.max_size``.\n"
    "timeout : float or None\n    Seconds to wait for a block; ``0`` does not wait, ``None`` waits for ever.\n\n"
    "Returns\n-------\n"
    "Packet\n    Writable buffer of `size` bytes, not zeroed.\n\n"
    "Raises\n------\n"
    "PoolExhausted\n    No block came free in `timeout`, or no room in the arena; nothing was taken. The message names the holders of the\n"
    "    blocks.\n"
    "PacketTooLarge\n    No size class has blocks of headroom + `size` + tailroom bytes, nor has the arena so many.");

PyObject *pool_alloc(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"alloc", {KEYWORD_size, KEYWORD_timeout}, 2, 2, 1};
    PyObject *values[2] = {nargs == 1 ? args[0] : NULL, NULL};
    int64_t timeout_ns = 0;
    uint64_t size, handle;
    if ((nargs != 1 || kwnames != NULL) && arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    if (parse_size(self, values[0], &size) < 0 || argument_timeout(values[1], &timeout_ns) < 0)
        return NULL;
    if (self->closed)
        return raise_closed(self);
    struct packet_object *packet = packet_new(self);
    if (packet == NULL)
        return NULL;
    int result;
    POOL_CALL(self, result, ssm_alloc(self->core, size, 0, &handle));
    if (result == -SSM_E_EXHAUSTED || result == -SSM_E_QUOTA)
        result = pool_take(self, NULL, size, 1, timeout_ns, &handle);
    if (result == 0) {
        packet_adopt(packet, handle, SSM_NO_DELIVERY);
        return OBJECT(packet);
    }
    Py_DECREF(OBJECT(packet));
    if (result == -SSM_E_EXHAUSTED && PyLong_CheckExact(values[0])) { /* met often: no new number */
        Py_INCREF(values[0]);
        return exhausted_raise(self, values[0], PyLong_FromLong(1));
    }
    return raise_alloc(self, result, size, 1);
}

/* -1 with an exception set unless the class, or the arena, could ever serve that many. */
static int check_many(struct pool_object *self, uint64_t size, uint64_t count)
{
    const uint64_t packets = packets_of(self, size);
    if (packets == 0)
        pool_raise_too_large(self, size);
    else if (count > packets)
        pool_raise_exhausted(self, size, count);
    else
        return 0;
    return -1;
}

const char pool_alloc_many_doc[] = PyDoc_STR(
    "alloc_many($self, /, count, size, timeout=0)\n--\n\n"
    "Take `count` packet buffers of `size` bytes: all of them, or none.\n\n"
    "Parameters\n----------\n"
    "count : int\n    Packets, at least 1.\n"
    "size : int\n    Payload bytes of each, ``1 <= size <= pool.max_size``.\n"
    "timeout : float or None\n    Seconds to wait for the blocks; ``0`` does not wait, ``None`` waits for ever.\n\n"
    "Returns\n-------\n"
    "PacketBatch\n    `count` packets, not zeroed.\n\n"
    "Raises\n------\n"
    "PoolExhausted\n    `count` blocks did not come free in `timeout`, or there are not that many; nothing was taken.\n"
    "PacketTooLarge\n    No size class has blocks of headroom + `size` + tailroom bytes, nor has the arena so many.");

PyObject *pool_alloc_many(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"alloc_many", {KEYWORD_count, KEYWORD_size, KEYWORD_timeout}, 3, 3, 2};
    PyObject *values[3];
    int64_t timeout_ns = 0;
    uint64_t size, count;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0)
        return NULL;
    int range = argument_u64(values[0], &count);
    if (range == 1 || (range == 0 && count == 0))
        return PyErr_Format(PyExc_ValueError, "count must be 1 or more packets, not %S", values[0]);
    if (range < 0 || parse_size(self, values[1], &size) < 0 || argument_timeout(values[2], &timeout_ns) < 0)
        return NULL;
    if (self->closed)
        return raise_closed(self);
    if (check_many(self, size, range == 2 ? UINT64_MAX : count) < 0)
        return NULL;
    struct batch_object *batch = batch_new(self, (uint32_t)count);
    if (batch == NULL)
        return NULL;
    int result = pool_take(self, NULL, size, (uint32_t)count, timeout_ns, batch->handles);
    if (result == 0) {
        batch_adopt(batch, (uint32_t)count, SSM_NO_DELIVERY);
        return OBJECT(batch);
    }
    Py_DECREF(OBJECT(batch));
    return raise_alloc(self, result, size, count);
}

const char pool_packet_doc[] = PyDoc_STR(
    "packet($self, handle, /)\n--\n\n"
    "The packet of a handle that this process holds.\n\n"
    "Parameters\n----------\n"
    "handle : int\n    As `Packet.handle` gave it, in this process.\n\n"
    "Returns\n-------\n"
    "Packet\n    One more reference: the block goes back when all of them are freed.\n\n"
    "Raises\n------\n"
    "StaleHandle\n    This process does not hold that packet (any more).");

/* Of several deliveries of the packet, the latest. */
static int hold_again(struct ssm_pool *core, uint64_t handle, uint64_t *delivery_out)
{
    *delivery_out = ssm_packet_delivery(core, handle);
    return ssm_packet_hold_of(core, handle, *delivery_out);
}

PyObject *pool_packet(struct pool_object *self, PyObject *value)
{
    uint64_t handle;
    int range = argument_u64(value, &handle);
    if (range < 0)
        return NULL;
    if (self->closed)
        return raise_closed(self);
    if (range > 0)
        return raise_code(self, -SSM_E_STALE);
    struct packet_object *packet = packet_new(self);
    if (packet == NULL)
        return NULL;
    uint64_t delivery = SSM_NO_DELIVERY;
    int result;
    POOL_CALL(self, result, hold_again(self->core, handle, &delivery));
    if (result == 0) {
        packet_adopt(packet, handle, delivery);
        return OBJECT(packet);
    }
    Py_DECREF(OBJECT(packet));
    return raise_code(self, result);
}
