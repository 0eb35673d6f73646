/* SPDX-License-Identifier: Apache-2.0
 *
 * Owned rings; see ring_owned.h. */
#include "ring_owned.h"

#include "get.h"
#include "ring_side.h"
#include "ring_unlink.h"
#include "seed_bug.h"

/* The holder slot in a lock word; SSM_NIL if it names none. */
static uint32_t slot_of(const struct ssm_pool *pool, uint64_t owner)
{
    const uint32_t slot = (uint32_t)owner - 1;
    return owner != 0 && slot < pool->geometry.holders ? slot : SSM_NIL;
}

static bool is_gone(const struct ssm_pool *pool, uint32_t slot, uint64_t owner, const struct ssm_holder_set *gone)
{
    return ssm_holder_set_has(gone, slot) ||
           ssm_load_relaxed_u32(&ssm_holder_at(pool, slot)->incarnation) != owner >> 32; /* the registry is locked */
}

/* Steps 1 to 3. False: a stopped process has a right. */
static bool end(struct ssm_ring *ring)
{
    struct ssm_ring_shared *shared = ring->shared;
    bool mine;
    if (!ssm_side_borrow(ring, &shared->producer, &mine))
        return false;
    ssm_or_acqrel_u32(&shared->acl, SSM_ACL_FLOWDOWN | SSM_ACL_DISCARD); /* P1 -> P2 in get_attempt() */
    ssm_side_return(&shared->producer, mine);
    if (!ssm_side_borrow(ring, &shared->consumer, &mine))
        return false;
    ssm_ring_discard(ring);
    ssm_side_return(&shared->consumer, mine);
    ssm_event_signal(&shared->not_empty, UINT32_MAX, ring->pool->no_membarrier);
    ssm_event_signal(&shared->not_full, UINT32_MAX, ring->pool->no_membarrier);
    return true;
}

uint32_t ssm_ring_end_owned(struct ssm_pool *pool, uint32_t holder_id, const struct ssm_holder_set *gone)
{
    struct ssm_ring ring;
    if (!ssm_ring_borrow_access(pool, holder_id, &ring))
        return SSM_NIL;
    const uint64_t owner = ssm_load_relaxed_u64(&ring.shared->owner); /* written before the ring could be found */
    const uint32_t slot = slot_of(pool, owner);
    if (slot == SSM_NIL || !is_gone(pool, slot, owner, gone) || SSM_HAS_BUG(OWNED_STAYS))
        return SSM_NIL;
    if (!end(&ring))
        return slot;
    if (SSM_HAS_BUG(OWNER_FIRST))
        ssm_store_relaxed_u64(&ring.shared->owner, 0);
    ssm_ring_unlink_locked(pool, holder_id);
    ssm_store_relaxed_u64(&ring.shared->owner, 0);
    return SSM_NIL;
}
