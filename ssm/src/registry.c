/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder table; see registry.h. */
#include "registry.h"

#include "liveness.h"
#include "numbers.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define NAP_NS UINT64_C(200000)

int ssm_registry_lock(struct ssm_pool *pool, uint64_t timeout_ns)
{
    uint64_t until_ns = timeout_ns == 0 ? 0 : ssm_now_ns() + timeout_ns;
    for (;;) {
        int result = ssm_byte_try_lock(pool->fd, SSM_BYTE_REGISTRY);
        if (result != -EAGAIN)
            return result;
        if (timeout_ns == 0 || ssm_now_ns() >= until_ns)
            return -ETIMEDOUT;
        ssm_nap_ns(NAP_NS);
    }
}

void ssm_registry_unlock(struct ssm_pool *pool)
{
    ssm_byte_unlock(pool->fd, SSM_BYTE_REGISTRY);
}

uint32_t ssm_registry_find_free(struct ssm_pool *pool)
{
    return ssm_numbers_peek(pool, SSM_NUMBERS_SLOTS);
}

void ssm_registry_mark_used(struct ssm_pool *pool, uint32_t slot)
{
    struct ssm_u32 *high = &ssm_superblock_of(pool)->holder_high;
    ssm_numbers_take(pool, SSM_NUMBERS_SLOTS, slot); /* no effect on a dead process's, which is taken already */
    if (slot >= ssm_load_relaxed_u32(high)) /* only the owner of the registry writes it */
        ssm_store_release_u32(high, slot + 1);
}

static uint32_t find_dead(const struct ssm_pool *pool)
{
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++)
        if (ssm_holder_slot_is_dead(pool, slot))
            return slot;
    return SSM_NIL;
}

/* 0 when every RMID has a process, as some must where more than 1024 are attached. */
static uint32_t take_rmid(struct ssm_pool *pool)
{
    uint32_t rmid = ssm_numbers_alloc(pool, SSM_NUMBERS_RMIDS);
    if (rmid == SSM_NIL) {
        ssm_nap_ns(SSM_RMID_REST_NS);
        rmid = ssm_numbers_alloc(pool, SSM_NUMBERS_RMIDS);
    }
    return rmid != SSM_NIL ? rmid : 0;
}

/* The incarnation goes first: from then on locks in the name of the former owner are a dead process's. */
static void write_slot(struct ssm_pool *pool, uint32_t slot)
{
    struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t incarnation = ssm_load_relaxed_u32(&holder->incarnation) + 1;
    uint32_t pid = (uint32_t)getpid();
    uint32_t former_rmid = ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_PROCESS ? ssm_load_relaxed_u32(&holder->rmid) : 0;
    ssm_store_release_u32(&holder->incarnation, incarnation);
    ssm_store_relaxed_u32(&holder->pid, pid);
    ssm_store_relaxed_u32(&holder->rmid, take_rmid(pool));
    ssm_numbers_free(pool, SSM_NUMBERS_RMIDS, former_rmid);
    ssm_store_relaxed_u64(&holder->peak_bytes, 0);
    ssm_store_relaxed_u32(&holder->waiting, 0);
    ssm_store_relaxed_u32(&holder->letting_go, 0);
    ssm_store_relaxed_u32(&holder->fenced, pool->fenced);
    memcpy(holder->name, pool->name, sizeof holder->name);
    ssm_registry_mark_used(pool, slot);
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_PROCESS); /* K1 -> K2 in ssm_holder_slot_is_dead(): the slot is seen whole */
    pool->self = slot;
    pool->mark = ssm_mark_of(slot);
    pool->home = pid % pool->geometry.shards;
    pool->lock_word = (uint64_t)incarnation << 32 | (slot + 1);
    ssm_classes_own(pool);
}

int ssm_registry_take(struct ssm_pool *pool, bool *adopted_out)
{
    uint32_t slot = ssm_registry_find_free(pool);
    *adopted_out = slot == SSM_NIL;
    if (slot == SSM_NIL)
        slot = find_dead(pool);
    if (slot == SSM_NIL)
        return -SSM_E_HOLDERS;
    int result = ssm_byte_try_lock(pool->fd, SSM_BYTE_HOLDER(slot));
    if (result != 0)
        return result == -EAGAIN ? -SSM_E_CORRUPT : result; /* a live process in a slot that says it is free */
    write_slot(pool, slot);
    return 0;
}

void ssm_registry_abandon(struct ssm_pool *pool)
{
    ssm_byte_unlock(pool->fd, SSM_BYTE_HOLDER(pool->self));
    pool->self = SSM_NIL;
}

void ssm_registry_release(struct ssm_pool *pool, uint32_t slot)
{
    struct ssm_holder *holder = ssm_holder_at(pool, slot);
    uint32_t rmid = ssm_load_relaxed_u32(&holder->rmid);
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_NONE);
    ssm_numbers_free(pool, SSM_NUMBERS_SLOTS, slot);
    ssm_numbers_free(pool, SSM_NUMBERS_RMIDS, rmid);
}

void ssm_registry_leave(struct ssm_pool *pool)
{
    ssm_registry_release(pool, pool->self);
    ssm_registry_abandon(pool);
}

bool ssm_holder_is_dead(const struct ssm_pool *pool, uint32_t slot, uint32_t incarnation)
{
    if (slot >= pool->geometry.holders)
        return true; /* nobody: a scribbled lock word */
    if (ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->incarnation) != incarnation)
        return true;
    return slot != pool->self && !ssm_byte_is_locked(pool->fd, SSM_BYTE_HOLDER(slot));
}

bool ssm_holder_slot_is_dead(const struct ssm_pool *pool, uint32_t slot)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    return ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_PROCESS && /* K2 */
           ssm_holder_is_dead(pool, slot, ssm_load_relaxed_u32(&holder->incarnation));
}
