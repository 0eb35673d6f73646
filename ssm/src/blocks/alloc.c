/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating.
 *
 * A block comes from, in this order: the private cache; the own shard (a batch, whose rest goes into the cache); the
 * other shards; other processes' caches; dead processes. While a call that waits for several blocks has its turn
 * (reservation.h), all other calls use their private caches only.
 *
 * If the arena grows, a packet that finds its class full spills into the arena, and takes only as much memory as it
 * needs there. The arena comes after the own cache and the shards, and before other processes' caches. A call that
 * waits then waits in the arena's queue. Memory that comes free in the arena wakes it, and so does a block of its
 * class.
 */
#include "arena.h"
#include "claim.h"
#include "reservation.h"
#include "sleep.h"
#include "stow.h"

#include <errno.h>

#define ARENA_RETRY_NS    UINT64_C(100000000) /* how long a call tries for the arena's lock before it reports no room */
#define DESCRIPTOR_ROUNDS 8
#define PARKED_MAX        64 /* blocks refilled into the cache at once */

/* Goes round the shards, beginning with the own one. `busy`: a shard was passed over because its lock was taken. */
static int take_from_shards(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint64_t patience_ns,
                            uint32_t *blocks_out, bool *busy)
{
    uint32_t taken = 0, shards = pool->geometry.shards;
    for (uint32_t i = 0; i < shards && taken < count; i++) {
        uint32_t shard_idx = (pool->home + i) % shards;
        if (ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, shard_idx)->free_count) == 0 && /* a hint */
            !ssm_lock_owner_is_dead(pool, &ssm_shard_at(pool, class_idx, shard_idx)->lock))
            continue;
        int result = ssm_shard_take(pool, class_idx, shard_idx, count - taken, patience_ns, blocks_out + taken);
        if (result == -ETIMEDOUT)
            *busy = true;
        else if (result < 0 && taken == 0)
            return result;
        else if (result > 0)
            taken += (uint32_t)result;
    }
    SSM_ASSERT(taken <= count);
    return (int)taken;
}

/* Takes a batch from the own shard, and stows the blocks beyond `count`. */
static uint32_t refill(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out)
{
    uint32_t batch[PARKED_MAX + 1];
    uint64_t handles[PARKED_MAX];
    uint32_t extra = pool->classes[class_idx].cache_blocks / 2;
    if (extra > PARKED_MAX)
        extra = PARKED_MAX;
    if (count != 1 || extra == 0 || ssm_class_is_awaited(&pool->classes[class_idx]) ||
        ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, pool->home)->free_count) == 0) /* a hint */
        return 0;
    int result = ssm_shard_take(pool, class_idx, pool->home, 1 + extra, 0, batch);
    if (result <= 0)
        return 0;
    SSM_ASSERT((uint32_t)result <= 1 + extra);
    for (int i = 1; i < result; i++)
        handles[i - 1] = ssm_handle_now(pool, batch[i]);
    ssm_stow_blocks(pool, class_idx, handles, (uint32_t)result - 1, pool->classes[class_idx].cache_blocks);
    blocks_out[0] = batch[0]; /* last: ssm_stow_blocks() used the scratch */
    return 1;
}

/* Cheap check beforehand. Taking some blocks and returning them would wake every waiter, including the caller. */
static bool looks_enough(const struct ssm_pool *pool, uint32_t class_idx, uint32_t count, bool thorough)
{
    uint64_t free_count = 0; /* of hints */
    for (uint32_t i = 0; i < pool->geometry.shards && free_count < count; i++)
        free_count += ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, i)->free_count);
    for (uint32_t slot = 0; thorough && free_count < count && slot < ssm_holder_high(pool); slot++)
        if (slot != pool->self && ssm_slot_has_caches(pool, slot)) /* its own cache was emptied before */
            free_count += ssm_load_relaxed_u32(&ssm_cache_at(pool, slot, class_idx)->count);
    return free_count >= count;
}

