/* SPDX-License-Identifier: Apache-2.0
 *
 * Semaphores: calls that take a permit, wait for one, and give it back. The permits and the queue are in permits.h.
 *
 * A waiter sleeps on the word of its place. It reads the word under the service's lock. A grant happens under that lock
 * before the word changes, so no wake-up is lost. Every sleep is bounded, since the process that grants may die before
 * it wakes the waiter. As in every other wait, one of the waiters looks for dead processes, which may hold permits. */
#include "service.h"

#include "lock.h"

#include <errno.h>

#define RETRY_NS  UINT64_C(10000000) /* how long a call that does not wait for a permit tries for the lock */
#define STAYED_NS UINT64_C(500000)   /* between two tries for a lock that stays taken */

/* One call of acquire. In a forked child the owner differs, and the place is the parent's. */
struct acquire {
    struct ssm_service *service;
    uint64_t            ticket;
    uint32_t            owner, place;
    struct ssm_event   *event; /* to sleep on; `seen` is its word at that time */
    uint32_t            seen;
    bool                overslept;
};

static struct ssm_permits *permits_of(struct acquire *call)
{
    return &call->service->hosted.permits;
}

/* Grants, releases the lock, and wakes the calls that got a permit. The caller has the lock. */
static void leave_and_wake(struct acquire *call)
{
    bool crowd;
    const uint64_t places = ssm_permits_grant(permits_of(call), &crowd);
    (void)ssm_service_finish(call->service, AL_OK, false);
    ssm_permits_wake(permits_of(call), places, crowd);
}

static int succeed(struct acquire *call, bool had_place)
{
    struct ssm_permits permits = *permits_of(call);
    SSM_ASSERT_SHARED(ssm_permits_held(&permits, call->owner) > 0);
    if (had_place && call->overslept)
        ssm_event_count_late(call->event, call->seen, call->service->pool->recheck_ns == SSM_RECHECK_NS);
    int result = ssm_service_finish(call->service, AL_OK, true);
    if (had_place) /* a call without a place may take it */
        ssm_event_wake(&permits.shared->crowd, 1);
    return result;
}

static void forget_the_parents(struct acquire *call)
{
    const uint32_t owner = ssm_owner_self(call->service->pool);
    if (call->owner != owner)
        *call = (struct acquire){.service = call->service, .owner = owner, .place = SSM_NO_PLACE};
}

static bool has_place(struct acquire *call)
{
    if (call->place != SSM_NO_PLACE && !ssm_permits_has_place(permits_of(call), call->place, call->owner, call->ticket))
        call->place = SSM_NO_PLACE; /* it was overwritten */
    return call->place != SSM_NO_PLACE;
}

static void queue_up(struct acquire *call)
{
    struct ssm_permits_shared *shared = permits_of(call)->shared;
    if (call->place == SSM_NO_PLACE)
        call->place = ssm_permits_join(permits_of(call), call->owner, &call->ticket);
    call->event = call->place == SSM_NO_PLACE ? &shared->crowd : &shared->waiters[call->place].event;
    call->seen = ssm_event_announce(call->event);
}

/* 0; -SSM_E_UNAVAILABLE if no permit is free, then with `queue` the call has a place; -ETIMEDOUT if the lock stays
 * taken. */
static int attempt(struct acquire *call, bool queue)
{
    int result = ssm_service_try_enter_as_owner(call->service);
    if (result != 0)
        return result;
    forget_the_parents(call);
    if (has_place(call)) {
        if (ssm_permits_collect(permits_of(call), call->place))
            return succeed(call, true);
    } else {
        uint32_t from = ssm_load_relaxed_u32(&call->service->last); /* a guess */
        if (ssm_permits_take(permits_of(call), call->owner, &from) == AL_OK) {
            ssm_store_relaxed_u32(&call->service->last, from);
            return succeed(call, false);
        }
    }
    if (queue)
        queue_up(call);
    leave_and_wake(call);
    return -SSM_E_UNAVAILABLE;
}

/* Leaves the queue, after a last look. If the lock stays taken, its next owner frees the place. */
static int give_up(struct acquire *call, int why)
{
    SSM_ASSERT(call->place <= SSM_NO_PLACE);
    if (call->place == SSM_NO_PLACE)
        return why;
    int result = ssm_service_try_enter_as_owner(call->service);
    if (result == -ETIMEDOUT && ssm_pool_enter(call->service->pool) == 0) {
        if (call->owner == ssm_owner_self(call->service->pool))
            ssm_store_release_u32(&permits_of(call)->shared->waiters[call->place].gone, 1);
        ssm_pool_leave(call->service->pool);
    }
    if (result != 0)
        return why; /* closed: the holder slot was given up, and the place with it */
    forget_the_parents(call);
    if (!has_place(call)) {
        ssm_service_leave(call->service);
        return why;
    }
    if (why == -SSM_E_UNAVAILABLE && ssm_permits_collect(permits_of(call), call->place))
        return succeed(call, true);
    ssm_permits_leave(permits_of(call), call->place);
    leave_and_wake(call);
    return why;
}

