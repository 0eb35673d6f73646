/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm._core.Pool: what is hot of a pool, and the bricks from which ssm/pool.py builds the rest (names beginning with
 * an underscore). ssm.Pool is its subclass: alloc() and its like reach C without a Python function in between. */
#include "binding.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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

uint64_t pool_packets_of(const struct pool_object *pool, uint64_t size)
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
                        size, pool->name, (unsigned long long)pool_max_size(pool), info->arena_bytes > 0 ? "an arena" : "blocks",
                        largest, info->headroom, info->tailroom, fits_bare ? "headroom=0, or with " : "",
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
        return PyErr_Format(pool->state->ours[ERROR_QuotaExceeded],
                            "%llu x %llu bytes would exceed this process's quota in pool %R: free packets first, or attach with "
                            "a larger quota=", (unsigned long long)count, (unsigned long long)size, pool->name);
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

PyDoc_STRVAR(pool_alloc_doc,
"alloc($self, /, size, timeout=0)\n--\n\n"
"Take one packet buffer from the pool.\n\n"
"Parameters\n----------\n"
"size : int\n    Payload bytes, ``1 <= size <= pool.max_size``.\n"
"timeout : float or None\n    Seconds to wait for a block; ``0`` does not wait, ``None`` waits for ever.\n\n"
"Returns\n-------\n"
"Packet\n    Writable buffer of `size` bytes, not zeroed.\n\n"
"Raises\n------\n"
"PoolExhausted\n    No block came free in `timeout`, or no room in the arena; nothing was taken. The message names who holds the\n"
"    blocks.\n"
"PacketTooLarge\n    No size class has blocks of headroom + `size` + tailroom bytes, nor has the arena so many.");

static PyObject *pool_alloc(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
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
    const uint64_t packets = pool_packets_of(self, size);
    if (packets == 0)
        pool_raise_too_large(self, size);
    else if (count > packets)
        pool_raise_exhausted(self, size, count);
    else
        return 0;
    return -1;
}

