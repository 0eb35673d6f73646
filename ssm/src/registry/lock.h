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

/* So long a call waits for a lock where it is: nobody else of its process gets on meanwhile. Once in a while, that is: when
 * one lock has stayed taken for so long, the next ones are only tried for a moment. Who wants to wait for longer leaves the
 * attachment and tries again: ssm_lock_retry(). */
#define SSM_LOCK_PATIENCE_NS  UINT64_C(300000)

/* Makes whole what the lock guards; may run several times. 0, or the error with which taking the lock fails. */
typedef int (*ssm_lock_repair)(struct ssm_pool *pool, void *context);

SSM_COLD int ssm_lock_take_slowly(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns, ssm_lock_repair repair,
                                  void *context);

/* Of one that nobody has. */
static inline bool ssm_lock_try(const struct ssm_pool *pool, struct ssm_lock *lock)
{
    uint64_t nobody = 0;
    return SSM_LIKELY(ssm_cas_acqrel_u64(&lock->word, &nobody, pool->lock_word)); /* L2, J1 */
}

/* Not recursive. 0; -ETIMEDOUT when a live owner kept it for `patience_ns` (0: a short spin only); the error of the repair. */
static inline int ssm_lock_take(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns, ssm_lock_repair repair,
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

/* How many locks stayed taken so far: when it grows during a call that failed, a later one may succeed. */
static inline uint32_t ssm_lock_stayed_count(const struct ssm_pool *pool)
{
    return pool->locks_stayed;
}

static inline void ssm_lock_note_stayed(struct ssm_pool *pool, uint64_t now_ns)
{
    pool->locks_stayed++;
    pool->stayed_ns = now_ns;
}

/* After a call that failed: should it be tried again, since a lock stayed taken in it? Naps before it says so. 1; 0: no, or
 * that has gone on for `patience_ns`; -EINTR. Not where the attachment has been entered. */
struct ssm_lock_retry { uint32_t stayed; uint64_t until_ns; };
static inline struct ssm_lock_retry ssm_lock_retry_begin(const struct ssm_pool *pool)
{
    return (struct ssm_lock_retry){.stayed = ssm_lock_stayed_count(pool)};
}
SSM_COLD int ssm_lock_retry(struct ssm_pool *pool, struct ssm_lock_retry *retry, uint64_t patience_ns);
#define SSM_LOCK_RETRY_NS UINT64_C(10000000) /* the usual patience: its owner waits for a processor, or is stopped */

/* A dead process has it. */
bool ssm_lock_owner_is_dead(const struct ssm_pool *pool, const struct ssm_lock *lock);

#endif
