/* SPDX-License-Identifier: Apache-2.0
 *
 * Allocating and freeing: classes, exhaustion, batches, stale handles, time-outs, waiters, quota. */
#include "pool_fixture.h"

#define BLOCKS 16

enum { READY, GO, SERVED }; /* steps of the board */

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

/* Holds all blocks of the first class. */
static void take_all(struct ssm_pool *pool, uint64_t handles[static BLOCKS])
{
    CHECK_EQ(ssm_alloc_many(pool, 256, BLOCKS, 0, handles), 0);
}

/* ---- classes ------------------------------------------------------------------------------------------------ */

static uint64_t block_size_for(struct ssm_pool *pool, uint64_t size)
{
    uint64_t handle;
    struct ssm_packet packet;
    CHECK_EQ(ssm_alloc(pool, size, 0, &handle), 0);
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    CHECK_EQ(packet.length, size);
    CHECK_EQ(ssm_free(pool, handle), 0);
    return packet.block_size;
}

static void test_class_boundaries(void)
{
    struct ssm_pool_options options = fixture_options();
    options.headroom = 40;
    options.tailroom = 20;
    struct fixture f = fixture_open(&options);
    uint64_t handle;
    CHECK_EQ(block_size_for(f.pool, 0), 256);
    CHECK_EQ(block_size_for(f.pool, 1), 256);
    CHECK_EQ(block_size_for(f.pool, 196), 256);
    CHECK_EQ(block_size_for(f.pool, 197), 1024);
    CHECK_EQ(block_size_for(f.pool, 964), 1024);
    CHECK_EQ(ssm_alloc(f.pool, 965, 0, &handle), -SSM_E_TOO_LARGE);
    CHECK_EQ(ssm_alloc(f.pool, UINT64_MAX, 0, &handle), -SSM_E_TOO_LARGE);
    CHECK_EQ(ssm_alloc(f.pool, UINT64_MAX - 59, SSM_FOREVER, &handle), -SSM_E_TOO_LARGE); /* the sum wraps to 0 */
    CHECK_EQ(ssm_alloc_many(f.pool, 965, 2, 0, &handle), -SSM_E_TOO_LARGE);
    fixture_close(&f);
}

/* Headroom that fills the smallest class leaves it unused, not misused. */
static void test_class_smaller_than_the_headroom(void)
{
    struct ssm_pool_options options = fixture_options();
    options.headroom = 300;
    struct fixture f = fixture_open(&options);
    CHECK_EQ(block_size_for(f.pool, 0), 1024);
    CHECK_EQ(block_size_for(f.pool, 724), 1024);
    fixture_close(&f);
}

static void test_does_not_spill(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS], more;
    take_all(f.pool, handles);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &more), -SSM_E_EXHAUSTED);
    CHECK_EQ(free_blocks(f.pool, 1), 8);
    CHECK_EQ(ssm_alloc(f.pool, 257, 0, &more), 0);
    CHECK_EQ(ssm_free(f.pool, more), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    fixture_close(&f);
}

/* ---- exhaustion, batches ------------------------------------------------------------------------------------ */

static void test_all_or_nothing(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS + 1];
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 0, 0, handles), -EINVAL);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, BLOCKS + 1, 0, handles), -EINVAL); /* can never be */
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 10, 0, handles), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 7, 0, handles + 10), -SSM_E_EXHAUSTED);
    CHECK_EQ(held_by(f.pool, 0, f.pool->self), 10);
    CHECK_EQ(listed_blocks(f.pool, 0), 6);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 6, 0, handles + 10), 0);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handles[BLOCKS]), -SSM_E_EXHAUSTED);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    fixture_close(&f);
}

/* With caches on both sides, one of them another process's that sleeps: every block can be had, and no more. */
static void idle(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    for (uint32_t round = 0; round < 2; round++)
        check_all_there(pool, 0);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
}

static void test_exhaustion_is_exact(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    pid_t children[3];
    for (int i = 0; i < 3; i++) {
        board_set(f.board, READY, 0);
        children[i] = child_start(idle, &f);
        AWAIT(board_get(f.board, READY) == 1);
        CHECK(listed_blocks(f.pool, 0) < BLOCKS); /* the child kept some */
        uint64_t handles[BLOCKS], more;
        for (int k = 0; k < BLOCKS; k++)
            CHECK_EQ(ssm_alloc(f.pool, 200, 0, &handles[k]), 0);
        CHECK_EQ(ssm_alloc(f.pool, 200, 0, &more), -SSM_E_EXHAUSTED);
        CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    }
    board_set(f.board, GO, 1);
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    check_all_there(f.pool, 0); /* they went without closing */
    fixture_close(&f);
}

