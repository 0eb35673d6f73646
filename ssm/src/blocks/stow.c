/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting free blocks away; see stow.h. */
#include "stow.h"

/* Puts blocks into the cache, up to `limit` in all; returns how many. */
static uint32_t keep_in_cache(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count,
                              uint32_t limit)
{
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    if (!ssm_cache_enter(pool, class_idx))
        return 0;
    SSM_ASSERT(limit <= pool->geometry.cache_slots);
    uint32_t kept = ssm_cache_push(cache, handles, count, limit);
    SSM_EXPENSIVE(ssm_cache_is_valid(pool, &pool->classes[class_idx], cache));
    ssm_cache_leave(cache);
    return kept;
}

/* Gives a block to its home, or if that stays locked, to any other shard: the sole holder of a block may choose its
 * home. If all shards are locked, parks it in the cache, which has spare slots. If these are full, lets it go: a
 * process that finds no other free block lists it. A block of the arena is let go at once, so that its memory is
 * free. */
static void give_home(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_u32 *home = &ssm_block_at(pool, block_idx)->home;
    for (uint32_t i = 0; i < pool->geometry.shards; i++) {
        if (ssm_shard_give(pool, class_idx, &block_idx, 1, 0) == 0)
            return;
        ssm_store_release_u32(home, (ssm_load_relaxed_u32(home) + 1) % pool->geometry.shards); /* G1, H1 */
    }
    const uint64_t handle = ssm_handle_now(pool, block_idx);
    if (!ssm_class_is_arena(pool, class_idx) &&
        keep_in_cache(pool, class_idx, &handle, 1, pool->geometry.cache_slots) != 0) {
        ssm_class_signal(pool, class_idx, 1); /* a waiter takes it from there */
        return;
    }
    ssm_block_let_go(pool, block_idx, pool->self);
}

void ssm_stow_blocks(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    for (uint32_t i = 0; i < count; i++)
        SSM_ASSERT_SHARED(pool->claims[(uint32_t)handles[i]].references == 0);
    uint32_t kept = keep_in_cache(pool, class_idx, handles, count, limit), *rest = pool->scratch;
    if (kept < count && count - kept <= limit / 2) { /* the shard gets batches, not single blocks */
        ssm_cache_flush(pool, class_idx, limit / 2);
        kept += keep_in_cache(pool, class_idx, handles + kept, count - kept, limit);
    }
    for (uint32_t i = kept; i < count; i++)
        rest[i - kept] = (uint32_t)handles[i];
    uint32_t stuck = ssm_shard_give(pool, class_idx, rest, count - kept, 0);
    SSM_ASSERT(kept <= count && stuck <= count - kept);
    for (uint32_t i = 0; i < stuck; i++)
        give_home(pool, class_idx, rest[i]);
}
