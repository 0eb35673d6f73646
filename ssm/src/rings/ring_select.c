/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for the first of several rings, of one pool or of many.
 *
 * Like every wait of this library: it announces itself at each ring's eventcount, looks again, and sleeps, in bounded
 * steps. Nothing is taken, so a ring that was ready may be empty when the caller gets there. A caller that is woken and
 * takes nothing has used up a wake-up that another waiter of that ring might have had. That waiter looks again in time.
 */
#include "overflow.h"
#include "ring_partner.h"
#include "ring_unlink.h"

#include <errno.h>
#include <stdlib.h>

#define CROWDED_NS     UINT64_C(1000000)  /* first sleep when not all of the words can be slept on at once */
#define CROWDED_MAX_NS UINT64_C(10000000) /* longest sleep, after half a second: each costs 75 us in the kernel */

struct ssm_waker {
    struct ssm_event event;
    struct ssm_u32   pending;
};

uint32_t ssm_ring_ready(const struct ssm_interest *interest)
{
    struct ssm_ring *ring = interest->ring;
    const bool get = interest->what == SSM_READY_TO_GET;
    uint32_t acl = ssm_ring_acl(ring); /* P2: the flags first, as in get_attempt() */
    if (acl & (get ? SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER : SSM_ACL_FLOWDOWN | SSM_ACL_RDONLY) ||
        (!get && !ssm_overflow_waits(ssm_ring_flags(ring))))
        return UINT32_MAX;
    const bool orphaned = ssm_ring_is_orphaned(ring, interest->what); /* before the indices, as in get_last() */
    const uint32_t count = get ? ssm_ring_depth(ring) : ssm_ring_room(ring);
    return count == 0 && orphaned ? UINT32_MAX : count;
}

static struct ssm_event *event_of(const struct ssm_interest *interest)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_of(interest->ring);
    return interest->what == SSM_READY_TO_GET ? &shared->not_empty : &shared->not_full;
}

static int look(struct ssm_interest *interests, uint32_t count)
{
    int ready = 0;
    for (uint32_t i = 0; i < count; i++) {
        if (ssm_ring_pool(interests[i].ring)->status & SSM_STATUS_CLOSED)
            return -SSM_E_CLOSED;
        interests[i].ready = ssm_ring_ready(&interests[i]) != 0;
        ready += interests[i].ready != 0;
    }
    return ready;
}

/* Announces at as many words as the kernel can sleep on at once; returns how many. */
static uint32_t announce(const struct ssm_interest *interests, uint32_t count, struct ssm_waker *waker,
                         struct ssm_watched *watched, bool *membarrier_ran_out)
{
    uint32_t words = 0;
    if (waker != NULL) {
        watched[words].event = &waker->event;
        watched[words++].seen = ssm_event_announce(&waker->event);
    }
    for (uint32_t i = 0; i < count && words < SSM_WATCHED_MAX; i++) {
        const bool there = ssm_ring_look_begin(interests[i].ring); /* entered: see announce() in sleep.c */
        watched[words].event = event_of(&interests[i]);
        watched[words].seen = there ? ssm_event_announce(watched[words].event) : 0; /* no: the look says why */
        if (there)
            ssm_ring_look_end(interests[i].ring);
        words++;
    }
    *membarrier_ran_out = ssm_membarrier(); /* E1 */
    return words;
}

/* Sleeps between the hooks of one of the pools. Each pool counts a sleeper. */
static int sleep_on(const struct ssm_interest *interests, uint32_t count, const struct ssm_watched *watched,
                    uint32_t words, uint64_t until_ns)
{
    const struct ssm_pool *first = ssm_ring_pool(interests[0].ring);
    const struct ssm_sleep_hooks *hooks = &first->hooks;
    const uint32_t era = first->era; /* a fork in a hook changes the era of each pool */
    for (uint32_t i = 0; i < count; i++)
        ssm_sleeper_begin(ssm_ring_pool(interests[i].ring));
    void *state = hooks->before != NULL ? hooks->before() : NULL;
    ssm_events_sleep(watched, words, until_ns);
    int interrupted = hooks->after != NULL ? hooks->after(state) : 0;
    for (uint32_t i = 0; i < count && first->era == era; i++)
        ssm_sleeper_end(ssm_ring_pool(interests[i].ring), ssm_ring_pool(interests[i].ring)->era);
    return interrupted ? -EINTR : 0;
}

/* Sleeps when the kernel cannot take all words at once, and looks now and then at the interests from `beyond` on.
 * Nothing has to be announced anew: a word is still announced, or it has changed and ends the sleep. */
