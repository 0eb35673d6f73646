/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing; see pool.h. */
#include "pool.h"

#include "arena.h"
#include "redelivery.h"
#include "reservation.h"
#include "seed_bug.h"

#include <errno.h>

#define SPIN_NS    UINT64_C(10000)  /* before the first sleep, where another processor can be at work */
#define LINGER_NS  UINT64_C(40000)  /* the same while that has lately been long enough: a wake-up takes about 15 us */
#define LINGER_REST 32              /* after a lingering in vain, so many waits for which it had been long enough */
#define BRIEF_NS   UINT64_C(500000) /* the first sleep of a wait, which has no membarrier before it */
#define ARENA_RETRY_NS UINT64_C(100000000) /* for the arena's lock, before there is no room */
#define STAYED_NS  UINT64_C(1000000) /* the first sleep of a wait for a lock, whose release wakes nobody here; then twice as long */
#define PARKED_MAX 64              /* blocks refilled into the cache at once */

/* ---- waiting ---------------------------------------------------------------------------------------- */

/* For people to read. Not of an attachment that was closed meanwhile: its slot may be somebody else's. */
static void note_waiting(struct ssm_pool *pool, uint32_t code)
{
    if (ssm_pool_enter(pool) != 0)
        return;
    ssm_store_relaxed_u32(&ssm_holder_at(pool, pool->self)->waiting, code);
    ssm_pool_leave(pool);
}

static int sleep_once(struct ssm_pool *pool, const struct ssm_sleep *wait, uint32_t seen, uint64_t until_ns)
{
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 1 + wait->class_idx * pool->geometry.shards + pool->home);
    const uint32_t era = ssm_sleeper_begin(pool);
    void *state = pool->hooks.before != NULL ? pool->hooks.before() : NULL;
    ssm_event_sleep(wait->event, seen, until_ns);
    int interrupted = pool->hooks.after != NULL ? pool->hooks.after(state) : 0;
    ssm_sleeper_end(pool, era);
    int result = ssm_now_ns() >= until_ns ? ssm_pool_recheck(pool) : 0;
    if (result != 0)
        return result;
    if (wait->class_idx != SSM_NIL)
        note_waiting(pool, 0);
    return interrupted ? -EINTR : 0;
}

/* Two processes that answer each other and once fell asleep would sleep at each turn, were the spin always shorter than a
 * wake-up takes: whose waits are short spins for longer. */
static int spin_for(struct ssm_pool *pool, const struct ssm_sleep *wait, uint64_t since_ns, uint64_t until_ns)
{
    const bool linger = ssm_load_relaxed_u32(&pool->linger_rest) == 0; /* a guess: other threads wait, too */
    const uint64_t spin_ns = linger ? LINGER_NS : SPIN_NS;
    int result = wait->again;
    if (!pool->many_cpus)
        return result;
    for (uint64_t now_ns = since_ns; result == wait->again && now_ns - since_ns < spin_ns && now_ns < until_ns; now_ns = ssm_now_ns()) {
        for (int i = 0; i < 16; i++)
            ssm_cpu_relax();
        result = wait->attempt(wait->context, false);
    }
    if (linger && result == wait->again)
        ssm_store_relaxed_u32(&pool->linger_rest, LINGER_REST);
    return result;
}

/* After a wait with a sleep in it. */
static void note_wait(struct ssm_pool *pool, uint64_t waited_ns)
{
    const uint32_t rest = ssm_load_relaxed_u32(&pool->linger_rest);
    if (waited_ns < LINGER_NS && rest > 0)
        ssm_store_relaxed_u32(&pool->linger_rest, rest - 1);
}

/* Until when it may sleep now: not beyond `look_ns`. */
static uint64_t next_look_ns(const struct ssm_sleep *wait, uint64_t look_ns, uint64_t until_ns)
{
    if (wait->look_ns != NULL && *wait->look_ns < look_ns)
        look_ns = *wait->look_ns;
    return look_ns < until_ns && !SSM_HAS_BUG(LONG_SLEEP) ? look_ns : until_ns;
}

/* The wait is over. It was late if it slept for as long as it may, with a membarrier before a look that saw all, and
 * nobody signalled since. */
static void note_late(const struct ssm_pool *pool, const struct ssm_sleep *wait, uint32_t announced, int result)
{
    if (result >= 0 || result == -SSM_E_SHUTDOWN) /* others, such as a closed attachment, nobody signals */
        ssm_event_count_late(wait->event, announced, pool->recheck_ns == SSM_RECHECK_NS);
}

