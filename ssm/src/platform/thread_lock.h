/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread lock of an attachment: mutual exclusion between the threads of one process, in private memory. It is
 * inline, and costs two plain stores while the process has one thread. A pthread mutex would cost two calls into libc,
 * more than the operations that it guards.
 *
 * It is not robust and need not be: its owner dies together with the memory of the lock. The fork handlers take it
 * before the fork and release it on both sides (fork.c).
 */
#ifndef SSM_THREAD_LOCK_H
#define SSM_THREAD_LOCK_H

#include "eventcount.h"
#include "invariant.h"

#include <limits.h> /* which C library this is */
#include <stddef.h>

/* From glibc 2.32 on. Whether the header is there does not say so: a toolchain for an older glibc may have it. What is
 * built for an older one finds the variable as it is loaded, where a newer glibc runs it; else its address is NULL. */
#if defined(__GLIBC_PREREQ)
#define SSM_SINGLE_THREADED (&__libc_single_threaded)
#if __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#else
extern char __libc_single_threaded __attribute__((weak));
#endif
#else
#define SSM_SINGLE_THREADED NULL
#endif

struct ssm_thread_lock { struct ssm_u64 word; }; /* 0: free; 1: taken; 2: taken, and threads may sleep on it */

SSM_COLD void ssm_thread_lock_take_slowly(struct ssm_thread_lock *lock);
SSM_COLD void ssm_thread_lock_wake(struct ssm_thread_lock *lock);

/* Where the C library says whether this process has one thread; NULL: it does not say. */
static inline const char *ssm_single_threaded_flag(void)
{
    return SSM_SINGLE_THREADED;
}

/* True if there is no other thread. None can appear while this thread is inside, since only this one could start it. */
static inline bool ssm_process_is_single_threaded(void)
{
    const char *flag = ssm_single_threaded_flag();
    return flag != NULL && *flag != 0;
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
    SSM_ASSERT(ssm_load_relaxed_u64(&lock->word) != 0);
    if (ssm_process_is_single_threaded())
        ssm_store_relaxed_u64(&lock->word, 0);
    else if (ssm_exchange_acqrel_u64(&lock->word, 0) == 2)
        ssm_thread_lock_wake(lock);
}

#endif
