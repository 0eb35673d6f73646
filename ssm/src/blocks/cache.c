/* SPDX-License-Identifier: Apache-2.0
 *
 * The private cache; see cache.h. */
#include "cache.h"

#include "seed_bug.h"
#include "shard.h"

#define OWNER_SPINS 2000
#define FLUSH_BATCH 64

struct whose { uint32_t slot, class_idx; }; /* a cache */

/* Takes off what a dead thief has taken. */
static int drop_stolen(struct ssm_pool *pool, void *context)
{
    const struct whose *whose = context;
    struct ssm_cache *cache = ssm_cache_at(pool, whose->slot, whose->class_idx);
    const struct ssm_own_class *class = &pool->classes[whose->class_idx];
    const struct ssm_mark mark = ssm_mark_of(whose->slot);
    struct ssm_block *block;
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &cache->thief));
    if (ssm_load_relaxed_u32(&cache->stealing) == 0 || SSM_HAS_BUG(KEEP_STOLEN))
        return 0; /* the owner may be inside */
    for (uint32_t count = ssm_cache_count(pool, cache); count > 0; count--) {
        if (ssm_cache_entry_counts(pool, class, mark, ssm_load_relaxed_u64(&cache->handles[count - 1]), &block))
            break;
        ssm_store_release_u32(&cache->count, count - 1);
    }
    ssm_store_release_u32(&cache->stealing, 0);
    return 0;
}

#if SSM_ASSERTS
bool ssm_cache_is_valid(const struct ssm_pool *pool, const struct ssm_own_class *class, const struct ssm_cache *cache)
{
    const uint32_t count = ssm_load_relaxed_u32(&cache->count);
    if (count > pool->geometry.cache_slots || ssm_load_relaxed_u32(&cache->busy) != 1)
        return false;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t handle = ssm_load_relaxed_u64(&cache->handles[i]);
        struct ssm_block *block;
        if (!ssm_cache_entry_counts(pool, class, pool->mark, handle, &block))
            return false;
        if (pool->claims[(uint32_t)handle].references != 0 || ssm_load_relaxed_u32(&block->listed) != 0)
            return false;
        for (uint32_t j = 0; j < i; j++)
            if (ssm_load_relaxed_u64(&cache->handles[j]) == handle)
                return false;
    }
    return true;
}
#endif

static int lock_out(struct ssm_pool *pool, uint32_t slot, uint32_t class_idx, uint64_t patience_ns)
{
    struct whose whose = {slot, class_idx};
    return ssm_lock_take(pool, &ssm_cache_at(pool, slot, class_idx)->thief, patience_ns, drop_stolen, &whose);
}

int ssm_cache_recover(struct ssm_pool *pool, uint32_t slot, uint32_t class_idx)
{
    struct ssm_cache *cache = ssm_cache_at(pool, slot, class_idx);
    if (!ssm_lock_owner_is_dead(pool, &cache->thief))
        return 0;
    if (lock_out(pool, slot, class_idx, 0) == 0)
        ssm_lock_release(&cache->thief);
    return 1;
}

bool ssm_cache_enter_later(struct ssm_pool *pool, uint32_t class_idx)
{
    (void)ssm_cache_recover(pool, pool->self, class_idx);
    return false;
}

/* Waits until the owner has left the cache; the thief's name keeps it out. False if the owner does not leave. */
static bool wait_for_owner(struct ssm_pool *pool, uint32_t slot, const struct ssm_cache *cache)
{
    uint64_t until_ns = 0;
    if (SSM_HAS_BUG(RUSHED_THIEF))
        return true;
    ssm_fence_seqcst(); /* C2: the thief's name is visible before busy is looked at; pairs with C1 */
    if (!ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->no_membarrier) && !ssm_membarrier()) /* C2 */
        return false;
    for (uint32_t i = 0; ssm_load_acquire_u32(&cache->busy) != 0; i++) { /* C4: pairs with C3 */
        if (i < OWNER_SPINS) {
            ssm_cpu_relax();
            continue;
        }
        uint64_t now_ns = ssm_now_ns();
        if (until_ns == 0)
            until_ns = now_ns + SSM_LOCK_PATIENCE_NS;
        if (now_ns >= until_ns) { /* the owner has no processor, or is stopped */
            ssm_lock_note_stayed(pool, now_ns);
            ssm_lock_note_evasion(pool);
            return false;
        }
        ssm_nap_ns(50000);
    }
    return true;
}