int ssm_sleep_for(struct ssm_pool *pool, const struct ssm_sleep *wait, int64_t timeout_ns)
{
    const uint64_t since_ns = ssm_now_ns(), until_ns = ssm_deadline_ns(timeout_ns);
    uint32_t seen = 0;
    bool overslept = false; /* and should have been woken, if what it waits for is there now */
    int result = spin_for(pool, wait, since_ns, until_ns);
    uint64_t stayed_ns = STAYED_NS, recheck_ns = pool->recheck_ns;
    for (bool brief = true; result == wait->again; brief = false) {
        const uint32_t stayed = ssm_lock_stayed_count(pool);
        const uint32_t evasions = ssm_load_relaxed_u32(&pool->evasions); /* other threads' as well: then nothing is said */
        const uint32_t announced = ssm_event_announce(wait->event);
        overslept &= announced == ((seen + SSM_EVENT_STEP) | SSM_EVENT_WAITERS);
        seen = announced;
        if (wait->class_idx != SSM_NIL)
            ssm_class_announce(pool, wait->class_idx);
        /* E1: before the look, on the processor of every signaller; pairs with E2. */
        const bool membarrier_ran = !brief && ssm_membarrier();
        result = wait->attempt(wait->context, true);
        const uint64_t now_ns = ssm_now_ns();
        if (result != wait->again && overslept)
            note_late(pool, wait, announced, result);
        if (result != wait->again || now_ns >= until_ns)
            break;
        const bool looked = ssm_load_relaxed_u32(&pool->evasions) == evasions;
        uint64_t step_ns = brief ? BRIEF_NS : recheck_ns;
        if (!brief && ssm_lock_stayed_count(pool) != stayed && stayed_ns < step_ns) {
            step_ns = stayed_ns;
            stayed_ns *= 2;
        }
        const uint64_t look_ns = next_look_ns(wait, now_ns + step_ns, until_ns);
        int stopped = sleep_once(pool, wait, seen, look_ns);
        if (stopped != 0)
            return stopped;
        const uint64_t woken_ns = ssm_now_ns();
        const bool in_time = woken_ns < look_ns;
        overslept = membarrier_ran && looked && !in_time;
        if (!brief)
            recheck_ns = in_time ? pool->recheck_ns : ssm_recheck_longer_ns(recheck_ns);
        if (!in_time && !brief && ssm_pool_look_in_turn(pool, woken_ns))
            pool->on_stall(pool);
        if (in_time && (result = wait->attempt(wait->context, false)) != wait->again)
            note_wait(pool, woken_ns - since_ns);
    }
    return result;
}

/* ---- putting blocks away ---------------------------------------------------------------------------- */

/* How many of them the cache takes, up to `limit` in all. */
static uint32_t keep_in_cache(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    if (!ssm_cache_enter(pool, cache))
        return 0;
    uint32_t kept = ssm_cache_push(cache, handles, count, limit);
    ssm_cache_leave(cache);
    return kept;
}

/* While somebody waits for the class, freed blocks go past the cache. */
static uint32_t cache_limit(const struct ssm_pool *pool, uint32_t class_idx)
{
    return ssm_class_is_awaited(&pool->classes[class_idx]) ? 0 : pool->classes[class_idx].cache_blocks;
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

/* Blocks that this process has alone, without a claim: into the cache up to `limit`, the rest home. */
static void stow(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count, uint32_t limit)
{
    uint32_t kept = keep_in_cache(pool, class_idx, handles, count, limit), *rest = pool->scratch;
    if (kept < count && count - kept <= limit / 2) { /* not one by one: the shard's lock is for batches */
        ssm_cache_flush(pool, class_idx, limit / 2);
        kept += keep_in_cache(pool, class_idx, handles + kept, count - kept, limit);
    }
    for (uint32_t i = kept; i < count; i++)
        rest[i - kept] = (uint32_t)handles[i];
    uint32_t stuck = ssm_shard_give(pool, class_idx, rest, count - kept, 0);
    for (uint32_t i = 0; i < stuck; i++)
        give_home(pool, class_idx, rest[i]);
}

/* ---- allocating ------------------------------------------------------------------------------------- */

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
    for (int i = 1; i < result; i++)
        handles[i - 1] = ssm_handle_now(pool, batch[i]);
    stow(pool, class_idx, handles, (uint32_t)result - 1, pool->classes[class_idx].cache_blocks);
    blocks_out[0] = batch[0]; /* last: stow() had the scratch */
    return 1;
}

