/* SPDX-License-Identifier: Apache-2.0
 *
 * Users of rings, and unlinking; see ring_unlink.h. */
#include "ring_unlink.h"

#include "block.h"
#include "carver.h"
#include "lock.h"
#include "redelivery.h"
#include "registry.h"
#include "registry_ids.h"
#include "ring_partner.h"
#include "seed_bug.h"
#include "shard.h"

#include <errno.h>
#include <string.h>

#define CLOSE_NAP_NS UINT64_C(50000)

/* What the handle of a ring that is gone leads to. Nobody writes into it: the calls that would do so look at the handle
 * first, and what only looks finds an empty ring that is shut down. */
static struct ssm_ring_shared nobodys = {.acl = {SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER}};

/* ---- who uses it ------------------------------------------------------------------------------------------ */

static void set_bit(struct ssm_pool *pool, uint32_t ring_id)
{
    ssm_or_acqrel_u64(ssm_opened_at(pool, pool->self, ring_id), UINT64_C(1) << ring_id % 64);
}

static void clear_bit(struct ssm_pool *pool, uint32_t ring_id)
{
    struct ssm_u64 *opened = ssm_opened_at(pool, pool->self, ring_id);
    /* O3 -> O4 in ssm_ring_is_opened_by(): all that this process did with the ring comes before. */
    ssm_and_acqrel_u64(opened, ~(UINT64_C(1) << ring_id % 64));
}

static bool is_used_here(const struct ssm_pool *pool, uint32_t ring_id)
{
    for (const struct ssm_ring *ring = pool->rings; ring != NULL; ring = ring->next)
        if (ring->id == ring_id && !ring->gone)
            return true;
    return ssm_redelivery_is_open(pool, ring_id);
}

bool ssm_ring_use(struct ssm_pool *pool, uint32_t ring_id, const char *name)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, ring_id);
    set_bit(pool, ring_id);
    ssm_fence_seqcst(); /* O1: the bit is there before the kind is read; pairs with O2 in is_left() */
    if (ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_RING && /* K2 */
        strncmp(holder->name, name, sizeof holder->name) == 0)
        return true;
    ssm_ring_leave(pool, ring_id);
    return false;
}

void ssm_ring_use_locked(struct ssm_pool *pool, uint32_t ring_id)
{
    set_bit(pool, ring_id);
}

void ssm_ring_add_handle(struct ssm_ring *ring)
{
    struct ssm_pool *pool = ring->pool;
    ring->next = pool->rings;
    ring->link = &pool->rings;
    if (ring->next != NULL)
        ring->next->link = &ring->next;
    pool->rings = ring;
}

void ssm_ring_remove_handle(struct ssm_ring *ring)
{
    *ring->link = ring->next;
    if (ring->next != NULL)
        ring->next->link = ring->link;
}

/* Frees rings that have no users any more, if the registry can be locked within a moment. No other thread gets in
 * meanwhile, so that destructors may call it. */
static void collect_soon(struct ssm_pool *pool)
{
    const uint64_t until_ns = ssm_now_ns() + SSM_LOCK_PATIENCE_NS;
    int result;
    if (!ssm_pool_is_whole(pool))
        return;
    while ((result = ssm_registry_lock(pool, 0)) == -ETIMEDOUT && ssm_now_ns() < until_ns)
        ssm_nap_ns(CLOSE_NAP_NS);
    if (result != 0)
        return; /* its owner, or the next one that locks it, finds them */
    ssm_rings_collect(pool);
    ssm_registry_unlock(pool);
}

static bool has_no_name(const struct ssm_pool *pool, uint32_t ring_id)
{
    return ssm_load_acquire_u32(&ssm_holder_at(pool, ring_id)->kind) == SSM_HOLDER_UNLINKED;
}

void ssm_ring_leave(struct ssm_pool *pool, uint32_t ring_id)
{
    if (is_used_here(pool, ring_id))
        return;
    clear_bit(pool, ring_id);
    if (has_no_name(pool, ring_id) && ssm_ring_users(pool, ring_id, NULL) == 0)
        collect_soon(pool);
}

void ssm_ring_deliveries_done(struct ssm_pool *pool, uint32_t ring_id)
{
    if (pool->self != SSM_NIL)
        ssm_ring_leave(pool, ring_id);
}

void ssm_rings_leave(struct ssm_pool *pool)
{
    struct ssm_holder_set own = {0};
    ssm_holder_set_add(&own, pool->self);
    ssm_rings_forget(pool, &own, false);
}

