/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena; see arena.h. */
#include "arena.h"

#include "seed_bug.h"
#include "shard.h"

#include <errno.h>

#define GROW_REST_NS  UINT64_C(20000000)   /* after memory could not be had; as a sleep without a look */
#define TRIM_REST_NS  UINT64_C(1000000000) /* how long there must be too much memory before it is given back */
#define TRIM_SLACK    (UINT64_C(8) << 20)  /* never too much; or an eighth of a small arena */
#define TRIM_MOST     (UINT64_C(16) << 20) /* given back at once: the lock is held meanwhile */
#define TRIM_EVERY    (UINT64_C(4) << 20)  /* bytes that a process frees between two looks */
#define PACKETS_FIRST 64u                  /* blocks that a growing arena begins with; then it has twice as many, ... */
#define PACKETS_STEP  1024u                /* ... but never so many more at once */
#define BACKED_LOOKS  3
#define BITS_PAGE     UINT64_C(4096) /* how much is reserved for bits at once */

static uint32_t first_block(const struct ssm_pool *pool)
{
    return pool->geometry.classes[pool->geometry.fixed_count].first_block;
}

/* The extent relative to the arena's memory, as the tree has it. */
static struct ssm_memory extent_of(const struct ssm_pool *pool, uint32_t block_idx)
{
    struct ssm_memory extent = ssm_extent_seen(pool, block_idx);
    extent.start -= pool->geometry.classes[pool->geometry.fixed_count].payload_start;
    return extent;
}

static bool has_extent(const struct ssm_pool *pool, uint32_t block_idx)
{
    return ssm_load_relaxed_u64(&ssm_extent_at(pool, block_idx)->bytes) != 0;
}

static struct al_tree_constraint anywhere(const struct ssm_pool *pool, uint64_t bytes)
{
    return (struct al_tree_constraint){
        .size = bytes,
        .align = ssm_arena_align(bytes),
        .max = pool->geometry.arena_bytes - 1,
        .policy = AL_TREE_FIRST,
    };
}

/* ---- what is reserved of its memory ---------------------------------------------------------------------- */

static bool grows(const struct ssm_pool *pool)
{
    return pool->geometry.arena_units > 0;
}

static struct ssm_u64 *backed_word(const struct ssm_pool *pool, uint64_t unit)
{
    return (struct ssm_u64 *)(pool->base + pool->geometry.backed_start) + unit / 64;
}

/* How many words of bits there are. Units of the others are not reserved. */
static uint64_t bit_words(const struct ssm_pool *pool)
{
    const uint64_t most = (pool->geometry.arena_units + 63) / 64;
    const uint64_t words = ssm_load_acquire_u32(&ssm_arena_of(pool)->bit_words); /* W2: pairs with W1 */
    return words < most ? words : most;
}

/* Needs the lock. For a unit in an extent of this process it does not: a stale 0 means that it is reserved again, in
 * vain. */
static bool unit_is_backed(const struct ssm_pool *pool, uint64_t unit)
{
    return unit / 64 < bit_words(pool) && ssm_load_relaxed_u64(backed_word(pool, unit)) >> unit % 64 & 1;
}

/* Returns the bytes of the units in this range that are not reserved. */
static uint64_t missing_bytes(const struct ssm_pool *pool, uint64_t start, uint64_t bytes)
{
    uint64_t missing = 0;
    for (uint64_t unit = start / SSM_GROW_UNIT;
         unit < pool->geometry.arena_units && unit * SSM_GROW_UNIT < start + bytes; unit++)
        missing += unit_is_backed(pool, unit) ? 0 : SSM_GROW_UNIT;
    return missing;
}

/* Reserves the memory of the bits of the units below `end`. */
static int reserve_bits(struct ssm_pool *pool, uint64_t end)
{
    const uint64_t bytes = (end + 63) / 64 * sizeof(struct ssm_u64);
    return bytes <= bit_words(pool) * sizeof(struct ssm_u64)
             ? 0
             : ssm_sparse_reserve(pool, pool->geometry.backed_start, bytes);
}

/* Needs memory for the bits. */
static void set_backed_locked(struct ssm_pool *pool, uint64_t unit, uint64_t end)
{
    const uint64_t bytes = ((end + 63) / 64 * sizeof(struct ssm_u64) + BITS_PAGE - 1) / BITS_PAGE * BITS_PAGE;
    SSM_ASSERT(end <= pool->geometry.arena_units);
    if (unit < end && bytes / sizeof(struct ssm_u64) > bit_words(pool)) /* W1 -> W2 in bit_words() */
        ssm_store_release_u32(&ssm_arena_of(pool)->bit_words, (uint32_t)(bytes / sizeof(struct ssm_u64)));
    for (; unit < end; unit++)
        ssm_store_relaxed_u64(backed_word(pool, unit),
                              ssm_load_relaxed_u64(backed_word(pool, unit)) | UINT64_C(1) << unit % 64);
}

static void clear_backed_locked(struct ssm_pool *pool, uint64_t unit, uint64_t end)
{
    SSM_ASSERT(end <= pool->geometry.arena_units);
    for (; unit < end && unit / 64 < bit_words(pool); unit++)
        ssm_store_relaxed_u64(backed_word(pool, unit),
                              ssm_load_relaxed_u64(backed_word(pool, unit)) & ~(UINT64_C(1) << unit % 64));
}

