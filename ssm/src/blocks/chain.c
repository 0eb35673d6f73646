/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains; see chain.h. */
#include "chain.h"

#include "free.h"
#include "seed_bug.h"
#include "shard.h"

#include <errno.h>

/* ---- in rings ------------------------------------------------------------------------------------------ */

uint32_t ssm_chain_collect(const struct ssm_pool *pool, uint32_t ring_id, uint64_t head, uint64_t *handles_out,
                           bool *whole_out)
{
    uint32_t count = 0;
    uint64_t handle = head;
    for (; count < SSM_CHAIN_MAX && ssm_block_is_queued(pool, ring_id, handle); count++) {
        handles_out[count] = handle;
        handle = ssm_load_relaxed_u64(&ssm_block_at(pool, (uint32_t)handle)->next);
    }
    *whole_out = handle == SSM_NO_NEXT;
    return count;
}

/* Checks each one again: a damaged link may have led to a block twice, and by now it may be another packet. */
void ssm_chain_drop(struct ssm_pool *pool, uint32_t ring_id, const uint64_t *handles, uint32_t count)
{
    SSM_ASSERT(count <= SSM_CHAIN_MAX);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t handle = handles[SSM_HAS_BUG(DROP_HEAD_FIRST) ? i : count - 1 - i];
        if (ssm_block_is_queued(pool, ring_id, handle))
            ssm_block_let_go(pool, (uint32_t)handle, ring_id);
    }
}

/* ---- in a process -------------------------------------------------------------------------------------- */

static int check_head(const struct ssm_pool *pool, uint64_t head)
{
    uint32_t head_idx = ssm_claim_find(pool, head);
    if (head_idx == SSM_NIL)
        return -SSM_E_STALE;
    uint8_t flags = pool->claims[head_idx].flags;
    if (flags & SSM_CLAIM_SEGMENT)
        return -SSM_E_SEGMENT;
    if (flags & SSM_CLAIM_DELIVERED)
        return -SSM_E_CHAIN; /* its ring would get the head back without the chain */
    return ssm_block_is_mine(pool, ssm_block_at(pool, head_idx)) ? 0 : -SSM_E_SHARED;
}

static int check_segment(const struct ssm_pool *pool, uint64_t handle)
{
    if (SSM_LIKELY(ssm_claim_sole_class(pool, handle) != NULL))
        return 0;
    uint32_t block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    const struct ssm_claim *claim = &pool->claims[block_idx];
    if (claim->flags & (SSM_CLAIM_MARKED | SSM_CLAIM_SEGMENT))
        return -SSM_E_SEGMENT;
    if (claim->flags & (SSM_CLAIM_HEAD | SSM_CLAIM_DELIVERED))
        return -SSM_E_CHAIN;
    if (claim->pins != 0)
        return -SSM_E_PINNED;
    /* The fast paths do not know packets of the arena. */
    return claim->references == 1 && ssm_block_is_mine(pool, ssm_block_at(pool, block_idx)) ? 0 : -SSM_E_SHARED;
}

/* Checks that each packet can be linked, and is listed once. */
static int check_all(struct ssm_pool *pool, uint64_t head, const uint64_t *segments, uint32_t count)
{
    uint32_t marked = 0;
    int result = check_head(pool, head);
    if (result != 0)
        return result;
    pool->claims[(uint32_t)head].flags |= SSM_CLAIM_MARKED;
    while (marked < count && (result = check_segment(pool, segments[marked])) == 0)
        pool->claims[(uint32_t)segments[marked++]].flags |= SSM_CLAIM_MARKED;
    while (marked > 0)
        pool->claims[(uint32_t)segments[--marked]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    pool->claims[(uint32_t)head].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    return result;
}

static void link_all(struct ssm_pool *pool, uint64_t head, const uint64_t *segments, uint32_t count)
{
    uint64_t last = head;
    pool->claims[(uint32_t)head].flags |= SSM_CLAIM_HEAD;
    for (uint32_t i = 0; i < count; i++) {
        SSM_ASSERT(pool->claims[(uint32_t)segments[i]].references == 1);
        ssm_store_relaxed_u64(&ssm_block_at(pool, (uint32_t)last)->next, segments[i]);
        pool->claims[(uint32_t)segments[i]].flags |= SSM_CLAIM_SEGMENT;
        last = segments[i];
    }
    ssm_store_relaxed_u64(&ssm_block_at(pool, (uint32_t)last)->next, SSM_NO_NEXT);
}

static int link_attempt(struct ssm_pool *pool, uint64_t head, const uint64_t *segments, uint32_t count)
{
    SSM_POOL_ENTER(pool);
    int result = check_all(pool, head, segments, count);
    if (result == 0 && pool->claims[(uint32_t)head].flags & SSM_CLAIM_HEAD)
        ssm_chain_release(pool, (uint32_t)head);
    if (result == 0 && count > 0)
        link_all(pool, head, segments, count);
    return result;
}

int ssm_packet_link(struct ssm_pool *pool, uint64_t head, const uint64_t *segments, uint32_t count)
{
    if (count >= SSM_CHAIN_MAX)
        return -EINVAL;
    int result = link_attempt(pool, head, segments, count);
    if (result == -SSM_E_SHARED && pool->on_stall(pool)) /* the other holder may have died */
        result = link_attempt(pool, head, segments, count);
    return result;
}

int ssm_packet_next(struct ssm_pool *pool, uint64_t handle, uint64_t *next_out)
{
    SSM_POOL_ENTER(pool);
    int result = 0;
    uint32_t next = SSM_NIL, block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        result = -SSM_E_STALE;
    else if (pool->claims[block_idx].flags & SSM_CLAIM_OF_CHAIN)
        next = ssm_chain_next(pool, block_idx);
    if (next != SSM_NIL) {
        *next_out = ssm_handle_now(pool, next);
        result = 1;
    }
    return result;
}
