/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm.Ring: a queue of packets between processes, with the manners of queue.Queue. Here: its life, its look;
 * ring_put.c puts, ring_get.c gets. A call tries once without waiting, then, where it may wait, again with the time-out. */
#include "ring.h"

#include <errno.h>

/* ---- life ---------------------------------------------------------------------------------------- */

/* The core's ring goes first: a callback of a weak reference may open the ring anew, and claim its sides. */
static void ring_dealloc(struct ring_object *self)
{
    PyTypeObject *type = Py_TYPE(OBJECT(self));
    POOL_LOCK(self->pool)
    ring_settle(self);
    POOL_UNLOCK()
    if (self->weakrefs != NULL)
        PyObject_ClearWeakRefs(OBJECT(self));
    Py_XDECREF(self->reference);
    Py_DECREF(OBJECT(self->pool));
    Py_DECREF(self->name);
    ((freefunc)PyType_GetSlot(type, Py_tp_free))(self);
    Py_DECREF(OBJECT(type));
}

/* A new reference; NULL: it is being deallocated. */
static PyObject *strong_reference(const struct ring_object *ring)
{
#ifdef Py_GIL_DISABLED
    PyObject *object;
    return PyWeakref_GetRef(ring->reference, &object) == 1 ? object : NULL;
#else
    PyObject *object = PyWeakref_GetObject(ring->reference); /* borrowed */
    return object == Py_None ? NULL : Py_NewRef(object);
#endif
}

/* A new reference to the open Ring of that name, or NULL: one that was unlinked has none. With POOL_LOCK; runs no Python
 * code. */
static PyObject *find_open(const struct pool_object *pool, PyObject *name)
{
    PyObject *found = NULL;
    for (struct ring_object *ring = pool->rings; ring != NULL && found == NULL && !pool->closed; ring = ring->next)
        if (!ring->closed && PyUnicode_Compare(ring->name, name) == 0 && !ssm_ring_is_unlinked(ring->core))
            found = strong_reference(ring);
    return found;
}

/* Takes over the core's ring; or gives it up for the Ring that another thread, or a signal handler, opened while the core
 * slept: a new reference to that. With POOL_LOCK. */
static PyObject *take_over(struct ring_object *ring, struct ssm_ring *core)
{
    PyObject *other = NULL;
    for (struct ring_object *each = ring->pool->rings; each != NULL && other == NULL && !ring->pool->closed;
         each = each->next)
        if (!each->closed && ssm_ring_is_same(each->core, core))
            other = strong_reference(each);
    if (other != NULL) {
        ssm_ring_close_spare(core);
        return other;
    }
    ring->core = core;
    ring_link(ring);
    return NULL;
}

/* An empty Ring of that class, which is Python's (ssm/ring.py). */
static struct ring_object *ring_new(PyTypeObject *type, struct pool_object *pool, PyObject *name)
{
    struct ring_object *ring = (struct ring_object *)((allocfunc)PyType_GetSlot(type, Py_tp_alloc))(type,
                                                                                                    0); /* all zero */
    if (ring == NULL)
        return NULL;
    Py_INCREF(OBJECT(pool));
    Py_INCREF(name);
    ring->state = pool->state;
    ring->pool = pool;
    ring->name = name;
    ring->reference = PyWeakref_NewRef(OBJECT(ring), NULL);
    if (ring->reference == NULL)
        Py_CLEAR(ring);
    return ring;
}

/* Opens the core's ring for a new Ring, or finds the one that is open: *other_out, a new reference. */
static int open_core(struct ring_object *ring, const char *name, const struct ssm_ring_options *options,
                     PyObject **other_out)
{
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    if (!wait_begin(&scope, ring->pool, NULL))
        return result;
    POOL_LOCK(ring->pool)
    struct ssm_ring *core;
    result = ssm_ring_open(ring->pool->core, name, options, &core);
    if (result == 0)
        *other_out = take_over(ring, core);
    POOL_UNLOCK()
    wait_end(&scope);
    return result;
}

/* The Ring of that name which the Pool has open already, if it is as asked for: a new reference. NULL: there is none. */
static PyObject *opened(struct pool_object *pool, PyObject *name, const struct ssm_ring_options *options,
                        int *result_out)
{
    PyObject *found;
    POOL_LOCK(pool)
    found = find_open(pool, name);
    if (found != NULL && (*result_out = ssm_ring_matches(((struct ring_object *)found)->core, options)) == 0)
        *result_out = -SSM_E_MISMATCH;
    POOL_UNLOCK()
    return found;
}