/* Is there as much at all? Taking some blocks and returning them would wake every waiter, including the caller. */
static bool looks_enough(const struct ssm_pool *pool, uint32_t class_idx, uint32_t count, bool thorough)
{
    uint64_t free_count = 0; /* of hints */
    for (uint32_t i = 0; i < pool->geometry.shards && free_count < count; i++)
        free_count += ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, i)->free_count);
    for (uint32_t slot = 0; thorough && free_count < count && slot < ssm_holder_high(pool); slot++)
        if (slot != pool->self) /* what is there was taken before */
            free_count += ssm_load_relaxed_u32(&ssm_cache_at(pool, slot, class_idx)->count);
    return free_count >= count;
}

/* What the own cache does not have: how many of `count`, as block indices in the scratch; -SSM_E_CORRUPT. */
static int take_elsewhere(struct ssm_pool *pool, uint32_t class_idx, uint32_t count, bool thorough)
{
    uint32_t *blocks = pool->scratch, taken;
    bool busy = false;
    if (count > 1 && !looks_enough(pool, class_idx, count, thorough) && !(thorough && ssm_class_settle(pool, class_idx)))
        return 0;
    taken = refill(pool, class_idx, count, blocks);
    for (int round = 0; taken < count && round < (thorough ? 2 : 1); round++) {
        /* A shard whose lock stays taken (its owner may be stopped) is waited for only in the second round. */
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
    return (int)taken;
}

struct alloc_call {
    struct ssm_pool *pool;
    uint64_t         size;
    uint64_t         bytes; /* of each block */
    uint64_t        *handles_out;
    uint32_t         count;
    bool             busy;  /* the arena's lock stayed taken */
    bool             asks;  /* it waits, and not for one block that is like any other */
    const struct ssm_own_class *class;
    struct ssm_claimant         claimant;
};

/* All or nothing; 0, -SSM_E_EXHAUSTED, -SSM_E_CORRUPT. The handles are those of former packets. */
static int take_blocks(struct alloc_call *call, bool thorough)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = call->class->class_idx, count = call->count;
    uint64_t *handles_out = call->handles_out;
    struct ssm_cache *cache = pool->classes[class_idx].cache;
    uint32_t taken = 0;
    if (ssm_cache_enter(pool, cache)) {
        taken = ssm_cache_pop(pool, &pool->classes[class_idx], cache, count, handles_out);
        ssm_cache_leave(cache);
    }
    int more = taken == count || ssm_turn_must_yield(pool, class_idx, call->claimant.turn)
             ? 0 : take_elsewhere(pool, class_idx, count - taken, thorough);
    for (int i = 0; i < more; i++)
        handles_out[taken++] = ssm_handle_now(pool, pool->scratch[i]);
    if (taken == count)
        return 0;
    if (taken > 0)
        stow(pool, class_idx, handles_out, taken, pool->classes[class_idx].cache_blocks);
    return more < 0 ? more : -SSM_E_EXHAUSTED;
}

/* A fresh packet: the block is this process's alone. `handle`: of the packet that was in it. */
static inline uint64_t hand_out(struct ssm_pool *pool, const struct ssm_own_class *class, struct ssm_block *block, uint64_t handle,
                                uint64_t size)
{
    handle += UINT64_C(1) << 32; /* the next generation; behind the last one comes 0 */
    ssm_store_relaxed_u32(&block->generation, (uint32_t)(handle >> 32));
    ssm_fence_release(); /* Y1 -> Y2 in copy_packet(): the generation is seen to change before all that follows */
    ssm_store_relaxed_u64(&block->start, pool->geometry.headroom);
    ssm_store_relaxed_u64(&block->length, size);
    ssm_store_relaxed_u64(&block->tag, 0);
    ssm_store_relaxed_u64(&block->next, SSM_NO_NEXT); /* somebody may have died with a chain of which it was a part */
    ssm_store_release_u32(&block->home, pool->home); /* G1, H1: whoever sees this home sees the claim before it */
    ssm_claim_set_fresh(pool, class, (uint32_t)handle);
    return handle;
}

