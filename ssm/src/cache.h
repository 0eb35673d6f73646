/* SPDX-License-Identifier: Apache-2.0
 *
 * The private cache: per process and class, a stack of free blocks in front of the shards (magazines after Bonwick
 * and Adams, 2001). Its blocks carry the process's bit, so a crash returns them like any other block.
 *
 * It is in shared memory, and others may take blocks out of it when nothing else is left, so that blocks in the
 * caches of idle processes never make an allocation fail. The lock is biased: its process pays two plain stores.
 *   owner: busy = 1; fence C1; thief == 0? go on : step back.                    ... busy = 0
 *   thief: takes `thief` (a robust lock); fence C2; waits until busy == 0.       ... thief = 0
 * C1 is a compiler fence: C2 runs a full fence on the owner's processor (membarrier), after which either the owner
 * sees the thief or the thief sees busy. A process that cannot take part fences itself (`fenced`). An owner that
 * finds a thief goes to the shards directly: it waits for nobody.
 *
 * An entry counts only while its block carries the owner's bit and the entry's generation. A block's generation
 * changes whenever it leaves a shard's list and whenever it is handed out, so an entry that lost its block stays void
 * for ever, and pop passes over it. Hence nothing needs repair:
 *   owner dies   the bits are the truth; the reaper takes `thief` before it clears them, so no thief is at work then
 *   thief dies   before the swap of the holder set the entry counts, after it the entry is void; the block is the
 *                thief's and is reaped with him; his name in `thief` keeps the owner out until it is scrubbed
 * A slot is not given up before its owner or reaper has `thief` of each of its caches.
 */
#ifndef SSM_CACHE_H
#define SSM_CACHE_H

#include "block.h"
#include "lock.h"

/* A thief is there, or his name: steps back. Always false: this time the shards will do. */
bool ssm_cache_enter_slowly(struct ssm_pool *pool, struct ssm_cache *cache);

static inline bool ssm_cache_enter(struct ssm_pool *pool, struct ssm_cache *cache)
{
    ssm_store_relaxed_u32(&cache->busy, 1);
    if (pool->fenced)
        ssm_fence_seqcst(); /* C1 -> C2 */
    else
        ssm_fence_compiler(); /* C1 -> C2 */
    if (ssm_load_acquire_u64(&cache->thief.word) == 0)
        return true;
    return ssm_cache_enter_slowly(pool, cache);
}

static inline void ssm_cache_leave(struct ssm_cache *cache)
{
    ssm_store_release_u32(&cache->busy, 0); /* C3 -> C4 in steal_from(): the entries are written before */
}

/* With the cache in hand: the block of an entry that counts, or SSM_NIL. */
static inline uint32_t ssm_cache_block(const struct ssm_pool *pool, uint32_t class_idx, uint32_t slot, uint64_t handle)
{
    uint32_t block_idx = (uint32_t)handle;
    if (!ssm_block_is_of_class(pool, block_idx, class_idx))
        return SSM_NIL;
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    /* The bit first: when it was set anew, the generation had changed before (G3). */
    if (!ssm_block_has(block, slot) || ssm_load_relaxed_u32(&block->generation) != handle >> 32)
        return SSM_NIL;
    return block_idx;
}

/* With the cache entered: takes a block off the stack, or SSM_NIL. */
static inline uint32_t ssm_cache_pop(struct ssm_pool *pool, uint32_t class_idx, struct ssm_cache *cache)
{
    uint32_t count = ssm_load_relaxed_u32(&cache->count), block_idx = SSM_NIL;
    if (count > pool->geometry.cache_slots)
        count = 0; /* scribbled: what was in it comes back when this process closes or dies */
    while (block_idx == SSM_NIL && count > 0)
        block_idx = ssm_cache_block(pool, class_idx, pool->self, ssm_load_relaxed_u64(&cache->handles[--count]));
    ssm_store_relaxed_u32(&cache->count, count);
    return block_idx;
}

/* False: it holds `limit` blocks already. */
static inline bool ssm_cache_push(struct ssm_cache *cache, uint64_t handle, uint32_t limit)
{
    uint32_t count = ssm_load_relaxed_u32(&cache->count);
    if (count >= limit)
        return false;
    ssm_store_relaxed_u64(&cache->handles[count], handle);
    ssm_store_release_u32(&cache->count, count + 1);
    return true;
}

/* Empties the cache down to `keep` blocks, each to its home shard; those whose shard is locked just now stay. */
void ssm_cache_flush(struct ssm_pool *pool, uint32_t class_idx, uint32_t keep);

/* Takes up to `count` blocks out of other processes' caches; how many. They carry this process's bit then. */
uint32_t ssm_cache_steal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out);

/* Scrubs a dead thief's name. 1: did so. */
int ssm_cache_recover(struct ssm_pool *pool, uint32_t slot, uint32_t class_idx);

/* Keeps every thief out of the caches of a slot, until ssm_cache_unseal(). -ETIMEDOUT: one is at work and does not
 * come to an end (it is stopped); then none is sealed. */
int  ssm_cache_seal(struct ssm_pool *pool, uint32_t slot);
void ssm_cache_unseal(struct ssm_pool *pool, uint32_t slot);
/* Of sealed caches whose owner's bits were cleared: all entries are void. */
void ssm_cache_forget(struct ssm_pool *pool, uint32_t slot);

/* Forgets what a former owner of this process's slot left in its caches. */
void ssm_cache_reset(struct ssm_pool *pool);

#endif
