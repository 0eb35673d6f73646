/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for several rings; what is awaited goes through here, too (ssm/aio.py). */
#include "fields.h"

#define WAKER_NAME "ssm._core.waker"

static void free_waker(PyObject *capsule)
{
    ssm_waker_free(PyCapsule_GetPointer(capsule, WAKER_NAME));
}

PyObject *core_waker(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    struct ssm_waker *waker = ssm_waker_new();
    if (waker == NULL)
        return PyErr_NoMemory();
    PyObject *capsule = PyCapsule_New(waker, WAKER_NAME, free_waker);
    if (capsule == NULL)
        ssm_waker_free(waker);
    return capsule;
}

PyObject *core_wake(PyObject *module, PyObject *capsule)
{
    (void)module;
    struct ssm_waker *waker = PyCapsule_GetPointer(capsule, WAKER_NAME);
    if (waker == NULL)
        return NULL;
    ssm_waker_wake(waker);
    RETURN_NONE;
}

/* The rings that were begun, and what is waited for. */
struct watch {
    struct ring_object **rings;
    struct ssm_interest *interests;
    uint32_t             count; /* of rings that were begun */
    PyObject            *pairs; /* the argument; NULL: nobody is told that the wait is slow */
};

static bool check_ring(const struct module_state *state, PyObject *ring)
{
    if (PyObject_TypeCheck(ring, state->ring_type))
        return true;
    PyErr_Format(PyExc_TypeError, "rings are waited for, not %R", Py_TYPE(ring));
    return false;
}

/* false with an exception set. */
static bool watch_add(struct watch *watch, const struct module_state *state, PyObject *pair)
{
    PyObject *ring;
    int puts;
    if (!PyArg_ParseTuple(pair, "Op:wait_rings", &ring, &puts) || !check_ring(state, ring))
        return false;
    if (!ring_begin((struct ring_object *)ring))
        return false;
    watch->rings[watch->count] = (struct ring_object *)ring;
    watch->interests[watch->count++] = (struct ssm_interest){
        .ring = ((struct ring_object *)ring)->core,
        .what = puts ? SSM_READY_TO_PUT : SSM_READY_TO_GET,
    };
    return true;
}

static bool watch_is_open(const struct watch *watch)
{
    for (uint32_t i = 0; i < watch->count; i++)
        if (watch->rings[i]->closed || watch->rings[i]->pool->closed)
            return false;
    return true;
}

static int watch_wait(struct watch *watch, struct ssm_waker *waker, int64_t timeout_ns)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, watch->rings[0]->pool, &watch->rings[0]->closed))
        return -SSM_E_CLOSED;
    if (watch->pairs != NULL)
        scope.subject = (struct wait_subject){.what = "wait", .object = watch->pairs};
    scope.watch = watch;
    scope.watch_is_open = watch_is_open;
    int result = ssm_wait_rings(watch->interests, watch->count, waker, timeout_ns);
    wait_end(&scope);
    return result;
}

static PyObject *ready_ones(const struct watch *watch)
{
    PyObject *list = PyList_New(0);
    for (uint32_t i = 0; list != NULL && i < watch->count; i++)
        if (watch->interests[i].ready)
            list_add(&list, PyLong_FromUnsignedLong(i));
    return list;
}

static PyObject *watch_run(struct watch *watch, struct ssm_waker *waker, int64_t timeout_ns)
{
    int result = watch_wait(watch, waker, timeout_ns);
    if (result >= 0)
        return ready_ones(watch);
    if (PyErr_Occurred())
        return NULL;
    struct pool_object *pool = watch->rings[0]->pool;
    for (uint32_t i = watch->count; i-- > 0;) {
        const struct ring_object *ring = watch->rings[i];
        if (ring->closed)
            return PyErr_Format(PyExc_ValueError, "ring %R of pool %R was closed while it was waited for", ring->name,
                                ring->pool->name);
        if (ring->pool->closed)
            pool = ring->pool;
    }
    return raise_code(pool, result);
}

PyObject *core_count_ready(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const struct module_state *state = PyModule_GetState(module);
    if (arguments_are("count_ready", nargs, 2) < 0 || !check_ring(state, args[0]))
        return NULL;
    struct ring_object *ring = (struct ring_object *)args[0];
    const int puts = PyObject_IsTrue(args[1]);
    if (puts < 0)
        return NULL;
    uint32_t count = UINT32_MAX;
    if (ring_begin(ring)) {
        count = ssm_ring_ready(
            &(struct ssm_interest){.ring = ring->core, .what = puts ? SSM_READY_TO_PUT : SSM_READY_TO_GET});
        ring_end(ring);
    } else { /* closed: each call says so */
        PyErr_Clear();
    }
    return PyLong_FromUnsignedLong(count);
}

static PyObject *sleep_for_waker(struct ssm_waker *waker, int64_t timeout_ns)
{
    if (waker == NULL)
        return PyErr_Format(PyExc_ValueError, "there is no ring to wait for");
    Py_BEGIN_ALLOW_THREADS
    ssm_waker_sleep(waker, timeout_ns);
    Py_END_ALLOW_THREADS
    return PyList_New(0);
}

PyObject *core_wait_rings(PyObject *module, PyObject *const *args, Py_ssize_t nargs)
{
    const struct module_state *state = PyModule_GetState(module);
    PyObject *list = NULL;
    int64_t timeout_ns = SSM_FOREVER;
    if (arguments_are("wait_rings", nargs, 3) < 0 || argument_timeout(args[1], &timeout_ns) < 0)
        return NULL;
    PyObject *const pairs = args[0], *const capsule = args[2];
    if (!PyTuple_Check(pairs))
        return PyErr_Format(PyExc_TypeError, "wait_rings() takes a tuple of pairs, not %R", Py_TYPE(pairs));
    struct ssm_waker *waker = capsule == Py_None ? NULL : PyCapsule_GetPointer(capsule, WAKER_NAME);
    if (capsule != Py_None && waker == NULL)
        return NULL;
    size_t count = (size_t)PyTuple_Size(pairs);
    if (count == 0)
        return sleep_for_waker(waker, timeout_ns);
    struct watch watch = {PyMem_Calloc(count, sizeof(struct ring_object *)),
                          PyMem_Calloc(count, sizeof(struct ssm_interest)), 0, waker == NULL ? pairs : NULL};
    bool added = watch.rings != NULL && watch.interests != NULL;
    if (!added)
        PyErr_NoMemory();
    for (size_t i = 0; added && i < count; i++)
        added = watch_add(&watch, state, PyTuple_GetItem(pairs, (Py_ssize_t)i));
    if (added)
        list = watch_run(&watch, waker, timeout_ns);
    while (watch.count > 0)
        ring_end(watch.rings[--watch.count]);
    PyMem_Free(watch.rings);
    PyMem_Free(watch.interests);
    return list;
}
