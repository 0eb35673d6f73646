/* SPDX-License-Identifier: Apache-2.0
 *
 * The ring: a power-of-two array of handles between producers and consumers. It carries handles only; the packets
 * belong to the ring by its bit in their holder sets. This file finds, creates and measures rings. ring_side.c decides
 * who may put and who may get; put.c puts, get.c gets, ring_shutdown.c ends a ring.
 *
 * Each side has an index and a right to it. A side reads its own index relaxed and the peer's with acquire, publishes
 * with release (R1, R2), and remembers the peer's index.
 */
#include "ring.h"

#include "carver.h"
#include "overflow.h"
#include "registry.h"
#include "registry_ids.h"
#include "seed_bug.h"
#include "sparse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_FIRST 256u /* as many as fit into a page, behind the ring's head */

_Static_assert(sizeof(struct ssm_ring_shared) + SLOTS_FIRST * sizeof(struct ssm_u64) <= 4096, "a small ring is a page");

/* ---- finding and creating ----------------------------------------------------------------------------- */

/* The offset of a redelivering ring's entries. */
static uint64_t table_start(uint32_t capacity)
{
    uint64_t bytes = sizeof(struct ssm_ring_shared) + (uint64_t)ssm_ring_slot_count(capacity) * sizeof(struct ssm_u64);
    return (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
}

/* The offset of the text of its type, behind the entries. */
static uint64_t type_start(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    uint64_t entries = flags & SSM_REDELIVER ? pool->geometry.block_total : 0;
    return table_start(capacity) + entries * sizeof(struct ssm_delivery);
}

/* A ring that may be widened begins with few slots; see ring_widen.h. */
static uint32_t slots_at_first(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    const uint32_t fixed = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_OVERFLOW_DROP | SSM_OVERFLOW_OVERWRITE;
    const uint32_t all = ssm_ring_slot_count(capacity);
    return pool->geometry.arena_units == 0 || flags & fixed || all < SLOTS_FIRST ? all : SLOTS_FIRST;
}

/* A checked copy of these fields, since another process may write over them meanwhile. */
struct shape {
    uint32_t capacity, flags, type_bytes;
    uint64_t alive_for_ns;
};

static struct ssm_ring_shared *find_shared(const struct ssm_pool *pool, uint32_t holder_id, struct shape *shape_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    uint64_t start = ssm_load_relaxed_u64(&ssm_holder_at(pool, holder_id)->ring_start);
    if (start % SSM_NO_SHARING != 0 || start > g->metadata_bytes ||
        g->metadata_bytes - start < sizeof(struct ssm_ring_shared))
        return NULL;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + g->metadata_start + start);
    uint32_t capacity = shared->capacity, flags = shared->flags, type_bytes = shared->type_bytes;
    if (capacity == 0 || capacity > SSM_RING_MAX || type_bytes >= SSM_TYPE_SIZE ||
        type_start(pool, capacity, flags) + type_bytes > g->metadata_bytes - start ||
        ssm_ring_slots_now(shared, capacity) == 0)
        return NULL;
    *shape_out = (struct shape){capacity, flags, type_bytes, shared->alive_for_ns};
    return shared;
}

/* Of a slot that is no ring's, ring_start may lead to where there is no memory. */
struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id)
{
    struct shape shape;
    return ssm_load_acquire_u32(&ssm_holder_at(pool, holder_id)->kind) == SSM_HOLDER_RING
             ? find_shared(pool, holder_id, &shape)
             : NULL;
}

bool ssm_ring_table(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_redelivery *table_out)
{
    struct shape shape;
    struct ssm_ring_shared *shared = NULL;
    if (ssm_load_acquire_u32(&ssm_holder_at(pool, holder_id)->kind) == SSM_HOLDER_RING)
        shared = find_shared(pool, holder_id, &shape);
    if (shared == NULL || !(shape.flags & SSM_REDELIVER))
        return false;
    struct ssm_delivery *entries = (struct ssm_delivery *)((uint8_t *)shared + table_start(shape.capacity));
    *table_out = (struct ssm_redelivery){.entries = entries, .ring_id = holder_id};
    return true;
}

/* The text of its type; no NUL ends it. */
static const char *type_of(const struct ssm_pool *pool, const struct ssm_ring_shared *shared, const struct shape *shape)
{
    return (const char *)shared + type_start(pool, shape->capacity, shape->flags);
}

/* Returns the holder id of the ring of that name, or SSM_NIL. */
static uint32_t find(const struct ssm_pool *pool, const char *name)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++) {
        const struct ssm_holder *holder = ssm_holder_at(pool, id);
        if (ssm_load_acquire_u32(&holder->kind) == SSM_HOLDER_RING && /* K2 */
            strncmp(holder->name, name, sizeof holder->name) == 0)
            return id;
    }
    return SSM_NIL;
}

