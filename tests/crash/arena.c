/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations on packets of the arena, and their states. Its memory is eight pages, for six packets; where it grows, two units
 * of sixteen pages, which are not reserved at first. */
#include "arena.h"
#include "ring.h"
#include "scenarios.h"
#include "shard.h"

#define HAND(world) ((world)->packets)
#define NOW         0
#define PAGES(n)    (UINT64_C(4096) * (n))

static struct ssm_pool *me(const struct world *world)
{
    return world->pools[VICTIM];
}
static struct ssm_ring *many(const struct world *world)
{
    return world->rings[VICTIM][RING_MANY];
}

/* ---- what is done -------------------------------------------------------------------------------------------- */

static void alloc_2(struct world *world)
{
    world_returned(world, ssm_alloc(me(world), PAGES(2), NOW, world->note->handles));
}

static void alloc_3_packets(struct world *world)
{
    world_returned(world, ssm_alloc_many(me(world), PAGES(1), 3, NOW, world->note->handles));
}

/* clang-format off */
static void free_it(struct world *world) { world_returned(world, ssm_free(me(world), HAND(world)[0])); }
static void put(struct world *world) { world_returned(world, ssm_ring_put(many(world), HAND(world), 1, 0, NOW)); }
static void get(struct world *world) { world_returned(world, ssm_ring_get(many(world), world->note->handles, 1, NOW)); }
static void close_pool(struct world *world) { world_returned(world, ssm_pool_close(me(world))); }
/* clang-format on */

/* As a queue does with an object that it does not lend: out of the ring, copied, freed. */
static void get_copy_and_free(struct world *world)
{
    static uint64_t copy[PAGES(3) / 8];
    struct ssm_packet packet = {0};
    get(world);
    const uint64_t handle = world->note->handles[0];
    world_returned(world, ssm_packet_view(me(world), handle, &packet));
    memcpy(copy, packet.data, PAGES(3));
    world_returned(world, stamp_is_whole(copy) ? 0 : -SSM_E_CORRUPT);
    world_returned(world, ssm_free(me(world), handle));
}

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(me(world), &reaped));
}

static void look(struct world *world)
{
    struct ssm_arena_stats stats;
    world_returned(world, ssm_arena_stats(me(world), &stats));
    world_returned(world, ssm_check(me(world), NULL, NULL));
}

/* ---- in which state ------------------------------------------------------------------------------------------ */

static void nothing_there(struct world *world)
{
    (void)world;
}

/* A block that is free with an extent of so many pages, the next one of the victim's shard. */
static void leave_behind(struct world *world, uint64_t pages)
{
    uint64_t serial, handle = world_alloc_arena(world, VICTIM, PAGES(pages), &serial);
    ssm_free(me(world), handle);
}

static void leftover_that_fits(struct world *world)
{
    world_keep_arena(world, PAGES(1));
    leave_behind(world, 2);
    world_keep_arena(world, PAGES(1));
}

static void leftover_of_another_size(struct world *world)
{
    leave_behind(world, 3);
    world_keep_arena(world, PAGES(1));
}

/* The peer's blocks, which are free again at another shard, have it all but for one page. */
static void leftovers_elsewhere(struct world *world)
{
    uint64_t serial, handles[3];
    world_keep_arena(world, PAGES(1));
    for (int i = 0; i < 3; i++)
        handles[i] = world_alloc_arena(world, PEER, PAGES(2), &serial);
    for (int i = 0; i < 3; i++)
        ssm_free(world->pools[PEER], handles[i]);
}

static void full(struct world *world)
{
    world_keep_arena(world, PAGES(7));
}

static void one_in_hand(struct world *world)
{
    uint64_t serial;
    world_keep_arena(world, PAGES(1));
    HAND(world)[world->packet_count++] = world_alloc_arena(world, VICTIM, PAGES(3), &serial);
}

static void all_in_hand(struct world *world)
{
    uint64_t serial;
    HAND(world)[world->packet_count++] = world_alloc_arena(world, VICTIM, PAGES(8), &serial);
}