static PyObject *raise_open(const struct pool_object *pool, PyObject *name, int code)
{
    if (code == -ENOENT)
        return raise_os(PyExc_FileNotFoundError, ENOENT,
                        "there is no ring %R in pool %R (any more); make one with pool.ring()", name, pool->name);
    if (code != -SSM_E_MISMATCH)
        return raise_code(pool, code);
    return PyErr_Format(pool->state->ours[ERROR_RingMismatch], "ring %R of pool %R exists with other parameters", name,
                        pool->name);
}

PyDoc_STRVAR(ring_open_doc,
"_open($type, pool, name, capacity, flags, as_it_is, type, alive_for_ns, existing=False, /)\n--\n\n"
"Open or create the ring; capacity 0, flags in as_it_is and type None are not asked for. The Ring that the Pool has open\n"
"already is given as it is. RingMismatch. FileNotFoundError, where it is to exist and does not.");

static PyObject *ring_open(PyTypeObject *type, PyObject *args)
{
    PyObject *pool_argument, *name, *other = NULL;
    struct ssm_ring_options options = {0};
    unsigned long long alive_for_ns;
    int existing = 0;
    if (!PyArg_ParseTuple(args, "OUIIIzK|p:_open", &pool_argument, &name, &options.capacity, &options.flags,
                          &options.as_it_is, &options.content, &alive_for_ns, &existing))
        return NULL;
    options.alive_for_ns = alive_for_ns;
    options.existing = existing != 0;
    struct pool_object *pool = pool_of(type, pool_argument);
    const char *text = PyUnicode_AsUTF8AndSize(name, NULL);
    if (pool == NULL || text == NULL || pool->closed)
        return pool == NULL || text == NULL ? NULL : raise_closed(pool);
    int result = 0;
    struct ring_object *ring = NULL;
    if ((other = opened(pool, name, &options, &result)) == NULL) {
        if ((ring = ring_new(type, pool, name)) == NULL)
            return NULL;
        result = open_core(ring, text, &options, &other);
    }
    if (result >= 0 && other == NULL)
        return OBJECT(ring);
    Py_XDECREF(OBJECT(ring));
    if (result >= 0)
        return other;
    Py_XDECREF(other);
    return raise_open(pool, name, result);
}

static PyObject *ring_refuse(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args, (void)kwargs;
    return PyErr_Format(PyExc_TypeError, "%R is not called: use pool.ring()", type);
}

PyDoc_STRVAR(ring_close_doc,
"close($self, /)\n--\n\n"
"Leave the ring: sides that are exclusive to this process become free. The ring itself stays in the pool, until it is\n"
"unlinked.");

static PyObject *ring_close(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    POOL_LOCK(self->pool)
    self->closed = true;
    ring_settle(self);
    POOL_UNLOCK()
    RETURN_NONE;
}

PyDoc_STRVAR(ring_unlink_doc,
"unlink($self, /)\n--\n\n"
"Remove the ring's name, for all processes and at once: the next `Pool.ring` of that name makes a new one.\n\n"
"Processes that have the ring open go on with it, this one included. When the last of them has closed it or died, what\n"
"is queued in it is freed, and its memory and its holder slot are there for others.\n\n"
"Returns\n-------\n"
"bool\n    False: it had no name any more.\n\n"
"Raises\n------\n"
"TimeoutError\n    A stopped process has kept the registry of the pool for ten seconds.");

static PyObject *ring_unlink(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    struct wait_scope scope;
    int result = -SSM_E_CLOSED;
    if (!ring_begin(self))
        return NULL;
    if (wait_begin(&scope, self->pool, &self->closed)) {
        result = ssm_ring_unlink(self->core);
        wait_end(&scope);
    }
    ring_end(self);
    return result == 0 || result == -ENOENT ? PyBool_FromLong(result == 0) : ring_raise(self, result, false);
}

/* ---- the rest ------------------------------------------------------------------------------------- */

PyDoc_STRVAR(ring_shutdown_doc,
"shutdown($self, /, immediate=False)\n--\n\n"
"End the ring for every process, as queue.Queue.shutdown() does: put() raises RingShutDown from now on, get() does so\n"
"once the ring is drained.\n\n"
"Parameters\n----------\n"
"immediate : bool\n    Free what is queued, so that get() raises at once.");