static int sleep_until(struct acquire *call, uint64_t until_ns)
{
    struct ssm_pool *pool = call->service->pool;
    SSM_ASSERT(call->event != NULL);
    const uint32_t era = ssm_sleeper_begin(pool);
    void *state = pool->hooks.before != NULL ? pool->hooks.before() : NULL;
    ssm_event_sleep(call->event, call->seen, until_ns);
    int interrupted = pool->hooks.after != NULL ? pool->hooks.after(state) : 0;
    ssm_sleeper_end(pool, era);
    int result = ssm_now_ns() >= until_ns ? ssm_pool_recheck(pool) : 0;
    return interrupted ? -EINTR : result;
}

/* After a first attempt that queued up or did not get the lock: sleeps and tries again until it has a permit. */
static int wait_for_permit(struct acquire *call, int result, int64_t timeout_ns)
{
    struct ssm_pool *pool = call->service->pool;
    const uint64_t until_ns = ssm_deadline_ns(timeout_ns);
    uint64_t recheck_ns = pool->recheck_ns;
    while (result == -SSM_E_UNAVAILABLE || result == -ETIMEDOUT) {
        const uint64_t now_ns = ssm_now_ns(), step_ns = result == -ETIMEDOUT ? STAYED_NS : recheck_ns;
        if (now_ns >= until_ns)
            return give_up(call, -SSM_E_UNAVAILABLE);
        const uint64_t look_ns = until_ns - now_ns < step_ns ? until_ns : now_ns + step_ns;
        int stopped = call->event != NULL && result != -ETIMEDOUT ? sleep_until(call, look_ns)
                                                                  : ssm_pool_nap(pool, look_ns - now_ns);
        if (stopped != 0)
            return give_up(call, stopped);
        const uint64_t woken_ns = ssm_now_ns();
        call->overslept = woken_ns >= look_ns && result != -ETIMEDOUT;
        recheck_ns = call->overslept ? ssm_recheck_longer_ns(recheck_ns) : pool->recheck_ns;
        if (call->overslept && ssm_pool_look_in_turn(pool, woken_ns))
            pool->on_stall(pool);
        result = attempt(call, true);
    }
    return result != 0 ? give_up(call, result) : 0;
}

/* Does not wait for a permit, and only RETRY_NS for the lock. */
static int acquire_now(struct acquire *call)
{
    struct ssm_lock_retry retry = ssm_lock_retry_begin(call->service->pool);
    int again, result = attempt(call, false);
    while (result == -ETIMEDOUT && (again = ssm_lock_retry(call->service->pool, &retry, RETRY_NS)) != 0) {
        if (again < 0)
            return again;
        result = attempt(call, false);
    }
    return result == -ETIMEDOUT ? -SSM_E_UNAVAILABLE : result;
}

int ssm_semaphore_acquire(struct ssm_service *service, int64_t timeout_ns, uint64_t *ticket)
{
    if (service->hosted.ops != &ssm_semaphore_ops)
        return -EINVAL;
    struct acquire call = {.service = service, .place = SSM_NO_PLACE, .owner = ssm_owner_self(service->pool)};
    if (ticket != NULL)
        call.ticket = *ticket;
    int result = acquire_now(&call);
    if (result == -SSM_E_UNAVAILABLE && service->pool->on_stall(service->pool)) /* dead processes had permits */
        result = acquire_now(&call);
    if (result == -SSM_E_UNAVAILABLE && timeout_ns != 0)
        result = wait_for_permit(&call, attempt(&call, true), timeout_ns);
    if (ticket != NULL)
        *ticket = call.ticket;
    return result;
}

int ssm_semaphore_release(struct ssm_service *service, uint32_t number)
{
    if (service->hosted.ops != &ssm_semaphore_ops || number == 0)
        return -EINVAL;
    struct acquire call = {.service = service};
    int result = ssm_service_enter(service);
    if (result != 0)
        return result;
    const uint32_t last = ssm_load_relaxed_u32(&service->last); /* a guess */
    result = ssm_permits_give(&service->hosted.permits, ssm_owner_self(service->pool), number, last);
    bool crowd = false;
    const uint64_t places = ssm_permits_grant(permits_of(&call), &crowd);
    result = ssm_service_finish(service, result, false);
    ssm_permits_wake(permits_of(&call), places, crowd);
    return result;
}

int ssm_semaphore_held(struct ssm_service *service)
{
    if (service->hosted.ops != &ssm_semaphore_ops)
        return -EINVAL;
    int result = ssm_service_enter(service);
    if (result != 0)
        return result;
    result = (int)ssm_permits_held(&service->hosted.permits, ssm_owner_self(service->pool));
    ssm_service_leave(service);
    return result;
}
