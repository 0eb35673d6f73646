/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking blocks for Python, and packets that hang in reference cycles of dead objects.
 *
 * Such a packet keeps its block until Python's cycle collector runs, which an exhausted pool does not cause by itself. So
 * where a pool, or the quota, is exhausted, pool_take() runs the collector before it waits or is refused, and tries once
 * more. While it waits, the sleep hook does so now and then: another thread may drop such a cycle meanwhile.
 *
 * The collector runs finalizers, which may call anything. So it runs between calls into the core, or in the sleep hook,
 * where a signal handler may run as well: no lock of the core and no right of a ring is held then. It does not run where
 * this process holds no block of the pool: neither in a process that waits for others only, nor in a forked child that
 * has nothing but its parent's garbage, whose finalizers are the parent's to run.
 *
 * A collection that frees no block was in vain. Those in vain are paid out of a credit that grows with time, as the
 * looks of exhausted.c are: a process that waits for others again and again does not collect all the time. */
#include "binding.h"

#include <errno.h>
#include <time.h>

#define CREDIT_NS \
    INT64_C(500000000) /* of this process's processor time: for collections in vain, before the first one is left out */
#define CREDIT_PER_NS 64                   /* one of so many nanoseconds may go to them, in the long run */
#define ASLEEP_NS     UINT64_C(1000000000) /* between two collections of calls that wait */

static int64_t processor_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* With POOL_LOCK. */
static bool may_collect(struct collector *collector, uint64_t now_ns, bool asleep)
{
    if (asleep && now_ns - collector->ran_ns < ASLEEP_NS)
        return false;
    const uint64_t earned_ns = (now_ns - collector->asked_ns) / CREDIT_PER_NS;
    if (collector->asked_ns == 0 || earned_ns > (uint64_t)(CREDIT_NS - collector->credit_ns))
        collector->credit_ns = CREDIT_NS;
    else
        collector->credit_ns += (int64_t)earned_ns;
    collector->asked_ns = now_ns;
    return collector->credit_ns > 0;
}

/* Runs the collector, if it may run now: 1 it did, 0 it did not, -EINTR with an exception set. Runs Python code: the
 * caller has no lock of the core. `asleep`: the call waits, and asks at each look. */
static int collect(struct pool_object *pool, bool asleep)
{
    const int64_t since_ns = processor_ns();
    uint64_t held = 0;
    bool may = false;
    POOL_LOCK(pool)
    if (!pool->closed && (held = ssm_pool_held_here(pool->core)) > 0)
        may = may_collect(&pool->collector, ssm_clock_ns(), asleep);
    POOL_UNLOCK()
    if (!may)
        return 0;
    PyObject *found = PyObject_CallNoArgs(pool->state->collect); /* not PyGC_Collect(): it obeys gc.disable() */
    Py_XDECREF(found);
    POOL_LOCK(pool)
    pool->collector.ran_ns = ssm_clock_ns();
    pool->collector.runs++;
    if (pool->closed || ssm_pool_held_here(pool->core) >= held)
        pool->collector.credit_ns -= processor_ns() - since_ns;
    POOL_UNLOCK()
    return found == NULL ? -EINTR : 1;
}

static int look(struct pool_object *pool)
{
    return collect(pool, true);
}

static int take_waiting(struct pool_object *pool, const bool *ring_closed, uint64_t size, uint32_t count,
                        int64_t timeout_ns, uint64_t *handles_out)
{
    struct wait_scope scope;
    if (!wait_begin(&scope, pool, ring_closed))
        return -SSM_E_CLOSED;
    scope.look = look;
    scope.subject = (struct wait_subject){"alloc", OBJECT(pool), size, count};
    int result = ssm_alloc_many(pool->core, size, count, timeout_ns, handles_out);
    wait_end(&scope);
    return result;
}

int pool_take(struct pool_object *pool, const bool *ring_closed, uint64_t size, uint32_t count, int64_t timeout_ns,
              uint64_t *handles_out)
{
    int result, collected;
    POOL_CALL(pool, result, ssm_alloc_many(pool->core, size, count, 0, handles_out));
    if (result == -SSM_E_EXHAUSTED || result == -SSM_E_QUOTA) {
        collected = collect(pool, false);
        if (collected < 0)
            return collected;
        if (collected > 0)
            POOL_CALL(pool, result, ssm_alloc_many(pool->core, size, count, 0, handles_out));
    }
    if (result == -SSM_E_EXHAUSTED && timeout_ns != 0)
        result = take_waiting(pool, ring_closed, size, count, timeout_ns, handles_out);
    return result;
}
