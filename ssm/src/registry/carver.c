/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata area; see carver.h. */
#include "carver.h"

#include "sparse.h"

#define NODES_MORE 2u /* that the tree needs for another range */

static uint64_t round_up(uint64_t bytes)
{
    return (bytes + SSM_NO_SHARING - 1) / SSM_NO_SHARING * SSM_NO_SHARING;
}

int ssm_carver_init(struct ssm_pool *pool)
{
    const struct ssm_geometry *g = &pool->geometry;
    struct al_tree carver;
    int result = ssm_sparse_reserve_tree(pool, g->carver_start, g->carver_nodes, 1);
    if (result != 0)
        return result;
    result = al_tree_init(&carver, pool->base + g->carver_start, g->carver_bytes, g->carver_nodes);
    if (result == AL_OK && g->metadata_bytes > 0)
        result = al_tree_insert(&carver, 0, g->metadata_bytes - 1, AL_TREE_FREE, 0, NULL);
    return result == AL_OK ? 0 : -SSM_E_CORRUPT;
}

/* The last owner of the registry may have died in the middle of an operation. */
static int open_carver(struct ssm_pool *pool, struct al_tree *carver)
{
    const struct ssm_geometry *g = &pool->geometry;
    if (al_tree_attach(carver, pool->base + g->carver_start, g->carver_bytes) != AL_OK ||
        carver->capacity != g->carver_nodes || al_tree_recover(carver) != AL_OK)
        return -SSM_E_CORRUPT;
    return 0;
}

static bool is_owned(const struct ssm_pool *pool, const struct al_tree_node *range)
{
    if (range->owner & SSM_OWNER_SERVICE) {
        uint32_t service_idx = range->owner & ~SSM_OWNER_SERVICE;
        return service_idx < SSM_SERVICE_MAX &&
               ssm_load_acquire_u32(&ssm_service_at(pool, service_idx)->kind) != SSM_SERVICE_NONE;
    }
    return range->owner < pool->geometry.holders && ssm_holder_is_ring(pool, range->owner);
}

static bool find_leftover(const struct ssm_pool *pool, const struct al_tree *carver, struct al_tree_node *range_out)
{
    struct al_tree_iter iter;
    int result = al_tree_iterate(carver, 0, UINT64_MAX, &iter);
    while (result == AL_OK && (result = al_tree_next(carver, &iter, range_out)) == AL_OK)
        if (range_out->state == AL_TREE_ALLOCATED && !is_owned(pool, range_out))
            return true;
    return false;
}

static int free_leftovers(const struct ssm_pool *pool, struct al_tree *carver)
{
    struct al_tree_node leftover;
    for (uint32_t most = carver->capacity; find_leftover(pool, carver, &leftover); most--)
        if (most == 0 || al_tree_free(carver, leftover.start, leftover.end) != AL_OK)
            return -SSM_E_CORRUPT; /* more leftovers than nodes: somebody writes into the tree */
    return 0;
}

void ssm_carver_collect(struct ssm_pool *pool)
{
    struct al_tree carver;
    if (open_carver(pool, &carver) == 0)
        (void)free_leftovers(pool, &carver); /* if it fails, the next carving says so */
}

int ssm_carver_alloc(struct ssm_pool *pool, uint64_t bytes, uint64_t reserved, uint32_t owner, uint64_t *start_out)
{
    struct al_tree_constraint wanted = {.align = SSM_NO_SHARING, .policy = AL_TREE_FIRST};
    struct al_tree carver;
    int result = open_carver(pool, &carver);
    if (result == 0)
        result = free_leftovers(pool, &carver);
    if (result != 0)
        return result;
    if (bytes > pool->geometry.metadata_bytes || pool->geometry.metadata_bytes == 0)
        return -SSM_E_METADATA;
    wanted.size = round_up(bytes);
    wanted.max = pool->geometry.metadata_bytes - 1;
    result = ssm_sparse_reserve_tree(pool, pool->geometry.carver_start, carver.capacity,
                                     al_tree_used_count(&carver) + NODES_MORE);
    if (result != 0)
        return result;
    result = al_tree_alloc(&carver, &wanted, owner, start_out);
    if (result != AL_OK)
        return result == AL_NOT_AVAILABLE ? -SSM_E_METADATA : -SSM_E_CORRUPT;
    SSM_EXPENSIVE(al_tree_check(&carver, NULL, NULL) == 0);
    if (*start_out % SSM_NO_SHARING == 0 && *start_out <= wanted.max && wanted.max - *start_out >= wanted.size - 1)
        return ssm_sparse_reserve(pool, pool->geometry.metadata_start + *start_out, reserved);
    return -SSM_E_CORRUPT; /* scribbled */
}

void ssm_carver_free(struct ssm_pool *pool, uint64_t start, uint64_t bytes)
{
    struct al_tree carver;
    if (open_carver(pool, &carver) == 0)
        (void)al_tree_free(&carver, start, start + round_up(bytes) - 1); /* if it fails, the range stays a leftover */
}

uint64_t ssm_carver_check(struct ssm_pool *pool, al_report_fn report, void *context)
{
    struct al_tree carver;
    if (open_carver(pool, &carver) == 0)
        return al_tree_check(&carver, report, context);
    report(context, "carver: what stands in its place is none", 0, 0);
    return 1;
}
