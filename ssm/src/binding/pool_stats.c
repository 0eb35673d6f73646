/* SPDX-License-Identifier: Apache-2.0
 *
 * What a pool tells of itself: counters, holders, and which process uses how much of it. */
#include "binding.h"

#include <errno.h>

const char pool_shard_stats_doc[] = PyDoc_STR(
"_shard_stats($self, class_idx, shard_idx, /)\n--\n\n(free, allocs, frees, steals, recoveries, waiters)");

PyObject *pool_shard_stats(struct pool_object *self, PyObject *args)
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

const char pool_class_stats_doc[] = PyDoc_STR( "_class_stats($self, class_idx, /)\n--\n\n(block_size, blocks, free, cached, late_wakes, large_waiters)");

PyObject *pool_class_stats(struct pool_object *self, PyObject *args)
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

const char pool_arena_stats_doc[] = PyDoc_STR(
"_arena_stats($self, /)\n--\n\n(bytes, backed, available, packets, free, used, largest_free, recoveries,\nlate_wakes); None: the pool has no arena.");

PyObject *pool_arena_stats(struct pool_object *self, PyObject *unused)
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

const char pool_ring_stats_doc[] = PyDoc_STR(
"_ring_stats($self, /)\n--\n\n"
"[(name, id, capacity, flags, acl, depth, high_water, puts, gets, recoveries, redelivered, drops,\n"
"late_wakes, holder)], of every ring.");

PyObject *pool_ring_stats(struct pool_object *self, PyObject *unused)
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

const char pool_holder_list_doc[] = PyDoc_STR(
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

PyObject *pool_holder_list(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_holder_info *holders = pool_holders(self);
    PyObject *list = holders != NULL ? holder_list(holders, self->info.holders) : NULL;
    PyMem_Free(holders);
    return list;
}

/* ---- use of memory --------------------------------------------------------------------------------- */

PyObject *pool_set_quota(struct pool_object *pool, PyObject *value)
{
    uint64_t bytes;
    int range = argument_u64(value, &bytes);
    if (range < 0)
        return NULL;
    if (range > 0)
        return PyErr_Format(PyExc_ValueError, "quota must be 0 .. 2**64 - 1 bytes, not %S", value);
    if (pool->closed)
        return raise_closed(pool);
    int result = ssm_pool_set_quota(pool->core, bytes);
    if (result < 0)
        return raise_code(pool, result);
    RETURN_NONE;
}

static PyObject *blocks_of(const struct pool_object *pool, const struct ssm_usage *usage)
{
    PyObject *blocks = PyDict_New();
    for (uint32_t i = 0; blocks != NULL && i < pool->info.class_count; i++) {
        PyObject *size = PyLong_FromUnsignedLongLong(pool->info.classes[i].block_size);
        PyObject *count = PyLong_FromUnsignedLongLong(usage->blocks[i]);
        if (size == NULL || count == NULL || PyDict_SetItem(blocks, size, count) < 0)
            Py_CLEAR(blocks);
        Py_XDECREF(size);
        Py_XDECREF(count);
    }
    return blocks;
}

PyObject *pool_usage(struct pool_object *pool, PyObject *unused)
{
    (void)unused;
    if (pool->closed)
        return raise_closed(pool);
    struct ssm_usage *all = PyMem_Calloc(pool->info.holders, sizeof(*all));
    if (all == NULL)
        return PyErr_NoMemory();
    int result = ssm_usage(pool->core, all, pool->info.holders);
    PyObject *list = result < 0 ? raise_code(pool, result) : PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < pool->info.holders; i++) {
        const struct ssm_usage *u = &all[i];
        if (u->holder == UINT32_MAX)
            continue;
        PyObject *item = Py_BuildValue("(INIINNKKK)", u->rmid, name_object(u->name), u->pid, u->holder,
                                       PyBool_FromLong(u->alive != 0), blocks_of(pool, u), (unsigned long long)u->peak_bytes,
                                       (unsigned long long)u->arena_packets, (unsigned long long)u->arena_bytes);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    PyMem_Free(all);
    return list;
}
