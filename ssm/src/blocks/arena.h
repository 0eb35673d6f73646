/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: memory for packets that are larger than the blocks of any class. Its blocks are descriptors like all
 * others, in a class of their own, with shards and lists but without private caches. The extent of a block says which
 * range of the arena's memory it has. So a packet of the arena has a handle, holders and a recovery like any other.
 * Freeing it does not touch the arena: its block goes to a list together with its extent, which is unused from then on,
 * until its memory is needed.
 *
 *   has room?  under the lock, before a block is taken: is there a free range, or would a sweep free one? To take a
 *              block and give it back would wake every waiter, including the caller
 *   furnish    under the lock, after blocks were claimed (the commit), one by one: an extent of the right size stays;
 *              any other one is given back, and a range is allocated; if there is no room, after a sweep
 *   sweep      gives back the extents of all blocks whose holder set is empty
 *
 * Why a sweep never frees an extent that is in use: a process that claims a block sets its bit before it takes the
 * arena's lock, and reads the extent only under the lock. If the sweep has the lock first, the process sees what the
 * sweep left. If the process has it first, the lock orders (L1, L2) its bit before the sweep's look, which then does
 * not find the set empty. A packet that goes from holder to holder is never seen without a holder (B1, B2).
 *
 * Why a call that waits for room is woken: it sleeps on the class's event. Each free of a packet of the arena lists its
 * block and signals that event; so does a call that gives back an extent of another size. The signal wakes all waiters,
 * since it is not known which of them fits. A waiter announces itself before its last look, and that look sweeps.
 *
 * Death. Holder sets and extents are the truth, the tree is a cache of them. A process that takes the lock over from a
 * dead owner rebuilds the tree from them, which also sweeps. A death in a furnish leaves, after
 *   1  bytes = 0              no extent; the tree has a range without a block: the rebuild leaves it out
 *   2  the range is freed     no extent, no range; after a step inside, a torn tree, which is rebuilt
 *   3  a range is allocated   a range without a block, as after 1
 *   4  start, window          the same: bytes are 0, so these are unused
 *   5  bytes (release)        a block of the dead process, with its extent: the reaper clears the bit, the next sweep
 *                             gives the extent back
 * A sweep is steps 1 and 2 for each block. A rebuild begins with an empty tree; a death in it leaves a dead owner
 * again.
 *
 * Growing. The memory of a growing arena is reserved by units, and the bit of a unit says that it is. Bits are read and
 * changed under the lock. Nobody touches a byte of a unit whose bit is clear: the touch would allocate a page, and is
 * SIGBUS if there is none. The arena is swept before it grows. After step 5, if a bit of the extent is missing:
 *   6  the lock is released    as after 5; the extent lacks memory. The next process that gets the block with it comes
 *                              here, too, and finds the bits missing
 *   7  units are reserved      the same, and memory without a bit: the next process that needs these units reserves
 *                              them again, which changes nothing; until then, or until the pool ends, nobody uses it
 *   8  the lock is taken       a dead owner; the rebuild does not touch the bits
 *   9  the bits are set        one by one: units that are reserved, used or not
 * Units are reserved outside of the lock, because that takes 0.4 ms a MiB. Two processes may reserve one unit at a
 * time. If there is no memory, the reserved units get their bits, the extents are given back, and the call finds no
 * room. For a while, no call tries to grow then. Waiters look again in turn, since nobody signals when other programs
 * free memory.
 *
 * Giving back. Under the lock, for units whose bytes are all free in the tree, so that no extent reaches into them:
 *   1  punch_start, punch_units   a dead owner; the next one rebuilds the tree; if these units are free, it goes on
 *   2  the bits are cleared       the same: memory without a bit
 *   3  the hole is punched        the same: a hole is punched again
 *   4  punch_units = 0            nothing
 * The bits are cleared first, so a unit whose bit is set always has memory. A process that reserves units outside of
 * the lock (step 7) has an extent that reaches into each of them, so they are not free, and their bits stay as it saw
 * them. The extent of a packet that a process holds is in the tree. A process that looks at another packet reads the
 * file, and touches nothing. When: bytes were freed, or a call waits, and for a second each look has found twice as
 * much memory as packets use, and 8 MiB more. Then the arena shrinks to one and a half times as much, by at most 16 MiB
 * at once, the last units first, and never below `arena_bytes`.
 *
 * Blocks. A growing arena has few blocks at first, and more when none of them is free: 64, then twice as many, by at
 * most 1024 (`packets`). They never become fewer, since a stale handle may name any of them.
 *   1  the lock                                       a dead owner
 *   2  memory for descriptors, lists, extents, tree   the same, and unused memory: it is reserved again
 *   3  the first time: an empty tree                  the same: it is made again
 *   4  packets = next (W1)                            the new blocks are free and on no list: the reaper settles them
 *   5  the lock is released                           the same
 *   6  shard 0 lists the new blocks, under its lock   the same; its next owner rebuilds the list
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

