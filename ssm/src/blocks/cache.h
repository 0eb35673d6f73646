/* SPDX-License-Identifier: Apache-2.0
 *
 * The private cache: per process and class, a stack of free blocks in front of the shards (magazines after Bonwick
 * and Adams, 2001). Its blocks carry the process's bit, so a crash returns them like any other block.
 *
 * It is in shared memory, and other processes may take blocks out of it when no other block is free. So blocks in the
 * caches of idle processes never make an allocation fail. The lock is biased: the owner pays two plain stores.
 *   owner: busy = 1; fence C1; thief == 0? go on : step back.                    ... busy = 0
 *   thief: takes `thief` (a robust lock); fence C2; waits until busy == 0.       ... thief = 0
 * C1 is a compiler fence (or a full one, `no_membarrier`): C2 runs a full fence on the owner's processor (membarrier),
 * after which either the owner sees the thief or the thief sees busy. A process that cannot take part fences itself
 * (`no_membarrier`). An owner that finds a thief goes to the shards directly, and never waits.
 *
 * An entry counts while its block carries the owner's bit and the entry's generation. A block's generation changes
 * whenever it leaves a shard's list and whenever it is handed out. So an entry that lost its block is void for ever.
 * The owner does not look whether its entries count: all of them do (I6) whenever it is inside. It only checks that an
 * entry is a block of the class, and one that it has no claim to.
 *
 * thief, and what a death after each step leaves:
 *   1  `thief` = me                                          nothing: the repair of the lock finds stealing == 0
 *   2  fence C2; waits until busy == 0 (C4)                  the same
 *   3  stealing = 1                                          nothing to take off: the repair says stealing = 0
 *   4  each block: swap of the holder set, home              a void entry on top: the repair takes it off. The block is
 *                                                            the thief's, and is reaped with it
 *   5  count - 1                                             the same, without the entry
 *   6  stealing = 0; `thief` = 0                             nothing
 * From step 3 on the owner is out and stays out until `thief` is 0: so the repair may take entries off at once, and
 * waits for nobody. With stealing == 0 it leaves the entries alone, since the owner may be inside. It may die, too: its
 * own name is in `thief` then, and `stealing` is 1 until the entries are off.
 * The owner dies: the bits are the truth; the reaper takes `thief` before it clears them, so no thief is active then,
 * and empties the cache before the slot is free. So a new owner finds it empty.
 * A slot is not given up before its owner or reaper has `thief` of each of its caches.
 */
#ifndef SSM_CACHE_H
#define SSM_CACHE_H

#include "claim.h"
#include "lock.h"

/* Returns false, not entered, if a thief holds the cache or died holding it. */
static inline bool ssm_cache_try_enter(struct ssm_cache *cache, bool no_membarrier)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u32(&cache->busy) == 0); /* its owner is not in it already */
    ssm_store_relaxed_u32(&cache->busy, 1);
    ssm_fence_light(no_membarrier); /* C1 -> C2 in wait_for_owner(): busy is visible before thief is looked at */
    if (SSM_LIKELY(ssm_load_acquire_u64(&cache->thief.word) == 0))
        return true;
    ssm_store_release_u32(&cache->busy, 0);
    return false;
}

/* Scrubs the name of a dead thief. Always returns false: this time the caller uses the shards. */
SSM_COLD bool ssm_cache_enter_later(struct ssm_pool *pool, uint32_t class_idx);

/* Enters this process's cache of a class. */
static inline bool ssm_cache_enter(struct ssm_pool *pool, uint32_t class_idx)
{
    return ssm_cache_try_enter(pool->classes[class_idx].cache, pool->no_membarrier) ||
           ssm_cache_enter_later(pool, class_idx);
}

static inline void ssm_cache_leave(struct ssm_cache *cache)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u32(&cache->busy) == 1);
    ssm_store_release_u32(&cache->busy, 0); /* C3 -> C4 in wait_for_owner(): the entries are written before */
}

/* Does the entry count (I6)? Then also returns its block. The caller has locked the owner out, or only looks; `mark` is
 * the owner's. */
static inline bool ssm_cache_entry_counts(const struct ssm_pool *pool, const struct ssm_own_class *class,
                                          struct ssm_mark mark, uint64_t handle, struct ssm_block **block_out)
{
    if (!ssm_class_has_block(class, (uint32_t)handle) ||
        (class->block_size == SSM_NO_BLOCK_SIZE && !ssm_block_exists(pool, (uint32_t)handle)))
        return false;
    struct ssm_block *block = *block_out = ssm_block_at(pool, (uint32_t)handle);
    /* G4: the bit, then the generation, which had changed when the bit was set anew; pairs with G3 in claim_locked() */
    return ssm_load_acquire_u64(&block->holders[mark.word]) & mark.bit &&
           ssm_load_relaxed_u32(&block->generation) == handle >> 32;
}

