/* SPDX-License-Identifier: Apache-2.0
 *
 * Statistics. They read words that other processes write: each figure is right by itself, two figures may be of two
 * moments. They work on a read-only attachment, and delay no process. */
#include "arena.h"
#include "cache.h"
#include "registry.h"
#include "reservation.h"
#include "ring_unlink.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint64_t count_waiters(const struct ssm_pool *pool, uint32_t code)
{
    uint64_t waiters = 0;
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++) {
        const struct ssm_holder *holder = ssm_holder_at(pool, slot);
        if (ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_PROCESS && ssm_load_relaxed_u32(&holder->waiting) == code)
            waiters++;
    }
    return waiters;
}

int ssm_shard_stats(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, struct ssm_shard_stats *out)
{
    if (class_idx >= pool->geometry.class_count || shard_idx >= pool->geometry.shards)
        return -EINVAL;
    SSM_POOL_READ(pool);
    const struct ssm_shard *shard = ssm_shard_at(pool, class_idx, shard_idx);
    *out = (struct ssm_shard_stats){
        .free = ssm_load_relaxed_u32(&shard->free_count),
        .allocs = ssm_load_relaxed_u64(&shard->allocs),
        .frees = ssm_load_relaxed_u64(&shard->frees),
        .steals = ssm_load_relaxed_u64(&shard->steals),
        .recoveries = ssm_load_relaxed_u32(&shard->recoveries),
        .waiters = count_waiters(pool, 1 + class_idx * pool->geometry.shards + shard_idx),
    };
    return 0;
}

static uint64_t late_wakes_of_class(const struct ssm_pool *pool, uint32_t class_idx)
{
    uint64_t late = ssm_load_relaxed_u32(&ssm_class_at(pool, class_idx)->several.late);
    for (uint32_t i = 0; i < pool->geometry.shards; i++)
        late += ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, i)->event.late);
    return late;
}

int ssm_class_stats(struct ssm_pool *pool, uint32_t class_idx, struct ssm_class_stats *out)
{
    if (class_idx >= pool->geometry.class_count)
        return -EINVAL;
    SSM_POOL_READ(pool);
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    *out = (struct ssm_class_stats){
        .block_size = c->block_size,
        .blocks = c->block_count,
        .late_wakes = late_wakes_of_class(pool, class_idx),
        .large_waiters = ssm_reservations_count(pool, class_idx),
    };
    for (uint32_t shard_idx = 0; shard_idx < pool->geometry.shards; shard_idx++)
        out->free += ssm_load_relaxed_u32(&ssm_shard_at(pool, class_idx, shard_idx)->free_count);
    out->free += c->block_count - ssm_class_blocks_now(pool, class_idx); /* they are made when they are needed */
    for (uint32_t slot = 0; slot < ssm_holder_high(pool); slot++)
        if (ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->kind) == SSM_HOLDER_PROCESS)
            out->cached += ssm_cache_held(pool, slot, class_idx);
    return 0;
}

static int by_start(const void *one, const void *other)
{
    const struct ssm_memory *a = one, *b = other;
    return (a->start > b->start) - (a->start < b->start);
}

/* Of the first `blocks` of the arena's packets. By the holder sets: the extent of a free block counts as room. */
static void measure(const struct ssm_pool *pool, uint32_t blocks, struct ssm_memory *held, struct ssm_arena_stats *out)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[pool->geometry.fixed_count];
    uint64_t end = c->payload_start;
    uint32_t count = 0;
    out->free = c->block_count - blocks; /* made when they are needed */
    for (uint32_t i = c->first_block; i < c->first_block + blocks; i++) {
        const bool is_free = ssm_block_is_free(pool, ssm_block_at(pool, i));
        out->free += is_free;
        held[count] = ssm_extent_seen(pool, i);
        count += !is_free && held[count].bytes != 0;
    }
    qsort(held, count, sizeof *held, by_start);
    held[count++].start = c->payload_start + out->bytes; /* the array has one place more */
    for (uint32_t i = 0; i < count; i++) {
        if (held[i].start > end && held[i].start - end > out->largest)
            out->largest = held[i].start - end;
        if (i + 1 < count) {
            out->used += held[i].bytes;
            end = held[i].start + held[i].bytes > end ? held[i].start + held[i].bytes : end;
        }
    }
}