/* Needs the registry locked. The last store makes the slot a ring. After a death before it, metadata and numbers have
 * no owner, and are freed as leftovers. */
static int create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, uint32_t *id_out)
{
    uint32_t id = ssm_registry_find_free(pool);
    uint32_t capacity = options->capacity != 0 ? options->capacity : SSM_RBUFF_SIZE;
    if (id == SSM_NIL)
        return -SSM_E_HOLDERS;
    uint64_t start;
    const uint32_t slots = slots_at_first(pool, capacity, options->flags);
    const uint64_t before_table = table_start(capacity), before_type = type_start(pool, capacity, options->flags);
    const uint64_t in_front = sizeof(struct ssm_ring_shared) + slots * sizeof(struct ssm_u64);
    uint32_t type_bytes = options->type != NULL ? (uint32_t)strlen(options->type) : 0;
    uint64_t bytes = before_type + type_bytes;
    int result = ssm_carver_alloc(pool, bytes, in_front, id, &start);
    if (result == 0)
        result = ssm_sparse_reserve(pool, pool->geometry.metadata_start + start + before_table, bytes - before_table);
    if (result != 0)
        return result;
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + pool->geometry.metadata_start + start);
    memset(shared, 0, in_front);
    memset((uint8_t *)shared + before_table, 0, bytes - before_table);
    shared->capacity = capacity;
    shared->flags = options->flags;
    shared->type_bytes = type_bytes;
    shared->alive_for_ns = options->alive_for_ns;
    ssm_store_relaxed_u32(&shared->slot_count, slots);
    if (type_bytes > 0)
        memcpy((uint8_t *)shared + before_type, options->type, type_bytes);
    uint32_t ring_id = ssm_registry_ids_alloc(pool, SSM_REGISTRY_IDS_RINGS);
    if (ring_id == SSM_NIL)
        return -SSM_E_CORRUPT; /* impossible: there are as many ids as slots */
    struct ssm_holder *holder = ssm_holder_at(pool, id);
    SSM_ASSERT_SHARED(ssm_load_relaxed_u32(&holder->kind) == SSM_HOLDER_NONE);
    ssm_store_relaxed_u32(&holder->incarnation, ssm_load_relaxed_u32(&holder->incarnation) + 1);
    if (SSM_HAS_BUG(RING_EARLY))
        ssm_store_release_u32(&holder->kind, SSM_HOLDER_RING);
    ssm_store_relaxed_u32(&holder->pid, 0);
    ssm_store_relaxed_u32(&holder->waiting, 0);
    ssm_store_relaxed_u32(&holder->ring_id, ring_id);
    ssm_store_relaxed_u64(&holder->ring_start, start);
    memset(holder->name, 0, sizeof holder->name);
    strncpy(holder->name, name, sizeof holder->name - 1);
    ssm_registry_mark_used(pool, id);
    /* K1 -> K2 in find(): the slot and the ring are seen whole. */
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_RING);
    *id_out = id;
    return 0;
}

static bool flags_are_known(uint32_t flags)
{
    return (flags & ~(SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_REDELIVER | SSM_WAIT_ANYWAY | ssm_overflow_flags())) ==
           0;
}

/* A time of grace is of a ring that tells when a side has nobody left. */
static bool grace_agrees(const struct ssm_ring_options *options)
{
    return options->alive_for_ns == 0 ||
           (options->flags & (SSM_ONE_PRODUCER | SSM_ONE_CONSUMER) && !(options->flags & SSM_WAIT_ANYWAY));
}

/* Looks without the registry's lock; *id_out is what find() returns. A ring stays as long as its pool, and find() sees
 * it whole or not at all (K2). A ring that is just being created is found later, under the lock. */
static int look_up(struct ssm_pool *pool, const char *name, uint32_t *id_out)
{
    SSM_POOL_ENTER(pool);
    if (!ssm_pool_is_whole(pool))
        return -SSM_E_CORRUPT;
    *id_out = find(pool, name);
    return 0;
}

static int find_or_create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                          uint32_t *id_out)
{
    int result = look_up(pool, name, id_out);
    if (result != 0 || *id_out != SSM_NIL)
        return result;
    if (!ssm_overflow_agrees(options->flags) || !grace_agrees(options))
        return -EINVAL;
    result = ssm_registry_begin(pool, SSM_POOL_PATIENCE_NS);
    if (result != 0)
        return result;
    *id_out = find(pool, name);
    if (*id_out == SSM_NIL)
        result = create(pool, name, options, id_out);
    ssm_registry_end(pool);
    return result;
}

