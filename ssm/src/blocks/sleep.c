/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls that sleep; see sleep.h. */
#include "sleep.h"

#include "lock.h"
#include "seed_bug.h"
#include "shard.h"

#include <errno.h>

#define SPIN_NS     UINT64_C(10000)   /* spinning before the first sleep, if there are several processors */
#define LINGER_NS   UINT64_C(40000)   /* likewise, while that was lately enough: a wake-up takes about 15 us */
#define LINGER_REST 32                /* after LINGER_NS in vain, so many waits that it would have served */
#define BRIEF_NS    UINT64_C(500000)  /* the first sleep of a wait, which has no membarrier before it */
#define STAYED_NS   UINT64_C(1000000) /* first sleep for a lock, whose release wakes nobody here; then it doubles */

/* For people to read. Not if the attachment was closed meanwhile: its slot may be another process's. */
static void note_waiting(struct ssm_pool *pool, uint32_t code)
{
    if (ssm_pool_enter(pool) != 0)
        return;
    ssm_store_relaxed_u32(&ssm_holder_at(pool, pool->self)->waiting, code);
    ssm_pool_leave(pool);
}

static int sleep_once(struct ssm_pool *pool, const struct ssm_sleep *wait, uint32_t seen, uint64_t until_ns)
{
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 1 + wait->class_idx * pool->geometry.shards + pool->home);
    const uint32_t era = ssm_sleeper_begin(pool);
    void *state = pool->hooks.before != NULL ? pool->hooks.before() : NULL;
    ssm_event_sleep(wait->event, seen, until_ns);
    int interrupted = pool->hooks.after != NULL ? pool->hooks.after(state) : 0;
    ssm_sleeper_end(pool, era);
    int result = ssm_now_ns() >= until_ns ? ssm_pool_recheck(pool) : 0;
    if (result != 0)
        return result;
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 0);
    return interrupted ? -EINTR : 0;
}

/* If the spin were always shorter than a wake-up, two processes that answer each other and fell asleep once would sleep
 * at each turn. So a process whose waits are short spins longer. */
static int spin_for(struct ssm_pool *pool, const struct ssm_sleep *wait, uint64_t since_ns, uint64_t until_ns)
{
    const bool linger = ssm_load_relaxed_u32(&pool->linger_rest) == 0; /* a guess: other threads wait, too */
    const uint64_t spin_ns = linger ? LINGER_NS : SPIN_NS;
    int result = wait->again;
    if (!pool->many_cpus)
        return result;
    for (uint64_t now_ns = since_ns; result == wait->again && now_ns - since_ns < spin_ns && now_ns < until_ns;
         now_ns = ssm_now_ns()) {
        for (int i = 0; i < 16; i++)
            ssm_cpu_relax();
        result = wait->attempt(wait->context, false);
    }
    if (linger && result == wait->again)
        ssm_store_relaxed_u32(&pool->linger_rest, LINGER_REST);
    return result;
}

/* Called after a wait that slept. */
static void note_wait(struct ssm_pool *pool, uint64_t waited_ns)
{
    const uint32_t rest = ssm_load_relaxed_u32(&pool->linger_rest);
    if (waited_ns < LINGER_NS && rest > 0)
        ssm_store_relaxed_u32(&pool->linger_rest, rest - 1);
}

/* Returns until when it may sleep, at most `look_ns`. */
static uint64_t next_look_ns(const struct ssm_sleep *wait, uint64_t look_ns, uint64_t until_ns)
{
    if (wait->look_ns != NULL && *wait->look_ns < look_ns)
        look_ns = *wait->look_ns;
    return look_ns < until_ns && !SSM_HAS_BUG(LONG_SLEEP) ? look_ns : until_ns;
}

/* Counts the end of a wait as late if it slept for its full length, after a membarrier and a look that saw everything,
 * and nobody signalled since. */
