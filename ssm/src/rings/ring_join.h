/* SPDX-License-Identifier: Apache-2.0
 *
 * Counting what was done of what was put, for who wants to wait until all of it is.
 *
 * `done` and the producer's index (I14) only grow, and done is read first: equal then, they were so when done was read. Anybody counts, without a right to
 * a side. A death before the counting leaves a task that is never done: as with every queue, whoever took it is gone; and
 * one between the counting and the wake-up, a sleeper that looks again in time (eventcount.h). What a put that was not published
 * had begun never counted. What a shutdown discards, or gives way in a ring that overwrites, is done.
 */
#ifndef SSM_RING_JOIN_H
#define SSM_RING_JOIN_H

#include "ring_fast.h"

/* So many more are done: 0, or -EINVAL and nothing has changed: so many were not put. */
int ssm_ring_join_add(struct ssm_ring *ring, uint32_t count);

#endif