static inline void hand_out_all(struct ssm_pool *pool, const struct ssm_own_class *class, uint64_t *handles, uint32_t count, uint64_t size)
{
    for (uint32_t i = 0; i < count; i++)
        handles[i] = hand_out(pool, class, ssm_block_at(pool, (uint32_t)handles[i]), handles[i], size);
}

/* Blocks of the arena, with their extents. The first look is there so that a call that fails touches nothing; when its
 * room is gone since, somebody else has got on. */
static int take_furnished(struct alloc_call *call, bool thorough)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = call->class->class_idx;
    const struct ssm_arena_request request = {call->bytes, call->size, call->count};
    int result = ssm_turn_must_yield(pool, class_idx, call->claimant.turn) ? -SSM_E_EXHAUSTED
               : ssm_arena_has_room(pool, &request, thorough);
    if (result == 0 && (result = take_blocks(call, thorough)) == 0 &&
        (result = ssm_arena_furnish(pool, &request, call->handles_out)) != 0)
        stow(pool, class_idx, call->handles_out, call->count, 0);
    call->busy = result == -ETIMEDOUT;
    return call->busy ? -SSM_E_EXHAUSTED : result;
}

/* As hand_out(), for what no fast path may take for its own. */
static void hand_out_furnished(const struct alloc_call *call)
{
    struct ssm_pool *pool = call->pool;
    const struct ssm_claim claim = {.references = 1, .class_idx = (uint8_t)call->class->class_idx};
    hand_out_all(pool, call->class, call->handles_out, call->count, call->size);
    for (uint32_t i = 0; i < call->count; i++) {
        pool->claims[(uint32_t)call->handles_out[i]] = claim;
        ssm_memory_take(pool, claim.class_idx, (uint32_t)call->handles_out[i]);
    }
}

static int alloc_attempt(void *context, bool thorough)
{
    struct alloc_call *call = context;
    struct ssm_pool *pool = call->pool;
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    if (call->asks && thorough && ssm_claimant_step(pool, call->class->class_idx, &call->claimant))
        ssm_class_signal(pool, call->class->class_idx, UINT32_MAX);
    const uint64_t bytes = call->bytes * call->count;
    const bool furnished = ssm_class_is_arena(pool, call->class->class_idx);
    result = !ssm_usage_allows(pool, bytes) ? -SSM_E_QUOTA
           : furnished ? take_furnished(call, thorough)
                       : take_blocks(call, thorough);
    if (result == 0) {
        if (furnished)
            hand_out_furnished(call);
        else
            hand_out_all(pool, call->class, call->handles_out, call->count, call->size);
        ssm_usage_add(pool, bytes);
    }
    ssm_pool_leave(pool);
    return result;
}

/* Takes out what the call has asked for, however it ended. An attachment that was closed meanwhile has done so. */
static void stop_asking(struct alloc_call *call)
{
    if (ssm_pool_enter(call->pool) != 0)
        return;
    if (ssm_claimant_end(call->pool, call->class->class_idx, &call->claimant))
        ssm_class_signal(call->pool, call->class->class_idx, UINT32_MAX);
    ssm_pool_leave(call->pool);
}

/* Calls for several blocks, or for room in the arena, have an event of their own, and turns; see reservation.h. */
static int alloc_waiting(struct alloc_call *call, int64_t timeout_ns)
{
    struct ssm_pool *pool = call->pool;
    const uint32_t class_idx = call->class->class_idx;
    call->asks = call->count > 1 || ssm_class_is_arena(pool, class_idx);
    const struct ssm_sleep wait = {
        .attempt = alloc_attempt, .context = call, .again = -SSM_E_EXHAUSTED, .class_idx = class_idx,
        .event = call->asks ? &ssm_class_at(pool, class_idx)->several : &ssm_shard_at(pool, class_idx, pool->home)->event,
        .look_ns = call->asks ? &call->claimant.look_ns : NULL,
    };
    int result = ssm_sleep_for(pool, &wait, timeout_ns);
    if (call->asks)
        stop_asking(call);
    call->asks = false;
    return result;
}

/* The common case: one packet, from the cache. False: go the long way. (It calls nothing, nor does free_fast(): a register
 * that outlives a call costs a push and a pop.) */