/* Steps 1 to 4 of giving back (arena.h). If the file system cannot do it, the units stay reserved, without bits. */
static void punch_locked(struct ssm_pool *pool, uint64_t start, uint64_t count)
{
    const uint64_t arena_start = pool->geometry.classes[pool->geometry.fixed_count].payload_start;
    struct ssm_arena *arena = ssm_arena_of(pool);
    const int fd = ssm_pool_fd(pool);
    if (fd < 0)
        return;
    ssm_store_relaxed_u64(&arena->punch_start, start);
    ssm_store_release_u64(&arena->punch_units, count); /* for the next owner after a death: program order */
    clear_backed_locked(pool, start, start + count);
    (void)ssm_segment_punch(fd, arena_start + start * SSM_GROW_UNIT, count * SSM_GROW_UNIT);
    ssm_store_release_u64(&arena->punch_units, 0);
}

/* May the arena grow by so much, as far as can be known without trying? */
static bool may_grow(const struct ssm_pool *pool, uint64_t bytes)
{
    if (bytes == 0)
        return true;
    if (!grows(pool) || (pool->grow_again_ns != 0 && ssm_now_ns() < pool->grow_again_ns))
        return false;
    const int fd = ssm_pool_fd(pool);
    return fd >= 0 && ssm_segment_free_bytes(fd) >= bytes;
}

bool ssm_arena_has_memory(const struct ssm_pool *pool, uint32_t block_idx)
{
    const struct ssm_memory extent = extent_of(pool, block_idx);
    return missing_bytes(pool, extent.start, extent.bytes) == 0;
}

uint64_t ssm_arena_backed_bytes(const struct ssm_pool *pool)
{
    uint64_t units = 0;
    for (uint64_t i = 0, words = grows(pool) ? bit_words(pool) : 0; i < words; i++)
        units += (uint64_t)__builtin_popcountll(ssm_load_relaxed_u64(backed_word(pool, 64 * i)));
    return grows(pool) ? units * SSM_GROW_UNIT : pool->geometry.arena_bytes;
}

uint64_t ssm_arena_available_bytes(const struct ssm_pool *pool)
{
    const int fd = grows(pool) ? ssm_pool_fd(pool) : -1;
    const uint64_t missing = pool->geometry.arena_bytes - ssm_arena_backed_bytes(pool);
    const uint64_t free_bytes = fd >= 0 ? ssm_segment_free_bytes(fd) : 0;
    return free_bytes < missing ? free_bytes : missing;
}

/* Counts the bits before it asks the file, since a unit that gets its bit meanwhile is in the file already; and again
 * afterwards, since a unit that is given back meanwhile loses its bit first. Both may happen; then it looks again. */
bool ssm_arena_is_backed(const struct ssm_pool *pool)
{
    const int fd = ssm_pool_fd(pool);
    bool backed = !grows(pool) || fd < 0;
    for (int look = 0; !backed && look < BACKED_LOOKS; look++) {
        const uint64_t before = ssm_arena_backed_bytes(pool), there = ssm_segment_reserved_bytes(fd);
        const uint64_t behind = ssm_arena_backed_bytes(pool);
        backed = there >= pool->geometry.reserved_bytes + (behind < before ? behind : before);
    }
    return backed;
}

/* ---- the tree, and its repair --------------------------------------------------------------------------- */

static int lay_out_tree(struct ssm_pool *pool, struct al_tree *tree)
{
    const struct ssm_geometry *g = &pool->geometry;
    int result = al_tree_init(tree, pool->base + g->arena_tree_start, g->arena_tree_bytes, g->arena_nodes);
    if (result == AL_OK)
        result = al_tree_insert(tree, 0, g->arena_bytes - 1, AL_TREE_FREE, 0, NULL);
    return result == AL_OK ? 0 : -SSM_E_CORRUPT;
}

/* Rebuilds the tree from holder sets and extents. Leaves out a damaged extent, which is impossible or overlaps another
 * one; ssm_check() reports it. */
static int rebuild(struct ssm_pool *pool, void *context)
{
    struct al_tree tree;
    uint64_t start;
    (void)context;
    if (SSM_HAS_BUG(NO_NEW_TREE))
        return 0;
    const uint32_t packets = ssm_arena_packets_now(pool);
    int result = packets > 0 ? lay_out_tree(pool, &tree) : 0; /* without blocks, the tree has no memory */
    for (uint32_t i = 0; result == 0 && i < packets; i++) {
        const uint32_t block_idx = first_block(pool) + i;
        const struct ssm_memory extent = extent_of(pool, block_idx);
        if (has_extent(pool, block_idx) && ssm_block_is_free(pool, ssm_block_at(pool, block_idx)))
            ssm_store_release_u64(&ssm_extent_at(pool, block_idx)->bytes, 0);
        else if (extent.bytes != 0)
            (void)al_tree_alloc(&tree,
                                &(struct al_tree_constraint){.size = extent.bytes,
                                                             .align = 1,
                                                             .max = UINT64_MAX,
                                                             .policy = AL_TREE_EXACT,
                                                             .exact = extent.start},
                                i, &start);
    }
    struct ssm_u32 *recoveries = &ssm_arena_of(pool)->recoveries;
    ssm_store_relaxed_u32(recoveries, ssm_load_relaxed_u32(recoveries) + 1);
    return result;
}

