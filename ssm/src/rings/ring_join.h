/* SPDX-License-Identifier: Apache-2.0
 *
 * task_done and join: counts finished packets, so that a process can wait for all of them.
 *
 * `done` and the producer's index only grow (I14), and `done` is read first. If they are equal, they were equal when
 * `done` was read. Any process counts, without a right to a side. A death before the counting leaves a task that is
 * never done, as in every queue. After a death between the counting and the wake-up, the sleeper looks again in time
 * (eventcount.h). Packets of a put that was not published never counted. Packets that a shutdown discards, or that a
 * ring overwrites, are done.
 */
#ifndef SSM_RING_JOIN_H
#define SSM_RING_JOIN_H

#include "ring_fast.h"

/* Counts `count` packets as done. 0; -EINVAL, without a change, if fewer were put. */
int ssm_ring_join_add(struct ssm_ring *ring, uint32_t count);

#endif
