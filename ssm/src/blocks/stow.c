/* SPDX-License-Identifier: Apache-2.0
 *
 * Putting free blocks away; see stow.h. */
#include "stow.h"

/* How many of them the cache takes, up to `limit` in all. */
static uint32_t keep_in_cache(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    if (!ssm_cache_enter(pool, cache))
        return 0;
    SSM_ASSERT(limit <= pool->geometry.cache_slots);
    uint32_t kept = ssm_cache_push(cache, handles, count, limit);
    SSM_EXPENSIVE(ssm_cache_is_valid(pool, &pool->classes[class_idx], cache));
    ssm_cache_leave(cache);
    return kept;
}

/* Home, or where the home's lock stays taken, any other shard's list: who has a block alone chooses its home. With
 * all of them locked it is parked in the cache, whose slots reach beyond its size; and when these are full, let go of:
 * then whoever finds nothing else free lists it. One of the arena is let go of at once, so that its memory is free. */
static void give_home(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_u32 *home = &ssm_block_at(pool, block_idx)->home;
    for (uint32_t i = 0; i < pool->geometry.shards; i++) {
        if (ssm_shard_give(pool, class_idx, &block_idx, 1, 0) == 0)
            return;
        ssm_store_release_u32(home, (ssm_load_relaxed_u32(home) + 1) % pool->geometry.shards); /* G1, H1 */
    }
    const uint64_t handle = ssm_handle_now(pool, block_idx);
    if (!ssm_class_is_arena(pool, class_idx) && keep_in_cache(pool, class_idx, &handle, 1, pool->geometry.cache_slots) != 0) {
        ssm_class_signal(pool, class_idx, 1); /* whoever waits takes it from there */
        return;
    }
    ssm_block_let_go(pool, block_idx, pool->self);
}

void ssm_stow_blocks(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    for (uint32_t i = 0; i < count; i++)
        SSM_ASSERT_SHARED(pool->claims[(uint32_t)handles[i]].references == 0);
    uint32_t kept = keep_in_cache(pool, class_idx, handles, count, limit), *rest = pool->scratch;
    if (kept < count && count - kept <= limit / 2) { /* not one by one: the shard's lock is for batches */
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
