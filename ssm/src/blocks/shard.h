/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards: free lists, as caches of the holder sets, and the waking of calls that wait for a block.
 *
 * A list is a dense stack of block indices: a hand-off takes 16 ns, where links through the blocks took 251. All blocks
 * start in shard 0. A free block is on the list of its home, and its home is the shard of the process that last took
 * it, so blocks migrate to where they are used (sharding, stealing and signalling after the Ouroboros SSM pool).
 *
 * If a process dies with the lock, at any store, the next owner rebuilds the list from the descriptors.
 *   on the list, listed == 0     free, home here: the rebuild lists it
 *   claimed, still on the list   not free: the rebuild leaves it out; the reaper gives it back
 *   released, not yet listed     free, home here: the rebuild lists it
 */
#ifndef SSM_SHARD_H
#define SSM_SHARD_H

#include "lock.h"
#include "seed_bug.h"


/* Takes up to `count` blocks for this process: sets its bit, makes its shard their home, and takes them off the list.
 * Returns how many; -ETIMEDOUT if the lock stayed taken for `patience_ns`; -SSM_E_CORRUPT. */
int ssm_shard_take(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint32_t count, uint64_t patience_ns,
                   uint32_t *blocks_out);

/* Gives back blocks of one class that carry this process's bit: clears the bit, and lists the blocks that are free
 * then, each at its home. Leaves blocks whose shard stays locked for `patience_ns` unchanged, at the front of `blocks`;
 * returns how many. */
uint32_t ssm_shard_give(struct ssm_pool *pool, uint32_t class_idx, uint32_t *blocks, uint32_t count,
                        uint64_t patience_ns);

/* Clears the bit of `holder`, and settles the block if that was the last bit. */
void ssm_block_let_go(struct ssm_pool *pool, uint32_t block_idx, uint32_t holder);
/* Notes that this process clears bits of a block and then settles it: 1 + the block's index, SSM_LETTING_GO_ANY, or 0
 * when it is done. So ssm_check() does not call a block lost if the process is stopped in between. After a death the
 * note does no harm: a dead process excuses every block until it is reaped, and the next owner of the slot clears the
 * note. */
static inline void ssm_holder_note_letting_go(struct ssm_pool *pool, uint32_t what)
{
    if (!SSM_HAS_BUG(SILENT_RELEASE))
        ssm_store_release_u32(&ssm_holder_at(pool, pool->self)->letting_go, what);
}

/* Lists the block if it is free and not listed. Any process may call it at any time. If the shard's lock stays taken,
 * it marks the class instead and returns false; a process that finds no other free block then settles the class. */
bool ssm_block_settle(struct ssm_pool *pool, uint32_t block_idx);
/* Settles every block of a marked class; true when it was marked. */
bool ssm_class_settle(struct ssm_pool *pool, uint32_t class_idx);

#if SSM_ASSERTS
/* I1 and I2, with the lock held. */
bool ssm_shard_is_valid(const struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx);
#endif

/* Lists the blocks first .. end - 1 of the class, which were made just now: each where it is at home, in shard 0. */
void ssm_shard_add(struct ssm_pool *pool, uint32_t class_idx, uint32_t first, uint32_t end);

/* Takes the lock in order to look; ssm_lock_release() releases it. 0 or -ETIMEDOUT. */
int ssm_shard_lock(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint64_t patience_ns);

/* Repairs a shard whose lock a dead process has. 1 if it did; 0 if the owner lives or there is none. */
int ssm_shard_recover(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx);

/* Wakes up to `count` calls that wait for a block of the class, round-robin over the shards. */
void ssm_class_signal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count);
/* Announces a waiter of the class; frees then go to the shards instead of private caches. */
void ssm_class_announce(struct ssm_pool *pool, uint32_t class_idx);

static inline bool ssm_class_is_awaited(const struct ssm_own_class *class)
{
    return ssm_load_relaxed_u32(&class->shared->announced) & 1; /* stale: the waiter looks again */
}

#endif
