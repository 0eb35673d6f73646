/* SPDX-License-Identifier: Apache-2.0
 *
 * What happens around a sleep inside the core: the GIL goes, signals are answered, a close ends the wait, and a wait that
 * lasts long is told of. The clock is read after a sleep only, so a wait that spins pays nothing for that.
 *
 * The hooks run in the thread that made the call and get no argument that says which call it is: thread-local words
 * do. Scopes nest, for a signal handler may call in again while the outer call sleeps. */
#include "binding.h"

static _Thread_local struct wait_scope *innermost;
static _Thread_local PyThreadState *released; /* the call runs without the GIL already */

bool wait_begin(struct wait_scope *scope, struct pool_object *pool, const bool *ring_closed)
{
    bool open;
    POOL_LOCK(pool)
    open = !pool->closed;
    pool->calls += open;
    POOL_UNLOCK()
    *scope = (struct wait_scope){.outer = innermost, .pool = pool, .ring_closed = ring_closed};
    if (open)
        innermost = scope;
    return open;
}

void wait_begin_close(struct wait_scope *scope, struct pool_object *pool)
{
    pool->calls++;
    *scope = (struct wait_scope){.outer = innermost, .pool = pool, .closing = true};
    innermost = scope;
}

void wait_end(struct wait_scope *scope)
{
    innermost = scope->outer;
    POOL_LOCK(scope->pool)
    scope->pool->calls--;
    pool_settle(scope->pool);
    POOL_UNLOCK()
}

void wait_release_gil(void)
{
    released = PyEval_SaveThread();
}

void wait_take_gil(void)
{
    PyEval_RestoreThread(released);
    released = NULL;
}

static void *before_sleep(void)
{
    return released != NULL ? NULL : PyEval_SaveThread();
}

static bool is_closed(const struct wait_scope *scope)
{
    return scope != NULL && !scope->closing &&
           (scope->pool->closed || (scope->ring_closed != NULL && *scope->ring_closed) ||
            (scope->watch != NULL && !scope->watch_is_open(scope->watch)));
}

/* Once per wait: calls ssm.slow.tell_slow(what, object, size, count, seconds), which logs. -1 with an exception set. */
static int tell_if_slow(struct wait_scope *scope)
{
    const struct module_state *state = scope->pool->state;
    const struct wait_subject *subject = &scope->subject;
    const uint64_t now_ns = ssm_clock_ns();
    if (scope->since_ns == 0)
        scope->since_ns = now_ns;
    if (now_ns - scope->since_ns < state->slow_ns)
        return 0;
    scope->told = true; /* first: the call may sleep itself */
    PyObject *done = PyObject_CallFunction(state->ours[FUNCTION_tell_slow], "sOKId", subject->what, subject->object,
                                           (unsigned long long)subject->size, subject->count,
                                           (double)(now_ns - scope->since_ns) / 1e9);
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static int after_sleep(void *thread_state)
{
    bool without_gil = thread_state == NULL;
    PyEval_RestoreThread(without_gil ? released : thread_state);
    if (without_gil)
        released = NULL; /* a signal handler may call in */
    bool give_up = PyErr_CheckSignals() < 0;
    if (!give_up && !without_gil && innermost != NULL && innermost->look != NULL)
        give_up = innermost->look(innermost->pool) < 0;
    if (!give_up && !without_gil && innermost != NULL && innermost->subject.what != NULL && !innermost->told)
        give_up = tell_if_slow(innermost) < 0;
    give_up = give_up || (!without_gil && is_closed(innermost)); /* last: handlers and finalizers may close */
    if (without_gil)
        released = PyEval_SaveThread();
    return give_up;
}

PyObject *core_slow_wait(PyObject *module, PyObject *seconds)
{
    struct module_state *state = PyModule_GetState(module);
    int64_t slow_ns;
    if (argument_timeout(seconds, &slow_ns) < 0)
        return NULL;
    state->slow_ns = slow_ns < 0 ? UINT64_MAX : (uint64_t)slow_ns; /* SSM_FOREVER: None, or too long to matter */
    RETURN_NONE;
}

const struct ssm_sleep_hooks wait_hooks = {.before = before_sleep, .after = after_sleep};
