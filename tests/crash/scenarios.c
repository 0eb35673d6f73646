/* SPDX-License-Identifier: Apache-2.0
 *
 * Operations of pools, packets and rings, and their states; see scenarios.h. The victim's shard is 0, where all blocks
 * are at first; the peer's and the survivor's is 1. */
#include "scenarios.h"

#include "cache.h"
#include "liveness.h"
#include "shard.h"

#include <stdlib.h>

#define HAND(world) ((world)->packets)
#define NOW         0
#define RING_HOLDER 2 /* holder id of the first ring: the survivor and the peer came before */

/* clang-format off */
static struct ssm_pool *me(const struct world *world) { return world->pools[VICTIM]; }
static struct ssm_ring *many(const struct world *world) { return world->rings[VICTIM][RING_MANY]; }
static struct ssm_ring *one(const struct world *world) { return world->rings[VICTIM][RING_ONE]; }

static void as_it_is(struct world *world) { (void)world; }
/* clang-format on */

/* ---- what may come out of the rings ------------------------------------------------------------------------------ */

/* The victim puts all that it has, with its call number `stage`. */
static void expect_put(struct world *world, int ring, uint32_t stage)
{
    struct expectation *expect = &world->expect[ring];
    expect->put_stage = stage;
    for (uint32_t i = 0; i < world->packet_count; i++)
        expect->put.serial[expect->put.count++] = world_serial_of(world, HAND(world)[i]);
}

static void expect_take(struct world *world, int ring, uint32_t count)
{
    world->expect[ring].take_max = count;
    world->expect[ring].take_stage = 1;
}

/* ---- alloc ------------------------------------------------------------------------------------------------------- */

static void alloc(struct world *world)
{
    world_returned(world, ssm_alloc(me(world), 64, NOW, world->note->handles));
}
static void alloc_3(struct world *world)
{
    world_returned(world, ssm_alloc_many(me(world), 64, 3, NOW, world->note->handles));
}
static void alloc_9(struct world *world)
{
    world_returned(world, ssm_alloc_many(me(world), 64, 9, NOW, world->note->handles));
}

static void free_all(struct world *world, enum actor actor, uint32_t count)
{
    while (count-- > 0)
        ssm_free(world->pools[actor], HAND(world)[--world->packet_count]);
}

static void cached(struct world *world)
{
    world_give(world, VICTIM, CACHE);
    free_all(world, VICTIM, CACHE);
}

static void own_shard_empty(struct world *world)
{
    world->pools[VICTIM]->home = 1;
    world_keep(world, PEER, 1);
    world_uncache(world, PEER);
    world_uncache(world, VICTIM);
}

static void blocks_in_both_shards(struct world *world)
{
    world_give(world, PEER, 2);
    free_all(world, VICTIM, 2); /* home 1 */
    world_uncache(world, VICTIM);
    world_keep_all(world);
    for (int i = 0; i < 6; i++)
        ssm_free(world->pools[PEER], world->held[--world->held_count].handle);
    world_uncache(world, PEER); /* six in shard 1 */
}

static void blocks_in_another_cache(struct world *world)
{
    world_keep_all(world);
    for (int i = 0; i < 3; i++)
        ssm_free(world->pools[PEER], world->held[--world->held_count].handle);
}

static void blocks_everywhere(struct world *world)
{
    blocks_in_both_shards(world);
    world_give(world, VICTIM, 2);
    free_all(world, VICTIM, 2);
    for (int i = 0; i < 3; i++)
        ssm_free(world->pools[PEER], world->held[--world->held_count].handle); /* three in the peer's cache */
}

/* All is held by the living and by one who is dead. */
static void dead_neighbour(struct world *world)
{
    for (uint64_t serial, i = 0; i < 6; i++)
        world_alloc(world, DEAD, &serial);
    world_keep_all(world);
    world->somebody_died = true;
}

/* As above, and the dead one was in the middle of taking from shard 0. */
static void dead_owner(struct world *world)
{
    struct ssm_shard *shard = ssm_shard_at(world->pools[DEAD], 0, 0);
    uint32_t last = ssm_load_relaxed_u32(&shard->free_count) - 1;
    uint32_t block_idx = ssm_load_relaxed_u32(&ssm_list_at(world->pools[DEAD], 0, 0)[last]);
    ssm_store_relaxed_u64(&shard->lock.word, world->pools[DEAD]->lock_word);
    struct ssm_block *block = ssm_block_at(world->pools[DEAD], block_idx); /* as claim_locked() does it */
    ssm_store_release_u32(&block->listed, 0);
    ssm_store_release_u32(&block->generation, ssm_load_relaxed_u32(&block->generation) + 2);
    ssm_block_claim(block, world->pools[DEAD]->self);
    ssm_store_relaxed_u32(&shard->free_count, last);
    world->somebody_died = true;
}

