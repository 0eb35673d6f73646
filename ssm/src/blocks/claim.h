/* SPDX-License-Identifier: Apache-2.0
 *
 * Claims: which blocks this process holds, and by how many references (struct ssm_claim), in private memory. Other
 * processes see only its bit in a block's holder set. The bytes that it holds are counted in usage.h.
 *
 * A claim says whether this process alone holds the block, so that no fast path has to read the holder set:
 *   I17  without SSM_CLAIM_SHARED, no other living process and no ring holds the block
 * Only a holder adds another one. So a set that was exactly this process stays so until this process itself adds a
 * holder, and then it sets the flag: put, where it keeps the packet or has other references (hand_to_ring), and giving
 * a delivery back (ssm_delivery_give_back). A reaper adds a ring only to a block that a dead process holds. A get that
 * finds other holders beside the ring sets the flag, too (take_block), and so does a process that takes a packet which
 * stays in its ring (ring_roster.c), with both rights to the ring. The flag stays until the last reference is gone, even
 * if the other holders go before: then only the slow paths look at the set. Whatever makes the first reference writes
 * all flags anew.
 */
#ifndef SSM_CLAIM_H
#define SSM_CLAIM_H

#include "block.h"
#include "usage.h"

/* Returns the block of a handle that this process holds. SSM_NIL: the handle is stale. */
static inline uint32_t ssm_claim_find(const struct ssm_pool *pool, uint64_t handle)
{
    uint32_t block_idx = (uint32_t)handle;
    if (block_idx >= pool->geometry.block_total || pool->claims[block_idx].handle != handle ||
        pool->claims[block_idx].references == 0)
        return SSM_NIL;
    SSM_ASSERT_SHARED(ssm_handle_now(pool, block_idx) == handle);
    return block_idx;
}

/* Is there a reference that is neither pinned nor a link's? Only such a reference can be given away. */
static inline bool ssm_claim_is_movable(const struct ssm_claim *claim)
{
    return claim->references > claim->pins + (claim->flags & SSM_CLAIM_SEGMENT ? 1u : 0u);
}

/* Returns the block of a handle that this process holds by a movable reference, or SSM_NIL. */
static inline uint32_t ssm_claim_find_movable(const struct ssm_pool *pool, uint64_t handle)
{
    uint32_t block_idx = ssm_claim_find(pool, handle);
    return block_idx == SSM_NIL || ssm_claim_is_movable(&pool->claims[block_idx]) ? block_idx : SSM_NIL;
}

/* Returns the segment behind a head or segment that this process holds, or SSM_NIL. */
static inline uint32_t ssm_chain_next(const struct ssm_pool *pool, uint32_t block_idx)
{
    uint32_t next = ssm_claim_find(pool,
                                   ssm_load_relaxed_u64(&ssm_block_at(pool, block_idx)->next)); /* mine: it stays */
    return next == SSM_NIL || pool->claims[next].flags & SSM_CLAIM_SEGMENT ? next : SSM_NIL;
}

/* Returns the class of a packet that this process holds alone (I17), by one reference, not pinned. NULL for any other
 * packet. */
static inline const struct ssm_own_class *ssm_claim_sole_class(const struct ssm_pool *pool, uint64_t handle)
{
    const uint32_t block_idx = (uint32_t)handle;
    if (block_idx >= pool->geometry.block_total)
        return NULL;
    const struct ssm_claim *claim = &pool->claims[block_idx];
    const uint64_t word = ssm_claim_word(claim);
    if (claim->handle != handle || !ssm_claim_word_is_sole(word))
        return NULL;
    SSM_ASSERT_SHARED(ssm_handle_now(pool, block_idx) == handle &&
                      ssm_block_pair_is(ssm_block_at(pool, block_idx), pool->mark));
    return &pool->classes[word >> 56];
}

/* Claims a packet that this process alone holds from now on. `word`: ssm_claim_word_sole() of its class. */
static inline void ssm_claim_write(struct ssm_claim *claim, uint64_t handle, uint64_t word)
{
    SSM_ASSERT_SHARED(claim->references == 0); /* this process did not have it */
    claim->handle = handle;
    memcpy(&claim->references, &word, sizeof word);
}

static inline void ssm_claim_set_sole(struct ssm_pool *pool, const struct ssm_own_class *class, uint64_t handle)
{
    SSM_ASSERT(ssm_class_has_block(class, (uint32_t)handle));
    ssm_claim_write(&pool->claims[(uint32_t)handle], handle, ssm_claim_word_sole(class->class_idx));
}

/* Drops the reference of each packet if all are sole (see above) and none is listed twice; otherwise changes nothing.
 * The blocks still carry this process's bit. */
static inline bool ssm_claims_take_sole(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (SSM_LIKELY(ssm_claim_sole_class(pool, handles[i]) != NULL)) {
            pool->claims[(uint32_t)handles[i]].references = 0; /* a second one is not sole */
            continue;
        }
        while (i-- > 0)
            pool->claims[(uint32_t)handles[i]].references = 1;
        return false;
    }
    return true;
}

static inline void ssm_claims_restore_sole(struct ssm_pool *pool, const uint64_t *handles, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        SSM_ASSERT(pool->claims[(uint32_t)handles[i]].references == 0);
        pool->claims[(uint32_t)handles[i]].references = 1;
    }
}

#endif