/* Takes up to `count` blocks that the own cache did not have, into the scratch. Returns how many, or -SSM_E_CORRUPT. */
static int take_elsewhere(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, bool thorough)
{
    uint32_t *blocks = pool->scratch, taken;
    bool busy = false;
    if (count > 1 && !looks_enough(pool, class_idx, count, thorough) &&
        !(thorough && ssm_class_settle(pool, class_idx)))
        return 0;
    taken = refill(pool, class_idx, count, blocks);
    for (int round = 0; taken < count && round < (thorough ? 2 : 1); round++) {
        /* Only the second round waits for a shard whose lock stays taken (its owner may be stopped). */
        if (round == 1 && !busy)
            break;
        int result = take_from_shards(pool, class_idx, count - taken, round == 0 ? 0 : SSM_LOCK_PATIENCE_NS,
                                      blocks + taken, &busy);
        if (result < 0 && taken == 0)
            return result;
        taken += result > 0 ? (uint32_t)result : 0;
    }
    if (taken < count && thorough)
        taken += ssm_cache_steal(pool, class_idx, count - taken, blocks + taken);
    if (taken < count && thorough && ssm_class_settle(pool, class_idx)) {
        int result = take_from_shards(pool, class_idx, count - taken, 0, blocks + taken, &busy);
        taken += result > 0 ? (uint32_t)result : 0;
    }
    SSM_ASSERT(taken <= count);
    return (int)taken;
}

/* A class, and how much of it a packet takes. */
struct source {
    const struct ssm_own_class *class;
    uint64_t                    bytes;
};

struct alloc_call {
    struct ssm_pool    *pool;
    uint64_t            size;
    uint64_t           *handles_out;
    uint32_t            count;
    bool                busy; /* the arena's lock stayed taken */
    bool                asks; /* it waits for several blocks, or for room in the arena */
    struct source       first;
    struct source       spill; /* the arena, for packets that find their class full; or no class */
    struct ssm_claimant claimant;
};

/* The source that the call waits for. */
static const struct source *awaited(const struct alloc_call *call)
{
    return call->spill.class != NULL ? &call->spill : &call->first;
}

/* Takes all blocks or none. 0, -SSM_E_EXHAUSTED or -SSM_E_CORRUPT. The handles are those of the former packets. */
static int take_blocks(struct alloc_call *call, const struct source *from, bool thorough)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = from->class->class_idx, count = call->count;
    uint64_t *handles_out = call->handles_out;
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    uint32_t taken = 0;
    if (ssm_cache_enter(pool, class_idx)) {
        taken = ssm_cache_pop(pool, &pool->classes[class_idx], cache, count, handles_out);
        ssm_cache_leave(cache);
    }
    int more = taken == count || ssm_turn_must_yield(pool, class_idx, call->claimant.turn)
                 ? 0
                 : take_elsewhere(pool, class_idx, count - taken, thorough);
    for (int i = 0; i < more; i++)
        handles_out[taken++] = ssm_handle_now(pool, pool->scratch[i]);
    if (taken == count)
        return 0;
    if (taken > 0)
        ssm_stow_blocks(pool, class_idx, handles_out, taken, pool->classes[class_idx].cache_blocks);
    return more < 0 ? more : -SSM_E_EXHAUSTED;
}

/* What all packets of a call have in common, read once: after a store to a descriptor the compiler would read it
 * again. */
struct fresh {
    struct ssm_claim *claims;
    uint8_t          *blocks;
    uint64_t          block_bytes, start, length, claim_word;
    uint32_t          home;
};

static inline struct fresh fresh_of(const struct ssm_pool *pool, const struct ssm_own_class *class, uint64_t size)
{
    return (struct fresh){
        .claims = pool->claims,
        .blocks = pool->blocks,
        .block_bytes = pool->geometry.block_bytes,
        .start = pool->geometry.headroom,
        .length = size,
        .claim_word = ssm_claim_word_sole(class->class_idx),
        .home = pool->home,
    };
}

/* Makes a new packet of a block that this process alone holds. `handle`: of its former packet. Tag and link are reset
 * whether or not they were set: two stores of constants cost less than two comparisons. */
static inline uint64_t hand_out(const struct fresh *fresh, uint64_t handle)
{
    struct ssm_block *block = (struct ssm_block *)(fresh->blocks + (uint32_t)handle * fresh->block_bytes);
    handle += UINT64_C(1) << 32; /* the next generation; it wraps to 0 */
    ssm_claim_write(&fresh->claims[(uint32_t)handle], handle, fresh->claim_word);
    ssm_store_relaxed_u32(&block->generation, (uint32_t)(handle >> 32));
    ssm_fence_release(); /* Y1 -> Y2 in copy_packet(): the generation changes before all that follows */
    ssm_store_relaxed_u64(&block->start, fresh->start);
    ssm_store_relaxed_u64(&block->length, fresh->length);
    ssm_store_relaxed_u64(&block->tag, 0);
    ssm_store_relaxed_u64(&block->next, SSM_NO_NEXT); /* a process may have died with a chain that it was part of */
    ssm_store_release_u32(&block->home, fresh->home); /* G1, H1: the claim is seen before this home */
    return handle;
}