static PyObject *ring_shutdown(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"shutdown", {KEYWORD_immediate}, 1, 1, 0};
    PyObject *values[1];
    bool immediate = false;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        argument_flag(values[0], &immediate) < 0 || !ring_begin(self))
        return NULL;
    int result = ssm_ring_shutdown(self->core, immediate);
    ring_end(self);
    if (result < 0)
        return ring_raise(self, result, true);
    RETURN_NONE;
}

PyDoc_STRVAR(ring_task_done_doc,
"task_done($self, /)\n--\n\n"
"Say that one packet that was taken out is dealt with, for calls of join().\n\n"
"Raises\n------\n"
"ValueError\n    As many were said to be done as were ever put.");

static PyObject *ring_task_done(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    int result = ssm_ring_task_done(self->core);
    ring_end(self);
    if (result == -EINVAL)
        return PyErr_Format(
            PyExc_ValueError,
            "task_done() was called more often than packets were put into ring %R; call it once for each that "
            "was taken out",
            self->name);
    if (result < 0)
        return ring_raise(self, result, false);
    RETURN_NONE;
}

PyDoc_STRVAR(ring_join_doc,
"join($self, /, timeout=None)\n--\n\n"
"Wait until task_done() was said as often as packets were put.\n\n"
"Packets that a shutdown discards are done. A packet that a process had taken when it died is done when another process calls\n"
"task_done() for it; with ``redeliver=True`` that is the worker that gets it once more.\n\n"
"Parameters\n----------\n"
"timeout : float or None\n    Seconds to wait; ``None`` waits for ever.\n\n"
"Returns\n-------\n"
"bool\n    False: not all were done in `timeout`.");

/* Called inside ring_begin() .. ring_end(). */
static int join(struct ring_object *ring, int64_t timeout_ns)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, ring->pool, &ring->closed))
        return -SSM_E_CLOSED;
    scope.subject = (struct wait_subject){.what = "join", .object = OBJECT(ring)};
    int result = ssm_ring_join(ring->core, timeout_ns);
    wait_end(&scope);
    return result;
}

static PyObject *ring_join(struct ring_object *self, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames)
{
    static const struct parameters parameters = {"join", {KEYWORD_timeout}, 1, 1, 0};
    PyObject *values[1];
    int64_t timeout_ns = SSM_FOREVER;
    if (arguments_bind(self->state, &parameters, args, nargs, kwnames, values) < 0 ||
        (values[0] != NULL && argument_timeout(values[0], &timeout_ns) < 0) || !ring_begin(self))
        return NULL;
    int result = join(self, timeout_ns);
    ring_end(self);
    return result == 0 || result == -ETIMEDOUT ? PyBool_FromLong(result == 0) : ring_raise(self, result, false);
}

/* The getter of a number that the core tells. */
#define RING_NUMBER(name)                                                    \
    static PyObject *ring_get_##name(struct ring_object *self, void *unused) \
    {                                                                        \
        (void)unused;                                                        \
        if (!ring_begin(self))                                               \
            return NULL;                                                     \
        const uint64_t value = (uint64_t)ssm_ring_##name(self->core);        \
        ring_end(self);                                                      \
        return PyLong_FromUnsignedLongLong(value);                           \
    }
RING_NUMBER(is_unlinked)
RING_NUMBER(unfinished)
RING_NUMBER(capacity)
RING_NUMBER(flags)
RING_NUMBER(acl)
RING_NUMBER(alive_for_ns)
RING_NUMBER(number)

/* Also of an empty ring, which has the length 0: `if ring` asks whether there is one. */
static int ring_is_true(struct ring_object *self)
{
    (void)self;
    return 1;
}

static Py_ssize_t ring_length(struct ring_object *self)
{
    if (!ring_begin(self))
        return -1;
    uint32_t depth = ssm_ring_depth(self->core);
    ring_end(self);
    return depth;
}

PyDoc_STRVAR(ring_qsize_doc, "qsize($self, /)\n--\n\nPackets queued now, as len().");

static PyObject *ring_qsize(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t depth = ring_length(self);
    return depth < 0 ? NULL : PyLong_FromSsize_t(depth);
}

