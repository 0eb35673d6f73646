/* SPDX-License-Identifier: Apache-2.0
 *
 * Redelivery; see redelivery.h. */
#include "redelivery.h"

#include "block.h"
#include "owner.h"
#include "registry.h"
#include "seed_bug.h"
#include "segment.h"

#include <stdlib.h>

#define FRONT   (UINT32_C(1) << 31)
#define HELD    (UINT32_C(1) << 30)
#define STATE   (FRONT | HELD)
#define LEAVING (UINT32_C(1) << 29)
#define OWNER   (LEAVING - 1)

uint32_t ssm_redelivery_self(const struct ssm_pool *pool)
{
    return ssm_owner_self(pool) & OWNER;
}

static struct ssm_redelivery *table_of(const struct ssm_pool *pool, uint32_t ring_id)
{
    struct ssm_redelivery *table = pool->redeliveries;
    while (table != NULL && table->ring_id != ring_id)
        table = table->next;
    return table;
}

bool ssm_redelivery_is_open(const struct ssm_pool *pool, uint32_t ring_id)
{
    const struct ssm_redelivery *table = table_of(pool, ring_id);
    return table != NULL && table->open > 0;
}

struct ssm_redelivery *ssm_redelivery_open(struct ssm_pool *pool, uint32_t ring_id, struct ssm_delivery *entries)
{
    struct ssm_redelivery *table = table_of(pool, ring_id);
    SSM_ASSERT(table == NULL || table->open == 0 || table->entries == entries);
    if (table != NULL) {
        table->entries = entries;
        return table;
    }
    table = malloc(sizeof *table);
    struct ssm_own_delivery *own = ssm_private_map(pool->geometry.block_total * sizeof *own);
    if (table == NULL || own == NULL) {
        free(table);
        ssm_private_unmap(own, pool->geometry.block_total * sizeof *own);
        return NULL;
    }
    *table = (struct ssm_redelivery){.next = pool->redeliveries, .entries = entries, .own = own, .ring_id = ring_id};
    pool->redeliveries = table;
    return table;
}

void ssm_redelivery_dispose(struct ssm_pool *pool)
{
    while (pool->redeliveries != NULL) {
        struct ssm_redelivery *table = pool->redeliveries;
        pool->redeliveries = table->next;
        ssm_private_unmap(table->own, pool->geometry.block_total * sizeof *table->own);
        free(table);
    }
}

void ssm_redelivery_forget(struct ssm_pool *pool)
{
    for (struct ssm_redelivery *table = pool->redeliveries; table != NULL; table = table->next) {
        ssm_private_clear(table->own, pool->geometry.block_total * sizeof *table->own);
        table->open = 0;
    }
}

static struct ssm_delivery *entry_of(const struct ssm_redelivery *table, uint64_t handle)
{
    return &table->entries[(uint32_t)handle];
}

/* Returns what the entry says of that packet: state and owner, or 0. */
static uint32_t said_of(uint64_t taken, uint64_t handle)
{
    return taken >> 32 == handle >> 32 && (uint32_t)taken & STATE ? (uint32_t)taken : 0;
}

/* Has that process taken the packet? It may be about to hand it on. */
static bool is_held_by(uint32_t said, uint32_t owner)
{
    return (said & ~(FRONT | LEAVING)) == (HELD | owner);
}

static uint64_t entry_for(uint64_t handle, uint32_t said)
{
    return (handle & ~(uint64_t)UINT32_MAX) | said;
}

/* ---- getting and putting -------------------------------------------------------------------------------------- */

