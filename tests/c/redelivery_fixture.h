/* SPDX-License-Identifier: Apache-2.0
 *
 * What the tests of redelivery have in common: four rings, and packets whose tag is their number. */
#ifndef TESTS_REDELIVERY_FIXTURE_H
#define TESTS_REDELIVERY_FIXTURE_H

#include "pool_fixture.h"

#define BLOCKS  8
#define PACKETS 4 /* in the ring at first, numbered from 1 on */

enum { DONE }; /* steps of the board */

static inline struct ssm_pool_options options(void)
{
    return (struct ssm_pool_options){
        .classes = {{64, BLOCKS}},
        .class_count = 1,
        .shards = 2,
        .holders = 64,
        .metadata_bytes = 8192,
    };
}

static inline struct fixture open_fixture(void)
{
    struct ssm_pool_options small = options();
    return fixture_open(&small);
}

/* clang-format off */
static inline struct ssm_ring *source(struct ssm_pool *pool) { return ring_open(pool, "source", PACKETS, SSM_REDELIVER); }
static inline struct ssm_ring *other(struct ssm_pool *pool) { return ring_open(pool, "other", PACKETS, SSM_REDELIVER); }
static inline struct ssm_ring *sink(struct ssm_pool *pool) { return ring_open(pool, "sink", PACKETS, 0); }
static inline struct ssm_ring *side(struct ssm_pool *pool) { return ring_open(pool, "side", PACKETS, 0); }
/* clang-format on */

static inline uint64_t alloc(struct ssm_pool *pool, uint64_t number)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(pool, 8, 0, &handle), 0);
    CHECK_EQ(ssm_packet_set_tag(pool, handle, number), 0);
    return handle;
}

static inline void put(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number)
{
    uint64_t handle = alloc(pool, number);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
}

static inline uint64_t take(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number, int redelivered)
{
    uint64_t handle, tag;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    CHECK_EQ(ssm_packet_tag(pool, handle, &tag), 0);
    CHECK_EQ(tag, number);
    CHECK_EQ(ssm_packet_redelivered(pool, handle), redelivered);
    return handle;
}

static inline void get(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number, int redelivered)
{
    CHECK_EQ(ssm_free(pool, take(pool, ring, number, redelivered)), 0);
}

static inline void check_empty(struct ssm_ring *ring)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_EMPTY);
    CHECK_EQ(ssm_ring_depth(ring), 0);
}

/* The first packet in the last block: their order is not that of the blocks. */
static inline void fill(struct fixture *f)
{
    struct ssm_ring *ring = source(f->pool);
    uint64_t handles[PACKETS];
    for (uint64_t number = PACKETS; number > 0; number--)
        handles[number - 1] = alloc(f->pool, number);
    CHECK(block_of(handles[0]) > block_of(handles[PACKETS - 1]));
    CHECK_EQ(ssm_ring_put(ring, handles, PACKETS, 0, 0), 0);
    ssm_ring_close(ring);
}

#endif
