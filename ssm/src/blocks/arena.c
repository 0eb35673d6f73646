/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena; see arena.h. */
#include "arena.h"

#include "seed_bug.h"
#include "shard.h"

#include <errno.h>

static uint32_t first_block(const struct ssm_pool *pool)
{
    return pool->geometry.classes[pool->geometry.fixed_count].first_block;
}

/* Relative to the arena's memory, as the tree has it. */
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
        .size = bytes, .align = bytes < SSM_EXTENT_PAGE ? SSM_EXTENT_UNIT : SSM_EXTENT_PAGE,
        .max = pool->geometry.arena_bytes - 1, .policy = AL_TREE_FIRST,
    };
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

/* The tree anew from the truth. An extent that cannot be, or that another one overlaps, was scribbled: it is left out, and
 * ssm_check() tells. */
static int rebuild(struct ssm_pool *pool, void *context)
{
    struct al_tree tree;
    uint64_t start;
    (void)context;
    if (SSM_HAS_BUG(NO_NEW_TREE))
        return 0;
    int result = lay_out_tree(pool, &tree);
    for (uint32_t i = 0; result == 0 && i < pool->geometry.arena_packets; i++) {
        const uint32_t block_idx = first_block(pool) + i;
        const struct ssm_memory extent = extent_of(pool, block_idx);
        if (has_extent(pool, block_idx) && ssm_block_is_free(pool, ssm_block_at(pool, block_idx)))
            ssm_store_release_u64(&ssm_extent_at(pool, block_idx)->bytes, 0);
        else if (extent.bytes != 0)
            (void)al_tree_alloc(&tree, &(struct al_tree_constraint){
                .size = extent.bytes, .align = 1, .max = UINT64_MAX, .policy = AL_TREE_EXACT, .exact = extent.start}, i, &start);
    }
    struct ssm_u32 *recoveries = &ssm_arena_of(pool)->recoveries;
    ssm_store_relaxed_u32(recoveries, ssm_load_relaxed_u32(recoveries) + 1);
    return result;
}

static bool is_tree(struct ssm_pool *pool, struct al_tree *tree)
{
    return al_tree_attach(tree, pool->base + pool->geometry.arena_tree_start, pool->geometry.arena_tree_bytes) == AL_OK &&
           tree->capacity == pool->geometry.arena_nodes && tree->head->top.root != AL_TREE_NIL;
}

/* With the lock held. What is no tree, somebody has scribbled. */
static int open_tree(struct ssm_pool *pool, struct al_tree *tree)
{
    if (is_tree(pool, tree))
        return 0;
    int result = rebuild(pool, NULL);
    return result != 0 ? result : is_tree(pool, tree) ? 0 : -SSM_E_CORRUPT;
}

static int lock_arena(struct ssm_pool *pool, uint64_t patience_ns)
{
    return ssm_lock_take(pool, &ssm_arena_of(pool)->lock, patience_ns, rebuild, NULL);
}

static void unlock_arena(struct ssm_pool *pool)
{
    ssm_lock_release(&ssm_arena_of(pool)->lock);
}

int ssm_arena_init(struct ssm_pool *pool)
{
    struct al_tree tree;
    return pool->geometry.arena_bytes > 0 ? lay_out_tree(pool, &tree) : 0;
}

int ssm_arena_recover(struct ssm_pool *pool)
{
    if (pool->geometry.arena_bytes == 0 || !ssm_lock_owner_is_dead(pool, &ssm_arena_of(pool)->lock))
        return 0;
    if (lock_arena(pool, SSM_LOCK_PATIENCE_NS) == 0)
        unlock_arena(pool);
    return 1;
}

/* ---- ranges --------------------------------------------------------------------------------------------- */

/* A tree that does not have the range as the block's was scribbled, or the extent was. */
static void give_back_locked(struct ssm_pool *pool, struct al_tree *tree, uint32_t block_idx)
{
    const struct ssm_memory extent = extent_of(pool, block_idx);
    const uint64_t end = extent.start + extent.bytes - 1;
    struct al_tree_node node;
    ssm_store_release_u64(&ssm_extent_at(pool, block_idx)->bytes, 0); /* before its range can be another's */
    if (extent.bytes == 0 || al_tree_search(tree, extent.start, end, &node) != AL_OK ||
        node.owner != block_idx - first_block(pool) || al_tree_free(tree, extent.start, end) != AL_OK)
        (void)rebuild(pool, NULL);
}

