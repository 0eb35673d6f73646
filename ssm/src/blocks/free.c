/* SPDX-License-Identifier: Apache-2.0
 *
 * Freeing; see free.h. A block that other processes hold too is let go of. A block that this process alone holds is
 * stowed (stow.h). */
#include "free.h"

#include "arena.h"
#include "redelivery.h"
#include "stow.h"

void ssm_block_release(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    SSM_ASSERT(claim->references == 0 && claim->pins == 0);
    if (claim->flags & SSM_CLAIM_DELIVERED)
        ssm_delivery_end_all(pool, block_idx); /* before this process's bit goes */
    claim->flags &= (uint8_t)~SSM_CLAIM_REDELIVERED;
    if (claim->flags & SSM_CLAIM_HEAD)
        ssm_chain_release(pool, block_idx);
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    const uint64_t bytes = ssm_memory_held(pool, class_idx, block_idx).bytes;
    ssm_usage_subtract(pool, bytes);
    if (ssm_class_is_arena(pool, class_idx))
        pool->arena_freed_bytes += bytes;
    if (ssm_block_is_mine(pool, block)) {
        const uint64_t handle = ssm_handle_now(pool, block_idx);
        ssm_stow_blocks(pool, class_idx, &handle, 1, ssm_stow_limit(pool, class_idx));
        return;
    }
    ssm_block_let_go(pool, block_idx, pool->self);
}

void ssm_reference_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    SSM_ASSERT(ssm_claim_is_movable(claim));
    if (claim->flags & SSM_CLAIM_DELIVERED)
        ssm_delivery_drop(pool, block_idx, delivery, done);
    if (--claim->references == 0)
        ssm_block_release(pool, claim->class_idx, block_idx);
}

/* A damaged link ends the walk. It visits no segment twice. */
SSM_COLD void ssm_chain_release(struct ssm_pool *pool, uint32_t head_idx)
{
    uint32_t next = ssm_chain_next(pool, head_idx);
    SSM_ASSERT(pool->claims[head_idx].flags & SSM_CLAIM_HEAD);
    pool->claims[head_idx].flags &= (uint8_t)~SSM_CLAIM_HEAD;
    ssm_store_relaxed_u64(&ssm_block_at(pool, head_idx)->next, SSM_NO_NEXT);
    for (uint32_t at = next; at != SSM_NIL; at = next) {
        struct ssm_claim *claim = &pool->claims[at];
        SSM_ASSERT(claim->references > claim->pins && claim->flags & SSM_CLAIM_SEGMENT);
        next = ssm_chain_next(pool, at);
        claim->flags &= (uint8_t)~SSM_CLAIM_SEGMENT;
        ssm_store_relaxed_u64(&ssm_block_at(pool, at)->next, SSM_NO_NEXT);
        if (--claim->references == 0)
            ssm_block_release(pool, claim->class_idx, at);
    }
}

/* The common case: a packet that this process alone holds, by one reference, goes into the cache. False: use the slow
 * path. */
static inline bool free_fast(struct ssm_pool *pool, uint64_t handle, bool fenced)
{
    const struct ssm_own_class *class = ssm_claim_sole_class(pool, handle);
    if (class == NULL || ssm_class_is_awaited(class))
        return false;
    struct ssm_cache *const cache = class->cache;
    if (!ssm_cache_try_enter(cache, fenced))
        return false;
    uint32_t kept = ssm_cache_push(cache, &handle, 1, class->cache_blocks);
    ssm_cache_leave(cache);
    if (kept == 0)
        return false;
    pool->claims[(uint32_t)handle].references = 0;
    ssm_usage_subtract(pool, class->block_size);
    return true;
}

static int free_one(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, bool done)
{
    uint32_t block_idx = ssm_claim_find_movable(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    ssm_reference_drop(pool, block_idx, delivery, done);
    return 0;
}

static SSM_COLD int free_guarded(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, bool done)
{
    SSM_POOL_ENTER(pool);
    if (free_fast(pool, handle, pool->no_membarrier))
        return 0;
    const int result = free_one(pool, handle, delivery, done);
    ssm_arena_trim_in_turn(pool);
    return result;
}

int ssm_free(struct ssm_pool *pool, uint64_t handle)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool) && free_fast(pool, handle, false)))
        return 0;
    return free_guarded(pool, handle, SSM_ANY_DELIVERY, true);
}

int ssm_free_of(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, int done)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool) && free_fast(pool, handle, false))) /* it takes no delivery */
        return 0;
    return free_guarded(pool, handle, delivery, done);
}

/* Takes back one reference for each handle, so a handle that is listed twice counts twice. -SSM_E_STALE: nothing
 * changed. */
