/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking at packets that others have, for the command line. */
#include "fields.h"

static PyObject *list_of_handles(const uint64_t *handles, Py_ssize_t count)
{
    PyObject *list = PyList_New(0);
    for (Py_ssize_t i = 0; list != NULL && i < count; i++)
        list_add(&list, PyLong_FromUnsignedLongLong(handles[i]));
    return list;
}

PyObject *pool_peek_ring(struct pool_object *pool, PyObject *args)
{
    unsigned int holder_id, limit;
    if (!PyArg_ParseTuple(args, "II:_peek_ring", &holder_id, &limit))
        return NULL;
    uint64_t *handles = PyMem_Calloc(limit, sizeof(*handles));
    if (handles == NULL)
        return PyErr_NoMemory();
    int count;
    POOL_CALL(pool, count, ssm_ring_peek(pool->core, holder_id, handles, limit));
    PyObject *list = count < 0 ? raise_code(pool, count) : list_of_handles(handles, count);
    PyMem_Free(handles);
    return list;
}

PyObject *pool_packet_list(struct pool_object *pool, PyObject *unused)
{
    (void)unused;
    uint64_t total = pool->info.arena_packets;
    for (uint32_t i = 0; i < pool->info.class_count; i++)
        total += pool->info.classes[i].block_count;
    uint64_t *handles = PyMem_Calloc(total, sizeof(*handles));
    if (handles == NULL)
        return PyErr_NoMemory();
    int64_t count;
    POOL_CALL(pool, count, ssm_packet_list(pool->core, handles, total));
    PyObject *list = count < 0 ? raise_code(pool, (int)count) : list_of_handles(handles, (Py_ssize_t)count);
    PyMem_Free(handles);
    return list;
}

PyObject *pool_packet_holders(struct pool_object *pool, PyObject *value)
{
    uint64_t handle;
    int range = argument_u64(value, &handle);
    if (range < 0)
        return NULL;
    uint32_t *holders = PyMem_Calloc(pool->info.holders, sizeof(*holders));
    if (holders == NULL)
        return PyErr_NoMemory();
    int count;
    POOL_CALL(pool, count,
              range > 0 ? -SSM_E_STALE : ssm_packet_holders(pool->core, handle, holders, pool->info.holders));
    PyObject *list = count < 0 ? raise_code(pool, count) : PyList_New(0);
    for (int i = 0; list != NULL && i < count; i++)
        list_add(&list, PyLong_FromUnsignedLong(holders[i]));
    PyMem_Free(holders);
    return list;
}

PyObject *pool_peek_packet(struct pool_object *pool, PyObject *args)
{
    unsigned long long handle, limit;
    struct ssm_peek peek;
    if (!PyArg_ParseTuple(args, "KK:_peek_packet", &handle, &limit))
        return NULL;
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(limit < PY_SSIZE_T_MAX ? limit : PY_SSIZE_T_MAX));
    if (bytes == NULL)
        return NULL;
    int result;
    POOL_CALL(pool, result, ssm_packet_peek(pool->core, handle, (uint8_t *)PyBytes_AsString(bytes), limit, &peek));
    PyObject *copy = NULL;
    if (result < 0)
        copy = raise_code(pool, result);
    else
        copy = PyBytes_FromStringAndSize(PyBytes_AsString(bytes),
                                         (Py_ssize_t)(peek.length < limit ? peek.length : limit));
    Py_DECREF(bytes);
    return fields_add(copy != NULL ? fields_dict(RECORD_peek, &peek) : NULL, "data", copy);
}