static inline bool alloc_fast(struct ssm_pool *pool, uint64_t size, uint64_t *handle_out)
{
    const struct ssm_own_class *class = ssm_class_for(pool, size);
    struct ssm_cache *const cache = class->cache;
    const uint64_t held_bytes = pool->held_bytes + class->block_size;
    struct ssm_block *block;
    uint64_t handle;
    if (cache == NULL || held_bytes > pool->unchecked_bytes_max || !ssm_cache_try_enter(pool, cache))
        return false;
    bool taken = ssm_cache_pop_one(pool, class, cache, &handle, &block);
    ssm_cache_leave(cache);
    if (!taken)
        return false;
    *handle_out = hand_out(pool, class, block, handle, size);
    pool->held_bytes = held_bytes;
    return true;
}

/* Of a request that can never be met; a closed or read-only attachment says so before anything else. */
static SSM_COLD int refuse(struct ssm_pool *pool, int why)
{
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    ssm_pool_leave(pool);
    return why;
}

static SSM_APART int alloc_slowly(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns, uint64_t *handles_out)
{
    const struct ssm_own_class *class = ssm_class_for(pool, size); /* sizes and counts never change: no need to enter */
    if (class->class_idx == pool->geometry.class_count)
        return refuse(pool, -SSM_E_TOO_LARGE);
    const bool is_arena = ssm_class_is_arena(pool, class->class_idx);
    const uint64_t bytes = is_arena ? ssm_arena_round(size + pool->geometry.headroom + pool->geometry.tailroom) : class->block_size;
    if (count == 0 || count > class->block_count || (is_arena && count > ssm_arena_capacity(pool, bytes)))
        return refuse(pool, -EINVAL);
    struct alloc_call call = {
        .pool = pool, .size = size, .bytes = bytes, .handles_out = handles_out, .count = count, .class = class,
    };
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
    if (result == -SSM_E_EXHAUSTED && pool->on_stall(pool)) /* before it is said: the dead held some of it */
        result = alloc_attempt(&call, true);
    return result;
}

static SSM_COLD int alloc_guarded(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    bool done = alloc_fast(pool, size, handle_out);
    ssm_pool_leave(pool);
    return done ? 0 : alloc_slowly(pool, size, 1, timeout_ns, handle_out);
}

int ssm_alloc(struct ssm_pool *pool, uint64_t size, int64_t timeout_ns, uint64_t *handle_out)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool)))
        return alloc_fast(pool, size, handle_out) ? 0 : alloc_slowly(pool, size, 1, timeout_ns, handle_out);
    return alloc_guarded(pool, size, timeout_ns, handle_out);
}

int ssm_alloc_many(struct ssm_pool *pool, uint64_t size, uint32_t count, int64_t timeout_ns, uint64_t *handles_out)
{
    return count == 1 ? ssm_alloc(pool, size, timeout_ns, handles_out)
                      : alloc_slowly(pool, size, count, timeout_ns, handles_out);
}

/* ---- freeing ---------------------------------------------------------------------------------------- */

void ssm_block_release(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    if (claim->flags & SSM_CLAIM_DELIVERED)
        ssm_delivery_end_all(pool, block_idx); /* before this process's bit goes */
    claim->flags &= (uint8_t)~SSM_CLAIM_REDELIVERED;
    if (claim->flags & SSM_CLAIM_HEAD)
        ssm_chain_release(pool, block_idx);
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    ssm_usage_subtract(pool, ssm_memory_held(pool, class_idx, block_idx).bytes);
    if (ssm_block_is_mine(pool, block)) {
        const uint64_t handle = ssm_handle_now(pool, block_idx);
        stow(pool, class_idx, &handle, 1, cache_limit(pool, class_idx));
        return;
    }
    ssm_block_let_go(pool, block_idx, pool->self);
}

void ssm_reference_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done)
{
    struct ssm_claim *claim = &pool->claims[block_idx];
    if (claim->flags & SSM_CLAIM_DELIVERED)
        ssm_delivery_drop(pool, block_idx, delivery, done);
    if (--claim->references == 0)
        ssm_block_release(pool, claim->class_idx, block_idx);
}

