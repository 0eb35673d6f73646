/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder table; see registry.h. */
#include "registry.h"

#include "liveness.h"
#include "lock_file.h"
#include "registry_ids.h"
#include "sparse.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NAP_NS UINT64_C(200000)
#define LOOKS  3 /* at a descriptor that the program may be closing or replacing */

/* ---- descriptors ----------------------------------------------------------------------------------------------- */

/* Locks a byte by a kept description. If the program has closed its descriptor, opens another description; the locks of
 * the former one are gone then. -EAGAIN if another process has the lock. */
static int lock_kept(struct ssm_pool *pool, struct ssm_description *kept, uint64_t byte)
{
    for (int look = 0; look < LOOKS; look++) {
        int result = 0, fd;
        if (!ssm_file_is(kept->fd, ssm_pool_lock_file(pool), NULL)) {
            ssm_description_drop(kept, ssm_pool_lock_file(pool));
            fd = ssm_pool_lock_fd(pool);
            result = fd < 0 ? fd : ssm_description_open(fd, kept);
        }
        if (result == 0)
            result = ssm_byte_try_lock(kept->fd, byte);
        if (result == -EAGAIN || (result == 0 && ssm_file_is(kept->fd, ssm_pool_lock_file(pool), NULL)))
            return result;
        if (result != -EBADF && result != 0)
            return result; /* no descriptor is free, or the file cannot be opened */
    }
    return -EBADF; /* the program closes each one at once */
}

static void unlock_kept(struct ssm_pool *pool, struct ssm_description *kept, uint64_t byte)
{
    if (ssm_file_is(kept->fd, ssm_pool_lock_file(pool), NULL))
        ssm_byte_unlock(kept->fd, byte);
    else
        ssm_description_drop(kept, ssm_pool_lock_file(pool)); /* unmaps its page, which ends the lock */
}

int ssm_registry_lock(struct ssm_pool *pool, uint64_t timeout_ns)
{
    for (uint64_t until_ns = 0;;) {
        int result = lock_kept(pool, &pool->registry, SSM_BYTE_REGISTRY);
        if (result != -EAGAIN)
            return result;
        result = timeout_ns == 0 ? -ETIMEDOUT : ssm_pool_nap_within(pool, &until_ns, timeout_ns, NAP_NS);
        if (result != 0)
            return result;
    }
}

int ssm_registry_begin(struct ssm_pool *pool, uint64_t patience_ns)
{
    for (uint64_t until_ns = 0;;) {
        int result = ssm_pool_enter(pool);
        if (result != 0)
            return result;
        result = ssm_registry_lock(pool, 0);
        if (result == 0)
            return 0;
        ssm_pool_leave(pool);
        if (result != -ETIMEDOUT || (result = ssm_pool_nap_within(pool, &until_ns, patience_ns, NAP_NS)) != 0)
            return result;
    }
}

void ssm_registry_end(struct ssm_pool *pool)
{
    ssm_registry_unlock(pool);
    ssm_pool_leave(pool);
}

void ssm_registry_unlock(struct ssm_pool *pool)
{
    unlock_kept(pool, &pool->registry, SSM_BYTE_REGISTRY);
}

/* ---- slots ----------------------------------------------------------------------------------------------------- */

uint32_t ssm_registry_find_free(struct ssm_pool *pool)
{
    return ssm_registry_ids_peek(pool, SSM_REGISTRY_IDS_SLOTS);
}

void ssm_registry_mark_used(struct ssm_pool *pool, uint32_t slot)
{
    struct ssm_u32 *high = &ssm_superblock_of(pool)->holder_high;
    SSM_ASSERT(slot < pool->geometry.holders);
    ssm_registry_ids_take(pool, SSM_REGISTRY_IDS_SLOTS, slot); /* no effect on the slot of a dead process */
    if (slot >= ssm_load_relaxed_u32(high))                    /* only the owner of the registry writes it */
        ssm_store_release_u32(high, slot + 1); /* M1 -> M2 in ssm_holder_high(): before its kind, or a block */
}

/* Returns 0 if all RMIDs are in use: a pool can have more processes than RMIDs. */
static uint32_t take_rmid(struct ssm_pool *pool)
{
    uint32_t rmid = ssm_registry_ids_alloc(pool, SSM_REGISTRY_IDS_RMIDS);
    return rmid != SSM_NIL ? rmid : 0;
}

