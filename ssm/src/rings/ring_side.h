/* SPDX-License-Identifier: Apache-2.0
 *
 * The two sides of a ring: the right to put and the right to get, and what is repaired when somebody died with one of them.
 *
 * A right is the side's robust lock. An exclusive side's process keeps it; a shared side's is taken for each call. Whoever
 * finds its owner dead repairs the side first: the consumer's needs nothing (get.c), the producer's loses what was put and
 * not published, or completes what was (put.c); both repairs are exact, idempotent and without a log.
 */
#ifndef SSM_RING_SIDE_H
#define SSM_RING_SIDE_H

#include "lock.h"
#include "ring_fast.h"

#include <errno.h>

#define SSM_RING_LOOKS       20                 /* at what another process is about to do, or a reaper */
#define SSM_RING_LOOK_NAP_NS UINT64_C(500000)

struct ssm_side_of { struct ssm_ring_shared *shared; uint32_t id, slots; }; /* slots: as they were when it was mapped */

int ssm_side_repair_producer(struct ssm_pool *pool, void *context);
int ssm_side_repair_consumer(struct ssm_pool *pool, void *context);

static inline int ssm_side_take(struct ssm_pool *pool, struct ssm_side_of *of, struct ssm_side *side, uint64_t patience_ns)
{
    bool producer = side == &of->shared->producer;
    return ssm_lock_take(pool, &side->lock, patience_ns, producer ? ssm_side_repair_producer : ssm_side_repair_consumer, of);
}

static inline int ssm_side_take_of(struct ssm_ring *ring, struct ssm_side *side, uint64_t patience_ns)
{
    struct ssm_side_of of = {ring->shared, ring->id, ring->mask + 1};
    return ssm_side_take(ring->pool, &of, side, patience_ns);
}

/* The right to a side. An exclusive side is claimed by its first use and kept. `again`: not now. */
static inline int ssm_side_enter(struct ssm_ring *ring, struct ssm_side *side, bool exclusive, int again)
{
    if (exclusive && ssm_lock_is_mine(ring->pool, &side->lock))
        return 0;
    int result = ssm_side_take_of(ring, side, exclusive ? 0 : SSM_LOCK_PATIENCE_NS);
    return result != -ETIMEDOUT ? result : exclusive ? -SSM_E_BUSY : again;
}

/* The same where it takes neither a wait nor a repair, nor is it the first use. */
static inline bool ssm_side_try(const struct ssm_ring *ring, struct ssm_side *side, bool exclusive)
{
    return exclusive ? ssm_lock_is_mine(ring->pool, &side->lock) : ssm_lock_try(ring->pool, &side->lock);
}

static inline void ssm_side_leave(struct ssm_side *side, bool exclusive)
{
    if (!exclusive)
        ssm_lock_release(&side->lock);
}

/* The right for the length of one call by somebody who is neither producer nor consumer: an exclusive side that
 * nobody has claimed is not claimed by it. */
bool ssm_side_borrow(struct ssm_ring *ring, struct ssm_side *side, bool *mine);
void ssm_side_return(struct ssm_side *side, bool mine);

#endif
