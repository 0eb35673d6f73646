/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm_check(): finds each contradiction that is put there, says which, and says nothing of a pool that is at work. */
#include "pool_fixture.h"

#define BLOCKS 16

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

struct wanted {
    const char *part;
    int         found;
};

static void look_for(void *context, const char *sentence)
{
    struct wanted *wanted = context;
    wanted->found += strstr(sentence, wanted->part) != NULL;
}

/* A pool as everybody would have it, but for what `seed` does: that must be found. */
static void check_found(void (*seed)(struct fixture *f), const char *part)
{
    struct fixture f = open_fixture();
    struct wanted wanted = {part, 0};
    f.pool->home = 0;
    fixture_check(f.pool);
    seed(&f);
    int count = ssm_check(f.pool, look_for, &wanted);
    if (wanted.found == 0)
        fprintf(stderr, "not found: \"%s\"; %d findings\n", part, count);
    CHECK(wanted.found > 0);
    ssm_pool_destroy(f.pool);
    close(f.fd);
    board_drop(f.board);
}

static struct ssm_u32 *entry(struct fixture *f, uint32_t i)
{
    return &ssm_list_at(f->pool, 0, 0)[i];
}

static uint64_t alloc(struct fixture *f)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f->pool, 256, 0, &handle), 0);
    return handle;
}

/* ---- lists -------------------------------------------------------------------------------------------------- */

static void count_too_large(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_shard_at(f->pool, 0, 0)->free_count, BLOCKS + 1);
}

static void count_too_small(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_shard_at(f->pool, 0, 0)->free_count, BLOCKS - 1);
}

static void another_class(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, 3), BLOCKS);
}

static void garbage_entry(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, 3), UINT32_MAX);
}

static void twice(struct fixture *f)
{
    ssm_store_relaxed_u32(entry(f, 3), ssm_load_relaxed_u32(entry(f, 4)));
}

static void home_elsewhere(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 5)->home, 2);
}

static void not_marked(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 5)->listed, 0);
}

static void listed_and_held(struct fixture *f)
{
    ssm_block_claim(ssm_block_at(f->pool, 5), f->pool->self);
}

/* ---- blocks ------------------------------------------------------------------------------------------------- */

static void no_such_home(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, 5)->home, 4);
}

static void start_beyond(struct fixture *f)
{
    ssm_store_relaxed_u64(&ssm_block_at(f->pool, block_of(alloc(f)))->start, 257);
}

static void length_beyond(struct fixture *f)
{
    ssm_store_relaxed_u64(&ssm_block_at(f->pool, block_of(alloc(f)))->length, UINT64_MAX);
}

static void held_by_no_one(struct fixture *f)
{
    ssm_block_add(f->pool, ssm_block_at(f->pool, block_of(alloc(f))), 17);
}

static void lost(struct fixture *f)
{
    ssm_block_remove(ssm_block_at(f->pool, block_of(alloc(f))), f->pool->self);
}

static void marked_but_held(struct fixture *f)
{
    ssm_store_relaxed_u32(&ssm_block_at(f->pool, block_of(alloc(f)))->listed, 1);
}

/* ---- rings -------------------------------------------------------------------------------------------------- */

static struct ssm_ring_shared *make_ring(struct fixture *f)
{
    ssm_ring_close(ring_open(f->pool, "ring", 4, 0));
    return ssm_ring_shared_at(f->pool, ring_id(f->pool, "ring"));
}

static void no_ring(struct fixture *f)
{
    make_ring(f)->capacity = 0;
}

static void too_deep(struct fixture *f)
{
    ssm_store_relaxed_u64(&make_ring(f)->producer.index, 5);
}

static void tail_before_head(struct fixture *f)
{
    ssm_store_relaxed_u64(&make_ring(f)->consumer.index, 1);
}

static void stray(struct fixture *f)
{
    make_ring(f);
    ssm_block_add(f->pool, ssm_block_at(f->pool, block_of(alloc(f))), ring_id(f->pool, "ring"));
}

static void test_findings(void)
{
    check_found(count_too_large, "17 free blocks of 16");
    check_found(count_too_small, "15 blocks on its list, 16 say they are");
    check_found(another_class, "holds block 16 of another class");
    check_found(garbage_entry, "holds block 4294967295 of another class");
    check_found(twice, "on the list of shard 0 twice");
    check_found(home_elsewhere, "block 5: on the list of shard 0, but its descriptor says otherwise");
    check_found(not_marked, "block 5: on the list of shard 0, but its descriptor says otherwise");
    check_found(listed_and_held, "block 5: on the list of shard 0, but somebody holds it");
    check_found(listed_and_held, "block 5: listed as free, but somebody holds it");
    check_found(no_such_home, "block 5: its home is no shard");
    check_found(start_beyond, "its window reaches beyond it");
    check_found(length_beyond, "its window reaches beyond it");
    check_found(held_by_no_one, "held by a holder slot that nobody has");
    check_found(lost, "lost: nobody holds it and no list has it");
    check_found(marked_but_held, "listed as free, but somebody holds it");
    check_found(no_ring, "cannot be a ring");
    check_found(too_deep, "5 packets in 4 places");
    check_found(tail_before_head, "packets in 4 places");
    check_found(stray, "1 blocks are the ring's, but are not queued in it");
}

