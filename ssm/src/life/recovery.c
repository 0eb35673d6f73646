/* SPDX-License-Identifier: Apache-2.0
 *
 * Reaping; see recovery.h. */
#include "recovery.h"

#include "arena.h"
#include "cache.h"
#include "holder_set.h"
#include "registry.h"
#include "registry_ids.h"
#include "reservation.h"
#include "ring_owned.h"
#include "ring_unlink.h"
#include "seed_bug.h"
#include "service.h"
#include "shard.h"

#include <string.h>

#define LOOK_NS UINT64_C(1000000) /* at least between two looks, since they cost system calls */

static bool find_dead(struct ssm_pool *pool, struct ssm_holder_set *dead)
{
    bool any = false;
    memset(dead, 0, sizeof *dead);
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_holder_slot_is_dead(pool, slot)) {
            ssm_holder_set_add(dead, slot);
            any = true;
        }
    return any;
}

static void scrub_locks(struct ssm_pool *pool)
{
    const struct ssm_geometry *g = &pool->geometry;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++) {
        if (ssm_holder_is_ring(pool, slot))
            ssm_ring_scrub(pool, slot);
        for (uint32_t class_idx = 0; ssm_slot_has_caches(pool, slot) && class_idx < g->class_count; class_idx++)
            ssm_cache_recover(pool, slot, class_idx);
    }
    for (uint32_t class_idx = 0; class_idx < g->class_count; class_idx++)
        for (uint32_t shard_idx = 0; shard_idx < g->shards; shard_idx++)
            ssm_shard_recover(pool, class_idx, shard_idx);
    ssm_arena_recover(pool);
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++)
        ssm_service_scrub(pool, i);
}

/* Leaves a dead process for the next reaper while another process completes its put: until then it is open which of its
 * deliveries come back. */
static void leave_out_putters(const struct ssm_pool *pool, struct ssm_holder_set *dead)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++) {
        if (!ssm_holder_is_ring(pool, id))
            continue;
        uint32_t slot = ssm_ring_putter(pool, id);
        if (slot < SSM_HOLDER_MAX)
            ssm_holder_set_remove(dead, slot);
    }
}

/* Leaves a dead process for the next reaper while a stopped process is in the way of one of its rings. */
static void end_owned_rings(struct ssm_pool *pool, struct ssm_holder_set *dead)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++) {
        const uint32_t late = ssm_ring_end_owned(pool, id, dead);
        if (late != SSM_NIL)
            ssm_holder_set_remove(dead, late);
    }
}

static void return_deliveries(struct ssm_pool *pool, const struct ssm_holder_set *dead)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        ssm_ring_return(pool, id, dead);
}

/* Finds the members of the set that may own values of the service. False if there are none. */
static bool find_users(const struct ssm_pool *pool, const struct ssm_holder_set *set, uint32_t service_idx,
                       struct ssm_holder_set *users)
{
    bool any = false;
    memset(users, 0, sizeof *users);
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_holder_set_has(set, slot) &&
            ssm_load_relaxed_u64(&ssm_holder_at(pool, slot)->services) >> service_idx & 1) {
            ssm_holder_set_add(users, slot);
            any = true;
        }
    return any;
}

/* After a death before it, a reaper searches the service once more, in vain. */
static void forget_service(struct ssm_pool *pool, const struct ssm_holder_set *users, uint32_t service_idx)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_holder_set_has(users, slot)) {
            struct ssm_u64 *services = &ssm_holder_at(pool, slot)->services;
            ssm_store_release_u64(services, ssm_load_relaxed_u64(services) & ~(UINT64_C(1) << service_idx));
        }
}

/* `late`: the dead processes that may own values of a service whose lock a stopped process has. */
static void reclaim_services(struct ssm_pool *pool, const struct ssm_holder_set *dead, struct ssm_holder_set *late)
{
    struct ssm_holder_set users;
    memset(late, 0, sizeof *late);
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++) {
        if (!find_users(pool, dead, i, &users))
            continue;
        if (ssm_service_reclaim(pool, i, &users))
            forget_service(pool, &users, i);
        else
            ssm_holder_set_add_all(late, &users);
    }
}

