/* SPDX-License-Identifier: Apache-2.0
 *
 * Usage of this process; see usage.h. */
#include "usage.h"

void ssm_usage_note_peak(struct ssm_pool *pool)
{
    const uint64_t held_bytes = ssm_usage_held(pool);
    if (held_bytes <= pool->peak_bytes)
        return;
    ssm_usage_set_limits(pool, pool->quota_bytes, held_bytes);
    ssm_store_relaxed_u64(&ssm_holder_at(pool, pool->self)->peak_bytes, held_bytes); /* for people to read */
}
