/* SPDX-License-Identifier: Apache-2.0
 *
 * Whoever waits for many is served in time, and holds nobody back for long: alive, stopped or dead. */
#include "pool_fixture.h"

#include "reservation.h"

#define BLOCKS 16
#define SMALL  3 /* processes that take one block after the other */

enum { GO_ON, ROUNDS, LARGE_DONE, STOPPED }; /* of the board */

static const int64_t PATIENT = INT64_C(20000000000);

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

/* Takes half of what is there one by one and gives it back, for as long as it may. */
static void churn(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[BLOCKS / 2];
    while (board_get(f->board, GO_ON)) {
        int taken = 0;
        for (; taken < BLOCKS / 2 && ssm_alloc(pool, 1, 100 * (int64_t)MS, &handles[taken]) == 0; taken++) {}
        ssm_nap_ns(MS / 2);
        for (int i = 0; i < taken; i++)
            CHECK_EQ(ssm_free(pool, handles[i]), 0);
        ssm_add_acqrel_u32(&f->board->step[ROUNDS], 1);
    }
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void take_many(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[BLOCKS];
    CHECK_EQ(ssm_alloc_many(pool, 1, BLOCKS, PATIENT, handles), 0);
    CHECK_EQ(ssm_free_many(pool, handles, BLOCKS), 0);
    ssm_add_acqrel_u32(&f->board->step[LARGE_DONE], 1);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void start_all(struct fixture *f, void (*run)(void *context), int count, pid_t *children)
{
    board_set(f->board, GO_ON, 1);
    for (int i = 0; i < count; i++)
        children[i] = child_start(run, f);
}

static void finish_all(int count, const pid_t *children)
{
    for (int i = 0; i < count; i++)
        child_finish(children[i]);
}

/* ---- served ------------------------------------------------------------------------------------------------- */

static void test_one_that_wants_all(void)
{
    struct fixture f = open_fixture();
    pid_t children[SMALL];
    uint64_t handles[BLOCKS];
    start_all(&f, churn, SMALL, children);
    for (int i = 0; i < 3; i++) {
        AWAIT(board_get(f.board, ROUNDS) > 20);
        CHECK_EQ(ssm_alloc_many(f.pool, 1, BLOCKS, PATIENT, handles), 0);
        CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
        board_set(f.board, ROUNDS, 0);
    }
    board_set(f.board, GO_ON, 0);
    finish_all(SMALL, children);
    fixture_close(&f);
}

/* More than have a place in the queue. */
static void test_several_that_want_all(void)
{
    enum { LARGE = SSM_ASKING_MAX + 2 };
    struct fixture f = open_fixture();
    pid_t children[SMALL], large[LARGE];
    start_all(&f, churn, SMALL, children);
    start_all(&f, take_many, LARGE, large);
    finish_all(LARGE, large);
    CHECK_EQ(board_get(f.board, LARGE_DONE), LARGE);
    CHECK_EQ(ssm_reservations_count(f.pool, 0), 0);
    board_set(f.board, GO_ON, 0);
    finish_all(SMALL, children);
    fixture_close(&f);
}

/* The first class of that pool is of no interest: what is asked for is in the arena. */
static void churn_in_the_arena(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[4];
    while (board_get(f->board, GO_ON)) {
        int taken = 0;
        for (; taken < 4 && ssm_alloc(pool, 60000, 100 * (int64_t)MS, &handles[taken]) == 0; taken++) {}
        ssm_nap_ns(MS / 2);
        for (int i = 0; i < taken; i++)
            CHECK_EQ(ssm_free(pool, handles[i]), 0);
        ssm_add_acqrel_u32(&f->board->step[ROUNDS], 1);
    }
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void test_one_that_wants_all_of_the_arena(void)
{
    struct ssm_pool_options options = fixture_options();
    options.arena_bytes = 1 << 19;
    struct fixture f = fixture_open(&options);
    pid_t children[SMALL];
    uint64_t handle;
    start_all(&f, churn_in_the_arena, SMALL, children);
    AWAIT(board_get(f.board, ROUNDS) > 20);
    CHECK_EQ(ssm_alloc(f.pool, 1 << 19, PATIENT, &handle), 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    board_set(f.board, GO_ON, 0);
    finish_all(SMALL, children);
    fixture_close(&f);
}

/* ---- what it costs the others ------------------------------------------------------------------------------- */

/* What it waits for, they alone could free: its turns end. */
static void test_one_that_cannot_be_served(void)
{
    struct fixture f = open_fixture();
    uint64_t kept = fixture_alloc(f.pool, 1), handle;
    pid_t large = child_start(take_many, &f);
    AWAIT(ssm_turn_is_taken(f.pool, 0));
    CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handle), -SSM_E_EXHAUSTED); /* reserved */
    for (int i = 0; i < 10; i++) {
        CHECK_EQ(ssm_alloc(f.pool, 1, 4000 * (int64_t)MS, &handle), 0);
        CHECK_EQ(ssm_free(f.pool, handle), 0);
        ssm_nap_ns(20 * MS);
    }
    struct ssm_class_stats stats;
    CHECK_EQ(ssm_class_stats(f.pool, 0, &stats), 0);
    CHECK_EQ(stats.large_waiters, 1);
    CHECK_EQ(ssm_free(f.pool, kept), 0);
    child_finish(large);
    CHECK_EQ(ssm_class_stats(f.pool, 0, &stats), 0);
    CHECK_EQ(stats.large_waiters, 0);
    fixture_close(&f);
}

static void test_one_that_is_stopped_in_its_turn(void)
{
    struct fixture f = open_fixture();
    uint64_t kept = fixture_alloc(f.pool, 1), handle, handles[BLOCKS];
    pid_t large = child_start(take_many, &f);
    AWAIT(ssm_turn_is_taken(f.pool, 0));
    child_stop(large);
    CHECK_EQ(ssm_alloc(f.pool, 1, 4000 * (int64_t)MS, &handle), 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_free(f.pool, kept), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, BLOCKS, 4000 * (int64_t)MS, handles), 0); /* its elder stands still */
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    child_continue(large);
    child_finish(large);
    fixture_close(&f);
}

static void test_one_that_is_killed_in_its_turn(void)
{
    struct fixture f = open_fixture();
    uint64_t kept = fixture_alloc(f.pool, 1), handle;
    for (int i = 0; i < 3; i++) {
        pid_t large = child_start(take_many, &f);
        AWAIT(ssm_turn_is_taken(f.pool, 0));
        child_kill(large);
        if (i == 2)
            fixture_reap(f.pool);
        CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handle), 0); /* at once */
        CHECK(!ssm_turn_is_taken(f.pool, 0));
        CHECK_EQ(ssm_free(f.pool, handle), 0);
    }
    CHECK_EQ(ssm_reservations_count(f.pool, 0), 0);
    CHECK_EQ(ssm_free(f.pool, kept), 0);
    fixture_close(&f);
}

