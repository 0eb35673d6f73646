/* SPDX-License-Identifier: Apache-2.0
 *
 * The rights to a ring's sides, and their repair. */
#include "ring_side.h"

#include "chain.h"
#include "owner.h"
#include "redelivery.h"
#include "registry.h"
#include "ring.h"
#include "seed_bug.h"


/* ---- repair ------------------------------------------------------------------------------------------- */

/* Step 6 of a put that was published, in the name of the process that died. Whatever that process had marked as leaving
 * ends with this put: it can be in one put at a time, and has no mark in between. The rings that it took deliveries from
 * are still there: its row has their bits, until put_owner is 0 and it is reaped. */
static void complete_handover(struct ssm_pool *pool, uint64_t put_owner)
{
    const uint32_t owner = (uint32_t)(put_owner >> 32), slot = ssm_owner_slot(owner);
    struct ssm_redelivery table;
    for (uint32_t id = 0; slot < pool->geometry.holders && id < ssm_holder_high(pool); id++)
        if (ssm_ring_is_opened_by(pool, slot, id) && ssm_ring_table(pool, id, &table))
            ssm_redelivery_complete(pool, &table, owner);
}

/* Clears the ring's bit of the slots [head, put_intent), for a put that was not published; chains from end to head
 * (N3). */
static void undo_put(struct ssm_pool *pool, const struct ssm_side_of *of, uint64_t head, uint64_t intent)
{
    uint64_t slots = ssm_ring_slots_now(of->shared, of->capacity);
    uint64_t handles[SSM_CHAIN_MAX];
    bool whole;
    for (uint64_t at = head; at < intent && at - head < slots; at++) {
        uint64_t handle = ssm_slot_handle(&of->shared->slots[at & (slots - 1)]);
        uint32_t count = ssm_chain_collect(pool, of->id, handle, handles, &whole); /* 0: the bit was not set yet */
        ssm_chain_drop(pool, of->id, handles, count);
    }
}

/* Repairs the producer's side after a death. */
int ssm_side_repair_producer(struct ssm_pool *pool, void *context)
{
    const struct ssm_side_of *of = context;
    struct ssm_side *producer = &of->shared->producer;
    uint64_t head = ssm_load_relaxed_u64(&producer->index), intent = ssm_load_relaxed_u64(&producer->put_intent);
    uint64_t owner = ssm_load_relaxed_u64(&producer->put_owner);
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &producer->lock));
    if (intent > head && !SSM_HAS_BUG(NO_UNDO))
        undo_put(pool, of, head, intent);
    else if (intent != 0 && owner != 0 && !SSM_HAS_BUG(NO_HANDOVER))
        complete_handover(pool, owner);
    /* In this order: while put_intent is beyond the head, a later repair takes the ring's bits off once more. Until then
     * put_owner keeps reapers from returning a packet of that put to this ring, which sets its bit. */
    ssm_store_release_u64(&producer->put_intent, 0);
    ssm_store_release_u64(&producer->put_owner, 0);
    ssm_partner_goes(of->shared, producer, true);
    ssm_store_relaxed_u64(&producer->recoveries, ssm_load_relaxed_u64(&producer->recoveries) + 1);
    return 0;
}

/* Moves the tail over the packets that a dead process took before it could (get.c): they are the first ones. So a slot
 * with a mark is queued, and the fast path of get does not look (I19). The first one that is queued may have the dead
 * process's bit, too: it loses its mark. A redelivering ring has no marks, and passes over such slots itself. Returns
 * how many these were. */
