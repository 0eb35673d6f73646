/* SPDX-License-Identifier: Apache-2.0
 *
 * The type ssm._core.Pool: attributes, and a table of methods, most of which are in other files. Those whose names begin
 * with an underscore are what ssm/pool.py is built from. ssm.Pool is its subclass: alloc() and its like reach C without a
 * Python function in between. */
#include "fields.h"

#include <string.h>
#include <unistd.h>

/* ---- life ----------------------------------------------------------------------------------------- */

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

static void append_sentence(void *context, const char *sentence)
{
    PyObject **sentences = context;
    if (*sentences != NULL)
        list_add(sentences, PyUnicode_DecodeUTF8(sentence, (Py_ssize_t)strlen(sentence), "replace"));
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
    for (uint32_t i = 0; classes != NULL && i < self->info.class_count; i++)
        counts_add(&classes, self->info.classes[i].block_size, self->info.classes[i].block_count);
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
    {"size", (getter)pool_get_u64, NULL,
     "int : bytes of shared memory; all reserved, but for those that a growing arena has not needed yet.",
     INFO(size_bytes)},
    {"generation", (getter)pool_get_u64, NULL, "int : random, chosen at creation; tells pools of one name apart.",
     INFO(generation)},
    {"classes", (getter)pool_get_classes, NULL, "dict of int to int : block size in bytes -> number of blocks.", NULL},
    {"arena", (getter)pool_get_u64, NULL,
     "int : bytes for packets that are larger than all blocks, the most where it grows; 0: none.", INFO(arena_bytes)},
    {"arena_reserved", (getter)pool_get_u64, NULL,
     "int : of these, bytes reserved when the pool was made; the arena grows by the rest.", INFO(arena_reserved)},
    {"arena_packets", (getter)pool_get_u32, NULL, "int : packets that the arena can have at once.",
     INFO(arena_packets)},
    {"shards", (getter)pool_get_u32, NULL, "int : free lists per size class.", INFO(shards)},
    {"headroom", (getter)pool_get_u32, NULL, "int : bytes in front of a fresh packet's data.", INFO(headroom)},
    {"tailroom", (getter)pool_get_u32, NULL, "int : bytes behind a fresh packet's data, at least.", INFO(tailroom)},
    {"cache", (getter)pool_get_u32, NULL, "int : blocks per class that a process keeps for itself; 0: none.",
     INFO(cache)},
    {"holder_slots", (getter)pool_get_u32, NULL, "int : processes and rings that can hold blocks.", INFO(holders)},
    {"_descriptor", (getter)pool_get_descriptor, NULL,
     "int : by which others open a pool that has no name; -1: it has one.", NULL},
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
     "arena_packets, flags, mode, /)\n--\n\nMake a pool that has no name yet."},
    {"_publish", (PyCFunction)pool_publish, METH_VARARGS,
     "_publish($self, mode, uid, gid, /)\n--\n\nGive it its name; -1: the owner stays. FileExistsError."},
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
    {"_shard_stats", (PyCFunction)pool_shard_stats, METH_VARARGS,
     "_shard_stats($self, class_idx, shard_idx, /)\n--\n\nAs ShardStats."},
    {"_class_stats", (PyCFunction)pool_class_stats, METH_VARARGS,
     "_class_stats($self, class_idx, /)\n--\n\nAs ClassStats."},
    {"_arena_stats", (PyCFunction)pool_arena_stats, METH_NOARGS,
     "_arena_stats($self, /)\n--\n\nAs ArenaStats; None: there is no arena."},
    {"_unlink_ring", (PyCFunction)pool_unlink_ring, METH_O,
     "_unlink_ring($self, name, /)\n--\n\nTake the name of a ring away. False: no ring has it."},
    {"_ring_stats", (PyCFunction)pool_ring_stats, METH_NOARGS,
     "_ring_stats($self, /)\n--\n\nOf every ring, for ring_stats()."},
    {"_collections", (PyCFunction)pool_collections, METH_NOARGS, pool_collections_doc},
    {"_service_stats", (PyCFunction)pool_service_stats, METH_NOARGS,
     "_service_stats($self, /)\n--\n\nAs ServiceStats, of every service."},
    {"_set_quota", (PyCFunction)pool_set_quota, METH_O, "_set_quota($self, bytes, /)\n--\n\nLet alloc go no further."},
    {"_set_label", (PyCFunction)pool_set_label, METH_VARARGS,
     "_set_label($self, label, /)\n--\n\nThe name of this process in the holder table."},
    {"_peek_ring", (PyCFunction)pool_peek_ring, METH_VARARGS,
     "_peek_ring($self, holder, limit, /)\n--\n\nHandles of the oldest packets queued in the ring of that holder id."},
    {"_peek_packet", (PyCFunction)pool_peek_packet, METH_VARARGS,
     "_peek_packet($self, handle, limit, /)\n--\n\nSomebody's packet: data, length, headroom, block_size, tag, next."},
    {"_packet_list", (PyCFunction)pool_packet_list, METH_NOARGS,
     "_packet_list($self, /)\n--\n\nHandles of all packets that are held."},
    {"_packet_holders", (PyCFunction)pool_packet_holders, METH_O,
     "_packet_holders($self, handle, /)\n--\n\nIds of the holders of a packet."},
    {"_access", (PyCFunction)pool_access, METH_NOARGS, pool_access_doc},
    {"_usage", (PyCFunction)pool_usage, METH_NOARGS, "_usage($self, /)\n--\n\nAs Usage, of every process."},
    {"_holder_list", (PyCFunction)pool_holder_list, METH_NOARGS,
     "_holder_list($self, /)\n--\n\nAs Holder, of every holder."},
    {"_reap", (PyCFunction)pool_reap, METH_NOARGS, "_reap($self, /)\n--\n\nTake back what the dead held: as Reaped."},
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