static void test_without_a_reporter(void)
{
    struct fixture f = open_fixture();
    lost(&f);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* What a dead process left is the reaper's business, not a contradiction. */
static void hold_and_die(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    alloc(f);
    CHECK_EQ(ssm_shard_lock(f->pool, 0, 0, 0), 0);
    die_here();
}

static void test_the_dead_are_no_finding(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(hold_and_die, &f));
    fixture_check(f.pool);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- a pool at work ----------------------------------------------------------------------------------------- */

enum { STOP };

static void work(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", 5, 0), *shared = ring_open(pool, "shared", 5, SSM_ONE_CONSUMER);
    uint64_t handles[3];
    while (board_get(f->board, STOP) == 0) {
        if (ssm_alloc_many(pool, 256, 3, 0, handles) == 0) {
            (void)ssm_packet_append(pool, handles[0], 0, NULL);
            if (ssm_ring_put(shared, handles, 1, SSM_KEEP, 0) != 0 || ssm_ring_put(ring, handles, 2, 0, 0) != 0)
                CHECK_EQ(ssm_free_many(pool, handles, 2), 0);
            CHECK_EQ(ssm_free(pool, handles[2]), 0);
        }
        int got = ssm_ring_get(ring, handles, 3, 0);
        if (got > 0)
            CHECK_EQ(ssm_free_many(pool, handles, (uint32_t)got), 0);
        got = ssm_ring_get(shared, handles, 1, 0);
        if (got > 0)
            CHECK_EQ(ssm_free(pool, handles[0]), 0);
    }
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void test_busy_pool(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        children[i] = child_start(work, &f);
    for (int round = 0; round < 12; round++) {
        fixture_check(f.pool);
        fixture_check(reader);
        if (round % 3 == 2) { /* one dies at work, and another takes its place */
            child_kill(children[round % 3]);
            fixture_check(f.pool);
            children[round % 3] = child_start(work, &f);
        }
    }
    board_set(f.board, STOP, 1);
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    fixture_reap(f.pool);
    fixture_check(f.pool);
    pool_end(reader);
    fixture_close(&f);
}

/* ---- ... whose blocks go from list to list --------------------------------------------------------------------- */

enum { MOVERS = 4 };
#define MOVING_NS (700 * MS)

/* Takes what there is, wherever it lies, and gives it to its own shard: each mover has another. */
static void move_blocks(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[3];
    while (board_get(f->board, STOP) == 0)
        if (ssm_alloc_many(pool, 1000, 3, 0, handles) == 0)
            CHECK_EQ(ssm_free_many(pool, handles, 3), 0);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void test_blocks_move(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 0;
    struct fixture f = fixture_open(&options);
    pid_t movers[MOVERS];
    uint32_t checks = 0;
    for (int i = 0; i < MOVERS; i++)
        movers[i] = child_start(move_blocks, &f);
    for (uint64_t until_ns = ssm_now_ns() + MOVING_NS; ssm_now_ns() < until_ns; checks++)
        fixture_check(f.pool);
    board_set(f.board, STOP, 1);
    for (int i = 0; i < MOVERS; i++)
        child_finish(movers[i]);
    printf("%u checks while blocks moved\n", checks);
    fixture_check(f.pool);
    fixture_close(&f);
}

/* ---- ... and under fire ----------------------------------------------------------------------------------- */

enum { WORKERS = 4, SERVICES = 4, CHECKS = 6 };
#define FIRE_NS (2500 * MS)

static const struct ssm_service_options services[SERVICES] = {
    {.kind = SSM_SERVICE_IDS, .first = 1, .last = 100, .flags = SSM_RECLAIM},
    {.kind = SSM_SERVICE_PIDS, .first = 2, .flags = SSM_RECLAIM},
    {.kind = SSM_SERVICE_RMIDS, .first = 20, .flags = SSM_RECLAIM},
    {.kind = SSM_SERVICE_ADDRESSES, .last = 0xffff, .ranges = 30, .flags = SSM_RECLAIM},
};

/* Takes one value and gives one back; those of the dead are reclaimed, so it may be gone. */
static void use_service(struct ssm_pool *pool, uint32_t i)
{
    const char *const names[SERVICES] = {"ids", "pids", "rmids", "addresses"};
    struct ssm_service *service;
    uint32_t number;
    uint64_t start;
    CHECK_EQ(ssm_service_open(pool, names[i], &services[i], &service), 0);
    if (services[i].kind == SSM_SERVICE_ADDRESSES) {
        uint64_t size = 1 + check_below(300);
        if (ssm_range_alloc(service, &(struct ssm_range_request){.size = size, .align = 1, .max = 0xffff}, &start) ==
                0 &&
            check_below(4) > 0)
            CHECK_EQ(ssm_range_free(service, start, start + size - 1), 0);
    } else if (ssm_number_alloc(service, ssm_now_ns(), &number) == 0 && check_below(4) > 0) {
        CHECK_EQ(ssm_number_free(service, number, ssm_now_ns()), 0);
    }
    ssm_service_close(service);
}

static void use_packets(struct ssm_pool *pool, struct ssm_ring *const *rings)
{
    uint64_t handles[3];
    uint32_t count = 1 + (uint32_t)check_below(3), which = (uint32_t)check_below(2);
    int got = ssm_ring_get(rings[which], handles, count, check_below(8) == 0 ? (int64_t)MS : 0);
    if (got > 0)
        CHECK_EQ(ssm_free_many(pool, handles, (uint32_t)got), 0);
    if (ssm_alloc_many(pool, check_below(2) ? 256 : 1000, count, check_below(8) == 0 ? (int64_t)MS : 0, handles) != 0)
        return;
    (void)ssm_packet_trim_front(pool, handles[0], check_below(50), NULL);
    (void)ssm_packet_prepend(pool, handles[0], check_below(50), NULL);
    if (ssm_ring_put(rings[which], handles, count, check_below(2) ? SSM_KEEP : 0, 0) != 0)
        CHECK_EQ(ssm_free_many(pool, handles, count), 0);
    else
        (void)ssm_free_many(pool, handles, count); /* what was kept */
}

/* Comes, works for a while, goes, and comes again. */
static void come_and_go(void *context)
{
    struct fixture *f = context;
    check_random_state ^= (uint64_t)getpid() << 20;
    while (board_get(f->board, STOP) == 0) {
        struct ssm_pool *pool = fixture_attach(f->fd, 0);
        struct ssm_ring *rings[] = {ring_open(pool, "many", 5, 0), ring_open(pool, "fan", 3, 0)};
        for (uint64_t left = check_below(400); left > 0 && board_get(f->board, STOP) == 0; left--) {
            use_packets(pool, rings);
            if (check_below(4) == 0)
                use_service(pool, (uint32_t)check_below(SERVICES));
        }
        for (int i = 0; i < 2; i++)
            ssm_ring_close(rings[i]);
        pool_end(pool);
    }
}

/* One is killed, and another takes its place; or one is stopped, perhaps with a lock, and goes on the next time. */
static void fire(struct fixture *f, pid_t *workers, pid_t *stopped)
{
    uint32_t i = (uint32_t)check_below(WORKERS);
    if (*stopped != 0) {
        child_continue(*stopped);
        *stopped = 0;
    } else if (check_below(3) == 0) {
        child_stop(workers[i]);
        *stopped = workers[i];
    } else {
        child_kill(workers[i]);
        workers[i] = child_start(come_and_go, f);
    }
}

static void test_pool_under_fire(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    options.metadata_bytes = 1 << 18;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    pid_t workers[WORKERS], stopped = 0;
    uint32_t checks = 0;
    for (int i = 0; i < WORKERS; i++)
        workers[i] = child_start(come_and_go, &f);
    for (uint64_t until_ns = ssm_now_ns() + FIRE_NS; ssm_now_ns() < until_ns || checks < CHECKS; checks++) {
        fixture_check(checks % 4 == 3 ? reader : f.pool);
        fire(&f, workers, &stopped);
        if (stopped == 0 && check_below(4) == 0) /* a reaper waits for who comes or goes */
            fixture_reap(f.pool);
    }
    board_set(f.board, STOP, 1);
    if (stopped != 0)
        child_continue(stopped);
    for (int i = 0; i < WORKERS; i++)
        child_finish(workers[i]);
    printf("%u checks\n", checks);
    fixture_reap(f.pool);
    pool_end(reader);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    check_seed();
    test_the_dead_are_no_finding();
    test_busy_pool();
    test_blocks_move();
    test_pool_under_fire();
    test_findings();
    test_without_a_reporter();
    return 0;
}