PyDoc_STRVAR(pool_alloc_many_doc,
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

static PyObject *pool_alloc_many(struct pool_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
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

PyDoc_STRVAR(pool_packet_doc,
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

static PyObject *pool_packet(struct pool_object *self, PyObject *value)
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

/* ---- views and closing ---------------------------------------------------------------------------- */

void pool_settle(struct pool_object *pool)
{
    if (!pool->closed || pool->exports > 0 || pool->calls > 0 || pool->rings != NULL || pool->core == NULL ||
        ssm_pool_sleepers(pool->core) > 0) /* the end of the object comes after that of every call */
        return;
    struct ssm_pool *core = pool->core;
    pool->core = NULL;
    pool->last_era = *pool->era;
    pool->era = &pool->last_era;
    ssm_pool_destroy(core);
}

/* How many pinned blocks are left. */
static int close_locked(struct pool_object *pool)
{
    struct wait_scope scope;
    pool->closed = true;
    wait_begin_close(&scope, pool);
    int left = pool->core != NULL ? ssm_pool_close(pool->core) : 0;
    left -= pool->core != NULL ? (int)ssm_pool_sleepers(pool->core) : 0;
    wait_end(&scope);
    for (struct ring_object *ring = pool->rings, *next; ring != NULL; ring = next) {
        next = ring->next;
        ring_settle(ring);
    }
    pool_settle(pool);
    return left;
}

PyDoc_STRVAR(pool_close_doc,
"_close($self, /)\n--\n\n"
"Give back what no view needs. True when nothing is left: this process is no holder any more.");

PyObject *pool_close(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    int left;
    POOL_LOCK(self)
    left = close_locked(self);
    POOL_UNLOCK()
    return PyErr_Occurred() ? NULL : PyBool_FromLong(left <= 0); /* a signal handler may have raised while it waited */
}

static void pool_dealloc(struct pool_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(OBJECT(self));
    ssm_pool_destroy(self->core); /* closes it first */
    if (self->apart) {
        if (pool_descriptor(self) >= 0) /* and not what the program has opened in its place */
            close(self->newborn);
    } else if (self->newborn >= 0) { /* it never got its name */
        close(self->newborn);
        if (self->info.locks_apart)
            ssm_lock_file_unlink(self->info.generation);
    }
    Py_XDECREF(self->name);
    Py_XDECREF(self->facts.latest);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

/* ---- making: life.c ----------------------------------------------------------------------------------- */

struct module_state *state_of(PyTypeObject *type)
{
    for (; type != NULL; type = PyType_GetSlot(type, Py_tp_base)) {
        struct module_state *state = PyType_GetModuleState(type);
        if (state != NULL)
            return state;
        PyErr_Clear();
    }
    PyErr_SetString(PyExc_TypeError, "not a subclass of a type of ssm");
    return NULL;
}

struct pool_object *pool_of(PyTypeObject *type, PyObject *object)
{
    const struct module_state *state = state_of(type);
    if (state != NULL && PyObject_TypeCheck(object, state->pool_type))
        return (struct pool_object *)object;
    return state == NULL ? NULL : (struct pool_object *)PyErr_Format(PyExc_TypeError, "want a Pool, not %R", object);
}

static PyObject *pool_refuse(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    PyErr_Format(PyExc_TypeError, "%R is not called: use its create(), attach() or open()", type);
    return NULL;
}

PyDoc_STRVAR(pool_collections_doc,
"_collections($self, /)\n--\n\nHow often this process ran the garbage collector since the pool was exhausted.");

static PyObject *pool_collections(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    uint64_t runs;
    POOL_LOCK(self)
    runs = self->collector.runs;
    POOL_UNLOCK()
    return PyLong_FromUnsignedLongLong(runs);
}

/* ---- looking in, and recovery ---------------------------------------------------------------------- */

PyDoc_STRVAR(pool_free_blocks_doc,
"free_blocks($self, block_size, /)\n--\n\n"
"Free blocks of a size class, per shard; those in private caches are not counted.\n\n"
"Parameters\n----------\n"
"block_size : int\n    One of `pool.classes`.\n\n"
"Returns\n-------\n"
"tuple of int\n    One number per shard.");

static PyObject *pool_free_blocks(struct pool_object *self, PyObject *value)
{
    const struct ssm_pool_info *info = &self->info;
    uint64_t size;
    uint32_t class_idx = 0;
    int range = argument_u64(value, &size);
    if (range < 0)
        return NULL;
    while (class_idx < info->class_count && (range != 0 || info->classes[class_idx].block_size != size))
        class_idx++;
    if (class_idx == info->class_count)
        return PyErr_Format(PyExc_ValueError, "pool %R has no blocks of %S bytes; see pool.classes", self->name, value);
    if (self->closed)
        return raise_closed(self);
    PyObject *result = PyTuple_New(info->shards);
    for (uint32_t i = 0; result != NULL && i < info->shards; i++) {
        struct ssm_shard_stats stats;
        int code;
        POOL_CALL(self, code, ssm_shard_stats(self->core, class_idx, i, &stats));
        PyObject *number = code < 0 ? raise_code(self, code) : PyLong_FromUnsignedLongLong(stats.free);
        if (number == NULL || PyTuple_SetItem(result, i, number) < 0)
            Py_CLEAR(result);
    }
    return result;
}

PyDoc_STRVAR(pool_shard_stats_doc,
"_shard_stats($self, class_idx, shard_idx, /)\n--\n\n(free, allocs, frees, steals, recoveries, waiters)");

static PyObject *pool_shard_stats(struct pool_object *self, PyObject *args)
{
    unsigned int class_idx, shard_idx;
    struct ssm_shard_stats s;
    if (!PyArg_ParseTuple(args, "II:_shard_stats", &class_idx, &shard_idx))
        return NULL;
    int result;
    POOL_CALL(self, result, ssm_shard_stats(self->core, class_idx, shard_idx, &s));
    return result < 0 ? raise_code(self, result)
                      : Py_BuildValue("(KKKKKK)", s.free, s.allocs, s.frees, s.steals, s.recoveries, s.waiters);
}

PyDoc_STRVAR(pool_class_stats_doc, "_class_stats($self, class_idx, /)\n--\n\n(block_size, blocks, free, cached, late_wakes, large_waiters)");

static PyObject *pool_class_stats(struct pool_object *self, PyObject *args)
{
    unsigned int class_idx;
    struct ssm_class_stats s;
    if (!PyArg_ParseTuple(args, "I:_class_stats", &class_idx))
        return NULL;
    int result;
    POOL_CALL(self, result, ssm_class_stats(self->core, class_idx, &s));
    return result < 0 ? raise_code(self, result)
                      : Py_BuildValue("(KKKKKK)", s.block_size, s.blocks, s.free, s.cached, s.late_wakes, s.large_waiters);
}

PyDoc_STRVAR(pool_arena_stats_doc,
"_arena_stats($self, /)\n--\n\n(bytes, backed, available, packets, free, used, largest_free, recoveries,\nlate_wakes); None: the pool has no arena.");

static PyObject *pool_arena_stats(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_arena_stats s;
    int result;
    POOL_CALL(self, result, ssm_arena_stats(self->core, &s));
    if (result == -ENOENT)
        RETURN_NONE;
    return result < 0 ? raise_code(self, result)
                      : Py_BuildValue("(KKKKKKKKK)", s.bytes, s.backed, s.available, s.packets, s.free, s.used, s.largest, s.recoveries, s.late_wakes);
}

PyObject *name_object(const char *name)
{
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strnlen(name, SSM_NAME_SIZE), "replace");
}

PyDoc_STRVAR(pool_ring_stats_doc,
"_ring_stats($self, /)\n--\n\n"
"[(name, id, capacity, flags, acl, depth, high_water, puts, gets, recoveries, redelivered, drops,\n"
"late_wakes, holder)], of every ring.");

static PyObject *pool_ring_stats(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    PyObject *rings = PyList_New(0);
    for (uint32_t id = 0; rings != NULL && id < self->info.holders; id++) {
        struct ssm_ring_stats s;
        int result;
        POOL_CALL(self, result, ssm_ring_stats(self->core, id, &s));
        if (result == -ENOENT)
            continue;
        PyObject *ring = result < 0 ? raise_code(self, result)
                                    : Py_BuildValue("(NIIIIKKKKKKKKI)", name_object(s.name), s.id, s.capacity, s.flags,
                                                    s.acl, s.depth, s.high_water, s.puts, s.gets, s.recoveries,
                                                    s.redelivered, s.drops, s.late_wakes, s.holder);
        if (ring == NULL || PyList_Append(rings, ring) < 0)
            Py_CLEAR(rings);
        Py_XDECREF(OBJECT(ring));
    }
    return rings;
}

PyDoc_STRVAR(pool_service_stats_doc,
"_service_stats($self, /)\n--\n\n"
"[(name, kind, reclaim, first, last, ranges, capacity, used, allocs, recoveries, bytes)], of every service.");

PyDoc_STRVAR(pool_holder_list_doc,
"_holder_list($self, /)\n--\n\n[(id, is_ring, name, pid, alive, rmid, blocks, bytes)], of every holder.");

static PyObject *holder_list(const struct ssm_holder_info *holders, uint32_t count)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < count; i++) {
        const struct ssm_holder_info *h = &holders[i];
        if (h->kind == SSM_HOLDER_NONE)
            continue;
        PyObject *holder = Py_BuildValue("(INNINIKK)", h->id, PyBool_FromLong(h->kind == SSM_HOLDER_RING),
                                         name_object(h->name), h->pid, PyBool_FromLong(h->alive != 0), h->rmid, h->blocks,
                                         h->bytes);
        if (holder == NULL || PyList_Append(list, holder) < 0)
            Py_CLEAR(list);
        Py_XDECREF(holder);
    }
    return list;
}

struct ssm_holder_info *pool_holders(struct pool_object *pool)
{
    struct ssm_holder_info *holders = PyMem_Calloc(pool->info.holders, sizeof *holders);
    if (holders == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    int result;
    POOL_CALL(pool, result, ssm_holder_list(pool->core, holders, pool->info.holders));
    if (result == 0)
        return holders;
    PyMem_Free(holders);
    raise_code(pool, result);
    return NULL;
}

static PyObject *pool_holder_list(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_holder_info *holders = pool_holders(self);
    PyObject *list = holders != NULL ? holder_list(holders, self->info.holders) : NULL;
    PyMem_Free(holders);
    return list;
}

PyDoc_STRVAR(pool_reap_doc, "_reap($self, /)\n--\n\nTake back what the dead held: (processes, blocks).");

static PyObject *pool_reap(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_reaped reaped;
    struct wait_scope scope;
    if (!wait_begin(&scope, self, NULL))
        return raise_closed(self);
    int result = ssm_reap(self->core, &reaped);
    wait_end(&scope);
    return result < 0 ? raise_code(self, result) : Py_BuildValue("(IK)", reaped.processes, reaped.blocks);
}

static void append_sentence(void *context, const char *sentence)
{
    PyObject **sentences = context;
    PyObject *text = *sentences != NULL ? PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace") : NULL;
    if (text == NULL || PyList_Append(*sentences, text) < 0)
        Py_CLEAR(*sentences);
    Py_XDECREF(text);
}

PyDoc_STRVAR(pool_check_doc,
"check($self, /)\n--\n\n"
"Look for contradictions in the pool; safe while others use it.\n\n"
"Returns\n-------\n"
"list of str\n    One sentence per contradiction; empty when the pool is consistent.");

static PyObject *pool_check(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    if (self->closed)
        return raise_closed(self);
    PyObject *sentences = PyList_New(0);
    if (sentences == NULL)
        return NULL;
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    if (wait_begin(&scope, self, NULL)) {
        result = ssm_check(self->core, append_sentence, &sentences);
        wait_end(&scope);
    }
    if (result < 0 && sentences != NULL) {
        Py_CLEAR(sentences);
        raise_code(self, result);
    }
    return sentences;
}

PyDoc_STRVAR(pool_access_doc,
"_access($self, /)\n--\n\n(uid, mode): whose the pool is now, and with which permission bits.");

static PyObject *pool_access(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    uint32_t uid, mode;
    int result;
    POOL_CALL(self, result, ssm_pool_access(self->core, &uid, &mode));
    return result == 0 ? Py_BuildValue("(II)", uid, mode) : raise_code(self, result);
}

/* ---- attributes -------------------------------------------------------------------------------------- */

static PyObject *pool_get_classes(struct pool_object *self, void *unused)
{
    (void)unused;
    PyObject *classes = PyDict_New();
    for (uint32_t i = 0; classes != NULL && i < self->info.class_count; i++) {
        PyObject *size = PyLong_FromUnsignedLongLong(self->info.classes[i].block_size);
        PyObject *count = PyLong_FromUnsignedLong(self->info.classes[i].block_count);
        if (size == NULL || count == NULL || PyDict_SetItem(classes, size, count) < 0)
            Py_CLEAR(classes);
        Py_XDECREF(size);
        Py_XDECREF(count);
    }
    return classes;
}

static PyObject *pool_get_name(struct pool_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(self->name);
    return self->name;
}

static PyObject *pool_get_descriptor(struct pool_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromLong(pool_descriptor(self));
}

static PyObject *pool_get_max_size(struct pool_object *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(pool_max_size(self));
}

/* The closure is the field's offset in struct ssm_pool_info. */
static PyObject *pool_get_u32(struct pool_object *self, void *offset)
{
    uint32_t value;
    memcpy(&value, (const char *)&self->info + (size_t)offset, sizeof(value));
    return PyLong_FromUnsignedLong(value);
}

static PyObject *pool_get_u64(struct pool_object *self, void *offset)
{
    uint64_t value;
    memcpy(&value, (const char *)&self->info + (size_t)offset, sizeof(value));
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *pool_get_ephemeral(struct pool_object *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong((self->info.flags & SSM_EPHEMERAL) != 0);
}

#define INFO(field) ((void *)offsetof(struct ssm_pool_info, field))
static PyGetSetDef pool_attributes[] = {
    {"name", (getter)pool_get_name, NULL, "str : its POSIX name, with the leading slash.", NULL},
    {"size", (getter)pool_get_u64, NULL, "int : bytes of shared memory; all reserved, but for those that a growing arena has not needed yet.", INFO(size_bytes)},
    {"generation", (getter)pool_get_u64, NULL, "int : random, chosen at creation; tells pools of one name apart.", INFO(generation)},
    {"classes", (getter)pool_get_classes, NULL, "dict of int to int : block size in bytes -> number of blocks.", NULL},
    {"arena", (getter)pool_get_u64, NULL, "int : bytes for packets that are larger than all blocks, the most where it grows; 0: none.", INFO(arena_bytes)},
    {"arena_reserved", (getter)pool_get_u64, NULL, "int : of these, bytes reserved when the pool was made; the arena grows by the rest.",
     INFO(arena_reserved)},
    {"arena_packets", (getter)pool_get_u32, NULL, "int : packets that the arena can have at once.", INFO(arena_packets)},
    {"shards", (getter)pool_get_u32, NULL, "int : free lists per size class.", INFO(shards)},
    {"headroom", (getter)pool_get_u32, NULL, "int : bytes in front of a fresh packet's data.", INFO(headroom)},
    {"tailroom", (getter)pool_get_u32, NULL, "int : bytes behind a fresh packet's data, at least.", INFO(tailroom)},
    {"cache", (getter)pool_get_u32, NULL, "int : blocks per class that a process keeps for itself; 0: none.", INFO(cache)},
    {"holder_slots", (getter)pool_get_u32, NULL, "int : processes and rings that can hold blocks.", INFO(holders)},
    {"_descriptor", (getter)pool_get_descriptor, NULL, "int : by which others open a pool that has no name; -1: it has one.", NULL},
    {"max_size", (getter)pool_get_max_size, NULL, "int : bytes of the largest packet.", NULL},
    {"ephemeral", (getter)pool_get_ephemeral, NULL, "bool : the name goes with the last process.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef pool_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct pool_object, weakrefs), READONLY, NULL},
    {"closed", T_BOOL, offsetof(struct pool_object, closed), READONLY, "bool : close() was called."},
    {"readonly", T_BOOL, offsetof(struct pool_object, readonly), READONLY, "bool : attached to look only."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef pool_methods[] = {
    {"alloc", FAST(pool_alloc), METH_FASTCALL | METH_KEYWORDS, pool_alloc_doc},
    {"alloc_many", FAST(pool_alloc_many), METH_FASTCALL | METH_KEYWORDS, pool_alloc_many_doc},
    {"packet", (PyCFunction)pool_packet, METH_O, pool_packet_doc},
    {"free_blocks", (PyCFunction)pool_free_blocks, METH_O, pool_free_blocks_doc},
    {"check", (PyCFunction)pool_check, METH_NOARGS, pool_check_doc},
    {"_create", (PyCFunction)pool_create, METH_VARARGS | METH_CLASS,
     "_create($type, name, classes, shards, headroom, tailroom, cache, holders, metadata_bytes, arena, grow,\n"
     "arena_packets, flags, locks_mode, /)\n--\n\nMake a pool that has no name yet."},
    {"_publish", (PyCFunction)pool_publish, METH_VARARGS,
     "_publish($self, mode, uid, gid, /)\n--\n\nGive it its name; -1: the owner is who made it. FileExistsError."},
    {"_discard", (PyCFunction)pool_discard, METH_NOARGS,
     "_discard($self, /)\n--\n\nTake back the name that _publish() gave, and close the pool."},
    {"_attach", (PyCFunction)pool_attach, METH_VARARGS | METH_CLASS,
     "_attach($type, opener, name, flags, /)\n--\n\n"
     "Attach to the pool of that name, which `opener` opens: posix_ipc.SharedMemory, or None."},
    {"_close", (PyCFunction)pool_close, METH_NOARGS, pool_close_doc},
    {"_has_jobs", (PyCFunction)pool_has_jobs, METH_NOARGS,
     "_has_jobs($self, /)\n--\n\nThis process has packets of rings with redeliver=True, neither freed nor put."},
    {"_return_jobs", (PyCFunction)pool_return_jobs, METH_NOARGS,
     "_return_jobs($self, /)\n--\n\nGive all of them back to their rings. False: a process is in the way."},
    {"_shard_stats", (PyCFunction)pool_shard_stats, METH_VARARGS, pool_shard_stats_doc},
    {"_class_stats", (PyCFunction)pool_class_stats, METH_VARARGS, pool_class_stats_doc},
    {"_arena_stats", (PyCFunction)pool_arena_stats, METH_NOARGS, pool_arena_stats_doc},
    {"_ring_stats", (PyCFunction)pool_ring_stats, METH_NOARGS, pool_ring_stats_doc},
    {"_collections", (PyCFunction)pool_collections, METH_NOARGS, pool_collections_doc},
    {"_service_stats", (PyCFunction)service_stats, METH_NOARGS, pool_service_stats_doc},
    {"_set_quota", (PyCFunction)pool_set_quota, METH_O, "_set_quota($self, bytes, /)\n--\n\nLet alloc go no further."},
    {"_peek_ring", (PyCFunction)pool_peek_ring, METH_VARARGS,
     "_peek_ring($self, holder, limit, /)\n--\n\nHandles of the oldest packets queued in the ring of that holder id."},
    {"_peek_packet", (PyCFunction)pool_peek_packet, METH_VARARGS,
     "_peek_packet($self, handle, limit, /)\n--\n\n(bytes, length, headroom, block_size, tag) of somebody's packet."},
    {"_packet_list", (PyCFunction)pool_packet_list, METH_NOARGS,
     "_packet_list($self, /)\n--\n\nHandles of all packets that somebody holds."},
    {"_packet_holders", (PyCFunction)pool_packet_holders, METH_O,
     "_packet_holders($self, handle, /)\n--\n\nIds of those who hold a packet."},
    {"_access", (PyCFunction)pool_access, METH_NOARGS, pool_access_doc},
    {"_usage", (PyCFunction)pool_usage, METH_NOARGS,
     "_usage($self, /)\n--\n\n[(rmid, name, pid, holder, alive, blocks, peak, arena_packets, arena_bytes)], of every process."},
    {"_holder_list", (PyCFunction)pool_holder_list, METH_NOARGS, pool_holder_list_doc},
    {"_reap", (PyCFunction)pool_reap, METH_NOARGS, pool_reap_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc, "What ssm.Pool is built on."},
    {Py_tp_new, pool_refuse},
    {Py_tp_dealloc, pool_dealloc},
    {Py_tp_methods, pool_methods},
    {Py_tp_getset, pool_attributes},
    {Py_tp_members, pool_members},
    {0, NULL},
};

static PyType_Spec pool_spec = {
    .name = "ssm._core.Pool",
    .basicsize = sizeof(struct pool_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

int pool_exec(PyObject *module, struct module_state *state)
{
    state->pool_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &pool_spec, NULL);
    return state->pool_type == NULL ? -1 : PyModule_AddType(module, state->pool_type);
}
