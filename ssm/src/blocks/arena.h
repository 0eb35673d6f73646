/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: memory for packets that are larger than any class's blocks. Its blocks are descriptors as all others are, in
 * a class of their own, with shards and lists but no private caches; which range of the arena's memory a block has, its
 * extent says. So a packet of the arena has a handle, holders and a recovery like any other, and freeing it does not come
 * here: the block goes to its list with its extent, which means nothing from then on, and is taken when it is needed.
 *
 *   has room?  under the lock: is there a free range, or what could be one? Before a block is taken: who took one only to
 *              give it back would wake those who wait, himself too
 *   furnish    after blocks were claimed (the commit), under the lock, one by one: an extent of just that size stays; any
 *              other is given back, and a range allocated. No room: sweep, and once more
 *   sweep      the extents of all blocks whose holder set is empty are given back
 *
 * Why a sweep never frees an extent that is in use: a process that claims a block sets its bit before it takes the
 * arena's lock, and reads the extent only under the lock. If the sweep has the lock first, the process sees what the
 * sweep left. If the process has it first, the lock orders (L1, L2) its bit before the sweep's look, which then does not
 * find the set empty. A packet that goes from holder to holder is never seen without a holder (B1, B2).
 *
 * Why a call that waits for room is woken: it sleeps on the class's event. Each free of a packet of the arena lists its
 * block and signals that event; so does a call that gives back an extent of another size. The signal wakes all waiters,
 * since it is not known which of them fits. A waiter announces itself before its last look, and that look sweeps.
 *
 * Death. The truth is in the holder sets and the extents. The tree is a cache: whoever takes the lock over from the dead
 * makes it anew from them, whatever the death left in it, and sweeps by the way. Of a furnish,
 *   1  bytes = 0              no extent; the tree has a range that nobody has: the rebuild leaves it out
 *   2  the range is freed     the same without it; a step inside: a tree that is half one thing, and made anew
 *   3  a range is allocated   a range that nobody has, again
 *   4  start, window          bytes are 0: they mean nothing
 *   5  bytes (release)        the dead one's block, with its extent; the reaper clears the bit, the next sweep takes it
 * A sweep is 1 and 2 for each block. A rebuild begins with an empty tree: who dies in it leaves a dead owner again.
 *
 * Growing. Where the arena grows, its memory is reserved by units, and the bit of a unit says that it is. Bits are read and
 * changed under the lock. Nobody touches a byte of a unit whose bit is not set: the page would be given memory at the
 * touch, and where there is none, the touch is SIGBUS. Before the arena grows, it is swept. Behind step 5, where a bit of the
 * extent is missing,
 *   6  the lock is let go     the dead one's block, with an extent that lacks memory: as after 5. Whoever gets the block with that
 *                             extent comes here, too, and finds the bits missing
 *   7  the units are reserved the same, and memory that no bit tells of: the next one who needs those units reserves them again,
 *                             which changes nothing; till then, or till the pool ends, nobody has the use of it
 *   8  the lock again         a dead owner; the rebuild does not touch the bits
 *   9  the bits are set, each for itself: units that are reserved, whether or not they are used
 * Reserving is outside of the lock, because it takes 0.4 ms a MiB. Two who reserve one unit at a time do no harm.
 * No memory: what has been reserved gets its bits, the extents are given back, and it counts as no room; so does every need to
 * grow for a while. Who waits looks again in turn: the end of another program's file wakes nobody.
 *
 * Giving back. Under the lock, of units all of whose bytes are free in the tree, so that no extent reaches into them:
 *   1  punch_start, punch_units   a dead owner; its successor makes the tree anew, and if these units are free in it, goes on at 2
 *   2  the bits are cleared       the same: memory that no bit tells of
 *   3  the hole is punched        the same: a hole is punched again
 *   4  punch_units = 0            nothing
 * The bits go first: a unit whose bit is set always has memory. A process that reserves units outside of the lock (step 7) has an
 * extent that reaches into each of them, so they are not free, and their bits stay as it has seen them. Whoever holds a packet has
 * its extent in the tree; whoever looks at one without holding it reads, and does not touch.
 * When: bytes were freed, or a call waits, and for a second each look has found twice as much memory as packets use, and 8 MiB
 * more. Then down to one and a half times as much, 16 MiB at a time, the last units first; never less than `arena_bytes`.
 *
 * Blocks. A growing arena has few blocks at first, and more when none of them is free: 64, then twice as many, by 1024 at most
 * (`packets`). They never become fewer, since a stale handle may name any of them.
 *   1  the lock               a dead owner
 *   2  memory for descriptors, lists, extents, tree   the same, and memory that nobody looks at: it is reserved again
 *   3  the first time: an empty tree                  the same: it is made again
 *   4  packets = next (W1)    the new blocks are there, free, and on no list: the reaper settles them, as all blocks
 *   5  the lock is let go     the same
 *   6  the new blocks are listed at shard 0, under its lock: the same; its next owner makes the list anew
 */
