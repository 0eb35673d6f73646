/* SPDX-License-Identifier: Apache-2.0
 *
 * Shards: blocks migrate, steals reach the last block, lists that lie are rebuilt, death while the lock is held, and
 * a shard whose owner is stopped. */
#include "pool_fixture.h"

#define BLOCKS 16

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

static void fill_list(struct fixture *f, uint32_t shard_idx, uint32_t count)
{
    uint64_t handles[BLOCKS];
    uint32_t home = f->pool->home;
    f->pool->home = shard_idx;
    CHECK_EQ(ssm_alloc_many(f->pool, 256, count, 0, handles), 0);
    CHECK_EQ(ssm_free_many(f->pool, handles, count), 0);
    f->pool->home = home;
}

/* ---- migration, stealing ------------------------------------------------------------------------------------ */

static void test_migration(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[5];
    f.pool->home = 2;
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS); /* all start there */
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 5, 0, handles), 0);
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS - 5);
    for (int i = 0; i < 5; i++)
        CHECK_EQ(ssm_load_relaxed_u32(&ssm_block_at(f.pool, block_of(handles[i]))->home), 2);
    CHECK_EQ(ssm_free_many(f.pool, handles, 5), 0);
    CHECK_EQ(shard_free(f.pool, 0, 2), 5);
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS - 5);
    struct ssm_shard_stats stats;
    CHECK_EQ(ssm_shard_stats(f.pool, 0, 0, &stats), 0);
    CHECK(stats.allocs == 5 && stats.steals == 5 && stats.frees == 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 5, 0, handles), 0); /* its own shard first */
    CHECK_EQ(shard_free(f.pool, 0, 2), 0);
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS - 5);
    CHECK_EQ(ssm_free_many(f.pool, handles, 5), 0);
    CHECK_EQ(ssm_shard_stats(f.pool, 0, 2, &stats), 0);
    CHECK(stats.allocs == 5 && stats.steals == 0 && stats.frees == 10);
    fixture_close(&f);
}

/* Freed by somebody else, a block goes home all the same. */
static void test_goes_home(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0), *others = ring_open(other, "ring", 4, 0);
    uint64_t handle;
    f.pool->home = 1;
    other->home = 3;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(others, &handle, 1, 0), 1);
    CHECK_EQ(ssm_free(other, handle), 0);
    CHECK_EQ(shard_free(f.pool, 0, 1), 1);
    CHECK_EQ(shard_free(f.pool, 0, 3), 0);
    ssm_ring_close(ring);
    ssm_ring_close(others);
    pool_end(other);
    fixture_close(&f);
}

static void test_steals_the_last_block(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS], more;
    for (uint32_t shard_idx = 1; shard_idx < 4; shard_idx++)
        fill_list(&f, shard_idx, 4);
    for (uint32_t home = 0; home < 4; home++) {
        f.pool->home = home;
        for (int i = 0; i < BLOCKS; i++)
            CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handles[i]), 0);
        CHECK_EQ(ssm_alloc(f.pool, 256, 0, &more), -SSM_E_EXHAUSTED);
        CHECK_EQ(listed_blocks(f.pool, 0), 0);
        CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    }
    fixture_close(&f);
}

static void test_take_and_give(void)
{
    struct fixture f = open_fixture();
    uint32_t blocks[BLOCKS + 1];
    uint32_t generation = ssm_load_relaxed_u32(&ssm_block_at(f.pool, 0)->generation);
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, 0, 0, blocks), 0);
    CHECK_EQ(ssm_shard_take(f.pool, 0, 1, 3, 0, blocks), 0);
    f.pool->home = 2;
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, BLOCKS + 1, 0, blocks), BLOCKS); /* what is there */
    for (uint32_t i = 0; i < BLOCKS; i++)
        CHECK_EQ(ssm_load_relaxed_u32(&ssm_block_at(f.pool, i)->home), 2);
    CHECK_EQ(blocks[0], 0); /* lowest first */
    CHECK(ssm_load_relaxed_u32(&ssm_block_at(f.pool, 0)->generation) != generation);
    for (uint32_t i = 0; i < BLOCKS; i++) /* to all four shards in one go */
        ssm_store_relaxed_u32(&ssm_block_at(f.pool, i)->home, i % 4);
    CHECK_EQ(ssm_shard_give(f.pool, 0, blocks, BLOCKS, 0), 0);
    for (uint32_t shard_idx = 0; shard_idx < 4; shard_idx++)
        CHECK_EQ(shard_free(f.pool, 0, shard_idx), 4);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    fixture_close(&f);
}

/* ---- lists that lie ----------------------------------------------------------------------------------------- */

static struct ssm_u32 *entry(struct fixture *f, uint32_t i)
{
    return &ssm_list_at(f->pool, 0, 0)[i];
}