/* True: something was given back. */
static bool sweep_locked(struct ssm_pool *pool, struct al_tree *tree)
{
    bool any = false;
    for (uint32_t i = 0; i < pool->geometry.arena_packets; i++) {
        const uint32_t block_idx = first_block(pool) + i;
        if (!has_extent(pool, block_idx) || !ssm_block_is_free(pool, ssm_block_at(pool, block_idx)))
            continue;
        give_back_locked(pool, tree, block_idx);
        any = true;
    }
    return any;
}

/* How many ranges of that kind the free ones can be cut into, by first match; AL_OK once that is enough. */
static int count_places(const struct al_tree *tree, const struct al_tree_constraint *range, uint64_t wanted, uint64_t *places_out)
{
    const uint64_t mask = range->align - 1, step = (range->size + mask) & ~mask;
    struct al_tree_iter iter;
    struct al_tree_node node;
    uint64_t places = 0;
    int result = al_tree_iterate(tree, 0, UINT64_MAX, &iter);
    while (places < wanted && result == AL_OK && (result = al_tree_next(tree, &iter, &node)) == AL_OK) {
        uint64_t start = (node.start + mask) & ~mask;
        if (node.state == AL_TREE_FREE && node.end <= range->max && start <= node.end && node.end - start >= range->size - 1)
            places += (node.end - start - (range->size - 1)) / step + 1;
    }
    *places_out = places;
    return result;
}

/* A tree that contradicts itself is made anew; that sweeps, too. */
static bool has_places(struct ssm_pool *pool, const struct al_tree *tree, const struct ssm_arena_request *request)
{
    const struct al_tree_constraint range = anywhere(pool, request->bytes);
    for (int try = 0; try < 2; try++) {
        uint64_t start, places = 0;
        int result = request->count == 1 ? al_tree_find(tree, &range, &start)
                                         : count_places(tree, &range, request->count, &places);
        if (result == AL_OK || result == AL_NOT_AVAILABLE)
            return result == AL_OK || places >= request->count;
        (void)rebuild(pool, NULL);
    }
    return false;
}

/* The block that would be taken next has what it takes already, by all that can be known without its shard's lock. */
static bool fits_at_once(const struct ssm_pool *pool, const struct ssm_arena_request *request)
{
    const uint32_t class_idx = pool->geometry.fixed_count, packets = pool->geometry.arena_packets;
    uint32_t free_count = ssm_load_acquire_u32(&ssm_shard_at(pool, class_idx, pool->home)->free_count);
    if (request->count != 1 || free_count == 0 || free_count > packets)
        return false;
    uint32_t block_idx = ssm_load_relaxed_u32(&ssm_list_at(pool, class_idx, pool->home)[free_count - 1]);
    return block_idx - first_block(pool) < packets && extent_of(pool, block_idx).bytes == request->bytes;
}

int ssm_arena_has_room(struct ssm_pool *pool, const struct ssm_arena_request *request, bool thorough)
{
    struct al_tree tree;
    int result = lock_arena(pool, thorough ? SSM_LOCK_PATIENCE_NS : 0);
    if (result != 0)
        return result;
    result = open_tree(pool, &tree);
    if (result == 0 && !fits_at_once(pool, request) && !has_places(pool, &tree, request) &&
        !(thorough && sweep_locked(pool, &tree) && has_places(pool, &tree, request)))
        result = -SSM_E_EXHAUSTED;
    unlock_arena(pool);
    return result;
}

/* What the tree proposes is looked at: somebody may have scribbled. */
static int allocate_locked(struct ssm_pool *pool, struct al_tree *tree, uint32_t owner, uint64_t bytes, uint64_t *start_out)
{
    const struct al_tree_constraint range = anywhere(pool, bytes);
    for (int try = 0; try < 2; try++) {
        int result = al_tree_alloc(tree, &range, owner, start_out);
        if (result == AL_NOT_AVAILABLE)
            return -SSM_E_EXHAUSTED;
        if (result == AL_OK && *start_out % range.align == 0 && *start_out <= range.max && range.max - *start_out >= bytes - 1)
            return 0;
        (void)rebuild(pool, NULL);
    }
    return -SSM_E_CORRUPT;
}

