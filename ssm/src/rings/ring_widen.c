/* SPDX-License-Identifier: Apache-2.0
 *
 * Widening a ring; see ring_widen.h. */
#include "ring_widen.h"

#include "ring_side.h"
#include "seed_bug.h"
#include "sparse.h"

#define REST_NS UINT64_C(20000000) /* after memory could not be had; see arena.c */

/* The memory of the slots from mask + 1 on. */
static bool reserve_slots(struct ssm_ring *ring, uint32_t next)
{
    struct ssm_pool *pool = ring->pool;
    const uint64_t slots_start = (uint64_t)((uint8_t *)ring->shared->slots - pool->base),
                   slots = ring->mask + UINT64_C(1);
    if (pool->grow_again_ns != 0 && ssm_now_ns() < pool->grow_again_ns)
        return false;
    if (ssm_sparse_reserve(pool, slots_start + slots * sizeof(struct ssm_u64),
                           (next - slots) * sizeof(struct ssm_u64)) == 0)
        return true;
    pool->grow_again_ns = ssm_now_ns() + REST_NS;
    return false;
}

/* Steps 3 and 4, with both rights. */
static void widen(struct ssm_ring *ring, uint32_t next)
{
    struct ssm_ring_shared *shared = ring->shared;
    const uint64_t head = ssm_load_relaxed_u64(&shared->producer.index), mask = ring->mask;
    const uint64_t tail = ssm_load_relaxed_u64(&shared->consumer.index);
    if (SSM_HAS_BUG(WIDE_EARLY))
        ssm_store_release_u32(&shared->slot_count, next);
    for (uint64_t at = tail; at != head && at - tail <= mask; at++) /* more: scribbled */
        if ((at & (next - 1)) > mask)
            ssm_store_relaxed_u64(&shared->slots[at & (next - 1)], ssm_load_relaxed_u64(&shared->slots[at & mask]));
    ssm_store_release_u32(&shared->slot_count, next); /* Q1 -> Q2 in ssm_ring_slots_now(): the slots are there */
    ssm_ring_look_at_slots(ring);
}

/* So many slots that there is room; 0: the capacity does not allow it. */
static uint32_t slots_for(const struct ssm_ring *ring, uint32_t count)
{
    const uint64_t depth = ssm_load_relaxed_u64(&ring->shared->producer.index) -
                           ssm_load_relaxed_u64(&ring->shared->consumer.index); /* stale: more slots than it needs */
    uint64_t slots = ring->mask + UINT64_C(1);
    if (depth > slots || depth + count > ring->capacity)
        return 0;
    while (slots < depth + count)
        slots *= 2;
    return (uint32_t)slots;
}

bool ssm_ring_widen(struct ssm_ring *ring, uint32_t count)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    if (ring->places == ring->capacity)
        return false;
    const uint32_t next = slots_for(ring, count);
    if (next <= ring->mask + 1) /* a get has made room since, or there can be none */
        return next != 0;
    if (!reserve_slots(ring, next) || ssm_side_enter(ring, consumer, false, -SSM_E_FULL) != 0)
        return false;
    widen(ring, next);
    ssm_side_leave(consumer, false);
    ssm_event_signal(&ring->shared->not_full, next / 2, ring->pool->no_membarrier); /* others wait for room, too */
    return true;
}