static uint32_t pass_over_taken(struct ssm_pool *pool, const struct ssm_side_of *of)
{
    struct ssm_side *consumer = &of->shared->consumer;
    const uint64_t slots = ssm_ring_slots_now(of->shared, of->capacity), tail = ssm_load_relaxed_u64(&consumer->index);
    /* A1: pairs with R1 in put_all() */
    const uint64_t head = ssm_load_acquire_u64(&of->shared->producer.index);
    const uint64_t depth = head - tail <= slots ? head - tail : 0; /* damaged: get says so */
    uint32_t passed = 0;
    for (; passed < depth; passed++) {
        struct ssm_u64 *slot = &of->shared->slots[(tail + passed) & (slots - 1)];
        const uint64_t handle = ssm_slot_handle(slot);
        if (!ssm_block_is_queued(pool, of->id, handle))
            continue;
        ssm_store_relaxed_u64(slot, handle);
        break;
    }
    if (passed > 0)
        ssm_store_release_u64(&consumer->index, tail + passed); /* R2 -> A2 in look_for_room() */
    return passed;
}

/* Repairs the consumer's side after a death. */
int ssm_side_repair_consumer(struct ssm_pool *pool, void *context)
{
    const struct ssm_side_of *of = context;
    struct ssm_ring_shared *shared = of->shared;
    struct ssm_side *consumer = &shared->consumer;
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &consumer->lock));
    const uint32_t passed = shared->flags & SSM_REDELIVER || SSM_HAS_BUG(KEEP_TAKEN) ? 0 : pass_over_taken(pool, of);
    ssm_partner_goes(shared, consumer, true);
    ssm_store_relaxed_u64(&consumer->recoveries, ssm_load_relaxed_u64(&consumer->recoveries) + 1);
    if (passed > 0)
        ssm_event_signal(&shared->not_full, passed, pool->no_membarrier);
    return 0;
}

#if SSM_ASSERTS
bool ssm_side_is_valid(const struct ssm_ring *ring, const struct ssm_side *side)
{
    const struct ssm_side *producer = &ring->shared->producer, *consumer = &ring->shared->consumer;
    const uint64_t done = ssm_load_acquire_u64(&ring->shared->done);
    const uint64_t tail = ssm_load_acquire_u64(&consumer->index); /* first: the peer may move on meanwhile */
    const uint64_t head = ssm_load_acquire_u64(&producer->index), again = ssm_load_acquire_u64(&consumer->index);
    if (!ssm_lock_is_mine(ring->pool, &side->lock) || done > head || tail > head ||
        again > (side == producer ? head : again))
        return false;
    if (side == consumer)
        return head - tail <= ring->capacity; /* its own index stood still */
    return head - again <= ring->capacity && ssm_load_relaxed_u64(&producer->count) <= ring->capacity &&
           ssm_load_relaxed_u64(&producer->put_intent) == 0 && ssm_load_relaxed_u64(&producer->put_owner) == 0;
}
#endif

/* ---- borrowing and giving up -------------------------------------------------------------------------- */

bool ssm_side_borrow(struct ssm_ring *ring, struct ssm_side *side, bool *mine)
{
    *mine = ssm_lock_is_mine(ring->pool, &side->lock);
    return *mine || ssm_side_take_of(ring, side, SSM_LOCK_PATIENCE_NS) == 0;
}

void ssm_side_return(struct ssm_side *side, bool mine)
{
    if (!mine)
        ssm_lock_release(&side->lock);
}

void ssm_ring_scrub(struct ssm_pool *pool, uint32_t holder_id)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL)
        return;
    struct ssm_side_of of = {shared, holder_id, shared->capacity};
    struct ssm_side *const sides[] = {&shared->producer, &shared->consumer};
    for (int i = 0; i < 2; i++)
        if (ssm_lock_owner_is_dead(pool, &sides[i]->lock) && ssm_side_take(pool, &of, sides[i], 0) == 0) {
            ssm_lock_release(&sides[i]->lock);
            ssm_partner_wakes(pool, shared, sides[i]);
        }
}

uint32_t ssm_ring_putter(const struct ssm_pool *pool, uint32_t holder_id)
{
    const struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    uint64_t owner = shared != NULL ? ssm_load_acquire_u64(&shared->producer.put_owner) : 0;
    return owner != 0 ? ssm_owner_slot((uint32_t)(owner >> 32)) : SSM_NIL;
}