int ssm_arena_init(struct ssm_pool *pool); /* in a new pool, if it has an arena */

/* The size of an extent for so many bytes, headroom and tailroom included. */
static inline uint64_t ssm_arena_round(uint64_t bytes)
{
    return (bytes + SSM_EXTENT_UNIT - 1) / SSM_EXTENT_UNIT * SSM_EXTENT_UNIT;
}

static inline uint64_t ssm_arena_align(uint64_t bytes)
{
    return bytes < SSM_EXTENT_LARGE ? SSM_EXTENT_UNIT : SSM_EXTENT_PAGE;
}

/* How many such extents fit into an empty arena. */
static inline uint64_t ssm_arena_capacity(const struct ssm_pool *pool, uint64_t bytes)
{
    const uint64_t align = ssm_arena_align(bytes), step = (bytes + align - 1) / align * align;
    return bytes <= pool->geometry.arena_bytes ? (pool->geometry.arena_bytes - bytes) / step + 1 : 0;
}

/* A request for `count` packets of one size. */
struct ssm_arena_request {
    uint64_t bytes;  /* of an extent */
    uint64_t length; /* of the packet */
    uint32_t count;
};

/* 0 if there is probably room; -SSM_E_EXHAUSTED; -SSM_E_CORRUPT; -ETIMEDOUT if the lock stays taken. `thorough`:
 * sweeps. */
int ssm_arena_has_room(struct ssm_pool *pool, const struct ssm_arena_request *request, bool thorough);

/* Gives each of these blocks, which this process has just claimed, an extent and a window. Results as above. After an
 * error some blocks may have an extent, and the caller gives all of them back. */
int ssm_arena_furnish(struct ssm_pool *pool, const struct ssm_arena_request *request, const uint64_t *handles);

/* Makes at least `wanted` more blocks if none is free and the arena may have so many. 0: there may be free ones now,
 * made here or by another process; -SSM_E_EXHAUSTED; -ETIMEDOUT. */
int ssm_arena_add_packets(struct ssm_pool *pool, uint32_t wanted);

/* Gives some memory back if there has been much more of it than packets use for a while. Does nothing if the lock is
 * taken. */
void ssm_arena_trim(struct ssm_pool *pool);
/* Called after a free: trims once this process has freed enough bytes. */
void ssm_arena_trim_in_turn(struct ssm_pool *pool);

/* Takes the lock over from a dead owner, and releases it. 1 if there was one. */
int ssm_arena_recover(struct ssm_pool *pool);

#if SSM_ASSERTS
bool ssm_arena_is_valid(const struct ssm_pool *pool); /* I12, I13 and I15, with the lock held */
#endif

/* Has the file all memory that the bits promise? False if it was cut and has grown again. */
bool ssm_arena_is_backed(const struct ssm_pool *pool);
/* Are all units of its extent reserved? For a block that this process holds, or with the lock held. */
bool ssm_arena_has_memory(const struct ssm_pool *pool, uint32_t block_idx);
/* The bytes that are reserved. */
uint64_t ssm_arena_backed_bytes(const struct ssm_pool *pool);
/* The bytes that it can still grow by, as the file system says now. */
uint64_t ssm_arena_available_bytes(const struct ssm_pool *pool);

/* Checks I12, I13 and I15; returns how many are broken. Checks nothing while the lock's owner is stopped. */
uint64_t ssm_arena_check(struct ssm_pool *pool, al_report_fn report, void *context);

#endif
