/* SPDX-License-Identifier: Apache-2.0
 *
 * Reaping: what the dead held comes back, once and all of it, whoever reaps and wherever the reaper dies. */
#include "pool_fixture.h"

#include "ring_unlink.h"

#define BLOCKS 64
#define LIMIT  8 /* of a cache */

enum { READY, GO, VICTIM }; /* steps of the board */

static struct ssm_pool_options cached_options(void)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_count = BLOCKS;
    options.cache = LIMIT;
    return options;
}

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = cached_options();
    return fixture_open(&options);
}

static struct ssm_reaped reap(struct ssm_pool *pool)
{
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_reap(pool, &reaped), 0);
    return reaped;
}

/* Five packets of its own, one in a ring, a full cache, a packet it shares. */
static void hold_something(struct fixture *f)
{
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", 4, 0);
    uint64_t handles[LIMIT];
    CHECK_EQ(ssm_alloc_many(pool, 256, LIMIT, 0, handles), 0);
    CHECK_EQ(ssm_free_many(pool, handles, LIMIT), 0);
    CHECK_EQ(cached_blocks(pool, 0), LIMIT);
    CHECK_EQ(ssm_alloc_many(pool, 1024, 5, 0, handles), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 2, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_free(pool, handles[0]), 0); /* the ring's alone */
    board_set(f->board, VICTIM, pool->self);
}

static void hold_and_die(void *context)
{
    hold_something(context);
    die_here();
}

static void hold_and_wait(void *context)
{
    struct fixture *f = context;
    hold_something(f);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
    check_all_there(f->pool, 0);
}

/* The ring keeps two of the packets; all else is free. */
static void check_reaped(struct fixture *f)
{
    CHECK_EQ(ssm_load_acquire_u32(&ssm_holder_at(f->pool, board_get(f->board, VICTIM))->kind), SSM_HOLDER_NONE);
    CHECK_EQ(free_blocks(f->pool, 0) + cached_blocks(f->pool, 0), BLOCKS);
    CHECK_EQ(free_blocks(f->pool, 1), 8 - 2);
    CHECK_EQ(listed_blocks(f->pool, 1), 8 - 2);
    fixture_check(f->pool);
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, 0);
    uint64_t handles[4];
    CHECK_EQ(ssm_ring_get(ring, handles, 4, 0), 2); /* what was delivered outlives its producer */
    CHECK_EQ(ssm_free_many(f->pool, handles, 2), 0);
    ssm_ring_close(ring);
    check_all_there(f->pool, 0);
    check_all_there(f->pool, 1);
}

static void test_reap(void)
{
    struct fixture f = open_fixture();
    CHECK(reap(f.pool).processes == 0);
    child_died(child_start(hold_and_die, &f));
    struct ssm_reaped reaped = reap(f.pool);
    CHECK_EQ(reaped.processes, 1);
    CHECK_EQ(reaped.blocks, 4); /* those in its cache had come free before */
    reaped = reap(f.pool);
    CHECK(reaped.processes == 0 && reaped.blocks == 0);
    check_reaped(&f);
    fixture_close(&f);
}

static void test_the_living_are_left_alone(void)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(hold_and_wait, &f);
    AWAIT(board_get(f.board, READY) == 1);
    child_stop(child);
    CHECK_EQ(reap(f.pool).processes, 0);
    CHECK_EQ(held_by(f.pool, 1, board_get(f.board, VICTIM)), 4);
    CHECK_EQ(held_by(f.pool, 0, board_get(f.board, VICTIM)), LIMIT);
    child_continue(child);
    board_set(f.board, GO, 1);
    child_finish(child);
    CHECK_EQ(reap(f.pool).processes, 1); /* it went without closing */
    check_reaped(&f);
    fixture_close(&f);
}

static void test_attaching_reaps(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(hold_and_die, &f));
    pool_end(fixture_attach(f.fd, 0));
    check_reaped(&f);
    fixture_close(&f);
}

/* Between letting go of a block and listing it. */
static void let_go_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint32_t blocks[3];
    CHECK_EQ(ssm_shard_take(pool, 0, 0, 3, 0, blocks), 3);
    for (int i = 0; i < 3; i++)
        ssm_block_remove(ssm_block_at(pool, blocks[i]), pool->self);
    die_here();
}

