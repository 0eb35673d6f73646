/* SPDX-License-Identifier: Apache-2.0
 *
 * Owned rings: each goes with the process that created it (SSM_OWNED), as a subscription of a topic does. `owner` in
 * the ring is that process's lock word: holder slot and incarnation. When the process leaves the pool or is reaped, its
 * rings are ended: no put succeeds any more, puts that wait return, what is queued is freed, and the name is gone.
 *
 * Ending a ring, with the registry locked, and what a death after each step leaves:
 *   1  under the producer's right: FLOWDOWN, DISCARD     the owner's slot is still a dead process's, and the ring names
 *                                                        it: the next reaper begins at step 1
 *   2  under the consumer's right: packets are freed     the same; what was taken is the dead reaper's, and is reaped
 *   3  all waiters are woken                             waits look again within 50 ms by themselves
 *   4  its name is taken away (ring_unlink.h)            the same
 *   5  owner = 0                                         an ended ring without a name, which goes with its last user
 * If a stopped process has one of the rights, the owner is left to the next reaper, with its ring.
 */
#ifndef SSM_RING_OWNED_H
#define SSM_RING_OWNED_H

#include "ring.h"

/* With the registry locked: ends the ring if it goes with one of these processes, or with one that had its slot before.
 * Returns SSM_NIL; or the slot of its owner, if a stopped process is in the way. */
uint32_t ssm_ring_end_owned(struct ssm_pool *pool, uint32_t holder_id, const struct ssm_holder_set *gone);

#endif
