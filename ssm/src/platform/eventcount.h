/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting: the eventcount, the clock, short naps. The only user of futex and membarrier.
 *
 * An eventcount is one word, `sequence << 1 | waiters`, in shared memory. A waiter announces itself (counts up and
 * sets the bit), runs a full fence on the processors of all who may signal (membarrier), looks once more for what it
 * waits for, then sleeps while the word is unchanged. A signaller publishes, then looks at the bit: nobody there costs a
 * load, for the fence between the two is paid by the waiter, who is about to sleep anyway. A signaller that cannot take
 * part in membarrier fences itself; a waiter that cannot run one has the bounded sleep. The bit is sticky: it goes only when a
 * wake-up found nobody asleep, by a compare-and-swap that fails when anyone announced or signalled in between, for
 * both count up; and any change of the word keeps a waiter from falling asleep on it. So no wake-up is lost while
 * everybody lives.
 *
 * Death: a signaller may die between publishing and waking, a waiter after it was woken and before it acted.
 * Therefore every sleep is bounded by SSM_RECHECK_MAX_NS and its caller looks again.
 *
 * That look would hide a wake-up that was forgotten by mistake. So such waits are counted: a waiter slept for as long
 * as it may while nobody touched the word, and then found what it waits for. One signaller is excused: it has
 * published, and is about to signal. The waiter cannot see it, but the signaller sees that the waiter has just counted,
 * and takes that back. So while all live, `late` is 0 once all have returned from their calls; unless a signaller
 * had no processor for SSM_EXCUSED_NS in between. What may be missing: a wake-up that was forgotten, when another one
 * came on its heels.
 */
#ifndef SSM_EVENTCOUNT_H
#define SSM_EVENTCOUNT_H

#include "atomic.h"

#define SSM_RECHECK_NS     UINT64_C(20000000)   /* a sleep without a look; twice as long each time that nothing came, */
#define SSM_RECHECK_MAX_NS UINT64_C(50000000)   /* up to this */
#define SSM_EXCUSED_NS     UINT64_C(5000000000) /* for a signal on its way */

/* The next sleep, after one in which nothing came. Longer ones, as tests want them, stay as they are. */
static inline uint64_t ssm_recheck_longer_ns(uint64_t ns)
{
    const uint64_t twice_ns = 2 * ns < SSM_RECHECK_MAX_NS ? 2 * ns : SSM_RECHECK_MAX_NS;
    return ns < twice_ns ? twice_ns : ns;
}

#define SSM_EVENT_WAITERS UINT32_C(1)
#define SSM_EVENT_STEP    UINT32_C(2) /* each announcement and each signal adds it */

struct ssm_event {
    struct ssm_u32 word;
    struct ssm_u32 late;     /* waits that ended by a look although nobody had signalled */
    struct ssm_u32 doubts;   /* of these: those that a signal may take back, for SSM_EXCUSED_NS */
    struct ssm_u64 doubt_ns; /* when the last of them was counted */
};

uint64_t ssm_now_ns(void);                 /* CLOCK_MONOTONIC */
uint64_t ssm_deadline_ns(int64_t timeout_ns); /* now and so long; below 0: never */
void     ssm_nap_ns(uint64_t duration_ns); /* a signal may end it early */

/* Announces a waiter; returns the word to sleep on. The caller runs ssm_membarrier() and looks again before it sleeps. */
uint32_t ssm_event_announce(struct ssm_event *event);
/* Sleeps while the word is `seen`, until `until_ns`; spurious returns are normal. -EINTR after a signal. */
int ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns);
/* The same for several at once: until one of the words is not what was seen. At most SSM_WATCHED_MAX; where the kernel
 * has no futex_waitv (before 5.16), the first of them is slept on, for a millisecond at most. */
#define SSM_WATCHED_MAX 128u
struct ssm_watched { struct ssm_event *event; uint32_t seen; };
int ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns);
/* Wakes up to `count` waiters; returns how many. */
uint32_t ssm_event_wake(struct ssm_event *event, uint32_t count);

/* Counts a wait that found what it waits for without a signal, if the word is `seen` still: as it was before the sleep,
 * or with the waiter's own announcement since. `excusable`: a signal that comes yet takes it back. */
void ssm_event_count_late(struct ssm_event *event, uint32_t seen, bool excusable);

/* The same after a publish. `no_membarrier`: this process takes no part in membarrier. */
static inline uint32_t ssm_event_signal(struct ssm_event *event, uint32_t count, bool no_membarrier)
{
    ssm_fence_light(no_membarrier); /* E2: what was published is visible before the bit is looked at; pairs with E1 */
    return ssm_load_relaxed_u32(&event->word) & SSM_EVENT_WAITERS ? ssm_event_wake(event, count) : 0;
}

/* A bounded sleep on the low half of a lock word, and its counterpart. */
void ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns);
void ssm_word_wake(struct ssm_u64 *word);

/* A full fence on every thread of every process that registered. register: false where the kernel cannot. */
bool ssm_membarrier_register(void);
bool ssm_membarrier(void);

#endif
