/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations on packets of a redelivering ring, and their states; see scenarios.h. In this world RING_MANY redelivers:
 * what the victim had taken and neither freed nor handed on comes back. */
#include "scenarios.h"

#define NOW 0

/* clang-format off */
static struct ssm_pool *me(const struct world *world) { return world->pools[VICTIM]; }
static struct ssm_ring *many(const struct world *world) { return world->rings[VICTIM][RING_MANY]; }
static struct ssm_ring *one(const struct world *world) { return world->rings[VICTIM][RING_ONE]; }
/* clang-format on */

/* The first call of all these. */
static void take(struct world *world, uint32_t count)
{
    world_returned(world, ssm_ring_get(many(world), world->note->handles, count, NOW));
}

static void get(struct world *world)
{
    take(world, 1);
}
static void get_3(struct world *world)
{
    take(world, 3);
}

static void get_and_free(struct world *world)
{
    take(world, 2);
    world_returned(world, ssm_free_many(me(world), world->note->handles, 2));
}

/* Of packets that came back: they come alone. */
static void get_back_and_free(struct world *world)
{
    take(world, 2);
    world_returned(world, ssm_free_many(me(world), world->note->handles, 1));
}

static void get_back_and_hand_on(struct world *world)
{
    take(world, 2);
    world_returned(world, ssm_ring_put(one(world), world->note->handles, 1, 0, NOW));
}

static void get_and_hand_on(struct world *world)
{
    take(world, 2);
    world_returned(world, ssm_ring_put(one(world), world->note->handles, 2, 0, NOW));
}

static void get_and_hand_over(struct world *world)
{
    take(world, 2);
    world_returned(world, ssm_ring_put(one(world), world->note->handles, 2, SSM_KEEP | SSM_HANDOVER, NOW));
}

static void get_and_put_back(struct world *world)
{
    take(world, 1);
    world_returned(world, ssm_ring_put(many(world), world->note->handles, 1, 0, NOW));
}

/* The first call; then views of both. */
static void take_and_view(struct world *world)
{
    take(world, 2);
    for (int i = 0; i < 2; i++)
        ssm_packet_pin(me(world), world->note->handles[i]);
}

static void get_view_and_free(struct world *world)
{
    take_and_view(world);
    for (int i = 0; i < 2; i++)
        ssm_delivery_done(me(world), world->note->handles[i], SSM_ANY_DELIVERY);
    world_returned(world, 0);
}

static void get_view_and_hand_on(struct world *world)
{
    take_and_view(world);
    world_returned(world, ssm_ring_put(one(world), world->note->handles, 2, SSM_KEEP | SSM_HANDOVER, NOW));
}

static void get_view_and_put_back(struct world *world)
{
    take(world, 1);
    ssm_packet_pin(me(world), world->note->handles[0]);
    world_returned(world, ssm_ring_put(many(world), world->note->handles, 1, SSM_KEEP | SSM_HANDOVER, NOW));
}

static void get_and_drop(struct world *world)
{
    take(world, 2);
    const uint64_t delivery = ssm_packet_delivery(me(world), world->note->handles[0]);
    world_returned(world, ssm_free_many_of(me(world), world->note->handles, 2, delivery, 0));
}

/* What the victim has besides is no part of the delivery, and stays. */
static void get_share_and_free(struct world *world)
{
    take(world, 2);
    const uint64_t delivery = ssm_packet_delivery(me(world), world->note->handles[0]);
    for (int i = 0; i < 2; i++)
        ssm_packet_hold_of(me(world), world->note->handles[i], delivery);
    world_returned(world, ssm_free_many_of(me(world), world->note->handles, 2, delivery, 1));
}

/* Takes so many, puts as many new packets, which are done with the former, and frees these. */
static void make_new(struct world *world, struct ssm_ring *ring, uint32_t count)
{
    const struct ssm_done done = {world->note->handles, NULL, count, 0};
    take(world, count);
    world_returned(world, ssm_ring_put_done(ring, world->packets, NULL, count, &done, 0, NOW));
    world_returned(world, ssm_free_many(me(world), world->note->handles, count));
}

static void make_one(struct world *world)
{
    make_new(world, one(world), 1);
}
static void make_two(struct world *world)
{
    make_new(world, one(world), 2);
}
static void make_one_there(struct world *world)
{
    make_new(world, many(world), 1);
}

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(me(world), &reaped));
}

static void close_pool(struct world *world)
{
    world_returned(world, ssm_pool_close(me(world)));
}
static void shut_down(struct world *world)
{
    world_returned(world, ssm_ring_shutdown(many(world), 1));
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static void three_queued(struct world *world)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, 3);
}

/* The victim has each of them already, as it would by an ordinary ring. */
static void three_queued_and_held(struct world *world)
{
    struct serials *queued = &world->expect[RING_MANY].queued;
    for (int i = 0; i < 3; i++) {
        uint64_t handle = world_alloc(world, VICTIM, &queued->serial[queued->count++]);
        ssm_ring_put(many(world), &handle, 1, SSM_KEEP, NOW);
    }
}

/* With its call number `stage` the victim lets go of so many. */
static void expect_free(struct world *world, uint32_t count, uint32_t stage)
{
    world->expect[RING_MANY].take_max = count;
    world->expect[RING_MANY].take_stage = stage;
}

static void to_free(struct world *world)
{
    three_queued(world);
    expect_free(world, 2, 2);
}

/* With its second call the victim puts the first `count` into a ring. */
static void expect_handed_on(struct world *world, int ring, uint32_t count)
{
    struct expectation *expect = &world->expect[ring];
    expect->put_stage = 2;
    for (uint32_t i = 0; i < count; i++)
        expect->put.serial[expect->put.count++] = world->expect[RING_MANY].queued.serial[i];
}