int ssm_arena_stats(struct ssm_pool *pool, struct ssm_arena_stats *out)
{
    const struct ssm_geometry *g = &pool->geometry;
    SSM_POOL_READ(pool);
    const uint32_t blocks = g->arena_bytes > 0 ? ssm_arena_packets_now(pool) : 0; /* of 65,536, few are made at first */
    struct ssm_memory *held = g->arena_bytes > 0 ? malloc((blocks + UINT64_C(1)) * sizeof *held) : NULL;
    int result = held != NULL ? 0 : g->arena_bytes > 0 ? -ENOMEM : -ENOENT;
    if (held != NULL) {
        *out = (struct ssm_arena_stats){
            .bytes = g->arena_bytes,
            .backed = ssm_arena_backed_bytes(pool),
            .available = ssm_arena_available_bytes(pool),
            .packets = g->arena_packets,
            .recoveries = ssm_load_relaxed_u32(&ssm_arena_of(pool)->recoveries),
            .late_wakes = late_wakes_of_class(pool, g->fixed_count),
        };
        measure(pool, blocks, held, out);
    }
    free(held);
    return result;
}

static void copy_name(char *to, const char *from)
{
    memcpy(to, from, SSM_NAME_SIZE);
    to[SSM_NAME_SIZE - 1] = 0; /* another process wrote it */
}

static struct ssm_ring_stats ring_stats_of(const struct ssm_pool *pool, uint32_t id,
                                           const struct ssm_ring_shared *shared)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, id);
    const uint64_t depth = ssm_ring_depth_of(pool, id, shared); /* before the puts: never more than they are */
    struct ssm_ring_stats stats = {
        .id = ssm_load_relaxed_u32(&holder->ring_id),
        .holder = id,
        .users = ssm_ring_users(pool, id, NULL),
        .unlinked = ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_UNLINKED,
        .serial = shared->serial,
        .capacity = shared->capacity,
        .flags = shared->flags,
        .acl = ssm_load_relaxed_u32(&shared->acl) & ~SSM_ACL_DISCARD,
        .depth = depth,
        .high_water = ssm_load_relaxed_u64(&shared->producer.count),
        .puts = ssm_load_acquire_u64(&shared->producer.index),
        .gets = ssm_load_relaxed_u64(&shared->consumer.count),
        .recoveries = ssm_load_relaxed_u64(&shared->producer.recoveries) +
                      ssm_load_relaxed_u64(&shared->consumer.recoveries),
        .redelivered = ssm_load_relaxed_u64(&shared->redelivered),
        .drops = ssm_load_relaxed_u64(&shared->producer.drops) + ssm_load_relaxed_u64(&shared->consumer.drops),
        .late_wakes = (uint64_t)ssm_load_relaxed_u32(&shared->not_empty.late) +
                      ssm_load_relaxed_u32(&shared->not_full.late) + ssm_load_relaxed_u32(&shared->all_done.late),
    };
    copy_name(stats.name, holder->name);
    return stats;
}

int ssm_ring_stats(struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring_stats *out)
{
    if (holder_id >= pool->geometry.holders)
        return -EINVAL;
    SSM_POOL_READ(pool);
    struct ssm_ring_seen seen;
    int result = ssm_ring_see(pool, holder_id, &seen);
    if (result == 0)
        *out = ring_stats_of(pool, holder_id, seen.shared);
    return result == 0 && !ssm_ring_seen_is_there(pool, &seen) ? -ENOENT : result;
}

static void describe(const struct ssm_pool *pool, uint32_t id, struct ssm_holder_info *info)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, id);
    *info = (struct ssm_holder_info){.id = id, .kind = ssm_load_acquire_u32(&holder->kind)};
    if (info->kind == SSM_HOLDER_NONE)
        return;
    info->pid = ssm_load_relaxed_u32(&holder->pid);
    info->rmid = ssm_load_relaxed_u32(&holder->rmid);
    info->alive = ssm_kind_is_ring(info->kind) || !ssm_holder_slot_is_dead(pool, id);
    copy_name(info->name, holder->name);
    if (info->kind != SSM_HOLDER_PROCESS)
        return;
    const uint64_t since_ns = ssm_load_relaxed_u64(&holder->since_ns), now_ns = ssm_clock_ns();
    info->age_ns = since_ns < now_ns ? now_ns - since_ns : 0;
    for (uint32_t class_idx = 0; class_idx < pool->geometry.fixed_count; class_idx++) {
        uint64_t cached = ssm_cache_held(pool, id, class_idx);
        info->blocks -= cached; /* below 0 until their bits are counted below */
        info->bytes -= cached * pool->geometry.classes[class_idx].block_size;
    }
}