/* Leaves a dead process for the next reaper if one of its caches cannot be sealed, since the thief in it is stopped. */
static void seal_caches(struct ssm_pool *pool, struct ssm_holder_set *dead)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_holder_set_has(dead, slot) && ssm_cache_seal(pool, slot) != 0)
            ssm_holder_set_remove(dead, slot);
}

/* Before the blocks come back, so that any process may take them. */
static void forget_reservations(struct ssm_pool *pool, const struct ssm_holder_set *dead)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        for (uint32_t class_idx = 0; ssm_holder_set_has(dead, slot) && class_idx < pool->geometry.class_count;
             class_idx++)
            if (ssm_reservations_forget(pool, class_idx, slot))
                ssm_class_signal(pool, class_idx, UINT32_MAX);
}

static bool clear_bits(struct ssm_pool *pool, struct ssm_block *block, const struct ssm_holder_set *dead)
{
    bool held = false;
    for (uint32_t w = 0; w < pool->geometry.holder_words; w++)
        if (dead->words[w] != 0 && ssm_load_relaxed_u64(&block->holders[w]) & dead->words[w])
            held |= (ssm_and_acqrel_u64(&block->holders[w], ~dead->words[w]) & dead->words[w]) != 0;
    return held;
}

/* Counts the blocks in the caches of the dead, which are sealed. */
static uint64_t cached_blocks(const struct ssm_pool *pool, const struct ssm_holder_set *dead)
{
    uint64_t cached = 0;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        for (uint32_t class_idx = 0; ssm_holder_set_has(dead, slot) && class_idx < pool->geometry.fixed_count;
             class_idx++)
            cached += ssm_cache_held(pool, slot, class_idx);
    return cached;
}

/* Also settles blocks that a dead process had let go of but not listed. They lack its bit already. */
static uint64_t reclaim_blocks(struct ssm_pool *pool, const struct ssm_holder_set *dead)
{
    uint64_t reclaimed = 0;
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        struct ssm_block *block = ssm_block_at(pool, i);
        ssm_holder_note_letting_go(pool, i + 1); /* F1 */
        if (clear_bits(pool, block, dead))       /* F1 */
            reclaimed++;
        if (!ssm_load_relaxed_u32(&block->listed) && ssm_block_is_free(pool, block)) /* checked again under the lock */
            ssm_block_settle(pool, i);
    }
    ssm_holder_note_letting_go(pool, 0); /* F1 */
    return reclaimed;
}

/* Frees the slots; returns how many. Late processes have no blocks any more, but keep their slots. */
static uint32_t free_slots(struct ssm_pool *pool, const struct ssm_holder_set *dead, const struct ssm_holder_set *late)
{
    uint32_t freed = 0;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++) {
        if (!ssm_holder_set_has(dead, slot))
            continue;
        ssm_cache_forget(pool, slot);
        if (!ssm_holder_set_has(late, slot)) {
            ssm_registry_release(pool, slot);
            freed++;
        }
        ssm_cache_unseal(pool, slot);
    }
    return freed;
}

void ssm_recovery_reap_locked(struct ssm_pool *pool, bool audit, struct ssm_reaped *out)
{
    struct ssm_holder_set dead, late;
    *out = (struct ssm_reaped){0};
    bool any = find_dead(pool, &dead);
    SSM_ASSERT_SHARED(!ssm_holder_set_has(&dead, pool->self));
    if (!any && !audit) {
        ssm_rings_collect(pool); /* their last user may have died before it did so */
        return;
    }
    if (!SSM_HAS_BUG(NO_SCRUB))
        scrub_locks(pool);
    leave_out_putters(pool, &dead);
    end_owned_rings(pool, &dead);
    if (!SSM_HAS_BUG(NO_RETURN))
        return_deliveries(pool, &dead);
    reclaim_services(pool, &dead, &late);
    seal_caches(pool, &dead);
    if (SSM_HAS_BUG(SLOT_EARLY))
        free_slots(pool, &dead, &late);
    forget_reservations(pool, &dead);
    const uint64_t cached = cached_blocks(pool, &dead);
    out->blocks = reclaim_blocks(pool, &dead);
    /* As ssm_holder_list() counts. `cached` is larger only if caches are damaged. */
    out->blocks -= cached < out->blocks ? cached : out->blocks;
    if (!SSM_HAS_BUG(NO_FORGET))
        ssm_rings_forget(pool, &dead, true);
    ssm_rings_collect(pool);
    out->processes = free_slots(pool, &dead, &late);
    for (int which = 0; audit && which < SSM_REGISTRY_IDS_KINDS; which++)
        ssm_registry_ids_audit(pool, (enum ssm_registry_ids)which);
}

