/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards: free lists in front of the truth, and the waking of those who wait for a block.
 *
 * A list is a dense stack of block indices: 16 ns a hand-off against 251 for links through the blocks. All blocks
 * start in shard 0; a block goes to the list of its home, and the home is the shard of the process that last took
 * it: blocks migrate to where they are used (sharding, stealing and signalling after the Ouroboros SSM pool).
 *
 * Death while the lock is held, at any store: the next owner rebuilds the list from the descriptors.
 *   on the list, listed == 0     free, home here: the rebuild lists it
 *   claimed, still on the list   not free: the rebuild leaves it out; the reaper gives it back
 *   released, not yet listed     free, home here: the rebuild lists it
 */
#ifndef SSM_SHARD_H
#define SSM_SHARD_H

#include "lock.h"
#include "seed_bug.h"


/* Takes up to `count` blocks for this process: its bit is set, it is their home, they are on no list.
 * How many; -ETIMEDOUT: the lock's owner did not let go in `patience_ns`; -SSM_E_CORRUPT. */
int ssm_shard_take(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint32_t count, uint64_t patience_ns,
                   uint32_t *blocks_out);

/* Gives blocks of one class back whose bit of this process is still set: clears it and lists those that are free
 * then, each at its home. Blocks whose shard stays locked for `patience_ns` are left as they were, at the front of
 * `blocks`; returns how many. */
uint32_t ssm_shard_give(struct ssm_pool *pool, uint32_t class_idx, uint32_t *blocks, uint32_t count, uint64_t patience_ns);

/* Takes the bit of `holder` from the block, and settles it if that was the last one. */
void ssm_block_let_go(struct ssm_pool *pool, uint32_t block_idx, uint32_t holder);
/* While this process takes bits from a block and then settles it, it says so: for a process that is stopped in between,
 * the block is not lost. 1 + its index; SSM_LETTING_GO_ANY; 0: no more. Death, wherever: the note says nothing beside a dead
 * process, which excuses all until it is reaped; and who takes the slot next clears it. */
static inline void ssm_holder_note_letting_go(struct ssm_pool *pool, uint32_t what)
{
    if (!SSM_HAS_BUG(SILENT_RELEASE))
        ssm_store_release_u32(&ssm_holder_at(pool, pool->self)->letting_go, what);
}

/* Lists the block if it is free and not listed. Anyone, any time. A shard whose lock stays taken is not waited for:
 * then the class is marked, and whoever finds nothing else free settles it. False: so it was. */
bool ssm_block_settle(struct ssm_pool *pool, uint32_t block_idx);
/* Settles every block of a marked class; true when it was marked. */
bool ssm_class_settle(struct ssm_pool *pool, uint32_t class_idx);

/* The lock, for who wants to look; released by ssm_lock_release(). 0 or -ETIMEDOUT. */
int ssm_shard_lock(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx, uint64_t patience_ns);

/* Takes the lock and lets go: repairs what a dead owner left. 1: did so; 0: its owner lives, or it has none. */
int ssm_shard_recover(struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx);

/* Wakes up to `count` of those who wait for a block of the class, round-robin over the shards. */
void ssm_class_signal(struct ssm_pool *pool, uint32_t class_idx, uint32_t count);
/* Announces a waiter of the class; frees then go to the shards instead of private caches. */
void ssm_class_announce(struct ssm_pool *pool, uint32_t class_idx);

static inline bool ssm_class_is_awaited(const struct ssm_own_class *class)
{
    return ssm_load_relaxed_u32(&class->shared->announced) & 1; /* stale: the waiter looks again */
}

#endif
