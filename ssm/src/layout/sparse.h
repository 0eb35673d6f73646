/* SPDX-License-Identifier: Apache-2.0
 *
 * The sparse part of a growing pool's segment: tables whose end lies far behind what most pools need of them. The file
 * is as long as if they were full, and every process maps them whole. Their pages are reserved when they are needed,
 * before anybody touches them. On tmpfs a touch, even a read, allocates a page that is not reserved; if none is left,
 * it is SIGBUS.
 *
 * So each of these tables has a word that says how much of it there is, and that word grows only after the memory is
 * reserved:
 *   descriptors, lists, extents, tree of the arena   `packets` of struct ssm_arena
 *   bits of its units                                `bit_words` of the same
 *   caches                                           `has_caches` of each holder slot
 *   tree of the carver                               its own `fresh`
 *   the metadata area                                what the carver has allocated; slots of a ring: `slot_count`
 * Reserving twice changes nothing. So a death between the two leaves memory that nobody uses, and that the next process
 * reserves again. None of it is given back before the pool ends. For the arena's own memory see arena.h.
 *
 * In a pool that does not grow, all is reserved when it is made, and these functions do nothing. */
#ifndef SSM_SPARSE_H
#define SSM_SPARSE_H

#include "attachment.h"

/* Reserves bytes of the segment; 0, -ENOSPC or another -errno. */
int ssm_sparse_reserve(struct ssm_pool *pool, uint64_t start, uint64_t bytes);
/* Reserves head, nodes and journal of a range tree of that capacity which is about to have so many nodes. */
int ssm_sparse_reserve_tree(struct ssm_pool *pool, uint64_t start, uint32_t capacity, uint32_t nodes);

/* How many blocks of the arena there are. */
static inline uint32_t ssm_arena_packets_now(const struct ssm_pool *pool)
{
    const struct ssm_geometry *g = &pool->geometry;
    if (g->arena_packets == 0)
        return 0;
    /* W2: pairs with W1 in add_packets_locked() */
    const uint32_t packets = ssm_load_acquire_u32(&((const struct ssm_arena *)(pool->base + g->arena_start))->packets);
    return packets < g->arena_packets ? packets : g->arena_packets;
}

/* Blocks from here on are not there yet: loops over all blocks end here, and handles of later blocks are stale. */
static inline uint32_t ssm_blocks_now(const struct ssm_pool *pool)
{
    return pool->geometry.block_total - pool->geometry.arena_packets + ssm_arena_packets_now(pool);
}

/* The same of one class. */
static inline uint32_t ssm_class_blocks_now(const struct ssm_pool *pool, uint32_t class_idx)
{
    return ssm_class_is_arena(pool, class_idx) ? ssm_arena_packets_now(pool)
                                               : pool->geometry.classes[class_idx].block_count;
}

/* Is there a block of that index, which another process wrote? */
static inline bool ssm_block_exists(const struct ssm_pool *pool, uint32_t block_idx)
{
    return block_idx < pool->geometry.block_total - pool->geometry.arena_packets || block_idx < ssm_blocks_now(pool);
}

/* Has the slot caches? One that only rings have had has none. */
static inline bool ssm_slot_has_caches(const struct ssm_pool *pool, uint32_t slot)
{
    /* W2: pairs with W1 in reserve_caches() */
    return pool->geometry.arena_units == 0 || ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->has_caches) != 0;
}

#endif
