/* SPDX-License-Identifier: Apache-2.0
 *
 * Opening rings: found by name, or created; their options; and what a process sees of a ring that it has open. The
 * users of a ring, and its end, are in ring_unlink.h. */
#include "carver.h"
#include "options.h"
#include "overflow.h"
#include "registry.h"
#include "registry_ids.h"
#include "ring_partner.h"
#include "ring_unlink.h"
#include "seed_bug.h"
#include "sparse.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define OPEN_LOOKS  100  /* at a name, while rings of that name come and go */
#define SLOTS_FIRST 256u /* as many as fit into a page, behind the ring's head */

_Static_assert(sizeof(struct ssm_ring_shared) + SLOTS_FIRST * sizeof(struct ssm_u64) <= 4096, "a small ring is a page");

/* ---- creating --------------------------------------------------------------------------------------------- */

/* A ring that may be widened begins with few slots; see ring_widen.h. */
static uint32_t slots_at_first(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags)
{
    const uint32_t fixed = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_OVERFLOW_DROP | SSM_OVERFLOW_OVERWRITE;
    const uint32_t all = ssm_ring_slot_count(capacity);
    return pool->geometry.arena_units == 0 || flags & fixed || all < SLOTS_FIRST ? all : SLOTS_FIRST;
}

static uint64_t take_serial(struct ssm_pool *pool)
{
    struct ssm_u64 *made = &ssm_superblock_of(pool)->rings_made;
    const uint64_t serial = ssm_load_relaxed_u64(made); /* only the owner of the registry writes it */
    ssm_store_relaxed_u64(made, serial + 1);
    return serial;
}

static uint32_t count_rings(const struct ssm_pool *pool)
{
    uint32_t count = 0;
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        count += ssm_holder_is_ring(pool, id);
    return count;
}

/* Needs the registry locked. The last store makes the slot a ring. After a death before it, metadata and numbers have
 * no owner, and are freed as leftovers. */
static int create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options, uint32_t *id_out)
{
    if (count_rings(pool) >= ssm_rings_max(pool->geometry.holders))
        return -SSM_E_RINGS;
    uint32_t id = ssm_registry_find_free(pool);
    uint32_t capacity = options->capacity != 0 ? options->capacity : SSM_RBUFF_SIZE;
    if (id == SSM_NIL)
        return -SSM_E_HOLDERS;
    uint64_t start;
    const uint32_t slots = slots_at_first(pool, capacity, options->flags);
    const uint64_t before_table = ssm_ring_table_start(capacity),
                   before_type = ssm_ring_type_start(pool, capacity, options->flags);
    const uint64_t in_front = sizeof(struct ssm_ring_shared) + slots * sizeof(struct ssm_u64);
    uint32_t type_bytes = options->content != NULL ? (uint32_t)strlen(options->content) : 0;
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
    ssm_store_relaxed_u64(&shared->owner, options->flags & SSM_OWNED ? pool->lock_word : 0);
    shared->type_bytes = type_bytes;
    shared->serial = take_serial(pool);
    shared->alive_for_ns = options->alive_for_ns;
    ssm_store_relaxed_u32(&shared->slot_count, slots);
    if (type_bytes > 0)
        memcpy((uint8_t *)shared + before_type, options->content, type_bytes);
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
    /* K1 -> K2 in ssm_ring_find(): the slot and the ring are seen whole. */
    ssm_store_release_u32(&holder->kind, SSM_HOLDER_RING);
    *id_out = id;
    return 0;
}

static bool flags_are_known(uint32_t flags)
{
    const uint32_t plain = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_REDELIVER | SSM_WAIT_ANYWAY | SSM_OWNED |
                           SSM_PEERS;
    return (flags & ~(plain | ssm_overflow_flags())) == 0;
}

/* A time of grace is of a ring that tells when a side has nobody left. */
static bool grace_agrees(const struct ssm_ring_options *options)
{
    const uint32_t tells = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_PEERS;
    return options->flags & SSM_WAIT_ANYWAY ? options->alive_for_ns == 0 && !(options->flags & SSM_PEERS)
                                            : options->alive_for_ns == 0 || options->flags & tells;
}

/* The text of its type; no NUL ends it. */
static const char *type_of(const struct ssm_pool *pool, const struct ssm_ring_shared *shared,
                           const struct ssm_ring_shape *shape)
{
    return (const char *)shared + ssm_ring_type_start(pool, shape->capacity, shape->flags);
}

