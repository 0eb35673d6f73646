/* SPDX-License-Identifier: Apache-2.0
 *
 * PoolExhausted, with the facts of the moment when it was raised: the holders of the blocks. ssm/errors.py makes the
 * text.
 *
 * The facts are a pass over all blocks, which takes much longer than the failed call. An error that is rare gets facts of
 * its own; a loop that polls shall not pay for them. So passes are paid out of a credit that grows with time: while it
 * is used up, an error gets the facts of the latest pass and their age. */
#include "binding.h"

#include <errno.h>

#define HELD_MAX      4u               /* holders that are named */
#define CREDIT_NS     INT64_C(2000000) /* of passes, before the first one is left out */
#define CREDIT_PER_NS 16               /* one of so many nanoseconds may go to passes, in the long run */

/* (blocks, is_ring, name, pid, alive) of the holders with most blocks, and whether there are more. */
static PyObject *most_held(struct ssm_holder_info *holders, uint32_t count)
{
    PyObject *held = PyTuple_New(0);
    for (uint32_t named = 0; held != NULL; named++) {
        struct ssm_holder_info *most = &holders[0];
        for (uint32_t i = 1; i < count; i++)
            if (holders[i].blocks > most->blocks)
                most = &holders[i];
        if (most->blocks == 0 || named == HELD_MAX)
            return Py_BuildValue("(NN)", held, PyBool_FromLong(most->blocks != 0));
        PyObject *one = Py_BuildValue("((KNNIN))", most->blocks, PyBool_FromLong(most->kind != SSM_HOLDER_PROCESS),
                                      name_object(most->name), most->pid, PyBool_FromLong(most->alive != 0));
        PyObject *longer = one != NULL ? PySequence_Concat(held, one) : NULL;
        Py_XDECREF(one);
        Py_DECREF(held);
        held = longer;
        most->blocks = 0;
    }
    return NULL;
}

static PyObject *held_now(struct pool_object *pool)
{
    struct ssm_holder_info *holders = pool_holders(pool);
    PyObject *held = holders != NULL ? most_held(holders, pool->info.holders) : NULL;
    PyMem_Free(holders);
    return held;
}

/* Blocks on the free lists, by class. */
static PyObject *free_now(struct pool_object *pool)
{
    PyObject *free = PyTuple_New(pool->info.class_count);
    for (uint32_t i = 0; free != NULL && i < pool->info.class_count; i++) {
        struct ssm_class_stats stats;
        int result;
        POOL_CALL(pool, result, ssm_class_stats(pool->core, i, &stats));
        PyObject *number = result < 0 ? raise_code(pool, result) : PyLong_FromUnsignedLongLong(stats.free);
        if (number == NULL || PyTuple_SetItem(free, i, number) < 0)
            Py_CLEAR(free);
    }
    return free;
}

/* (bytes, used, packets held, packets, largest free range, reserved, available), or None. */
static PyObject *arena_now(struct pool_object *pool)
{
    struct ssm_arena_stats s;
    int result = -ENOENT;
    if (pool->info.arena_bytes > 0)
        POOL_CALL(pool, result, ssm_arena_stats(pool->core, &s));
    if (result == -ENOENT)
        RETURN_NONE;
    return result < 0 ? raise_code(pool, result)
                      : Py_BuildValue("(KKKKKKK)", s.bytes, s.used, s.packets - s.free, s.packets, s.largest, s.backed,
                                      s.available);
}

/* (when, free by class, (held, more), arena). None where the pool was closed, or cut, meanwhile: the error stays what
 * it is. */
static PyObject *look(struct pool_object *pool, uint64_t now_ns)
{
    PyObject *when = PyLong_FromUnsignedLongLong(now_ns);
    PyObject *free = free_now(pool);
    PyObject *held = free != NULL ? held_now(pool) : NULL;
    PyObject *arena = held != NULL ? arena_now(pool) : NULL;
    PyObject *facts = when != NULL && arena != NULL ? PyTuple_Pack(4, when, free, held, arena) : NULL;
    Py_XDECREF(when);
    Py_XDECREF(free);
    Py_XDECREF(held);
    Py_XDECREF(arena);
    if (facts != NULL)
        return facts;
    PyErr_Clear();
    RETURN_NONE;
}

/* NULL: there is credit for a pass. Otherwise the latest facts, a new reference. */
static PyObject *facts_kept(struct pool_object *pool, uint64_t now_ns)
{
    PyObject *kept = NULL;
    POOL_LOCK(pool)
    struct exhausted_facts *facts = &pool->facts;
    const uint64_t earned_ns = (now_ns - facts->asked_ns) / CREDIT_PER_NS;
    facts->asked_ns = now_ns;
    facts->credit_ns = earned_ns > (uint64_t)(CREDIT_NS - facts->credit_ns) ? CREDIT_NS
                                                                            : facts->credit_ns + (int64_t)earned_ns;
    if (facts->credit_ns <= 0 && facts->latest != NULL)
        kept = Py_NewRef(facts->latest);
    POOL_UNLOCK()
    return kept;
}

static PyObject *facts_new(struct pool_object *pool, uint64_t now_ns)
{
    PyObject *latest = look(pool, now_ns), *former;
    POOL_LOCK(pool)
    former = pool->facts.latest;
    pool->facts.latest = Py_NewRef(latest);
    pool->facts.credit_ns -= (int64_t)(ssm_clock_ns() - now_ns);
    POOL_UNLOCK()
    Py_XDECREF(former);
    return latest;
}

PyObject *exhausted_raise(struct pool_object *pool, PyObject *size, PyObject *count)
{
    const uint64_t now_ns = ssm_clock_ns();
    PyObject *facts = facts_kept(pool, now_ns), *when = PyLong_FromUnsignedLongLong(now_ns), *arguments = NULL;
    if (facts == NULL)
        facts = facts_new(pool, now_ns);
    if (size != NULL && count != NULL && when != NULL)
        arguments = PyTuple_Pack(5, OBJECT(pool), size, count, facts, when);
    if (arguments != NULL)
        PyErr_SetObject(pool->state->ours[ERROR_PoolExhausted], arguments);
    Py_XDECREF(arguments);
    Py_XDECREF(when);
    Py_DECREF(facts);
    Py_XDECREF(size);
    Py_XDECREF(count);
    return NULL;
}