/* A scribbled link ends it: each segment is passed once. */
SSM_COLD void ssm_chain_release(struct ssm_pool *pool, uint32_t head_idx)
{
    uint32_t next = ssm_chain_next(pool, head_idx);
    pool->claims[head_idx].flags &= (uint8_t)~SSM_CLAIM_HEAD;
    ssm_store_relaxed_u64(&ssm_block_at(pool, head_idx)->next, SSM_NO_NEXT);
    for (uint32_t at = next; at != SSM_NIL; at = next) {
        struct ssm_claim *claim = &pool->claims[at];
        next = ssm_chain_next(pool, at);
        claim->flags &= (uint8_t)~SSM_CLAIM_SEGMENT;
        ssm_store_relaxed_u64(&ssm_block_at(pool, at)->next, SSM_NO_NEXT);
        if (--claim->references == 0)
            ssm_block_release(pool, claim->class_idx, at);
    }
}

/* The common case: a packet that this process holds once, and alone, goes into the cache. False: go the long way. */
static inline bool free_fast(struct ssm_pool *pool, uint64_t handle)
{
    const struct ssm_own_class *class = ssm_claim_sole_class(pool, handle);
    if (class == NULL || ssm_class_is_awaited(class))
        return false;
    struct ssm_cache *const cache = class->cache;
    if (!ssm_cache_try_enter(pool, cache))
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
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    result = free_fast(pool, handle) ? 0 : free_one(pool, handle, delivery, done);
    ssm_pool_leave(pool);
    return result;
}

int ssm_free(struct ssm_pool *pool, uint64_t handle)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool) && free_fast(pool, handle)))
        return 0;
    return free_guarded(pool, handle, SSM_ANY_DELIVERY, true);
}

int ssm_free_of(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, int done)
{
    if (SSM_LIKELY(ssm_pool_needs_no_lock(pool) && free_fast(pool, handle))) /* no fast path takes a delivery */
        return 0;
    return free_guarded(pool, handle, delivery, done);
}

/* Takes one reference per handle back, so that a handle that stands twice is counted twice. -SSM_E_STALE, and nothing
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

/* Of references that are taken back already. */
static void release_all(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint64_t delivery, bool done)
{
    for (uint32_t i = 0; i < count; i++)
        if (pool->claims[(uint32_t)handles[i]].flags & SSM_CLAIM_DELIVERED)
            ssm_delivery_drop(pool, (uint32_t)handles[i], delivery, done);
    for (uint32_t i = 0; i < count; i++) /* all before the first one goes, and perhaps its segments with it */
        if (pool->claims[(uint32_t)handles[i]].references == 0)
            pool->claims[(uint32_t)handles[i]].flags |= SSM_CLAIM_MARKED;
    for (uint32_t i = 0; i < count; i++) {
        struct ssm_claim *claim = &pool->claims[(uint32_t)handles[i]];
        if (!(claim->flags & SSM_CLAIM_MARKED))
            continue;
        claim->flags &= (uint8_t)~SSM_CLAIM_MARKED; /* it may stand in the batch once more */
        ssm_block_release(pool, claim->class_idx, (uint32_t)handles[i]);
    }
}

/* The common case: different packets, each held once and alone; those of one class go back together. */
static bool free_sole(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    if (!ssm_claims_take_sole(pool, handles, count))
        return false;
    for (uint32_t i = 0, run; i < count; i += run) {
        const uint32_t class_idx = pool->claims[(uint32_t)handles[i]].class_idx;
        const struct ssm_own_class *class = &pool->classes[class_idx];
        for (run = 1; i + run < count && ssm_class_has_block(class, (uint32_t)handles[i + run]); run++) {}
        ssm_usage_subtract(pool, class->block_size * run);
        stow(pool, class_idx, handles + i, run, cache_limit(pool, class_idx));
    }
    return true;
}

int ssm_free_many_of(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint64_t delivery, int done)
{
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    if (count == 1 ? free_fast(pool, handles[0]) : free_sole(pool, handles, count)) {
        ssm_pool_leave(pool);
        return 0;
    }
    result = take_references(pool, handles, count);
    if (result == 0)
        release_all(pool, handles, count, delivery, done);
    ssm_pool_leave(pool);
    return result;
}

int ssm_free_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    return ssm_free_many_of(pool, handles, count, SSM_ANY_DELIVERY, true);
}

int ssm_delivery_done(struct ssm_pool *pool, uint64_t handle, uint64_t delivery)
{
    int result = ssm_pool_enter(pool);
    if (result != 0)
        return result;
    uint32_t block_idx = ssm_claim_find(pool, handle);
    result = block_idx == SSM_NIL ? -SSM_E_STALE : 0;
    if (result == 0)
        ssm_delivery_drop(pool, block_idx, delivery, true);
    ssm_pool_leave(pool);
    return result;
}
