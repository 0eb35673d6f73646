/* SPDX-License-Identifier: Apache-2.0
 *
 * A damaged segment: what fuzzing, and reading with a scribbler in mind, found. Each is a test of its own here; the rest
 * of the damage is in tests/fuzz. */
#include "pool_fixture.h"
#include "range_tree.h"

#include <string.h>

static struct fixture open_fixture(uint32_t blocks)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_count = blocks;
    return fixture_open(&options);
}

/* ---- locks -------------------------------------------------------------------------------------------------- */

/* A lock in the name of the one who wants it: he waited for himself. */
static void test_locks_in_ones_own_name(void)
{
    struct fixture f = open_fixture(16);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, ring_id(f.pool, "ring"));
    uint64_t handle, began_ns = ssm_now_ns();
    for (uint32_t shard_idx = 0; shard_idx < 4; shard_idx++)
        ssm_store_relaxed_u64(&ssm_shard_at(f.pool, 0, shard_idx)->lock.word, f.pool->lock_word);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    ssm_store_relaxed_u64(&shared->producer.lock.word, f.pool->lock_word | SSM_LOCK_WAITERS);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    ssm_store_relaxed_u64(&shared->consumer.lock.word, f.pool->lock_word);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK(ssm_now_ns() - began_ns < 5000 * MS);
    ssm_ring_close(ring);
    fixture_reap(f.pool); /* takes the rest of the locks over */
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

enum { LOCKED, RELEASE };

static void hold_all_shards(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    for (uint32_t shard_idx = 0; shard_idx < 4; shard_idx++)
        CHECK_EQ(ssm_shard_lock(pool, 0, shard_idx, 1000 * MS), 0);
    board_set(f->board, LOCKED, 1);
    AWAIT(board_get(f->board, RELEASE));
    for (uint32_t shard_idx = 0; shard_idx < 4; shard_idx++)
        ssm_lock_release(&ssm_shard_at(pool, 0, shard_idx)->lock);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

/* Every shard's lock taken by somebody who lives, more blocks than can be parked: frees waited for ever. */
static void test_frees_with_every_shard_locked(void)
{
    enum { BLOCKS = SSM_PARK_SLOTS + 8 };
    struct fixture f = open_fixture(BLOCKS);
    uint64_t handles[BLOCKS];
    CHECK_EQ(ssm_alloc_many(f.pool, 256, BLOCKS, 0, handles), 0);
    pid_t child = child_start(hold_all_shards, &f);
    AWAIT(board_get(f.board, LOCKED));
    for (int i = 0; i < BLOCKS; i++)
        CHECK_EQ(ssm_free(f.pool, handles[i]), 0);
    board_set(f.board, RELEASE, 1);
    child_finish(child);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- lists -------------------------------------------------------------------------------------------------- */

/* One block twice on a list: it was handed out twice. */
static void test_an_entry_that_stands_twice(void)
{
    struct fixture f = open_fixture(16);
    struct ssm_u32 *list = ssm_list_at(f.pool, 0, 0);
    uint64_t handles[4];
    ssm_store_relaxed_u32(&list[14], ssm_load_relaxed_u32(&list[15]));
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 4, 0, handles), 0);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < i; k++)
            CHECK(block_of(handles[i]) != block_of(handles[k]));
    CHECK_EQ(ssm_free_many(f.pool, handles, 4), 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- rings and trees ------------------------------------------------------------------------------------------ */

/* A ring that is open already, its capacity scribbled, its producer dead: the repair went round for ever, or beyond the
 * segment. */
static void test_repair_of_a_ring_without_bounds(void)
{
    const uint32_t capacities[] = {UINT32_MAX, UINT32_C(1) << 31, SSM_RING_MAX, 0};
    for (size_t i = 0; i < sizeof capacities / sizeof capacities[0]; i++) {
        struct fixture f = open_fixture(16);
        struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
        struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, ring_id(f.pool, "ring"));
        uint64_t handle;
        CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
        shared->capacity = capacities[i];
        ssm_store_relaxed_u64(&shared->producer.put_intent, UINT64_MAX);
        ssm_store_relaxed_u64(&shared->producer.lock.word, 63); /* nobody's */
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
        CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
        CHECK_EQ(ssm_free(f.pool, handle), 0);
        shared->capacity = 4;
        ssm_ring_close(ring);
        fixture_close(&f);
    }
}

static void say_nothing(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context, (void)what, (void)where, (void)value;
}

/* The list of spare nodes a circle, and no bound to it: the check went round 2^32 times. */
static void test_check_of_a_circle(void)
{
    static _Alignas(64) uint8_t memory[16384];
    struct al_tree tree;
    CHECK_EQ(al_tree_init(&tree, memory, sizeof memory, 9), AL_OK);
    CHECK_EQ(al_tree_insert(&tree, 0, 99, AL_TREE_FREE, 0, NULL), AL_OK);
    CHECK_EQ(al_tree_delete(&tree, 0, 99), AL_OK);
    tree.node[0].child[0] = 0;
    tree.head->top.fresh = UINT32_MAX;
    uint64_t began_ns = ssm_now_ns();
    CHECK(al_tree_check(&tree, say_nothing, NULL) > 0);
    CHECK(ssm_now_ns() - began_ns < PROMPT_NS);
}