/* Writes the incarnation first. From then on, locks in the name of the former owner count as a dead process's. */
static void write_slot(struct ssm_pool *pool, uint32_t slot)
{
    struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t incarnation = ssm_load_relaxed_u32(&holder->incarnation) + 1;
    uint32_t pid = (uint32_t)getpid();
    uint32_t former_rmid = ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_PROCESS
                             ? ssm_load_relaxed_u32(&holder->rmid)
                             : 0;
    ssm_store_release_u32(&holder->incarnation, incarnation); /* J1 -> J2 in ssm_holder_is_dead() */
    ssm_store_relaxed_u32(&holder->pid, pid);
    ssm_store_relaxed_u32(&holder->rmid, take_rmid(pool));
    ssm_registry_ids_free(pool, SSM_REGISTRY_IDS_RMIDS, former_rmid);
    ssm_store_relaxed_u64(&holder->peak_bytes, 0);
    ssm_store_relaxed_u32(&holder->waiting, 0);
    ssm_store_relaxed_u32(&holder->letting_go, 0);
    ssm_store_relaxed_u32(&holder->no_membarrier, pool->no_membarrier);
    ssm_store_relaxed_u64(&holder->since_ns, ssm_clock_ns());
    memcpy(holder->name, pool->name, sizeof holder->name);
    ssm_registry_mark_used(pool, slot);
    /* K1 -> K2 in ssm_holder_slot_is_dead(): the slot is seen whole. */
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_PROCESS);
    SSM_ASSERT(pool->self == SSM_NIL && slot < pool->geometry.holders);
    pool->self = slot;
    pool->mark = ssm_mark_of(slot);
    pool->home = pid % pool->geometry.shards;
    pool->lock_word = (uint64_t)incarnation << 32 | (slot + 1);
    ssm_pool_own_classes(pool);
}

/* -EAGAIN if another process holds the slot's liveness lock. */
static int lock_slot(struct ssm_pool *pool, uint32_t slot)
{
    int result = lock_kept(pool, &pool->alive, SSM_BYTE_HOLDER(slot));
    if (result == 0) /* the page keeps the lock, and without a descriptor the program cannot close one */
        ssm_file_close(&pool->alive.fd, ssm_pool_lock_file(pool));
    return result;
}

/* Locks the first slot that is free (or a dead process's) and can be locked. Some cannot: users with read access can
 * hold read locks; a forked child shares the description until its handler runs; and a damaged slot may only claim to
 * be free. */
static int lock_any_slot(struct ssm_pool *pool, bool dead, uint32_t *slot_out)
{
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++) {
        if (dead ? !ssm_holder_slot_is_dead(pool, slot)
                 : ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) != SSM_HOLDER_NONE)
            continue;
        int result = lock_slot(pool, slot);
        *slot_out = slot;
        if (result != -EAGAIN)
            return result;
    }
    return -SSM_E_HOLDERS;
}

/* Before the slot becomes a process's. If a ring had it before, it has no caches yet. Caches stay for the next
 * owner. */
static int reserve_caches(struct ssm_pool *pool, uint32_t slot)
{
    const struct ssm_geometry *g = &pool->geometry;
    const uint64_t bytes = (uint64_t)g->class_count * g->cache_bytes;
    const int result = ssm_sparse_reserve(pool, g->caches_start + slot * bytes, bytes);
    if (result == 0)
        ssm_store_release_u32(&ssm_holder_at(pool, slot)->has_caches, 1); /* W1 -> W2 in ssm_slot_has_caches() */
    return result;
}

int ssm_registry_take(struct ssm_pool *pool, bool at_once, bool *adopted_out)
{
    if (!at_once && ssm_registry_ids_peek(pool, SSM_REGISTRY_IDS_RMIDS) == SSM_NIL)
        return -EAGAIN;
    uint32_t slot = ssm_registry_find_free(pool);
    int result = slot != SSM_NIL ? lock_slot(pool, slot) : -SSM_E_HOLDERS;
    *adopted_out = false;
    if (result == -EAGAIN)
        result = lock_any_slot(pool, false, &slot);
    if (result == -SSM_E_HOLDERS) {
        *adopted_out = true;
        result = lock_any_slot(pool, true, &slot);
    }
    if (result == 0 && (result = reserve_caches(pool, slot)) != 0)
        ssm_description_drop(&pool->alive, ssm_pool_lock_file(pool));
    if (result != 0)
        return result;
    write_slot(pool, slot);
    if (pool->locks.path[0] != 0)
        ssm_lock_file_show(pool);
    return 0;
}

void ssm_registry_abandon(struct ssm_pool *pool)
{
    ssm_description_drop(&pool->alive, ssm_pool_lock_file(pool));
    ssm_description_drop(&pool->shown, &pool->file);
    pool->self = SSM_NIL;
}

void ssm_registry_release(struct ssm_pool *pool, uint32_t slot)
{
    SSM_ASSERT(slot < pool->geometry.holders);
    struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t rmid = ssm_load_relaxed_u32(&holder->rmid);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_PROCESS);
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_NONE);
    ssm_registry_ids_free(pool, SSM_REGISTRY_IDS_SLOTS, slot);
    ssm_registry_ids_free(pool, SSM_REGISTRY_IDS_RMIDS, rmid);
}

void ssm_registry_leave(struct ssm_pool *pool)
{
    SSM_ASSERT(pool->pinned == 0);
    ssm_registry_release(pool, pool->self);
    ssm_registry_abandon(pool);
}

bool ssm_holder_is_dead(const struct ssm_pool *pool, uint32_t slot, uint32_t incarnation)
{
    if (slot >= pool->geometry.holders)
        return true; /* a damaged lock word names nobody */
    if (ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->incarnation) != incarnation) /* J2 */
        return true;
    return slot != pool->self && !ssm_holder_is_alive(pool, slot);
}

bool ssm_holder_slot_is_dead(const struct ssm_pool *pool, uint32_t slot)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    return ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_PROCESS && /* K2 */
           ssm_holder_is_dead(pool, slot, ssm_load_relaxed_u32(&holder->incarnation));
}
