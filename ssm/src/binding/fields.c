/* SPDX-License-Identifier: Apache-2.0
 *
 * The one table of what the core tells as structs: for each struct its fields, by the names that they have in
 * ssm/stats.py, which says what each means. A struct becomes a dict, and Python takes it as keywords, so the order of fields
 * is in one place, and a name that only one side has is a TypeError. A new field: a row here, one in ssm/stats.py. */
#include "fields.h"

#include <stddef.h>

static PyObject *read_u32(const void *at)
{
    return PyLong_FromUnsignedLong(*(const uint32_t *)at);
}
static PyObject *read_u64(const void *at)
{
    return PyLong_FromUnsignedLongLong(*(const uint64_t *)at);
}
static PyObject *read_bool(const void *at)
{
    return PyBool_FromLong(*(const uint32_t *)at != 0);
}
static PyObject *read_name(const void *at)
{
    return name_object(at);
}
static PyObject *read_reclaim(const void *at)
{
    return PyBool_FromLong((*(const uint32_t *)at & SSM_RECLAIM) != 0);
}

static PyObject *read_service_kind(const void *at)
{
    return PyUnicode_FromString(ssm_service_kind_name(*(const uint32_t *)at));
}

static PyObject *read_holder_kind(const void *at)
{
    return PyUnicode_FromString(*(const uint32_t *)at == SSM_HOLDER_PROCESS ? "process" : "ring");
}

static PyObject *read_next(const void *at)
{
    return *(const uint64_t *)at == SSM_NO_NEXT ? Py_NewRef(Py_None) : read_u64(at);
}

struct field {
    const char *name;
    PyObject *(*read)(const void *at);
    size_t offset;
};

#define ROW(record, name, member, read) {name, read, offsetof(struct ssm_##record, member)}
#define PLAIN(record, member)                                                                                    \
    ROW(record, #member, member,                                                                                 \
        _Generic(((struct ssm_##record *)0)->member, uint32_t: read_u32, uint64_t: read_u64, char *: read_name))
#define ALIVE(record) ROW(record, "alive", alive, read_bool)
#define END           {NULL, NULL, 0}

static const struct field shard_stats[] = {
    PLAIN(shard_stats, free),
    PLAIN(shard_stats, allocs),
    PLAIN(shard_stats, frees),
    PLAIN(shard_stats, steals),
    PLAIN(shard_stats, recoveries),
    PLAIN(shard_stats, waiters),
    END,
};

static const struct field class_stats[] = {
    PLAIN(class_stats, block_size),
    PLAIN(class_stats, blocks),
    PLAIN(class_stats, free),
    PLAIN(class_stats, cached),
    PLAIN(class_stats, late_wakes),
    PLAIN(class_stats, large_waiters),
    END,
};

static const struct field arena_stats[] = {
    PLAIN(arena_stats, bytes),
    PLAIN(arena_stats, backed),
    PLAIN(arena_stats, available),
    PLAIN(arena_stats, packets),
    PLAIN(arena_stats, free),
    PLAIN(arena_stats, used),
    ROW(arena_stats, "largest_free", largest, read_u64),
    PLAIN(arena_stats, recoveries),
    PLAIN(arena_stats, late_wakes),
    END,
};

/* ring_stats() of ssm/options.py makes words of the flags. */
static const struct field ring_stats[] = {
    PLAIN(ring_stats, name),        PLAIN(ring_stats, id),
    PLAIN(ring_stats, capacity),    PLAIN(ring_stats, flags),
    PLAIN(ring_stats, acl),         PLAIN(ring_stats, depth),
    PLAIN(ring_stats, high_water),  PLAIN(ring_stats, puts),
    PLAIN(ring_stats, gets),        PLAIN(ring_stats, recoveries),
    PLAIN(ring_stats, redelivered), PLAIN(ring_stats, drops),
    PLAIN(ring_stats, late_wakes),  PLAIN(ring_stats, holder),
    PLAIN(ring_stats, users),       ROW(ring_stats, "unlinked", unlinked, read_bool),
    PLAIN(ring_stats, serial),      END,
};

static const struct field service_stats[] = {
    PLAIN(service_stats, name),
    ROW(service_stats, "kind", kind, read_service_kind),
    ROW(service_stats, "reclaim", flags, read_reclaim),
    PLAIN(service_stats, first),
    PLAIN(service_stats, last),
    PLAIN(service_stats, ranges),
    PLAIN(service_stats, capacity),
    PLAIN(service_stats, used),
    PLAIN(service_stats, allocs),
    PLAIN(service_stats, recoveries),
    PLAIN(service_stats, bytes),
    END,
};

static const struct field service_owner[] = {
    ROW(service_owner, "id", holder, read_u32),
    PLAIN(service_owner, pid),
    PLAIN(service_owner, name),
    ALIVE(service_owner),
    END,
};

static const struct field holder_info[] = {
    PLAIN(holder_info, id),     ROW(holder_info, "kind", kind, read_holder_kind),
    PLAIN(holder_info, name),   PLAIN(holder_info, pid),
    ALIVE(holder_info),         PLAIN(holder_info, rmid),
    PLAIN(holder_info, blocks), PLAIN(holder_info, bytes),
    PLAIN(holder_info, age_ns), END,
};

/* pool_usage() adds `blocks`, whose number depends on the pool. */
static const struct field usage[] = {
    PLAIN(usage, rmid),
    PLAIN(usage, name),
    PLAIN(usage, pid),
    ROW(usage, "id", holder, read_u32),
    ALIVE(usage),
    ROW(usage, "peak", peak_bytes, read_u64),
    PLAIN(usage, arena_packets),
    PLAIN(usage, arena_bytes),
    END,
};

static const struct field reaped[] = {PLAIN(reaped, processes), PLAIN(reaped, blocks), END};

/* pool_peek_packet() adds `data`. */
static const struct field peek[] = {
    PLAIN(peek, length),
    PLAIN(peek, headroom),
    PLAIN(peek, block_size),
    PLAIN(peek, tag),
    ROW(peek, "next", next, read_next),
    END,
};

static const struct field *const records[] = {
#define X(name) [RECORD_##name] = name,
    RECORDS(X)
#undef X
};

PyObject *fields_dict(enum record record, const void *values)
{
    PyObject *dict = PyDict_New();
    for (const struct field *field = records[record]; dict != NULL && field->name != NULL; field++)
        dict = fields_add(dict, field->name, field->read((const char *)values + field->offset));
    return dict;
}

PyObject *fields_add(PyObject *dict, const char *name, PyObject *value)
{
    if (dict != NULL && (value == NULL || PyDict_SetItemString(dict, name, value) < 0))
        Py_CLEAR(dict);
    Py_XDECREF(value);
    return dict;
}

int list_add(PyObject **list, PyObject *item)
{
    if (item == NULL || PyList_Append(*list, item) < 0)
        Py_CLEAR(*list);
    Py_XDECREF(item);
    return *list != NULL ? 0 : -1;
}

int counts_add(PyObject **dict, uint64_t key, uint64_t count)
{
    PyObject *name = PyLong_FromUnsignedLongLong(key), *value = PyLong_FromUnsignedLongLong(count);
    if (name == NULL || value == NULL || PyDict_SetItem(*dict, name, value) < 0)
        Py_CLEAR(*dict);
    Py_XDECREF(name);
    Py_XDECREF(value);
    return *dict != NULL ? 0 : -1;
}