static int sleep_crowded(struct ssm_interest *interests, uint32_t count, const struct ssm_watched *watched,
                         uint32_t words, uint32_t beyond, uint64_t *step_ns, uint64_t until_ns)
{
    for (;;) {
        const uint64_t wake_ns = ssm_now_ns() + *step_ns;
        if (*step_ns < CROWDED_MAX_NS)
            *step_ns += *step_ns / 64;
        int result = sleep_on(interests, count, watched, words, wake_ns < until_ns ? wake_ns : until_ns);
        const uint64_t now_ns = ssm_now_ns();
        if (result != 0 || now_ns < wake_ns || now_ns >= until_ns || look(interests + beyond, count - beyond) != 0)
            return result;
    }
}

/* Checks that each pool is still there, and looks for dead processes. */
static int look_after(const struct ssm_interest *interests, uint32_t count)
{
    struct ssm_pool *last = NULL; /* rings of one pool are mostly adjacent */
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_pool *pool = ssm_ring_pool(interests[i].ring);
        int result = pool != last ? ssm_pool_recheck(pool) : 0;
        if (result != 0)
            return result;
        if (pool != last && ssm_pool_look_in_turn(pool, ssm_now_ns()))
            pool->on_stall(pool);
        last = pool;
    }
    return 0;
}

/* Counts the rings that are ready without a signal, after a sleep of full length; see eventcount.h. The end of a time of
 * grace is not signalled. */
static void note_late(const struct ssm_interest *interests, uint32_t count, const struct ssm_watched *watched)
{
    for (uint32_t i = 0; i < count; i++) {
        if (!interests[i].ready || ssm_ring_is_orphaned(interests[i].ring, interests[i].what) ||
            !ssm_ring_look_begin(interests[i].ring))
            continue;
        ssm_event_count_late(watched[i].event, watched[i].seen,
                             ssm_ring_pool(interests[i].ring)->recheck_ns == SSM_RECHECK_NS);
        ssm_ring_look_end(interests[i].ring);
    }
}

int ssm_wait_rings(struct ssm_interest *interests, uint32_t count, struct ssm_waker *waker, int64_t timeout_ns)
{
    struct ssm_watched watched[SSM_WATCHED_MAX];
    if (count == 0)
        return -EINVAL;
    const bool all = count + (waker != NULL) <= SSM_WATCHED_MAX;
    const uint64_t longest_ns = ssm_ring_pool(interests[0].ring)->recheck_ns;
    uint64_t now_ns = ssm_now_ns(), recheck_ns = now_ns + longest_ns, step_ns = all ? longest_ns : CROWDED_NS;
    bool membarrier_ran;
    const uint64_t until_ns = ssm_deadline_ns(timeout_ns);
    int result = look(interests, count);
    while (result == 0) {
        uint32_t words = announce(interests, count, waker, watched, &membarrier_ran);
        bool woken = waker != NULL && ssm_exchange_acqrel_u32(&waker->pending, 0) != 0;
        result = look(interests, count);
        now_ns = ssm_now_ns();
        if (result != 0 || woken || now_ns >= until_ns)
            break;
        const uint64_t wake_ns = now_ns + step_ns < until_ns ? now_ns + step_ns : until_ns;
        if (all) {
            result = sleep_on(interests, count, watched, words, wake_ns);
            step_ns = ssm_recheck_longer_ns(step_ns);
        } else {
            result = sleep_crowded(interests, count, watched, words, words - (waker != NULL), &step_ns,
                                   recheck_ns < until_ns ? recheck_ns : until_ns);
        }
        now_ns = ssm_now_ns();
        if (result == 0 && now_ns >= recheck_ns) { /* even after short sleeps; before the memory is touched again */
            result = look_after(interests, count);
            recheck_ns = now_ns + longest_ns;
        }
        if (result == 0 && (result = look(interests, count)) > 0 && all && membarrier_ran && now_ns >= wake_ns)
            note_late(interests, count, watched + (waker != NULL));
    }
    return result;
}

struct ssm_waker *ssm_waker_new(void)
{
    return calloc(1, sizeof(struct ssm_waker));
}

void ssm_waker_free(struct ssm_waker *waker)
{
    free(waker);
}

void ssm_waker_sleep(struct ssm_waker *waker, int64_t timeout_ns)
{
    uint32_t seen = ssm_event_announce(&waker->event);
    if (ssm_load_acquire_u32(&waker->pending) == 0)
        ssm_event_sleep(&waker->event, seen, ssm_deadline_ns(timeout_ns));
    ssm_store_relaxed_u32(&waker->pending, 0);
}

void ssm_waker_wake(struct ssm_waker *waker)
{
    ssm_store_release_u32(&waker->pending, 1);
    ssm_event_signal(&waker->event, 1, true);
}