/* He was about to furnish a block, whose former extent he had begun to give back; another packet he has still. */
static void dead_owner(struct world *world)
{
    struct ssm_pool *dead = world->pools[DEAD];
    uint64_t serial;
    world_keep_arena(world, PAGES(1));
    world_alloc_arena(world, DEAD, PAGES(2), &serial);
    const uint64_t handle = world_alloc_arena(world, DEAD, PAGES(5), &serial);
    ssm_store_relaxed_u64(&ssm_extent_at(dead, (uint32_t)handle)->bytes, 0);
    ssm_store_relaxed_u64(&ssm_arena_of(dead)->lock.word, dead->lock_word);
    world->somebody_died = true;
}

/* A process died when it had an extent of two pages, the second in a unit that it was about to reserve. Elsewhere is room that
 * is reserved, so that nothing is swept. */
static void leftover_without_memory(struct world *world)
{
    uint64_t serial, handle = world_alloc_arena(world, PEER, PAGES(15), &serial);
    leave_behind(world, 2);
    ssm_free(world->pools[PEER], handle);
    world_keep_arena(world, PAGES(1));
    ssm_store_relaxed_u64((struct ssm_u64 *)(me(world)->base + me(world)->geometry.backed_start), 1);
}

/* Two blocks there are, and the peer has them: the other ones were never made. */
static void two_blocks(struct world *world)
{
    struct ssm_pool *pool = me(world);
    struct ssm_shard *shard = ssm_shard_at(pool, 1, 0);
    const uint32_t first = pool->geometry.classes[1].first_block;
    ssm_arena_add_packets(pool, 1);
    for (uint32_t i = 2; i < ARENA_PACKETS; i++)
        ssm_store_relaxed_u32(&ssm_block_at(pool, first + i)->listed, 0);
    for (uint32_t i = 0; i < 2; i++)
        ssm_store_relaxed_u32(&ssm_list_at(pool, 1, 0)[i], first + 1 - i);
    ssm_store_relaxed_u32(&shard->free_count, 2);
    ssm_store_relaxed_u32(&ssm_arena_of(pool)->packets, 2);
    world_keep_arena(world, PAGES(1));
    world_keep_arena(world, PAGES(1));
}

/* The ring has room for four, and slots for two, which are taken; the first of them stands in the second slot. */
static void two_slots(struct world *world)
{
    for (int actor = 0; actor < ACTORS; actor++) {
        world->rings[actor][RING_MANY]->mask = 1;
        world->rings[actor][RING_MANY]->places = 2;
    }
    ssm_store_relaxed_u32(&many(world)->shared->slot_count, 2);
    world_rotate(world, RING_MANY, 1);
    world_queue(world, PEER, RING_MANY, 2);
}

/* The next packet of two pages is half in the one unit, half in the other. */
static void one_unit_but_a_page(struct world *world)
{
    world_keep_arena(world, PAGES(15));
}

static void to_put(struct world *world)
{
    struct expectation *expect = &world->expect[RING_MANY];
    one_in_hand(world);
    expect->put_stage = 1;
    expect->put.serial[expect->put.count++] = world_serial_of(world, HAND(world)[0]);
}

/* The victim has both units nearly alone, and there has been too much memory for long. */
static void too_much_memory(struct world *world)
{
    uint64_t serial;
    world_keep_arena(world, PAGES(1));
    HAND(world)[world->packet_count++] = world_alloc_arena(world, VICTIM, PAGES(28), &serial);
    ssm_store_relaxed_u64(&ssm_arena_of(me(world))->excess_ns, 1);
}

/* The same, and a process died when it had noted what it gives back, and cleared the bits. */
static void dead_giver(struct world *world)
{
    struct ssm_pool *dead = world->pools[DEAD];
    struct ssm_arena *arena = ssm_arena_of(dead);
    world_keep_arena(world, PAGES(1));
    leave_behind(world, 28);
    ssm_store_relaxed_u64(&arena->punch_start, 1);
    ssm_store_relaxed_u64(&arena->punch_units, 1);
    ssm_store_relaxed_u64((struct ssm_u64 *)(dead->base + dead->geometry.backed_start), 1);
    ssm_store_relaxed_u64(&arena->lock.word, dead->lock_word);
    world->somebody_died = true;
}

static void to_put_beyond_the_slots(struct world *world)
{
    two_slots(world);
    to_put(world);
}

