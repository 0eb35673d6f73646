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

/* How far the consumer may read; UINT64_MAX if the indices contradict each other. Uses the head as last seen if that
 * makes `wanted` packets, one at least. */
static inline uint64_t ssm_ring_head_beyond(struct ssm_ring *ring, uint64_t tail, uint64_t wanted)
{
    struct ssm_u64 *peer = &ring->shared->consumer.peer;
    uint64_t head = ssm_load_relaxed_u64(peer);
    if (head - tail >= wanted && head - tail <= ring->capacity)
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

/* Steps 2 to 6 of put. Needs the producer's right, room for all, and ssm_claims_take_sole() of them. What the packets
 * have in common is read once: after a store to shared memory the compiler would read it again. */
static inline void ssm_ring_fast_put(struct ssm_ring *ring, const uint64_t *handles, uint32_t count)
{
    struct ssm_ring_shared *const shared = ring->shared;
    struct ssm_side *const producer = &shared->producer;
    const uint64_t head = ssm_load_relaxed_u64(&producer->index), mask = ring->mask;
    SSM_ASSERT(count > 0 && count <= ring->capacity);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&producer->put_intent) == 0);
    if (SSM_HAS_BUG(INTENT_EARLY))
        ssm_store_release_u64(&producer->put_intent, head + count);
    for (uint64_t i = 0; i < count; i++)
        ssm_store_relaxed_u64(&shared->slots[(head + i) & mask], handles[i] | SSM_SLOT_COMMON);
    if (!SSM_HAS_BUG(NO_INTENT))
        ssm_store_release_u64(&producer->put_intent, head + count);
    if (SSM_HAS_BUG(HEAD_EARLY))
        ssm_store_release_u64(&producer->index, head + count);
    struct ssm_pool *const pool = ring->pool;
    const struct ssm_mark from = pool->mark, to = ring->mark;
    const struct ssm_claim *const claims = pool->claims;
    const uint64_t block_bytes = pool->geometry.block_bytes;
    uint8_t *const blocks = pool->blocks;
    uint64_t bytes = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t block_idx = (uint32_t)handles[i];
        SSM_ASSERT(claims[block_idx].references == 0);
        ssm_block_pass((struct ssm_block *)(blocks + block_idx * block_bytes), from, to);
        bytes += pool->classes[claims[block_idx].class_idx].block_size;
    }
    ssm_store_release_u64(&producer->index, head + count); /* R1 -> A1 in ssm_ring_head_beyond() */
    ssm_store_release_u64(&producer->put_intent, 0);
    ssm_usage_subtract(pool, bytes);
}

/* Steps 1 to 3 of get, up to the first slot that needs the slow path; returns how many. Needs the consumer's right.
 *
 * A slot with a mark is of a packet that the ring alone holds (I19), and that this process therefore does not hold: the
 * descriptor need not be read. A process that takes this right over from a dead one has passed over the packets that
 * the dead one had taken (ssm_side_repair_consumer). Without the mark the rest is no index of the class. What comes from
 * shared memory is checked as far as this process could be harmed: the index, and its own claim. */
static inline uint32_t ssm_ring_fast_get(struct ssm_ring *ring, uint64_t *handles_out, uint32_t count)
{
    struct ssm_ring_shared *const shared = ring->shared;
    struct ssm_side *const consumer = &shared->consumer;
    const uint64_t start = ssm_load_relaxed_u64(&consumer->index), head = ssm_ring_head_beyond(ring, start, count);
    if (head == UINT64_MAX)
        return 0;
    struct ssm_pool *const pool = ring->pool;
    const struct ssm_own_class *const class = &pool->classes[ring->class_idx];
    const uint64_t most = head - start < count ? head - start : count, mask = ring->mask;
    const uint64_t block_bytes = pool->geometry.block_bytes, word = ssm_claim_word_sole(class->class_idx);
    const uint32_t first = class->first_block, block_count = class->block_count;
    const struct ssm_mark from = ring->mark, to = pool->mark;
    struct ssm_claim *const claims = pool->claims;
    uint8_t *const blocks = pool->blocks;
    uint64_t got = 0;
    for (; got < most; got++) {
        const uint64_t handle = ssm_load_relaxed_u64(&shared->slots[(start + got) & mask]) ^ SSM_SLOT_COMMON;
        if (most - got > SSM_RING_FAST_AHEAD)
            ssm_prefetch(blocks + block_bytes * (uint32_t)ssm_slot_handle(
                                                    &shared->slots[(start + got + SSM_RING_FAST_AHEAD) & mask]));
        if ((uint32_t)handle - first >= block_count || claims[(uint32_t)handle].references != 0)
            break;
        if (SSM_HAS_BUG(TAIL_EARLY))
            ssm_store_release_u64(&consumer->index, start + got + 1);
        ssm_block_pass((struct ssm_block *)(blocks + (uint32_t)handle * block_bytes), from, to);
        ssm_claim_write(&claims[(uint32_t)handle], handle, word);
        handles_out[got] = handle;
    }
    if (got == 0)
        return 0;
    ssm_store_relaxed_u64(&consumer->count, ssm_load_relaxed_u64(&consumer->count) + got);
    ssm_store_release_u64(&consumer->index, start + got); /* R2 -> A2 in look_for_room(): the slots were read before */
    ssm_usage_add(pool, class->block_size * got);
    return (uint32_t)got;
}

#endif