static void own_shard_locked(struct world *world)
{
    world_give(world, PEER, 2);
    free_all(world, VICTIM, 2);
    world_uncache(world, VICTIM);
    world_uncache(world, PEER);
    world_lock_shard(world, 0);
}

/* ---- free -------------------------------------------------------------------------------------------------------- */

static void free_first(struct world *world)
{
    world_returned(world, ssm_free(me(world), HAND(world)[0]));
}
static void free_4(struct world *world)
{
    world_returned(world, ssm_free_many(me(world), HAND(world), 4));
}

static void one_packet(struct world *world)
{
    world_give(world, VICTIM, 1);
    world_uncache(world, VICTIM);
}

static void foreign_packet(struct world *world)
{
    world_give(world, PEER, 1);
    world_uncache(world, PEER);
}

static void full_cache(struct world *world)
{
    for (int i = 0; i < 5; i++)
        world_give(world, i % 2 == 0 ? PEER : VICTIM, 1);
    world_uncache(world, VICTIM);
    world_uncache(world, PEER);
    free_all(world, VICTIM, CACHE); /* of both homes by turns; the first packet stays in hand */
}

static void foreign_packet_awaited(struct world *world)
{
    foreign_packet(world);
    world_announce(world);
}

static void awaited_own_shard_locked(struct world *world)
{
    one_packet(world);
    world_announce(world);
    world_lock_shard(world, 0);
}

static void awaited_all_locked(struct world *world)
{
    awaited_own_shard_locked(world);
    world_lock_shard(world, 1);
}

static void full_cache_own_shard_locked(struct world *world)
{
    full_cache(world);
    world_lock_shard(world, 0);
}

/* The peer holds it too. */
static void shared_packet(struct world *world)
{
    uint64_t serial, got, handle = world_alloc(world, PEER, &serial);
    ssm_ring_put(world->rings[PEER][RING_MANY], &handle, 1, SSM_KEEP, NOW);
    ssm_ring_get(many(world), &got, 1, NOW);
    world->held[world->held_count++] = (struct held){handle, serial};
    world->packets[world->packet_count++] = got;
    world_uncache(world, PEER);
}

static void four_kinds_of_packets(struct world *world)
{
    shared_packet(world);
    foreign_packet(world);
    world_give(world, VICTIM, 2);
    world_uncache(world, VICTIM);
}

static void four_kinds_of_packets_awaited(struct world *world)
{
    four_kinds_of_packets(world);
    world_announce(world);
}

/* ---- packets ----------------------------------------------------------------------------------------------------- */

#define EDGE 16 /* bytes */

static void prepend(struct world *world)
{
    world_returned(world, ssm_packet_prepend(me(world), HAND(world)[0], EDGE, NULL));
}
static void append(struct world *world)
{
    world_returned(world, ssm_packet_append(me(world), HAND(world)[0], EDGE, NULL));
}
static void trim_front(struct world *world)
{
    world_returned(world, ssm_packet_trim_front(me(world), HAND(world)[0], EDGE, NULL));
}
static void trim_back(struct world *world)
{
    world_returned(world, ssm_packet_trim_back(me(world), HAND(world)[0], EDGE, NULL));
}
static void tag(struct world *world)
{
    uint64_t was;
    world_returned(world, ssm_packet_tag(me(world), HAND(world)[0], &was));
    world_returned(world, ssm_packet_set_tag(me(world), HAND(world)[0], was + 1));
}

static void hold_and_free(struct world *world)
{
    world_returned(world, ssm_packet_hold(me(world), HAND(world)[0]));
    world_returned(world, ssm_free(me(world), HAND(world)[0]));
    world_returned(world, ssm_free(me(world), HAND(world)[0]));
}

static void pin_and_unpin(struct world *world)
{
    world_returned(world, ssm_packet_pin(me(world), HAND(world)[0]));
    world_returned(world, ssm_packet_unpin(me(world), HAND(world)[0], 1));
}

static void close_then_unpin(struct world *world)
{
    world_returned(world, ssm_pool_close(me(world)));
    world_returned(world, ssm_packet_unpin(me(world), HAND(world)[0], 0));
}

/* The peer sees the window move. */
static void shared_window(struct world *world)
{
    shared_packet(world);
    trim_front(world);
    trim_back(world);
}

static void pinned_packet(struct world *world)
{
    one_packet(world);
    ssm_packet_pin(me(world), HAND(world)[0]);
}

static void small_quota(struct world *world)
{
    one_packet(world);
    ssm_pool_set_quota(me(world), BLOCK_SIZE);
}

/* ---- put --------------------------------------------------------------------------------------------------------- */