#ifndef SSM_ARENA_H
#define SSM_ARENA_H

#include "block.h"
#include "lock.h"
#include "range_tree.h"
#include "sparse.h"

static inline struct ssm_arena *ssm_arena_of(const struct ssm_pool *pool)
{
    return (struct ssm_arena *)(pool->base + pool->geometry.arena_start);
}

int ssm_arena_init(struct ssm_pool *pool); /* of a fresh pool; nothing to do where there is none */

/* What a packet of so many bytes takes, headroom and tailroom included. */
static inline uint64_t ssm_arena_round(uint64_t bytes)
{
    return (bytes + SSM_EXTENT_UNIT - 1) / SSM_EXTENT_UNIT * SSM_EXTENT_UNIT;
}

static inline uint64_t ssm_arena_align(uint64_t bytes)
{
    return bytes < SSM_EXTENT_LARGE ? SSM_EXTENT_UNIT : SSM_EXTENT_PAGE;
}

/* So many of them have room in the arena, when nothing else is in it. */
static inline uint64_t ssm_arena_capacity(const struct ssm_pool *pool, uint64_t bytes)
{
    const uint64_t align = ssm_arena_align(bytes), step = (bytes + align - 1) / align * align;
    return bytes <= pool->geometry.arena_bytes ? (pool->geometry.arena_bytes - bytes) / step + 1 : 0;
}

/* What is asked for: `count` packets of one size. */
struct ssm_arena_request {
    uint64_t bytes;  /* of an extent */
    uint64_t length; /* of the packet */
    uint32_t count;
};

/* 0: most likely; -SSM_E_EXHAUSTED; -SSM_E_CORRUPT; -ETIMEDOUT: the lock's owner did not let go. `thorough`: sweeps. */
int ssm_arena_has_room(struct ssm_pool *pool, const struct ssm_arena_request *request, bool thorough);

/* Gives each of these blocks, which this process has just claimed, its extent and its window. Results as above; then some
 * may have one, and the caller gives the blocks back. */
int ssm_arena_furnish(struct ssm_pool *pool, const struct ssm_arena_request *request, const uint64_t *handles);

/* Makes more blocks, `wanted` of them at least, if it may have so many: where none is free. Then there may be some, its own or
 * another process's; -SSM_E_EXHAUSTED, -ETIMEDOUT. */
int ssm_arena_add_packets(struct ssm_pool *pool, uint32_t wanted);

/* Gives memory back, if there has been much more of it than packets use for a while; some at a time. Where the lock is taken,
 * another time. */
void ssm_arena_trim(struct ssm_pool *pool);
/* Behind a free: looks whether there is too much, once so many bytes were freed. */
void ssm_arena_trim_in_turn(struct ssm_pool *pool);

/* Takes the lock from a dead owner, and lets go. 1: did so. */
int ssm_arena_recover(struct ssm_pool *pool);

#if SSM_ASSERTS
bool ssm_arena_is_valid(const struct ssm_pool *pool); /* I12, I13 and I15, with the lock held */
#endif

/* What the bits say is reserved, the file has: false where it was cut and has grown again. */
bool ssm_arena_is_backed(const struct ssm_pool *pool);
/* The units of its extent are reserved; of a block that this process has, or with the lock held. */
bool ssm_arena_has_memory(const struct ssm_pool *pool, uint32_t block_idx);
/* Bytes of its memory that are reserved. */
uint64_t ssm_arena_backed_bytes(const struct ssm_pool *pool);
/* By how many it can still grow, as far as the file system says now. */
uint64_t ssm_arena_available_bytes(const struct ssm_pool *pool);

/* I12, I13, I15; how many are broken. Nothing is said while the lock's owner is stopped. */
uint64_t ssm_arena_check(struct ssm_pool *pool, al_report_fn report, void *context);

#endif
