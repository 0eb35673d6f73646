/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing; see pool.h. */
#include "pool.h"

#include "redelivery.h"
#include "seed_bug.h"

#include <errno.h>

#define SPIN_NS    UINT64_C(10000) /* before the first sleep, where another processor can be at work */
#define PARKED_MAX 64              /* blocks refilled into the cache at once */

/* ---- waiting ---------------------------------------------------------------------------------------- */

/* For people to read. Not of an attachment that was closed meanwhile: its slot may be somebody else's. */
static void note_waiting(struct ssm_pool *pool, uint32_t code)
{
    if (ssm_enter(pool) != 0)
        return;
    ssm_store_relaxed_u32(&ssm_holder_at(pool, pool->self)->waiting, code);
    ssm_leave(pool);
}

static int sleep_once(struct ssm_pool *pool, const struct ssm_wait *wait, uint32_t seen, uint64_t until_ns)
{
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 1 + wait->class_idx * pool->geometry.shards + pool->home);
    ssm_add_acqrel_u32(&pool->sleepers, 1);
    void *state = pool->hooks.before != NULL ? pool->hooks.before() : NULL;
    ssm_event_sleep(wait->event, seen, until_ns);
    int interrupted = pool->hooks.after != NULL ? pool->hooks.after(state) : 0;
    ssm_add_acqrel_u32(&pool->sleepers, UINT32_MAX);
    if (ssm_now_ns() >= until_ns && !ssm_pool_is_whole(pool))
        return -SSM_E_CORRUPT;
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 0);
    return interrupted ? -EINTR : 0;
}

static int spin_for(struct ssm_pool *pool, const struct ssm_wait *wait)
{
    int result = wait->again;
    if (!pool->many_cpus)
        return result;
    for (uint64_t until_ns = ssm_now_ns() + SPIN_NS; result == wait->again && ssm_now_ns() < until_ns;) {
        for (int i = 0; i < 16; i++)
            ssm_cpu_relax();
        result = wait->attempt(wait->context, false);
    }
    return result;
}

int ssm_wait_for(struct ssm_pool *pool, const struct ssm_wait *wait, int64_t timeout_ns)
{
    int result = wait->attempt(wait->context, true);
    if (result != wait->again || timeout_ns == 0)
        return result;
    uint64_t until_ns = ssm_deadline_ns(timeout_ns);
    result = spin_for(pool, wait);
    while (result == wait->again) {
        uint32_t seen = ssm_event_announce(wait->event);
        if (wait->class_idx != SSM_NIL)
            ssm_class_announce(pool, wait->class_idx);
        result = wait->attempt(wait->context, true);
        uint64_t now_ns = ssm_now_ns();
        if (result != wait->again || now_ns >= until_ns)
            break;
        uint64_t look_ns = now_ns + SSM_RECHECK_NS < until_ns && !SSM_HAS_BUG(LONG_SLEEP) ? now_ns + SSM_RECHECK_NS : until_ns;
        int stopped = sleep_once(pool, wait, seen, look_ns);
        if (stopped != 0)
            return stopped;
        if (ssm_now_ns() >= look_ns)
            pool->on_stall(pool);
        result = wait->attempt(wait->context, false);
    }
    return result;
}

/* ---- allocating ------------------------------------------------------------------------------------- */

static void give_block(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx);

/* Fills the cache from what was taken beyond the need; what does not fit goes back. */
static void stow(struct ssm_pool *pool, uint32_t class_idx, uint32_t *blocks, uint32_t count)
{
    struct ssm_cache *cache = ssm_cache_at(pool, pool->self, class_idx);
    uint32_t limit = pool->geometry.classes[class_idx].cache_blocks;
    if (ssm_cache_enter(pool, cache)) {
        while (count > 0) {
            uint32_t generation = ssm_load_relaxed_u32(&ssm_block_at(pool, blocks[count - 1])->generation);
            if (!ssm_cache_push(cache, ssm_handle_of(generation, blocks[count - 1]), limit))
                break;
            count--;
        }
        ssm_cache_leave(cache);
    }
    uint32_t stuck = ssm_shard_give(pool, class_idx, blocks, count, SSM_SHARD_PATIENCE_NS);
    for (uint32_t i = 0; i < stuck; i++)
        give_block(pool, class_idx, blocks[i]);
}

