/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock of an attachment: it excludes the threads of one process, in private memory. A pthread mutex costs two
 * calls into libc around operations that take less time than these; this one is inline, and while the process has one
 * thread it is two plain stores.
 *
 * Not robust, and need not be: its owner dies with the memory that it stands in. Fork takes it before and gives it back
 * on both sides (fork.c).
 */
#ifndef SSM_THREAD_LOCK_H
#define SSM_THREAD_LOCK_H

#include "eventcount.h"

#if defined(__has_include)
#if __has_include(<sys/single_threaded.h>)
#include <sys/single_threaded.h>
#define SSM_HAS_SINGLE_THREADED 1
#endif
#endif

struct ssm_thread_lock { struct ssm_u64 word; }; /* 0: free; 1: taken; 2: taken, and somebody may sleep */

SSM_COLD void ssm_thread_lock_take_slowly(struct ssm_thread_lock *lock);
SSM_COLD void ssm_thread_lock_wake(struct ssm_thread_lock *lock);

/* No other thread is there, and none comes while this one is inside: only it could start one. */
static inline bool ssm_process_is_single_threaded(void)
{
#ifdef SSM_HAS_SINGLE_THREADED
    return __libc_single_threaded;
#else
    return false;
#endif
}

static inline void ssm_thread_lock_take(struct ssm_thread_lock *lock)
{
    uint64_t nobody = 0;
    if (ssm_process_is_single_threaded() && ssm_load_relaxed_u64(&lock->word) == 0)
        ssm_store_relaxed_u64(&lock->word, 1);
    else if (!ssm_cas_acqrel_u64(&lock->word, &nobody, 1))
        ssm_thread_lock_take_slowly(lock);
}

static inline void ssm_thread_lock_release(struct ssm_thread_lock *lock)
{
    if (ssm_process_is_single_threaded())
        ssm_store_relaxed_u64(&lock->word, 0);
    else if (ssm_exchange_acqrel_u64(&lock->word, 0) == 2)
        ssm_thread_lock_wake(lock);
}

#endif