#if SSM_ASSERTS
static bool holds_nothing(const struct ssm_pool *pool)
{
    for (uint32_t i = 0; i < ssm_blocks_now(pool); i++)
        if (ssm_block_has(ssm_block_at(pool, i), pool->self))
            return false;
    return true;
}
#endif

static struct ssm_holder_set own_slot(const struct ssm_pool *pool)
{
    struct ssm_holder_set own = {0};
    ssm_holder_set_add(&own, pool->self);
    return own;
}

/* Gives back everything that the own slot has; its caches stay sealed. */
static bool empty_own_slot(struct ssm_pool *pool)
{
    struct ssm_holder_set own = own_slot(pool), late;
    end_owned_rings(pool, &own);
    if (!ssm_holder_set_has(&own, pool->self))
        return false;
    reclaim_services(pool, &own, &late);
    seal_caches(pool, &own);
    if (!ssm_holder_set_has(&own, pool->self))
        return false;
    forget_reservations(pool, &own);
    reclaim_blocks(pool, &own);
    ssm_rings_forget(pool, &own, true); /* the former owner's: when this process leaves, its row is clear already */
    ssm_rings_collect(pool);
    ssm_cache_forget(pool, pool->self);
    SSM_EXPENSIVE(holds_nothing(pool));
    if (!ssm_holder_set_has(&late, pool->self))
        return true;
    ssm_cache_unseal(pool, pool->self);
    return false;
}

bool ssm_recovery_reap_own_slot(struct ssm_pool *pool)
{
    struct ssm_holder_set own = own_slot(pool);
    scrub_locks(pool);
    leave_out_putters(pool, &own);
    if (!ssm_holder_set_has(&own, pool->self))
        return false;
    return_deliveries(pool, &own); /* those of its former owner: this process has none yet */
    if (!empty_own_slot(pool))
        return false;
    ssm_cache_unseal(pool, pool->self);
    return true;
}

bool ssm_recovery_leave_slot(struct ssm_pool *pool)
{
    uint32_t slot = pool->self;
    if (!empty_own_slot(pool))
        return false;
    ssm_registry_leave(pool);
    ssm_cache_unseal(pool, slot);
    return true;
}

bool ssm_recovery_try(struct ssm_pool *pool)
{
    struct ssm_holder_set dead;
    struct ssm_reaped reaped = {0};
    uint64_t now_ns = ssm_now_ns();
    if (now_ns - ssm_load_relaxed_u64(&pool->looked_ns) < LOOK_NS || ssm_pool_enter(pool) != 0)
        return false;
    ssm_store_relaxed_u64(&pool->looked_ns, now_ns); /* stale: there is one look more */
    const bool whole = ssm_pool_is_whole(pool);
    if (whole && (find_dead(pool, &dead) || ssm_rings_are_left(pool)) && ssm_registry_lock(pool, 0) == 0) {
        ssm_recovery_reap_locked(pool, false, &reaped);
        ssm_registry_unlock(pool);
    }
    if (whole)
        ssm_arena_trim(pool); /* a call waits, and there may be nobody who frees */
    ssm_pool_leave(pool);
    return reaped.processes > 0 || reaped.blocks > 0;
}

int ssm_reap(struct ssm_pool *pool, struct ssm_reaped *out)
{
    struct ssm_lock_retry retry = ssm_lock_retry_begin(pool);
    int again = 1;
    *out = (struct ssm_reaped){0};
    while (again > 0) {
        struct ssm_reaped reaped = {0};
        int result = ssm_registry_begin(pool, SSM_POOL_PATIENCE_NS);
        if (result != 0)
            return result;
        if (ssm_pool_is_whole(pool))
            ssm_recovery_reap_locked(pool, true, &reaped);
        else
            result = -SSM_E_CORRUPT;
        ssm_registry_end(pool);
        out->processes += reaped.processes;
        out->blocks += reaped.blocks;
        again = result != 0 ? result : ssm_lock_retry(pool, &retry, SSM_LOCK_RETRY_NS); /* a lock stayed taken */
    }
    return again;
}
