/* SPDX-License-Identifier: Apache-2.0
 *
 * The guard of an attachment: a lock among the threads of one process, in private memory. A pthread mutex costs two
 * calls into libc around operations that take less time than these; this one is inline, and while the process has one
 * thread it is two plain stores.
 *
 * Not robust, and need not be: its owner dies with the memory that it stands in. Fork takes it before and gives it back
 * on both sides (attach.c).
 */
#ifndef SSM_GUARD_H
#define SSM_GUARD_H

#include "wait.h"

#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define SSM_HAS_SINGLE_THREADED 1
#endif
#endif

struct ssm_guard { struct ssm_u64 word; }; /* 0: free; 1: taken; 2: taken, and somebody may sleep */

SSM_COLD void ssm_guard_take_slowly(struct ssm_guard *guard);
SSM_COLD void ssm_guard_wake(struct ssm_guard *guard);

/* No other thread is there, and none comes while this one is inside: only it could start one. */
static inline bool ssm_is_single_threaded(void)
{
#ifdef SSM_HAS_SINGLE_THREADED
    return __libc_single_threaded;
#else
    return false;
#endif
}

static inline void ssm_guard_take(struct ssm_guard *guard)
{
    uint64_t nobody = 0;
    if (ssm_is_single_threaded() && ssm_load_relaxed_u64(&guard->word) == 0)
        ssm_store_relaxed_u64(&guard->word, 1);
    else if (!ssm_cas_acqrel_u64(&guard->word, &nobody, 1))
        ssm_guard_take_slowly(guard);
}

static inline void ssm_guard_release(struct ssm_guard *guard)
{
    if (ssm_is_single_threaded())
        ssm_store_relaxed_u64(&guard->word, 0);
    else if (ssm_exchange_acqrel_u64(&guard->word, 0) == 2)
        ssm_guard_wake(guard);
}

#endif