PyDoc_STRVAR(ring_oldest_doc,
"_oldest($self, /)\n--\n\n"
"The position of the oldest packet that is not done with, and whether it was returned and waits to be taken.");

static PyObject *ring_oldest(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    uint64_t position = 0;
    if (!ring_begin(self))
        return NULL;
    const int returned = ssm_ring_oldest(self->core, &position);
    ring_end(self);
    if (returned == -EINVAL)
        return PyErr_Format(PyExc_ValueError, "ring %R does not redeliver: its packets have no positions", self->name);
    return returned < 0 ? ring_raise(self, returned, false)
                        : Py_BuildValue("KO", (unsigned long long)position, returned ? Py_True : Py_False);
}

PyDoc_STRVAR(ring_empty_doc, "empty($self, /)\n--\n\nTrue when no packet is queued now; another process may change that at once.");

static PyObject *ring_empty(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    Py_ssize_t depth = ring_length(self);
    return depth < 0 ? NULL : PyBool_FromLong(depth == 0);
}

PyDoc_STRVAR(ring_full_doc, "full($self, /)\n--\n\nTrue when no slot is free now; another process may change that at once.");

static PyObject *ring_full(struct ring_object *self, PyObject *unused)
{
    (void)unused;
    if (!ring_begin(self))
        return NULL;
    bool full = ssm_ring_room(self->core) == 0;
    ring_end(self);
    return PyBool_FromLong(full);
}

static int ring_set_acl(struct ring_object *self, PyObject *value, void *unused)
{
    (void)unused;
    uint64_t acl;
    if (value == NULL) {
        PyErr_SetString(PyExc_TypeError, "a ring's acl cannot be deleted; set it to Acl.RDWR");
        return -1;
    }
    int range = argument_u64(value, &acl);
    if (range < 0)
        return -1;
    if (range > 0 || acl & ~(uint64_t)(SSM_ACL_RDONLY | SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER)) {
        PyErr_Format(PyExc_ValueError, "acl is made of Acl.RDWR, RDONLY, FLOWDOWN and FLOWPEER, not %R", value);
        return -1;
    }
    if (!ring_begin(self))
        return -1;
    int result = ssm_ring_set_acl(self->core, (uint32_t)acl);
    ring_end(self);
    if (result < 0)
        ring_raise(self, result, true);
    return result < 0 ? -1 : 0;
}

static PyObject *ring_get_name(struct ring_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(self->name);
    return self->name;
}

static PyObject *ring_get_pool(struct ring_object *self, void *unused)
{
    (void)unused;
    Py_INCREF(OBJECT(self->pool));
    return OBJECT(self->pool);
}

static PyObject *ring_get_type(struct ring_object *self, void *unused)
{
    (void)unused;
    char text[SSM_TYPE_SIZE];
    if (!ring_begin(self))
        return NULL;
    int bytes = ssm_ring_type(self->core, text);
    ring_end(self);
    return bytes < 0 ? ring_raise(self, bytes, false) : PyUnicode_DecodeUTF8(text, bytes, "backslashreplace");
}

