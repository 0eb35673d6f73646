/* SPDX-License-Identifier: Apache-2.0
 *
 * Taking packets out, as shutdown and overwriting puts need it. The public calls are in ssm.h. */
#ifndef SSM_GET_H
#define SSM_GET_H

#include "attachment.h"

/* Frees all queued packets. Needs the consumer's right. */
void ssm_ring_discard(struct ssm_ring *ring);

/* Frees as many of the oldest packets as `count` new ones need, for a put into a full ring that overwrites. The caller
 * has no right to the ring. 0: there was room, which another producer may take; -SSM_E_FULL: a stopped process has the
 * consumer's right. */
int ssm_ring_make_room(struct ssm_ring *ring, uint32_t count);

#endif
