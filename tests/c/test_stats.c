/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking in: the figures are what happened, from a writer's and from a reader's attachment. */
#include "pool_fixture.h"

#define BLOCKS 64
#define LIMIT  8 /* of a cache */

enum { READY, GO, SELF }; /* steps of the board */

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_count = BLOCKS;
    options.cache = LIMIT;
    return fixture_open(&options);
}

static void test_arguments(void)
{
    struct fixture f = open_fixture();
    struct ssm_shard_stats shard;
    struct ssm_class_stats class;
    struct ssm_ring_stats ring;
    CHECK_EQ(ssm_shard_stats(f.pool, 2, 0, &shard), -EINVAL);
    CHECK_EQ(ssm_shard_stats(f.pool, 0, 4, &shard), -EINVAL);
    CHECK_EQ(ssm_class_stats(f.pool, 2, &class), -EINVAL);
    CHECK_EQ(ssm_ring_stats(f.pool, 64, &ring), -EINVAL);
    CHECK_EQ(ssm_ring_stats(f.pool, 5, &ring), -ENOENT);
    CHECK_EQ(ssm_ring_stats(f.pool, f.pool->self, &ring), -ENOENT); /* a process */
    struct ssm_pool *closed = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_pool_close(closed), 0);
    CHECK_EQ(ssm_shard_stats(closed, 0, 0, &shard), -SSM_E_CLOSED);
    CHECK_EQ(ssm_class_stats(closed, 0, &class), -SSM_E_CLOSED);
    CHECK_EQ(ssm_ring_stats(closed, 0, &ring), -SSM_E_CLOSED);
    CHECK_EQ(ssm_holder_list(closed, NULL, 0), -SSM_E_CLOSED);
    CHECK_EQ(ssm_usage(closed, NULL, 0), -SSM_E_CLOSED);
    ssm_pool_destroy(closed);
    fixture_close(&f);
}

static void test_classes(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    struct ssm_class_stats stats;
    uint64_t handles[20];
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 20, 0, handles), 0);
    CHECK_EQ(ssm_class_stats(reader, 0, &stats), 0);
    CHECK(stats.block_size == 256 && stats.blocks == BLOCKS && stats.free == BLOCKS - 20 && stats.cached == 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 5), 0); /* into the cache */
    CHECK_EQ(ssm_class_stats(reader, 0, &stats), 0);
    CHECK(stats.free == BLOCKS - 20 && stats.cached == 5);
    CHECK_EQ(ssm_free_many(f.pool, handles + 5, 15), 0);
    CHECK_EQ(ssm_class_stats(reader, 0, &stats), 0);
    CHECK(stats.free + stats.cached == BLOCKS && stats.cached > 0);
    CHECK_EQ(ssm_class_stats(reader, 1, &stats), 0);
    CHECK(stats.block_size == 1024 && stats.blocks == 8 && stats.free == 8 && stats.cached == 0);
    pool_end(reader);
    fixture_close(&f);
}

static void wait_for_a_block(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    pool->home = 2;
    CHECK_EQ(ssm_alloc(pool, 1024, SSM_FOREVER, &handle), 0);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static uint64_t waiters_of(struct ssm_pool *pool, uint32_t shard_idx)
{
    struct ssm_shard_stats stats;
    CHECK_EQ(ssm_shard_stats(pool, 1, shard_idx, &stats), 0);
    return stats.waiters;
}

static void test_shards(void)
{
    struct ssm_pool_options options = fixture_options(); /* without caches: every block shows */
    struct fixture f = fixture_open(&options);
    struct ssm_shard_stats stats;
    uint64_t handles[8];
    f.pool->home = 1;
    CHECK_EQ(ssm_alloc_many(f.pool, 1024, 8, 0, handles), 0);
    CHECK_EQ(ssm_shard_stats(f.pool, 1, 0, &stats), 0);
    CHECK(stats.free == 0 && stats.allocs == 8 && stats.steals == 8 && stats.frees == 0 && stats.recoveries == 0);
    pid_t child = child_start(wait_for_a_block, &f);
    AWAIT(waiters_of(f.pool, 2) == 1);
    CHECK(waiters_of(f.pool, 0) == 0 && waiters_of(f.pool, 1) == 0 && waiters_of(f.pool, 3) == 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 8), 0);
    child_finish(child);
    CHECK_EQ(waiters_of(f.pool, 2), 0);
    CHECK_EQ(ssm_shard_stats(f.pool, 1, 1, &stats), 0);
    CHECK(stats.frees == 8 && stats.allocs == 1 && stats.steals == 1 && stats.free == 7);
    fixture_close(&f);
}

