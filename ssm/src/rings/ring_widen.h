/* SPDX-License-Identifier: Apache-2.0
 *
 * Widening a ring: in a pool that grows, a ring begins with few slots, and has twice as many whenever it is full, up to
 * what its capacity asks for. So a ring whose capacity is a mere bound costs what is in it. From 256 slots, 16 times is
 * the most (SSM_RING_MAX).
 *
 * The place of all slots is carved when the ring is made; their memory is reserved when they are to be used
 * (sparse.h). A packet put at position p stands in slot p % slot_count. With twice as many slots, that is the old slot
 * or one of the new ones. So the packets from tail to head are copied to their new slots, and then the count is stored:
 *   1  the producer's right, then the consumer's    two dead owners; neither side needs a repair
 *   2  the new slots are reserved                   the same, and memory that nobody uses: it is reserved again
 *   3  copies in the new slots                      the same; nobody looks at slots at or behind the count
 *   4  slot_count (Q1)                              the same, and done: the old slots that were copied are nobody's
 *   5  the consumer's right is given up; the producer's caller gives up the other
 * No other call takes both rights, so there is no deadlock. If the consumer's right stays taken, or there is no memory,
 * the ring is full.
 *
 * A ring with a side that one process keeps, and one that overflows, has all its slots from the beginning. */
#ifndef SSM_RING_WIDEN_H
#define SSM_RING_WIDEN_H

#include "ring.h"

/* With the producer's right: makes room for `count` packets more, which the capacity must allow. False: as full as it
 * was. */
bool ssm_ring_widen(struct ssm_ring *ring, uint32_t count);

#endif
