/* SPDX-License-Identifier: Apache-2.0
 *
 * How the process ends, and what becomes of the jobs that it has in hand: deliveries of rings with redeliver=True.
 *
 * Dropping the last object of a job is the end of it, while the process goes on. When the process ends, its status decides:
 * 0, and the jobs are done; anything else, and they go back to their rings, by a reaper, as after a kill. Python says what
 * the status is to nobody before it calls exit(3), when objects are long gone. So from `ending` on the drop of an object
 * leaves its job as it is, and a pool that has jobs stays attached; what on_exit(3) calls finishes them where the status
 * is 0. A process that ends in another way (_exit, a signal) finishes nothing, and neither does one whose C library has no
 * on_exit(3).
 *
 * While the process goes on, an object that is dropped with an exception set was bound to no name: its job goes back.
 *
 * A SystemExit that nobody caught is the one exception whose frames, and the jobs in their variables, go before `ending` is
 * said: in the main thread, when no frame is left. */
#include "binding.h"

#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool ending;
static struct pool_object *kept; /* pools that stay attached, linked by next_kept; never given back */

#ifdef __GLIBC__
static void at_exit(int status, void *unused)
{
    (void)unused;
    for (struct pool_object *pool = kept; status == 0 && pool != NULL; pool = pool->next_kept)
        if (pool->core != NULL)
            ssm_deliveries_finish(pool->core);
}

static void watch_exit(void)
{
    static bool watched;
    if (!watched)
        watched = on_exit(at_exit, NULL) == 0;
}
#else
static void watch_exit(void)
{
}
#endif

void pool_keep(struct pool_object *pool)
{
    if (pool->kept)
        return;
    watch_exit();
    pool->kept = true;
    Py_INCREF(OBJECT(pool));
    pool->next_kept = kept;
    kept = pool;
}

/* The main thread has no frame: an exception has taken it out of the last one. While the interpreter is taken down it has
 * none either, but then `ending` was said. */
static bool is_out_of_frames(void)
{
    return PyEval_GetFrame() == NULL && syscall(SYS_gettid) == getpid();
}

/* What is dropped while an exception is set had no name yet: a signal handler raised between get() and the assignment. It
 * goes back. Objects in variables stay with the traceback, and go when it does. */
static bool goes_back(struct pool_object *pool, const uint64_t *handles, uint32_t count, uint64_t delivery)
{
    bool all = true;
    for (uint32_t i = 0; i < count; i++)
        all = ssm_delivery_return(pool->core, handles[i], delivery) == 0 && all;
    return all;
}

bool deliveries_stay(struct pool_object *pool, const uint64_t *handles, uint32_t count, uint64_t delivery)
{
    if (delivery == SSM_NO_DELIVERY)
        return false;
    if (!ending && PyErr_Occurred() != NULL && goes_back(pool, handles, count, delivery))
        return false; /* the references are plain ones by now */
    if (!ending && PyErr_Occurred() == NULL && !is_out_of_frames())
        return false;
    pool_keep(pool);
    return true;
}

PyObject *core_ending(PyObject *module, PyObject *unused)
{
    (void)module, (void)unused;
    ending = true;
    RETURN_NONE;
}

PyObject *pool_has_jobs(struct pool_object *pool, PyObject *unused)
{
    uint32_t jobs;
    (void)unused;
    POOL_LOCK(pool)
    jobs = pool->closed || pool->core == NULL ? 0 : ssm_deliveries_open(pool->core);
    if (jobs > 0 && ending)
        pool_keep(pool);
    POOL_UNLOCK()
    return PyBool_FromLong(jobs > 0);
}

PyObject *pool_return_jobs(struct pool_object *pool, PyObject *unused)
{
    int result;
    (void)unused;
    POOL_CALL(pool, result, ssm_deliveries_return(pool->core));
    return PyBool_FromLong(result == 0);
}