/* ---- a file that is cut ----------------------------------------------------------------------------------------- */

static void check_refused(struct fixture *f)
{
    struct ssm_pool *pool;
    CHECK_EQ(ssm_pool_attach(f->fd, NULL, &pool), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_pool_attach(f->fd, &(struct ssm_attach_options){.flags = SSM_READONLY}, &pool), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_pool_retire(f->fd, NULL), -SSM_E_CORRUPT);
}

static void check_what_looks(struct fixture *f)
{
    struct ssm_pool_info info;
    struct ssm_class_stats class;
    struct ssm_holder_info holders[64];
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_pool_info(f->pool, &info), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_class_stats(f->pool, 0, &class), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_holder_list(f->pool, holders, 64), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_check(f->pool, NULL, NULL), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_reap(f->pool, &reaped), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_recovery_try(f->pool), false);
}

static void cut(const struct fixture *f, uint64_t bytes)
{
    CHECK(ftruncate(f->fd, (off_t)bytes) == 0);
}

/* Looking answers, and so does the way out. */
static void test_cut(void)
{
    for (uint64_t left = 0; left < 3; left++) {
        struct fixture f = open_fixture(16);
        struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER);
        uint64_t handles[2];
        CHECK_EQ(ssm_alloc_many(f.pool, 256, 2, 0, handles), 0);
        CHECK_EQ(ssm_ring_put(ring, handles, 1, 0, 0), 0);
        cut(&f, left == 0 ? f.pool->geometry.size_bytes - 1 : 4096 * left);
        check_refused(&f);
        check_what_looks(&f);
        ssm_ring_close(ring);
        CHECK_EQ(ssm_pool_close(f.pool), 0);
        ssm_pool_destroy(f.pool);
        close(f.fd);
        board_drop(f.board);
    }
}

/* With nothing left it is no pool any more. */
static void test_cut_to_nothing(void)
{
    struct fixture f = open_fixture(16);
    struct ssm_pool *pool;
    cut(&f, 0);
    CHECK_EQ(ssm_pool_attach(f.fd, NULL, &pool), -SSM_E_LAYOUT);
    check_what_looks(&f);
    ssm_pool_destroy(f.pool);
    close(f.fd);
    board_drop(f.board);
}

/* Cut and grown again: the size is right, but there is a hole. */
static void test_hole(void)
{
    struct fixture f = open_fixture(16);
    uint64_t size = f.pool->geometry.size_bytes;
    cut(&f, size - 8192);
    cut(&f, size);
    check_refused(&f);
    ssm_pool_destroy(f.pool);
    close(f.fd);
    board_drop(f.board);
}

static void wait_for_a_packet(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", 4, 0);
    uint64_t handle;
    board_set(f->board, LOCKED, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, SSM_FOREVER), -SSM_E_CORRUPT);
}

static void wait_for_some_ring(void *context)
{
    struct fixture *f = context;
    struct ssm_interest interest = {.ring = ring_open(fixture_join(f), "ring", 4, 0), .what = SSM_READY_TO_GET};
    board_set(f->board, LOCKED, 1);
    CHECK_EQ(ssm_wait_rings(&interest, 1, NULL, SSM_FOREVER), -SSM_E_CORRUPT);
}

static void wait_for_a_block(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    board_set(f->board, LOCKED, 1);
    CHECK_EQ(ssm_alloc(pool, 256, SSM_FOREVER, &handle), -SSM_E_CORRUPT);
}

/* Whoever sleeps when the file is cut learns of it at his next look. */
static bool answers_when_cut(void (*wait)(void *context))
{
    struct fixture f = open_fixture(16);
    uint64_t handles[16];
    int status;
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 16, 0, handles), 0);
    pid_t child = child_start(wait, &f);
    AWAIT(board_get(f.board, LOCKED));
    ssm_nap_ns(5 * MS); /* it falls asleep */
    cut(&f, 0);
    CHECK(waitpid(child, &status, 0) == child);
    ssm_pool_destroy(f.pool);
    close(f.fd);
    board_drop(f.board);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* SIGBUS where the cut met it awake, for some microseconds in 20 milliseconds: not each time. */
static void check_cut_under(void (*wait)(void *context))
{
#ifdef SSM_EMULATED /* the emulator touches the memory while its program sleeps */
    bool answered = true;
#else
    bool answered = false;
#endif
    for (int attempt = 0; attempt < 5 && !answered; attempt++)
        answered = answers_when_cut(wait);
    CHECK(answered);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_locks_in_ones_own_name();
    test_frees_with_every_shard_locked();
    test_an_entry_that_stands_twice();
    test_repair_of_a_ring_without_bounds();
    test_check_of_a_circle();
    test_cut();
    test_cut_to_nothing();
    test_hole();
    check_cut_under(wait_for_a_packet);
    check_cut_under(wait_for_some_ring);
    check_cut_under(wait_for_a_block);
    return 0;
}