static void count_too_large(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_shard_at(f->pool, 0, 0)->free_count, BLOCKS + 1);
}

static void count_far_too_large(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_shard_at(f->pool, 0, 0)->free_count, UINT32_MAX);
}

static void garbage_index(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, BLOCKS - 1), UINT32_MAX);
}

static void index_of_another_class(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, BLOCKS - 1), BLOCKS);
}

static void same_index_twice(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, BLOCKS - 2), ssm_load_relaxed_u32(entry(f, BLOCKS - 1)));
}

static void claimed_but_listed(struct fixture *f)
{
    ssm_block_claim(ssm_block_at(f->pool, 0), 40);
}

static void not_marked_as_listed(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 0)->listed, 0);
}

static void home_is_elsewhere(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 0)->listed, 0);
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 0)->home, 3);
}

static void home_is_no_shard(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 0)->listed, 0);
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 0)->home, UINT32_MAX);
}

/* Blocks are taken one by one, so that the fault is met at the top of the list. However it is: nothing is handed out
 * twice, nothing that is held, and after a reaping (which audits) all is there. */
static void check_lie(void (*lie)(struct fixture *f))
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS + 1];
    uint32_t count = 0;
    lie(&f);
    bool held = ssm_block_has(ssm_block_at(f.pool, 0), 40);
    while (count <= BLOCKS && ssm_alloc(f.pool, 256, 0, &handles[count]) == 0) {
        CHECK(ssm_block_is_exactly(f.pool, ssm_block_at(f.pool, block_of(handles[count])), f.pool->self));
        for (uint32_t i = 0; i < count; i++)
            CHECK(block_of(handles[i]) != block_of(handles[count]));
        count++;
    }
    CHECK(count >= BLOCKS - 1 && count <= BLOCKS);
    CHECK_EQ(ssm_block_has(ssm_block_at(f.pool, 0), 40), held); /* who had it has it */
    CHECK_EQ(ssm_free_many(f.pool, handles, count), 0);
    ssm_block_remove(ssm_block_at(f.pool, 0), 40);
    fixture_reap(f.pool);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

static void test_lies(void)
{
    EXPECT_DAMAGE;
    check_lie(count_too_large);
    check_lie(count_far_too_large);
    check_lie(garbage_index);
    check_lie(index_of_another_class);
    check_lie(same_index_twice);
    check_lie(claimed_but_listed);
    check_lie(not_marked_as_listed);
    check_lie(home_is_elsewhere);
    check_lie(home_is_no_shard);
}

