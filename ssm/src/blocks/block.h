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

/* Is the packet with that handle in the ring still? The bit first: with it, generation and link are those of the packet that
 * is queued (G4). An index that somebody scribbled is none. */
static inline bool ssm_block_is_queued(const struct ssm_pool *pool, uint32_t ring_id, uint64_t handle)
{
    if ((uint32_t)handle >= pool->geometry.block_total)
        return false;
    const struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
    return ssm_block_has(block, ring_id) && ssm_load_relaxed_u32(&block->generation) == handle >> 32; /* G4 */
}

/* Word by word, not at one moment. Words stand in pairs: where the set has an odd number, the last one's neighbour is in
 * the descriptor's padding, and empty. */
static inline bool ssm_block_words_are(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark)
{
    uint64_t rest = ssm_load_acquire_u64(&block->holders[mark.word]) ^ mark.bit;
    rest |= ssm_load_acquire_u64(&block->holders[mark.word ^ 1]);
    for (uint32_t w = 0; pool->geometry.holder_words > 2 && w < pool->geometry.holder_words; w++)
        if (w / 2 != mark.word / 2)
            rest |= ssm_load_acquire_u64(&block->holders[w]);
    return rest == 0;
}

/* The same. `moved_out`: somebody came and went meanwhile, so that no moment was as it looks. */
static inline bool ssm_block_seems_exactly(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark,
                                           bool *moved_out)
{
    uint32_t moves = ssm_load_acquire_u32(&block->moves);
    bool exactly = ssm_block_words_are(pool, block, mark);
    ssm_fence_acquire(); /* B2: the words are read before moves is read again; pairs with B1 */
    *moved_out = ssm_load_relaxed_u32(&block->moves) != moves;
    return exactly; /* if not: one word held something else, and no snapshot could be what is asked for */
}

/* For the fast paths, where it is true nearly always. False also when it is not certain. */
static inline bool ssm_block_is_sole(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark)
{
    bool moved, exactly = ssm_block_seems_exactly(pool, block, mark, &moved);
    return exactly & !moved;
}

SSM_COLD bool ssm_block_look_again(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark);

/* The truth, all words at one moment: does the set consist of this holder alone? (SSM_NIL: is it empty?)
 * False when it changes too fast to tell: then it is neither. */
static inline bool ssm_block_is_exactly(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder)
{
    const struct ssm_mark mark = holder == SSM_NIL ? (struct ssm_mark){0} : ssm_mark_of(holder);
    bool moved;
    return ssm_block_seems_exactly(pool, block, mark, &moved) && (!moved || ssm_block_look_again(pool, block, mark));
}

/* This process alone has it. */
static inline bool ssm_block_is_mine(const struct ssm_pool *pool, const struct ssm_block *block)
{
    return ssm_block_is_exactly(pool, block, pool->self);
}

static inline bool ssm_block_is_free(const struct ssm_pool *pool, const struct ssm_block *block)
{
    return ssm_block_is_exactly(pool, block, SSM_NIL);
}

/* Both at one moment, for the owner of that shard's lock: who claims it elsewhere gives it another home, but its generation
 * first. */
static inline bool ssm_block_is_listed_at(const struct ssm_block *block, uint32_t shard_idx)
{
    uint32_t generation = ssm_load_acquire_u32(&block->generation);
    bool listed = ssm_load_acquire_u32(&block->listed) && ssm_load_acquire_u32(&block->home) == shard_idx;
    ssm_fence_acquire(); /* G2: pairs with G1 in claim_locked() */
    return listed && ssm_load_relaxed_u32(&block->generation) == generation;
}

/* Of a free block, under its home's lock: the first holder. */
static inline void ssm_block_claim(struct ssm_block *block, uint32_t holder)
{
    ssm_store_release_u64(&block->holders[holder / 64], UINT64_C(1) << holder % 64);
}

/* The set is exactly `holder`: now it is empty. */
static inline void ssm_block_clear(struct ssm_block *block, uint32_t holder)
{
    ssm_store_release_u64(&block->holders[holder / 64], 0); /* H1 -> H2 in find_block(): its home is known before */
}

/* By a process that has the right to: of a block that others hold too. */
void ssm_block_add(const struct ssm_pool *pool, struct ssm_block *block, uint32_t holder);
void ssm_block_remove(struct ssm_block *block, uint32_t holder);
/* The set is exactly `from`: hand the block to `to`. */
static inline void ssm_block_pass(struct ssm_block *block, struct ssm_mark from, struct ssm_mark to)
{
    ssm_store_release_u64(&block->holders[to.word], to.bit);
    if (from.word == to.word)
        return; /* one store: `from` went as `to` came */
    ssm_store_release_u32(&block->moves, ssm_load_relaxed_u32(&block->moves) + 1); /* B1; alone: nobody else counts */
    ssm_store_release_u64(&block->holders[from.word], 0);
}

static inline void ssm_block_swap(struct ssm_block *block, uint32_t from, uint32_t to)
{
    ssm_block_pass(block, ssm_mark_of(from), ssm_mark_of(to));
}

#endif
