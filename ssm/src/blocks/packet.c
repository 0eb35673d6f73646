/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets: references, pins, and the window into the block (headroom | data | tailroom).
 *
 * The window is in the descriptor, so it travels with the packet. Processes that hold a packet together see each
 * other's changes. Each window that is read is checked against the block: a torn or damaged one is an error, never an
 * access outside the block.
 */
#include "claim.h"
#include "redelivery.h"

#include <errno.h>

struct window {
    struct ssm_block *block;
    uint8_t          *base; /* of the block */
    uint64_t          start, length, block_size;
};

static inline int window_of(struct ssm_pool *pool, uint64_t handle, struct window *window_out)
{
    uint32_t block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    const struct ssm_memory memory = ssm_memory_held(pool, pool->claims[block_idx].class_idx, block_idx);
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    *window_out = (struct window){
        .block = block,
        .base = pool->base + memory.start,
        .start = ssm_load_relaxed_u64(&block->start), /* the ring's index ordered it, or this process wrote it */
        .length = ssm_load_relaxed_u64(&block->length),
        .block_size = memory.bytes,
    };
    if (window_out->start > window_out->block_size || window_out->length > window_out->block_size - window_out->start)
        return -SSM_E_CORRUPT;
    return 0;
}

static inline int view(struct ssm_pool *pool, uint64_t handle, struct ssm_packet *packet_out)
{
    struct window w;
    int result = window_of(pool, handle, &w);
    if (result == 0)
        *packet_out = (struct ssm_packet){
            .data = w.base + w.start,
            .length = w.length,
            .headroom = w.start,
            .tailroom = w.block_size - w.start - w.length,
            .block_size = w.block_size,
        };
    return result;
}

int ssm_packet_view(struct ssm_pool *pool, uint64_t handle, struct ssm_packet *packet_out)
{
    if (ssm_pool_needs_no_lock(pool))
        return view(pool, handle, packet_out);
    SSM_POOL_ENTER(pool);
    return view(pool, handle, packet_out);
}

int ssm_packet_view_many(struct ssm_pool *pool, const uint64_t *handles, uint32_t count, uint8_t **data_out,
                         uint64_t *lengths_out, uint64_t *tags_out)
{
    struct window w;
    int result = 0;
    SSM_POOL_ENTER(pool);
    for (uint32_t i = 0; i < count && (result = window_of(pool, handles[i], &w)) == 0; i++) {
        if (data_out != NULL)
            data_out[i] = w.base + w.start;
        if (lengths_out != NULL)
            lengths_out[i] = w.length;
        if (tags_out != NULL)
            tags_out[i] = ssm_load_relaxed_u64(&w.block->tag);
    }
    return result;
}

enum edge { FRONT, BACK };

/* Moves an edge outwards (bytes added) or inwards (removed). */
static int move_edge(struct ssm_pool *pool, uint64_t handle, enum edge edge, bool outwards, uint64_t bytes,
                     uint8_t **bytes_out)
{
    struct window w;
    SSM_POOL_ENTER(pool);
    int result = window_of(pool, handle, &w);
    uint64_t room = result != 0   ? 0
                  : !outwards     ? w.length
                  : edge == FRONT ? w.start
                                  : w.block_size - w.start - w.length;
    if (result == 0 && bytes > room)
        result = -SSM_E_ROOM;
    if (result == 0) {
        uint64_t old_start = w.start, old_end = w.start + w.length;
        if (edge == FRONT)
            w.start = outwards ? w.start - bytes : w.start + bytes;
        w.length = outwards ? w.length + bytes : w.length - bytes;
        SSM_ASSERT(w.start <= w.block_size && w.length <= w.block_size - w.start);
        /* In this order, the window is inside the block between the two stores, too. */
        if (outwards && edge == FRONT) {
            ssm_store_release_u64(&w.block->start, w.start);
            ssm_store_release_u64(&w.block->length, w.length);
        } else {
            ssm_store_release_u64(&w.block->length, w.length);
            ssm_store_release_u64(&w.block->start, w.start);
        }
        if (bytes_out != NULL)
            *bytes_out = w.base + (edge == FRONT ? (outwards ? w.start : old_start)
                                   : outwards    ? old_end
                                                 : w.start + w.length);
    }
    return result;
}

int ssm_packet_prepend(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out)
{
    return move_edge(pool, handle, FRONT, true, bytes, bytes_out);
}

int ssm_packet_append(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out)
{
    return move_edge(pool, handle, BACK, true, bytes, bytes_out);
}

int ssm_packet_trim_front(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out)
{
    return move_edge(pool, handle, FRONT, false, bytes, bytes_out);
}

