/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of rings have in common: packets with a number in them. */
#ifndef TESTS_RING_FIXTURE_H
#define TESTS_RING_FIXTURE_H

#include "pool_fixture.h"

#define BLOCKS 16

enum { READY, GO }; /* steps of the board */

static inline struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

/* A packet with a number in it. */
static inline uint64_t alloc(struct ssm_pool *pool, uint64_t number)
{
    uint64_t handle;
    struct ssm_packet packet;
    CHECK_EQ(ssm_alloc(pool, 8, 0, &handle), 0);
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    memcpy(packet.data, &number, 8);
    return handle;
}

static inline uint64_t number_in(struct ssm_pool *pool, uint64_t handle)
{
    struct ssm_packet packet;
    uint64_t number;
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    CHECK_EQ(packet.length, 8);
    memcpy(&number, packet.data, 8);
    return number;
}

static inline void put(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number)
{
    uint64_t handle = alloc(pool, number);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
}

static inline void get(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    CHECK_EQ(number_in(pool, handle), number);
    CHECK_EQ(ssm_free(pool, handle), 0);
}

/* Nothing comes; where the producer of an exclusive side has died or left, the ring may say that. */
static inline void check_empty(struct ssm_ring *ring)
{
    uint64_t handle;
    int result = ssm_ring_get(ring, &handle, 1, 0);
    if (result != -SSM_E_ORPHANED || !(ssm_ring_flags(ring) & SSM_ONE_PRODUCER))
        CHECK_EQ(result, -SSM_E_EMPTY);
    CHECK_EQ(ssm_ring_depth(ring), 0);
}

static inline struct ssm_ring_shared *shared_of(struct ssm_pool *pool)
{
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, ring_id(pool, "ring"));
    CHECK(shared != NULL);
    return shared;
}

static inline int try_open(struct ssm_pool *pool, const char *name, uint32_t capacity, uint32_t flags)
{
    struct ssm_ring *ring;
    int result = ssm_ring_open(pool, name, &(struct ssm_ring_options){.capacity = capacity, .flags = flags}, &ring);
    if (result == 0)
        ssm_ring_close(ring);
    return result;
}

#endif