static PyGetSetDef ring_attributes[] = {
    {"name", (getter)ring_get_name, NULL, "str : its name in the pool.", NULL},
    {"pool", (getter)ring_get_pool, NULL, "Pool : that it was opened through.", NULL},
    {"capacity", (getter)ring_get_capacity, NULL, "int : packets that it takes.", NULL},
    {"_flags", (getter)ring_get_flags, NULL, "int : ONE_PRODUCER and the like.", NULL},
    {"_alive_for_ns", (getter)ring_get_alive_for_ns, NULL, "int : what alive_for= says.", NULL},
    {"_unlinked", (getter)ring_get_is_unlinked, NULL, "int : 1: it has no name any more.", NULL},
    {"_type", (getter)ring_get_type, NULL, "str : the text that describes the dtype of its records.", NULL},
    {"unfinished", (getter)ring_get_unfinished, NULL,
     "int : packets that were put and are not said to be done; see task_done().", NULL},
    {"_number", (getter)ring_get_number, NULL, "int : of the subscription of a topic, or 0: it is not counted yet.",
     NULL},
    {"_acl", (getter)ring_get_acl, (setter)ring_set_acl, "int : ssm.Acl.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyMemberDef ring_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(struct ring_object, weakrefs), READONLY, NULL},
    {"closed", T_BOOL, offsetof(struct ring_object, closed), READONLY, "bool : close() was called."},
    {NULL, 0, 0, 0, NULL},
};

static PyMethodDef ring_methods[] = {
    {"_open", (PyCFunction)ring_open, METH_VARARGS | METH_CLASS, ring_open_doc},
    {"put", FAST(ring_put), METH_FASTCALL | METH_KEYWORDS, ring_put_doc},
    {"put_nowait", FAST(ring_put_nowait), METH_FASTCALL | METH_KEYWORDS, ring_put_nowait_doc},
    {"put_many", FAST(ring_put_many), METH_FASTCALL | METH_KEYWORDS, ring_put_many_doc},
    {"send", FAST(ring_send), METH_FASTCALL | METH_KEYWORDS, ring_send_doc},
    {"get", FAST(ring_get), METH_FASTCALL | METH_KEYWORDS, ring_get_doc},
    {"get_nowait", FAST(ring_get_nowait), METH_FASTCALL | METH_KEYWORDS, ring_get_nowait_doc},
    {"get_many", FAST(ring_get_many), METH_FASTCALL | METH_KEYWORDS, ring_get_many_doc},
    {"_get_enough", FAST(ring_get_enough), METH_FASTCALL, ring_get_enough_doc},
    {"_publish", FAST(ring_publish), METH_FASTCALL, ring_publish_doc},
    {"_enrol", (PyCFunction)ring_enrol, METH_VARARGS, ring_enrol_doc},
    {"_roster", (PyCFunction)ring_roster, METH_O, ring_roster_doc},
    {"shutdown", FAST(ring_shutdown), METH_FASTCALL | METH_KEYWORDS, ring_shutdown_doc},
    {"task_done", (PyCFunction)ring_task_done, METH_NOARGS, ring_task_done_doc},
    {"join", FAST(ring_join), METH_FASTCALL | METH_KEYWORDS, ring_join_doc},
    {"qsize", (PyCFunction)ring_qsize, METH_NOARGS, ring_qsize_doc},
    {"_oldest", (PyCFunction)ring_oldest, METH_NOARGS, ring_oldest_doc},
    {"empty", (PyCFunction)ring_empty, METH_NOARGS, ring_empty_doc},
    {"full", (PyCFunction)ring_full, METH_NOARGS, ring_full_doc},
    {"close", (PyCFunction)ring_close, METH_NOARGS, ring_close_doc},
    {"unlink", (PyCFunction)ring_unlink, METH_NOARGS, ring_unlink_doc},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot ring_slots[] = {
    {Py_tp_doc, "What ssm.Ring is built on."},
    {Py_tp_new, ring_refuse},
    {Py_tp_dealloc, ring_dealloc},
    {Py_tp_methods, ring_methods},
    {Py_tp_members, ring_members},
    {Py_tp_getset, ring_attributes},
    {Py_tp_iter, PyObject_SelfIter},
    {Py_tp_iternext, ring_next},
    {Py_mp_length, ring_length},
    {Py_nb_bool, ring_is_true},
    {0, NULL},
};

static PyType_Spec ring_spec = {
    .name = "ssm._core.Ring",
    .basicsize = sizeof(struct ring_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = ring_slots,
};

PyObject *core_own_methods(PyObject *module, PyObject *type)
{
    (void)module;
    PyTypeObject *base = PyType_Check(type) ? (PyTypeObject *)type : NULL;
    PyMethodDef *methods = NULL;
    while (base != NULL && methods == NULL) { /* a class written in Python has no table of methods */
        base = PyType_GetSlot(base, Py_tp_base);
        methods = base != NULL ? PyType_GetSlot(base, Py_tp_methods) : NULL;
    }
    for (PyMethodDef *def = methods; def != NULL && def->ml_name != NULL; def++) {
        if (!(def->ml_flags & METH_FASTCALL))
            continue;
        PyObject *method = PyDescr_NewMethod((PyTypeObject *)type, def);
        int result = method != NULL ? PyObject_SetAttrString(type, def->ml_name, method) : -1;
        Py_XDECREF(method);
        if (result < 0)
            return NULL;
    }
    RETURN_NONE;
}

int ring_exec(PyObject *module, struct module_state *state)
{
    state->ring_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    return state->ring_type == NULL ? -1 : PyModule_AddType(module, state->ring_type);
}