static int take_references(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t block_idx = ssm_claim_find_movable(pool, handles[i]);
        if (block_idx == SSM_NIL) {
            while (i-- > 0)
                pool->claims[(uint32_t)handles[i]].references++;
            return -SSM_E_STALE;
        }
        pool->claims[block_idx].references--;
    }
    return 0;
}

/* Releases packets whose references were taken back. */
static void release_all(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint64_t delivery, bool done)
{
    for (uint32_t i = 0; i < count; i++)
        if (pool->claims[(uint32_t)handles[i]].flags & SSM_CLAIM_DELIVERED)
            ssm_delivery_drop(pool, (uint32_t)handles[i], delivery, done);
    for (uint32_t i = 0; i < count; i++) /* first, since the first release may take segments along */
        if (pool->claims[(uint32_t)handles[i]].references == 0)
            pool->claims[(uint32_t)handles[i]].flags |= SSM_CLAIM_MARKED;
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_claim *claim = &pool->claims[(uint32_t)handles[i]];
        if (!(claim->flags & SSM_CLAIM_MARKED))
            continue;
        claim->flags &= (uint8_t)~SSM_CLAIM_MARKED; /* it may be listed again */
        ssm_block_release(pool, claim->class_idx, (uint32_t)handles[i]);
    }
}

/* The common case of several: distinct packets of one class that this process alone holds, each by one reference, go
 * into the cache. False: nothing has changed. (What is written above the cache's count is nobody's yet.) */
static inline bool free_many_fast(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    const struct ssm_own_class *class = count > 0 ? ssm_claim_sole_class(pool, handles[0]) : NULL;
    if (class == NULL || ssm_class_is_awaited(class))
        return false;
    struct ssm_cache *const cache = class->cache;
    if (!ssm_cache_try_enter(cache, pool->no_membarrier))
        return false;
    const uint64_t sole = ssm_claim_word_sole(class->class_idx);
    const uint32_t top = ssm_load_relaxed_u32(&cache->count), total = pool->geometry.block_total;
    struct ssm_claim *const claims = pool->claims;
    struct ssm_u64 *const entries = &cache->handles[top];
    uint64_t i = 0;
    if (top < class->cache_blocks && count <= class->cache_blocks - top)
        for (; i < count && (uint32_t)handles[i] < total; i++) {
            const uint64_t handle = handles[i];
            struct ssm_claim *const claim = &claims[(uint32_t)handle];
            if (claim->handle != handle || ssm_claim_word(claim) != sole)
                break;
            claim->references = 0; /* a second one is not sole */
            ssm_store_relaxed_u64(&entries[i], handle);
        }
    if (i < count) {
        ssm_claims_restore_sole(pool, handles, (uint32_t)i);
    } else {
        ssm_store_release_u32(&cache->count, top + count);
        ssm_usage_subtract(pool, class->block_size * count);
        SSM_EXPENSIVE(ssm_cache_is_valid(pool, class, cache));
    }
    ssm_cache_leave(cache);
    return i == count;
}

/* Distinct packets that this process alone holds, each by one reference. Runs of one class go together. */
static bool free_sole(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    if (!ssm_claims_take_sole(pool, handles, count))
        return false;
    for (uint32_t i = 0, run; i < count; i += run) {
        const uint32_t class_idx = pool->claims[(uint32_t)handles[i]].class_idx;
        const struct ssm_own_class *class = &pool->classes[class_idx];
        for (run = 1; i + run < count && ssm_class_has_block(class, (uint32_t)handles[i + run]); run++) {}
        ssm_usage_subtract(pool, class->block_size * run);
        ssm_stow_blocks(pool, class_idx, handles + i, run, ssm_stow_limit(pool, class_idx));
    }
    return true;
}

int ssm_free_many_of(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint64_t delivery, int done)
{
    SSM_POOL_ENTER(pool);
    if (count == 1 ? free_fast(pool, handles[0], pool->no_membarrier)
                   : free_many_fast(pool, handles, count) || free_sole(pool, handles, count))
        return 0;
    int result = take_references(pool, handles, count);
    if (result == 0)
        release_all(pool, handles, count, delivery, done);
    ssm_arena_trim_in_turn(pool);
    return result;
}

int ssm_free_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    return ssm_free_many_of(pool, handles, count, SSM_ANY_DELIVERY, true);
}

int ssm_delivery_done(struct ssm_pool *pool, uint64_t handle, uint64_t delivery)
{
    SSM_POOL_ENTER(pool);
    uint32_t block_idx = ssm_claim_find(pool, handle);
    int result = block_idx == SSM_NIL ? -SSM_E_STALE : 0;
    if (result == 0)
        ssm_delivery_drop(pool, block_idx, delivery, true);
    return result;
}