static void hold_and_die(void *context)
{
    uint64_t handles[BLOCKS];
    take_all(fixture_join(context), handles);
    die_here();
}

static void test_the_dead_make_room(void)
{
    struct fixture f = open_fixture();
    uint64_t handle;
    child_died(child_start(hold_and_die, &f));
    CHECK_EQ(free_blocks(f.pool, 0), 0);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0); /* before exhaustion is reported, the dead are looked for */
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- stale handles ------------------------------------------------------------------------------------------ */

static void test_stale(void)
{
    struct fixture f = open_fixture();
    uint64_t handle, again;
    CHECK_EQ(ssm_free(f.pool, 0), -SSM_E_STALE);
    CHECK_EQ(ssm_free(f.pool, UINT64_MAX), -SSM_E_STALE);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    CHECK_EQ(ssm_free(f.pool, handle + (UINT64_C(1) << 32)), -SSM_E_STALE); /* another generation */
    CHECK_EQ(ssm_free(f.pool, handle ^ 1), -SSM_E_STALE);                   /* another block */
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &again), 0); /* the same block */
    CHECK(block_of(again) == block_of(handle) && again != handle);
    CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_free(other, again), -SSM_E_STALE); /* somebody else's */
    CHECK_EQ(ssm_free(f.pool, again), 0);
    pool_end(other);
    fixture_close(&f);
}

/* Through the cache, too: a block that was freed and handed out again is another packet. */
static void test_generations_never_repeat(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    uint64_t last[BLOCKS] = {0}, handle;
    for (int i = 0; i < 1000; i++) {
        CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
        CHECK(handle > last[block_of(handle)]);
        last[block_of(handle)] = handle;
        CHECK_EQ(ssm_free(f.pool, handle), 0);
    }
    fixture_close(&f);
}

static void test_free_many(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[4];
    CHECK_EQ(ssm_free_many(f.pool, handles, 0), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 3, 0, handles), 0);
    handles[3] = handles[1];
    CHECK_EQ(ssm_free_many(f.pool, handles, 4), -SSM_E_STALE); /* held once, given twice: nothing is freed */
    CHECK_EQ(held_by(f.pool, 0, f.pool->self), 3);
    CHECK_EQ(ssm_packet_hold(f.pool, handles[1]), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 4), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    CHECK_EQ(ssm_free_many(f.pool, handles, 1), -SSM_E_STALE);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, 2, 0, handles), 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handles[0]), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0); /* one of the two references */
    CHECK_EQ(held_by(f.pool, 0, f.pool->self), 1);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* A block that stands twice in a batch goes into the cache once. */
static void test_free_many_into_the_cache(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    uint64_t handles[2];
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handles[0]), 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handles[0]), 0);
    handles[1] = handles[0];
    ssm_cache_flush(f.pool, 0, 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0);
    CHECK_EQ(cached_blocks(f.pool, 0), 1);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- waiting ------------------------------------------------------------------------------------------------ */

static void test_time_outs(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS], more, start_ns = ssm_now_ns();
    take_all(f.pool, handles);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &more), -SSM_E_EXHAUSTED);
    CHECK(ssm_now_ns() - start_ns < PROMPT_NS);
    for (int64_t timeout_ns = 1000; timeout_ns < INT64_C(100000000); timeout_ns *= 40) {
        start_ns = ssm_now_ns();
        CHECK_EQ(ssm_alloc(f.pool, 256, timeout_ns, &more), -SSM_E_EXHAUSTED);
        CHECK(ssm_now_ns() - start_ns >= (uint64_t)timeout_ns);
        CHECK(ssm_now_ns() - start_ns < (uint64_t)timeout_ns + PROMPT_NS);
    }
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    CHECK_EQ(ssm_alloc(f.pool, 256, INT64_MAX, &more), 0); /* no overflow */
    CHECK_EQ(ssm_free(f.pool, more), 0);
    fixture_close(&f);
}

static int sleeps;

static void *before_sleep(void)
{
    sleeps++;
    return &sleeps;
}

static int give_up_after_three(void *state)
{
    CHECK(state == &sleeps);
    return sleeps == 3;
}