bool ssm_redelivery_take(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle,
                         uint64_t position)
{
    struct ssm_delivery *entry = entry_of(table, handle);
    SSM_ASSERT((uint32_t)handle < pool->geometry.block_total);
    uint64_t seen = ssm_load_acquire_u64(&entry->taken), mine = entry_for(handle, HELD | ssm_redelivery_self(pool));
    while (said_of(seen, handle) != FRONT) {
        ssm_store_relaxed_u64(&entry->position, position);
        ssm_store_relaxed_u64(&entry->handed_out, 1);
        if (ssm_cas_acqrel_u64(&entry->taken, &seen, mine)) /* D3: before the own bit is set and the ring's cleared */
            return true;
        /* The process that put it back here has just made its entry void, or a reaper did so for a dead one. */
    }
    return false;
}

/* Returns the handle if the block's packet was returned and can be taken. */
static bool returned_handle(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx,
                            uint64_t *handle_out)
{
    uint64_t taken = ssm_load_acquire_u64(&table->entries[block_idx].taken);
    if (((uint32_t)taken & STATE) != FRONT)
        return false; /* most entries */
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    *handle_out = ssm_handle_of((uint32_t)(taken >> 32), block_idx);
    /* Reads the bit first: while it is set, the generation stays. If it is clear, a reaper is about to set it. */
    return ssm_block_has(block, table->ring_id) && ssm_load_relaxed_u32(&block->generation) == taken >> 32;
}

bool ssm_redelivery_take_first(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t *handle_out,
                               uint32_t *left_out)
{
    uint64_t first = UINT64_MAX, handle;
    uint32_t found = 0;
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        if (!returned_handle(pool, table, i, &handle))
            continue;
        uint64_t position = ssm_load_relaxed_u64(&table->entries[i].position); /* was written before the entry */
        if (found++ == 0 || position < first) {
            first = position;
            *handle_out = handle;
        }
    }
    *left_out = found == 0 ? 0 : found - 1;
    if (found == 0)
        return false;
    struct ssm_delivery *entry = entry_of(table, *handle_out);
    uint64_t seen = entry_for(*handle_out, FRONT);
    uint64_t mine = entry_for(*handle_out, FRONT | HELD | ssm_redelivery_self(pool));
    if (!ssm_cas_acqrel_u64(&entry->taken, &seen, mine)) /* D3; fails if it is damaged */
        return false;
    ssm_store_relaxed_u64(&entry->handed_out, ssm_load_relaxed_u64(&entry->handed_out) + 1);
    return true;
}

bool ssm_redelivery_is_returned(const struct ssm_redelivery *table, uint64_t handle)
{
    return said_of(ssm_load_acquire_u64(&entry_of(table, handle)->taken), handle) == FRONT; /* D2: pairs with D1 */
}

bool ssm_redelivery_was_returned(const struct ssm_redelivery *table, uint64_t handle)
{
    return said_of(ssm_load_acquire_u64(&entry_of(table, handle)->taken), handle) & FRONT;
}

bool ssm_redelivery_is_under_way(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t handle)
{
    uint32_t said = said_of(ssm_load_acquire_u64(&entry_of(table, handle)->taken), handle); /* D4: pairs with D1, D3 */
    return said != 0 && !is_held_by(said, ssm_redelivery_self(pool));
}

uint32_t ssm_redelivery_count(const struct ssm_pool *pool, const struct ssm_redelivery *table)
{
    uint32_t count = 0;
    uint64_t handle;
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        count += returned_handle(pool, table, i, &handle);
    return count;
}

uint64_t ssm_redelivery_oldest(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint64_t position,
                               bool *returned_out)
{
    *returned_out = false;
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        const struct ssm_delivery *entry = &table->entries[i];
        const uint64_t taken = ssm_load_acquire_u64(&entry->taken);
        if (said_of(taken, ssm_handle_now(pool, i)) == 0)
            continue;
        /* Was written before the entry. If that has ended since, it may be the position of the next delivery: larger. */
        const uint64_t at = ssm_load_relaxed_u64(&entry->position);
        if (at < position || (at == position && !*returned_out)) {
            position = at;
            *returned_out = ((uint32_t)taken & STATE) == FRONT;
        }
    }
    return position;
}

