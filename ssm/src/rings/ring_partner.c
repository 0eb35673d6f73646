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

static uint32_t exclusive_flag(bool producers)
{
    return producers ? SSM_ONE_PRODUCER : SSM_ONE_CONSUMER;
}

/* Does a call that waits for the other side end when no process is left there? */
static bool is_watched(const struct ssm_ring *ring, enum ssm_readiness what)
{
    return ring->flags & (exclusive_flag(what == SSM_READY_TO_GET) | SSM_PEERS) && !(ring->flags & SSM_WAIT_ANYWAY);
}

/* ---- exclusive sides ------------------------------------------------------------------------------------------ */

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
    if (!(shared->flags & exclusive_flag(side == &shared->producer)) || ssm_load_relaxed_u32(&partner->pid) == 0)
        return;
    ssm_store_relaxed_u32(&partner->died, died);
    ssm_store_release_u64(&partner->gone_ns, ssm_now_ns()); /* Z1 -> Z2 in ssm_ring_is_orphaned() */
}

void ssm_partner_wakes(const struct ssm_pool *pool, struct ssm_ring_shared *shared, const struct ssm_side *side)
{
    struct ssm_event *event = side == &shared->producer ? &shared->not_empty : &shared->not_full;
    ssm_event_signal(event, UINT32_MAX, pool->no_membarrier);
}

/* ---- shared sides --------------------------------------------------------------------------------------------- */

static bool is_in(const struct ssm_u64 *set, uint32_t slot)
{
    const struct ssm_mark mark = ssm_mark_of(slot);
    return ssm_load_acquire_u64(&set[mark.word]) & mark.bit;
}

void ssm_peer_opens(struct ssm_ring *ring)
{
    const struct ssm_mark mark = ssm_mark_of(ring->pool->self);
    ring->has_put = ring->has_got = ring->put_fast = ring->get_fast = false;
    if (ring->putters == NULL)
        return;
    ssm_or_acqrel_u64(&ring->putters[mark.word], mark.bit);
    ssm_or_acqrel_u64(&ring->getters[mark.word], mark.bit);
}

/* May a handle of this process that is open use the side? One that has used neither may use both. */
static bool may_use(const struct ssm_ring *closed_or_open, bool putting)
{
    const struct ssm_ring *ring = closed_or_open->pool->rings;
    for (; ring != NULL; ring = ring->next)
        if (ring->id == closed_or_open->id && !ring->gone &&
            ((putting ? ring->has_put : ring->has_got) || !(ring->has_put || ring->has_got)))
            return true;
    return false;
}

/* Takes a process out of a side's set, and wakes the calls that wait for it. */
static void take_out(struct ssm_pool *pool, struct ssm_ring_shared *shared, struct ssm_u64 *set, bool putting,
                     uint32_t slot)
{
    const struct ssm_mark mark = ssm_mark_of(slot);
    ssm_and_acqrel_u64(&set[mark.word], ~mark.bit); /* Z3 -> Z4 in has_no_peer() */
    ssm_partner_wakes(pool, shared, putting ? &shared->producer : &shared->consumer);
}

void ssm_peer_comes(struct ssm_ring *ring, enum ssm_readiness what)
{
    struct ssm_pool *pool = ring->pool;
    const bool putting = what == SSM_READY_TO_PUT;
    *(putting ? &ring->has_put : &ring->has_got) = true;
    *(putting ? &ring->put_fast : &ring->get_fast) = ring->table == NULL;
    if (ring->putters == NULL)
        return;
    struct ssm_u64 *set = putting ? ring->putters : ring->getters, *other = putting ? ring->getters : ring->putters;
    if (!is_in(set, pool->self))
        ssm_or_acqrel_u64(&set[pool->mark.word], pool->mark.bit);
    if (is_in(other, pool->self) && !may_use(ring, !putting))
        take_out(pool, ring->shared, other, !putting, pool->self);
}

