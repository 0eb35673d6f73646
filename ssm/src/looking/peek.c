/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking at queued packets without taking them. It holds nothing, delays no process, and works read-only. So other
 * processes may take, free and refill a block while it is copied. The generation, read before and after, shows that,
 * and such a copy is thrown away. It does not show what a holder writes into its own packet meanwhile, nor, on a
 * processor that reorders stores, the first bytes of a new owner. So a copy is for people to read, not for decisions.
 */
#include "cache.h"
#include "registry.h"
#include "ring_unlink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define TRIES 3 /* while an edge is being moved */

int ssm_ring_peek(struct ssm_pool *pool, uint32_t holder_id, uint64_t *handles_out, uint32_t room)
{
    if (holder_id >= pool->geometry.holders)
        return -EINVAL;
    SSM_POOL_READ(pool);
    struct ssm_ring_seen seen;
    int result = ssm_ring_see(pool, holder_id, &seen);
    uint32_t found = 0;
    if (result == 0) {
        const struct ssm_ring_shared *shared = seen.shared;
        uint64_t tail = ssm_load_acquire_u64(&shared->consumer.index);
        uint64_t head = ssm_load_acquire_u64(&shared->producer.index); /* A1: pairs with R1 in put_all() */
        uint64_t depth = head - tail < seen.slots ? head - tail : seen.slots;
        for (uint64_t i = 0; i < depth && found < room; i++) {
            uint64_t handle = ssm_slot_handle(&shared->slots[(tail + i) & (seen.slots - 1)]);
            if (ssm_block_is_queued(pool, holder_id, handle))
                handles_out[found++] = handle;
        }
        result = ssm_ring_seen_is_there(pool, &seen) ? 0 : -ENOENT;
    }
    return result != 0 ? result : (int)found;
}

/* Reads the file of a growing arena instead of touching the memory: the packet may be gone, and the memory of its
 * successor not reserved yet. */
static bool read_payload(const struct ssm_pool *pool, uint32_t class_idx, uint64_t start, uint8_t *bytes_out,
                         uint64_t bytes)
{
    if (!ssm_class_is_arena(pool, class_idx) || pool->geometry.arena_units == 0) {
        memcpy(bytes_out, pool->base + start, bytes);
        return true;
    }
    const int fd = ssm_pool_fd(pool);
    int64_t got = 1;
    for (uint64_t done = 0; fd >= 0 && got > 0 && done < bytes; done += (uint64_t)got)
        if ((got = ssm_segment_peek(fd, start + done, bytes_out + done, bytes - done)) <= 0)
            return false;
    return fd >= 0;
}

/* One attempt. -SSM_E_STALE if the packet was replaced meanwhile, -EAGAIN if its window lies outside the block. */
static int copy_packet(const struct ssm_pool *pool, uint64_t handle, uint8_t *bytes_out, uint64_t room,
                       struct ssm_peek *out)
{
    uint32_t block_idx = (uint32_t)handle;
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint32_t class_idx = ssm_class_of_block(pool, block_idx);
    if (ssm_load_acquire_u32(&block->generation) != handle >> 32 || ssm_block_is_free(pool, block))
        return -SSM_E_STALE;
    uint64_t start = ssm_load_relaxed_u64(&block->start), length = ssm_load_relaxed_u64(&block->length);
    const struct ssm_memory memory = ssm_memory_seen(pool, class_idx, block_idx);
    const uint64_t block_size = memory.bytes;
    *out = (struct ssm_peek){
        .length = length,
        .headroom = start,
        .block_size = block_size,
        .tag = ssm_load_relaxed_u64(&block->tag),
        .next = ssm_load_relaxed_u64(&block->next),
    };
    bool whole = start <= block_size && length <= block_size - start;
    if (whole && !read_payload(pool, class_idx, memory.start + start, bytes_out, length < room ? length : room))
        return -SSM_E_CORRUPT; /* the file was cut */
    ssm_fence_acquire(); /* Y2: all of it was read before the generation is read again; pairs with Y1 in hand_out() */
    if (ssm_load_relaxed_u32(&block->generation) != handle >> 32)
        return -SSM_E_STALE;
    const struct ssm_memory again = ssm_memory_seen(pool, class_idx, block_idx);
    if (again.start != memory.start || again.bytes != memory.bytes)
        return -SSM_E_STALE;    /* a free block of the arena: its extent was taken, its generation stays */
    return whole ? 0 : -EAGAIN; /* its holder is moving an edge, or the window is damaged */
}

int ssm_packet_peek(struct ssm_pool *pool, uint64_t handle, uint8_t *bytes_out, uint64_t room, struct ssm_peek *out)
{
    SSM_POOL_READ(pool);
    int result = ssm_block_exists(pool, (uint32_t)handle) ? -EAGAIN : -SSM_E_STALE;
    for (int i = 0; i < TRIES && result == -EAGAIN; i++)
        result = copy_packet(pool, handle, bytes_out, room, out);
    return result == -EAGAIN ? -SSM_E_CORRUPT : result;
}

/* ---- who holds what ------------------------------------------------------------------------------------- */

/* Blocks in private caches carry a bit, but are free. */
static void mark_cached(const struct ssm_pool *pool, uint8_t *cached)
{
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        for (uint32_t class_idx = 0; ssm_slot_has_caches(pool, slot) && class_idx < pool->geometry.class_count;
             class_idx++) {
            const struct ssm_cache *cache = ssm_cache_at(pool, slot, class_idx);
            uint32_t count = ssm_load_acquire_u32(&cache->count);
            for (uint32_t i = 0; i < count && count <= pool->geometry.cache_slots; i++) {
                uint64_t handle = ssm_load_relaxed_u64(&cache->handles[i]);
                struct ssm_block *block;
                if (ssm_cache_entry_counts(pool, &pool->classes[class_idx], ssm_mark_of(slot), handle, &block))
                    cached[(uint32_t)handle] = 1;
            }
        }
}

int64_t ssm_packet_list(struct ssm_pool *pool, uint64_t *handles_out, uint64_t room)
{
    SSM_POOL_READ(pool);
    uint8_t *cached = calloc(pool->geometry.block_total, 1);
    uint64_t found = 0;
    if (cached != NULL)
        mark_cached(pool, cached);
    for (uint32_t i = 0, total = ssm_blocks_now(pool); cached != NULL && i < total; i++) {
        const struct ssm_block *block = ssm_block_at(pool, i);
        if (cached[i] || ssm_block_is_free(pool, block))
            continue;
        if (found < room)
            handles_out[found] = ssm_handle_of(ssm_load_relaxed_u32(&block->generation), i);
        found++;
    }
    int result = cached == NULL ? -ENOMEM : 0;
    free(cached);
    return result != 0 ? result : (int64_t)found;
}

int ssm_packet_holders(struct ssm_pool *pool, uint64_t handle, uint32_t *holders_out, uint32_t room)
{
    SSM_POOL_READ(pool);
    int result = 0;
    const struct ssm_block *block = ssm_block_exists(pool, (uint32_t)handle) ? ssm_block_at(pool, (uint32_t)handle)
                                                                             : NULL;
    uint32_t found = 0;
    if (block == NULL || ssm_load_acquire_u32(&block->generation) != handle >> 32)
        result = -SSM_E_STALE;
    for (uint32_t id = 0; result == 0 && id < pool->geometry.holders; id++)
        if (ssm_block_has(block, id)) {
            if (found < room)
                holders_out[found] = id;
            found++;
        }
    return result != 0 ? result : (int)found;
}
