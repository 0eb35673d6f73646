/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations on chains, and their states; see scenarios.h. A chain's packets have serials that follow one another, by which
 * the checker knows what belongs to which head. In a pool with an arena, head and end are from there. */
#include "scenarios.h"

#include "block.h"

#define HAND(world) ((world)->packets)
#define NOW         0
#define RING_HOLDER 2 /* holder id of the first ring */
#define LENGTH      3
#define PAGE        UINT64_C(4096)

static struct ssm_pool *me(const struct world *world)
{
    return world->pools[VICTIM];
}
static struct ssm_ring *many(const struct world *world)
{
    return world->rings[VICTIM][RING_MANY];
}

/* ---- what the victim does ------------------------------------------------------------------------------------------ */

/* clang-format off */
static void put(struct world *world) { world_returned(world, ssm_ring_put(many(world), HAND(world), 1, 0, NOW)); }
static void put_2(struct world *world) { world_returned(world, ssm_ring_put(many(world), HAND(world), 2, 0, NOW)); }
static void get(struct world *world) { world_returned(world, ssm_ring_get(many(world), world->note->handles, 1, NOW)); }
static void get_2(struct world *world) { world_returned(world, ssm_ring_get(many(world), world->note->handles, 2, NOW)); }
static void free_head(struct world *world) { world_returned(world, ssm_free(me(world), HAND(world)[0])); }
static void shut_down(struct world *world) { world_returned(world, ssm_ring_shutdown(many(world), 1)); }
/* clang-format on */

static void link_and_unlink(struct world *world)
{
    world_returned(world, ssm_packet_link(me(world), HAND(world)[0], HAND(world) + 1, LENGTH - 1));
    world_returned(world, ssm_packet_link(me(world), HAND(world)[0], NULL, 0));
}

static void link_and_put(struct world *world)
{
    world_returned(world, ssm_packet_link(me(world), HAND(world)[0], HAND(world) + 1, LENGTH - 1));
    world_returned(world, ssm_ring_put(many(world), HAND(world), 1, 0, NOW));
}

static void get_and_free(struct world *world)
{
    get(world);
    world_returned(world, ssm_free(me(world), world->note->handles[0]));
}

/* ---- states ---------------------------------------------------------------------------------------------------------- */

/* A chain in the actor's hand: its head. */
static uint64_t make_chain(struct world *world, enum actor actor, uint64_t *handles)
{
    uint64_t serial, first = 0;
    for (uint32_t i = 0; i < LENGTH; i++) {
        handles[i] = world->arena && i != 1 ? world_alloc_arena(world, actor, PAGE, &serial)
                                            : world_alloc(world, actor, &serial);
        first = i == 0 ? serial : first;
    }
    ssm_packet_link(world->pools[actor], handles[0], handles + 1, LENGTH - 1);
    world->segments[first] = LENGTH - 1;
    return first;
}

/* In the ring; does it come out of it? */
static void queue_chain(struct world *world, uint64_t *handles, bool comes)
{
    struct serials *queued = &world->expect[RING_MANY].queued;
    uint64_t serial = make_chain(world, PEER, handles);
    ssm_ring_put(world->rings[PEER][RING_MANY], handles, 1, 0, NOW);
    if (comes)
        queued->serial[queued->count++] = serial;
}

/* The first packet in hand is a head, and will be put by the victim's call number `stage`. */
static void chain_in_hand(struct world *world, uint32_t stage)
{
    struct expectation *expect = &world->expect[RING_MANY];
    uint64_t handles[LENGTH];
    uint64_t serial = make_chain(world, VICTIM, handles);
    HAND(world)[world->packet_count++] = handles[0];
    world_uncache(world, VICTIM);
    if (stage == 0)
        return;
    expect->put_stage = stage;
    expect->put.serial[expect->put.count++] = serial;
}

static void to_free(struct world *world)
{
    chain_in_hand(world, 0);
}
static void to_put(struct world *world)
{
    chain_in_hand(world, 1);
}