static uint32_t take_from_cache(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out)
{
    struct ssm_cache *cache = ssm_cache_at(pool, pool->self, class_idx);
    uint32_t taken = 0;
    if (!ssm_cache_enter(pool, cache))
        return 0;
    while (taken < count && (blocks_out[taken] = ssm_cache_pop(pool, class_idx, cache)) != SSM_NIL)
        taken++;
    ssm_cache_leave(cache);
    return taken;
}

/* From the own shard onwards, round. `busy`: a shard was passed over because its lock was taken. */
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
    return (int)taken;
}

/* Takes a batch from the own shard and stows what is beyond `count`. */
static uint32_t refill(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, uint32_t *blocks_out)
{
    uint32_t batch[PARKED_MAX + 1];
    uint32_t extra = pool->geometry.classes[class_idx].cache_blocks / 2;
    if (extra > PARKED_MAX)
        extra = PARKED_MAX;
    if (count != 1 || extra == 0 || ssm_class_is_awaited(pool, class_idx) ||
        ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, pool->home)->free_count) == 0) /* a hint */
        return 0;
    int result = ssm_shard_take(pool, class_idx, pool->home, 1 + extra, 0, batch);
    if (result <= 0)
        return 0;
    blocks_out[0] = batch[0];
    stow(pool, class_idx, batch + 1, (uint32_t)result - 1);
    return 1;
}

/* Is there as much at all? Who takes part of what he needs and gives it back wakes those who wait, himself too. */
static bool looks_enough(const struct ssm_pool *pool, uint32_t class_idx, uint32_t count)
{
    uint64_t free_count = 0; /* of hints */
    for (uint32_t i = 0; i < pool->geometry.shards; i++)
        free_count += ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, i)->free_count);
    for (uint32_t slot = 0; free_count < count && slot < ssm_holder_high(pool); slot++)
        free_count += ssm_load_relaxed_u32(&ssm_cache_at(pool, slot, class_idx)->count);
    return free_count >= count;
}

/* All or nothing; 0, -SSM_E_EXHAUSTED, -SSM_E_CORRUPT. */
static int take_blocks(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, bool thorough, uint32_t *blocks_out)
{
    if (count > 1 && !looks_enough(pool, class_idx, count) && !(thorough && ssm_class_settle(pool, class_idx)))
        return -SSM_E_EXHAUSTED;
    uint32_t taken = take_from_cache(pool, class_idx, count, blocks_out);
    bool busy = false;
    if (taken < count)
        taken += refill(pool, class_idx, count - taken, blocks_out + taken);
    for (int round = 0; taken < count && round < (thorough ? 2 : 1); round++) {
        /* A shard whose lock stays taken (its owner may be stopped) is waited for only in the second round. */
        if (round == 1 && !busy)
            break;
        int result = take_from_shards(pool, class_idx, count - taken, round == 0 ? 0 : SSM_SHARD_PATIENCE_NS,
                                      blocks_out + taken, &busy);
        if (result < 0 && taken == 0)
            return result;
        taken += result > 0 ? (uint32_t)result : 0;
    }
    if (taken < count && thorough)
        taken += ssm_cache_steal(pool, class_idx, count - taken, blocks_out + taken);
    if (taken < count && thorough && ssm_class_settle(pool, class_idx)) {
        int result = take_from_shards(pool, class_idx, count - taken, 0, blocks_out + taken, &busy);
        taken += result > 0 ? (uint32_t)result : 0;
    }
    if (taken == count)
        return 0;
    stow(pool, class_idx, blocks_out, taken);
    return -SSM_E_EXHAUSTED;
}