/* Does the existing ring match the options? */
static bool matches(const struct ssm_pool *pool, const struct ssm_ring_shared *shared,
                    const struct ssm_ring_shape *shape, const struct ssm_ring_options *options)
{
    const bool tells = shape->flags & (SSM_ONE_PRODUCER | SSM_ONE_CONSUMER) && options->flags & SSM_PEERS;
    const uint32_t any = options->as_it_is | (tells ? SSM_PEERS : 0);
    return (options->capacity == 0 || options->capacity == shape->capacity) &&
           ((options->flags ^ shape->flags) & ~any) == 0 &&
           (options->as_it_is & SSM_ALIVE_FOR || options->alive_for_ns == shape->alive_for_ns) &&
           (options->content == NULL ||
            (strlen(options->content) == shape->type_bytes &&
             memcmp(options->content, type_of(pool, shared, shape), shape->type_bytes) == 0));
}

/* Begins a look at the ring's options and type, which are found by its holder id. 0, or why not. */
static int look_at(const struct ssm_ring *ring, struct ssm_ring_shared **shared_out, struct ssm_ring_shape *shape_out)
{
    if (!ssm_ring_look_begin(ring))
        return -SSM_E_UNLINKED;
    *shared_out = ssm_ring_shape_of(ring->pool, ring->id, shape_out);
    if (*shared_out != NULL)
        return 0;
    ssm_ring_look_end(ring);
    return -SSM_E_CORRUPT;
}

int ssm_ring_matches(struct ssm_ring *ring, const struct ssm_ring_options *options)
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared;
    int result = ssm_options_check(options, sizeof *options);
    if (result == 0)
        result = look_at(ring, &shared, &shape);
    if (result != 0)
        return result;
    result = matches(ring->pool, shared, &shape, options);
    return ssm_ring_look_end(ring) ? result : -SSM_E_UNLINKED;
}

/* ---- opening ---------------------------------------------------------------------------------------------- */

static int open_table(struct ssm_ring *ring)
{
    struct ssm_redelivery found;
    if (!ssm_ring_table(ring->pool, ring->id, &found))
        return -SSM_E_CORRUPT;
    ring->table = ssm_redelivery_open(ring->pool, ring->id, found.entries);
    return ring->table != NULL ? 0 : -ENOMEM;
}

/* A process's access to a ring, without its table. */
static struct ssm_ring access_to(struct ssm_pool *pool, uint32_t id, struct ssm_ring_shared *shared,
                                 const struct ssm_ring_shape *shape)
{
    struct ssm_ring ring = {
        /* this mask stands for no slots yet: set below */
        .pool = pool,
        .shared = shared,
        .mask = UINT32_MAX,
        .mark = ssm_mark_of(id),
        .id = id,
        .capacity = shape->capacity,
        .flags = shape->flags,
        .alive_for_ns = shape->alive_for_ns,
    };
    ring.putters = ssm_ring_peers(pool, id, true);
    ring.getters = ssm_ring_peers(pool, id, false);
    ring.incarnation = ssm_load_relaxed_u32(&ssm_holder_at(pool, id)->incarnation); /* it stays as long as the ring */
    ssm_ring_look_at_slots(&ring);
    SSM_ASSERT(ring.places <= ring.capacity && ring.places <= ring.mask + 1 && (ring.mask & (ring.mask + 1)) == 0);
    return ring;
}

bool ssm_ring_borrow_access(struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring *ring_out)
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared = NULL;
    if (ssm_holder_is_ring(pool, holder_id))
        shared = ssm_ring_shape_of(pool, holder_id, &shape);
    if (shared == NULL || shape.flags & SSM_REDELIVER)
        return false;
    *ring_out = access_to(pool, holder_id, shared, &shape);
    return true;
}

/* Fills in the handle of a ring whose bit this process has set. */
static int fill_in(struct ssm_pool *pool, uint32_t id, const struct ssm_ring_options *options, struct ssm_ring *ring)
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared = ssm_ring_shape_of(pool, id, &shape);
    if (shared == NULL)
        return -SSM_E_CORRUPT;
    if (!matches(pool, shared, &shape, options))
        return -SSM_E_MISMATCH;
    *ring = access_to(pool, id, shared, &shape);
    int result = ring->flags & SSM_REDELIVER ? open_table(ring) : 0;
    if (result != 0)
        return result;
    ssm_ring_add_handle(ring);
    ssm_peer_opens(ring);
    return 0;
}

/* Opens a ring that is there, without the registry's lock: 1, or an error. 0: there is none of that name, as far as can
 * be seen; one that is just being created is found later, under the lock. */