static bool is_tree(const struct ssm_pool *pool, struct al_tree *tree)
{
    return al_tree_attach(tree, pool->base + pool->geometry.arena_tree_start, pool->geometry.arena_tree_bytes) ==
               AL_OK &&
           tree->capacity == pool->geometry.arena_nodes && tree->head->top.root != AL_TREE_NIL;
}

/* Needs the lock. Rebuilds a damaged tree. */
static int open_tree(struct ssm_pool *pool, struct al_tree *tree)
{
    if (is_tree(pool, tree))
        return 0;
    int result = rebuild(pool, NULL);
    return result != 0 ? result : is_tree(pool, tree) ? 0 : -SSM_E_CORRUPT;
}

/* Are all bytes of these units free? Then no process uses them, or is about to. */
static bool units_are_free(const struct ssm_pool *pool, const struct al_tree *tree, uint64_t start, uint64_t count)
{
    struct al_tree_node node;
    return start < pool->geometry.arena_units && count <= pool->geometry.arena_units - start &&
           al_tree_superset(tree, start * SSM_GROW_UNIT, (start + count) * SSM_GROW_UNIT - 1, &node) == AL_OK &&
           node.state == AL_TREE_FREE;
}

/* Repairs after a death with the lock: rebuilds the tree, and then finishes giving back. */
static int repair(struct ssm_pool *pool, void *context)
{
    struct ssm_u64 *punch_units = &ssm_arena_of(pool)->punch_units;
    const uint64_t start = ssm_load_relaxed_u64(&ssm_arena_of(pool)->punch_start),
                   count = ssm_load_relaxed_u64(punch_units);
    struct al_tree tree;
    const int result = rebuild(pool, context);
    if (result != 0 || count == 0)
        return result;
    if (grows(pool) && ssm_arena_packets_now(pool) > 0 && is_tree(pool, &tree) &&
        units_are_free(pool, &tree, start, count))
        punch_locked(pool, start, count);
    else
        ssm_store_release_u64(punch_units, 0); /* scribbled */
    return 0;
}

static int lock_arena(struct ssm_pool *pool, uint64_t patience_ns)
{
    return ssm_lock_take(pool, &ssm_arena_of(pool)->lock, patience_ns, repair, NULL);
}

static void unlock_arena(struct ssm_pool *pool)
{
    SSM_EXPENSIVE(ssm_arena_is_valid(pool));
    ssm_lock_release(&ssm_arena_of(pool)->lock);
}

int ssm_arena_init(struct ssm_pool *pool)
{
    const struct ssm_geometry *g = &pool->geometry;
    struct al_tree tree;
    if (g->arena_bytes == 0)
        return 0;
    if (!grows(pool)) {
        ssm_store_relaxed_u32(&ssm_arena_of(pool)->packets, g->arena_packets);
        return lay_out_tree(pool, &tree);
    }
    const uint64_t units = g->arena_reserved / SSM_GROW_UNIT;
    const int result = reserve_bits(pool, units);
    if (result == 0)
        set_backed_locked(pool, 0, units);
    return result;
}

int ssm_arena_recover(struct ssm_pool *pool)
{
    if (pool->geometry.arena_bytes == 0 || !ssm_lock_owner_is_dead(pool, &ssm_arena_of(pool)->lock))
        return 0;
    if (lock_arena(pool, SSM_LOCK_PATIENCE_NS) == 0)
        unlock_arena(pool);
    return 1;
}

/* ---- blocks ---------------------------------------------------------------------------------------------- */

/* Reserves what so many blocks need: descriptors, lists, extents, and a tree for as many ranges and gaps. */
static int reserve_tables(struct ssm_pool *pool, uint32_t packets)
{
    const struct ssm_geometry *g = &pool->geometry;
    const struct ssm_class_geometry *c = &g->classes[g->fixed_count];
    int result = ssm_sparse_reserve(pool, g->blocks_start + (uint64_t)c->first_block * g->block_bytes,
                                    (uint64_t)packets * g->block_bytes);
    for (uint32_t i = 0; result == 0 && i < g->shards; i++)
        result = ssm_sparse_reserve(pool, c->lists_start + (uint64_t)i * c->block_count * sizeof(struct ssm_u32),
                                    packets * sizeof(struct ssm_u32));
    if (result == 0)
        result = ssm_sparse_reserve(pool, g->extents_start, packets * sizeof(struct ssm_extent));
    return result == 0 ? ssm_sparse_reserve_tree(pool, g->arena_tree_start, g->arena_nodes, 2 * packets + 1) : result;
}

static uint32_t packets_next(const struct ssm_pool *pool, uint32_t packets, uint32_t wanted)
{
    const uint32_t step = packets == 0 ? PACKETS_FIRST : packets < PACKETS_STEP ? packets : PACKETS_STEP;
    const uint64_t next = (uint64_t)packets + (step > wanted ? step : wanted);
    return next < pool->geometry.arena_packets ? (uint32_t)next : pool->geometry.arena_packets;
}