static inline void hand_out_all(struct ssm_pool *pool, const struct ssm_own_class *class, uint64_t *handles,
                                uint32_t count, uint64_t size)
{
    const struct fresh fresh = fresh_of(pool, class, size);
    for (uint32_t i = 0; i < count; i++) {
        SSM_ASSERT_SHARED(ssm_block_has(ssm_block_at(pool, (uint32_t)handles[i]), pool->self));
        handles[i] = hand_out(&fresh, handles[i]);
    }
}

/* Takes blocks of the arena, without extents. If too few are free, the arena may get more; others may take them
 * first. */
static int take_descriptors(struct alloc_call *call, const struct source *from, bool thorough)
{
    int result = take_blocks(call, from, thorough);
    for (int round = 0; thorough && round < DESCRIPTOR_ROUNDS && result == -SSM_E_EXHAUSTED; round++) {
        result = ssm_arena_add_packets(call->pool, call->count);
        if (result == 0)
            result = take_blocks(call, from, thorough);
    }
    return result;
}

/* Takes blocks of the arena, with their extents. The look at the beginning lets a call that fails touch nothing. If the
 * room is gone afterwards, another process has taken it. */
static int take_furnished(struct alloc_call *call, const struct source *from, bool thorough)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = from->class->class_idx;
    const struct ssm_arena_request request = {from->bytes, call->size, call->count};
    SSM_ASSERT(ssm_class_is_arena(pool, class_idx));
    int result = ssm_turn_must_yield(pool, class_idx, call->claimant.turn)
                   ? -SSM_E_EXHAUSTED
                   : ssm_arena_has_room(pool, &request, thorough);
    if (result == 0)
        result = take_descriptors(call, from, thorough);
    if (result == 0 && (result = ssm_arena_furnish(pool, &request, call->handles_out)) != 0)
        ssm_stow_blocks(pool, class_idx, call->handles_out, call->count, 0);
    call->busy = result == -ETIMEDOUT;
    return call->busy ? -SSM_E_EXHAUSTED : result;
}

/* Like hand_out_all(), for packets that no fast path may handle. */
static void hand_out_furnished(const struct alloc_call *call, const struct source *from)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = from->class->class_idx;
    hand_out_all(pool, from->class, call->handles_out, call->count, call->size);
    for (uint32_t i = 0; i < call->count; i++) {
        const uint32_t block_idx = (uint32_t)call->handles_out[i];
        pool->claims[block_idx].flags = SSM_CLAIM_ARENA;
        const uint64_t bytes = ssm_memory_take(pool, class_idx, block_idx).bytes;
        SSM_ASSERT_SHARED(bytes == from->bytes);
        ssm_usage_add(pool, bytes); /* as much as will be subtracted, even if the extent was damaged */
    }
}

static int alloc_from(struct alloc_call *call, const struct source *from, bool thorough)
{
    struct ssm_pool *pool = call->pool;
    const uint64_t bytes = from->bytes * call->count;
    const bool furnished = ssm_class_is_arena(pool, from->class->class_idx);
    int result = !ssm_usage_allows(pool, bytes) ? -SSM_E_QUOTA
               : furnished                      ? take_furnished(call, from, thorough)
                                                : take_blocks(call, from, thorough);
    if (result == 0 && furnished) {
        hand_out_furnished(call, from);
    } else if (result == 0) {
        hand_out_all(pool, from->class, call->handles_out, call->count, call->size);
        ssm_usage_add(pool, bytes);
    }
    return result;
}

static int alloc_attempt(void *context, bool thorough)
{
    struct alloc_call *call = context;
    struct ssm_pool *pool = call->pool;
    const bool spills = call->spill.class != NULL;
    SSM_POOL_ENTER(pool);
    if (call->asks && thorough && ssm_claimant_step(pool, awaited(call)->class->class_idx, &call->claimant))
        ssm_class_signal(pool, awaited(call)->class->class_idx, UINT32_MAX);
    int result = alloc_from(call, &call->first, thorough && !spills);
    if (result == -SSM_E_EXHAUSTED && spills)
        result = alloc_from(call, &call->spill, thorough);
    if (result == -SSM_E_EXHAUSTED && spills && thorough)
        result = alloc_from(call, &call->first, true);
    SSM_ASSERT_SHARED(result != 0 || ssm_usage_held(pool) <= pool->quota_bytes);
    return result;
}

