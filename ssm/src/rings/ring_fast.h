/* SPDX-License-Identifier: Apache-2.0
 *
 * The fast path of put and get: packets that one holder has alone, from a process to a ring and on to a process. The
 * steps, and what a death after each leaves, are those of put.c and get.c. Here they are done for a whole batch, by
 * plain stores. Any other packet is left to put.c and get.c, before anything has changed.
 */
#ifndef SSM_RING_FAST_H
#define SSM_RING_FAST_H

#include "claim.h"
#include "ring.h"
#include "seed_bug.h"

/* How far the consumer may read; UINT64_MAX if the indices contradict each other. Uses the head as last seen while the
 * tail has not reached it. */
static inline uint64_t ssm_ring_head_beyond(struct ssm_ring *ring, uint64_t tail)
{
    struct ssm_u64 *peer = &ring->shared->consumer.peer;
    uint64_t head = ssm_load_relaxed_u64(peer);
    if (head - tail - 1 < ring->capacity) /* not equal, and not too far */
        return head;
    head = ssm_load_acquire_u64(&ring->shared->producer.index); /* A1: pairs with R1 in put_all() */
    ssm_store_relaxed_u64(peer, head);
    return head - tail <= ring->capacity ? head : UINT64_MAX;
}

/* A hint, without the consumer's right. */
static inline bool ssm_ring_looks_empty(const struct ssm_ring *ring)
{
    const uint64_t tail = ssm_load_relaxed_u64(&ring->shared->consumer.index);
    return ssm_load_relaxed_u64(&ring->shared->consumer.peer) == tail &&
           ssm_load_relaxed_u64(&ring->shared->producer.index) == tail;
}

#define SSM_RING_FAST_AHEAD 4 /* slots ahead whose descriptors are prefetched: they are still in the producer's cache */

/* Steps 2 to 6 of put. Needs the producer's right, room for all, and ssm_claims_take_sole() of them. */
static inline void ssm_ring_fast_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_side *producer = &ring->shared->producer;
    const uint64_t head = ssm_load_relaxed_u64(&producer->index);
    uint64_t bytes = 0;
    SSM_ASSERT(count > 0 && count <= ring->capacity);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&producer->put_intent) == 0);
    if (SSM_HAS_BUG(INTENT_EARLY))
        ssm_store_release_u64(&producer->put_intent, head + count);
    for (uint32_t i = 0; i < count; i++)
        ssm_store_relaxed_u64(&ring->shared->slots[(head + i) & ring->mask], handles[i] | SSM_SLOT_COMMON);
    if (!SSM_HAS_BUG(NO_INTENT))
        ssm_store_release_u64(&producer->put_intent, head + count);
    if (SSM_HAS_BUG(HEAD_EARLY))
        ssm_store_release_u64(&producer->index, head + count);
    for (uint32_t i = 0; i < count; i++) {
        SSM_ASSERT(pool->claims[(uint32_t)handles[i]].references == 0);
        ssm_block_pass(ssm_block_at(pool, (uint32_t)handles[i]), pool->mark, ring->mark);
        bytes += pool->classes[pool->claims[(uint32_t)handles[i]].class_idx].block_size;
    }
    ssm_store_release_u64(&producer->index, head + count); /* R1 -> A1 in ssm_ring_head_beyond() */
    ssm_store_release_u64(&producer->put_intent, 0);
    ssm_usage_subtract(pool, bytes);
}

/* Is the packet of a slot, less its mark, still there, held by the ring alone, and not already held by this process?
 * Without the mark it is no index of the class.
 *
 * When a marked slot was published, the set was exactly the ring: its producer had held the block alone (I17), and had
 * passed it on. Only a holder adds a holder, so from then on the set changes by gets alone. A consumer that died in one
 * left the ring's bit and its own, or its own alone: one look at the ring's word and its neighbour finds that, at
 * whatever moments they are read. Of sets with more words the others are not read: there a dead consumer's bit may
 * stay, until its reaper clears it. No living process relies on it. */
static inline bool ssm_ring_slot_is_common(const struct ssm_ring *ring, const struct ssm_own_class *class,
                                           uint64_t handle)
{
    const struct ssm_pool *pool = ring->pool;
    if (!ssm_class_has_block(class, (uint32_t)handle) || pool->claims[(uint32_t)handle].references != 0)
        return false;
    const struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
    return ssm_block_pair_is(block, ring->mark) &&
           ssm_load_relaxed_u32(&block->generation) == handle >> 32; /* read behind the set */
}

/* Steps 1 to 3 of get, up to the first slot that needs the slow path; returns how many. Needs the consumer's right. */
static inline uint32_t ssm_ring_fast_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count)
{
    struct ssm_pool *pool = ring->pool;
    struct ssm_side *consumer = &ring->shared->consumer;
    const struct ssm_own_class *class = &pool->classes[ring->class_idx];
    const struct ssm_u64 *const slots = ring->shared->slots;
    const uint64_t start = ssm_load_relaxed_u64(&consumer->index), mask = ring->mask;
    uint64_t tail = start, head = start;
    for (; tail - start < count; tail++) {
        if (tail == head && ((head = ssm_ring_head_beyond(ring, tail)) == tail || head == UINT64_MAX))
            break;
        const uint64_t handle = ssm_load_relaxed_u64(&slots[tail & mask]) ^ SSM_SLOT_COMMON;
        if (head - tail > SSM_RING_FAST_AHEAD)
            ssm_block_prefetch(pool, (uint32_t)ssm_slot_handle(&slots[(tail + SSM_RING_FAST_AHEAD) & mask]));
        if (!ssm_ring_slot_is_common(ring, class, handle))
            break;
        if (SSM_HAS_BUG(TAIL_EARLY))
            ssm_store_release_u64(&consumer->index, tail + 1);
        ssm_block_pass(ssm_block_at(pool, (uint32_t)handle), ring->mark, pool->mark);
        ssm_claim_set_sole(pool, class, handle);
        handles_out[tail - start] = handle;
    }
    if (tail == start)
        return 0;
    const uint32_t got = (uint32_t)(tail - start);
    SSM_ASSERT(got <= count);
    ssm_store_relaxed_u64(&consumer->count, ssm_load_relaxed_u64(&consumer->count) + got);
    ssm_store_release_u64(&consumer->index, tail); /* R2 -> A2 in look_for_room(): the slots were read before */
    ssm_usage_add(pool, class->block_size * got);
    return got;
}

#endif