/* Steps 2 to 4 of arena.h. */
static int add_packets_locked(struct ssm_pool *pool, uint32_t packets, uint32_t next)
{
    struct al_tree tree;
    int result = may_grow(pool, 1) ? reserve_tables(pool, next) : -ENOSPC;
    if (result != 0) {
        pool->grow_again_ns = ssm_now_ns() + GROW_REST_NS;
        return -SSM_E_EXHAUSTED;
    }
    if (packets == 0 && (result = lay_out_tree(pool, &tree)) != 0)
        return result;
    ssm_store_release_u32(&ssm_arena_of(pool)->packets, next); /* W1 -> W2 in ssm_arena_packets_now() */
    return 0;
}

int ssm_arena_add_packets(struct ssm_pool *pool, uint32_t wanted)
{
    const uint32_t packets = ssm_arena_packets_now(pool), next = packets_next(pool, packets, wanted);
    if (next == packets)
        return -SSM_E_EXHAUSTED;
    int result = lock_arena(pool, SSM_LOCK_PATIENCE_NS);
    if (result != 0)
        return result;
    const bool first = ssm_arena_packets_now(pool) == packets; /* another process may have been faster */
    ssm_holder_note_letting_go(pool, SSM_LETTING_GO_ANY);      /* F1 */
    if (first)
        result = add_packets_locked(pool, packets, next);
    unlock_arena(pool);
    if (first && result == 0)
        ssm_shard_add(pool, pool->geometry.fixed_count, packets, next);
    ssm_holder_note_letting_go(pool, 0); /* F1: they are on a list */
    return result;
}

/* ---- ranges --------------------------------------------------------------------------------------------- */

/* If the tree does not have the range as the block's, tree or extent are damaged. */
static void give_back_locked(struct ssm_pool *pool, struct al_tree *tree, uint32_t block_idx)
{
    const struct ssm_memory extent = extent_of(pool, block_idx);
    const uint64_t end = extent.start + extent.bytes - 1;
    struct al_tree_node node;
    ssm_store_release_u64(&ssm_extent_at(pool, block_idx)->bytes, 0); /* before another block can get its range */
    if (extent.bytes == 0 || al_tree_search(tree, extent.start, end, &node) != AL_OK ||
        node.owner != block_idx - first_block(pool) || al_tree_free(tree, extent.start, end) != AL_OK)
        (void)rebuild(pool, NULL);
}

/* Of one list, without its lock. A block that stays on it stays where it is, since only the top of a list changes. One
 * that is missed as the list is made anew is found by the next look. */
static bool sweep_list(struct ssm_pool *pool, struct al_tree *tree, uint32_t shard_idx)
{
    const uint32_t class_idx = pool->geometry.fixed_count;
    const struct ssm_u32 *list = ssm_list_at(pool, class_idx, shard_idx);
    /* A hint, as the entries are: each is looked at. A process that lists a block signals after it, and waiting calls
     * look again. */
    const uint32_t count = ssm_load_acquire_u32(&ssm_shard_at(pool, class_idx, shard_idx)->free_count);
    const uint32_t packets = ssm_arena_packets_now(pool);
    bool any = false;
    for (uint32_t i = 0; i < count && count <= packets; i++) {
        const uint32_t block_idx = ssm_load_relaxed_u32(&list[i]);
        if (block_idx - first_block(pool) >= packets || !has_extent(pool, block_idx) ||
            !ssm_block_is_free(pool, ssm_block_at(pool, block_idx)))
            continue;
        give_back_locked(pool, tree, block_idx);
        any = true;
    }
    return any;
}

/* True if it gave something back. */
static bool sweep_locked(struct ssm_pool *pool, struct al_tree *tree)
{
    bool any = false;
    for (uint32_t i = 0; i < pool->geometry.shards; i++)
        any |= sweep_list(pool, tree, i);
    return any;
}

/* How many ranges of one kind the free ranges can be cut into, by first match. */
struct places {
    uint64_t all, backed; /* how many; and how many in reserved units */
    uint64_t first;       /* start of the first one in reserved units */
};

/* Counts the places in the free bytes start .. end, both included. */
static uint64_t places_in(const struct al_tree_constraint *range, uint64_t start, uint64_t end, uint64_t *first_out)
{
    const uint64_t mask = range->align - 1, step = (range->size + mask) & ~mask;
    *first_out = start = (start + mask) & ~mask;
    return start <= end && end - start >= range->size - 1 ? (end - start - (range->size - 1)) / step + 1 : 0;
}

/* Counts the places of a free range in runs of reserved units. */
static void count_backed(const struct ssm_pool *pool, const struct al_tree_constraint *range,
                         const struct al_tree_node *node, struct places *places)
{
    uint64_t at = node->start, first;
    while (at <= node->end) {
        uint64_t unit = at / SSM_GROW_UNIT, end;
        const bool backed = unit_is_backed(pool, unit);
        while (unit * SSM_GROW_UNIT <= node->end && unit_is_backed(pool, unit) == backed)
            unit++;
        end = unit * SSM_GROW_UNIT - 1 < node->end ? unit * SSM_GROW_UNIT - 1 : node->end;
        const uint64_t count = backed ? places_in(range, at, end, &first) : 0;
        if (places->backed == 0 && count > 0)
            places->first = first;
        places->backed += count;
        at = end + 1;
    }
}