/* clang-format off */
static void put(struct world *world) { world_returned(world, ssm_ring_put(many(world), HAND(world), 1, 0, NOW)); }
static void put_3(struct world *world) { world_returned(world, ssm_ring_put(many(world), HAND(world), 3, 0, NOW)); }
static void put_one(struct world *world) { world_returned(world, ssm_ring_put(one(world), HAND(world), 1, 0, NOW)); }
static void put_one_3(struct world *world) { world_returned(world, ssm_ring_put(one(world), HAND(world), 3, 0, NOW)); }
/* clang-format on */

static void fan_out(struct world *world)
{
    world_returned(world, ssm_ring_put(many(world), HAND(world), 1, SSM_KEEP, NOW));
    world_returned(world, ssm_ring_put(one(world), HAND(world), 1, 0, NOW));
}

static void to_put(struct world *world)
{
    one_packet(world);
    expect_put(world, RING_MANY, 1);
}

static void to_put_nearly_full(struct world *world)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY - 1);
    to_put(world);
}

static void to_put_full(struct world *world)
{
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
    one_packet(world); /* will not be put */
}

static void to_put_3_wrapped(struct world *world)
{
    world_give(world, PEER, 1);
    world_give(world, VICTIM, 2);
    world_rotate(world, RING_MANY, 2);
    expect_put(world, RING_MANY, 1);
}

/* The slot where it will stand has the handle of a packet that is queued behind it, from a former round. */
static void to_put_over_an_old_handle(struct world *world)
{
    uint64_t serial, handle = world_alloc(world, PEER, &serial);
    struct serials *queued = &world->expect[RING_MANY].queued;
    ssm_ring_put(world->rings[PEER][RING_MANY], &handle, 1, 0, NOW);
    ssm_ring_get(world->rings[PEER][RING_MANY], &handle, 1, NOW);
    ssm_ring_put(world->rings[PEER][RING_MANY], &handle, 1, 0, NOW);
    queued->serial[queued->count++] = serial;
    world_queue(world, PEER, RING_MANY, 2);
    to_put(world);
}

static void to_put_shared(struct world *world)
{
    shared_packet(world);
    expect_put(world, RING_MANY, 1);
}

/* The victim has two references: its own stays. */
static void to_put_twice_held(struct world *world)
{
    one_packet(world);
    ssm_packet_hold(me(world), HAND(world)[0]);
    expect_put(world, RING_MANY, 1);
}

static void put_what_is_queued(struct world *world)
{
    one_packet(world);
    ssm_ring_put(many(world), HAND(world), 1, SSM_KEEP, NOW);
    struct serials *queued = &world->expect[RING_MANY].queued;
    queued->serial[queued->count++] = world_serial_of(world, HAND(world)[0]);
}

static void to_put_down(struct world *world)
{
    one_packet(world);
    ssm_ring_set_acl(world->rings[PEER][RING_MANY], SSM_ACL_FLOWDOWN);
}

static void to_put_one(struct world *world)
{
    one_packet(world);
    expect_put(world, RING_ONE, 1);
}

/* Its side is the victim's already, the other one the peer's. */
static void to_put_one_claimed(struct world *world)
{
    uint64_t got;
    world_rotate(world, RING_ONE, 2);
    world_queue(world, VICTIM, RING_ONE, 2);
    ssm_ring_get(world->rings[PEER][RING_ONE], &got, 1, NOW);
    ssm_free(world->pools[PEER], got);
    struct serials *queued = &world->expect[RING_ONE].queued;
    queued->serial[0] = queued->serial[1];
    queued->count = 1;
    to_put_one(world);
}

static void to_put_one_3_wrapped(struct world *world)
{
    world_give(world, PEER, 1);
    world_give(world, VICTIM, 2);
    world_rotate(world, RING_ONE, 2);
    expect_put(world, RING_ONE, 1);
}

static void to_fan_out(struct world *world)
{
    one_packet(world);
    expect_put(world, RING_MANY, 1);
    expect_put(world, RING_ONE, 2);
}

/* ---- get --------------------------------------------------------------------------------------------------------- */

static void get(struct world *world)
{
    world_returned(world, ssm_ring_get(many(world), world->note->handles, 1, NOW));
}
static void get_3(struct world *world)
{
    world_returned(world, ssm_ring_get(many(world), world->note->handles, 3, NOW));
}
static void get_one(struct world *world)
{
    world_returned(world, ssm_ring_get(one(world), world->note->handles, 1, NOW));
}
static void get_one_2(struct world *world)
{
    world_returned(world, ssm_ring_get(one(world), world->note->handles, 2, NOW));
}