/* Says since when a process of the side is gone; `named`: it has used the side, as far as is known. */
static void note_going(struct ssm_pool *pool, struct ssm_partner *partner, uint32_t slot, bool died, bool named)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    const bool adopted = died && slot == pool->self; /* the slot has the caller's name by now */
    if (named) {
        memcpy(partner->name, holder->name, sizeof partner->name);
        ssm_store_relaxed_u32(&partner->pid, adopted ? 0 : ssm_load_relaxed_u32(&holder->pid));
        ssm_store_relaxed_u32(&partner->died, died);
    }
    ssm_store_release_u64(&partner->gone_ns, ssm_now_ns());
}

static void go_from(struct ssm_pool *pool, struct ssm_ring_shared *shared, struct ssm_u64 *set, bool putting,
                    uint32_t slot, bool died, bool named)
{
    struct ssm_side *side = putting ? &shared->producer : &shared->consumer;
    if (!is_in(set, slot))
        return;
    if (!(shared->flags & exclusive_flag(putting)))
        note_going(pool, partner_of(shared, side), slot, died, named);
    take_out(pool, shared, set, putting, slot);
}

void ssm_peer_closes(struct ssm_ring *ring)
{
    struct ssm_pool *pool = ring->pool;
    if (ring->putters != NULL && !may_use(ring, true))
        go_from(pool, ring->shared, ring->putters, true, pool->self, false, ring->has_put);
    if (ring->getters != NULL && !may_use(ring, false))
        go_from(pool, ring->shared, ring->getters, false, pool->self, false, ring->has_got);
}

void ssm_peer_goes(struct ssm_pool *pool, uint32_t ring_id, uint32_t slot, bool died)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, ring_id);
    struct ssm_u64 *putters = ssm_ring_peers(pool, ring_id, true), *getters = ssm_ring_peers(pool, ring_id, false);
    if (shared == NULL || putters == NULL)
        return;
    go_from(pool, shared, putters, true, slot, died, true);
    go_from(pool, shared, getters, false, slot, died, true);
}

/* A handle that has used neither side looks for the other one's sake: the own process is not waited for then. */
static bool has_no_peer(const struct ssm_ring *ring, bool putters)
{
    const struct ssm_pool *pool = ring->pool;
    const struct ssm_u64 *set = putters ? ring->putters : ring->getters;
    const bool passes_self = pool->self != SSM_NIL && !ring->has_put && !ring->has_got;
    for (uint32_t word = 0; word < pool->geometry.holder_words; word++) {
        const uint64_t self = passes_self && word == pool->mark.word ? pool->mark.bit : 0;
        if (ssm_load_acquire_u64(&set[word]) & ~self) /* Z4: before the index of that side */
            return false;
    }
    return true;
}

/* ---- both ----------------------------------------------------------------------------------------------------- */

static bool has_nobody(const struct ssm_ring *ring, enum ssm_readiness what)
{
    const struct ssm_side *side = awaited_side(ring->shared, what);
    if (ring->flags & exclusive_flag(what == SSM_READY_TO_GET))
        return ssm_load_relaxed_u64(&side->lock.word) == 0; /* stale: as if the call had been sooner */
    return ring->putters != NULL && has_no_peer(ring, what == SSM_READY_TO_GET) &&
           ssm_load_acquire_u64(&side->index) != 0; /* a side that nobody has used yet is waited for */
}

bool ssm_ring_is_orphaned(const struct ssm_ring *ring, enum ssm_readiness what)
{
    if (!is_watched(ring, what))
        return false;
    const struct ssm_u64 *gone_ns = &partner_of(ring->shared, awaited_side(ring->shared, what))->gone_ns;
    return ssm_load_acquire_u64(gone_ns) != 0 && has_nobody(ring, what) &&     /* Z2: before the index of that side */
           ssm_now_ns() - ssm_load_acquire_u64(gone_ns) >= ring->alive_for_ns; /* from the future: damaged, so old */
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
