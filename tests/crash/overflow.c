/* SPDX-License-Identifier: Apache-2.0
 *
 * Puts into a full ring that overflows; see scenarios.h. In these worlds RING_MANY drops, overwrites, or samples. */
#include "scenarios.h"

#define NOW 0

/* clang-format off */
static struct ssm_ring *many(const struct world *world) { return world->rings[VICTIM][RING_MANY]; }

static void put(struct world *world) { world_returned(world, ssm_ring_put(many(world), world->packets, 1, 0, NOW)); }
static void put_3(struct world *world) { world_returned(world, ssm_ring_put(many(world), world->packets, 3, 0, NOW)); }
/* clang-format on */
static void put_3_keep(struct world *world)
{
    world_returned(world, ssm_ring_put(many(world), world->packets, 3, SSM_KEEP, NOW));
}

/* The victim has so many packets; with its call the first `put` of them go in, and the oldest `gone` are freed. */
static void give(struct world *world, uint32_t count, uint32_t put, uint32_t gone)
{
    struct expectation *expect = &world->expect[RING_MANY];
    world_give(world, VICTIM, count);
    expect->put_stage = 1;
    expect->take_stage = gone > 0; /* else the call's result may count what was dropped */
    expect->take_max = gone;
    for (uint32_t i = 0; i < put; i++)
        expect->put.serial[expect->put.count++] = world_serial_of(world, world->packets[i]);
}

static void full(struct world *world, uint32_t queued)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, queued);
}

static void to_drop(struct world *world)
{
    full(world, CAPACITY_MANY);
    give(world, 1, 0, 0);
}

static void to_drop_2_of_3(struct world *world)
{
    full(world, CAPACITY_MANY - 1);
    give(world, 3, 1, 0);
}

static void to_overwrite(struct world *world)
{
    full(world, CAPACITY_MANY);
    give(world, 1, 1, 1);
}

static void to_overwrite_with_3(struct world *world)
{
    full(world, CAPACITY_MANY - 1);
    give(world, 3, 3, 2);
}

static void to_overwrite_shared(struct world *world)
{
    world_queue_shared(world);
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY - 1);
    give(world, 1, 1, 1);
}

/* A consumer died between taking two packets and advancing, with the right: nothing that is queued has to give way. */
static void to_overwrite_behind_the_dead(struct world *world)
{
    struct ssm_pool *pool = world->pools[VICTIM];
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + pool->geometry.metadata_start);
    struct serials *queued = &world->expect[RING_MANY].queued;
    uint64_t got[2];
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
    ssm_ring_get(world->rings[DEAD][RING_MANY], got, 2, NOW);
    ssm_store_relaxed_u64(&shared->consumer.index, 0);
    ssm_store_relaxed_u64(&shared->consumer.lock.word, world->pools[DEAD]->lock_word);
    for (uint32_t i = 0; i < CAPACITY_MANY - 2; i++)
        queued->serial[i] = queued->serial[i + 2];
    queued->count = CAPACITY_MANY - 2;
    world->somebody_died = true;
    give(world, 1, 1, 0);
}

/* Of two that find the ring full, the victim's is the second one, and goes in. */
static void to_sample(struct world *world)
{
    const struct ssm_pool *pool = world->pools[VICTIM];
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(pool->base + pool->geometry.metadata_start);
    to_overwrite(world);
    ssm_store_relaxed_u64(&shared->producer.found_full, 1);
}

#define DROPS      .many_flags = SSM_OVERFLOW_DROP
#define OVERWRITES .many_flags = SSM_OVERFLOW_OVERWRITE
#define SAMPLES    .many_flags = SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(2)

const struct scenario overflow_scenarios[] = {
    {"put, drop: full ring", to_drop, put, .results = {1}, DROPS},
    {"put, drop: 3 packets, one place", to_drop_2_of_3, put_3, .results = {2}, DROPS},
    {"put, drop: the same, kept", to_drop_2_of_3, put_3_keep, .results = {2}, DROPS},
    {"put, overwrite: full ring", to_overwrite, put, .results = {0}, OVERWRITES},
    {"put, overwrite: 3 packets, one place", to_overwrite_with_3, put_3, .results = {0}, OVERWRITES},
    {"put, overwrite: shared packet", to_overwrite_shared, put, .results = {0}, OVERWRITES},
    {"put, overwrite: behind a dead consumer", to_overwrite_behind_the_dead, put, .results = {0}, OVERWRITES},
    {"put, sample: full ring, dropped", to_drop, put, .results = {1}, SAMPLES},
    {"put, sample: full ring, goes in", to_sample, put, .results = {0}, SAMPLES},
};

const uint32_t overflow_scenario_count = sizeof overflow_scenarios / sizeof *overflow_scenarios;