static void test_rings(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "packets", 6, SSM_ONE_PRODUCER);
    uint32_t id = ring_id(f.pool, "packets");
    struct ssm_ring_stats stats;
    uint64_t handles[6];
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 6, 0, handles), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 4, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(ring, handles, 3, 0), 3);
    CHECK_EQ(ssm_ring_put(ring, handles + 4, 2, 0, 0), 0);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_FLOWPEER), 0);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    CHECK_EQ(ssm_ring_stats(reader, id, &stats), 0);
    CHECK(strcmp(stats.name, "packets") == 0 && stats.id == 0 && stats.holder == id && stats.capacity == 6);
    CHECK(stats.flags == SSM_ONE_PRODUCER && stats.acl == SSM_ACL_FLOWPEER);
    CHECK(stats.depth == 3 && stats.high_water == 4 && stats.puts == 6 && stats.gets == 3 && stats.recoveries == 0);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    CHECK_EQ(ssm_ring_stats(reader, id, &stats), 0);
    CHECK(stats.depth == 0 && stats.acl == (SSM_ACL_FLOWPEER | SSM_ACL_FLOWDOWN)); /* and no internal flag */
    CHECK_EQ(ssm_free_many(f.pool, handles, 3), 0);
    memset(ssm_holder_at(f.pool, id)->name, 'x', SSM_NAME_SIZE); /* scribbled: ends all the same */
    CHECK_EQ(ssm_ring_stats(reader, id, &stats), 0);
    CHECK_EQ(strlen(stats.name), SSM_NAME_SIZE - 1);
    pool_end(reader);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* ---- holders ------------------------------------------------------------------------------------------------ */

static void hold_some(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[LIMIT];
    CHECK_EQ(ssm_alloc_many(pool, 256, LIMIT, 0, handles), 0);
    CHECK_EQ(ssm_free_many(pool, handles + 3, LIMIT - 3), 0); /* cached blocks do not count */
    CHECK_EQ(ssm_alloc(pool, 1024, 0, handles), 0);
    board_set(f->board, SELF, pool->self);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
}

static void test_holders(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "packets", 6, 0);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    struct ssm_holder_info list[65];
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    pid_t child = child_start(hold_some, &f);
    AWAIT(board_get(f.board, READY) == 1);
    uint32_t id = ring_id(f.pool, "packets"), slot = board_get(f.board, SELF);
    memset(list, 0xff, sizeof list);
    CHECK_EQ(ssm_holder_list(reader, list, 65), 0); /* more room than slots */
    CHECK(list[64].id == UINT32_MAX);
    CHECK(list[0].kind == SSM_HOLDER_PROCESS && list[0].pid == (uint32_t)getpid() && list[0].alive == 1);
    CHECK(strcmp(list[0].name, "test") == 0 && list[0].blocks == 1 && list[0].bytes == 256);
    CHECK(list[id].kind == SSM_HOLDER_RING && list[id].pid == 0 && list[id].alive == 1);
    CHECK(strcmp(list[id].name, "packets") == 0 && list[id].blocks == 1 && list[id].bytes == 256);
    CHECK(list[slot].kind == SSM_HOLDER_PROCESS && list[slot].pid == (uint32_t)child && list[slot].alive == 1);
    CHECK(list[slot].blocks == 4 && list[slot].bytes == 3 * 256 + 1024);
    CHECK(list[40].id == 40 && list[40].kind == SSM_HOLDER_NONE && list[40].blocks == 0 && list[40].name[0] == 0);
    child_kill(child);
    CHECK_EQ(ssm_holder_list(f.pool, list, slot + 1), 0);
    CHECK(list[slot].alive == 0 && list[slot].blocks == 4);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_holder_list(f.pool, list, 64), 0);
    CHECK_EQ(list[slot].kind, SSM_HOLDER_NONE);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    ssm_ring_close(ring);
    pool_end(reader);
    fixture_close(&f);
}

/* ---- who uses how much -------------------------------------------------------------------------------------- */