/* Takes entries while the owner is out. Leaves a block that others hold, too: a reaper is at work on it. */
static uint32_t take_entries(struct ssm_pool *pool, uint32_t class_idx, uint32_t slot, uint32_t wanted,
                             uint32_t *blocks_out)
{
    struct ssm_cache *cache = ssm_cache_at(pool, slot, class_idx);
    uint32_t count = ssm_cache_count(pool, cache), taken = 0;
    SSM_ASSERT(slot != pool->self);
    SSM_ASSERT_SHARED(ssm_lock_is_mine(pool, &cache->thief) && ssm_load_relaxed_u32(&cache->stealing) == 0);
    ssm_store_release_u32(&cache->stealing, 1);
    while (taken < wanted && count > 0) {
        uint64_t handle = ssm_load_relaxed_u64(&cache->handles[count - 1]);
        struct ssm_block *block;
        if (ssm_cache_entry_counts(pool, &pool->classes[class_idx], ssm_mark_of(slot), handle, &block)) {
            if (!ssm_block_is_exactly(pool, block, slot))
                break;
            SSM_ASSERT_SHARED(pool->claims[(uint32_t)handle].references == 0);
            ssm_block_swap(block, slot, pool->self);         /* the commit; from here on the entry is void */
            ssm_store_release_u32(&block->home, pool->home); /* H1 */
            blocks_out[taken++] = (uint32_t)handle;
        }
        ssm_store_release_u32(&cache->count, --count);
    }
    ssm_store_release_u32(&cache->stealing, 0);
    SSM_ASSERT(taken <= wanted);
    return taken;
}

uint32_t ssm_cache_steal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out)
{
    uint32_t taken = 0;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool) && taken < count; slot++) {
        const struct ssm_holder *owner = ssm_holder_at(pool, slot);
        struct ssm_cache *cache = ssm_cache_at(pool, slot, class_idx);
        if (slot == pool->self || ssm_load_acquire_u32(&owner->kind) != SSM_HOLDER_PROCESS ||
            ssm_load_relaxed_u32(&cache->count) == 0) /* stale: found next time */
            continue;
        if (lock_out(pool, slot, class_idx, 0) != 0)
            continue; /* another thief is at it */
        if (ssm_load_acquire_u32(&owner->kind) == SSM_HOLDER_PROCESS && wait_for_owner(pool, slot, cache))
            taken += take_entries(pool, class_idx, slot, count - taken, blocks_out + taken);
        ssm_lock_release(&cache->thief);
    }
    return taken;
}

/* The caller has entered the cache. Blocks whose shard stays locked go back on the stack. */
static void flush_in_hand(struct ssm_pool *pool, uint32_t class_idx, uint32_t keep)
{
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    uint64_t handles[FLUSH_BATCH];
    uint32_t blocks[FLUSH_BATCH], stuck = 0, excess;
    while (stuck == 0 && (excess = ssm_cache_count(pool, cache)) > keep) {
        excess = excess - keep < FLUSH_BATCH ? excess - keep : FLUSH_BATCH;
        uint32_t count = ssm_cache_pop(pool, &pool->classes[class_idx], cache, excess, handles);
        for (uint32_t i = 0; i < count; i++)
            blocks[i] = (uint32_t)handles[i];
        stuck = ssm_shard_give(pool, class_idx, blocks, count, 0);
        for (uint32_t i = 0; i < stuck; i++)
            handles[i] = ssm_handle_now(pool, blocks[i]);
        ssm_cache_push(cache, handles, stuck, pool->geometry.cache_slots);
        SSM_EXPENSIVE(ssm_cache_is_valid(pool, &pool->classes[class_idx], cache));
    }
}

void ssm_cache_flush(struct ssm_pool *pool, uint32_t class_idx, uint32_t keep)
{
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    if (!ssm_cache_enter(pool, class_idx))
        return;
    flush_in_hand(pool, class_idx, keep);
    ssm_cache_leave(cache);
}

int ssm_cache_seal(struct ssm_pool *pool, uint32_t slot)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++) {
        int result = lock_out(pool, slot, class_idx, SSM_LOCK_PATIENCE_NS);
        if (result == 0)
            continue;
        while (class_idx-- > 0)
            ssm_lock_release(&ssm_cache_at(pool, slot, class_idx)->thief);
        return result;
    }
    return 0;
}

void ssm_cache_unseal(struct ssm_pool *pool, uint32_t slot)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++)
        ssm_lock_release(&ssm_cache_at(pool, slot, class_idx)->thief);
}

void ssm_cache_forget(struct ssm_pool *pool, uint32_t slot)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++)
        ssm_store_release_u32(&ssm_cache_at(pool, slot, class_idx)->count, 0);
}

uint32_t ssm_cache_held(const struct ssm_pool *pool, uint32_t slot, uint32_t class_idx)
{
    const struct ssm_cache *cache = ssm_cache_at(pool, slot, class_idx);
    const struct ssm_mark mark = ssm_mark_of(slot);
    uint32_t count = ssm_cache_count(pool, cache), held = 0;
    struct ssm_block *block;
    for (uint32_t i = 0; i < count; i++)
        held += ssm_cache_entry_counts(pool, &pool->classes[class_idx], mark, ssm_load_relaxed_u64(&cache->handles[i]),
                                       &block);
    return held;
}

void ssm_cache_reset(struct ssm_pool *pool)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++) {
        struct ssm_cache *cache = pool->classes[class_idx].cache;
        ssm_store_relaxed_u32(&cache->busy, 0);
        if (lock_out(pool, pool->self, class_idx, 0) != 0)
            continue; /* a thief was faster; it finds no entries */
        ssm_store_relaxed_u32(&cache->count, 0);
        ssm_lock_release(&cache->thief);
    }
}