bool ssm_redelivery_is_owed(const struct ssm_pool *pool, const struct ssm_redelivery *table)
{
    uint32_t living = pool->self; /* the last one that was found alive: a test costs a system call */
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        uint64_t taken = ssm_load_acquire_u64(&table->entries[i].taken);
        uint32_t slot = ssm_owner_slot((uint32_t)taken);
        if (!((uint32_t)taken & STATE) || taken >> 32 != ssm_load_relaxed_u32(&ssm_block_at(pool, i)->generation))
            continue;
        if (!((uint32_t)taken & HELD))
            return true;
        if (slot == living || slot == pool->self || slot >= pool->geometry.holders)
            continue;
        if (ssm_holder_slot_is_dead(pool, slot))
            return true;
        living = slot;
    }
    return false;
}

/* ---- freeing and handing on ------------------------------------------------------------------------------------- */

/* Makes an entry void if it names the owner; with `leaving`, only if it is marked as leaving. */
static void make_void(const struct ssm_redelivery *table, uint64_t handle, uint32_t owner, bool leaving)
{
    struct ssm_delivery *entry = entry_of(table, handle);
    uint64_t seen = ssm_load_acquire_u64(&entry->taken);
    uint32_t said = said_of(seen, handle);
    if (is_held_by(said, owner) && (said & LEAVING || !leaving))
        ssm_cas_acqrel_u64(&entry->taken, &seen, 0); /* fails if it was put back here, and taken since */
}

void ssm_redelivery_complete(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t owner)
{
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        if ((uint32_t)ssm_load_relaxed_u64(&table->entries[i].taken) & LEAVING) /* few: make_void() looks again */
            make_void(table, ssm_handle_now(pool, i), owner, true);
}

void ssm_delivery_begin(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx, uint32_t serial)
{
    SSM_ASSERT(pool->claims[block_idx].references > 0);
    if (table->own[block_idx].references == 0)
        table_of(pool, table->ring_id)->open++; /* `table` itself, which callers only read */
    const struct ssm_delivery *entry = &table->entries[block_idx];
    table->own[block_idx] = (struct ssm_own_delivery){
        .serial = serial,
        .references = 1,
        .position = ssm_load_relaxed_u64(&entry->position), /* both are mine, as the entry is */
        .handed_out = ssm_load_relaxed_u64(&entry->handed_out),
    };
    pool->claims[block_idx].flags |= SSM_CLAIM_DELIVERED;
}

uint64_t ssm_delivery_name(const struct ssm_redelivery *table, uint32_t block_idx)
{
    return (uint64_t)(table->ring_id + 1) << 32 | table->own[block_idx].serial;
}

const struct ssm_own_delivery *ssm_delivery_look(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery)
{
    const struct ssm_redelivery *table = delivery == SSM_ANY_DELIVERY ? ssm_delivery_find(pool, block_idx, delivery)
                                                                      : table_of(pool, (uint32_t)(delivery >> 32) - 1);
    if (table == NULL || (delivery != SSM_ANY_DELIVERY && ssm_delivery_name(table, block_idx) != delivery))
        return NULL;
    return &table->own[block_idx];
}

const struct ssm_redelivery *ssm_delivery_find(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery)
{
    const struct ssm_redelivery *found = NULL;
    const bool any = delivery == SSM_ANY_DELIVERY;
    if (!(pool->claims[block_idx].flags & SSM_CLAIM_DELIVERED))
        return NULL;
    for (const struct ssm_redelivery *table = pool->redeliveries; table != NULL; table = table->next) {
        if (table->own[block_idx].references == 0 || !(any || ssm_delivery_name(table, block_idx) == delivery))
            continue;
        if (found == NULL || (int32_t)(table->own[block_idx].serial - found->own[block_idx].serial) > 0)
            found = table;
    }
    return found;
}

void ssm_delivery_share(const struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery)
{
    const struct ssm_redelivery *table = ssm_delivery_find(pool, block_idx, delivery);
    if (table != NULL)
        table->own[block_idx].references++;
}