/* By class; what is cached does not count; the most it has held at once stays. */
static void test_usage(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    struct ssm_ring *ring = ring_open(f.pool, "packets", 6, 0);
    struct ssm_usage list[65];
    uint64_t handles[LIMIT], more;
    pid_t child = child_start(hold_some, &f);
    AWAIT(board_get(f.board, READY) == 1);
    uint32_t id = ring_id(f.pool, "packets"), slot = board_get(f.board, SELF), self = f.pool->self;
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 3, 0, handles), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 2, 0, 0), 0); /* the ring's now */
    CHECK_EQ(ssm_packet_hold(f.pool, handles[2]), 0);  /* twice is once */
    memset(list, 0xff, sizeof list);
    CHECK_EQ(ssm_usage(reader, list, 65), 0); /* more room than slots */
    CHECK(list[64].pid == UINT32_MAX && list[40].holder == SSM_NIL && list[id].holder == SSM_NIL);
    CHECK(list[self].holder == self && list[self].pid == (uint32_t)getpid() && list[self].alive == 1);
    CHECK(strcmp(list[self].name, "test") == 0 && list[self].blocks[0] == 1 && list[self].blocks[1] == 0);
    CHECK_EQ(list[self].peak_bytes, 3 * 256);
    CHECK(list[slot].holder == slot && list[slot].pid == (uint32_t)child && list[slot].alive == 1);
    CHECK(list[slot].blocks[0] == 3 && list[slot].blocks[1] == 1);
    CHECK_EQ(list[slot].peak_bytes, LIMIT * 256); /* later it had less */
    CHECK(list[slot].rmid != 0 && list[self].rmid != 0 && list[slot].rmid != list[self].rmid);
    CHECK_EQ(ssm_ring_get(ring, &more, 1, 0), 1);
    CHECK_EQ(ssm_usage(f.pool, list, self + 1), 0);
    CHECK(list[self].blocks[0] == 2 && list[self].peak_bytes == 3 * 256);
    CHECK_EQ(ssm_free(f.pool, more), 0);
    CHECK_EQ(ssm_free_many(f.pool, (uint64_t[]){handles[2], handles[2]}, 2), 0);
    child_kill(child);
    CHECK_EQ(ssm_usage(f.pool, list, 64), 0);
    CHECK(list[slot].alive == 0 && list[slot].blocks[0] == 3 && list[slot].blocks[1] == 1);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_usage(f.pool, list, 64), 0);
    CHECK(list[slot].holder == SSM_NIL && list[self].blocks[0] == 0 && list[self].peak_bytes == 3 * 256);
    ssm_ring_close(ring);
    pool_end(reader);
    fixture_close(&f);
}

/* Whoever comes into the same slot has another RMID, and starts from nothing. */
static void test_usage_is_not_inherited(void)
{
    struct fixture f = open_fixture();
    struct ssm_usage before[64], after[64];
    uint64_t handle;
    for (int i = 0; i < 3; i++) {
        struct ssm_pool *one = fixture_attach(f.fd, 0);
        uint32_t slot = one->self;
        CHECK_EQ(ssm_alloc(one, 1024, 0, &handle), 0);
        CHECK_EQ(ssm_usage(f.pool, before, 64), 0);
        CHECK(before[slot].blocks[1] == 1 && before[slot].peak_bytes == 1024);
        pool_end(one);
        CHECK_EQ(ssm_usage(f.pool, after, 64), 0);
        CHECK_EQ(after[slot].holder, SSM_NIL);
        one = fixture_attach(f.fd, 0);
        CHECK_EQ(one->self, slot);
        CHECK_EQ(ssm_usage(f.pool, after, 64), 0);
        CHECK(after[slot].rmid != 0 && after[slot].rmid != before[slot].rmid);
        CHECK(after[slot].blocks[1] == 0 && after[slot].peak_bytes == 0);
        pool_end(one);
    }
    fixture_close(&f);
}

/* A scribbled cache count is no flood of blocks. */
static void test_garbage(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_u32 *count = &ssm_cache_at(f.pool, other->self, 0)->count;
    struct ssm_holder_info list[64];
    struct ssm_usage usage[64];
    ssm_store_relaxed_u32(count, UINT32_MAX);
    CHECK_EQ(ssm_holder_list(f.pool, list, 64), 0);
    CHECK(list[other->self].blocks <= BLOCKS && list[other->self].bytes <= BLOCKS * 256);
    CHECK_EQ(ssm_usage(f.pool, usage, 64), 0);
    CHECK(usage[other->self].blocks[0] <= BLOCKS);
    memset(ssm_holder_at(f.pool, other->self)->name, 'x', SSM_NAME_SIZE);
    CHECK_EQ(ssm_usage(f.pool, usage, 64), 0);
    CHECK_EQ(strlen(usage[other->self].name), SSM_NAME_SIZE - 1);
    ssm_store_relaxed_u32(count, 0);
    pool_end(other);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_arguments();
    test_classes();
    test_shards();
    test_rings();
    test_holders();
    test_usage();
    test_usage_is_not_inherited();
    test_garbage();
    return 0;
}