static void test_let_go_but_not_listed(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(let_go_and_die, &f));
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - 3);
    struct ssm_reaped reaped = reap(f.pool);
    CHECK(reaped.processes == 1 && reaped.blocks == 0); /* none carried its bit */
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS);
    fixture_close(&f);
}

/* The audit finds what nobody dead is to blame for, too. */
static void test_audit(void)
{
    struct fixture f = open_fixture();
    uint32_t blocks[2];
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, 2, 0, blocks), 2);
    for (int i = 0; i < 2; i++)
        ssm_block_remove(ssm_block_at(f.pool, blocks[i]), f.pool->self);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - 2);
    CHECK_EQ(reap(f.pool).processes, 0);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS);
    fixture_close(&f);
}

/* ---- the reaper dies ---------------------------------------------------------------------------------------- */

static void leave_a_dead_process(struct fixture *f)
{
    child_died(child_start(hold_and_die, f));
}

/* ssm_recovery_reap_locked(), step by step; the middle of the blocks is enough. */
static void reap_slowly(void *context)
{
    struct fixture *f = context;
    uint32_t victim = board_get(f->board, VICTIM);
    struct ssm_pool *pool = f->pool;
    bool adopted;
    CHECK_EQ(ssm_registry_lock(pool, 1000 * MS), 0); /* like fixture_join(), but without its reaping */
    CHECK_EQ(ssm_registry_take(pool, true, &adopted), 0);
    ssm_pool_set_status(pool, SSM_STATUS_OPEN);
    step(f);
    CHECK_EQ(ssm_cache_seal(pool, victim), 0);
    for (uint32_t i = 0; i < pool->geometry.block_total; i++) {
        struct ssm_block *block = ssm_block_at(pool, i);
        if (!ssm_block_has(block, victim))
            continue;
        step(f);
        ssm_block_remove(block, victim);
        step(f);
        if (ssm_block_is_free(pool, block))
            ssm_block_settle(pool, i);
    }
    step(f);
    struct ssm_holder_set dead = {0};
    ssm_holder_set_add(&dead, victim);
    ssm_rings_forget(pool, &dead, true);
    step(f);
    ssm_store_release_u32(&ssm_holder_at(pool, victim)->kind, SSM_HOLDER_NONE);
    step(f);
    ssm_cache_unseal(pool, victim);
    step(f);
    ssm_registry_unlock(pool);
}

static void check_reaped_by_the_next(struct fixture *f)
{
    uint32_t processes = reap(f->pool).processes;
    CHECK(processes == 1 || processes == 2); /* the reaper, and the one it was after */
    CHECK_EQ(reap(f->pool).processes, 0);
    check_reaped(f);
}

/* A newcomer gets the slot of the dead, or of the dead reaper. */
static void check_reaped_by_a_newcomer(struct fixture *f)
{
    struct ssm_pool *newcomer = fixture_attach(f->fd, 0);
    CHECK_EQ(cached_blocks(newcomer, 0), 0);
    check_all_there(newcomer, 0);
    pool_end(newcomer);
    CHECK_EQ(reap(f->pool).processes, 0);
    check_reaped(f);
}

static void test_the_reaper_dies(void)
{
    struct deaths d = {cached_options(), leave_a_dead_process, reap_slowly, check_reaped_by_the_next};
    CHECK(die_everywhere(&d) > 2 * (LIMIT + 4));
    d.after = check_reaped_by_a_newcomer;
    CHECK(die_everywhere(&d) > 2 * (LIMIT + 4));
}

/* Whoever is killed while it seals leaves its name in some caches of the dead. */
static void seal_and_die(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_registry_lock(f->pool, 1000 * MS), 0);
    bool adopted;
    CHECK_EQ(ssm_registry_take(f->pool, true, &adopted), 0);
    CHECK_EQ(ssm_cache_seal(f->pool, board_get(f->board, VICTIM)), 0);
    die_here();
}

static void test_many_reapers_die(void)
{
    struct fixture f = open_fixture();
    leave_a_dead_process(&f);
    for (int i = 0; i < 5; i++)
        child_died(child_start(seal_and_die, &f));
    CHECK_EQ(reap(f.pool).processes, 6);
    check_reaped(&f);
    fixture_close(&f);
}

