/* SPDX-License-Identifier: Apache-2.0
 *
 * The end of a ring's flow: its flags, and shutdown. */
#include "get.h"
#include "ring.h"
#include "ring_side.h"

#include <errno.h>

/* Entered, so that the ring is still there. */
static void wake_everyone(struct ssm_ring *ring)
{
    ssm_event_signal(&ring->shared->not_empty, UINT32_MAX, ring->pool->no_membarrier);
    ssm_event_signal(&ring->shared->not_full, UINT32_MAX, ring->pool->no_membarrier);
}

int ssm_ring_set_acl(struct ssm_ring *ring, uint32_t acl)
{
    if (acl & ~(uint32_t)(SSM_ACL_RDONLY | SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER))
        return -EINVAL;
    int result = ssm_pool_enter(ring->pool);
    if (result != 0)
        return result;
    if (!ring->gone) {
        ssm_store_release_u32(&ring->shared->acl, acl);
        wake_everyone(ring);
    }
    result = ring->gone ? -SSM_E_UNLINKED : 0;
    ssm_pool_leave(ring->pool);
    return result;
}

/* Enters, and takes the right to a side if it comes free soon. Returns 1 with the right, 0 without, or an error. */
static int enter_with(struct ssm_ring *ring, struct ssm_side *side, bool *mine)
{
    struct ssm_lock_retry retry = ssm_lock_retry_begin(ring->pool);
    for (int again = 1;;) {
        int result = ssm_pool_enter(ring->pool);
        if (result == 0 && ring->gone) {
            ssm_pool_leave(ring->pool);
            result = -SSM_E_UNLINKED;
        }
        if (result != 0)
            return result;
        if (ssm_side_borrow(ring, side, mine))
            return 1;
        if (again == 0)
            return 0;
        ssm_pool_leave(ring->pool);
        again = ssm_lock_retry(ring->pool, &retry, SSM_LOCK_RETRY_NS);
        if (again < 0)
            return again;
    }
}

int ssm_ring_shutdown(struct ssm_ring *ring, int immediate)
{
    struct ssm_side *producer = &ring->shared->producer, *consumer = &ring->shared->consumer;
    bool mine;
    /* Under the producer's right if possible: then no put that the flags still allowed is under way. */
    int borrowed = enter_with(ring, producer, &mine);
    if (borrowed < 0)
        return borrowed;
    /* P1 -> P2 in get_attempt() */
    ssm_or_acqrel_u32(&ring->shared->acl, SSM_ACL_FLOWDOWN | (immediate ? SSM_ACL_DISCARD : 0));
    if (borrowed)
        ssm_side_return(producer, mine);
    ssm_pool_leave(ring->pool);
    /* If another live process has the consumer's side, it discards the packets at its next get, or when it closes. */
    borrowed = immediate ? enter_with(ring, consumer, &mine) : -ENOENT;
    if (borrowed > 0) {
        ssm_ring_discard(ring);
        ssm_side_return(consumer, mine);
    }
    if (borrowed >= 0 || ssm_pool_enter(ring->pool) == 0) { /* closed meanwhile: others wake within 50 ms */
        if (!ring->gone)
            wake_everyone(ring);
        ssm_pool_leave(ring->pool);
    }
    return borrowed == -EINTR ? borrowed : 0;
}
