/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings, as other modules of the core see them. The public calls are in ssm.h. */
#ifndef SSM_RING_H
#define SSM_RING_H

#include "redelivery.h"

/* A process's access to a ring: private memory. */
struct ssm_ring {
    struct ssm_pool             *pool;
    struct ssm_ring_shared      *shared;
    struct ssm_mark              mark;
    uint32_t                     id; /* holder id */
    uint32_t                     capacity, flags;
    uint32_t                     mask;   /* slots in use - 1, as of the last look: with a right, as they are */
    uint32_t                     places; /* packets that these have room for */
    const struct ssm_redelivery *table;  /* or NULL: an ordinary ring */
    uint64_t                     alive_for_ns;
    struct ssm_u64              *putters, *getters;  /* a ring with SSM_PEERS: see ring_partner.h; else NULL */
    bool                         has_put, has_got;   /* by this handle, since the process is what it is */
    bool                         put_fast, get_fast; /* the same, and it is an ordinary ring */
    uint32_t         class_idx;    /* of the last packet that the slow path of get took; a guess for the next one */
    uint32_t         incarnation;  /* of the ring's holder slot: that of another ring is another one */
    bool             gone;         /* a forked child found it freed: `shared` is a private one; see ring_unlink.h */
    struct ssm_ring *next, **link; /* the open rings of the attachment */
};

#define SSM_ACL_DISCARD (UINT32_C(1) << 31) /* shut down at once: queued packets are freed, not delivered */

static inline uint32_t ssm_ring_slot_count(uint32_t capacity)
{
    uint32_t slots = 1;
    while (slots < capacity && slots < SSM_RING_MAX) /* bounded even if the capacity is damaged */
        slots *= 2;
    return slots;
}

/* How many slots are in use; 0 if the word is damaged. With a right to the ring the number stays. Without one, the
 * contents of a slot say whether it counts. */
static inline uint32_t ssm_ring_slots_now(const struct ssm_ring_shared *shared, uint32_t capacity)
{
    const uint32_t slots = ssm_load_acquire_u32(&shared->slot_count); /* Q2: pairs with Q1 in widen() */
    return slots <= ssm_ring_slot_count(capacity) && (slots & (slots - 1)) == 0 ? slots : 0;
}

/* Looks how many slots are in use, with a right to the ring. They never become fewer. */
static inline void ssm_ring_look_at_slots(struct ssm_ring *ring)
{
    if (SSM_LIKELY(ssm_load_relaxed_u32(&ring->shared->slot_count) == ring->mask + 1)) /* the right orders it */
        return;
    const uint32_t slots = ssm_ring_slots_now(ring->shared, ring->capacity);
    if (slots > ring->mask + 1) {
        ring->mask = slots - 1;
        ring->places = slots < ring->capacity ? slots : ring->capacity;
    }
}

/* A checked copy of these fields, since another process may write over them meanwhile. */
struct ssm_ring_shape {
    uint32_t capacity, flags, type_bytes;
    uint64_t alive_for_ns;
};
/* The shared part of the ring with that holder id, which is a ring; NULL: it is damaged. */
struct ssm_ring_shared *ssm_ring_shape_of(const struct ssm_pool *pool, uint32_t holder_id,
                                          struct ssm_ring_shape *shape_out);
/* Offsets in a ring's memory: of a redelivering ring's entries, and of the text of its type, behind all else. */
uint64_t ssm_ring_table_start(uint32_t capacity);
uint64_t ssm_ring_type_start(const struct ssm_pool *pool, uint32_t capacity, uint32_t flags);

/* The holder id of the ring of that name, or SSM_NIL. */
uint32_t ssm_ring_find(const struct ssm_pool *pool, const char *name);
/* The shared part of the ring with that holder id, or NULL if there is no valid ring. */
struct ssm_ring_shared *ssm_ring_shared_at(const struct ssm_pool *pool, uint32_t holder_id);

/* A process's access to a ring that does not redeliver, for the length of one call of a process that has the registry
 * locked. False: there is no such ring. */
bool ssm_ring_borrow_access(struct ssm_pool *pool, uint32_t holder_id, struct ssm_ring *ring_out);

struct ssm_ring_shared *ssm_ring_shared_of(const struct ssm_ring *ring);
struct ssm_pool *ssm_ring_pool(const struct ssm_ring *ring);

/* One attempt to put, of a caller that has entered the pool. Wakes no call. */
int ssm_ring_put_entered(struct ssm_ring *ring, const uint64_t *handles, uint32_t count);

/* Takes over the sides of dead processes, and repairs them. */
void ssm_ring_scrub(struct ssm_pool *pool, uint32_t holder_id);
/* The table of a redelivering ring; false for any other ring. */
bool ssm_ring_table(const struct ssm_pool *pool, uint32_t holder_id, struct ssm_redelivery *table_out);
/* The holder slot of the process that is putting deliveries, or was when it died; SSM_NIL if there is none. */
uint32_t ssm_ring_putter(const struct ssm_pool *pool, uint32_t holder_id);
/* Returns packets that dead processes had taken out to the front. Needs the registry locked. */
void ssm_ring_return(struct ssm_pool *pool, uint32_t holder_id, const struct ssm_holder_set *dead);
/* Packets in the ring now, including returned ones. */
uint64_t ssm_ring_depth_of(const struct ssm_pool *pool, uint32_t holder_id, const struct ssm_ring_shared *shared);
/* Packets that can be put now. Entered. */
uint32_t ssm_ring_room_now(const struct ssm_ring *ring);
/* The processes that may use one side of a ring with SSM_PEERS, a holder set; NULL for any other ring. */
struct ssm_u64 *ssm_ring_peers(const struct ssm_pool *pool, uint32_t holder_id, bool putters);
/* Releases the sides that this process has. */
void ssm_ring_release_sides(struct ssm_pool *pool, uint32_t holder_id);

#endif
