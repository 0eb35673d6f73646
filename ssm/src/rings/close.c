/* SPDX-License-Identifier: Apache-2.0
 *
 * Closing a ring: the sides that this process has are given up, and the process is no user of the ring any more. */
#include "ring_partner.h"
#include "ring_unlink.h"

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

/* A closed attachment has no bits any more, and a forked child that is no holder yet has nothing to give up. */
static void close_ring(struct ssm_ring *ring, bool sides)
{
    struct ssm_pool *pool = ring->pool;
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_take(&pool->thread_lock);
    const bool open = pool->status == SSM_STATUS_OPEN && pool->self != SSM_NIL && !ring->gone &&
                      ssm_pool_is_whole(pool);
    if (open && sides) {
        release_if_mine(pool, ring->shared, &ring->shared->producer);
        release_if_mine(pool, ring->shared, &ring->shared->consumer);
    }
    ssm_ring_remove_handle(ring);
    if (open) {
        ssm_peer_closes(ring);
        ssm_ring_leave(pool, ring->id);
    }
    ssm_pool_leave(pool);
    free(ring);
}

void ssm_ring_close(struct ssm_ring *ring)
{
    if (ring != NULL)
        close_ring(ring, true);
}

void ssm_ring_close_spare(struct ssm_ring *ring)
{
    close_ring(ring, false);
}