/* Ends with AL_OK as soon as there are enough. */
static int count_places(const struct ssm_pool *pool, const struct al_tree *tree, const struct al_tree_constraint *range,
                        uint64_t wanted, struct places *places)
{
    struct al_tree_iter iter;
    struct al_tree_node node;
    uint64_t first;
    *places = (struct places){0};
    int result = al_tree_iterate(tree, 0, UINT64_MAX, &iter);
    while (places->backed < wanted && result == AL_OK && (result = al_tree_next(tree, &iter, &node)) == AL_OK) {
        if (node.state != AL_TREE_FREE || node.end > range->max)
            continue;
        places->all += places_in(range, node.start, node.end, &first);
        if (grows(pool))
            count_backed(pool, range, &node, places);
        else
            places->backed = places->all;
    }
    return result;
}

enum { NO_PLACE, ROOM_TO_GROW, A_PLACE };

static int look_for_many(const struct ssm_pool *pool, const struct al_tree *tree,
                         const struct al_tree_constraint *range, uint64_t wanted, int *found_out)
{
    struct places places;
    int result = count_places(pool, tree, range, wanted, &places);
    *found_out = places.backed >= wanted                                                        ? A_PLACE
               : places.all >= wanted && may_grow(pool, (wanted - places.backed) * range->size) ? ROOM_TO_GROW
                                                                                                : NO_PLACE;
    return result;
}

static int look_for_one(const struct ssm_pool *pool, const struct al_tree *tree, const struct al_tree_constraint *range,
                        int *found_out)
{
    uint64_t start;
    struct places places;
    int result = al_tree_find(tree, range, &start);
    *found_out = NO_PLACE;
    if (result != AL_OK)
        return result;
    const uint64_t missing = missing_bytes(pool, start, range->size);
    if (missing == 0 || may_grow(pool, missing)) {
        *found_out = missing == 0 ? A_PLACE : ROOM_TO_GROW;
        return AL_OK;
    }
    result = count_places(pool, tree, range, 1, &places);
    *found_out = places.backed > 0 ? A_PLACE : NO_PLACE;
    return result;
}

/* A_PLACE: the request has room in reserved memory. ROOM_TO_GROW: it has room if the arena grows. Rebuilds a tree that
 * contradicts itself, which also sweeps. */
static int look_for_places(struct ssm_pool *pool, const struct al_tree *tree, const struct ssm_arena_request *request)
{
    const struct al_tree_constraint range = anywhere(pool, request->bytes);
    for (int try = 0; try < 2; try++) {
        int found, result = request->count == 1 ? look_for_one(pool, tree, &range, &found)
                                                : look_for_many(pool, tree, &range, request->count, &found);
        if (result == AL_OK || result == AL_NOT_AVAILABLE)
            return found;
        (void)rebuild(pool, NULL);
    }
    return NO_PLACE;
}

/* Has a free block still an extent, as far as can be known without its shard's lock? */
static bool has_leftovers(const struct ssm_pool *pool, const struct al_tree *tree)
{
    uint64_t free_count = 0;
    for (uint32_t i = 0; i < pool->geometry.shards; i++)
        free_count += ssm_load_relaxed_u32(&ssm_shard_at(pool, pool->geometry.fixed_count, i)->free_count);
    return al_tree_allocated_count(tree) + free_count > ssm_arena_packets_now(pool);
}

/* Has the next block the right extent already, as far as can be known without its shard's lock? */
static bool fits_at_once(const struct ssm_pool *pool, const struct ssm_arena_request *request)
{
    const uint32_t class_idx = pool->geometry.fixed_count;
    uint32_t free_count = ssm_load_acquire_u32(&ssm_shard_at(pool, class_idx, pool->home)->free_count);
    const uint32_t packets = ssm_arena_packets_now(pool);
    if (request->count != 1 || free_count == 0 || free_count > packets)
        return false;
    uint32_t block_idx = ssm_load_relaxed_u32(&ssm_list_at(pool, class_idx, pool->home)[free_count - 1]);
    if (block_idx - first_block(pool) >= packets)
        return false;
    const struct ssm_memory extent = extent_of(pool, block_idx);
    return extent.bytes == request->bytes && missing_bytes(pool, extent.start, extent.bytes) == 0;
}

/* Counts on growing only after a sweep made no room, and only with `thorough`. */
static bool has_room_locked(struct ssm_pool *pool, struct al_tree *tree, const struct ssm_arena_request *request,
                            bool thorough)
{
    if (fits_at_once(pool, request))
        return true;
    int found = look_for_places(pool, tree, request);
    if (found == A_PLACE || !thorough)
        return found == A_PLACE;
    if ((found == NO_PLACE || has_leftovers(pool, tree)) && sweep_locked(pool, tree))
        found = look_for_places(pool, tree, request);
    return found != NO_PLACE;
}

int ssm_arena_has_room(struct ssm_pool *pool, const struct ssm_arena_request *request, bool thorough)
{
    struct al_tree tree;
    int result = ssm_arena_packets_now(pool) > 0 ? 0
               : thorough                        ? ssm_arena_add_packets(pool, request->count)
                                                 : -SSM_E_EXHAUSTED;
    if (result == 0 && thorough)
        (void)ssm_class_settle(pool, pool->geometry.fixed_count); /* blocks on no list are not swept */
    if (result == 0)
        result = lock_arena(pool, thorough ? SSM_LOCK_PATIENCE_NS : 0);
    if (result != 0)
        return result;
    result = open_tree(pool, &tree);
    if (result == 0 && !has_room_locked(pool, &tree, request, thorough))
        result = -SSM_E_EXHAUSTED;
    unlock_arena(pool);
    return result;
}