static void test_hooks(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other;
    uint64_t handles[BLOCKS], more;
    const struct ssm_attach_options options = {.hooks = {before_sleep, give_up_after_three}};
    CHECK_EQ(ssm_pool_attach(f.fd, &options, &other), 0);
    sleeps = 0;
    take_all(f.pool, handles);
    CHECK_EQ(ssm_alloc(other, 256, SSM_FOREVER, &more), -EINTR);
    CHECK_EQ(sleeps, 3);
    CHECK_EQ(ssm_load_relaxed_u32(&other->sleepers), 0);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(other, other->self)->waiting), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    pool_end(other);
    fixture_close(&f);
}

static void wait_for_one(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    pool->home = board_get(f->board, READY) % 4;
    ssm_add_acqrel_u32(&f->board->step[READY], 1);
    CHECK_EQ(ssm_alloc(pool, 256, INT64_C(10000000000), &handle), 0);
    ssm_add_acqrel_u32(&f->board->step[SERVED], 1);
    CHECK_EQ(ssm_free(pool, handle), 0); /* wakes the next */
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static uint64_t count_waiters(struct fixture *f)
{
    uint64_t waiters = 0;
    for (uint32_t shard_idx = 0; shard_idx < 4; shard_idx++) {
        struct ssm_shard_stats stats;
        CHECK_EQ(ssm_shard_stats(f->pool, 0, shard_idx, &stats), 0);
        waiters += stats.waiters;
    }
    return waiters;
}

/* Whatever shard it waits on, and whatever shard the block comes back to. */
static void test_woken_across_shards(void)
{
    struct fixture f = open_fixture();
    for (uint32_t i = 0; i < 16; i++) {
        uint64_t handles[BLOCKS];
        f.pool->home = i / 4;
        take_all(f.pool, handles);
        board_set(f.board, READY, i);
        pid_t child = child_start(wait_for_one, &f);
        AWAIT(count_waiters(&f) == 1);
        CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
        child_finish(child);
        CHECK_EQ(ssm_free_many(f.pool, handles + 1, BLOCKS - 1), 0);
    }
    fixture_close(&f);
}

static void test_all_waiters_are_served(void)
{
    enum { WAITERS = 8 };
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS];
    pid_t children[WAITERS];
    take_all(f.pool, handles);
    for (uint32_t i = 0; i < WAITERS; i++) {
        children[i] = child_start(wait_for_one, &f);
        AWAIT(board_get(f.board, READY) == i + 1);
    }
    AWAIT(count_waiters(&f) == WAITERS);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0); /* one block goes round */
    for (uint32_t i = 0; i < WAITERS; i++)
        child_finish(children[i]);
    CHECK_EQ(board_get(f.board, SERVED), WAITERS);
    CHECK_EQ(ssm_free_many(f.pool, handles + 1, BLOCKS - 1), 0);
    fixture_close(&f);
}

/* A waiter that is killed takes no wake-up with it. */
static void test_killed_waiter(void)
{
    struct fixture f = open_fixture();
    for (int i = 0; i < 10; i++) {
        uint64_t handles[BLOCKS];
        take_all(f.pool, handles);
        pid_t victim = child_start(wait_for_one, &f), survivor = child_start(wait_for_one, &f);
        AWAIT(count_waiters(&f) == 2);
        child_stop(victim);
        CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
        child_kill(victim);
        child_finish(survivor);
        CHECK_EQ(ssm_free_many(f.pool, handles + 1, BLOCKS - 1), 0);
        fixture_reap(f.pool);
    }
    fixture_close(&f);
}

static void free_after_a_while(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[BLOCKS];
    take_all(pool, handles);
    board_set(f->board, READY, 1);
    AWAIT(count_waiters(f) == 1);
    for (int i = 0; i < BLOCKS; i++) {
        ssm_nap_ns(MS);
        CHECK_EQ(ssm_free(pool, handles[i]), 0);
    }
    CHECK_EQ(ssm_pool_close(pool), 0);
}

/* While somebody waits for the class, what is freed goes to the shards and not into a cache. */
static void test_caches_step_back_for_waiters(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    uint64_t handles[BLOCKS];
    take_all(f.pool, handles);
    pid_t child = child_start(wait_for_one, &f);
    AWAIT(count_waiters(&f) == 1);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    CHECK_EQ(cached_blocks(f.pool, 0), 0);
    child_finish(child);
    CHECK_EQ(ssm_free_many(f.pool, handles + 1, BLOCKS - 1), 0);
    fixture_close(&f);
}

/* A batch gathers what comes back one by one. */
static void test_waiting_for_a_batch(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    uint64_t handles[BLOCKS];
    pid_t child = child_start(free_after_a_while, &f);
    AWAIT(board_get(f.board, READY) == 1);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, BLOCKS, INT64_C(10000000000), handles), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    child_finish(child);
    fixture_close(&f);
}