/* Withdraws the call's request, however the call ended. If the attachment was closed meanwhile, that is done
 * already. */
static void stop_asking(struct alloc_call *call)
{
    if (ssm_pool_enter(call->pool) != 0)
        return;
    const uint32_t class_idx = awaited(call)->class->class_idx;
    if (ssm_claimant_end(call->pool, class_idx, &call->claimant))
        ssm_class_signal(call->pool, class_idx, UINT32_MAX);
    ssm_pool_leave(call->pool);
}

/* Calls for several blocks, or for room in the arena, have their own event, and turns; see reservation.h. */
static int alloc_waiting(struct alloc_call *call, int64_t timeout_ns)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = awaited(call)->class->class_idx;
    call->asks = call->count > 1 || ssm_class_is_arena(pool, class_idx);
    const struct ssm_sleep wait = {
        .attempt = alloc_attempt,
        .context = call,
        .again = -SSM_E_EXHAUSTED,
        .class_idx = class_idx,
        .other_idx = call->first.class->class_idx,
        .event = call->asks ? &ssm_class_at(pool, class_idx)->several
                            : &ssm_shard_at(pool, class_idx, pool->home)->event,
        .look_ns = call->asks ? &call->claimant.look_ns : NULL,
    };
    int result = ssm_sleep_for(pool, &wait, timeout_ns);
    if (call->asks)
        stop_asking(call);
    call->asks = false;
    return result;
}

/* ssm_class_for() of the last size costs one comparison. The caller has the attachment for itself. */
static inline const struct ssm_own_class *class_for_again(struct ssm_pool *pool, uint64_t size)
{
    if (SSM_LIKELY(size == pool->last_size))
        return pool->last_class;
    pool->last_size = size;
    return pool->last_class = ssm_class_for(pool, size);
}

/* The common case: one packet, from the cache. False: use the slow path. (Neither this nor free_fast() calls a
 * function: a register that outlives a call costs a push and a pop.) `fenced`: see ssm_cache_try_enter(). */
static inline bool alloc_fast(struct ssm_pool *pool, uint64_t size, uint64_t *handle_out, bool fenced)
{
    const struct ssm_own_class *class = class_for_again(pool, size);
    struct ssm_cache *const cache = class->cache;
    const int64_t left_bytes = pool->left_bytes - (int64_t)class->block_size;
    uint64_t handle;
    if (left_bytes < 0 || !ssm_cache_try_enter(cache, fenced))
        return false;
    bool taken = ssm_cache_pop_one(pool, class, cache, &handle);
    ssm_cache_leave(cache);
    if (!taken)
        return false;
    SSM_ASSERT(ssm_usage_allows(pool, class->block_size) && !ssm_class_is_arena(pool, class->class_idx));
    SSM_ASSERT_SHARED(ssm_block_has(ssm_block_at(pool, (uint32_t)handle), pool->self));
    pool->left_bytes = left_bytes;
    const struct fresh fresh = fresh_of(pool, class, size);
    *handle_out = hand_out(&fresh, handle);
    return true;
}

/* Makes packets free again that were handed out of the cache, while its count still has their entries. These get their
 * blocks' new generations (I6). */
static SSM_COLD void take_back(struct ssm_pool *pool, struct ssm_u64 *entries, const uint64_t *handles, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        pool->claims[(uint32_t)handles[i]].references = 0;
        ssm_store_relaxed_u64(&entries[i], handles[i]);
    }
}

/* The same for several, in one pass and in the order in which they were freed. They are handed out while they are in
 * the cache still: no thief is there meanwhile, and a death leaves blocks with this process's bit, wherever else they
 * stand. False: no packet is handed out. */
