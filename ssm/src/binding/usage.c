/* SPDX-License-Identifier: Apache-2.0
 *
 * Who uses how much of a pool, and how much this process may use. */
#include "binding.h"

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
