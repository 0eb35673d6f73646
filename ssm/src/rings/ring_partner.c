/* SPDX-License-Identifier: Apache-2.0
 *
 * The partners of a ring; see ring_partner.h. */
#include "ring_partner.h"

#include <string.h>

static struct ssm_partner *partner_of(struct ssm_ring_shared *shared, const struct ssm_side *side)
{
    return side == &shared->producer ? &shared->last_producer : &shared->last_consumer;
}

static struct ssm_side *awaited_side(struct ssm_ring_shared *shared, enum ssm_readiness what)
{
    return what == SSM_READY_TO_GET ? &shared->producer : &shared->consumer;
}

/* Does a call that waits for the other side end when that has nobody left? */
static bool is_watched(const struct ssm_ring *ring, enum ssm_readiness what)
{
    const uint32_t exclusive = what == SSM_READY_TO_GET ? SSM_ONE_PRODUCER : SSM_ONE_CONSUMER;
    return ring->flags & exclusive && !(ring->flags & SSM_WAIT_ANYWAY);
}

void ssm_partner_arrives(struct ssm_ring *ring, const struct ssm_side *side)
{
    struct ssm_partner *partner = partner_of(ring->shared, side);
    SSM_ASSERT_SHARED(ssm_lock_is_mine(ring->pool, &side->lock));
    ssm_store_release_u64(&partner->gone_ns, 0);
    memcpy(partner->name, ring->pool->name, sizeof partner->name);
    ssm_store_release_u32(&partner->pid, ssm_load_relaxed_u32(&ssm_holder_at(ring->pool, ring->pool->self)->pid));
}

void ssm_partner_goes(struct ssm_ring_shared *shared, const struct ssm_side *side, bool died)
{
    struct ssm_partner *partner = partner_of(shared, side);
    if (ssm_load_relaxed_u32(&partner->pid) == 0)
        return;
    ssm_store_relaxed_u32(&partner->died, died);
    ssm_store_release_u64(&partner->gone_ns, ssm_now_ns()); /* Z1 -> Z2 in ssm_ring_is_orphaned() */
}

void ssm_partner_wakes(const struct ssm_pool *pool, struct ssm_ring_shared *shared, const struct ssm_side *side)
{
    struct ssm_event *event = side == &shared->producer ? &shared->not_empty : &shared->not_full;
    ssm_event_signal(event, UINT32_MAX, pool->no_membarrier);
}

bool ssm_ring_is_orphaned(const struct ssm_ring *ring, enum ssm_readiness what)
{
    if (!is_watched(ring, what))
        return false;
    const struct ssm_side *side = awaited_side(ring->shared, what);
    const struct ssm_partner *partner = partner_of(ring->shared, side);
    const uint64_t gone_ns = ssm_load_acquire_u64(&partner->gone_ns);     /* Z2: before the index of that side */
    return gone_ns != 0 && ssm_load_relaxed_u64(&side->lock.word) == 0 && /* stale: as if the call had been sooner */
           ssm_now_ns() - gone_ns >= ring->alive_for_ns; /* a time from the future is damaged, and counts as old */
}

bool ssm_ring_look_for_partner(const struct ssm_ring *ring, enum ssm_readiness what)
{
    struct ssm_pool *pool = ring->pool;
    return is_watched(ring, what) && ssm_pool_look_in_turn(pool, ssm_now_ns()) && pool->on_stall(pool);
}

uint64_t ssm_ring_alive_for_ns(const struct ssm_ring *ring)
{
    return ring->alive_for_ns;
}

/* A text for people: if another process claims the side meanwhile, the answer may have parts of both. */
void ssm_ring_partner(struct ssm_ring *ring, uint32_t what, struct ssm_partner_info *out)
{
    const struct ssm_partner *partner = partner_of(ring->shared, awaited_side(ring->shared, what));
    const uint64_t gone_ns = ssm_load_acquire_u64(&partner->gone_ns), now_ns = ssm_now_ns();
    *out = (struct ssm_partner_info){
        .pid = ssm_load_acquire_u32(&partner->pid),
        .died = ssm_load_relaxed_u32(&partner->died),
        .gone_ns = gone_ns == 0     ? 0
                 : now_ns > gone_ns ? now_ns - gone_ns
                                    : 1,
    };
    memcpy(out->name, partner->name, sizeof out->name - 1);
}