/* ---- slots of the dead -------------------------------------------------------------------------------------- */

static void fill_the_slots(void *context)
{
    struct fixture *f = context;
    for (uint32_t i = 1; i < 64; i++) {
        uint64_t handle;
        struct ssm_pool *pool = fixture_attach(f->fd, 0);
        CHECK_EQ(ssm_alloc(pool, 256, 0, &handle), 0);
        board_set(f->board, VICTIM, pool->self);
    }
    die_here();
}

static void adopt_and_die(void *context)
{
    struct fixture *f = context;
    bool adopted;
    CHECK_EQ(ssm_registry_lock(f->pool, 1000 * MS), 0);
    CHECK_EQ(ssm_registry_take(f->pool, true, &adopted), 0);
    CHECK(adopted);
    die_here(); /* the bits of the former owner are still set */
}

static void test_adoption(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(fill_the_slots, &f));
    CHECK_EQ(ssm_registry_find_free(f.pool), SSM_NIL);
    child_died(child_start(adopt_and_die, &f));
    struct ssm_pool *adopter = fixture_attach(f.fd, 0);
    CHECK_EQ(held_by(f.pool, 0, adopter->self), 0);
    CHECK(free_blocks(f.pool, 0) + cached_blocks(f.pool, 0) == BLOCKS);
    check_all_there(adopter, 0);
    pool_end(adopter);
    CHECK_EQ(reap(f.pool).processes, 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* A thief who is stopped in a dead process's cache keeps that one from being reaped, and nothing else. */
static void test_thief_in_the_way(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    leave_a_dead_process(&f);
    struct ssm_cache *cache = ssm_cache_at(f.pool, board_get(f.board, VICTIM), 0);
    ssm_store_release_u64(&cache->thief.word, other->lock_word);
    CHECK_EQ(reap(f.pool).processes, 0);
    CHECK_EQ(held_by(f.pool, 0, board_get(f.board, VICTIM)), LIMIT);
    ssm_store_release_u64(&cache->thief.word, 0);
    CHECK_EQ(reap(f.pool).processes, 1);
    check_reaped(&f);
    pool_end(other);
    fixture_close(&f);
}

/* ---- on the way --------------------------------------------------------------------------------------------- */

static void test_try_never_waits(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    leave_a_dead_process(&f);
    CHECK_EQ(ssm_registry_lock(other, 0), 0);
    uint64_t start_ns = ssm_now_ns();
    CHECK(!ssm_recovery_try(f.pool));
    CHECK(ssm_now_ns() - start_ns < PROMPT_NS);
    ssm_registry_unlock(other);
    ssm_nap_ns(2 * MS); /* it looks once in a millisecond */
    CHECK(ssm_recovery_try(f.pool));
    ssm_nap_ns(2 * MS);
    CHECK(!ssm_recovery_try(f.pool));
    check_reaped(&f);
    pool_end(other);
    fixture_close(&f);
}

static void wait_for_a_block(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    board_set(f->board, READY, 2);
    CHECK_EQ(ssm_alloc(pool, 1024, SSM_FOREVER, &handle), 0);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void hold_all_and_wait(void *context)
{
    struct fixture *f = context;
    uint64_t handles[8];
    CHECK_EQ(ssm_alloc_many(f->pool, 1024, 8, 0, handles), 0);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, READY) == 3);
}

/* Nobody calls for a reaper: the waiter notices by itself. */
static void test_waiters_reap(void)
{
    struct fixture f = open_fixture();
    pid_t holder = child_start(hold_all_and_wait, &f);
    AWAIT(board_get(f.board, READY) == 1);
    pid_t waiter = child_start(wait_for_a_block, &f);
    AWAIT(board_get(f.board, READY) == 2);
    ssm_nap_ns(30 * MS);
    child_kill(holder);
    child_finish(waiter);
    check_all_there(f.pool, 1);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_reap();
    test_the_living_are_left_alone();
    test_attaching_reaps();
    test_let_go_but_not_listed();
    test_audit();
    test_the_reaper_dies();
    test_many_reapers_die();
    test_adoption();
    test_thief_in_the_way();
    test_try_never_waits();
    test_waiters_reap();
    return 0;
}
