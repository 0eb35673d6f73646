/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools that grow: what they cost when they are made, that looking at them costs nothing, blocks of the arena that are made as
 * they are needed, and rings that get more slots. By what the file has, st_blocks. */
#include "arena.h"
#include "pool_fixture.h"

#include <stdlib.h>

#define KIB(n) (UINT64_C(1024) * (n))
#define GIB(n) (UINT64_C(1024) * 1024 * 1024 * (n))
#ifdef SSM_EMULATED
#define GROW GIB(1) /* qemu-user maps no more than the machine has */
#else
#define GROW GIB(64)
#endif
#define PACKETS 65536u

/* As a queue of objects has it: small classes, and whatever memory there is. */
static struct ssm_pool_options queue_options(void)
{
    struct ssm_pool_options options = {
        .shards = 2,
        .holders = 64,
        .cache = 16,
        .metadata_bytes = KIB(4096),
        .grow_bytes = GROW,
        .arena_packets = PACKETS,
    };
    static const uint64_t sizes[] = {64, 96, 128, 192, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 2048};
    for (; options.class_count < sizeof sizes / sizeof *sizes; options.class_count++)
        options.classes[options.class_count] = (struct ssm_class_spec){sizes[options.class_count], 3};
    return options;
}

static struct fixture open_queue(void)
{
    struct ssm_pool_options options = queue_options();
    return fixture_open(&options);
}

static uint64_t bytes_of(const struct fixture *f)
{
    return ssm_segment_reserved_bytes(f->fd);
}

static struct ssm_ring *open_ring(struct ssm_pool *pool, const char *name, uint32_t capacity, uint32_t flags)
{
    struct ssm_ring *ring;
    const struct ssm_ring_options options = {.capacity = capacity, .flags = flags, .content = "objects"};
    CHECK_EQ(ssm_ring_open(pool, name, &options, &ring), 0);
    return ring;
}

/* ---- what it costs --------------------------------------------------------------------------------------------- */

/* The file of 64 GiB, with a ring for all packets that there can be, and a process more. */
static void test_a_pool_is_small(void)
{
    struct fixture f = open_queue();
    CHECK(bytes_of(&f) <= KIB(120));
    struct ssm_ring *ring = open_ring(f.pool, "objects", PACKETS, 0);
    CHECK(bytes_of(&f) <= KIB(128));
    const uint64_t before = bytes_of(&f);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    CHECK(bytes_of(&f) - before <= KIB(16)); /* its caches */
    pool_end(other);
    other = fixture_attach(f.fd, 0);
    CHECK(bytes_of(&f) - before <= KIB(16)); /* the same slot */
    pool_end(other);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void look_at_everything(struct ssm_pool *pool)
{
    static struct ssm_holder_info holders[64];
    static struct ssm_usage usage[64];
    struct ssm_arena_stats arena;
    struct ssm_class_stats class;
    struct ssm_ring_stats ring;
    uint64_t handles[8], handle = ssm_handle_of(1, pool->geometry.block_total - 1);
    uint32_t ids[8];
    uint8_t bytes[8];
    struct ssm_peek peek;
    CHECK_EQ(ssm_check(pool, fixture_print, NULL), 0);
    CHECK_EQ(ssm_arena_stats(pool, &arena), 0);
    CHECK_EQ(arena.free, PACKETS);
    for (uint32_t i = 0; i < pool->geometry.class_count; i++)
        CHECK_EQ(ssm_class_stats(pool, i, &class), 0);
    CHECK_EQ(ssm_holder_list(pool, holders, 64), 0);
    CHECK_EQ(ssm_usage(pool, usage, 64), 0);
    CHECK(ssm_packet_list(pool, handles, 8) >= 0);
    CHECK_EQ(ssm_packet_peek(pool, handle, bytes, 8, &peek), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_holders(pool, handle, ids, 8), -SSM_E_STALE);
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (ssm_ring_stats(pool, id, &ring) == 0)
            CHECK(ssm_ring_peek(pool, id, handles, 8) >= 0);
}

/* A hole that is read has a page from then on, and where there is none it is SIGBUS. */
static void test_looking_touches_no_hole(void)
{
    struct fixture f = open_queue();
    struct ssm_ring *ring = open_ring(f.pool, "objects", PACKETS, SSM_REDELIVER);
    for (int round = 0; round < 3; round++) {
        const uint64_t before = bytes_of(&f);
        struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
        look_at_everything(f.pool);
        look_at_everything(reader);
        ssm_pool_destroy(reader);
        fixture_reap(f.pool);
        CHECK_EQ(bytes_of(&f), before);
        uint64_t handle = fixture_alloc(f.pool, KIB(3)); /* of the arena */
        CHECK_EQ(ssm_free(f.pool, handle), 0);
        handle = ssm_handle_of(1, f.pool->geometry.block_total - 1);
        CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_STALE);
    }
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void take_and_die(void *context)
{
    struct ssm_pool *pool = fixture_join(context);
    (void)fixture_alloc(pool, 100);
    die_here();
}

/* Nor does a reaper, of what the dead have nothing of. */
static void test_reaping_touches_no_hole(void)
{
    struct fixture f = open_queue();
    ssm_pool_destroy(fixture_attach(f.fd, 0)); /* the slot has its caches */
    const uint64_t before = bytes_of(&f);
    child_died(child_start(take_and_die, &f));
    fixture_reap(f.pool);
    CHECK_EQ(bytes_of(&f), before);
    fixture_close(&f);
}

/* ---- blocks ---------------------------------------------------------------------------------------------------- */

static void test_blocks_are_made_as_they_are_needed(void)
{
    enum { MANY = 5000 };
    static uint64_t handles[MANY];
    struct fixture f = open_queue();
    CHECK_EQ(ssm_arena_packets_now(f.pool), 0);
    handles[0] = fixture_alloc(f.pool, KIB(3));
    CHECK_EQ(ssm_arena_packets_now(f.pool), 64);
    CHECK_EQ((uint32_t)handles[0],
             f.pool->geometry.classes[f.pool->geometry.fixed_count].first_block); /* the lowest first */
    for (int i = 1; i < MANY; i++)
        handles[i] = fixture_alloc(f.pool, 2049);
    CHECK_EQ(ssm_arena_packets_now(f.pool), 5 * 1024);
    fixture_check(f.pool);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_arena_packets_now(other), 5 * 1024);
    for (int i = 0; i < MANY; i++)
        CHECK_EQ(ssm_free(f.pool, handles[i]), 0);
    other->home = 1 - f.pool->home;
    for (int i = 0; i < MANY; i++) /* by steals */
        handles[i] = fixture_alloc(other, 2049);
    CHECK_EQ(ssm_arena_packets_now(f.pool), 5 * 1024); /* none is new */
    pool_end(other);
    struct ssm_pool *more = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_alloc_many(more, 2049, 4000, 0, handles), 0);
    CHECK_EQ(ssm_free_many(more, handles, 4000), 0);
    pool_end(more);
    fixture_close(&f);
}

