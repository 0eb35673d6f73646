/* SPDX-License-Identifier: Apache-2.0
 *
 * Stowing free blocks: into the private cache, unless a call waits for the class; blocks beyond the cache's limit go to
 * their home shard. */
#ifndef SSM_STOW_H
#define SSM_STOW_H

#include "cache.h"
#include "shard.h"

/* How many blocks the private cache may have: none while a call waits for the class, so that freed blocks go past
 * it. */
static inline uint32_t ssm_stow_limit(const struct ssm_pool *pool, uint32_t class_idx)
{
    return ssm_class_is_awaited(&pool->classes[class_idx]) ? 0 : pool->classes[class_idx].cache_blocks;
}

/* Stows blocks that this process holds alone and has no claim to: in the cache up to `limit`, the rest in their home
 * shards. */
void ssm_stow_blocks(struct ssm_pool *pool, uint32_t class_idx, const uint64_t *handles, uint32_t count,
                     uint32_t limit);

#endif