/* Chooses the first range if its memory is reserved or can be; or else the first range whose memory is reserved. */
static int choose_place(const struct ssm_pool *pool, const struct al_tree *tree, struct al_tree_constraint *range)
{
    uint64_t start;
    struct places places;
    int result = al_tree_find(tree, range, &start);
    if (result != AL_OK || may_grow(pool, missing_bytes(pool, start, range->size)))
        return result;
    result = count_places(pool, tree, range, 1, &places);
    if (places.backed == 0)
        return result == AL_OK ? AL_NOT_AVAILABLE : result;
    range->policy = AL_TREE_EXACT;
    range->exact = places.first;
    return AL_OK;
}

/* Checks the range that the tree proposes, since the tree may be damaged. */
static int allocate_locked(struct ssm_pool *pool, struct al_tree *tree, uint32_t owner, uint64_t bytes,
                           uint64_t *start_out)
{
    for (int try = 0; try < 2; try++) {
        struct al_tree_constraint range = anywhere(pool, bytes);
        int result = grows(pool) ? choose_place(pool, tree, &range) : AL_OK;
        if (result == AL_OK)
            result = al_tree_alloc(tree, &range, owner, start_out);
        if (result == AL_NOT_AVAILABLE)
            return -SSM_E_EXHAUSTED;
        if (result == AL_OK && *start_out % range.align == 0 && *start_out <= range.max &&
            range.max - *start_out >= bytes - 1)
            return 0;
        (void)rebuild(pool, NULL);
    }
    return -SSM_E_CORRUPT;
}

struct furnished {
    bool gave_back; /* an extent of another size: another call may have room now */
    bool lacks;     /* some unit of an extent is not reserved */
};

/* Steps 1 to 5 of arena.h. */
static int furnish_locked(struct ssm_pool *pool, struct al_tree *tree, const struct ssm_arena_request *request,
                          uint32_t block_idx, struct furnished *so_far)
{
    struct ssm_extent *extent = ssm_extent_at(pool, block_idx);
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint64_t start;
    SSM_ASSERT_SHARED(ssm_block_has(block, pool->self));
    if (extent_of(pool, block_idx).bytes == request->bytes) {
        so_far->lacks |= !SSM_HAS_BUG(TRUSTED_LEFTOVER) && !ssm_arena_has_memory(pool, block_idx);
        return 0;
    }
    if (has_extent(pool, block_idx)) {
        give_back_locked(pool, tree, block_idx);
        so_far->gave_back = true;
    }
    int result = allocate_locked(pool, tree, block_idx - first_block(pool), request->bytes, &start);
    if (result == -SSM_E_EXHAUSTED && sweep_locked(pool, tree))
        result = allocate_locked(pool, tree, block_idx - first_block(pool), request->bytes, &start);
    if (result != 0)
        return result;
    SSM_ASSERT(start <= pool->geometry.arena_bytes && request->bytes <= pool->geometry.arena_bytes - start);
    ssm_store_relaxed_u64(&extent->start, start);
    ssm_store_relaxed_u64(&block->start, pool->geometry.headroom); /* the window never exceeds the extent */
    ssm_store_relaxed_u64(&block->length, request->length);
    ssm_store_release_u64(&extent->bytes, request->bytes); /* X1 -> X2 in ssm_extent_seen() */
    so_far->lacks |= missing_bytes(pool, start, request->bytes) > 0;
    return 0;
}

/* Reserves the units of this extent whose bits are missing. The extent is this process's, and does not change
 * meanwhile. Notes in `reserved`, unit by unit, which bits are to be set. 0 or -SSM_E_EXHAUSTED. */
static int reserve_extent(struct ssm_pool *pool, struct ssm_memory extent, struct ssm_memory *reserved)
{
    const uint64_t end = (extent.start + extent.bytes + SSM_GROW_UNIT - 1) / SSM_GROW_UNIT;
    const uint64_t arena_start = pool->geometry.classes[pool->geometry.fixed_count].payload_start;
    const int fd = ssm_pool_fd(pool);
    int result = fd < 0 || reserve_bits(pool, end) != 0 ? -SSM_E_EXHAUSTED : 0;
    *reserved = (struct ssm_memory){extent.start / SSM_GROW_UNIT, 0};
    for (uint64_t unit = reserved->start, next; result == 0 && unit < end; unit = next) {
        uint64_t done = 0;
        for (next = unit; next < end && !unit_is_backed(pool, next);)
            next++;
        if (next > unit)
            result = ssm_segment_reserve(fd, arena_start + unit * SSM_GROW_UNIT, (next - unit) * SSM_GROW_UNIT, NULL,
                                         &done);
        reserved->bytes = result == 0 ? next - reserved->start : unit + done / SSM_GROW_UNIT - reserved->start;
        if (next == unit)
            next++; /* it is reserved already */
    }
    return result == 0 ? 0 : -SSM_E_EXHAUSTED;
}