/* All at once, from nothing: as many as are wanted. */
static void test_many_at_once(void)
{
    static uint64_t handles[3000];
    struct fixture f = open_queue();
    CHECK_EQ(ssm_alloc_many(f.pool, 4000, 3000, 0, handles), 0);
    CHECK_EQ(ssm_arena_packets_now(f.pool), 3000);
    CHECK_EQ(ssm_free_many(f.pool, handles, 3000), 0);
    fixture_close(&f);
}

/* A process died when it had made blocks and had listed none: a reaper does. */
static void test_blocks_of_the_dead(void)
{
    struct fixture f = open_queue();
    CHECK_EQ(ssm_free(f.pool, fixture_alloc(f.pool, KIB(3))), 0);
    struct ssm_shard *shard = ssm_shard_at(f.pool, f.pool->geometry.fixed_count, 0);
    struct ssm_arena *arena = ssm_arena_of(f.pool);
    struct ssm_pool *dead = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_arena_add_packets(dead, 1), 0);
    CHECK_EQ(ssm_load_relaxed_u32(&arena->packets), 128);
    const uint32_t listed = ssm_load_relaxed_u32(&shard->free_count);
    for (uint32_t i = 0; i < 64; i++)
        ssm_store_relaxed_u32(
            &ssm_block_at(f.pool, f.pool->geometry.classes[f.pool->geometry.fixed_count].first_block + 64 + i)->listed,
            0);
    ssm_store_relaxed_u32(&shard->free_count, listed - 64);
    ssm_store_relaxed_u64(&arena->lock.word, dead->lock_word);
    struct ssm_pool ghost = kill_attachment(dead, f.fd);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_load_relaxed_u32(&shard->free_count), listed);
    fixture_check(f.pool);
    ghost.self = SSM_NIL;
    (void)ghost;
    dead->self = SSM_NIL;
    ssm_pool_destroy(dead);
    fixture_close(&f);
}

/* ---- rings ------------------------------------------------------------------------------------------------------- */

static uint32_t slots_of(const struct ssm_ring *ring)
{
    return ssm_load_relaxed_u32(&ring->shared->slot_count);
}

static void put_number(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(pool, 3000, 10000 * (int64_t)MS, &handle), 0); /* it waits where a lock stays taken, */
    memcpy(fixture_view(pool, handle).data, &number, 8);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 10000 * (int64_t)MS), 0); /* or a right */
}

static void get_number(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t number)
{
    uint64_t handle, got;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    memcpy(&got, fixture_view(pool, handle).data, 8);
    CHECK_EQ(got, number);
    CHECK_EQ(ssm_free(pool, handle), 0);
}