/* A list that claims to be full has no room for a block that is given back. */
static void test_give_to_a_full_list(void)
{
    struct fixture f = open_fixture();
    uint64_t handle;
    f.pool->home = 0;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    ssm_store_relaxed_u32(&ssm_shard_at(f.pool, 0, 0)->free_count, BLOCKS);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- death while the lock is held --------------------------------------------------------------------------- */

#define TAKEN 3

static void prepare_lists(struct fixture *f)
{
    fill_list(f, 1, 6);
    fill_list(f, 2, 2);
}

/* ssm_shard_take(), store by store. */
static void take_slowly(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_shard *shard = ssm_shard_at(pool, 0, 1);
    uint32_t count = shard_free(pool, 0, 1);
    struct ssm_block *blocks[TAKEN];
    CHECK_EQ(ssm_shard_lock(pool, 0, 1, 0), 0);
    for (uint32_t i = 0; i < TAKEN; i++) {
        blocks[i] = ssm_block_at(pool, ssm_load_relaxed_u32(&ssm_list_at(pool, 0, 1)[count - 1 - i]));
        step(f);
        ssm_store_release_u32(&blocks[i]->listed, 0);
        step(f);
        ssm_store_release_u32(&blocks[i]->generation, ssm_load_relaxed_u32(&blocks[i]->generation) + 1);
        step(f);
        ssm_block_claim(blocks[i], pool->self);
        step(f);
        ssm_store_release_u32(&blocks[i]->generation, ssm_load_relaxed_u32(&blocks[i]->generation) + 1);
    }
    step(f);
    ssm_store_release_u32(&shard->free_count, count - TAKEN);
    for (uint32_t i = 0; i < TAKEN; i++) {
        step(f);
        ssm_store_release_u32(&blocks[i]->home, 3);
    }
    step(f);
    ssm_lock_release(&shard->lock);
}

/* ssm_shard_give(), store by store. */
static void give_slowly(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_shard *shard = ssm_shard_at(pool, 0, 1);
    uint32_t blocks[TAKEN];
    pool->home = 1;
    CHECK_EQ(ssm_shard_take(pool, 0, 1, TAKEN, 0, blocks), TAKEN);
    CHECK_EQ(ssm_shard_lock(pool, 0, 1, 0), 0);
    for (uint32_t i = 0; i < TAKEN; i++) {
        uint32_t count = ssm_load_relaxed_u32(&shard->free_count);
        struct ssm_block *block = ssm_block_at(pool, blocks[i]);
        step(f);
        ssm_block_remove(block, pool->self);
        step(f);
        ssm_store_release_u32(&block->listed, 1);
        step(f);
        ssm_store_relaxed_u32(&ssm_list_at(pool, 0, 1)[count], blocks[i]);
        step(f);
        ssm_store_release_u32(&shard->free_count, count + 1);
    }
    step(f);
    ssm_lock_release(&shard->lock);
}

/* A rebuild that is not finished, with the list in the worst order. */
static void rebuild_slowly(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_shard *shard = ssm_shard_at(pool, 0, 1);
    CHECK_EQ(ssm_shard_lock(pool, 0, 1, 0), 0);
    step(f);
    ssm_store_release_u32(&shard->free_count, 0);
    for (uint32_t i = BLOCKS, count = 0; i-- > 0;) {
        if (ssm_load_relaxed_u32(&ssm_block_at(pool, i)->home) != 1)
            continue;
        step(f);
        ssm_store_relaxed_u32(&ssm_list_at(pool, 0, 1)[count], i);
        step(f);
        ssm_store_release_u32(&shard->free_count, ++count);
    }
    step(f);
    ssm_lock_release(&shard->lock);
}

/* The list is right as soon as the lock is taken over; the dead one's blocks come with the reaper. */
static void check_taken_over(struct fixture *f)
{
    CHECK_EQ(ssm_shard_lock(f->pool, 0, 1, 0), 0);
    ssm_lock_release(&ssm_shard_at(f->pool, 0, 1)->lock);
    CHECK_EQ(listed_blocks(f->pool, 0), free_blocks(f->pool, 0));
    CHECK(listed_blocks(f->pool, 0) >= BLOCKS - TAKEN);
    fixture_check(f->pool);
    fixture_reap(f->pool);
    CHECK_EQ(listed_blocks(f->pool, 0), BLOCKS);
    check_all_there(f->pool, 0);
}

/* Without a look at the shard before: allocating finds the dead. */
static void check_allocated(struct fixture *f)
{
    check_all_there(f->pool, 0);
    CHECK_EQ(listed_blocks(f->pool, 0), BLOCKS);
}

static void test_deaths(void)
{
    void (*const runs[])(void *) = {take_slowly, give_slowly, rebuild_slowly};
    for (size_t i = 0; i < 3; i++) {
        struct deaths d = {.options = fixture_options(), .prepare = prepare_lists, .run = runs[i]};
        d.after = check_taken_over;
        CHECK(die_everywhere(&d) > TAKEN * 3);
        d.after = check_allocated;
        CHECK(die_everywhere(&d) > TAKEN * 3);
    }
}

static void lock_and_die(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_shard_lock(fixture_join(f), 0, 2, 0), 0);
    die_here();
}

static void test_recover(void)
{
    struct fixture f = open_fixture();
    struct ssm_shard_stats stats;
    CHECK_EQ(ssm_shard_recover(f.pool, 0, 2), 0);
    child_died(child_start(lock_and_die, &f));
    CHECK_EQ(ssm_shard_recover(f.pool, 0, 2), 1);
    CHECK_EQ(ssm_shard_recover(f.pool, 0, 2), 0);
    CHECK_EQ(ssm_shard_stats(f.pool, 0, 2, &stats), 0);
    CHECK_EQ(stats.recoveries, 1);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- settling ----------------------------------------------------------------------------------------------- */

static void test_settle(void)
{
    struct fixture f = open_fixture();
    uint32_t blocks[1];
    ssm_block_settle(f.pool, 0); /* listed already */
    CHECK_EQ(shard_free(f.pool, 0, 0), BLOCKS);
    f.pool->home = 3;
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, 1, 0, blocks), 1);
    ssm_block_settle(f.pool, blocks[0]); /* held */
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - 1);
    ssm_block_remove(ssm_block_at(f.pool, blocks[0]), f.pool->self);
    for (int i = 0; i < 3; i++) {
        ssm_block_settle(f.pool, blocks[0]);
        CHECK_EQ(shard_free(f.pool, 0, 3), 1);
        CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS);
    }
    struct ssm_shard_stats stats;
    CHECK_EQ(ssm_shard_stats(f.pool, 0, 3, &stats), 0);
    CHECK(stats.frees == 1 && stats.allocs == 0);
    CHECK(!ssm_class_settle(f.pool, 0)); /* nothing is marked */
    fixture_close(&f);
}

