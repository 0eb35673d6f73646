/* SPDX-License-Identifier: Apache-2.0
 *
 * Topics: subscribing, and the end of a ring that goes with a dead process; see scenarios.h. In these worlds RING_MANY
 * overwrites and is the topic's, and RING_ONE is the subscription's. */
#include "ring.h"
#include "scenarios.h"

#include <stdlib.h>

#define NOW 0

static void enrol(struct world *world)
{
    uint64_t room[CAPACITY_MANY];
    world_returned(world, ssm_ring_enrol(world->rings[VICTIM][RING_MANY], world->rings[VICTIM][RING_ONE], 2, room));
}

static void enrol_and_publish(struct world *world)
{
    uint32_t roster = 0;
    enrol(world);
    int result = ssm_ring_publish(world->rings[VICTIM][RING_MANY], world->packets[0], NOW, &roster);
    world_returned(world, result == 0 ? (int)roster : result);
}

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(world->pools[VICTIM], &reaped));
}

/* The latest two of three go into the subscription's ring as well. */
static void to_enrol(struct world *world)
{
    struct expectation *expect = &world->expect[RING_ONE];
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, 3);
    const struct serials *queued = &world->expect[RING_MANY].queued;
    expect->put_stage = 1;
    for (uint32_t i = 1; i < queued->count; i++)
        expect->put.serial[expect->put.count++] = queued->serial[i];
}

static void to_enrol_and_publish(struct world *world)
{
    struct expectation *expect = &world->expect[RING_MANY];
    to_enrol(world);
    world_give(world, VICTIM, 1);
    expect->put_stage = 2;
    expect->put.serial[expect->put.count++] = world_serial_of(world, world->packets[0]);
}

/* A dead process had a ring with two packets in it: nobody's, once that is reaped. */
static void to_reap_an_owner(struct world *world)
{
    const struct ssm_ring_options options = {.capacity = 2, .flags = SSM_OWNED};
    struct ssm_pool *dead = world->pools[DEAD];
    struct ssm_ring *ring;
    uint64_t serial;
    if (ssm_ring_open(dead, "owned", &options, &ring) != 0)
        abort();
    for (int i = 0; i < 2; i++) {
        uint64_t handle = world_alloc(world, DEAD, &serial);
        if (ssm_ring_put(ring, &handle, 1, 0, NOW) != 0)
            abort();
    }
    free(ring); /* the dead one's, whose access is not closed */
    world->somebody_died = true;
}

#define TOPIC .many_flags = SSM_OVERFLOW_OVERWRITE

const struct scenario topic_scenarios[] = {
    {"topic: enrol", to_enrol, enrol, .results = {2}, TOPIC},
    {"topic: enrol and publish", to_enrol_and_publish, enrol_and_publish, .results = {2, 1}, TOPIC},
    {"topic: reap the owner of a ring", to_reap_an_owner, reap, .results = {0}, TOPIC},
};

const uint32_t topic_scenario_count = sizeof topic_scenarios / sizeof *topic_scenarios;