static void to_get(struct world *world)
{
    world_queue(world, PEER, RING_MANY, 2);
    expect_take(world, RING_MANY, 1);
}

static void to_get_3_wrapped(struct world *world)
{
    world_rotate(world, RING_MANY, 2);
    world_queue(world, PEER, RING_MANY, 4);
    expect_take(world, RING_MANY, 3);
}

static void to_get_shared(struct world *world)
{
    world_queue_shared(world);
    expect_take(world, RING_MANY, 1);
}

/* The victim holds it already. */
static void to_get_again(struct world *world)
{
    one_packet(world);
    ssm_ring_put(many(world), HAND(world), 1, SSM_KEEP, NOW);
    struct serials *queued = &world->expect[RING_MANY].queued;
    queued->serial[queued->count++] = world_serial_of(world, HAND(world)[0]);
    expect_take(world, RING_MANY, 1);
}

static void to_get_one(struct world *world)
{
    world_queue(world, PEER, RING_ONE, 2);
    expect_take(world, RING_ONE, 1);
}

static void to_get_one_2_wrapped(struct world *world)
{
    world_rotate(world, RING_ONE, 2);
    world_queue(world, PEER, RING_ONE, CAPACITY_ONE);
    expect_take(world, RING_ONE, 2);
}

/* A consumer died between taking two packets and advancing. */
static void to_get_behind_the_dead(struct world *world)
{
    uint64_t got[2];
    world_queue(world, PEER, RING_MANY, 3);
    struct ssm_ring_shared *shared = (struct ssm_ring_shared *)(me(world)->base + me(world)->geometry.metadata_start);
    uint64_t tail = ssm_load_relaxed_u64(&shared->consumer.index);
    ssm_ring_get(world->rings[DEAD][RING_MANY], got, 2, NOW);
    ssm_store_relaxed_u64(&shared->consumer.index, tail);
    ssm_store_relaxed_u64(&shared->consumer.lock.word, world->pools[DEAD]->lock_word);
    struct serials *queued = &world->expect[RING_MANY].queued;
    queued->serial[0] = queued->serial[2];
    queued->count = 1;
    world->somebody_died = true;
    expect_take(world, RING_MANY, 1);
}

/* Shut down by the peer: what is queued is this side's to free. */
static void to_discard(struct world *world)
{
    uint64_t got;
    world_queue(world, PEER, RING_ONE, CAPACITY_ONE);
    ssm_ring_get(one(world), &got, 1, NOW);
    ssm_free(me(world), got);
    ssm_ring_shutdown(world->rings[PEER][RING_ONE], 1);
    world->expect[RING_ONE].take_max = CAPACITY_ONE;
}

/* ---- waiting in vain --------------------------------------------------------------------------------------------- */

#define A_WHILE INT64_C(5000000) /* ns; a look for the dead comes at its end */

static void await_block(struct world *world)
{
    world_returned(world, ssm_alloc(me(world), 64, A_WHILE, world->note->handles));
}
static void await_blocks(struct world *world) /* has its turn after 10 ms */
{
    world_returned(world, ssm_alloc_many(me(world), 64, 9, 3 * A_WHILE, world->note->handles));
}
static void await_packet(struct world *world)
{
    world_returned(world, ssm_ring_get(many(world), world->note->handles, 1, A_WHILE));
}
static void await_place(struct world *world)
{
    world_returned(world, ssm_ring_put(many(world), HAND(world), 1, 0, A_WHILE));
}
static void await_either(struct world *world)
{
    struct ssm_interest interests[] = {{many(world), SSM_READY_TO_GET, 0}, {one(world), SSM_READY_TO_GET, 0}};
    world_returned(world, ssm_wait_rings(interests, 2, NULL, A_WHILE));
}

/* ---- rings as a whole -------------------------------------------------------------------------------------------- */

/* clang-format off */
static void shutdown_now(struct world *world) { world_returned(world, ssm_ring_shutdown(many(world), 1)); }
static void shutdown_one_now(struct world *world) { world_returned(world, ssm_ring_shutdown(one(world), 1)); }
static void shutdown_later(struct world *world) { world_returned(world, ssm_ring_shutdown(many(world), 0)); }
static void flow_down(struct world *world) { world_returned(world, ssm_ring_set_acl(many(world), SSM_ACL_FLOWDOWN)); }
static void peer_down(struct world *world) { world_returned(world, ssm_ring_set_acl(many(world), SSM_ACL_FLOWPEER)); }
static void close_ring(struct world *world) { ssm_ring_close(one(world)); world_returned(world, 0); }
static void close_many(struct world *world) { ssm_ring_close(many(world)); world_returned(world, 0); }
/* clang-format on */

static void to_shut_down(struct world *world)
{
    to_get_shared(world);
    world_queue(world, PEER, RING_MANY, 2);
    expect_take(world, RING_MANY, 3);
}