int ssm_packet_trim_back(struct ssm_pool *pool, uint64_t handle, uint64_t bytes, uint8_t **bytes_out)
{
    return move_edge(pool, handle, BACK, false, bytes, bytes_out);
}

int ssm_packet_tag(struct ssm_pool *pool, uint64_t handle, uint64_t *tag_out)
{
    struct window w;
    SSM_POOL_ENTER(pool);
    int result = window_of(pool, handle, &w);
    if (result == 0)
        *tag_out = ssm_load_relaxed_u64(&w.block->tag);
    return result;
}

int ssm_packet_set_tag(struct ssm_pool *pool, uint64_t handle, uint64_t tag)
{
    struct window w;
    SSM_POOL_ENTER(pool);
    int result = window_of(pool, handle, &w);
    if (result == 0)
        ssm_store_relaxed_u64(&w.block->tag, tag);
    return result;
}

int ssm_packet_redelivered(struct ssm_pool *pool, uint64_t handle)
{
    SSM_POOL_ENTER(pool);
    uint32_t block_idx = ssm_claim_find(pool, handle);
    return block_idx == SSM_NIL ? -SSM_E_STALE : (pool->claims[block_idx].flags & SSM_CLAIM_REDELIVERED) != 0;
}

/* Copies what is known of a delivery: 1; 0: it is none of this packet's; or -SSM_E_STALE. */
static int look_at_delivery(struct ssm_pool *pool, uint64_t handle, uint64_t delivery,
                            struct ssm_own_delivery *delivery_out)
{
    SSM_POOL_ENTER(pool);
    const uint32_t block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    const struct ssm_own_delivery *found = ssm_delivery_look(pool, block_idx, delivery);
    if (found != NULL)
        *delivery_out = *found;
    return found != NULL;
}

int ssm_packet_position(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, uint64_t *position_out)
{
    struct ssm_own_delivery found = {0};
    const int result = look_at_delivery(pool, handle, delivery, &found);
    if (result > 0)
        *position_out = found.position;
    return result;
}

int ssm_packet_deliveries(struct ssm_pool *pool, uint64_t handle, uint64_t delivery, uint64_t *count_out)
{
    struct ssm_own_delivery found = {0};
    const int result = look_at_delivery(pool, handle, delivery, &found);
    if (result > 0)
        *count_out = found.handed_out;
    return result;
}

int ssm_packet_is_alone(struct ssm_pool *pool, uint64_t handle)
{
    SSM_POOL_ENTER(pool);
    const uint32_t block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        return -SSM_E_STALE;
    return pool->claims[block_idx].references == 1 && ssm_block_is_mine(pool, ssm_block_at(pool, block_idx));
}

uint64_t ssm_packet_delivery(struct ssm_pool *pool, uint64_t handle)
{
    if (ssm_pool_enter(pool) != 0)
        return SSM_NO_DELIVERY;
    uint32_t block_idx = ssm_claim_find(pool, handle);
    const struct ssm_redelivery *table = block_idx == SSM_NIL ? NULL
                                                              : ssm_delivery_find(pool, block_idx, SSM_ANY_DELIVERY);
    uint64_t delivery = table == NULL ? SSM_NO_DELIVERY : ssm_delivery_name(table, block_idx);
    ssm_pool_leave(pool);
    return delivery;
}

int ssm_packet_hold_of(struct ssm_pool *pool, uint64_t handle, uint64_t delivery)
{
    SSM_POOL_ENTER(pool);
    int result = 0;
    uint32_t block_idx = ssm_claim_find(pool, handle);
    if (block_idx == SSM_NIL)
        result = -SSM_E_STALE;
    else if (pool->claims[block_idx].references == UINT32_MAX)
        result = -EOVERFLOW;
    else
        pool->claims[block_idx].references++;
    if (result == 0)
        ssm_delivery_share(pool, block_idx, delivery);
    return result;
}

int ssm_packet_hold(struct ssm_pool *pool, uint64_t handle)
{
    return ssm_packet_hold_of(pool, handle, SSM_NO_DELIVERY);
}

int ssm_packet_pin(struct ssm_pool *pool, uint64_t handle)
{
    SSM_POOL_ENTER(pool);
    int result = 0;
    uint32_t block_idx = ssm_claim_find(pool, handle);
    struct ssm_claim *claim = &pool->claims[block_idx == SSM_NIL ? 0 : block_idx];
    if (block_idx == SSM_NIL)
        result = -SSM_E_STALE;
    else if (claim->pins == UINT16_MAX)
        result = -EOVERFLOW;
    else if (!ssm_claim_is_movable(claim))
        result = -EINVAL; /* all references are pinned, or the link's */
    else if (claim->pins++ == 0)
        pool->pinned++;
    SSM_ASSERT(claim->pins <= claim->references && pool->pinned <= pool->geometry.block_total);
    return result;
}
