/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: a power-of-two array of handles between producers and consumers. It carries handles only; the packets
 * belong to the ring by its bit in their holder sets. This file finds rings and says where their parts stand. ring_open.c
 * creates, opens and measures them, ring_unlink.c ends them; ring_side.c decides which process may put, and which may
 * get; put.c puts, get.c gets, ring_shutdown.c shuts a ring down.
 *
 * Each side has an index and a right to it. A side reads its own index relaxed and the peer's with acquire, publishes
 * with release (R1, R2), and remembers the peer's index.
 */
#include "ring.h"

#include "redelivery.h"

#include <string.h>

uint64_t ssm_ring_table_start(uint32_t capacity)
{
    uint64_t bytes = sizeof(struct ssm_ring_shared) + (uint64_t)ssm_ring_slot_count(capacity) * sizeof(struct ssm_u64);
    return (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
}

/* The offset of the sets of processes that put, and that get, behind the entries. */
static uint64_t peers_start(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    uint64_t entries = flags & SSM_REDELIVER ? pool->geometry.block_total : 0;
    return ssm_ring_table_start(capacity) + entries * sizeof(struct ssm_delivery);
}

uint64_t ssm_ring_type_start(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    uint64_t words = flags & SSM_PEERS ? UINT64_C(2) * pool->geometry.holder_words : 0;
    return peers_start(pool, capacity, flags) + words * sizeof(struct ssm_u64);
}

struct ssm_ring_shared *ssm_ring_shape_of(const struct ssm_pool *pool, uint32_t holder_id,
                                          struct ssm_ring_shape *shape_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    uint64_t start = ssm_load_relaxed_u64(&ssm_holder_at(pool, holder_id)->ring_start);
    if (start % SSM_NO_SHARING != 0 || start > g->metadata_bytes ||
        g->metadata_bytes - start < sizeof(struct ssm_ring_shared))
        return NULL;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + g->metadata_start + start);
    uint32_t capacity = shared->capacity, flags = shared->flags, type_bytes = shared->type_bytes;
    if (capacity == 0 || capacity > SSM_RING_MAX || type_bytes >= SSM_TYPE_SIZE ||
        ssm_ring_type_start(pool, capacity, flags) + type_bytes > g->metadata_bytes - start ||
        ssm_ring_slots_now(shared, capacity) == 0)
        return NULL;
    *shape_out = (struct ssm_ring_shape){capacity, flags, type_bytes, shared->alive_for_ns};
    return shared;
}

/* Of a slot that is no ring's, ring_start may lead to where there is no memory. */
struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id)
{
    struct ssm_ring_shape shape;
    return ssm_holder_is_ring(pool, holder_id) ? ssm_ring_shape_of(pool, holder_id, &shape) : NULL;
}

bool ssm_ring_table(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_redelivery *table_out)
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared = NULL;
    if (ssm_holder_is_ring(pool, holder_id))
        shared = ssm_ring_shape_of(pool, holder_id, &shape);
    if (shared == NULL || !(shape.flags & SSM_REDELIVER))
        return false;
    struct ssm_delivery *entries = (struct ssm_delivery *)((uint8_t *)shared + ssm_ring_table_start(shape.capacity));
    *table_out = (struct ssm_redelivery){.entries = entries, .ring_id = holder_id};
    return true;
}

struct ssm_u64 *ssm_ring_peers(const struct ssm_pool *pool, uint32_t holder_id, bool putters)
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared = NULL;
    if (ssm_holder_is_ring(pool, holder_id))
        shared = ssm_ring_shape_of(pool, holder_id, &shape);
    if (shared == NULL || !(shape.flags & SSM_PEERS))
        return NULL;
    struct ssm_u64 *sets = (struct ssm_u64 *)((uint8_t *)shared + peers_start(pool, shape.capacity, shape.flags));
    return putters ? sets : sets + pool->geometry.holder_words;
}

uint32_t ssm_ring_find(const struct ssm_pool *pool, const char *name)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++) {
        const struct ssm_holder *holder = ssm_holder_at(pool, id);
        if (ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_RING && /* K2 */
            strncmp(holder->name, name, sizeof holder->name) == 0)
            return id;
    }
    return SSM_NIL;
}

static uint32_t used_slots(const struct ssm_ring_shared *shared)
{
    uint64_t tail = ssm_load_acquire_u64(&shared->consumer.index); /* first: then the difference is never negative */
    uint64_t head = ssm_load_acquire_u64(&shared->producer.index);
    return head - tail < shared->capacity ? (uint32_t)(head - tail) : shared->capacity;
}

uint64_t ssm_ring_depth_of(const struct ssm_pool *pool, uint32_t holder_id, const struct ssm_ring_shared *shared)
{
    uint64_t depth = used_slots(shared);
    struct ssm_redelivery table;
    if (ssm_load_acquire_u32(&shared->returned) != 0 && ssm_ring_table(pool, holder_id, &table))
        depth += ssm_redelivery_count(pool, &table);
    return depth;
}

uint32_t ssm_ring_room_now(const struct ssm_ring *ring)
{
    return ring->capacity - used_slots(ring->shared);
}

/* clang-format off */
struct ssm_ring_shared *ssm_ring_shared_of(const struct ssm_ring *ring) { return ring->shared; }
struct ssm_pool *ssm_ring_pool(const struct ssm_ring *ring) { return ring->pool; }
uint32_t ssm_ring_capacity(const struct ssm_ring *ring) { return ring->capacity; }
uint32_t ssm_ring_flags(const struct ssm_ring *ring) { return ring->flags; }
/* clang-format on */
