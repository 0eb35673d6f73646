/* SPDX-License-Identifier: Apache-2.0
 *
 * Tasks that are done; see ring_join.h. */
#include "ring_join.h"

#include "ring_unlink.h"
#include "sleep.h"

#include <errno.h>

int ssm_ring_join_add(struct ssm_ring *ring, uint32_t count)
{
    struct ssm_ring_shared *shared = ring->shared;
    SSM_ASSERT(count > 0);
    uint64_t done = ssm_load_acquire_u64(&shared->done);
    do {
        if (ssm_load_acquire_u64(&shared->producer.index) - done < count)
            return -EINVAL;
    } while (!ssm_cas_acqrel_u64(&shared->done, &done, done + count)); /* T1 -> T2 in join_attempt() */
    SSM_ASSERT_SHARED(done + count <= ssm_load_acquire_u64(&shared->producer.index));
    if (ssm_load_acquire_u64(&shared->producer.index) == done + count)
        ssm_event_signal(&shared->all_done, UINT32_MAX, ring->pool->no_membarrier);
    return 0;
}

int ssm_ring_task_done(struct ssm_ring *ring)
{
    SSM_POOL_ENTER(ring->pool);
    return ssm_ring_join_add(ring, 1);
}

static int join_attempt(void *context, bool thorough)
{
    const struct ssm_ring *ring = context;
    (void)thorough;
    SSM_POOL_ENTER(ring->pool);
    uint64_t done = ssm_load_acquire_u64(&ring->shared->done);           /* T2: before the index */
    uint64_t head = ssm_load_acquire_u64(&ring->shared->producer.index); /* T2 */
    return done == head ? 0 : -ETIMEDOUT;
}

int ssm_ring_join(struct ssm_ring *ring, int64_t timeout_ns)
{
    const struct ssm_sleep wait = {
        .attempt = join_attempt,
        .context = ring,
        .again = -ETIMEDOUT,
        .class_idx = SSM_NIL,
        .event = &ring->shared->all_done,
        .gone = &ring->gone,
    };
    int result = join_attempt(ring, true);
    return result == -ETIMEDOUT && timeout_ns != 0 ? ssm_sleep_for(ring->pool, &wait, timeout_ns) : result;
}

uint64_t ssm_ring_unfinished(struct ssm_ring *ring)
{
    if (!ssm_ring_look_begin(ring))
        return 0;
    const uint64_t done = ssm_load_acquire_u64(&ring->shared->done);
    const uint64_t unfinished = ssm_load_acquire_u64(&ring->shared->producer.index) - done;
    return ssm_ring_look_end(ring) ? unfinished : 0;
}