static void to_put_nearly_full(struct world *world)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY - 1);
    to_put(world);
}

static void to_put_2_wrapped(struct world *world)
{
    world_rotate(world, RING_MANY, 3);
    to_put(world);
    chain_in_hand(world, 1);
}

static void to_put_full(struct world *world)
{
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
    to_free(world);
}

static void to_link(struct world *world)
{
    world_give(world, VICTIM, 2);
    world_give(world, PEER, LENGTH - 2);
    world_uncache(world, VICTIM);
}

static void to_link_and_put(struct world *world)
{
    to_link(world);
    struct expectation *expect = &world->expect[RING_MANY];
    uint64_t serial = world_serial_of(world, HAND(world)[0]);
    world->segments[serial] = LENGTH - 1;
    expect->put_stage = 2;
    expect->put.serial[expect->put.count++] = serial;
}

static void expect_take(struct world *world, uint32_t count, uint32_t stage)
{
    world->expect[RING_MANY].take_max = count;
    world->expect[RING_MANY].take_stage = stage;
}

static void to_get(struct world *world)
{
    uint64_t handles[LENGTH];
    queue_chain(world, handles, true);
    world_queue(world, PEER, RING_MANY, 1);
    expect_take(world, 1, 1);
}

static void to_get_2_wrapped(struct world *world)
{
    uint64_t handles[LENGTH];
    world_rotate(world, RING_MANY, 3);
    to_get(world);
    queue_chain(world, handles, true);
    expect_take(world, 2, 1);
}

/* Somebody died with so many of the first one's blocks. */
static void half_taken(struct world *world, uint32_t count)
{
    uint64_t handles[LENGTH];
    queue_chain(world, handles, false);
    for (uint32_t i = LENGTH - count; i < LENGTH; i++)
        ssm_block_swap(ssm_block_at(me(world), (uint32_t)handles[i]), RING_HOLDER, world->pools[DEAD]->self);
    world->somebody_died = true;
    to_get(world);
}

static void to_get_behind_half(struct world *world)
{
    half_taken(world, 1);
}
static void to_get_behind_most(struct world *world)
{
    half_taken(world, LENGTH - 1);
}

static void to_discard(struct world *world)
{
    uint64_t handles[LENGTH];
    to_get(world);
    queue_chain(world, handles, true);
    expect_take(world, 3, 1);
}

const struct scenario chain_scenarios[] = {
    {"chain: put, empty ring", to_put, put, .results = {0}},
    {"chain: put, last place, wrapped", to_put_nearly_full, put, .results = {0}},
    {"chain: put 2, wrapped", to_put_2_wrapped, put_2, .results = {0}},
    {"chain: put, full ring", to_put_full, put, .results = {-SSM_E_FULL}},
    {"chain: link and put", to_link_and_put, link_and_put, .results = {0, 0}},
    {"chain: link and unlink", to_link, link_and_unlink, .results = {0, 0}},
    {"chain: free", to_free, free_head, .results = {0}},
    {"chain: get", to_get, get, .results = {1}},
    {"chain: get 2 of 3, wrapped", to_get_2_wrapped, get_2, .results = {2}},
    {"chain: get and free", to_get, get_and_free, .results = {1, 0}},
    {"chain: get behind a half-taken one", to_get_behind_half, get, .results = {1}},
    {"chain: get behind one taken but for its head", to_get_behind_most, get, .results = {1}},
    {"chain: shutdown discards", to_discard, shut_down, .results = {0}},
    {"chain, arena: put", to_put, put, .results = {0}, .arena = true},
    {"chain, arena: free", to_free, free_head, .results = {0}, .arena = true},
    {"chain, arena: get", to_get, get, .results = {1}, .arena = true},
    {"chain, arena: get and free", to_get, get_and_free, .results = {1, 0}, .arena = true},
    {"chain, arena: get behind one taken but for its head", to_get_behind_most, get, .results = {1}, .arena = true},
};

const uint32_t chain_scenario_count = sizeof chain_scenarios / sizeof *chain_scenarios;