static int open_table(struct ssm_ring *ring)
{
    struct ssm_redelivery found;
    if (!ssm_ring_table(ring->pool, ring->id, &found))
        return -SSM_E_CORRUPT;
    SSM_POOL_ENTER(ring->pool);
    ring->table = ssm_redelivery_open(ring->pool, ring->id, found.entries);
    return ring->table != NULL ? 0 : -ENOMEM;
}

/* Does the existing ring match the options? */
static bool matches(const struct ssm_pool *pool, const struct ssm_ring_shared *shared, const struct shape *shape,
                    const struct ssm_ring_options *options)
{
    return (options->capacity == 0 || options->capacity == shape->capacity) &&
           ((options->flags ^ shape->flags) & ~options->as_it_is) == 0 &&
           (options->as_it_is & SSM_ALIVE_FOR || options->alive_for_ns == shape->alive_for_ns) &&
           (options->type == NULL || (strlen(options->type) == shape->type_bytes &&
                                      memcmp(options->type, type_of(pool, shared, shape), shape->type_bytes) == 0));
}

int ssm_ring_matches(struct ssm_ring *ring, const struct ssm_ring_options *options)
{
    struct shape shape;
    const struct ssm_ring_shared *shared = find_shared(ring->pool, ring->id, &shape);
    return shared == NULL ? -SSM_E_CORRUPT : matches(ring->pool, shared, &shape, options);
}

int ssm_ring_open(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                  struct ssm_ring **ring_out)
{
    uint32_t id = SSM_NIL;
    size_t length = strnlen(name, SSM_NAME_SIZE);
    if (length == 0 || length == SSM_NAME_SIZE || options->capacity > SSM_RING_MAX ||
        !flags_are_known(options->flags) ||
        (options->type != NULL && strnlen(options->type, SSM_TYPE_SIZE) == SSM_TYPE_SIZE))
        return -EINVAL;
    int result = find_or_create(pool, name, options, &id);
    if (result == -SSM_E_HOLDERS && pool->on_stall(pool)) /* dead processes had slots */
        return ssm_ring_open(pool, name, options, ring_out);
    if (result != 0)
        return result;
    struct shape shape;
    struct ssm_ring_shared *shared = find_shared(pool, id, &shape);
    if (shared == NULL)
        return -SSM_E_CORRUPT;
    if (!matches(pool, shared, &shape, options))
        return -SSM_E_MISMATCH;
    struct ssm_ring *ring = malloc(sizeof *ring);
    if (ring == NULL)
        return -ENOMEM;
    *ring = (struct ssm_ring){
        /* this mask stands for no slots yet: set below */
        .pool = pool, .shared = shared,           .mask = UINT32_MAX,   .mark = ssm_mark_of(id),
        .id = id,     .capacity = shape.capacity, .flags = shape.flags, .alive_for_ns = shape.alive_for_ns,
    };
    ssm_ring_look_at_slots(ring);
    SSM_ASSERT(ring->places <= ring->capacity && ring->places <= ring->mask + 1 &&
               (ring->mask & (ring->mask + 1)) == 0);
    result = ring->flags & SSM_REDELIVER ? open_table(ring) : 0;
    if (result != 0)
        free(ring);
    else
        *ring_out = ring;
    return result;
}

int ssm_ring_type(struct ssm_ring *ring, char text_out[SSM_TYPE_SIZE])
{
    struct shape shape;
    const struct ssm_ring_shared *shared = find_shared(ring->pool, ring->id, &shape);
    if (shared == NULL)
        return -SSM_E_CORRUPT;
    memcpy(text_out, type_of(ring->pool, shared, &shape), shape.type_bytes);
    text_out[shape.type_bytes] = '\0';
    return (int)shape.type_bytes;
}

/* ---- looking at it ------------------------------------------------------------------------------------ */

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

uint32_t ssm_ring_depth(struct ssm_ring *ring)
{
    return (uint32_t)ssm_ring_depth_of(ring->pool, ring->id, ring->shared);
}

uint32_t ssm_ring_room(struct ssm_ring *ring)
{
    return ring->capacity - used_slots(ring->shared);
}

/* clang-format off */
struct ssm_ring_shared *ssm_ring_shared_of(const struct ssm_ring *ring) { return ring->shared; }
struct ssm_pool *ssm_ring_pool(const struct ssm_ring *ring) { return ring->pool; }
uint32_t ssm_ring_capacity(const struct ssm_ring *ring) { return ring->capacity; }
uint32_t ssm_ring_flags(const struct ssm_ring *ring) { return ring->flags; }
/* clang-format on */

uint32_t ssm_ring_acl(struct ssm_ring *ring)
{
    return ssm_load_acquire_u32(&ring->shared->acl) & ~SSM_ACL_DISCARD;
}