/* A fresh packet: the block is this process's alone. */
static inline uint64_t hand_out(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx, uint64_t size)
{
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint32_t generation = ssm_load_relaxed_u32(&block->generation) + 1;
    ssm_store_relaxed_u32(&block->generation, generation);
    ssm_store_relaxed_u64(&block->start, pool->geometry.headroom);
    ssm_store_relaxed_u64(&block->length, size);
    ssm_store_relaxed_u64(&block->tag, 0);
    if (ssm_load_relaxed_u32(&block->home) != pool->home)
        ssm_store_release_u32(&block->home, pool->home); /* G1: whoever sees this home sees the claim before it */
    pool->claims[block_idx] = (struct ssm_claim){.references = 1, .class_idx = (uint8_t)class_idx};
    ssm_hold_bytes(pool, class_idx);
    return ssm_handle_of(generation, block_idx);
}

static int class_for(const struct ssm_pool *pool, uint64_t size, uint32_t *class_idx_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    uint64_t overhead = (uint64_t)g->headroom + g->tailroom;
    for (uint32_t i = 0; i < g->class_count; i++)
        if (size <= g->classes[i].block_size && overhead <= g->classes[i].block_size - size) {
            *class_idx_out = i;
            return 0;
        }
    return -SSM_E_TOO_LARGE;
}

struct alloc_call {
    struct ssm_pool *pool;
    uint64_t         size;
    uint64_t        *handles_out;
    uint32_t         class_idx, count;
};

static int alloc_attempt(void *context, bool thorough)
{
    const struct alloc_call *call = context;
    struct ssm_pool *pool = call->pool;
    int result = ssm_enter(pool);
    if (result != 0)
        return result;
    result = ssm_quota_allows(pool, call->class_idx, call->count)
           ? take_blocks(pool, call->class_idx, call->count, thorough, pool->scratch) : -SSM_E_QUOTA;
    for (uint32_t i = 0; result == 0 && i < call->count; i++)
        call->handles_out[i] = hand_out(pool, call->class_idx, pool->scratch[i], call->size);
    ssm_leave(pool);
    return result;
}

/* The common case: one packet, from the cache. False: go the long way. */
static inline bool alloc_fast(struct ssm_pool *pool, uint32_t class_idx, uint64_t size, uint64_t *handle_out)
{
    struct ssm_cache *cache;
    uint32_t block_idx = SSM_NIL;
    if (ssm_enter(pool) != 0)
        return false;
    cache = ssm_cache_at(pool, pool->self, class_idx);
    if (ssm_quota_allows(pool, class_idx, 1) && ssm_cache_enter(pool, cache)) {
        block_idx = ssm_cache_pop(pool, class_idx, cache);
        ssm_cache_leave(cache);
    }
    if (block_idx != SSM_NIL)
        *handle_out = hand_out(pool, class_idx, block_idx, size);
    ssm_leave(pool);
    return block_idx != SSM_NIL;
}

int ssm_alloc(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    uint32_t class_idx;
    if (class_for(pool, size, &class_idx) == 0 && alloc_fast(pool, class_idx, size, handle_out))
        return 0;
    return ssm_alloc_many(pool, size, 1, timeout_ns, handle_out);
}

int ssm_alloc_many(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns, uint64_t *handles_out)
{
    struct alloc_call call = {.pool = pool, .size = size, .handles_out = handles_out, .count = count};
    int result = ssm_enter(pool); /* a closed or read-only attachment says so before anything else */
    if (result != 0)
        return result;
    ssm_leave(pool);
    result = class_for(pool, size, &call.class_idx);
    if (result == 0 && (count == 0 || count > pool->geometry.classes[call.class_idx].block_count))
        result = -EINVAL;
    if (result != 0)
        return result;
    struct ssm_wait wait = {
        .attempt = alloc_attempt, .context = &call, .again = -SSM_E_EXHAUSTED, .class_idx = call.class_idx,
        .event = &ssm_shard_at(pool, call.class_idx, pool->home)->event,
    };
    result = ssm_wait_for(pool, &wait, timeout_ns);
    if (result == -SSM_E_EXHAUSTED && pool->on_stall(pool)) /* before it is said: the dead held some of it */
        result = alloc_attempt(&call, true);
    return result;
}

/* ---- freeing ---------------------------------------------------------------------------------------- */

