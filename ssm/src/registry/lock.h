/* SPDX-License-Identifier: Apache-2.0
 *
 * The robust lock: a word that names its owner. A caller waits in bounded steps for a living owner. It steals the lock
 * of a dead owner by compare-and-swap, and then runs the repair function before it goes on. The repair function is an
 * argument, so it cannot be forgotten. There is no unrecoverable state: a process that dies in a repair leaves a lock
 * with a dead owner.
 *
 * The word names holder slot and incarnation. So a thief that is delayed between its test and its swap cannot steal the
 * lock from the slot's next owner. After a death between releasing and waking, sleepers look again, since their sleeps
 * are bounded.
 */
#ifndef SSM_LOCK_H
#define SSM_LOCK_H

#include "registry.h"

#define SSM_LOCK_WAITERS (UINT64_C(1) << 31)
#define SSM_LOCK_STEP_NS UINT64_C(10000000) /* longest sleep between two looks at the owner */

/* How long a call waits for a lock inside the attachment, where it keeps the process's other threads out. If one lock
 * stayed taken for so long, the next ones are only tried for a moment. A caller that wants to wait longer leaves the
 * attachment and tries again: ssm_lock_retry(). */
#define SSM_LOCK_PATIENCE_NS UINT64_C(300000)

/* Repairs what the lock guards; may run several times. 0, or the error with which taking the lock fails. */
typedef int (*ssm_lock_repair)(struct ssm_pool *pool, void *context);

SSM_COLD int ssm_lock_take_slowly(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns,
                                  ssm_lock_repair repair, void *context);

/* Takes a free lock. */
static inline bool ssm_lock_try(const struct ssm_pool *pool, struct ssm_lock *lock)
{
    uint64_t nobody = 0;
    return SSM_LIKELY(ssm_cas_acqrel_u64(&lock->word, &nobody, pool->lock_word)); /* L2, J1 */
}

/* Not recursive. 0; -ETIMEDOUT if a living owner kept the lock for `patience_ns` (0: spins only); or the error of the
 * repair. */
static inline int ssm_lock_take(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns,
                                ssm_lock_repair repair, void *context)
{
    SSM_ASSERT(pool->self != SSM_NIL); /* the word would name nobody */
    return ssm_lock_try(pool, lock) ? 0 : ssm_lock_take_slowly(pool, lock, patience_ns, repair, context);
}

SSM_COLD void ssm_lock_release_slowly(struct ssm_lock *lock);

static inline void ssm_lock_release(struct ssm_lock *lock)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&lock->word) != 0);
    /* L1 -> L2 in ssm_lock_try(): the next owner sees all that was written under the lock. */
    if (ssm_exchange_acqrel_u64(&lock->word, 0) & SSM_LOCK_WAITERS)
        ssm_lock_release_slowly(lock);
}

static inline bool ssm_lock_is_mine(const struct ssm_pool *pool, const struct ssm_lock *lock)
{
    return (ssm_load_relaxed_u64(&lock->word) & ~SSM_LOCK_WAITERS) == pool->lock_word; /* only this process writes it */
}

/* How many locks stayed taken so far. If the count grows during a call that fails, another try may succeed. */
static inline uint32_t ssm_lock_stayed_count(const struct ssm_pool *pool)
{
    return pool->locks_stayed;
}

static inline void ssm_lock_note_stayed(struct ssm_pool *pool, uint64_t now_ns)
{
    pool->locks_stayed++;
    pool->stayed_ns = now_ns;
}

/* After a call that failed: 1, after a nap, if it should be tried again because a lock stayed taken; 0 if not, or if
 * that has lasted for `patience_ns`; -EINTR. Not while the attachment is entered. */
struct ssm_lock_retry {
    uint32_t stayed;
    uint64_t until_ns;
};
static inline struct ssm_lock_retry ssm_lock_retry_begin(const struct ssm_pool *pool)
{
    return (struct ssm_lock_retry){.stayed = ssm_lock_stayed_count(pool)};
}
SSM_COLD int ssm_lock_retry(struct ssm_pool *pool, struct ssm_lock_retry *retry, uint64_t patience_ns);
#define SSM_LOCK_RETRY_NS UINT64_C(10000000) /* the usual patience; the owner waits for a processor, or is stopped */

/* Does a dead process have the lock? */
bool ssm_lock_owner_is_dead(const struct ssm_pool *pool, const struct ssm_lock *lock);

#endif
