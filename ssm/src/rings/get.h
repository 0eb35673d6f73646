/* SPDX-License-Identifier: Apache-2.0
 *
 * What ending a ring, and putting into a full one, need of taking out. */
#ifndef SSM_GET_H
#define SSM_GET_H

#include "attachment.h"

/* Frees all that is queued; with the consumer's right. */
void ssm_ring_discard(struct ssm_ring *ring);

/* For a put into a full ring that overwrites, without any right: frees as many of the oldest packets as `count` new ones need
 * just now. 0: there is room, until another producer takes it; -SSM_E_FULL: the consumer's right is a stopped process's. */
int ssm_ring_make_room(struct ssm_ring *ring, uint32_t count);

#endif
