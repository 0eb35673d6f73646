/* SPDX-License-Identifier: Apache-2.0
 *
 * The sparse part of a growing pool; see sparse.h. */
#include "sparse.h"

#include "range_tree.h"

int ssm_sparse_reserve(struct ssm_pool *pool, uint64_t start, uint64_t bytes)
{
    const struct ssm_geometry *g = &pool->geometry;
    if (bytes == 0 || g->arena_units == 0 || start + bytes <= g->reserved_bytes)
        return 0;
    const int fd = ssm_pool_fd(pool);
    return fd < 0 ? fd : ssm_segment_reserve(fd, start, bytes, NULL, NULL);
}

int ssm_sparse_reserve_tree(struct ssm_pool *pool, uint64_t start, uint32_t capacity, uint32_t nodes)
{
    if (nodes > capacity)
        nodes = capacity;
    const uint64_t nodes_start = start + sizeof(struct al_tree_head);
    const uint64_t journal_start = nodes_start + (uint64_t)capacity * sizeof(struct al_tree_node);
    const int result = ssm_sparse_reserve(pool, start,
                                          sizeof(struct al_tree_head) + (uint64_t)nodes * sizeof(struct al_tree_node));
    return result != 0 ? result
                       : ssm_sparse_reserve(pool, journal_start,
                                            (uint64_t)al_tree_undo_capacity(nodes) * sizeof(struct al_tree_undo));
}
