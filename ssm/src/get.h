/* SPDX-License-Identifier: Apache-2.0
 *
 * What ending a ring needs of taking out. */
#ifndef SSM_GET_H
#define SSM_GET_H

#include "attachment.h"

/* Frees all that is queued; with the consumer's right. */
void ssm_ring_discard(struct ssm_ring *ring);

#endif
