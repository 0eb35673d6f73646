/* SPDX-License-Identifier: Apache-2.0
 *
 * What recovery and introspection need of rings; the rest of the ring is public (ssm.h). */
#ifndef SSM_RING_H
#define SSM_RING_H

#include "redelivery.h"

/* A process's access to a ring: private memory. */
struct ssm_ring {
    struct ssm_pool        *pool;
    struct ssm_ring_shared *shared;
    struct ssm_mark         mark;
    uint32_t                id;        /* holder id */
    uint32_t                capacity, flags;
    uint32_t                mask;      /* slots - 1 */
    const struct ssm_redelivery *table; /* or NULL: an ordinary ring */
    uint32_t                class_idx; /* of the packet that the long way of get took last: the next one's, most likely */
};

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
/* The table of a ring that redelivers; false: it is none. */
bool ssm_ring_table(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_redelivery *table_out);
/* The holder slot of who is putting deliveries just now, or was when it died; SSM_NIL: nobody. */
uint32_t ssm_ring_putter(const struct ssm_pool *pool, uint32_t holder_id);
/* With the registry locked: what the dead took out and have still goes back to the front. */
void ssm_ring_return(struct ssm_pool *pool, uint32_t holder_id, const struct ssm_holder_set *dead);
/* Packets in it now, returned ones included. */
uint64_t ssm_ring_depth_of(const struct ssm_pool *pool, uint32_t holder_id, const struct ssm_ring_shared *shared);
/* Gives up the sides that this process has. */
void ssm_ring_release_sides(struct ssm_pool *pool, uint32_t holder_id);

#endif
