/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains: messages of several blocks. `next` of the head is the handle of the first segment, and so on, to SSM_NO_NEXT.
 * In a ring, the head's handle is in a slot; the segments carry the ring's bit and are reached from the head.
 *
 *   N1  a process that has a chain has all of it, and no other process has a block of it, except a ring or a dead
 *       process: only blocks that a process holds alone are linked, and linked blocks move only as whole chains
 *   N2  only a process that has the chain writes its links; a block that comes out of a list has none. So links stay
 *       unchanged in a ring, and when a process dies in a put or get
 *   N3  the blocks of a chain that carry the ring's bit are its first ones: put sets the bits from the head on (step
 *       4), everything else clears them from the end to the head. So a process that finds the head in a slot finds all
 *       linked blocks by walking, however many processes died before it
 *   N4  a walk follows a link only to a block that carries the ring's bit and has the link's generation: a segment
 *       that a dead process had taken is not mistaken for the packet that its block became
 *
 * What a death leaves:
 *   link, unlink    blocks that only the dead process holds: the reaper frees each by its bit, and no link matters
 *   put, step 4     the first blocks carry the ring's bit; the repair of the side clears it, from the end, and is
 *                   repeated if the repairer dies. The other blocks are the dead process's
 *   get, step 2     the last blocks are the dead process's. The next get finds that the chain is not whole: it was
 *                   delivered to the dead process. So it frees the rest, from the end, and skips the slot
 *   free            blocks of the dead process, or free ones, as after any free
 * Damaged links: each block is checked before it is used, and a walk ends after SSM_CHAIN_MAX blocks.
 */
#ifndef SSM_CHAIN_H
#define SSM_CHAIN_H

#include "claim.h"

/* Collects the handles of the packet or chain with that head, as far as they carry the ring's bit. Returns how many, at
 * most SSM_CHAIN_MAX. *whole_out: the walk reached the end of the chain; then no handle is there twice. */
uint32_t ssm_chain_collect(const struct ssm_pool *pool, uint32_t ring_id, uint64_t head, uint64_t *handles_out,
                           bool *whole_out);

/* Clears the ring's bit of these blocks, from the end to the head, and settles them. The caller has the right to that
 * side. */
void ssm_chain_drop(struct ssm_pool *pool, uint32_t ring_id, const uint64_t *handles, uint32_t count);

#endif