static void lock_and_stay(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    CHECK_EQ(ssm_shard_lock(pool, 0, 1, 0), 0);
    board_set(f->board, 0, 1);
    AWAIT(board_get(f->board, 0) == 2);
    ssm_lock_release(&ssm_shard_at(pool, 0, 1)->lock);
    board_set(f->board, 0, 3);
    AWAIT(board_get(f->board, 0) == 4);
}

/* With the owner of shard 1's lock stopped: its blocks are out of reach, the others' are not; what would go home
 * there goes elsewhere; what must go home there is marked, and found later. */
static void check_progress(struct fixture *f, uint32_t block_idx)
{
    uint64_t handles[BLOCKS];
    f->pool->home = 1;
    for (int round = 0; round < 20; round++) {
        CHECK_EQ(ssm_alloc_many(f->pool, 256, 8, 0, handles), 0);
        CHECK_EQ(ssm_free_many(f->pool, handles, 8), 0);
    }
    CHECK_EQ(ssm_alloc_many(f->pool, 256, BLOCKS, 0, handles), -SSM_E_EXHAUSTED);
    ssm_block_remove(ssm_block_at(f->pool, block_idx), f->pool->self); /* its home is 1 */
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_class_at(f->pool, 0)->unsettled), 0);
    ssm_block_settle(f->pool, block_idx);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_class_at(f->pool, 0)->unsettled), 1);
    fixture_check(f->pool); /* it is not lost: it is marked */
}

static void test_stopped_owner(void)
{
    struct fixture f = open_fixture();
    uint32_t block_idx;
    fill_list(&f, 1, 4);
    f.pool->home = 1;
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, 1, 0, &block_idx), 1);
    pid_t child = child_start(lock_and_stay, &f);
    AWAIT(board_get(f.board, 0) == 1);
    child_stop(child);
    check_progress(&f, block_idx);
    child_continue(child);
    board_set(f.board, 0, 2);
    AWAIT(board_get(f.board, 0) == 3);
    check_all_there(f.pool, 0);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_class_at(f.pool, 0)->unsettled), 0);
    board_set(f.board, 0, 4);
    child_finish(child);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- signalling --------------------------------------------------------------------------------------------- */

enum { ASLEEP, STOP }; /* steps of the board; its values: how often each shard's sleeper was woken */

static void sleep_on_shard(struct fixture *f, uint32_t shard_idx)
{
    struct ssm_event *event = &ssm_shard_at(f->pool, 0, shard_idx)->event;
    while (!board_get(f->board, STOP)) {
        uint32_t seen = ssm_event_announce(event);
        ssm_class_announce(f->pool, 0);
        ssm_add_acqrel_u32(&f->board->step[ASLEEP], 1);
        uint64_t until_ns = ssm_now_ns() + 2000 * MS;
        ssm_event_sleep(event, seen, until_ns);
        CHECK(ssm_now_ns() < until_ns);
        ssm_add_acqrel_u32(&f->board->step[ASLEEP], UINT32_MAX); /* before it is counted as woken */
        ssm_add_acqrel_u64(&f->board->value[shard_idx], 1);
    }
}

/* clang-format off */
static void sleep_on_first(void *context) { sleep_on_shard(context, 0); }
static void sleep_on_second(void *context) { sleep_on_shard(context, 1); }
static void sleep_on_last(void *context) { sleep_on_shard(context, 3); }
/* clang-format on */

static uint64_t wake_ups(const struct fixture *f)
{
    uint64_t sum = 0;
    for (int i = 0; i < 4; i++)
        sum += ssm_load_acquire_u64(&f->board->value[i]);
    return sum;
}

/* One block at a time, and three sleepers wait on three shards again and again: each gets its turn. */
static void test_signals_go_round(void)
{
    void (*const runs[])(void *) = {sleep_on_first, sleep_on_second, sleep_on_last};
    struct fixture f = open_fixture();
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        children[i] = child_start(runs[i], &f);
    for (uint64_t round = 0; round < 40; round++) {
        AWAIT(board_get(f.board, ASLEEP) == 3);
        ssm_nap_ns(MS);
        const uint64_t before = wake_ups(&f);
        ssm_class_signal(f.pool, 0, 1);
        AWAIT(wake_ups(&f) > before); /* or the next signal could go to the same sleeper, which is on its way */
    }
    for (int i = 0; i < 4; i++)
        CHECK(i == 2 || ssm_load_acquire_u64(&f.board->value[i]) >= 8);
    board_set(f.board, STOP, 1);
    for (int i = 0; i < 20; i++) {
        ssm_class_signal(f.pool, 0, UINT32_MAX);
        ssm_nap_ns(MS);
    }
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_migration();
    test_goes_home();
    test_steals_the_last_block();
    test_take_and_give();
    test_lies();
    test_give_to_a_full_list();
    test_deaths();
    test_recover();
    test_settle();
    test_stopped_owner();
    test_signals_go_round();
    return 0;
}