static bool keep_in_cache(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx, uint32_t limit)
{
    struct ssm_cache *cache = ssm_cache_at(pool, pool->self, class_idx);
    uint32_t generation = ssm_load_relaxed_u32(&ssm_block_at(pool, block_idx)->generation);
    if (!ssm_cache_enter(pool, cache))
        return false;
    bool kept = ssm_cache_push(cache, ssm_handle_of(generation, block_idx), limit);
    ssm_cache_leave(cache);
    return kept;
}

/* Home, or where the home's lock stays taken, any other shard's list: who has a block alone chooses its home. With
 * all of them locked it is parked in the cache, whose slots reach beyond its size; and when these are full, let go of:
 * then whoever finds nothing else free lists it. */
static void give_home(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_u32 *home = &ssm_block_at(pool, block_idx)->home;
    for (uint32_t i = 0; i < pool->geometry.shards; i++) {
        if (ssm_shard_give(pool, class_idx, &block_idx, 1, 0) == 0)
            return;
        ssm_store_release_u32(home, (ssm_load_relaxed_u32(home) + 1) % pool->geometry.shards);
    }
    if (keep_in_cache(pool, class_idx, block_idx, pool->geometry.cache_slots))
        return;
    ssm_block_remove(ssm_block_at(pool, block_idx), pool->self);
    ssm_settle(pool, block_idx);
}

void ssm_block_release(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    if (claim->flags & SSM_CLAIM_OF_DELIVERY) {
        ssm_redelivery_settle(pool, block_idx); /* before this process's bit goes */
        claim->flags &= (uint8_t)~SSM_CLAIM_OF_DELIVERY;
    }
    ssm_drop_bytes(pool, class_idx);
    give_block(pool, class_idx, block_idx);
}

/* A block that carries this process's bit, and no claim does. */
static void give_block(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint32_t limit = pool->geometry.classes[class_idx].cache_blocks;
    if (!ssm_block_is_exactly(pool, block, pool->self)) {
        ssm_block_remove(block, pool->self);
        if (ssm_block_is_free(pool, block)) /* the others let go meanwhile */
            ssm_settle(pool, block_idx);
        return;
    }
    if (limit != 0 && !ssm_class_is_awaited(pool, class_idx)) {
        if (keep_in_cache(pool, class_idx, block_idx, limit))
            return;
        ssm_cache_flush(pool, class_idx, limit / 2);
        if (keep_in_cache(pool, class_idx, block_idx, limit))
            return;
    }
    give_home(pool, class_idx, block_idx);
}

static inline int free_one(struct ssm_pool *pool, uint64_t handle)
{
    uint32_t block_idx = ssm_movable_block(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    struct ssm_claim *claim = &pool->claims[block_idx];
    if (--claim->references == 0)
        ssm_block_release(pool, claim->class_idx, block_idx);
    return 0;
}

int ssm_free(struct ssm_pool *pool, uint64_t handle)
{
    int result = ssm_enter(pool);
    if (result != 0)
        return result;
    result = free_one(pool, handle);
    ssm_leave(pool);
    return result;
}

int ssm_free_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    int result = ssm_enter(pool);
    if (result != 0)
        return result;
    uint32_t checked = 0; /* references are taken back first, so that a handle that stands twice is counted twice */
    for (; checked < count; checked++) {
        uint32_t block_idx = ssm_movable_block(pool, handles[checked]);
        if (block_idx == SSM_NIL)
            break;
        pool->claims[block_idx].references--;
    }
    if (checked < count) {
        while (checked-- > 0)
            pool->claims[(uint32_t)handles[checked]].references++;
        ssm_leave(pool);
        return -SSM_E_STALE;
    }
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_claim *claim = &pool->claims[(uint32_t)handles[i]];
        if (claim->references == 0 && !(claim->flags & SSM_CLAIM_MARKED)) {
            claim->flags |= SSM_CLAIM_MARKED; /* it may stand in the batch once more */
            ssm_block_release(pool, claim->class_idx, (uint32_t)handles[i]);
        }
    }
    for (uint32_t i = 0; i < count; i++)
        pool->claims[(uint32_t)handles[i]].flags &= (uint8_t)~SSM_CLAIM_MARKED;
    ssm_leave(pool);
    return 0;
}
