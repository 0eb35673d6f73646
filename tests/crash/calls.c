/* SPDX-License-Identifier: Apache-2.0
 *
 * Calls: requests and replies, as ssm/rpc.py makes them of rings; see scenarios.h. Requests go into a ring that
 * redelivers; each caller has a ring of replies, which goes with it and overwrites. A request and its reply have one
 * serial, also where the reply is another packet: so the books have each call once, as a request that waits for a
 * worker, or as a reply.
 *
 * The victim is a caller, with a ring of replies of its own, or a worker. Where it is a worker, RING_MANY has the
 * requests and RING_ONE is the survivor's ring of replies; where the survivor sleeps for its reply, the other way round. */
#include "scenarios.h"

#include <stdlib.h>

#define NOW     0
#define REPLIES (SSM_OWNED | SSM_OVERFLOW_OVERWRITE)
#define ANY     UINT32_MAX

/* clang-format off */
static struct ssm_pool *me(const struct world *world) { return world->pools[VICTIM]; }
static struct ssm_ring *many(const struct world *world) { return world->rings[VICTIM][RING_MANY]; }
static struct ssm_ring *one(const struct world *world) { return world->rings[VICTIM][RING_ONE]; }
/* clang-format on */

static struct ssm_ring *open_replies(const struct world *world, enum actor actor)
{
    const struct ssm_ring_options options = {.capacity = 2, .flags = REPLIES};
    struct ssm_ring *ring;
    if (ssm_ring_open(world->pools[actor], "replies", &options, &ring) != 0)
        abort();
    return ring;
}

/* ---- the caller -------------------------------------------------------------------------------------------------- */

static void end_replies(struct world *world)
{
    world_returned(world, ssm_ring_shutdown(world->opened, 1));
    world_returned(world, ssm_ring_unlink(world->opened));
    ssm_ring_close(world->opened);
    world->opened = NULL;
    world_returned(world, 0);
}

static void call_and_give_up(struct world *world)
{
    const struct ssm_ring_options options = {.capacity = 2, .flags = REPLIES};
    uint64_t reply;
    world_returned(world, ssm_ring_open(me(world), "replies", &options, &world->opened));
    world_returned(world, ssm_ring_put(many(world), world->packets, 1, 0, NOW));
    world_returned(world, ssm_ring_get(world->opened, &reply, 1, NOW));
    end_replies(world);
}

static void take_the_reply(struct world *world)
{
    uint64_t reply;
    for (int i = 0; i < 2; i++) { /* the first one is that of a call that was given up */
        world_returned(world, ssm_ring_get(world->opened, &reply, 1, NOW));
        world_returned(world, ssm_free(me(world), reply));
    }
    end_replies(world);
}

static void to_call(struct world *world)
{
    struct expectation *expect = &world->expect[RING_MANY];
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, 1);
    world_give(world, VICTIM, 1);
    expect->put_stage = 2;
    expect->put.serial[expect->put.count++] = world_serial_of(world, world->packets[0]);
}

/* The peer, a worker, has answered so often. */
static void answer(struct world *world, struct ssm_ring *to, uint32_t times)
{
    for (uint64_t serial, handle; times > 0; times--) {
        handle = world_alloc(world, PEER, &serial);
        if (ssm_ring_put(to, &handle, 1, 0, NOW) != 0)
            abort();
    }
}

static void answered_twice(struct world *world)
{
    world->opened = open_replies(world, VICTIM);
    world->kept = open_replies(world, PEER);
    answer(world, world->kept, 2);
}

/* ---- the worker -------------------------------------------------------------------------------------------------- */

static void take_a_request(struct world *world, struct ssm_ring *from)
{
    world_returned(world, ssm_ring_get(from, world->note->handles, 1, NOW));
}

/* It finds the ring of replies by its name. */
static void answer_in_place(struct world *world)
{
    const struct ssm_ring_options as_it_is = {.as_it_is = ANY};
    take_a_request(world, many(world));
    world_returned(world, ssm_ring_open(me(world), "one", &as_it_is, &world->opened));
    world_returned(world, ssm_ring_put(world->opened, world->note->handles, 1, 0, NOW));
    ssm_ring_close(world->opened);
    world->opened = NULL;
    world_returned(world, 0);
}

