/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains: a message of several blocks. The head's `next` names the first segment, that one's the second, to SSM_NO_NEXT.
 * In a ring the head's handle stands in a slot; the segments carry the ring's bit and stand nowhere: they hang on the head.
 *
 *   N1  a process that has a chain has all of it, and nobody else has a block of it, but for a ring or a process that is
 *       dead: links are made between blocks that a process has alone, and such blocks go by whole chains only
 *   N2  links are written only by a process that has the chain; a block that comes out of a list has none. So in a ring,
 *       and whoever died in a put or get, they stay as they were
 *   N3  the blocks of a chain that carry the ring's bit are its first ones: put sets the bits from the head on (step 4),
 *       everything else takes them off from the end to the head. Therefore whoever finds the head in a slot finds all
 *       that hangs on it by walking, however often others died before in the same task
 *   N4  a link leads on only to a block that carries the ring's bit and has the link's generation: a segment that somebody
 *       dead had taken is not taken for what became of its block since
 *
 * What a death leaves:
 *   link, unlink    blocks of the dead alone: the reaper frees each by its bit, and no link matters
 *   put, step 4     the first ones carry the ring's bit; the repair of the side takes it off, from the end. Once more, if
 *                   that one dies. The others are the dead one's
 *   get, step 2     the last ones are the dead one's. The next get finds a chain that is not whole: it was delivered to
 *                   the dead one, so what is left is freed, from the end, and the slot passed over
 *   free            blocks of the dead, or free ones: as any
 * Links that somebody scribbled over: each block is looked at before it is used, and a walk ends after SSM_CHAIN_MAX.
 */
#ifndef SSM_CHAIN_H
#define SSM_CHAIN_H

#include "claim.h"

/* The handles of the packet or chain with that head, as far as they carry the ring's bit: how many, at most SSM_CHAIN_MAX.
 * *whole_out: it ends where the chain does; then none stands there twice. */
uint32_t ssm_chain_collect(const struct ssm_pool *pool, uint32_t ring_id, uint64_t head, uint64_t *handles_out, bool *whole_out);

/* Takes the ring's bit off them, from the end to the head, and settles. By who has the right to that side of the ring. */
void ssm_chain_drop(struct ssm_pool *pool, uint32_t ring_id, const uint64_t *handles, uint32_t count);

#endif
