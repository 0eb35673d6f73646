/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage: the sum of the sizes of the blocks that this process holds, for its quota. It is kept as what is left until
 * either the quota or a new peak has to be looked at (`left_bytes`), so the fast paths need one subtraction and its
 * sign. It is negative only between two statements, and while a quota is set below what is held.
 */
#ifndef SSM_USAGE_H
#define SSM_USAGE_H

#include "attachment.h"

static inline uint64_t ssm_usage_held(const struct ssm_pool *pool)
{
    return pool->unchecked_bytes_max - (uint64_t)pool->left_bytes;
}

/* Sets quota and peak, for what is held. */
static inline void ssm_usage_set_limits(struct ssm_pool *pool, uint64_t quota_bytes, uint64_t peak_bytes)
{
    const uint64_t held_bytes = ssm_usage_held(pool);
    pool->quota_bytes = quota_bytes;
    pool->peak_bytes = peak_bytes;
    pool->unchecked_bytes_max = peak_bytes < quota_bytes ? peak_bytes : quota_bytes;
    pool->left_bytes = (int64_t)(pool->unchecked_bytes_max - held_bytes);
}

/* A new peak, or more than the quota. */
SSM_COLD void ssm_usage_note_peak(struct ssm_pool *pool);

/* Called when a claim's references leave 0 and reach 0. */
static inline void ssm_usage_add(struct ssm_pool *pool, uint64_t bytes)
{
    SSM_ASSERT(ssm_usage_held(pool) + bytes >= bytes);
    pool->left_bytes -= (int64_t)bytes;
    if (pool->left_bytes < 0)
        ssm_usage_note_peak(pool);
}

static inline void ssm_usage_subtract(struct ssm_pool *pool, uint64_t bytes)
{
    SSM_ASSERT(ssm_usage_held(pool) >= bytes);
    pool->left_bytes += (int64_t)bytes;
}

static inline bool ssm_usage_allows(const struct ssm_pool *pool, uint64_t bytes)
{
    return bytes <= pool->quota_bytes && ssm_usage_held(pool) <= pool->quota_bytes - bytes;
}

#endif
