/* SPDX-License-Identifier: Apache-2.0
 *
 * What a pool tells of itself: counters, holders, and which process uses how much of it. */
#include "fields.h"

#include <errno.h>
#include <stdlib.h>

/* What the core answered, as a dict; or NULL. */
static PyObject *answer(const struct pool_object *pool, int result, enum record record, const void *values)
{
    return result < 0 ? raise_code(pool, result) : fields_dict(record, values);
}

PyObject *pool_shard_stats(struct pool_object *self, PyObject *args)
{
    unsigned int class_idx, shard_idx;
    struct ssm_shard_stats stats;
    if (!PyArg_ParseTuple(args, "II:_shard_stats", &class_idx, &shard_idx))
        return NULL;
    int result;
    POOL_CALL(self, result, ssm_shard_stats(self->core, class_idx, shard_idx, &stats));
    return answer(self, result, RECORD_shard_stats, &stats);
}

PyObject *pool_class_stats(struct pool_object *self, PyObject *args)
{
    unsigned int class_idx;
    struct ssm_class_stats stats;
    if (!PyArg_ParseTuple(args, "I:_class_stats", &class_idx))
        return NULL;
    int result;
    POOL_CALL(self, result, ssm_class_stats(self->core, class_idx, &stats));
    return answer(self, result, RECORD_class_stats, &stats);
}

PyObject *pool_arena_stats(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_arena_stats stats;
    int result;
    POOL_CALL(self, result, ssm_arena_stats(self->core, &stats));
    if (result == -ENOENT)
        RETURN_NONE;
    return answer(self, result, RECORD_arena_stats, &stats);
}

static int by_serial(const void *one, const void *other)
{
    const struct ssm_ring_stats *a = one, *b = other;
    return (a->serial > b->serial) - (a->serial < b->serial);
}

/* The statistics of all rings, in the order in which these were made: how many there are, or -1 with an exception set. */
static int all_rings(struct pool_object *pool, struct ssm_ring_stats *out)
{
    int count = 0;
    for (uint32_t id = 0; id < pool->info.holders; id++) {
        int result;
        POOL_CALL(pool, result, ssm_ring_stats(pool->core, id, &out[count]));
        if (result < 0 && result != -ENOENT) {
            raise_code(pool, result);
            return -1;
        }
        count += result == 0;
    }
    qsort(out, (size_t)count, sizeof *out, by_serial);
    return count;
}

PyObject *pool_ring_stats(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_ring_stats *all = PyMem_Calloc(self->info.holders, sizeof *all);
    if (all == NULL)
        return PyErr_NoMemory();
    const int count = all_rings(self, all);
    PyObject *rings = count >= 0 ? PyList_New(0) : NULL;
    for (int i = 0; rings != NULL && i < count; i++)
        list_add(&rings, fields_dict(RECORD_ring_stats, &all[i]));
    PyMem_Free(all);
    return rings;
}

PyObject *pool_service_stats(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    PyObject *services = PyList_New(0);
    for (uint32_t i = 0; services != NULL && i < SSM_SERVICE_MAX; i++) {
        struct ssm_service_stats stats;
        int result;
        POOL_CALL(self, result, ssm_service_stats(self->core, i, &stats));
        if (result != -ENOENT)
            list_add(&services, answer(self, result, RECORD_service_stats, &stats));
    }
    return services;
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
    PyObject *list = holders != NULL ? PyList_New(0) : NULL;
    for (uint32_t i = 0; list != NULL && i < self->info.holders; i++)
        if (holders[i].kind != SSM_HOLDER_NONE)
            list_add(&list, fields_dict(RECORD_holder_info, &holders[i]));
    PyMem_Free(holders);
    return list;
}

PyObject *pool_unlink_ring(struct pool_object *self, PyObject *name)
{
    struct wait_scope scope;
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (text == NULL)
        return NULL;
    if (!wait_begin(&scope, self, NULL))
        return raise_closed(self);
    int result = ssm_ring_unlink_name(self->core, text);
    wait_end(&scope);
    return result == 0 || result == -ENOENT ? PyBool_FromLong(result == 0) : raise_code(self, result);
}

PyObject *pool_reap(struct pool_object *self, PyObject *unused)
{
    (void)unused;
    struct ssm_reaped reaped;
    struct wait_scope scope;
    if (!wait_begin(&scope, self, NULL))
        return raise_closed(self);
    int result = ssm_reap(self->core, &reaped);
    wait_end(&scope);
    return answer(self, result, RECORD_reaped, &reaped);
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

PyObject *pool_set_label(struct pool_object *pool, PyObject *args)
{
    const char *label;
    int result;
    if (!PyArg_ParseTuple(args, "y:_set_label", &label)) /* ValueError: it contains NUL */
        return NULL;
    POOL_CALL(pool, result, ssm_pool_set_name(pool->core, label));
    if (result < 0)
        return raise_code(pool, result);
    RETURN_NONE;
}

static PyObject *blocks_of(const struct pool_object *pool, const struct ssm_usage *usage)
{
    PyObject *blocks = PyDict_New();
    for (uint32_t i = 0; blocks != NULL && i < pool->info.class_count; i++)
        counts_add(&blocks, pool->info.classes[i].block_size, usage->blocks[i]);
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
    for (uint32_t i = 0; list != NULL && i < pool->info.holders; i++)
        if (all[i].holder != UINT32_MAX)
            list_add(&list, fields_add(fields_dict(RECORD_usage, &all[i]), "blocks", blocks_of(pool, &all[i])));
    PyMem_Free(all);
    return list;
}