static void to_shut_down_one(struct world *world)
{
    world_queue(world, PEER, RING_ONE, CAPACITY_ONE);
    world_unclaim(world, PEER);
    expect_take(world, RING_ONE, CAPACITY_ONE);
}

static void full_ring(struct world *world)
{
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
}
static void two_queued(struct world *world)
{
    world_queue(world, PEER, RING_MANY, 2);
}

static void both_sides_claimed(struct world *world)
{
    uint64_t got;
    world_queue(world, VICTIM, RING_ONE, 3);
    ssm_ring_get(one(world), &got, 1, NOW);
    struct serials *queued = &world->expect[RING_ONE].queued;
    queued->serial[0] = queued->serial[1];
    queued->serial[1] = queued->serial[2];
    queued->count = 2;
}

static void producer_claimed(struct world *world)
{
    world_queue(world, VICTIM, RING_ONE, 2);
}

/* The victim is the only producer, and what it put was taken. */
static void only_producer(struct world *world)
{
    uint64_t serial, got, handle = world_alloc(world, VICTIM, &serial);
    if (ssm_ring_put(many(world), &handle, 1, 0, NOW) != 0 ||
        ssm_ring_get(world->rings[PEER][RING_MANY], &got, 1, NOW) != 1 || ssm_free(world->pools[PEER], got) != 0)
        abort();
}

/* The victim is the only consumer of a full ring. */
static void only_consumer(struct world *world)
{
    uint64_t got;
    if (ssm_ring_get(many(world), &got, 1, NOW) != -SSM_E_EMPTY)
        abort();
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
}

/* The victim is one of two producers of a ring. */
static void two_peers(struct world *world)
{
    world_queue(world, VICTIM, RING_MANY, 1);
    world_queue(world, PEER, RING_MANY, 1);
}

static void open_new(struct world *world)
{
    struct ssm_ring_options options = {.capacity = 4};
    world_returned(world, ssm_ring_open(me(world), "new", &options, &world->opened));
}

static void open_typed(struct world *world)
{
    struct ssm_ring_options options = {.capacity = 4, .content = NEW_TYPE};
    world_returned(world, ssm_ring_open(me(world), "new", &options, &world->opened));
}

static void open_known(struct world *world)
{
    struct ssm_ring_options options = {.capacity = CAPACITY_MANY, .as_it_is = SSM_PEERS};
    world_returned(world, ssm_ring_open(me(world), "many", &options, &world->opened));
}

/* A ring of its own for the packets, which no book has. */
static struct ssm_ring *spare(struct world *world, enum actor actor)
{
    struct ssm_ring_options options = {.capacity = 2};
    struct ssm_ring *ring;
    uint64_t serial, handle = world_alloc(world, actor, &serial);
    if (ssm_ring_open(world->pools[actor], "spare", &options, &ring) != 0 ||
        ssm_ring_put(ring, &handle, 1, 0, NOW) != 0)
        abort();
    return ring;
}

static void spare_of_nobody(struct world *world)
{
    ssm_ring_close(spare(world, PEER));
}
static void spare_of_the_peer(struct world *world)
{
    uint64_t got;
    world->kept = spare(world, PEER);
    if (ssm_ring_get(world->kept, &got, 1, NOW) != 1 || ssm_free(world->pools[PEER], got) != 0)
        abort();
}
static void spare_without_a_name(struct world *world)
{
    world->opened = spare(world, VICTIM);
    if (ssm_ring_unlink(world->opened) != 0)
        abort();
}

static void unlink_spare(struct world *world)
{
    world_returned(world, ssm_ring_unlink_name(me(world), "spare"));
}
static void close_spare(struct world *world)
{
    ssm_ring_close(world->opened);
    world_returned(world, 0);
}

static void open_and_unlink(struct world *world)
{
    open_new(world);
    world_returned(world, ssm_ring_unlink(world->opened));
    ssm_ring_close(world->opened);
    world->opened = NULL;
    world_returned(world, 0);
}

/* ---- coming and going -------------------------------------------------------------------------------------------- */

static void attach(struct world *world)
{
    struct ssm_attach_options options = {.name = "newcomer"};
    struct ssm_pool *pool;
    world_returned(world, ssm_pool_attach(world->fd, &options, &pool));
}

static void attach_to_look(struct world *world)
{
    struct ssm_attach_options options = {.flags = SSM_READONLY};
    struct ssm_pool *pool;
    world_returned(world, ssm_pool_attach(world->fd, &options, &pool));
    world_returned(world, ssm_check(pool, NULL, NULL));
}