/* ---- words that somebody else wrote -------------------------------------------------------------------------- */

static void test_scribbled_words(void)
{
    struct fixture f = open_fixture();
    struct ssm_reservations *of = &ssm_class_at(f.pool, 0)->reservations;
    const uint64_t soon_us = ssm_now_ns() / 1000 + 500000;
    const uint64_t words[] = {
        UINT64_MAX, 1, UINT64_C(1) << 63 | 2, soon_us << 13 | 4000, soon_us << 13 | 9, (soon_us + 10000000) << 13 | 1,
    };
    for (unsigned i = 0; i < sizeof words / sizeof words[0]; i++) {
        uint64_t handles[BLOCKS], kept;
        ssm_store_release_u64(&of->turn, words[i]);
        for (unsigned k = 0; k < SSM_ASKING_MAX; k++)
            ssm_store_release_u64(&of->asking[k], words[(i + k) % 6]);
        CHECK_EQ(ssm_alloc(f.pool, 1, 0, &kept), 0);
        CHECK_EQ(ssm_alloc_many(f.pool, 1, BLOCKS, 300 * (int64_t)MS, handles), -SSM_E_EXHAUSTED);
        CHECK_EQ(ssm_free(f.pool, kept), 0);
    }
    fixture_close(&f);
}

/* ---- a fork in the middle of the call ------------------------------------------------------------------------ */

static struct ssm_pool *forking;
static pid_t forked = -1;

/* As a signal handler may, which the hook runs. The child leaves the call, and with it nothing of its parent's. */
static int fork_once(void *state)
{
    (void)state;
    if (forked != -1)
        return 0;
    fflush(NULL);
    forked = fork();
    if (forked == 0)
        return 1;
    child_finish(forked);
    CHECK_EQ(ssm_reservations_count(forking, 0), 1);
    return 0;
}

static void test_fork_in_the_middle(void)
{
    struct fixture f = open_fixture();
    uint64_t kept = fixture_alloc(f.pool, 1), handles[BLOCKS];
    forking = f.pool;
    f.pool->hooks.after = fork_once;
    int result = ssm_alloc_many(f.pool, 1, BLOCKS, 100 * (int64_t)MS, handles);
    if (forked == 0) {
        CHECK_EQ(result, -EINTR);
        CHECK_EQ(ssm_pool_close(f.pool), 0);
        _exit(0);
    }
    CHECK_EQ(result, -SSM_E_EXHAUSTED);
    CHECK(forked > 0);
    CHECK_EQ(ssm_reservations_count(f.pool, 0), 0);
    CHECK_EQ(ssm_free(f.pool, kept), 0);
    fixture_close(&f);
}

int main(void)
{
    test_one_that_wants_all();
    test_several_that_want_all();
    test_one_that_wants_all_of_the_arena();
    test_one_that_cannot_be_served();
    test_one_that_is_stopped_in_its_turn();
    test_one_that_is_killed_in_its_turn();
    test_scribbled_words();
    test_fork_in_the_middle();
    return 0;
}
