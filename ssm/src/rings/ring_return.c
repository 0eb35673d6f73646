/* SPDX-License-Identifier: Apache-2.0
 *
 * Returning packets to a redelivering ring: those that dead processes had taken out, and those that this process gives
 * back. And which packet is the oldest that is not done with. */
#include "claim.h"
#include "redelivery.h"
#include "registry.h"
#include "ring_unlink.h"

#include <errno.h>

void ssm_ring_return(struct ssm_pool *pool, uint32_t holder_id, const struct ssm_holder_set *dead)
{
    struct ssm_redelivery table;
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, holder_id);
    if (shared == NULL || !ssm_ring_table(pool, holder_id, &table))
        return;
    uint32_t returned = ssm_redelivery_return(pool, &table, dead, ssm_load_acquire_u32(&shared->acl) & SSM_ACL_DISCARD);
    if (returned == 0)
        return;
    ssm_store_release_u32(&shared->returned, 1); /* D5 -> D6 in take_returned(): all carry the ring's bit */
    ssm_event_signal(&shared->not_empty, returned, pool->no_membarrier);
}

/* Reads the tail before the table: a packet that is taken in between has that position, or a later one. */
int ssm_ring_oldest(struct ssm_ring *ring, uint64_t *position_out)
{
    if (!(ring->flags & SSM_REDELIVER))
        return -EINVAL;
    if (!ssm_ring_look_begin(ring))
        return -SSM_E_UNLINKED;
    bool returned = false;
    const uint64_t tail = ssm_load_acquire_u64(&ring->shared->consumer.index);
    *position_out = ring->table == NULL ? tail : ssm_redelivery_oldest(ring->pool, ring->table, tail, &returned);
    return ssm_ring_look_end(ring) ? returned : -SSM_E_UNLINKED;
}

/* Needs the registry locked. */
static void give_back(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, table->ring_id);
    SSM_ASSERT(table->own[block_idx].references > 0);
    const bool discard = shared == NULL || ssm_load_acquire_u32(&shared->acl) & SSM_ACL_DISCARD;
    if (!ssm_delivery_give_back(pool, table, block_idx, discard))
        return;
    ssm_store_release_u32(&shared->returned, 1); /* D5 -> D6 in take_returned() */
    ssm_event_signal(&shared->not_empty, 1, pool->no_membarrier);
}

/* After packets were given back, with the registry unlocked: rings of which this process has nothing open any more. */
static void leave_rings(struct ssm_pool *pool)
{
    for (const struct ssm_redelivery *table = pool->redeliveries; table != NULL; table = table->next)
        if (table->open == 0)
            ssm_ring_leave(pool, table->ring_id);
}

int ssm_delivery_return(struct ssm_pool *pool, uint64_t handle, uint64_t delivery)
{
    SSM_POOL_ENTER(pool);
    int result = 0;
    const uint32_t block_idx = ssm_claim_find(pool, handle);
    const struct ssm_redelivery *table = block_idx == SSM_NIL ? NULL : ssm_delivery_find(pool, block_idx, delivery);
    if (block_idx == SSM_NIL)
        result = -SSM_E_STALE;
    else if (table != NULL && (result = ssm_registry_lock(pool, 0)) == 0) {
        give_back(pool, table, block_idx);
        ssm_registry_unlock(pool);
        leave_rings(pool);
    }
    return result;
}

typedef void visit_delivery(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx);

/* Visits every open delivery; returns how many. */
static uint32_t for_each_delivery(struct ssm_pool *pool, visit_delivery *visit)
{
    uint32_t count = 0;
    for (const struct ssm_redelivery *table = pool->redeliveries; table != NULL; table = table->next)
        for (uint32_t i = 0; i < pool->geometry.block_total; i++) {
            if (table->own[i].references == 0)
                continue;
            count++;
            if (visit != NULL)
                visit(pool, table, i);
        }
    return count;
}

uint32_t ssm_deliveries_open(struct ssm_pool *pool)
{
    if (ssm_pool_enter(pool) != 0)
        return 0;
    uint32_t count = for_each_delivery(pool, NULL);
    ssm_pool_leave(pool);
    return count;
}

void ssm_deliveries_finish(struct ssm_pool *pool)
{
    if (pool->status == SSM_STATUS_OPEN && ssm_pool_is_whole(pool))
        for_each_delivery(pool, ssm_delivery_end_at_last);
}

int ssm_deliveries_return(struct ssm_pool *pool)
{
    SSM_POOL_ENTER(pool);
    int result = 0;
    if (for_each_delivery(pool, NULL) > 0 && (result = ssm_registry_lock(pool, 0)) == 0) {
        for_each_delivery(pool, give_back);
        ssm_registry_unlock(pool);
        leave_rings(pool);
    }
    return result;
}