/* ---- names ----------------------------------------------------------------------------------------- */

/* A name is cut to its room, also where a longer one was before, and what cannot have one says so. */
static void test_names(void)
{
    struct fixture f = open_fixture();
    const struct ssm_holder *holder = ssm_holder_at(f.pool, f.pool->self);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    char longest[SSM_NAME_SIZE + 9];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    CHECK_EQ(ssm_pool_set_name(f.pool, longest), 0);
    CHECK_EQ(strlen(holder->name), SSM_NAME_SIZE - 1);
    CHECK_EQ(ssm_pool_set_name(f.pool, "camera"), 0);
    CHECK_EQ(strcmp(holder->name, "camera"), 0);
    for (size_t i = strlen("camera"); i < sizeof holder->name; i++)
        CHECK_EQ(holder->name[i], 0);
    CHECK_EQ(ssm_pool_set_name(reader, "looks only"), 0);
    CHECK_EQ(strcmp(holder->name, "camera"), 0);
    pool_end(reader);
    CHECK_EQ(ssm_pool_close(f.pool), 0);
    CHECK_EQ(ssm_pool_set_name(f.pool, "closed"), -SSM_E_CLOSED);
    ssm_pool_destroy(f.pool);
    f.pool = fixture_attach(f.fd, 0);
    fixture_close(&f);
}

/* ---- quota -------------------------------------------------------------------------------------------------- */

/* Exactly so many bytes, block sizes added up; what is refused takes nothing, and waits for nothing. */
static void test_quota(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS], more;
    CHECK_EQ(ssm_pool_set_quota(f.pool, 4 * 256), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, 5, 0, handles), -SSM_E_QUOTA);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, 4, 0, handles), 0);
    CHECK_EQ(ssm_alloc(f.pool, 1, SSM_FOREVER, &more), -SSM_E_QUOTA);
    CHECK_EQ(held_by(f.pool, 0, f.pool->self), 4);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    CHECK_EQ(ssm_alloc(f.pool, 1000, 0, &more), -SSM_E_QUOTA); /* of a larger class: too much */
    CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handles[0]), 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handles[0]), 0); /* the same block */
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    CHECK_EQ(ssm_alloc(f.pool, 1, 0, &more), -SSM_E_QUOTA);
    CHECK_EQ(ssm_pool_set_quota(f.pool, 256), 0); /* less than it holds */
    CHECK_EQ(ssm_free_many(f.pool, handles, 3), 0);
    CHECK_EQ(ssm_alloc(f.pool, 1, 0, &more), -SSM_E_QUOTA);
    CHECK_EQ(ssm_pool_set_quota(f.pool, UINT64_MAX), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, BLOCKS - 1, 0, handles), 0);
    CHECK_EQ(ssm_pool_close(f.pool), 0);
    CHECK_EQ(ssm_pool_set_quota(f.pool, 0), -SSM_E_CLOSED);
    ssm_pool_destroy(f.pool);
    f.pool = fixture_attach(f.fd, 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* What comes out of a ring counts, but is not refused; what goes into one counts no more. */
static void test_quota_and_rings(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *from = ring_open(f.pool, "ring", 4, 0), *to = ring_open(other, "ring", 4, 0);
    uint64_t handles[3], got[3], more;
    CHECK_EQ(ssm_pool_set_quota(other, 256), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, 3, 0, handles), 0); /* each attachment has its own quota */
    CHECK_EQ(ssm_ring_put(from, handles, 3, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(to, got, 3, 0), 3);
    CHECK_EQ(ssm_alloc(other, 1, 0, &more), -SSM_E_QUOTA);
    CHECK_EQ(ssm_ring_put(to, got, 2, 0, 0), 0);
    CHECK_EQ(ssm_alloc(other, 1, 0, &more), -SSM_E_QUOTA);
    CHECK_EQ(ssm_ring_put(to, got + 2, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_alloc(other, 1, 0, &more), -SSM_E_QUOTA); /* it has that one still */
    CHECK_EQ(ssm_free(other, got[2]), 0);
    CHECK_EQ(ssm_alloc(other, 1, 0, &more), 0);
    CHECK_EQ(ssm_ring_shutdown(from, 1), 0);
    ssm_ring_close(to);
    ssm_ring_close(from);
    pool_end(other);
    fixture_close(&f);
}

/* Blocks in the cache are free; the way through it asks as well. */
static void test_quota_and_the_cache(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    uint64_t handles[3];
    CHECK_EQ(ssm_pool_set_quota(f.pool, 2 * 256), 0);
    for (int round = 0; round < 20; round++) {
        CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handles[0]), 0);
        CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handles[1]), 0);
        CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handles[2]), -SSM_E_QUOTA);
        CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0);
        CHECK(cached_blocks(f.pool, 0) > 0);
    }
    CHECK_EQ(ssm_pool_set_quota(f.pool, 0), 0);
    CHECK_EQ(ssm_alloc(f.pool, 1, 0, &handles[0]), -SSM_E_QUOTA);
    fixture_close(&f);
}

