/* SPDX-License-Identifier: Apache-2.0
 *
 * The robust lock: a word that names its owner. Taking it from a live owner waits in bounded steps; from a dead
 * one it is stolen by compare-and-swap, and then, before the caller goes on, the repair function has run: it is
 * an argument, so it cannot be forgotten. There is no unrecoverable state: whoever dies in a repair leaves a lock
 * with a dead owner again.
 *
 * A word names slot and incarnation, so a thief that was held up between its test and its swap cannot take the
 * lock from a newcomer in the dead owner's slot. Death between releasing and waking: the sleepers' steps are
 * bounded.
 */
#ifndef SSM_LOCK_H
#define SSM_LOCK_H

#include "registry.h"

#define SSM_LOCK_WAITERS (UINT64_C(1) << 31)
#define SSM_LOCK_STEP_NS UINT64_C(10000000) /* longest sleep between two looks at the owner */

/* Makes whole what the lock guards; may run several times. 0, or the error with which taking the lock fails. */
typedef int (*ssm_repair)(struct ssm_pool *pool, void *context);

SSM_COLD int ssm_lock_take_slowly(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns, ssm_repair repair,
                                  void *context);

/* Of one that nobody has. */
static inline bool ssm_lock_try(const struct ssm_pool *pool, struct ssm_lock *lock)
{
    uint64_t nobody = 0;
    return SSM_LIKELY(ssm_cas_acqrel_u64(&lock->word, &nobody, pool->lock_word)); /* L2: pairs with L1 in ssm_lock_release() */
}

/* Not recursive. 0; -ETIMEDOUT when a live owner kept it for `patience_ns` (0: a short spin only); the error of the repair. */
static inline int ssm_lock_take(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns, ssm_repair repair,
                                void *context)
{
    return ssm_lock_try(pool, lock) ? 0 : ssm_lock_take_slowly(pool, lock, patience_ns, repair, context);
}

SSM_COLD void ssm_lock_release_slowly(struct ssm_lock *lock);

static inline void ssm_lock_release(struct ssm_lock *lock)
{
    /* L1 -> L2 in ssm_lock_try(): all that was written under the lock is seen by its next owner. */
    if (ssm_exchange_acqrel_u64(&lock->word, 0) & SSM_LOCK_WAITERS)
        ssm_lock_release_slowly(lock);
}

static inline bool ssm_lock_is_mine(const struct ssm_pool *pool, const struct ssm_lock *lock)
{
    return (ssm_load_relaxed_u64(&lock->word) & ~SSM_LOCK_WAITERS) == pool->lock_word; /* only I write my own name */
}

/* A dead process has it. */
bool ssm_lock_owner_is_dead(const struct ssm_pool *pool, const struct ssm_lock *lock);

#endif
