/* SPDX-License-Identifier: Apache-2.0
 *
 * Holder sets: one bit per holder. Setting or clearing a bit is atomic and idempotent, so recovery may repeat it.
 *
 * A set may span several words, and a block may move from a holder in one word to a holder in another one while a third
 * process reads the words one by one. Then each word is empty when it is read, although the set never was. Therefore a
 * process that sets a bit while another bit is set increments `moves` before it clears the other one (B1), and a reader
 * that needs the truth of all words reads `moves` before and after them (B2). Sets of one word do not need this.
 *
 * Plain stores: a holder that has a block alone may store the word, since only holders set bits. Reapers, which also
 * clear bits, use a read-modify-write, which cannot lose the store.
 *
 * Death: between the stores of ssm_block_swap() the block has the old holder, or both, or the new one; never none.
 */
#ifndef SSM_BLOCK_H
#define SSM_BLOCK_H

#include "sparse.h"

static inline bool ssm_block_has(const struct ssm_block *block, uint32_t holder)
{
    return ssm_load_acquire_u64(&block->holders[holder / 64]) >> holder % 64 & 1;
}

/* Is the packet with that handle still in the ring? Reads the bit first: once it is seen, generation and link are those
 * of the queued packet (G4). A damaged handle is not queued. */
static inline bool ssm_block_is_queued(const struct ssm_pool *pool, uint32_t ring_id, uint64_t handle)
{
    if (!ssm_block_exists(pool, (uint32_t)handle))
        return false;
    const struct ssm_block *block = ssm_block_at(pool, (uint32_t)handle);
    return ssm_block_has(block, ring_id) && ssm_load_relaxed_u32(&block->generation) == handle >> 32; /* G4 */
}

/* Compares a word and its neighbour, not at one moment. Words are in pairs: in a set of an odd number of words, the
 * neighbour of the last one is padding of the descriptor, and empty. */
static inline bool ssm_block_pair_is(const struct ssm_block *block, struct ssm_mark mark)
{
    const uint64_t other = ssm_load_acquire_u64(&block->holders[mark.word]) ^ mark.bit; /* G4 */
    return (other | ssm_load_acquire_u64(&block->holders[mark.word ^ 1])) == 0;
}

/* Compares word by word, not at one moment. */
static inline bool ssm_block_words_are(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark)
{
    uint64_t rest = ssm_load_acquire_u64(&block->holders[mark.word]) ^ mark.bit;
    rest |= ssm_load_acquire_u64(&block->holders[mark.word ^ 1]);
    for (uint32_t w = 0; pool->geometry.holder_words > 2 && w < pool->geometry.holder_words; w++)
        if (w / 2 != mark.word / 2)
            rest |= ssm_load_acquire_u64(&block->holders[w]);
    return rest == 0;
}

/* Compares the whole set. *moved_out: the set changed during the scan, so the result is no snapshot. */
static inline bool ssm_block_seems_exactly(const struct ssm_pool *pool, const struct ssm_block *block,
                                           struct ssm_mark mark, bool *moved_out)
{
    uint32_t moves = ssm_load_acquire_u32(&block->moves);
    bool exactly = ssm_block_words_are(pool, block, mark);
    ssm_fence_acquire(); /* B2: the words are read before moves is read again; pairs with B1 */
    *moved_out = ssm_load_relaxed_u32(&block->moves) != moves;
    return exactly; /* false is certain: a word with another value excludes the set that is asked for */
}

SSM_COLD bool ssm_block_look_again(const struct ssm_pool *pool, const struct ssm_block *block, struct ssm_mark mark);

/* Does the set, as all words at one moment, consist of this holder alone? With SSM_NIL: is it empty? False if it
 * changes too fast to tell: then it is neither. */
static inline bool ssm_block_is_exactly(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder)
{
    const struct ssm_mark mark = holder == SSM_NIL ? (struct ssm_mark){0} : ssm_mark_of(holder);
    bool moved;
    return ssm_block_seems_exactly(pool, block, mark, &moved) && (!moved || ssm_block_look_again(pool, block, mark));
}

/* Does this process alone hold the block? */
static inline bool ssm_block_is_mine(const struct ssm_pool *pool, const struct ssm_block *block)
{
    return ssm_block_is_exactly(pool, block, pool->self);
}

static inline bool ssm_block_is_free(const struct ssm_pool *pool, const struct ssm_block *block)
{
    return ssm_block_is_exactly(pool, block, SSM_NIL);
}

/* Is the block listed, with that shard as its home, at one moment? For the owner of the shard's lock. A process that
 * claims the block from another shard changes its generation before its home. */
static inline bool ssm_block_is_listed_at(const struct ssm_block *block, uint32_t shard_idx)
{
    uint32_t generation = ssm_load_acquire_u32(&block->generation);
    bool listed = ssm_load_acquire_u32(&block->listed) && ssm_load_acquire_u32(&block->home) == shard_idx;
    ssm_fence_acquire(); /* G2: pairs with G1 in claim_locked() */
    return listed && ssm_load_relaxed_u32(&block->generation) == generation;
}

/* Makes `holder` the only holder of a free block. Needs the lock of its home. */
static inline void ssm_block_claim(struct ssm_block *block, uint32_t holder)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&block->holders[holder / 64]) == 0);
    ssm_store_release_u64(&block->holders[holder / 64], UINT64_C(1) << holder % 64);
}

/* Empties a set that is exactly `holder`. */
static inline void ssm_block_clear(struct ssm_block *block, uint32_t holder)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&block->holders[holder / 64]) == UINT64_C(1) << holder % 64);
    ssm_store_release_u64(&block->holders[holder / 64], 0); /* H1 -> H2 in find_block(): its home is known before */
}

/* Set and clear one bit of a block that others may hold, too. The caller has the right to do so. */
void ssm_block_add(const struct ssm_pool *pool, struct ssm_block *block, uint32_t holder);
void ssm_block_remove(struct ssm_block *block, uint32_t holder);
/* Hands a block whose set is exactly `from` to `to`. */
static inline void ssm_block_pass(struct ssm_block *block, struct ssm_mark from, struct ssm_mark to)
{
    SSM_ASSERT_SHARED(ssm_load_relaxed_u64(&block->holders[from.word]) == from.bit);
    SSM_ASSERT_SHARED(from.word == to.word || ssm_load_relaxed_u64(&block->holders[to.word]) == 0);
    ssm_store_release_u64(&block->holders[to.word], to.bit);
    if (from.word == to.word)
        return; /* one store has set `to` and cleared `from` */
    /* A plain store: no other process counts, since this holder is the only one. */
    ssm_store_release_u32(&block->moves, ssm_load_relaxed_u32(&block->moves) + 1); /* B1 */
    ssm_store_release_u64(&block->holders[from.word], 0);
}

static inline void ssm_block_swap(struct ssm_block *block, uint32_t from, uint32_t to)
{
    ssm_block_pass(block, ssm_mark_of(from), ssm_mark_of(to));
}

#endif