static inline bool alloc_many_fast(struct ssm_pool *pool, uint64_t size, uint32_t count, uint64_t *handles_out)
{
    const struct ssm_own_class *class = class_for_again(pool, size);
    struct ssm_cache *const cache = class->cache;
    const uint64_t bytes = class->block_size * count;
    if ((int64_t)class->block_size > pool->left_bytes || (int64_t)bytes > pool->left_bytes ||
        !ssm_cache_try_enter(cache, pool->no_membarrier))
        return false;
    SSM_EXPENSIVE(ssm_cache_is_valid(pool, class, cache));
    const struct fresh fresh = fresh_of(pool, class, size);
    const uint32_t top = ssm_cache_count(pool, cache), first = class->first_block, blocks = class->block_count;
    const uint32_t wanted = count <= top ? count : 0;
    struct ssm_u64 *const entries = &cache->handles[top - wanted];
    uint64_t taken = 0;
    for (; taken < wanted; taken++) {
        const uint64_t handle = ssm_load_relaxed_u64(&entries[taken]);
        if ((uint32_t)handle - first >= blocks || fresh.claims[(uint32_t)handle].references != 0) /* not sound */
            break;
        SSM_ASSERT_SHARED(ssm_block_has(ssm_block_at(pool, (uint32_t)handle), pool->self));
        handles_out[taken] = hand_out(&fresh, handle);
    }
    if (SSM_LIKELY(taken == count)) {
        ssm_store_relaxed_u32(&cache->count, top - count);
        pool->left_bytes -= (int64_t)bytes;
    } else if (taken > 0) {
        take_back(pool, entries, handles_out, taken);
        SSM_EXPENSIVE(ssm_cache_is_valid(pool, class, cache));
    }
    ssm_cache_leave(cache);
    return taken == count;
}

/* Refuses a request that can never be met. A closed or read-only attachment reports that first. */
static SSM_COLD int refuse(struct ssm_pool *pool, int why)
{
    SSM_POOL_ENTER(pool);
    return why;
}

/* False if the pool cannot have so many packets of this size. */
static bool find_sources(struct alloc_call *call, const struct ssm_own_class *class)
{
    const struct ssm_pool *pool = call->pool;
    const struct ssm_own_class *arena = &pool->classes[pool->geometry.fixed_count];
    const struct source furnished = {arena,
                                     ssm_arena_round(call->size + pool->geometry.headroom + pool->geometry.tailroom)};
    const bool is_arena = ssm_class_is_arena(pool, class->class_idx);
    const bool spills = !is_arena && pool->geometry.arena_units > 0 && call->count <= arena->block_count &&
                        call->count <= ssm_arena_capacity(pool, furnished.bytes);
    call->first = is_arena ? furnished : (struct source){class, class->block_size};
    if (spills && call->count > class->block_count)
        call->first = furnished;
    else if (spills)
        call->spill = furnished;
    return call->count > 0 && call->count <= call->first.class->block_count &&
           (!is_arena || call->count <= ssm_arena_capacity(pool, furnished.bytes));
}

static SSM_APART int alloc_slowly(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns,
                                  uint64_t *handles_out)
{
    const struct ssm_own_class *class = ssm_class_for(pool, size); /* sizes and counts never change: no need to enter */
    if (class->class_idx == pool->geometry.class_count)
        return refuse(pool, -SSM_E_TOO_LARGE);
    struct alloc_call call = {.pool = pool, .size = size, .handles_out = handles_out, .count = count};
    if (!find_sources(&call, class))
        return refuse(pool, -EINVAL);
    struct ssm_lock_retry retry = ssm_lock_retry_begin(pool);
    int result = alloc_attempt(&call, true);
    while (result == -SSM_E_EXHAUSTED) {
        int again = ssm_lock_retry(pool, &retry, call.busy ? ARENA_RETRY_NS : SSM_LOCK_RETRY_NS);
        if (again <= 0) {
            result = again < 0 ? again : result;
            break;
        }
        result = alloc_attempt(&call, true);
    }
    if (result == -SSM_E_EXHAUSTED && timeout_ns != 0)
        result = alloc_waiting(&call, timeout_ns);
    if (result == -SSM_E_EXHAUSTED && pool->on_stall(pool)) /* first: dead processes may hold blocks */
        result = alloc_attempt(&call, true);
    return result;
}

static SSM_COLD int alloc_guarded(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    bool done = alloc_fast(pool, size, handle_out, pool->no_membarrier);
    ssm_pool_leave(pool);
    return done ? 0 : alloc_slowly(pool, size, 1, timeout_ns, handle_out);
}

int ssm_alloc(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool)))
        return alloc_fast(pool, size, handle_out, false) ? 0 : alloc_slowly(pool, size, 1, timeout_ns, handle_out);
    return alloc_guarded(pool, size, timeout_ns, handle_out);
}

int ssm_alloc_many(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns, uint64_t *handles_out)
{
    if (count == 1)
        return ssm_alloc(pool, size, timeout_ns, handles_out);
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    const bool done = count > 0 && alloc_many_fast(pool, size, count, handles_out);
    ssm_pool_leave(pool);
    return done ? 0 : alloc_slowly(pool, size, count, timeout_ns, handles_out);
}