void ssm_delivery_leave(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx)
{
    struct ssm_delivery *entry = &table->entries[block_idx];
    SSM_ASSERT(table->own[block_idx].references > 0);
    uint64_t seen = ssm_load_acquire_u64(&entry->taken);
    if (is_held_by(said_of(seen, ssm_handle_now(pool, block_idx)), ssm_redelivery_self(pool)))
        ssm_cas_acqrel_u64(&entry->taken, &seen, seen | LEAVING); /* may fail as in make_void() */
}

void ssm_delivery_end_at_last(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx)
{
    SSM_ASSERT(table->own[block_idx].references > 0 && pool->claims[block_idx].flags & SSM_CLAIM_DELIVERED);
    SSM_ASSERT(table->open > 0);
    make_void(table, ssm_handle_now(pool, block_idx), ssm_redelivery_self(pool), false);
    table->own[block_idx].references = 0;
    table_of(pool, table->ring_id)->open--;
    if (ssm_delivery_find(pool, block_idx, SSM_ANY_DELIVERY) == NULL)
        pool->claims[block_idx].flags &= (uint8_t)~SSM_CLAIM_DELIVERED;
}

void ssm_delivery_end(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx)
{
    ssm_delivery_end_at_last(pool, table, block_idx);
    if (table->open == 0)
        pool->on_deliveries_done(pool, table->ring_id);
}

void ssm_delivery_end_all(struct ssm_pool *pool, uint32_t block_idx)
{
    for (const struct ssm_redelivery *table; (table = ssm_delivery_find(pool, block_idx, SSM_ANY_DELIVERY)) != NULL;)
        ssm_delivery_end(pool, table, block_idx);
}

bool ssm_delivery_give_back(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx, bool discard)
{
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    struct ssm_delivery *entry = &table->entries[block_idx];
    const uint64_t handle = ssm_handle_now(pool, block_idx);
    uint64_t seen = ssm_load_acquire_u64(&entry->taken);
    bool back = !discard && is_held_by(said_of(seen, handle), ssm_redelivery_self(pool)) &&
                !ssm_block_has(block, table->ring_id);
    if (back)
        back = ssm_cas_acqrel_u64(&entry->taken, &seen, entry_for(handle, FRONT)); /* D1 */
    if (back) {
        pool->claims[block_idx].flags |= SSM_CLAIM_SHARED; /* other references may be left */
        ssm_block_add(pool, block, table->ring_id);        /* D1: after the entry */
    }
    ssm_delivery_end_at_last(pool, table, block_idx); /* the caller has the registry locked */
    return back;
}

void ssm_delivery_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done)
{
    const struct ssm_redelivery *table = ssm_delivery_find(pool, block_idx, delivery);
    const struct ssm_claim *claim = &pool->claims[block_idx];
    if (SSM_HAS_BUG(VIEW_DELAYS) && claim->references + claim->pins > 1)
        return;
    if (table != NULL && (done || table->own[block_idx].references == 1))
        ssm_delivery_end(pool, table, block_idx);
    else if (table != NULL)
        table->own[block_idx].references--;
}

/* ---- reaping and checking --------------------------------------------------------------------------------------- */

static bool carries_one_of(const struct ssm_pool *pool, const struct ssm_block *block,
                           const struct ssm_holder_set *dead)
{
    for (uint32_t w = 0; w < pool->geometry.holder_words; w++)
        if (ssm_load_relaxed_u64(&block->holders[w]) & dead->words[w])
            return true;
    return false;
}

/* The new state of an entry that names a dead process: FRONT, or 0 if nothing comes back. Compares slots, not
 * incarnations: the process that adopted a slot may have died before it got here. */
