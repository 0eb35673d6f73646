/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting: the eventcount, the clock, short naps. The only user of futex and membarrier.
 *
 * An eventcount is one word in shared memory: `sequence << 1 | waiters`. A waiter announces itself (it increments the
 * sequence and sets the bit), runs a full fence on the processors of all signallers (membarrier), looks once more for
 * what it waits for, and then sleeps while the word is unchanged. A signaller publishes, then reads the bit. If nobody
 * waits, that costs one load: the waiter, which is about to sleep anyway, has paid for the fence. A signaller that
 * takes no part in membarrier fences itself. A waiter that cannot run a membarrier relies on the bound of its sleep.
 *
 * The bit is sticky. It is cleared only after a wake-up that found nobody asleep, by a compare-and-swap that fails if
 * anyone announced itself or signalled in between, since both increment the sequence. And a waiter does not fall asleep
 * on a word that has changed. So no wake-up is lost while all processes live.
 *
 * Death: a signaller may die after it has published and before it wakes; a waiter may die after it was woken and before
 * it acts. Therefore every sleep is bounded by SSM_RECHECK_MAX_NS, and its caller looks again.
 *
 * That look would hide a wake-up that the code forgets. So `late` counts waits that slept for their full bound while
 * nobody touched the word, and then found what they waited for. One such wait is no mistake: a signaller has published
 * and is about to signal. The waiter cannot see that, but the signaller sees that the waiter has just counted, and
 * takes the count back. So while all processes live, `late` is 0 when all calls have returned, unless a signaller got
 * no processor for SSM_EXCUSED_NS. A forgotten wake-up goes uncounted if another one follows it at once.
 */
#ifndef SSM_EVENTCOUNT_H
#define SSM_EVENTCOUNT_H

#include "atomic.h"

#define SSM_RECHECK_NS     UINT64_C(20000000)   /* first sleep without a look; it doubles while nothing comes, */
#define SSM_RECHECK_MAX_NS UINT64_C(50000000)   /* up to this bound */
#define SSM_EXCUSED_NS     UINT64_C(5000000000) /* for a signal on its way */

/* The length of the next sleep, after one in which nothing came. Longer sleeps, which tests use, stay as they are. */
static inline uint64_t ssm_recheck_longer_ns(uint64_t ns)
{
    const uint64_t twice_ns = 2 * ns < SSM_RECHECK_MAX_NS ? 2 * ns : SSM_RECHECK_MAX_NS;
    return ns < twice_ns ? twice_ns : ns;
}

#define SSM_EVENT_WAITERS UINT32_C(1)
#define SSM_EVENT_STEP    UINT32_C(2) /* each announcement and each signal adds it */

struct ssm_event {
    struct ssm_u32 word;
    struct ssm_u32 late;     /* waits that a look ended, without a signal */
    struct ssm_u32 doubts;   /* how many of them a signal may take back, for SSM_EXCUSED_NS */
    struct ssm_u64 doubt_ns; /* when the last of them was counted */
};

uint64_t ssm_now_ns(void);                    /* CLOCK_MONOTONIC */
uint64_t ssm_deadline_ns(int64_t timeout_ns); /* below 0: never */
void ssm_nap_ns(uint64_t duration_ns);        /* a signal may end it early */

/* Announces a waiter; returns the word to sleep on. The caller runs ssm_membarrier() and looks again before it
 * sleeps. */
uint32_t ssm_event_announce(struct ssm_event *event);
/* Sleeps while the word is `seen`, until `until_ns`; spurious returns are normal. -EINTR after a signal. */
int ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns);
/* Sleeps on several words, at most SSM_WATCHED_MAX, until one of them is not what was seen. A kernel without
 * futex_waitv (before 5.16) sleeps on the first one only, for at most a millisecond. */
#define SSM_WATCHED_MAX 128u
struct ssm_watched {
    struct ssm_event *event;
    uint32_t          seen;
};
int ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns);
/* Wakes up to `count` waiters; returns how many. */
uint32_t ssm_event_wake(struct ssm_event *event, uint32_t count);

/* Counts a wait that found what it waits for without a signal, if the word is still `seen`, its value before the sleep.
 * `excusable`: a later signal may take the count back. */
void ssm_event_count_late(struct ssm_event *event, uint32_t seen, bool excusable);

/* Wakes up to `count` waiters after a publish. `no_membarrier`: this process takes no part in membarrier. */
static inline uint32_t ssm_event_signal(struct ssm_event *event, uint32_t count, bool no_membarrier)
{
    ssm_fence_light(no_membarrier); /* E2: what was published is visible before the bit is looked at; pairs with E1 */
    return ssm_load_relaxed_u32(&event->word) & SSM_EVENT_WAITERS ? ssm_event_wake(event, count) : 0;
}

/* A bounded sleep on the low half of a lock word, and its counterpart. */
void ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns);
void ssm_word_wake(struct ssm_u64 *word);

/* A full fence on every thread of every process that registered. Both return false if the kernel has none. */
bool ssm_membarrier_register(void);
bool ssm_membarrier(void);

#endif
