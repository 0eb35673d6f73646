/* SPDX-License-Identifier: Apache-2.0
 *
 * The partners of a ring: is there a process left on the other side? So that a get from an empty ring whose producer
 * has died, and a put into a full ring whose consumer has, end instead of waiting for ever.
 *
 * An exclusive side remembers the process that claimed it last, and since when that is gone. Only the owner of the
 * side's lock writes this, so it needs no lock of its own. What a death after each step leaves:
 *
 *   claim   1  the side's lock is taken                            the lock of a dead process: see "found dead"
 *           2  gone_ns = 0                                         likewise
 *           3  name, pid                                           likewise; the name may be half the former one's
 *   close   1  died = 0, then gone_ns = now, with release (Z1)     the lock of a dead process; gone_ns is set anew
 *           2  the side's lock is released (L1)                    a side that is free, and says since when
 *           3  the waiters of the other side are woken             they look within 50 ms
 *   found dead: by the thief of the side's lock (a reaper, the next process, a shutdown)
 *           1  died = 1, then gone_ns = now, if there is a pid (Z1)   the thief's lock, which is stolen likewise
 *           2  the lock is released, the waiters are woken         as for close
 *   A shutdown may borrow the lock of a side that nobody has claimed. It writes no pid, so its death leaves a side that
 *   still never had a process.
 *
 * A side is orphaned when gone_ns is set (Z2), its lock is free, and the time of grace is over. The lock is free or
 * stolen before the next process clears gone_ns: so there is nothing to see of the former one's death while the next
 * one is there. A process that sees gone_ns also sees what the gone process put, or took; so a call looks at
 * the ring once more before it reports that the ring is orphaned.
 *
 * A shared side of a ring with SSM_PEERS has a set of the processes that may use it, behind the ring: those that have
 * used it, and those that have the ring open and have used neither side yet. Each process writes its own bits.
 *
 *   open   1  the process is a user of the ring (ring_unlink.h)    a user, which its reaper removes
 *          2  its bit is set in both sets                          the same; it may come, until it is reaped
 *   use    1  under the side's right, before anything is put or    the same
 *             got: its bit is set in this side's set
 *          2  its bit in the other side's set is cleared, unless   likewise
 *             a handle of the process may use that side (Z3)
 *          3  waiters for the other side are woken, after 2        they look within 50 ms
 *   close  1  name, pid, died, then gone_ns = now, for the sides   the bits are there still; a reaper does it all again
 *             that the process may use no more
 *          2  its bits in their sets are cleared (Z3)              sets without it
 *          3  waiters for these sides are woken                    they look within 50 ms
 *          4  the process is no user of the ring any more
 *   A reaper closes for the dead, after their locks were repaired and their packets returned, and before their slots are
 *   free; so does a process that adopts a slot. Two that close at once may mix their names.
 * Such a side is orphaned when its set is empty (Z4), it was used at least once, and the time of grace since gone_ns is
 * over. gone_ns is read after the set, so that it is not older than the last process of it.
 *
 * The line of the partners is written by claims, closes and deaths alone. Waiters read it as often as they look.
 */
#ifndef SSM_RING_PARTNER_H
#define SSM_RING_PARTNER_H

#include "lock.h"
#include "ring.h"

/* Steps 2 and 3 of a claim. Needs the side's right. */
SSM_COLD void ssm_partner_arrives(struct ssm_ring *ring, const struct ssm_side *side);
/* Step 1 of a close, or of finding the owner dead. Needs the side's lock. No effect on a side that nobody claimed. */
SSM_COLD void ssm_partner_goes(struct ssm_ring_shared *shared, const struct ssm_side *side, bool died);
/* The last step of both. */
SSM_COLD void ssm_partner_wakes(const struct ssm_pool *pool, struct ssm_ring_shared *shared,
                                const struct ssm_side *side);

/* Of a ring with SSM_PEERS; without effect on any other. A handle was made, or is a forked child's from now on. */
SSM_COLD void ssm_peer_opens(struct ssm_ring *ring);
/* The first use of a side by a handle: notes also that the fast path may be tried. Needs the side's right. */
SSM_COLD void ssm_peer_comes(struct ssm_ring *ring, enum ssm_readiness what);
/* A handle is closed, and is none of the attachment's any more. */
SSM_COLD void ssm_peer_closes(struct ssm_ring *ring);
/* That process leaves the ring: the caller, which closes the pool; or one that died, with the registry locked. */
SSM_COLD void ssm_peer_goes(struct ssm_pool *pool, uint32_t ring_id, uint32_t slot, bool died);

/* Has the other side gone for good, as far as can be known: has a get nothing to wait for (SSM_READY_TO_GET), or a put?
 * What is queued, or free, has to be looked at after this. */
bool ssm_ring_is_orphaned(const struct ssm_ring *ring, enum ssm_readiness what);

/* After a call that found the ring empty, or full, and gave up, perhaps without having waited at all: looks for dead
 * processes, if it is this one's turn, so that a program that only polls hears of a death, too. True: another attempt
 * may say more. */
SSM_COLD bool ssm_ring_look_for_partner(const struct ssm_ring *ring, enum ssm_readiness what);

#endif