/* Steps 6 to 9 of arena.h. */
static int grow(struct ssm_pool *pool, const struct ssm_arena_request *request, const uint64_t *handles)
{
    struct al_tree tree;
    int result = 0;
    for (uint32_t i = 0; result == 0 && i < request->count; i++) {
        struct ssm_memory reserved;
        result = reserve_extent(pool, extent_of(pool, (uint32_t)handles[i]), &reserved);
        SSM_ASSERT_SHARED(result != 0 || ssm_block_has(ssm_block_at(pool, (uint32_t)handles[i]), pool->self));
        const int locked = lock_arena(pool, SSM_LOCK_PATIENCE_NS);
        if (locked != 0)
            return locked;
        set_backed_locked(pool, reserved.start, reserved.start + reserved.bytes);
        unlock_arena(pool);
    }
    if (result == 0 || lock_arena(pool, SSM_LOCK_PATIENCE_NS) != 0)
        return result;
    pool->grow_again_ns = ssm_now_ns() + GROW_REST_NS;
    if (open_tree(pool, &tree) == 0)
        for (uint32_t i = 0; i < request->count; i++)
            if (has_extent(pool, (uint32_t)handles[i]))
                give_back_locked(pool, &tree, (uint32_t)handles[i]);
    unlock_arena(pool);
    return result;
}

int ssm_arena_furnish(struct ssm_pool *pool, const struct ssm_arena_request *request, const uint64_t *handles)
{
    struct al_tree tree;
    struct furnished so_far = {0};
    int result = lock_arena(pool, SSM_LOCK_PATIENCE_NS);
    if (result != 0)
        return result;
    result = open_tree(pool, &tree);
    for (uint32_t i = 0; result == 0 && i < request->count; i++)
        result = furnish_locked(pool, &tree, request, (uint32_t)handles[i], &so_far);
    unlock_arena(pool);
    if (result == 0 && so_far.lacks)
        result = grow(pool, request, handles);
    if (so_far.gave_back)
        ssm_class_signal(pool, pool->geometry.fixed_count, 1);
    return result;
}

/* ---- giving memory back ---------------------------------------------------------------------------------- */

/* Of all packets that are held, in whole units or less. */
static uint64_t held_bytes_locked(const struct ssm_pool *pool)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0, packets = ssm_arena_packets_now(pool); i < packets; i++)
        if (has_extent(pool, first_block(pool) + i) &&
            !ssm_block_is_free(pool, ssm_block_at(pool, first_block(pool) + i)))
            bytes += extent_of(pool, first_block(pool) + i).bytes;
    return bytes;
}

static uint64_t slack_of(const struct ssm_pool *pool)
{
    return pool->geometry.arena_bytes / 8 < TRIM_SLACK ? pool->geometry.arena_bytes / 8 : TRIM_SLACK;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
    return a > b ? a : b;
}

/* Returns how many units too many there are, and have been for a while. */
static uint64_t spare_units_locked(struct ssm_pool *pool)
{
    const uint64_t backed = ssm_arena_backed_bytes(pool), held = held_bytes_locked(pool), now_ns = ssm_clock_ns();
    struct ssm_u64 *excess_ns = &ssm_arena_of(pool)->excess_ns;
    const uint64_t since_ns = ssm_load_relaxed_u64(excess_ns);
    const uint64_t most = held + larger(held, slack_of(pool)),
                   kept = larger(held + larger(held, slack_of(pool)) / 2, pool->geometry.arena_reserved);
    if (backed <= most || backed <= kept) {
        ssm_store_relaxed_u64(excess_ns, 0);
        return 0;
    }
    if (since_ns == 0 || since_ns > now_ns)
        ssm_store_relaxed_u64(excess_ns, now_ns);
    if (since_ns == 0 || since_ns > now_ns || now_ns - since_ns < TRIM_REST_NS)
        return 0;
    return (backed - kept) / SSM_GROW_UNIT;
}

/* Units that are reserved and free, in their order, in runs; the first `skipped` of them are passed over, the others
 * punched. How many there are. */
static uint64_t walk_free_units(struct ssm_pool *pool, const struct al_tree *tree, uint64_t skipped)
{
    uint64_t seen = 0;
    struct al_tree_iter iter;
    struct al_tree_node node;
    int result = al_tree_iterate(tree, 0, UINT64_MAX, &iter);
    while (result == AL_OK && (result = al_tree_next(tree, &iter, &node)) == AL_OK) {
        if (node.state != AL_TREE_FREE || node.end >= pool->geometry.arena_bytes)
            continue;
        uint64_t unit = (node.start + SSM_GROW_UNIT - 1) / SSM_GROW_UNIT, run = 0;
        const uint64_t end = (node.end + 1) / SSM_GROW_UNIT;
        for (; unit < end; unit++) {
            const bool punched = unit_is_backed(pool, unit) && unit >= pool->geometry.arena_reserved / SSM_GROW_UNIT &&
                                 seen++ >= skipped;
            if (!punched && run > 0)
                punch_locked(pool, unit - run, run);
            run = punched ? run + 1 : 0;
        }
        if (run > 0)
            punch_locked(pool, unit - run, run);
    }
    return seen;
}

static void trim_locked(struct ssm_pool *pool)
{
    struct al_tree tree;
    uint64_t spare = spare_units_locked(pool);
    if (spare == 0 || open_tree(pool, &tree) != 0)
        return;
    sweep_locked(pool, &tree);
    if (spare > TRIM_MOST / SSM_GROW_UNIT)
        spare = TRIM_MOST / SSM_GROW_UNIT;
    const uint64_t there = walk_free_units(pool, &tree, UINT64_MAX);
    walk_free_units(pool, &tree, there > spare ? there - spare : 0);
}