static inline uint32_t ssm_cache_count(const struct ssm_pool *pool, const struct ssm_cache *cache)
{
    uint32_t count = ssm_load_relaxed_u32(&cache->count);
    return count <= pool->geometry.cache_slots ? count : 0; /* damaged: its blocks come back when this process ends */
}

/* May the owner take that entry? If not, it was overwritten. */
static inline bool ssm_cache_entry_is_sound(const struct ssm_pool *pool, const struct ssm_own_class *class,
                                            uint64_t handle)
{
    return ssm_class_has_block(class, (uint32_t)handle) && pool->claims[(uint32_t)handle].references == 0;
}

#if SSM_ASSERTS
/* I6 and more, of the own cache, entered: no more entries than slots; each counts, is there once, on no list, and this
 * process has no claim to its block. */
bool ssm_cache_is_valid(const struct ssm_pool *pool, const struct ssm_own_class *class, const struct ssm_cache *cache);
#endif

/* Pops up to `wanted` entries, the top one first; returns how many. The caller has entered the cache. The count is
 * written once, at the end: a process that dies before still has the blocks. The arena's class has an empty cache. */
static inline uint32_t ssm_cache_pop(struct ssm_pool *pool, const struct ssm_own_class *class, struct ssm_cache *cache,
                                     uint32_t wanted, uint64_t *handles_out)
{
    uint32_t count = class->block_size == SSM_NO_BLOCK_SIZE ? 0 : ssm_cache_count(pool, cache), taken = 0;
    SSM_EXPENSIVE(ssm_cache_is_valid(pool, class, cache));
    while (taken < wanted && count > 0) {
        uint64_t handle = ssm_load_relaxed_u64(&cache->handles[--count]);
        if (SSM_LIKELY(ssm_cache_entry_is_sound(pool, class, handle)))
            handles_out[taken++] = handle;
    }
    ssm_store_relaxed_u32(&cache->count, count);
    SSM_EXPENSIVE(ssm_cache_is_valid(pool, class, cache));
    return taken;
}

/* Pops one entry. False if there is none, or if the top entry is not sound. */
static inline bool ssm_cache_pop_one(struct ssm_pool *pool, const struct ssm_own_class *class, struct ssm_cache *cache,
                                     uint64_t *handle_out)
{
    uint32_t top = ssm_load_relaxed_u32(&cache->count) - 1; /* wraps at 0 */
    if (top >= pool->geometry.cache_slots)
        return false;
    *handle_out = ssm_load_relaxed_u64(&cache->handles[top]);
    if (!ssm_cache_entry_is_sound(pool, class, *handle_out))
        return false;
    ssm_store_relaxed_u32(&cache->count, top);
    return true;
}

/* Pushes as many handles as fit below `limit`; returns how many. The caller has entered the cache. */
static inline uint32_t ssm_cache_push(struct ssm_cache *cache, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    uint32_t top = ssm_load_relaxed_u32(&cache->count), kept = 0;
    while (kept < count && top < limit)
        ssm_store_relaxed_u64(&cache->handles[top++], handles[kept++]);
    ssm_store_release_u32(&cache->count, top);
    return kept;
}

/* Empties the cache down to `keep` blocks, each to its home shard. Blocks whose shard stays locked remain in the
 * cache. */
void ssm_cache_flush(struct ssm_pool *pool, uint32_t class_idx, uint32_t keep);

/* Takes up to `count` blocks out of other processes' caches, and sets this process's bit on them; returns how many. */
uint32_t ssm_cache_steal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out);

/* Scrubs the name of a dead thief. 1 if there was one. */
int ssm_cache_recover(struct ssm_pool *pool, uint32_t slot, uint32_t class_idx);

/* Keeps every thief out of the caches of a slot, until ssm_cache_unseal(). -ETIMEDOUT if a thief in one of them does
 * not leave (it is stopped); then none is sealed. */
int ssm_cache_seal(struct ssm_pool *pool, uint32_t slot);
void ssm_cache_unseal(struct ssm_pool *pool, uint32_t slot);
/* Empties sealed caches whose owner's bits were cleared. */
void ssm_cache_forget(struct ssm_pool *pool, uint32_t slot);

/* Counts the valid entries of a slot's cache, which may change meanwhile: free blocks that carry the slot's bit. */
uint32_t ssm_cache_held(const struct ssm_pool *pool, uint32_t slot, uint32_t class_idx);

/* Empties this process's caches of what a former owner of its slot left. */
void ssm_cache_reset(struct ssm_pool *pool);

#endif