static void retire(struct world *world)
{
    world_returned(world, ssm_pool_retire(ssm_file_reopen(world->fd, true), NULL));
}
static void close_pool(struct world *world)
{
    world_returned(world, ssm_pool_close(me(world)));
}

static void detached(struct world *world)
{
    for (int ring = 0; ring < RINGS; ring++) {
        ssm_ring_close(world->rings[VICTIM][ring]);
        world->rings[VICTIM][ring] = NULL;
    }
    ssm_pool_destroy(world->pools[VICTIM]);
    world->pools[VICTIM] = NULL;
}

static void detached_and_a_dead_one(struct world *world)
{
    detached(world);
    dead_owner(world);
}

/* No slot is free but a dead process's. */
static void detached_and_full_table(struct world *world)
{
    struct ssm_attach_options options = {.name = "crowd"};
    detached_and_a_dead_one(world);
    world->somebody_died = true;
    while (ssm_pool_attach(world->fd, &options, &world->crowd[world->dummies]) == 0)
        world->dummies++;
}

static void everything_in_hand(struct world *world)
{
    both_sides_claimed(world);
    shared_packet(world);
    world_give(world, PEER, 2);
    world_give(world, VICTIM, 4);
    free_all(world, VICTIM, 2); /* in its cache */
}

/* ---- recovery, and looking in ------------------------------------------------------------------------------------ */

static void reap(struct world *world)
{
    struct ssm_reaped reaped;
    world_returned(world, ssm_reap(me(world), &reaped));
}

static void check(struct world *world)
{
    world_returned(world, ssm_check(me(world), NULL, NULL));
}

static void stats(struct world *world)
{
    struct ssm_shard_stats shard;
    struct ssm_class_stats class;
    struct ssm_ring_stats ring;
    struct ssm_holder_info holders[2];
    struct ssm_usage usage[2];
    struct ssm_pool_info info;
    world_returned(world, ssm_pool_info(me(world), &info));
    world_returned(world, ssm_shard_stats(me(world), 0, 0, &shard));
    world_returned(world, ssm_class_stats(me(world), 0, &class));
    world_returned(world, ssm_ring_stats(me(world), RING_HOLDER, &ring));
    world_returned(world, ssm_holder_list(me(world), holders, 2));
    world_returned(world, ssm_usage(me(world), usage, 2));
}

static void peek(struct world *world)
{
    struct ssm_peek seen;
    uint64_t *handles = world->note->handles;
    uint8_t bytes[BLOCK_SIZE];
    uint32_t holders[2];
    world_returned(world, ssm_ring_peek(me(world), RING_HOLDER, handles, BLOCKS));
    world_returned(world, ssm_packet_peek(me(world), handles[0], bytes, sizeof bytes, &seen));
    world_returned(world, (int)ssm_packet_list(me(world), handles, BLOCKS));
    world_returned(world, ssm_packet_holders(me(world), handles[0], holders, 2));
}

/* The dead one had packets in hand, blocks in its cache, both sides of a ring, and the locks of a shard, of a ring's
 * side and of the peer's cache. */
static void dead_with_everything(struct world *world)
{
    struct ssm_pool *dead = world->pools[DEAD];
    uint64_t serial, handle;
    world_queue(world, DEAD, RING_ONE, 2);
    ssm_ring_get(world->rings[DEAD][RING_ONE], &handle, 1, NOW);
    struct serials *queued = &world->expect[RING_ONE].queued;
    queued->serial[0] = queued->serial[1];
    queued->count = 1;
    to_get_behind_the_dead(world);
    world->expect[RING_MANY].take_max = 0;
    handle = world_alloc(world, DEAD, &serial);
    ssm_free(dead, world_alloc(world, DEAD, &serial));
    world_keep(world, PEER, 1);
    ssm_free(world->pools[PEER], world_alloc(world, PEER, &serial));
    ssm_store_relaxed_u64(&ssm_cache_at(dead, world->pools[PEER]->self, 0)->thief.word, dead->lock_word);
    dead_owner(world);
}

/* ---- with somebody who waits ------------------------------------------------------------------------------------- */

static void the_only_packet(struct world *world)
{
    one_packet(world);
    world_keep_all(world);
}

static void the_only_packets_and_a_cache(struct world *world)
{
    world_give(world, VICTIM, 3);
    world_uncache(world, VICTIM);
    world_keep_all(world);
}

static void to_get_full(struct world *world)
{
    world_queue(world, PEER, RING_MANY, CAPACITY_MANY);
    expect_take(world, RING_MANY, 1);
}

/* ---- the table --------------------------------------------------------------------------------------------------- */

