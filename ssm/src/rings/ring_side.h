/* SPDX-License-Identifier: Apache-2.0
 *
 * The two sides of a ring: the right to put and the right to get, and the repair of a side after its owner's death.
 *
 * A right is the side's robust lock. The process of an exclusive side keeps it; the lock of a shared side is taken for
 * each call. A process that finds the owner dead repairs the side first. The repair of the consumer's side moves the
 * tail over the packets that were taken (get.c). That of the producer's side drops packets that were not published, and
 * completes the put of those that were (put.c). Both are exact and idempotent, and need no log.
 */
#ifndef SSM_RING_SIDE_H
#define SSM_RING_SIDE_H

#include "lock.h"
#include "ring_fast.h"
#include "ring_partner.h"

#include <errno.h>

#define SSM_RING_LOOKS       20 /* how often a call looks for what another process is about to do */
#define SSM_RING_LOOK_NAP_NS UINT64_C(500000)

struct ssm_side_of {
    struct ssm_ring_shared *shared;
    uint32_t                id, capacity;
}; /* capacity: when the ring was opened */

int ssm_side_repair_producer(struct ssm_pool *pool, void *context);
int ssm_side_repair_consumer(struct ssm_pool *pool, void *context);

static inline int ssm_side_take(struct ssm_pool *pool, struct ssm_side_of *of, struct ssm_side *side,
                                uint64_t patience_ns)
{
    bool producer = side == &of->shared->producer;
    return ssm_lock_take(pool, &side->lock, patience_ns, producer ? ssm_side_repair_producer : ssm_side_repair_consumer,
                         of);
}

static inline int ssm_side_take_of(struct ssm_ring *ring, struct ssm_side *side, uint64_t patience_ns)
{
    struct ssm_side_of of = {ring->shared, ring->id, ring->capacity};
    int result = ssm_side_take(ring->pool, &of, side, patience_ns);
    if (result == 0)
        ssm_ring_look_at_slots(ring);
    return result;
}

/* Takes the right to a side. An exclusive side is claimed by its first use and kept. Returns `again` if the right is
 * taken. */
static inline int ssm_side_enter(struct ssm_ring *ring, struct ssm_side *side, bool exclusive, int again)
{
    if (exclusive && ssm_lock_is_mine(ring->pool, &side->lock))
        return 0;
    int result = ssm_side_take_of(ring, side, exclusive ? 0 : SSM_LOCK_PATIENCE_NS);
    if (exclusive && result == 0)
        ssm_partner_arrives(ring, side);
    return result != -ETIMEDOUT ? result : exclusive ? -SSM_E_BUSY : again;
}

/* Takes the right if that needs no wait and no repair, and is not the first use of an exclusive side. */
static inline bool ssm_side_try(struct ssm_ring *ring, struct ssm_side *side, bool exclusive)
{
    if (exclusive)
        return ssm_lock_is_mine(ring->pool, &side->lock);
    if (!ssm_lock_try(ring->pool, &side->lock))
        return false;
    ssm_ring_look_at_slots(ring);
    return true;
}

static inline void ssm_side_leave(struct ssm_side *side, bool exclusive)
{
    if (!exclusive)
        ssm_lock_release(&side->lock);
}

#if SSM_ASSERTS
/* I7 and I14, with the side's right, between two calls: the indices agree, and nothing that a put intends is left. */
bool ssm_side_is_valid(const struct ssm_ring *ring, const struct ssm_side *side);
#endif

/* Takes the right for one call of a process that is neither producer nor consumer: it does not claim an exclusive
 * side. */
bool ssm_side_borrow(struct ssm_ring *ring, struct ssm_side *side, bool *mine);
void ssm_side_return(struct ssm_side *side, bool mine);

#endif
