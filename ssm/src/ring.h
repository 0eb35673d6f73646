/* SPDX-License-Identifier: Apache-2.0
 *
 * What recovery and introspection need of rings; the rest of the ring is public (ssm.h). */
#ifndef SSM_RING_H
#define SSM_RING_H

#include "attachment.h"

#define SSM_ACL_DISCARD (UINT32_C(1) << 31) /* shut down at once: what is queued is freed, not delivered */

static inline uint32_t ssm_ring_slot_count(uint32_t capacity)
{
    uint32_t slots = 1;
    while (slots < capacity && slots < SSM_RING_MAX) /* of a capacity that somebody may have scribbled */
        slots *= 2;
    return slots;
}

/* The shared part of the ring with that holder id, or NULL when what stands there cannot be one. */
struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id);

struct ssm_ring_shared *ssm_ring_shared_of(const struct ssm_ring *ring);
struct ssm_pool        *ssm_ring_pool(const struct ssm_ring *ring);

/* Takes over the sides that the dead have, and repairs them. */
void ssm_ring_scrub(struct ssm_pool *pool, uint32_t holder_id);
/* Gives up the sides that this process has. */
void ssm_ring_let_go(struct ssm_pool *pool, uint32_t holder_id);

#endif