/* The steps that arena.h counts. */
static int furnish_locked(struct ssm_pool *pool, struct al_tree *tree, const struct ssm_arena_request *request,
                          uint32_t block_idx, bool *gave_back)
{
    struct ssm_extent *extent = ssm_extent_at(pool, block_idx);
    struct ssm_block *block = ssm_block_at(pool, block_idx);
    uint64_t start;
    if (extent_of(pool, block_idx).bytes == request->bytes)
        return 0;
    if (has_extent(pool, block_idx)) {
        give_back_locked(pool, tree, block_idx);
        *gave_back = true;
    }
    int result = allocate_locked(pool, tree, block_idx - first_block(pool), request->bytes, &start);
    if (result == -SSM_E_EXHAUSTED && sweep_locked(pool, tree))
        result = allocate_locked(pool, tree, block_idx - first_block(pool), request->bytes, &start);
    if (result != 0)
        return result;
    ssm_store_relaxed_u64(&extent->start, start);
    ssm_store_relaxed_u64(&block->start, pool->geometry.headroom); /* so the window never reaches beyond the extent */
    ssm_store_relaxed_u64(&block->length, request->length);
    ssm_store_release_u64(&extent->bytes, request->bytes); /* X1 -> X2 in ssm_extent_seen(): start and window come before it */
    return 0;
}

int ssm_arena_furnish(struct ssm_pool *pool, const struct ssm_arena_request *request, const uint64_t *handles)
{
    struct al_tree tree;
    bool gave_back = false;
    int result = lock_arena(pool, SSM_LOCK_PATIENCE_NS);
    if (result != 0)
        return result;
    result = open_tree(pool, &tree);
    for (uint32_t i = 0; result == 0 && i < request->count; i++)
        result = furnish_locked(pool, &tree, request, (uint32_t)handles[i], &gave_back);
    unlock_arena(pool);
    if (gave_back)
        ssm_class_signal(pool, pool->geometry.fixed_count, 1);
    return result;
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
    findings->report(findings->context, what, where, value);
}

static void check_extent(const struct ssm_pool *pool, const struct al_tree *tree, uint32_t block_idx, struct findings *f)
{
    const struct ssm_memory extent = extent_of(pool, block_idx);
    struct al_tree_node node;
    if (extent.bytes == 0) {
        find(f, "I12: an extent reaches beyond it (block, bytes)", block_idx, ssm_load_relaxed_u64(&ssm_extent_at(pool, block_idx)->bytes));
        return;
    }
    /* Where two of them overlap, the tree has one of them at most. */
    if (al_tree_search(tree, extent.start, extent.start + extent.bytes - 1, &node) != AL_OK || node.state != AL_TREE_ALLOCATED)
        find(f, "I13: the tree does not have an extent (block, start)", block_idx, extent.start);
    else if (node.owner != block_idx - first_block(pool))
        find(f, "I12: two blocks have one extent (block, block)", block_idx, first_block(pool) + node.owner);
}

static void check_locked(struct ssm_pool *pool, struct findings *f)
{
    struct al_tree tree;
    uint64_t extents = 0;
    if (!is_tree(pool, &tree)) {
        find(f, "what stands in the place of its tree is none", 0, 0);
        return;
    }
    f->count += al_tree_check(&tree, f->report, f->context);
    for (uint32_t i = 0; i < pool->geometry.arena_packets; i++)
        if (has_extent(pool, first_block(pool) + i)) {
            check_extent(pool, &tree, first_block(pool) + i, f);
            extents++;
        }
    if (al_tree_allocated_count(&tree) != extents)
        find(f, "I13: the tree has other ranges than the extents (ranges, extents)", al_tree_allocated_count(&tree), extents);
}

uint64_t ssm_arena_check(struct ssm_pool *pool, al_report_fn report, void *context)
{
    struct findings findings = {report, context, 0};
    if (pool->geometry.arena_bytes == 0 || lock_arena(pool, SSM_LOCK_PATIENCE_NS) != 0)
        return 0;
    check_locked(pool, &findings);
    unlock_arena(pool);
    return findings.count;
}
