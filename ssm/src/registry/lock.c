/* SPDX-License-Identifier: Apache-2.0
 *
 * The robust lock; see lock.h. */
#include "lock.h"

#include <errno.h>

#define SPINS        100
#define STAYED_NS    (2 * SSM_LOCK_PATIENCE_NS) /* so long after a lock stayed taken, no call waits for another one */
#define RETRY_NAP_NS UINT64_C(500000)

static bool word_is_dead(const struct ssm_pool *pool, uint64_t word)
{
    return ssm_holder_is_dead(pool, (uint32_t)(word & ~SSM_LOCK_WAITERS) - 1, (uint32_t)(word >> 32));
}

bool ssm_lock_owner_is_dead(const struct ssm_pool *pool, const struct ssm_lock *lock)
{
    uint64_t word = ssm_load_acquire_u64(&lock->word); /* J2: before the incarnation of the owner that it names */
    return word != 0 && word_is_dead(pool, word);
}

/* No lock is taken twice. A word with the caller's own name is damaged, and nobody else would ever release it. */
static bool is_to_steal(const struct ssm_pool *pool, uint64_t word)
{
    return (word & ~SSM_LOCK_WAITERS) == pool->lock_word || word_is_dead(pool, word);
}

static bool spin(struct ssm_pool *pool, struct ssm_lock *lock)
{
    for (int i = 0; pool->many_cpus && i < SPINS; i++) {
        uint64_t word = ssm_load_relaxed_u64(&lock->word);                        /* a hint: the swap decides */
        if (word == 0 && ssm_cas_acqrel_u64(&lock->word, &word, pool->lock_word)) /* L2 */
            return true;
        ssm_cpu_relax();
    }
    return false;
}

static int steal(struct ssm_pool *pool, struct ssm_lock *lock, ssm_lock_repair repair, void *context)
{
    int result = repair(pool, context);
    if (result < 0)
        ssm_lock_release(lock);
    return result < 0 ? result : 0;
}

int ssm_lock_take_slowly(struct ssm_pool *pool, struct ssm_lock *lock, uint64_t patience_ns, ssm_lock_repair repair,
                         void *context)
{
    /* Takes the lock with the waiters bit, since a process that set it earlier may still sleep. */
    const uint64_t mine = pool->lock_word | SSM_LOCK_WAITERS;
    uint64_t until_ns = 0;
    if (spin(pool, lock))
        return 0;
    for (;;) {
        uint64_t word = ssm_load_acquire_u64(&lock->word); /* J2 */
        if (word == 0) {
            if (ssm_cas_acqrel_u64(&lock->word, &word, mine)) /* L2 */
                return 0;
            continue;
        }
        if (is_to_steal(pool, word)) {
            if (ssm_cas_acqrel_u64(&lock->word, &word, mine)) /* L2: also orders what the dead owner wrote */
                return steal(pool, lock, repair, context);
            continue;
        }
        uint64_t now_ns = ssm_now_ns();
        if (until_ns == 0)
            until_ns = now_ns +
                       (patience_ns <= SSM_LOCK_PATIENCE_NS && now_ns - pool->stayed_ns < STAYED_NS ? 0 : patience_ns);
        if (now_ns >= until_ns) {
            ssm_lock_note_evasion(pool);
            if (patience_ns > 0)
                ssm_lock_note_stayed(pool, now_ns);
            return -ETIMEDOUT;
        }
        uint64_t announced = word | SSM_LOCK_WAITERS;
        if (word == announced || ssm_cas_acqrel_u64(&lock->word, &word, announced)) {
            uint64_t left_ns = until_ns - now_ns;
            ssm_word_sleep(&lock->word, (uint32_t)announced, left_ns < SSM_LOCK_STEP_NS ? left_ns : SSM_LOCK_STEP_NS);
        }
    }
}

int ssm_lock_retry(struct ssm_pool *pool, struct ssm_lock_retry *retry, uint64_t patience_ns)
{
    const uint32_t stayed = ssm_lock_stayed_count(pool);
    if (stayed == retry->stayed)
        return 0;
    retry->stayed = stayed;
    uint64_t now_ns = ssm_now_ns();
    if (retry->until_ns == 0)
        retry->until_ns = now_ns + patience_ns;
    if (now_ns >= retry->until_ns)
        return 0;
    return ssm_pool_nap(pool, RETRY_NAP_NS) != 0 ? -EINTR : 1;
}

void ssm_lock_release_slowly(struct ssm_lock *lock)
{
    ssm_word_wake(&lock->word);
}