/* From every place of the ring, with every number of packets in front; the other process finds them through its own view. */
static void test_a_ring_is_widened(void)
{
    struct fixture f = open_queue();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint64_t last = 0, first = 0;
    char name[16];
    for (uint32_t turned = 0; turned < 600; turned += 37) {
        snprintf(name, sizeof name, "ring-%u", turned);
        struct ssm_ring *ring = open_ring(f.pool, name, 1000, 0), *far = open_ring(other, name, 1000, 0);
        CHECK_EQ(slots_of(ring), 256);
        for (uint32_t i = 0; i < turned; i++) {
            put_number(f.pool, ring, last++);
            get_number(other, far, first++);
        }
        for (uint32_t i = 0; i < 1000; i++)
            put_number(i % 3 ? f.pool : other, i % 3 ? ring : far, last++);
        CHECK_EQ(slots_of(ring), 1024);
        fixture_check(f.pool);
        uint64_t handle = fixture_alloc(f.pool, 8);
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_FULL);
        CHECK_EQ(ssm_free(f.pool, handle), 0);
        while (first < last)
            get_number(first % 2 ? f.pool : other, first % 2 ? ring : far, first), first++;
        ssm_ring_close(ring);
        ssm_ring_close(far);
    }
    pool_end(other);
    fixture_close(&f);
}

/* Also by a batch that needs several doublings; and what is asked for as it is has all its slots. */
static void test_batches_and_rings_that_are_not_widened(void)
{
    static uint64_t handles[3000];
    struct fixture f = open_queue();
    struct ssm_ring *ring = open_ring(f.pool, "batches", PACKETS, 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 3000, 3000, 0, handles), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 3, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, handles + 3, 2997, 0, 0), 0);
    CHECK_EQ(slots_of(ring), 4096);
    uint64_t got[3000];
    CHECK_EQ(ssm_ring_get(ring, got, 3000, 0), 3000);
    CHECK(memcmp(got, handles, sizeof got) == 0);
    CHECK_EQ(ssm_free_many(f.pool, got, 3000), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, PACKETS + 1, 0, 0), -EINVAL);
    ssm_ring_close(ring);
    const uint32_t fixed[] = {SSM_ONE_PRODUCER, SSM_ONE_CONSUMER, SSM_OVERFLOW_DROP, SSM_OVERFLOW_OVERWRITE};
    for (uint32_t i = 0; i < 4; i++) {
        ring = open_ring(f.pool, (char[]){(char)('a' + i), 0}, 1000, fixed[i]);
        CHECK_EQ(slots_of(ring), 1024);
        ssm_ring_close(ring);
    }
    fixture_close(&f);
}

/* The consumer's right stays taken: the ring is full, and has more slots once it is given up. */
static void test_a_stopped_consumer(void)
{
    struct fixture f = open_queue();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = open_ring(f.pool, "ring", 1000, 0);
    for (uint32_t i = 0; i < 256; i++)
        put_number(f.pool, ring, i);
    ssm_store_relaxed_u64(&ring->shared->consumer.lock.word, other->lock_word);
    uint64_t handle = fixture_alloc(f.pool, 8);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_FULL);
    CHECK_EQ(slots_of(ring), 256);
    ssm_store_relaxed_u64(&ring->shared->consumer.lock.word, 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    CHECK_EQ(slots_of(ring), 512);
    for (uint32_t i = 0; i < 256; i++)
        get_number(f.pool, ring, i);
    ssm_ring_close(ring);
    pool_end(other);
    fixture_close(&f);
}

/* Many processes put and get while it is widened: each packet comes once. */
static void exchange(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = open_ring(pool, "busy", 16384, 0);
    uint64_t sum = 0, handle;
    const uint32_t me = ssm_add_acqrel_u32(&f->board->step[0], 1);
    for (uint32_t i = 0; i < 4000; i++) {
        put_number(pool, ring, me * UINT64_C(4000) + i);
        if (i % 4 == me && ssm_ring_get(ring, &handle, 1, 0) == 1) {
            uint64_t number;
            memcpy(&number, fixture_view(pool, handle).data, 8);
            sum += number + 1;
            CHECK_EQ(ssm_free(pool, handle), 0);
        }
    }
    ssm_add_acqrel_u64(&f->board->value[0], sum);
    ssm_ring_close(ring);
    pool_end(pool);
}

static void test_widened_while_it_is_busy(void)
{
    struct fixture f = open_queue();
    struct ssm_ring *ring = open_ring(f.pool, "busy", 16384, 0);
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        children[i] = child_start(exchange, &f);
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    CHECK(slots_of(ring) >= 8192);
    uint64_t sum = ssm_load_acquire_u64(&f.board->value[0]), handle;
    while (ssm_ring_get(ring, &handle, 1, 0) == 1) {
        uint64_t number;
        memcpy(&number, fixture_view(f.pool, handle).data, 8);
        sum += number + 1;
        CHECK_EQ(ssm_free(f.pool, handle), 0);
    }
    CHECK_EQ(sum, UINT64_C(12000) * 12001 / 2);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_a_pool_is_small();
    test_looking_touches_no_hole();
    test_reaping_touches_no_hole();
    test_blocks_are_made_as_they_are_needed();
    test_many_at_once();
    test_blocks_of_the_dead();
    test_a_ring_is_widened();
    test_batches_and_rings_that_are_not_widened();
    test_a_stopped_consumer();
    test_widened_while_it_is_busy();
    return 0;
}
