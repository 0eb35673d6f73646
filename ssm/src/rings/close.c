/* SPDX-License-Identifier: Apache-2.0
 *
 * Closing a ring: the sides that this process has are given up. */
#include "ring_side.h"

#include <stdlib.h>

static void release_if_mine(struct ssm_pool *pool, struct ssm_ring_shared *shared, struct ssm_side *side)
{
    if (!ssm_lock_is_mine(pool, &side->lock))
        return;
    ssm_partner_goes(shared, side, false);
    ssm_lock_release(&side->lock);
    ssm_partner_wakes(pool, shared, side);
}

void ssm_ring_release_sides(struct ssm_pool *pool, uint32_t holder_id)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL)
        return;
    release_if_mine(pool, shared, &shared->producer);
    release_if_mine(pool, shared, &shared->consumer);
}

void ssm_ring_close(struct ssm_ring *ring)
{
    if (ring == NULL)
        return;
    if (ssm_pool_enter_reader(ring->pool) == 0) { /* a forked child that is no holder yet has nothing to give up */
        if (ring->pool->self != SSM_NIL) {
            release_if_mine(ring->pool, ring->shared, &ring->shared->producer);
            release_if_mine(ring->pool, ring->shared, &ring->shared->consumer);
        }
        ssm_pool_leave(ring->pool);
    }
    ssm_ring_close_spare(ring);
}

void ssm_ring_close_spare(struct ssm_ring *ring)
{
    free(ring);
}