static uint32_t verdict_on(const struct ssm_redelivery *table, const struct ssm_block *block, uint32_t said,
                           bool discard)
{
    bool queued = ssm_block_has(block, table->ring_id), held = ssm_block_has(block, ssm_owner_slot(said));
    if (said & FRONT)
        return queued || (held && !discard) ? FRONT : 0; /* no slot has it: it must stay returned */
    return held && !queued && !discard ? FRONT : 0;      /* if queued, its slot still has it */
}

/* True if the packet is a returned one now. */
static bool return_one(struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx,
                       const struct ssm_holder_set *dead, bool discard)
{
    struct ssm_delivery *entry = &table->entries[block_idx];
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint64_t seen = ssm_load_acquire_u64(&entry->taken);
    uint64_t handle = ssm_handle_of(ssm_load_relaxed_u32(&block->generation), block_idx);
    uint32_t said = said_of(seen, handle);
    if (said & HELD) {
        if (!ssm_holder_set_has(dead, ssm_owner_slot(said)))
            return false;
        said = verdict_on(table, block, said, discard);
        if (!ssm_cas_acqrel_u64(&entry->taken, &seen, said != 0 ? entry_for(handle, said) : 0)) /* D1 */
            return false; /* it was queued, and has just been taken */
    }
    if (said != FRONT)
        return false;
    if (ssm_block_has(block, table->ring_id)) /* D4 */
        return true;
    /* D4: reads the entry again, after the bit: a get that took it meanwhile changed it before it cleared the bit (D3).
     * And a dead process must still hold the block, or the entry is damaged. */
    if (ssm_load_acquire_u64(&entry->taken) != entry_for(handle, FRONT) || !carries_one_of(pool, block, dead))
        return false;
    ssm_block_add(pool, block, table->ring_id); /* D1: after the entry, before the dead one's bit is cleared */
    return true;
}

uint32_t ssm_redelivery_return(struct ssm_pool *pool, const struct ssm_redelivery *table,
                               const struct ssm_holder_set *dead, bool discard)
{
    uint32_t returned = 0;
    SSM_ASSERT_SHARED(!ssm_holder_set_has(dead, table->ring_id));
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        if ((uint32_t)ssm_load_acquire_u64(&table->entries[i].taken) & STATE)
            returned += return_one(pool, table, i, dead, discard);
    return returned;
}

const char *ssm_redelivery_fault(const struct ssm_pool *pool, const struct ssm_redelivery *table, uint32_t block_idx)
{
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint64_t taken = ssm_load_acquire_u64(&table->entries[block_idx].taken);
    uint32_t slot = ssm_owner_slot((uint32_t)taken);
    if (!((uint32_t)taken & STATE) || taken >> 32 != ssm_load_relaxed_u32(&block->generation))
        return NULL;
    if (!((uint32_t)taken & HELD))
        return ssm_block_has(block, table->ring_id) ? NULL : "returned to a ring, but not the ring's";
    if (slot >= ssm_holder_high(pool) || ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) != SSM_HOLDER_PROCESS)
        return "delivered to a holder slot that no process has";
    /* Reads the ring's bit first: the process's own is set before that one is cleared. */
    return ssm_block_has(block, table->ring_id) || ssm_block_has(block, slot)
             ? NULL
             : "delivered, but its receiver has it no more";
}

#if SSM_ASSERTS
bool ssm_redelivery_is_valid(const struct ssm_pool *pool, const struct ssm_redelivery *table)
{
    const uint32_t self = ssm_redelivery_self(pool);
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++) {
        const bool open = table->own[i].references > 0;
        const struct ssm_claim *claim = &pool->claims[i];
        if (open && (claim->references == 0 || !(claim->flags & SSM_CLAIM_DELIVERED)))
            return false;
        /* Only this process writes its name, and an entry of another generation is void. */
        const uint64_t taken = ssm_load_acquire_u64(&table->entries[i].taken);
        if (!open && claim->references > 0 && is_held_by(said_of(taken, ssm_handle_now(pool, i)), self))
            return false;
    }
    return true;
}
#endif