static void to_hand_on(struct world *world)
{
    three_queued(world);
    expect_handed_on(world, RING_ONE, 2);
}

static void held_to_free(struct world *world)
{
    three_queued_and_held(world);
    expect_free(world, 2, 2);
}

static void held_to_hand_on(struct world *world)
{
    three_queued_and_held(world);
    expect_handed_on(world, RING_ONE, 2);
}

static void to_put_back(struct world *world)
{
    three_queued(world);
    expect_handed_on(world, RING_MANY, 1);
}

/* The victim has a new packet for each of the first `count`, with the serial of that: the old packet and the new one are
 * the same one to the checker, which may find it in one ring only. */
static void give_new(struct world *world, int ring, uint32_t count)
{
    struct ssm_packet packet;
    world_give(world, VICTIM, count);
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t serial = world->expect[RING_MANY].queued.serial[i];
        ssm_packet_view(me(world), world->packets[i], &packet);
        ssm_packet_set_tag(me(world), world->packets[i], serial);
        stamp_write((uint64_t *)packet.data, serial);
    }
    expect_handed_on(world, ring, count);
}

static void to_make_one(struct world *world)
{
    three_queued(world);
    give_new(world, RING_ONE, 1);
}
static void to_make_two(struct world *world)
{
    three_queued(world);
    give_new(world, RING_ONE, 2);
}
static void to_make_one_there(struct world *world)
{
    three_queued(world);
    give_new(world, RING_MANY, 1);
}

static void died_with_two(struct world *world)
{
    uint64_t handles[2];
    three_queued(world);
    ssm_ring_get(world->rings[DEAD][RING_MANY], handles, 2, NOW);
    world->somebody_died = true;
}

/* Two have come back. */
static void returned(struct world *world)
{
    uint64_t handles[2];
    struct ssm_reaped reaped;
    three_queued(world);
    ssm_ring_get(world->rings[DEAD][RING_MANY], handles, 2, NOW);
    world_bury(world, DEAD);
    ssm_reap(world->pools[PEER], &reaped);
}

static void returned_to_free(struct world *world)
{
    returned(world);
    expect_free(world, 1, 2);
}

static void returned_to_hand_on(struct world *world)
{
    returned(world);
    expect_handed_on(world, RING_ONE, 1);
}

static void returned_to_make_one(struct world *world)
{
    returned(world);
    give_new(world, RING_ONE, 1);
}

static void two_in_hand(struct world *world)
{
    uint64_t handles[2];
    three_queued(world);
    ssm_ring_get(many(world), handles, 2, NOW);
    expect_free(world, 2, 1);
}

static void returned_to_discard(struct world *world)
{
    returned(world);
    expect_free(world, 3, 1);
}

const struct scenario redelivery_scenarios[] = {
    {"redelivering get: one of three", three_queued, get, .results = {1}, .many_flags = SSM_REDELIVER},
    {"redelivering get: 3, wrapped", three_queued, get_3, .results = {3}, .many_flags = SSM_REDELIVER},
    {"redelivering get: free", to_free, get_and_free, .results = {2, 0}, .many_flags = SSM_REDELIVER},
    {"redelivering get: put into another ring", to_hand_on, get_and_hand_on, .results = {2, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: put, keep, hand over", to_hand_on, get_and_hand_over, .results = {2, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: put back", to_put_back, get_and_put_back, .results = {1, 0}, .many_flags = SSM_REDELIVER},
    {"redelivering get: of returned ones", returned, get_3, .results = {1}, .many_flags = SSM_REDELIVER},
    {"redelivering get: of returned ones, free", returned_to_free, get_back_and_free, .results = {1, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: of returned ones, put", returned_to_hand_on, get_back_and_hand_on, .results = {1, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: free, viewed", to_free, get_view_and_free, .results = {2, 0}, .many_flags = SSM_REDELIVER},
    {"redelivering get: put, viewed", to_hand_on, get_view_and_hand_on, .results = {2, 0}, .many_flags = SSM_REDELIVER},
    {"redelivering get: put back, viewed", to_put_back, get_view_and_put_back, .results = {1, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: free, shared", to_free, get_share_and_free, .results = {2, 0}, .many_flags = SSM_REDELIVER},
    {"redelivering get: free, held already", held_to_free, get_and_free, .results = {2, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: drop, held already", held_to_free, get_and_drop, .results = {2, 0},
     .many_flags = SSM_REDELIVER},
    {"redelivering get: put, held already", held_to_hand_on, get_and_hand_on, .results = {2, 0},
     .many_flags = SSM_REDELIVER},
    {"done put: a new packet for one", to_make_one, make_one, .results = {1, 0, 0}, .many_flags = SSM_REDELIVER},
    {"done put: two for two", to_make_two, make_two, .results = {2, 0, 0}, .many_flags = SSM_REDELIVER},
    {"done put: into the ring that gave it", to_make_one_there, make_one_there, .results = {1, 0, 0},
     .many_flags = SSM_REDELIVER},
    {"done put: a new packet for a returned one", returned_to_make_one, make_one, .results = {1, 0, 0},
     .many_flags = SSM_REDELIVER},
    {"reap: returns what a dead process had", died_with_two, reap, .results = {0}, .many_flags = SSM_REDELIVER},
    {"close: frees what it had taken", two_in_hand, close_pool, .results = {0}, .many_flags = SSM_REDELIVER},
    {"shutdown: frees returned ones", returned_to_discard, shut_down, .results = {0}, .many_flags = SSM_REDELIVER},
};

const uint32_t redelivery_scenario_count = sizeof redelivery_scenarios / sizeof *redelivery_scenarios;
