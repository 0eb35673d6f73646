/* SPDX-License-Identifier: Apache-2.0
 *
 * Leaving a pool: close, and what outlives it, pinned packets and sleeping calls. */
#include "attach.h"
#include "free.h"
#include "recovery.h"
#include "redelivery.h"
#include "registry.h"
#include "ring_unlink.h"
#include "usage.h"

#include <errno.h>

#define LEAVE_PATIENCE_NS UINT64_C(1000000000) /* for the registry; then it leaves as if it had died */
#define LEAVE_QUIETLY_NS  UINT64_C(1000000)
#define LEAVE_NAP_NS      UINT64_C(200000)

static void release_claims(struct ssm_pool *pool)
{
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        struct ssm_claim *claim = &pool->claims[i];
        claim->flags &= (uint8_t)~SSM_CLAIM_OF_CHAIN; /* a pinned packet stays without its chain */
        if (claim->flags & SSM_CLAIM_DELIVERED)
            ssm_delivery_end_all(pool, i);
        if (claim->references <= claim->pins)
            continue;
        claim->references = claim->pins;
        if (claim->references == 0)
            ssm_block_release(pool, claim->class_idx, i);
    }
}

static void take_thread_lock(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_take(&pool->thread_lock);
}

/* Locks the registry for a closed attachment without pins. Releases the thread lock for naps. `hooks`: other threads
 * may run meanwhile, and a signal may end the wait; a destructor lets no thread in, and waits only for a moment. False
 * if the registry stays locked. */
static bool lock_to_leave(struct ssm_pool *pool, bool hooks)
{
    const uint64_t until_ns = ssm_now_ns() + (hooks ? LEAVE_PATIENCE_NS : LEAVE_QUIETLY_NS);
    for (bool stop = false; pool->self != SSM_NIL && ssm_pool_is_whole(pool);) {
        int result = ssm_registry_lock(pool, 0);
        if (result != -ETIMEDOUT || stop || ssm_now_ns() >= until_ns)
            return result == 0;
        ssm_pool_leave(pool);
        if (hooks)
            stop = ssm_pool_nap(pool, LEAVE_NAP_NS) != 0;
        else
            ssm_nap_ns(LEAVE_NAP_NS);
        take_thread_lock(pool);
    }
    return false;
}

/* Gives up the slot and the file. If a stopped process is in the way, a reaper does the rest: once its liveness lock is
 * dropped, this process counts as dead. */
static void leave_pool(struct ssm_pool *pool, bool hooks)
{
    SSM_ASSERT(pool->status & SSM_STATUS_CLOSED && pool->pinned == 0);
    if (lock_to_leave(pool, hooks)) {
        ssm_recovery_leave_slot(pool);
        ssm_registry_unlock(pool);
    }
    pool->self = SSM_NIL;
    ssm_attach_close_file(pool);
}

static int close_pool(struct ssm_pool *pool, bool hooks)
{
    take_thread_lock(pool);
    if (!(pool->status & SSM_STATUS_CLOSED)) {
        if (pool->self != SSM_NIL && ssm_pool_is_whole(pool)) {
            for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
                if (ssm_ring_is_opened_by(pool, pool->self, id))
                    ssm_ring_release_sides(pool, id);
            release_claims(pool);
            ssm_rings_leave(pool); /* a pinned packet may keep the slot; the next process that looks frees the rings */
        }
        ssm_pool_set_status(pool, pool->status | SSM_STATUS_CLOSED);
        /* Shared: a scribbled cache hands out a block that this process has already, and that block counts twice. */
        SSM_ASSERT_SHARED(pool->pinned > 0 || ssm_usage_held(pool) == 0 || !ssm_pool_is_whole(pool));
        if (pool->pinned == 0)
            leave_pool(pool, hooks);
    }
    int left = (int)(pool->pinned + ssm_load_acquire_u32(&pool->sleepers));
    ssm_pool_leave(pool);
    return left;
}

int ssm_pool_close(struct ssm_pool *pool)
{
    return close_pool(pool, true);
}

uint32_t ssm_pool_sleepers(struct ssm_pool *pool)
{
    return ssm_load_acquire_u32(&pool->sleepers);
}

int ssm_packet_unpin(struct ssm_pool *pool, uint64_t handle, int drop)
{
    take_thread_lock(pool); /* not ssm_pool_enter(): this works on a closed attachment */
    int result = 0;
    bool cut = pool->status & SSM_STATUS_CLOSED && !ssm_pool_is_whole(pool); /* the memory is gone */
    uint32_t block_idx = cut ? (uint32_t)handle : ssm_claim_find(pool, handle);
    if (block_idx >= pool->geometry.block_total || pool->claims[block_idx].pins == 0) {
        result = -SSM_E_STALE;
    } else {
        struct ssm_claim *claim = &pool->claims[block_idx];
        SSM_ASSERT(claim->pins <= claim->references && pool->pinned > 0);
        if (--claim->pins == 0)
            pool->pinned--;
        if ((drop || pool->status & SSM_STATUS_CLOSED) && --claim->references == 0 && !cut)
            ssm_block_release(pool, claim->class_idx, block_idx);
        if (pool->status & SSM_STATUS_CLOSED && pool->pinned == 0)
            leave_pool(pool, false);
    }
    ssm_pool_leave(pool);
    return result;
}

void ssm_pool_destroy(struct ssm_pool *pool)
{
    if (pool == NULL)
        return;
    close_pool(pool, pool->hooks.before == NULL);
    ssm_attach_dispose(pool);
}
