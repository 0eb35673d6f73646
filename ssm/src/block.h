/* SPDX-License-Identifier: Apache-2.0
 *
 * Holder sets. One bit per holder; setting and clearing is atomic and idempotent, so recovery may repeat it.
 *
 * A set may span several words, and a block may travel from a holder in one word to a holder in another while
 * somebody reads them one by one: each word looks empty when it is read, the set never was. Therefore whoever
 * sets a bit while another is set counts `moves` before it clears the other one (B1), and whoever needs the truth
 * of all words reads `moves` before and after (B2). Sets of one word need no counting.
 *
 * Plain stores: a holder that has a block alone may store the word, for only holders set bits, and the only
 * others who clear some (reapers) use a read-modify-write that cannot lose the store.
 *
 * Death: between the stores of ssm_block_swap() the block has the old holder, or both, or the new one; never none.
 */
#ifndef SSM_BLOCK_H
#define SSM_BLOCK_H

#include "attachment.h"

static inline bool ssm_block_has(const struct ssm_block *block, uint32_t holder)
{
    return ssm_load_acquire_u64(&block->holders[holder / 64]) >> holder % 64 & 1;
}

static inline bool ssm_words_are_exactly(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder)
{
    for (uint32_t w = 0; w < pool->geometry.holder_words; w++) {
        uint64_t wanted = holder / 64 == w ? UINT64_C(1) << holder % 64 : 0;
        if (ssm_load_acquire_u64(&block->holders[w]) != wanted)
            return false;
    }
    return true;
}

bool ssm_block_look_again(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder);

/* The truth, all words at one moment: does the set consist of this holder alone? (SSM_NIL: is it empty?)
 * False when it changes too fast to tell: then it is neither. */
static inline bool ssm_block_is_exactly(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder)
{
    uint32_t moves = ssm_load_acquire_u32(&block->moves);
    if (!ssm_words_are_exactly(pool, block, holder))
        return false; /* one word held something else at one moment: no snapshot could be what is asked for */
    ssm_fence_acquire(); /* B2: the words are read before moves is read again; pairs with B1 */
    return ssm_load_relaxed_u32(&block->moves) == moves || ssm_block_look_again(pool, block, holder);
}

static inline bool ssm_block_is_free(const struct ssm_pool *pool, const struct ssm_block *block)
{
    return ssm_block_is_exactly(pool, block, SSM_NIL);
}

/* Of a free block, under its home's lock: the first holder. */
static inline void ssm_block_claim(struct ssm_block *block, uint32_t holder)
{
    ssm_store_release_u64(&block->holders[holder / 64], UINT64_C(1) << holder % 64);
}

/* By a process that has the right to: of a block that others hold too. */
void ssm_block_add(const struct ssm_pool *pool, struct ssm_block *block, uint32_t holder);
void ssm_block_remove(struct ssm_block *block, uint32_t holder);
/* The set is exactly `from`: hand the block to `to`. */
void ssm_block_swap(struct ssm_block *block, uint32_t from, uint32_t to);

#endif