static void queue_to_get(struct world *world, uint64_t bytes)
{
    struct expectation *expect = &world->expect[RING_MANY];
    uint64_t serial, handle = world_alloc_arena(world, PEER, bytes, &serial);
    ssm_ring_put(world->rings[PEER][RING_MANY], &handle, 1, 0, NOW);
    expect->queued.serial[expect->queued.count++] = serial;
    expect->take_max = 1;
    expect->take_stage = 1;
}

static void to_get(struct world *world)
{
    queue_to_get(world, PAGES(3));
}

/* Of too much memory, the packet in the ring has most. */
static void too_much_is_queued(struct world *world)
{
    world_keep_arena(world, PAGES(1));
    queue_to_get(world, PAGES(28));
    ssm_store_relaxed_u64(&ssm_arena_of(me(world))->excess_ns, 1);
}

const struct scenario arena_scenarios[] = {
    {"arena alloc: fresh", nothing_there, alloc_2, .results = {0}, .arena = true},
    {"arena alloc: an extent that fits", leftover_that_fits, alloc_2, .results = {0}, .arena = true},
    {"arena alloc: an extent of another size", leftover_of_another_size, alloc_2, .results = {0}, .arena = true},
    {"arena alloc: after a sweep", leftovers_elsewhere, alloc_2, .results = {0}, .arena = true},
    {"arena alloc: full", full, alloc_2, .results = {-SSM_E_EXHAUSTED}, .arena = true},
    {"arena alloc: lock of a dead process", dead_owner, alloc_2, .results = {0}, .arena = true},
    {"arena alloc_many: after a sweep", leftovers_elsewhere, alloc_3_packets, .results = {0}, .arena = true},
    {"arena free", one_in_hand, free_it, .results = {0}, .arena = true},
    {"arena free: somebody sleeps for room", all_in_hand, free_it, .results = {0}, .arena = true, .blocked = ON_ALLOC},
    {"arena put", to_put, put, .results = {0}, .arena = true},
    {"arena get", to_get, get, .results = {1}, .arena = true},
    {"arena get: copied out", to_get, get_copy_and_free, .results = {1, 0, 0, 0}, .arena = true},
    {"arena close: a packet in hand", one_in_hand, close_pool, .results = {0}, .arena = true},
    {"arena reap: lock of a dead process", dead_owner, reap, .results = {0}, .arena = true},
    {"growing arena alloc: nothing is reserved", nothing_there, alloc_2, .results = {0}, .arena = true, .grows = true},
    {"growing arena alloc: an extent that is not reserved", leftover_without_memory, alloc_2, .results = {0},
     .arena = true, .grows = true},
    {"growing arena alloc: two units", one_unit_but_a_page, alloc_2, .results = {0}, .arena = true, .grows = true},
    {"growing arena alloc: lock of a dead process", dead_owner, alloc_2, .results = {0}, .arena = true, .grows = true},
    {"growing arena alloc_many", one_unit_but_a_page, alloc_3_packets, .results = {0}, .arena = true, .grows = true},
    {"growing arena alloc: more blocks", two_blocks, alloc_2, .results = {0}, .arena = true, .grows = true},
    {"growing arena alloc_many: more blocks", two_blocks, alloc_3_packets, .results = {0}, .arena = true,
     .grows = true},
    {"growing arena stats, check", two_blocks, look, .results = {0, 0}, .arena = true, .grows = true},
    {"growing arena free: memory is given back", too_much_memory, free_it, .results = {0}, .arena = true,
     .grows = true},
    {"growing arena alloc: a dead process gave back", dead_giver, alloc_2, .results = {0}, .arena = true,
     .grows = true},
    {"growing arena reap: a dead process gave back", dead_giver, reap, .results = {0}, .arena = true, .grows = true},
    {"growing arena get: copied out, memory is given back", too_much_is_queued, get_copy_and_free,
     .results = {1, 0, 0, 0}, .arena = true, .grows = true},
    {"growing ring put: more slots", to_put_beyond_the_slots, put, .results = {0}, .arena = true, .grows = true},
    {"arena stats, check", leftovers_elsewhere, look, .results = {0, 0}, .arena = true},
};

const uint32_t arena_scenario_count = sizeof arena_scenarios / sizeof *arena_scenarios;