const struct scenario pool_scenarios[] = {
    {"alloc: from the cache", cached, alloc, .results = {0}},
    {"alloc: refill from the own shard", as_it_is, alloc, .results = {0}},
    {"alloc: from another shard", own_shard_empty, alloc, .results = {0}},
    {"alloc: own shard locked", own_shard_locked, alloc, .results = {0}},
    {"alloc: from another process's cache", blocks_in_another_cache, alloc, .results = {0}},
    {"alloc: exhausted", world_keep_all, alloc, .results = {-SSM_E_EXHAUSTED}},
    {"alloc: what a dead process had", dead_neighbour, alloc, .results = {0}},
    {"alloc: lock of a dead process", dead_owner, alloc, .results = {0}},
    {"alloc_many: from all places", blocks_everywhere, alloc_9, .results = {0}},
    {"alloc_many: own shard", as_it_is, alloc_3, .results = {0}},
    {"alloc_many: too many", blocks_in_another_cache, alloc_9, .results = {-SSM_E_EXHAUSTED}},
    {"alloc: over the quota", small_quota, alloc, .results = {-SSM_E_QUOTA}},
    {"alloc: waits in vain", world_keep_all, await_block, .results = {-SSM_E_EXHAUSTED}},
    {"alloc_many: waits, has its turn in vain", world_keep_all, await_blocks, .results = {-SSM_E_EXHAUSTED}},

    {"free: to the cache", one_packet, free_first, .results = {0}},
    {"free: foreign packet", foreign_packet, free_first, .results = {0}},
    {"free: cache overflows", full_cache, free_first, .results = {0}},
    {"free: cache overflows, shard locked", full_cache_own_shard_locked, free_first, .results = {0}},
    {"free: awaited, to another shard", foreign_packet_awaited, free_first, .results = {0}},
    {"free: awaited, shard locked", awaited_own_shard_locked, free_first, .results = {0}},
    {"free: awaited, both shards locked", awaited_all_locked, free_first, .results = {0}},
    {"free: shared packet", shared_packet, free_first, .results = {0}},
    {"free_many: own, foreign, shared", four_kinds_of_packets, free_4, .results = {0}},
    {"free_many: the same, awaited", four_kinds_of_packets_awaited, free_4, .results = {0}},

    {"prepend: shared packet", shared_window, prepend, .results = {0}},
    {"append: shared packet", shared_window, append, .results = {0}},
    {"trim_front: shared packet", shared_packet, trim_front, .results = {0}},
    {"trim_back: shared packet", shared_packet, trim_back, .results = {0}},
    {"prepend: no room", shared_packet, prepend, .results = {-SSM_E_ROOM}},
    {"tag, set_tag: shared packet", shared_packet, tag, .results = {0, 0}},
    {"hold, free, free", one_packet, hold_and_free, .results = {0, 0, 0}},
    {"pin, unpin and drop", one_packet, pin_and_unpin, .results = {0, 0}},

    {"put: empty ring", to_put, put, .results = {0}},
    {"put: last place, wrapped", to_put_nearly_full, put, .results = {0}},
    {"put: full ring", to_put_full, put, .results = {-SSM_E_FULL}},
    {"put: over an old handle", to_put_over_an_old_handle, put, .results = {0}},
    {"put: shared packet", to_put_shared, put, .results = {0}},
    {"put: held twice", to_put_twice_held, put, .results = {0}},
    {"put: 3 packets, wrapped", to_put_3_wrapped, put_3, .results = {0}},
    {"put: fan-out to two rings", to_fan_out, fan_out, .results = {0, 0}},
    {"put: queued here already", put_what_is_queued, put, .results = {-SSM_E_QUEUED}},
    {"put: the ring is down", to_put_down, put, .results = {-SSM_E_SHUTDOWN}},
    {"put: waits in vain", to_put_full, await_place, .results = {-SSM_E_FULL}},
    {"put, one/one: first use", to_put_one, put_one, .results = {0}},
    {"put, one/one: claimed", to_put_one_claimed, put_one, .results = {0}},
    {"put, one/one: 3 packets, wrapped", to_put_one_3_wrapped, put_one_3, .results = {0}},

    {"get: one of two", to_get, get, .results = {1}},
    {"get: empty ring", as_it_is, get, .results = {-SSM_E_EMPTY}},
    {"get: 3 of 4 packets, wrapped", to_get_3_wrapped, get_3, .results = {3}},
    {"get: shared packet", to_get_shared, get, .results = {1}},
    {"get: held already", to_get_again, get, .results = {1}},
    {"get: behind a dead consumer", to_get_behind_the_dead, get, .results = {1}},
    {"get, one/one: one of two", to_get_one, get_one, .results = {1}},
    {"get, one/one: 2 of 3, wrapped", to_get_one_2_wrapped, get_one_2, .results = {2}},
    {"get, one/one: shut down meanwhile", to_discard, get_one, .results = {-SSM_E_SHUTDOWN}},
    {"get: waits in vain", as_it_is, await_packet, .results = {-SSM_E_EMPTY}},
    {"wait_rings: in vain", as_it_is, await_either, .results = {0}},
    {"wait_rings: one is ready", two_queued, await_either, .results = {1}},

    {"shutdown: immediate", to_shut_down, shutdown_now, .results = {0}},
    {"shutdown, one/one: immediate", to_shut_down_one, shutdown_one_now, .results = {0}},
    {"shutdown: drain", two_queued, shutdown_later, .results = {0}},
    {"set_acl: no more puts", two_queued, flow_down, .results = {0}},
    {"ring_open: new", as_it_is, open_new, .results = {0}},
    {"ring_open: new, of a type", as_it_is, open_typed, .results = {0}},
    {"ring_open: known", two_queued, open_known, .results = {0}},
    {"ring_open: new, unlinked, closed", as_it_is, open_and_unlink, .results = {0, 0, 0}},
    {"unlink: a ring that nobody has", spare_of_nobody, unlink_spare, .results = {0}},
    {"unlink: a ring that the peer has", spare_of_the_peer, unlink_spare, .results = {0}},
    {"ring_close: the last user of a ring without a name", spare_without_a_name, close_spare, .results = {0}},
    {"ring_close: both sides claimed", both_sides_claimed, close_ring, .results = {0}},
    {"ring_close: one side claimed", producer_claimed, close_ring, .results = {0}},

    {"attach", detached, attach, .results = {0}},
    {"attach: reaps a dead process", detached_and_a_dead_one, attach, .results = {0}},
    {"attach: adopts a dead one's slot", detached_and_full_table, attach, .results = {0}},
    {"attach: to look only, check", detached, attach_to_look, .results = {0, 0}},
    {"retire: in use", as_it_is, retire, .results = {0}, .attaches = true},
    {"close: everything in hand", everything_in_hand, close_pool, .results = {0}},
    {"close: a packet is pinned; unpin", pinned_packet, close_then_unpin, .results = {1, 0}},
    {"reap: nobody is dead", as_it_is, reap, .results = {0}},
    {"reap: a dead process, all in hand", dead_with_everything, reap, .results = {0}},
    {"check", everything_in_hand, check, .results = {0}},
    {"info, stats, holders, usage", everything_in_hand, stats, .results = {0, 0, 0, 0, 0, 0}},
    {"peek at a ring and packets", two_queued, peek, .results = {2, 0, 2, 1}},

    {"free: somebody sleeps for a block", the_only_packet, free_first, .results = {0}, .blocked = ON_ALLOC},
    {"close: somebody sleeps for a block", the_only_packets_and_a_cache, close_pool, .results = {0},
     .blocked = ON_ALLOC},
    {"put: somebody sleeps for a packet", to_put, put, .results = {0}, .blocked = ON_GET},
    {"get: somebody sleeps for a place", to_get_full, get, .results = {1}, .blocked = ON_PUT},
    {"shutdown: somebody sleeps for a packet", as_it_is, shutdown_later, .results = {0}, .blocked = ON_GET,
     .refusal = -SSM_E_SHUTDOWN},
    {"shutdown: somebody sleeps for a place", full_ring, shutdown_later, .results = {0}, .blocked = ON_PUT,
     .refusal = -SSM_E_SHUTDOWN},
    {"set_acl: somebody sleeps for a packet", as_it_is, peer_down, .results = {0}, .blocked = ON_GET,
     .refusal = -SSM_E_SHUTDOWN},
    {"ring_close: somebody sleeps for a packet", only_producer, close_many, .results = {0}, .blocked = ON_GET,
     .refusal = -SSM_E_ORPHANED, .many_flags = SSM_ONE_PRODUCER},
    {"ring_close: somebody sleeps for a place", only_consumer, close_many, .results = {0}, .blocked = ON_PUT,
     .refusal = -SSM_E_ORPHANED, .many_flags = SSM_ONE_CONSUMER},
    {"ring_close: of a ring with peers", two_peers, close_many, .results = {0}, .many_flags = SSM_PEERS},
    {"ring_open: of a ring with peers", as_it_is, open_known, .results = {0}, .many_flags = SSM_PEERS},
    {"put: first use, with peers", to_put, put, .results = {0}, .many_flags = SSM_PEERS},
    {"get: first use, with peers", to_get, get, .results = {1}, .many_flags = SSM_PEERS},
    {"get: waits, somebody else does, too", as_it_is, await_packet, .results = {-SSM_E_EMPTY}, .blocked = ON_GET},
};

const uint32_t pool_scenario_count = sizeof pool_scenarios / sizeof *pool_scenarios;
