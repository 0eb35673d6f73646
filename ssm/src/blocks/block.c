/* SPDX-License-Identifier: Apache-2.0
 *
 * Holder sets; see block.h. */
#include "block.h"

#define LOOKS 1000 /* a set that changed in each of so many looks counts as held */

bool ssm_block_look_again(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark)
{
    for (int look = 0; look < LOOKS; look++) {
        bool moved, exactly = ssm_block_seems_exactly(pool, block, mark, &moved);
        if (!exactly || !moved)
            return exactly;
    }
    return false;
}

void ssm_block_add(const struct ssm_pool *pool, struct ssm_block *block, uint32_t holder)
{
    ssm_or_acqrel_u64(&block->holders[holder / 64], UINT64_C(1) << holder % 64);
    if (pool->geometry.holder_words > 1)
        ssm_add_acqrel_u32(&block->moves, 1); /* B1: counted before the caller clears another bit */
}

void ssm_block_remove(struct ssm_block *block, uint32_t holder)
{
    ssm_and_acqrel_u64(&block->holders[holder / 64], ~(UINT64_C(1) << holder % 64)); /* H1 -> H2 in find_block() */
}
