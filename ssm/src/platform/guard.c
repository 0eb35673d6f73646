/* SPDX-License-Identifier: Apache-2.0
 *
 * The guard of an attachment; see guard.h. */
#include "guard.h"

#define SPINS   100
#define STEP_NS UINT64_C(100000000)

/* Taken with 2: others may sleep still. Sleeps end by themselves, too, only so that no bug can make them endless. */
void ssm_guard_take_slowly(struct ssm_guard *guard)
{
    for (int i = 0; i < SPINS; i++) {
        uint64_t nobody = 0;
        if (ssm_load_relaxed_u64(&guard->word) == 0 && ssm_cas_acqrel_u64(&guard->word, &nobody, 1))
            return;
        ssm_cpu_relax();
    }
    while (ssm_exchange_acqrel_u64(&guard->word, 2) != 0) /* no bound: its owner is a thread of this process, in a short call */
        ssm_word_sleep(&guard->word, 2, STEP_NS);
}

void ssm_guard_wake(struct ssm_guard *guard)
{
    ssm_word_wake(&guard->word);
}
