/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock between the threads of one process; see thread_lock.h. */
#include "thread_lock.h"

#define SPINS   100
#define STEP_NS UINT64_C(100000000)

/* Takes the lock with 2, since other threads may still sleep on it. The bound of the sleeps only limits the effect of a
 * bug. */
void ssm_thread_lock_take_slowly(struct ssm_thread_lock *lock)
{
    for (int i = 0; i < SPINS; i++) {
        uint64_t nobody = 0;
        if (ssm_load_relaxed_u64(&lock->word) == 0 && ssm_cas_acqrel_u64(&lock->word, &nobody, 1))
            return;
        ssm_cpu_relax();
    }
    while (ssm_exchange_acqrel_u64(&lock->word, 2) != 0) /* ends: its owner is a thread in a short call */
        ssm_word_sleep(&lock->word, 2, STEP_NS);
}

void ssm_thread_lock_wake(struct ssm_thread_lock *lock)
{
    ssm_word_wake(&lock->word);
}