static void alloc_after_fork(void *context)
{
    struct fixture *f = context;
    uint64_t handles[2];
    CHECK_EQ(ssm_alloc_many(f->pool, 1, 2, 0, handles), 0); /* it holds nothing that its parent holds */
    CHECK_EQ(ssm_alloc(f->pool, 1, 0, handles), -SSM_E_QUOTA);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void test_quota_after_a_fork(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[2];
    CHECK_EQ(ssm_pool_set_quota(f.pool, 2 * 256), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1, 2, 0, handles), 0);
    child_finish(child_start(alloc_after_fork, &f));
    CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0);
    fixture_close(&f);
}

/* ---- attachments that may not ------------------------------------------------------------------------------- */

static void check_refused(struct ssm_pool *pool, int error)
{
    uint64_t handle = 0;
    struct ssm_packet packet;
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_alloc(pool, 100, SSM_FOREVER, &handle), error);
    CHECK_EQ(ssm_alloc(pool, UINT64_MAX, 0, &handle), error);
    CHECK_EQ(ssm_alloc_many(pool, 100, 1, 0, &handle), error);
    CHECK_EQ(ssm_free(pool, handle), error);
    CHECK_EQ(ssm_free_many(pool, &handle, 1), error);
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), error);
    CHECK_EQ(ssm_packet_hold(pool, handle), error);
    CHECK_EQ(ssm_packet_pin(pool, handle), error);
    CHECK_EQ(ssm_reap(pool, &reaped), error);
}

static void test_refusals(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *closed = fixture_attach(f.fd, 0), *reader = fixture_attach(f.fd, SSM_READONLY);
    CHECK_EQ(ssm_pool_close(closed), 0);
    check_refused(closed, -SSM_E_CLOSED);
    check_refused(reader, -EACCES);
    ssm_pool_destroy(closed);
    pool_end(reader);
    fixture_close(&f);
}

/* ---- model: random calls of two attachments beside plain counting ------------------------------------------- */

#define STEPS 20000

static void test_model(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *pools[2] = {f.pool, fixture_attach(f.fd, SSM_SERIAL)};
    uint64_t handles[2][BLOCKS];
    uint32_t held[2] = {0, 0};
    for (int i = 0; i < STEPS; i++) {
        uint32_t who = (uint32_t)check_below(2), count = 1 + (uint32_t)check_below(4);
        pools[who]->home = (uint32_t)check_below(4);
        if (check_below(2)) {
            int wanted = held[0] + held[1] + count <= BLOCKS ? 0 : -SSM_E_EXHAUSTED;
            CHECK_EQ(ssm_alloc_many(pools[who], 256, count, 0, handles[who] + held[who]), wanted);
            held[who] += wanted == 0 ? count : 0;
        } else if (held[who] >= count) {
            held[who] -= count;
            CHECK_EQ(ssm_free_many(pools[who], handles[who] + held[who], count), 0);
        }
    }
    for (int who = 0; who < 2; who++)
        CHECK_EQ(ssm_free_many(pools[who], handles[who], held[who]), 0);
    pool_end(pools[1]);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    check_seed();
    test_class_boundaries();
    test_class_smaller_than_the_headroom();
    test_does_not_spill();
    test_all_or_nothing();
    test_exhaustion_is_exact();
    test_the_dead_make_room();
    test_stale();
    test_generations_never_repeat();
    test_free_many();
    test_free_many_into_the_cache();
    test_time_outs();
    test_hooks();
    test_woken_across_shards();
    test_all_waiters_are_served();
    test_killed_waiter();
    test_caches_step_back_for_waiters();
    test_waiting_for_a_batch();
    test_names();
    test_quota();
    test_quota_and_rings();
    test_quota_and_the_cache();
    test_quota_after_a_fork();
    test_refusals();
    test_model();
    return 0;
}