static void count_holders(const struct ssm_pool *pool, uint32_t block_idx, struct ssm_holder_info *out, uint32_t count)
{
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint64_t size = ssm_memory_seen(pool, ssm_class_of_block(pool, block_idx), block_idx).bytes;
    for (uint32_t w = 0; w * 64 < count; w++)
        for (uint64_t bits = ssm_load_relaxed_u64(&block->holders[w]); bits != 0; bits &= bits - 1) {
            uint32_t id = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (id >= count || out[id].kind == SSM_HOLDER_NONE)
                continue;
            out[id].blocks++;
            out[id].bytes += size;
        }
}

int ssm_holder_list(struct ssm_pool *pool, struct ssm_holder_info *out, uint32_t count)
{
    SSM_POOL_READ(pool);
    if (count > pool->geometry.holders)
        count = pool->geometry.holders;
    for (uint32_t id = 0; id < count; id++)
        describe(pool, id, &out[id]);
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        count_holders(pool, i, out, count);
    for (uint32_t id = 0; id < count; id++)
        if ((int64_t)out[id].blocks < 0) /* the cache shrank between the two counts */
            out[id].blocks = out[id].bytes = 0;
    return 0;
}

/* ---- who uses how much --------------------------------------------------------------------------------------- */

static void begin_usage(const struct ssm_pool *pool, uint32_t slot, struct ssm_usage *usage)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    *usage = (struct ssm_usage){.holder = SSM_NIL};
    if (ssm_load_acquire_u32(&holder->kind) != SSM_HOLDER_PROCESS)
        return;
    usage->holder = slot;
    usage->rmid = ssm_load_relaxed_u32(&holder->rmid);
    usage->pid = ssm_load_relaxed_u32(&holder->pid);
    usage->alive = !ssm_holder_slot_is_dead(pool, slot);
    usage->peak_bytes = ssm_load_relaxed_u64(&holder->peak_bytes);
    copy_name(usage->name, holder->name);
    for (uint32_t class_idx = 0; class_idx < pool->geometry.fixed_count; class_idx++) /* as in describe() */
        usage->blocks[class_idx] -= ssm_cache_held(pool, slot, class_idx);
}

static void count_usage(const struct ssm_pool *pool, uint32_t block_idx, struct ssm_usage *out, uint32_t count)
{
    const struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint32_t class_idx = ssm_class_of_block(pool, block_idx);
    for (uint32_t w = 0; w * 64 < count; w++)
        for (uint64_t bits = ssm_load_relaxed_u64(&block->holders[w]); bits != 0; bits &= bits - 1) {
            uint32_t slot = w * 64 + (uint32_t)__builtin_ctzll(bits);
            if (slot >= count || out[slot].holder == SSM_NIL)
                continue;
            if (ssm_class_is_arena(pool, class_idx)) {
                out[slot].arena_packets++;
                out[slot].arena_bytes += ssm_extent_seen(pool, block_idx).bytes;
            } else {
                out[slot].blocks[class_idx]++;
            }
        }
}

/* Another process may have taken the slot while the blocks were counted. Then the result says nothing of either. */
static void end_usage(const struct ssm_pool *pool, uint32_t slot, struct ssm_usage *usage)
{
    const struct ssm_holder *holder = ssm_holder_at(pool, slot);
    if (ssm_load_acquire_u32(&holder->kind) != SSM_HOLDER_PROCESS ||
        ssm_load_relaxed_u32(&holder->rmid) != usage->rmid || ssm_load_relaxed_u32(&holder->pid) != usage->pid)
        usage->holder = SSM_NIL;
    for (uint32_t class_idx = 0; class_idx < pool->geometry.fixed_count; class_idx++)
        if ((int64_t)usage->blocks[class_idx] < 0) /* the cache shrank between the two counts */
            usage->blocks[class_idx] = 0;
}

int ssm_usage(struct ssm_pool *pool, struct ssm_usage *out, uint32_t count)
{
    SSM_POOL_READ(pool);
    if (count > pool->geometry.holders)
        count = pool->geometry.holders;
    for (uint32_t slot = 0; slot < count; slot++)
        begin_usage(pool, slot, &out[slot]);
    for (uint32_t i = 0, total = ssm_blocks_now(pool); i < total; i++)
        count_usage(pool, i, out, count);
    for (uint32_t slot = 0; slot < count; slot++)
        if (out[slot].holder != SSM_NIL)
            end_usage(pool, slot, &out[slot]);
    return 0;
}