void ssm_rings_forget(struct ssm_pool *pool, const struct ssm_holder_set *gone, bool died)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        for (uint32_t id = 0; ssm_holder_set_has(gone, slot) && id < pool->geometry.holders; id += 64) {
            struct ssm_u64 *opened = ssm_opened_at(pool, slot, id);
            for (uint64_t bits = ssm_load_acquire_u64(opened); bits != 0; bits &= bits - 1)
                ssm_peer_goes(pool, id + (uint32_t)__builtin_ctzll(bits), slot, died);
            ssm_store_release_u64(opened, 0); /* O3 */
        }
}

void ssm_rings_renew(struct ssm_pool *pool)
{
    for (struct ssm_ring *ring = pool->rings; ring != NULL; ring = ring->next) {
        const struct ssm_holder *holder = ssm_holder_at(pool, ring->id);
        ring->gone = ring->gone || !ssm_holder_is_ring(pool, ring->id) ||
                     ssm_load_relaxed_u32(&holder->incarnation) != ring->incarnation; /* the registry is locked */
        if (!ring->gone) {
            set_bit(pool, ring->id);
            ssm_peer_opens(ring);
            continue;
        }
        ring->shared = &nobodys;
        ring->table = NULL;
        ring->putters = ring->getters = NULL;
    }
}

uint32_t ssm_ring_users(const struct ssm_pool *pool, uint32_t ring_id, struct ssm_holder_set *users_out)
{
    uint32_t count = 0;
    if (users_out != NULL)
        *users_out = (struct ssm_holder_set){0};
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++) {
        if (!ssm_ring_is_opened_by(pool, slot, ring_id))
            continue;
        count++;
        if (users_out != NULL)
            ssm_holder_set_add(users_out, slot);
    }
    return count;
}

/* ---- its end ---------------------------------------------------------------------------------------------- */

static bool is_left(const struct ssm_pool *pool, uint32_t id)
{
    if (id == pool->self || !has_no_name(pool, id)) /* the own slot is no ring, whatever was written over it */
        return false;
    ssm_fence_seqcst(); /* O2: the kind is there before the bits are read; pairs with O1 in ssm_ring_use() */
    return SSM_HAS_BUG(UNLINK_USED) || ssm_ring_users(pool, id, NULL) == 0;
}

bool ssm_rings_are_left(const struct ssm_pool *pool)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (is_left(pool, id))
            return true;
    return false;
}

/* Can a block carry the ring's bit? Without users and damage, only what the indices and the table say (I8). */
static bool may_hold_blocks(const struct ssm_pool *pool, uint32_t id)
{
    const struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, id);
    return shared == NULL || shared->flags & SSM_REDELIVER || ssm_load_acquire_u64(&shared->producer.lock.word) != 0 ||
           ssm_load_acquire_u64(&shared->consumer.lock.word) != 0 ||
           ssm_load_relaxed_u64(&shared->producer.put_intent) != 0 ||
           ssm_load_acquire_u64(&shared->producer.index) != ssm_load_acquire_u64(&shared->consumer.index);
}

/* Step 2: what is queued goes back to its shards. */
static void free_blocks(struct ssm_pool *pool, uint32_t id)
{
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        if (ssm_block_has(ssm_block_at(pool, i), id))
            ssm_block_let_go(pool, i, id);
}

#if SSM_ASSERTS
static bool holds_nothing(const struct ssm_pool *pool, uint32_t id)
{
    for (uint32_t i = 0; i < ssm_blocks_now(pool); i++)
        if (ssm_block_has(ssm_block_at(pool, i), id))
            return false;
    return true;
}
#endif

static void free_ring(struct ssm_pool *pool, uint32_t id)
{
    struct ssm_holder *holder = ssm_holder_at(pool, id);
    const uint32_t ring_number = ssm_load_relaxed_u32(&holder->ring_id);
    if (may_hold_blocks(pool, id) && !SSM_HAS_BUG(UNLINK_QUEUED))
        free_blocks(pool, id);
    SSM_EXPENSIVE(SSM_HAS_BUG(UNLINK_QUEUED) || holds_nothing(pool, id));
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_NONE);
    ssm_fence_release(); /* O5 -> O6 in is_same_ring(): the kind goes before the memory is another one's */
    ssm_registry_ids_free(pool, SSM_REGISTRY_IDS_SLOTS, id);
    ssm_registry_ids_free(pool, SSM_REGISTRY_IDS_RINGS, ring_number);
}