static void note_late(struct ssm_pool *pool, const struct ssm_sleep *wait, uint32_t announced, int result)
{
    if (result < 0 && result != -SSM_E_SHUTDOWN) /* nobody signals other results, such as a closed attachment */
        return;
    if (ssm_pool_enter(pool) != 0)
        return;
    if (wait->gone == NULL || !*wait->gone)
        ssm_event_count_late(wait->event, announced, pool->recheck_ns == SSM_RECHECK_NS);
    ssm_pool_leave(pool);
}

/* Announces a waiter. Entered: another thread may close the attachment, and the event may be a ring's, which is freed
 * then. An error: the attempt says the same, and nothing was announced. */
static int announce(struct ssm_pool *pool, const struct ssm_sleep *wait, uint32_t *announced_out)
{
    SSM_POOL_ENTER(pool);
    if (wait->gone != NULL && *wait->gone)
        return -SSM_E_UNLINKED;
    *announced_out = ssm_event_announce(wait->event);
    if (wait->class_idx != SSM_NIL)
        ssm_class_announce(pool, wait->class_idx);
    if (wait->class_idx != SSM_NIL && wait->other_idx != wait->class_idx)
        ssm_class_announce(pool, wait->other_idx);
    return 0;
}

int ssm_sleep_for(struct ssm_pool *pool, const struct ssm_sleep *wait, int64_t timeout_ns)
{
    const uint64_t since_ns = ssm_now_ns(), until_ns = ssm_deadline_ns(timeout_ns);
    uint32_t seen = 0;
    SSM_ASSERT(wait->class_idx == SSM_NIL || wait->class_idx < pool->geometry.class_count);
    bool overslept = false; /* a success now should have come with a wake-up */
    int result = spin_for(pool, wait, since_ns, until_ns);
    uint64_t stayed_ns = STAYED_NS, recheck_ns = pool->recheck_ns;
    for (bool brief = true; result == wait->again; brief = false) {
        const uint32_t stayed = ssm_lock_stayed_count(pool);
        const uint32_t evasions = ssm_load_relaxed_u32(&pool->evasions); /* other threads' count, too */
        uint32_t announced = 0;
        if (announce(pool, wait, &announced) != 0)
            return wait->attempt(wait->context, true);
        overslept &= announced == ((seen + SSM_EVENT_STEP) | SSM_EVENT_WAITERS);
        seen = announced;
        /* E1: before the look, on the processor of every signaller; pairs with E2. */
        const bool membarrier_ran = !brief && ssm_membarrier();
        result = wait->attempt(wait->context, true);
        const uint64_t now_ns = ssm_now_ns();
        if (result != wait->again && overslept)
            note_late(pool, wait, announced, result);
        if (result != wait->again || now_ns >= until_ns)
            break;
        const bool looked = ssm_load_relaxed_u32(&pool->evasions) == evasions;
        uint64_t step_ns = brief ? BRIEF_NS : recheck_ns;
        if (!brief && ssm_lock_stayed_count(pool) != stayed && stayed_ns < step_ns) {
            step_ns = stayed_ns;
            stayed_ns *= 2;
        }
        const uint64_t look_ns = next_look_ns(wait, now_ns + step_ns, until_ns);
        int stopped = sleep_once(pool, wait, seen, look_ns);
        if (stopped != 0)
            return stopped;
        const uint64_t woken_ns = ssm_now_ns();
        const bool in_time = woken_ns < look_ns;
        overslept = membarrier_ran && looked && !in_time;
        if (!brief)
            recheck_ns = in_time ? pool->recheck_ns : ssm_recheck_longer_ns(recheck_ns);
        if (!in_time && !brief && ssm_pool_look_in_turn(pool, woken_ns))
            pool->on_stall(pool);
        if (in_time && (result = wait->attempt(wait->context, false)) != wait->again)
            note_wait(pool, woken_ns - since_ns);
    }
    return result;
}