void ssm_arena_trim(struct ssm_pool *pool)
{
    pool->arena_freed_bytes = 0;
    if (!grows(pool) || ssm_arena_packets_now(pool) == 0)
        return;
    const bool enough = ssm_arena_backed_bytes(pool) <= larger(pool->geometry.arena_reserved, slack_of(pool));
    struct ssm_u64 *excess_ns = &ssm_arena_of(pool)->excess_ns;
    if (enough && ssm_load_relaxed_u64(excess_ns) != 0)
        ssm_store_relaxed_u64(excess_ns, 0); /* without the lock: another look may begin to count once more */
    if (enough || lock_arena(pool, 0) != 0)
        return;
    trim_locked(pool);
    unlock_arena(pool);
}

void ssm_arena_trim_in_turn(struct ssm_pool *pool)
{
    if (pool->arena_freed_bytes >=
        (TRIM_EVERY < pool->geometry.arena_bytes / 8 ? TRIM_EVERY : pool->geometry.arena_bytes / 8))
        ssm_arena_trim(pool);
}

/* ---- checking ------------------------------------------------------------------------------------------- */

struct findings {
    al_report_fn report;
    void        *context;
    uint64_t     count;
};

static void find(struct findings *findings, const char *what, uint64_t where, uint64_t value)
{
    findings->count++;
    if (findings->report != NULL)
        findings->report(findings->context, what, where, value);
}

static void check_extent(const struct ssm_pool *pool, const struct al_tree *tree, uint32_t block_idx,
                         struct findings *f)
{
    const struct ssm_memory extent = extent_of(pool, block_idx);
    struct al_tree_node node;
    if (extent.bytes == 0) {
        find(f, "I12: an extent reaches beyond it (block, bytes)", block_idx,
             ssm_load_relaxed_u64(&ssm_extent_at(pool, block_idx)->bytes));
        return;
    }
    /* If two extents overlap, the tree has at most one of them. */
    if (al_tree_search(tree, extent.start, extent.start + extent.bytes - 1, &node) != AL_OK ||
        node.state != AL_TREE_ALLOCATED)
        find(f, "I13: the tree does not have an extent (block, start)", block_idx, extent.start);
    else if (node.owner != block_idx - first_block(pool))
        find(f, "I12: two blocks have one extent (block, block)", block_idx, first_block(pool) + node.owner);
}

/* The process that put it into a ring had it with all its memory. */
static bool is_in_a_ring(const struct ssm_pool *pool, uint32_t block_idx)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (ssm_block_has(ssm_block_at(pool, block_idx), id) && ssm_holder_is_ring(pool, id))
            return true;
    return false;
}

/* I12 and I13. */
static void check_ranges(const struct ssm_pool *pool, struct findings *f)
{
    struct al_tree tree;
    uint64_t extents = 0;
    const uint32_t packets = ssm_arena_packets_now(pool);
    if (packets == 0)
        return; /* no block, no tree */
    if (!is_tree(pool, &tree)) {
        find(f, "what stands in the place of its tree is none", 0, 0);
        return;
    }
    f->count += al_tree_check(&tree, f->report, f->context);
    for (uint32_t i = 0; i < packets; i++)
        if (has_extent(pool, first_block(pool) + i)) {
            check_extent(pool, &tree, first_block(pool) + i, f);
            extents++;
        }
    if (al_tree_allocated_count(&tree) != extents)
        find(f, "I13: the tree has other ranges than the extents (ranges, extents)", al_tree_allocated_count(&tree),
             extents);
}

/* I15. */
static void check_reserved(const struct ssm_pool *pool, struct findings *f)
{
    const uint32_t packets = ssm_arena_packets_now(pool);
    for (uint32_t i = 0; i < packets; i++)
        if (has_extent(pool, first_block(pool) + i) && !ssm_arena_has_memory(pool, first_block(pool) + i) &&
            is_in_a_ring(pool, first_block(pool) + i))
            find(f, "I15: a queued packet lies in units that are not reserved (block)", first_block(pool) + i, 0);
    if (!ssm_arena_is_backed(pool))
        find(f, "I15: more is said to be reserved than the file has (bytes)", ssm_arena_backed_bytes(pool), 0);
}

#if SSM_ASSERTS
bool ssm_arena_is_valid(const struct ssm_pool *pool)
{
    struct findings findings = {0};
    if (ssm_arena_packets_now(pool) > 256) /* at each call, this would take longer than the tests have time */
        return ssm_lock_is_mine(pool, &ssm_arena_of(pool)->lock);
    check_ranges(pool, &findings);
    check_reserved(pool, &findings);
    return findings.count == 0 && ssm_lock_is_mine(pool, &ssm_arena_of(pool)->lock);
}
#endif

uint64_t ssm_arena_check(struct ssm_pool *pool, al_report_fn report, void *context)
{
    struct findings findings = {report, context, 0};
    if (pool->geometry.arena_bytes == 0 || lock_arena(pool, SSM_LOCK_PATIENCE_NS) != 0)
        return 0;
    check_ranges(pool, &findings);
    check_reserved(pool, &findings);
    ssm_lock_release(&ssm_arena_of(pool)->lock); /* not unlock_arena(): faults were reported */
    return findings.count;
}