uint32_t ssm_rings_collect(struct ssm_pool *pool)
{
    uint32_t freed = 0;
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (is_left(pool, id)) {
            free_ring(pool, id);
            freed++;
        }
    if (freed > 0)
        ssm_carver_collect(pool);
    return freed;
}

void ssm_ring_unlink_locked(struct ssm_pool *pool, uint32_t ring_id)
{
    ssm_store_release_u32(&ssm_holder_at(pool, ring_id)->kind, SSM_HOLDER_UNLINKED);
}

/* Step 1. Needs the registry locked. */
static void take_name(struct ssm_pool *pool, uint32_t id)
{
    ssm_ring_unlink_locked(pool, id);
    ssm_rings_collect(pool);
}

int ssm_ring_unlink(struct ssm_ring *ring)
{
    int result = ssm_registry_begin(ring->pool, SSM_POOL_PATIENCE_NS);
    if (result != 0)
        return result;
    if (ring->gone || ssm_load_relaxed_u32(&ssm_holder_at(ring->pool, ring->id)->kind) != SSM_HOLDER_RING)
        result = -ENOENT;
    else
        take_name(ring->pool, ring->id);
    ssm_registry_end(ring->pool);
    return result;
}

int ssm_ring_unlink_name(struct ssm_pool *pool, const char *name)
{
    int result = ssm_registry_begin(pool, SSM_POOL_PATIENCE_NS);
    if (result != 0)
        return result;
    const uint32_t id = ssm_pool_is_whole(pool) ? ssm_ring_find(pool, name) : SSM_NIL;
    if (id == SSM_NIL)
        result = -ENOENT;
    else
        take_name(pool, id);
    ssm_registry_end(pool);
    return result;
}

/* ---- looking by a handle ---------------------------------------------------------------------------------- */

/* Is the ring still there that had this slot in this incarnation? What was read of it before was its own then: a
 * process that frees it changes the kind before its memory is another ring's. */
static bool is_same_ring(const struct ssm_pool *pool, uint32_t id, uint32_t incarnation)
{
    ssm_fence_acquire(); /* O6: all of it was read before the kind is; pairs with O5 in free_ring() */
    return ssm_holder_is_ring(pool, id) && ssm_load_acquire_u32(&ssm_holder_at(pool, id)->incarnation) == incarnation;
}

int ssm_ring_see(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring_seen *seen_out)
{
    seen_out->incarnation = ssm_load_acquire_u32(&ssm_holder_at(pool, holder_id)->incarnation);
    if (!ssm_holder_is_ring(pool, holder_id))
        return -ENOENT;
    seen_out->id = holder_id;
    seen_out->shared = ssm_ring_shared_at(pool, holder_id);
    seen_out->slots = seen_out->shared != NULL ? ssm_ring_slots_now(seen_out->shared, seen_out->shared->capacity) : 0;
    if (!is_same_ring(pool, holder_id, seen_out->incarnation))
        return -ENOENT;
    return seen_out->slots != 0 ? 0 : -SSM_E_CORRUPT;
}

bool ssm_ring_seen_is_there(const struct ssm_pool *pool, const struct ssm_ring_seen *seen)
{
    return is_same_ring(pool, seen->id, seen->incarnation);
}

/* Of a process with a slot it is, since the ring has its bit. */
static bool is_there(const struct ssm_ring *ring)
{
    return !ring->gone && (ring->pool->self != SSM_NIL || is_same_ring(ring->pool, ring->id, ring->incarnation));
}

static bool end_look(const struct ssm_ring *ring, bool there)
{
    ssm_pool_leave(ring->pool);
    return there;
}

bool ssm_ring_look_begin(const struct ssm_ring *ring)
{
    struct ssm_pool *pool = ring->pool;
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_take(&pool->thread_lock);
    return (!(pool->status & SSM_STATUS_CLOSED) && is_there(ring)) || end_look(ring, false);
}

bool ssm_ring_look_end(const struct ssm_ring *ring)
{
    return end_look(ring, is_there(ring));
}

int ssm_ring_is_unlinked(const struct ssm_ring *ring)
{
    bool named = false;
    if (ssm_ring_look_begin(ring)) {
        named = !has_no_name(ring->pool, ring->id);
        named = ssm_ring_look_end(ring) && named;
    }
    return !named;
}

int ssm_ring_is_same(const struct ssm_ring *ring, const struct ssm_ring *one)
{
    return ring->id == one->id && ring->incarnation == one->incarnation;
}