static void answer_anew(struct world *world)
{
    const struct ssm_done done = {world->note->handles, NULL, 1, 0};
    take_a_request(world, many(world));
    world_returned(world, ssm_ring_put_done(one(world), world->packets, NULL, 1, &done, 0, NOW));
    world_returned(world, ssm_free(me(world), world->note->handles[0]));
}

static void answer_nobody(struct world *world)
{
    take_a_request(world, many(world));
    world_returned(world, ssm_ring_put(world->opened, world->note->handles, 1, 0, NOW));
    world_returned(world, ssm_free(me(world), world->note->handles[0]));
    ssm_ring_close(world->opened);
    world->opened = NULL;
    world_returned(world, 0);
}

static void answer_the_survivor(struct world *world)
{
    take_a_request(world, one(world));
    world_returned(world, ssm_ring_put(many(world), world->note->handles, 1, 0, NOW));
}

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(me(world), &reaped));
}

static void expect_reply(struct world *world, int requests, int replies, uint32_t stage)
{
    struct expectation *expect = &world->expect[replies];
    expect->put_stage = stage;
    expect->put.serial[expect->put.count++] = world->expect[requests].queued.serial[0];
}

static void two_requests(struct world *world)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, 2);
}

static void to_answer_in_place(struct world *world)
{
    two_requests(world);
    expect_reply(world, RING_MANY, RING_ONE, 3);
}

static void to_answer_anew(struct world *world)
{
    struct ssm_packet packet;
    two_requests(world);
    world_give(world, VICTIM, 1);
    const uint64_t serial = world->expect[RING_MANY].queued.serial[0];
    if (ssm_packet_view(me(world), world->packets[0], &packet) != 0 ||
        ssm_packet_set_tag(me(world), world->packets[0], serial) != 0)
        abort();
    stamp_write((uint64_t *)packet.data, serial);
    expect_reply(world, RING_MANY, RING_ONE, 2);
}

/* The caller has ended its ring while the worker has it open. */
static void given_up(struct world *world)
{
    struct ssm_ring *replies = open_replies(world, PEER);
    world->opened = open_replies(world, VICTIM);
    if (ssm_ring_shutdown(replies, 1) != 0 || ssm_ring_unlink(replies) != 0)
        abort();
    ssm_ring_close(replies);
    two_requests(world);
    world->expect[RING_MANY].take_max = 1;
    world->expect[RING_MANY].take_stage = 3;
}

static void to_answer_the_survivor(struct world *world)
{
    world_queue(world, PEER, RING_ONE, 2);
    expect_reply(world, RING_ONE, RING_MANY, 2);
}

/* A caller has died: a reply waits for it, and a request of its own for a worker. */
static void dead_caller(struct world *world)
{
    struct ssm_ring *replies = open_replies(world, DEAD);
    two_requests(world);
    world_queue(world, DEAD, RING_MANY, 1);
    world->kept = open_replies(world, PEER);
    answer(world, world->kept, 1);
    free(replies); /* the dead one's, whose access is not closed */
    world->somebody_died = true;
}

#define WORKS  .many_flags = SSM_REDELIVER, .one_flags = REPLIES
#define SLEEPS .many_flags = REPLIES, .one_flags = SSM_REDELIVER, .blocked = ON_GET

const struct scenario call_scenarios[] = {
    {"call: send a request, give up", to_call, call_and_give_up, .results = {0, 0, -SSM_E_EMPTY, 0, 0, 0}, WORKS},
    {"call: take a late reply and the own one", answered_twice, take_the_reply, .results = {1, 0, 1, 0, 0, 0, 0},
     WORKS},
    {"call: answer in the packet of the request", to_answer_in_place, answer_in_place, .results = {1, 0, 0, 0}, WORKS},
    {"call: answer in another packet", to_answer_anew, answer_anew, .results = {1, 0, 0}, WORKS},
    {"call: answer one that was given up", given_up, answer_nobody, .results = {1, -SSM_E_SHUTDOWN, 0, 0}, WORKS},
    {"call: reap a caller that has a reply", dead_caller, reap, .results = {0}, WORKS},
    {"call: answer, the caller sleeps", to_answer_the_survivor, answer_the_survivor, .results = {1, 0}, SLEEPS},
};

const uint32_t call_scenario_count = sizeof call_scenarios / sizeof *call_scenarios;