static int open_existing(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                         struct ssm_ring *ring)
{
    SSM_POOL_ENTER(pool);
    if (!ssm_pool_is_whole(pool))
        return -SSM_E_CORRUPT;
    for (int look = 0; look < OPEN_LOOKS; look++) {
        const uint32_t id = ssm_ring_find(pool, name);
        if (id == SSM_NIL)
            return 0;
        if (!ssm_ring_use(pool, id, name))
            continue; /* it was unlinked just now; there may be a new one */
        int result = fill_in(pool, id, options, ring);
        if (result != 0)
            ssm_ring_leave(pool, id);
        return result != 0 ? result : 1;
    }
    return 0;
}

/* With the registry locked. *id_out: the ring whose bit was set, for the caller to leave after an error. */
static int open_locked(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                       struct ssm_ring *ring, uint32_t *id_out)
{
    uint32_t id = ssm_ring_find(pool, name);
    int result = 0;
    if (id == SSM_NIL && options->existing)
        return -ENOENT;
    if (id == SSM_NIL) {
        ssm_rings_collect(pool); /* those that nobody uses any more */
        result = create(pool, name, options, &id);
    }
    if (result != 0)
        return result;
    ssm_ring_use_locked(pool, id);
    *id_out = id;
    return fill_in(pool, id, options, ring);
}

static int find_or_create(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                          struct ssm_ring *ring)
{
    uint32_t id = SSM_NIL;
    int result = open_existing(pool, name, options, ring);
    if (result != 0)
        return result > 0 ? 0 : result;
    if (!ssm_overflow_agrees(options->flags) || !grace_agrees(options) ||
        (options->flags & SSM_OWNED && options->flags & SSM_REDELIVER))
        return -EINVAL;
    result = ssm_registry_begin(pool, SSM_POOL_PATIENCE_NS);
    if (result != 0)
        return result;
    result = open_locked(pool, name, options, ring, &id);
    ssm_registry_unlock(pool);
    if (result != 0 && id != SSM_NIL)
        ssm_ring_leave(pool, id);
    ssm_pool_leave(pool);
    return result;
}

int ssm_ring_open(struct ssm_pool *pool, const char *name, const struct ssm_ring_options *options,
                  struct ssm_ring **ring_out)
{
    size_t length = strnlen(name, SSM_NAME_SIZE);
    if (length == 0 || length == SSM_NAME_SIZE || options->capacity > SSM_RING_MAX ||
        !flags_are_known(options->flags) ||
        (options->content != NULL && strnlen(options->content, SSM_TYPE_SIZE) == SSM_TYPE_SIZE))
        return -EINVAL;
    const int known = ssm_options_check(options, sizeof *options);
    if (known != 0)
        return known;
    struct ssm_ring *ring = malloc(sizeof *ring);
    if (ring == NULL)
        return -ENOMEM;
    int result = find_or_create(pool, name, options, ring);
    if ((result == -SSM_E_HOLDERS || result == -SSM_E_RINGS) && pool->on_stall(pool)) /* dead processes had slots */
        result = find_or_create(pool, name, options, ring);
    if (result != 0)
        free(ring);
    else
        *ring_out = ring;
    return result;
}

int ssm_ring_type(struct ssm_ring *ring, char text_out[SSM_TYPE_SIZE])
{
    struct ssm_ring_shape shape;
    struct ssm_ring_shared *shared;
    int result = look_at(ring, &shared, &shape);
    if (result != 0)
        return result;
    memcpy(text_out, type_of(ring->pool, shared, &shape), shape.type_bytes);
    text_out[shape.type_bytes] = '\0';
    return ssm_ring_look_end(ring) ? (int)shape.type_bytes : -SSM_E_UNLINKED;
}

/* ---- looking at one that is open -------------------------------------------------------------------------- */

uint32_t ssm_ring_depth(struct ssm_ring *ring)
{
    if (!ssm_ring_look_begin(ring))
        return 0;
    const uint64_t depth = ssm_ring_depth_of(ring->pool, ring->id, ring->shared);
    return ssm_ring_look_end(ring) ? (uint32_t)depth : 0;
}

uint32_t ssm_ring_room(struct ssm_ring *ring)
{
    if (!ssm_ring_look_begin(ring))
        return 0;
    const uint32_t room = ssm_ring_room_now(ring);
    return ssm_ring_look_end(ring) ? room : 0;
}

uint32_t ssm_ring_acl(struct ssm_ring *ring)
{
    uint32_t acl = SSM_ACL_FLOWDOWN | SSM_ACL_FLOWPEER; /* of a ring that is gone */
    if (!ssm_ring_look_begin(ring))
        return acl;
    const uint32_t seen = ssm_load_acquire_u32(&ring->shared->acl) & ~SSM_ACL_DISCARD;
    return ssm_ring_look_end(ring) ? seen : acl;
}
