/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting; see eventcount.h. Futexes are not FUTEX_PRIVATE: the waiters are in other processes. */
#include "eventcount.h"

#include "invariant.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ALONE_NS UINT64_C(1000000) /* longest sleep on one of several words */
#define WAITERS  SSM_EVENT_WAITERS
#define SEQUENCE SSM_EVENT_STEP

static struct timespec timespec_of(uint64_t ns)
{
    return (struct timespec){.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
}

uint64_t ssm_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t ssm_deadline_ns(int64_t timeout_ns)
{
    uint64_t now_ns = ssm_now_ns();
    return timeout_ns < 0 || (uint64_t)timeout_ns > INT64_MAX - now_ns ? INT64_MAX : now_ns + (uint64_t)timeout_ns;
}

void ssm_nap_ns(uint64_t duration_ns)
{
    struct timespec t = timespec_of(duration_ns);
    nanosleep(&t, NULL);
}

static int futex_wait(void *word, uint32_t seen, uint64_t until_ns)
{
    struct timespec until = timespec_of(until_ns); /* absolute, CLOCK_MONOTONIC */
    if (syscall(SYS_futex, word, FUTEX_WAIT_BITSET, seen, &until, NULL, FUTEX_BITSET_MATCH_ANY) == 0)
        return 0;
    return errno == EINTR ? -EINTR : 0; /* EAGAIN, ETIMEDOUT: the caller looks at the word and the clock */
}

static uint32_t futex_wake(void *word, uint32_t count)
{
    long woken = syscall(SYS_futex, word, FUTEX_WAKE, count > INT_MAX ? INT_MAX : (int)count, NULL, NULL, 0);
    return woken > 0 ? (uint32_t)woken : 0;
}

uint32_t ssm_event_announce(struct ssm_event *event)
{
    uint32_t word = ssm_load_relaxed_u32(&event->word); /* stale: the swap fails */
    uint32_t announced;
    do
        announced = (word + SEQUENCE) | WAITERS;
    while (!ssm_cas_acqrel_u32(&event->word, &word, announced));
    ssm_fence_seqcst(); /* E1: for signallers that fence themselves; the caller's membarrier is for the others */
    return announced;
}

int ssm_event_sleep(struct ssm_event *event, uint32_t seen, uint64_t until_ns)
{
    return futex_wait(&event->word, seen, until_ns);
}

/* struct futex_waitv, which headers of kernels before 5.16 lack. */
struct waitv {
    uint64_t seen, word;
    uint32_t flags, reserved;
};
#define WAITV_32BIT   2u /* shared between processes */
#define WAITV_SYSCALL 449L

static bool futex_waitv(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns, int *result_out)
{
    struct waitv all[SSM_WATCHED_MAX];
    struct timespec until = timespec_of(until_ns);
    for (uint32_t i = 0; i < count; i++)
        all[i] = (struct waitv){
            .seen = watched[i].seen, .word = (uintptr_t)&watched[i].event->word, .flags = WAITV_32BIT};
    *result_out = syscall(WAITV_SYSCALL, all, count, 0, &until, CLOCK_MONOTONIC) < 0 && errno == EINTR ? -EINTR : 0;
    return *result_out != 0 || (errno != ENOSYS && errno != EPERM); /* EPERM: a sandbox refuses what it does not know */
}

int ssm_events_sleep(const struct ssm_watched *watched, uint32_t count, uint64_t until_ns)
{
    int result;
    SSM_ASSERT(count > 0 && count <= SSM_WATCHED_MAX);
    errno = 0;
    if (futex_waitv(watched, count, until_ns, &result))
        return result;
    uint64_t soon_ns = ssm_now_ns() + ALONE_NS;
    return futex_wait(&watched[0].event->word, watched[0].seen, soon_ns < until_ns ? soon_ns : until_ns);
}

static bool is_excused(const struct ssm_event *event, uint64_t now_ns)
{
    return now_ns - ssm_load_relaxed_u64(&event->doubt_ns) < SSM_EXCUSED_NS; /* stale: one wait more or less counts */
}

static void take_back(struct ssm_event *event)
{
    if (ssm_load_relaxed_u32(&event->doubts) != 0 && is_excused(event, ssm_now_ns()))
        ssm_add_acqrel_u32(&event->late, 0 - ssm_exchange_acqrel_u32(&event->doubts, 0));
}

void ssm_event_count_late(struct ssm_event *event, uint32_t seen, bool excusable)
{
    if (ssm_load_relaxed_u32(&event->word) != seen) /* stale: it is read again below */
        return;
    ssm_add_acqrel_u32(&event->late, 1);
    if (!excusable)
        return;
    const uint64_t now_ns = ssm_now_ns();
    if (!is_excused(event, now_ns))
        ssm_exchange_acqrel_u32(&event->doubts, 0); /* older doubts are no longer taken back */
    ssm_store_relaxed_u64(&event->doubt_ns, now_ns);
    ssm_add_acqrel_u32(&event->doubts, 1);
    ssm_fence_seqcst(); /* V1: the doubt is visible before the word is read again; pairs with V2 */
    if (ssm_load_relaxed_u32(&event->word) != seen)
        take_back(event);
}

uint32_t ssm_event_wake(struct ssm_event *event, uint32_t count)
{
    uint32_t word = ssm_load_relaxed_u32(&event->word);
    uint32_t signalled;
    do {
        if (!(word & WAITERS))
            return 0;
        signalled = word + SEQUENCE;
    } while (!ssm_cas_acqrel_u32(&event->word, &word, signalled));
    uint32_t woken = futex_wake(&event->word, count);
    ssm_fence_seqcst(); /* V2: the word has changed before the doubt is looked for; pairs with V1 */
    take_back(event);
    if (woken == 0) /* nobody slept; fails if a waiter announced itself since */
        ssm_cas_acqrel_u32(&event->word, &signalled, signalled & ~WAITERS);
    return woken;
}

void ssm_word_sleep(struct ssm_u64 *word, uint32_t seen_low, uint64_t duration_ns)
{
    futex_wait(word, seen_low, ssm_now_ns() + duration_ns);
}

void ssm_word_wake(struct ssm_u64 *word)
{
    futex_wake(word, 1);
}

bool ssm_membarrier_register(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 0) == 0;
}

bool ssm_membarrier(void)
{
    return syscall(SYS_membarrier, MEMBARRIER_CMD_GLOBAL_EXPEDITED, 0, 0) == 0;
}
