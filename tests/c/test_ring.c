/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings: order, capacity, batches, fan-out, exclusive sides, deaths in a get, flags, shutdown. */
#include "ring_fixture.h"
#include "ring_side.h"

#define PATIENT INT64_C(10000000000)

/* ---- opening ------------------------------------------------------------------------------------------------ */

static void test_open(void)
{
    struct fixture f = open_fixture();
    char name[SSM_NAME_SIZE + 1];
    memset(name, 'r', sizeof name);
    name[SSM_NAME_SIZE] = 0;
    CHECK_EQ(try_open(f.pool, name, 4, 0), -EINVAL); /* too long */
    name[SSM_NAME_SIZE - 1] = 0;
    CHECK_EQ(try_open(f.pool, name, 4, 0), 0);
    name[SSM_NAME_SIZE - 2] = 's'; /* differs in the last place */
    CHECK_EQ(try_open(f.pool, name, 5, 0), 0);
    CHECK_EQ(try_open(f.pool, "", 4, 0), -EINVAL);
    CHECK_EQ(try_open(f.pool, "flags", 4, 1u << 7), -EINVAL);
    CHECK_EQ(try_open(f.pool, "large", SSM_RING_MAX + 1, 0), -EINVAL);
    CHECK_EQ(try_open(f.pool, "large", SSM_RING_MAX, 0), -SSM_E_METADATA);
    CHECK_EQ(try_open(f.pool, "ring", 5, SSM_ONE_PRODUCER), 0);
    CHECK_EQ(try_open(f.pool, "ring", 5, 0), -SSM_E_MISMATCH);
    CHECK_EQ(try_open(f.pool, "ring", 4, SSM_ONE_PRODUCER), -SSM_E_MISMATCH);
    CHECK_EQ(try_open(f.pool, "ring", 0, SSM_ONE_PRODUCER), 0);
    struct ssm_ring *ring = ring_open(f.pool, "default", 0, 0);
    CHECK_EQ(ssm_ring_capacity(ring), SSM_RBUFF_SIZE);
    CHECK_EQ(ssm_ring_flags(ring), 0);
    ssm_ring_close(ring);
    ssm_ring_close(NULL);
    fixture_close(&f);
}

/* Rings stand side by side in the metadata area until it is used up, and do not touch each other. */
static void test_metadata(void)
{
    struct ssm_pool_options options = fixture_options();
    options.metadata_bytes = 8192;
    struct fixture f = fixture_open(&options);
    uint64_t last_end = 0;
    uint32_t count = 0;
    char name[8];
    for (;; count++) {
        snprintf(name, sizeof name, "%u", count);
        int result = try_open(f.pool, name, 3, 0);
        if (result == -SSM_E_METADATA)
            break;
        CHECK_EQ(result, 0);
        uint32_t id = ring_id(f.pool, name);
        CHECK(ssm_ring_shared_at(f.pool, id) != NULL);
        uint64_t start = ssm_load_relaxed_u64(&ssm_holder_at(f.pool, id)->ring_start);
        uint64_t end = start + sizeof(struct ssm_ring_shared) + 4 * 8;
        CHECK(start >= last_end && end <= 8192);
        last_end = end;
    }
    CHECK(count > 3 && 8192 - last_end < last_end / count); /* there was no room for one more */
    CHECK_EQ(try_open(f.pool, "0", 3, 0), 0);
    fixture_close(&f);
}

/* ---- order, capacity ---------------------------------------------------------------------------------------- */

/* A hundred times round, with every depth, for capacities that are no powers of two as well. */
static void test_order(void)
{
    static const uint32_t capacities[] = {1, 2, 3, 5, 7, 8};
    struct fixture f = open_fixture();
    for (uint32_t i = 0; i < 6; i++) {
        char name[8];
        uint64_t in = 0, out = 0;
        snprintf(name, sizeof name, "%u", i);
        struct ssm_ring *ring = ring_open(f.pool, name, capacities[i], 0);
        CHECK_EQ(ssm_ring_capacity(ring), capacities[i]);
        while (out < capacities[i] * 100) {
            for (uint64_t n = 1 + check_below(capacities[i]); n > 0 && in - out < capacities[i]; n--)
                put(f.pool, ring, in++);
            CHECK_EQ(ssm_ring_depth(ring), in - out);
            for (uint64_t n = 1 + check_below(capacities[i]); n > 0 && in > out; n--)
                get(f.pool, ring, out++);
        }
        while (in > out)
            get(f.pool, ring, out++);
        check_empty(ring);
        ssm_ring_close(ring);
    }
    fixture_close(&f);
}

static void test_exact_capacity(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 5, 0);
    uint64_t handles[6];
    for (uint64_t i = 0; i < 6; i++)
        handles[i] = alloc(f.pool, i);
    CHECK_EQ(ssm_ring_put(ring, handles, 0, 0, 0), -EINVAL);
    CHECK_EQ(ssm_ring_put(ring, handles, 6, 0, 0), -EINVAL); /* can never be */
    CHECK_EQ(ssm_ring_put(ring, handles, 1, 2, 0), -EINVAL);
    CHECK_EQ(ssm_ring_get(ring, handles, 0, 0), -EINVAL);
    CHECK_EQ(ssm_ring_put(ring, handles, 4, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, handles + 4, 2, 0, 0), -SSM_E_FULL); /* all or nothing */
    CHECK_EQ(ssm_ring_depth(ring), 4);
    CHECK_EQ(ssm_ring_put(ring, handles + 4, 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, handles + 5, 1, 0, 0), -SSM_E_FULL); /* eight slots, five packets */
    CHECK_EQ(number_in(f.pool, handles[5]), 5);                      /* still the caller's */
    CHECK_EQ(ssm_ring_get(ring, handles, 100, 0), 5);
    for (uint64_t i = 0; i < 5; i++)
        CHECK_EQ(number_in(f.pool, handles[i]), i);
    CHECK_EQ(ssm_free_many(f.pool, handles, 6), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_time_outs(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 1, 0);
    uint64_t handle, start_ns = ssm_now_ns();
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 50 * (int64_t)MS), -SSM_E_EMPTY);
    CHECK(ssm_now_ns() - start_ns >= 50 * MS);
    put(f.pool, ring, 1);
    handle = alloc(f.pool, 2);
    start_ns = ssm_now_ns();
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 50 * (int64_t)MS), -SSM_E_FULL);
    CHECK(ssm_now_ns() - start_ns >= 50 * MS);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    get(f.pool, ring, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* ---- who may put what --------------------------------------------------------------------------------------- */

static void test_refused_puts(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 8, 0);
    uint64_t one = alloc(f.pool, 1), two = alloc(f.pool, 2);
    const uint64_t twice[] = {one, two, one}, with_stale[] = {one, two + (UINT64_C(1) << 32), two};
    CHECK_EQ(ssm_ring_put(ring, twice, 3, 0, 0), -SSM_E_QUEUED);
    CHECK_EQ(ssm_ring_put(ring, with_stale, 3, 0, 0), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_hold(f.pool, one), 0);
    CHECK_EQ(ssm_ring_put(ring, twice, 3, 0, 0), -SSM_E_QUEUED); /* two references, but one ring */
    CHECK_EQ(ssm_ring_depth(ring), 0);
    CHECK_EQ(ssm_ring_put(ring, twice, 2, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, &one, 1, 0, 0), -SSM_E_QUEUED); /* the other reference is here still */
    CHECK_EQ(ssm_ring_put(ring, &two, 1, 0, 0), -SSM_E_STALE);
    get(f.pool, ring, 1);
    CHECK_EQ(ssm_ring_put(ring, &one, 1, 0, 0), 0); /* came out: may go in again */
    get(f.pool, ring, 2);
    get(f.pool, ring, 1);
    check_empty(ring);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* One packet in three rings and here: it is free when the last has let go. */
static void test_fan_out(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *rings[3];
    uint64_t handle = alloc(f.pool, 7), got[3];
    for (int i = 0; i < 3; i++) {
        rings[i] = ring_open(f.pool, (const char *[]){"a", "b", "c"}[i], 4, 0);
        CHECK_EQ(ssm_ring_put(rings[i], &handle, 1, SSM_KEEP, 0), 0);
    }
    CHECK_EQ(ssm_ring_put(rings[0], &handle, 1, SSM_KEEP, 0), -SSM_E_QUEUED);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *others = ring_open(other, "b", 4, 0);
    CHECK_EQ(ssm_ring_get(others, &got[1], 1, 0), 1);
    CHECK_EQ(number_in(other, got[1]), 7);
    CHECK_EQ(ssm_ring_get(rings[0], &got[0], 1, 0), 1);
    CHECK_EQ(ssm_ring_get(rings[2], &got[2], 1, 0), 1);
    CHECK(got[0] == handle && got[2] == handle);
    CHECK_EQ(ssm_free(f.pool, handle), 0); /* popped twice: two references */
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    CHECK_EQ(ssm_free(other, got[1]), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    ssm_ring_close(others);
    for (int i = 0; i < 3; i++)
        ssm_ring_close(rings[i]);
    pool_end(other);
    fixture_close(&f);
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

#define SENT 3000

static void produce(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 3, 0);
    uint32_t producer = ssm_add_acqrel_u32(&f->board->step[READY], 1);
    for (uint64_t i = 0; i < SENT; i++) {
        uint64_t handle;
        struct ssm_packet packet;
        const uint64_t number = (uint64_t)producer << 32 | i;
        CHECK_EQ(ssm_alloc(f->pool, 8, PATIENT, &handle), 0);
        CHECK_EQ(ssm_packet_view(f->pool, handle, &packet), 0);
        memcpy(packet.data, &number, 8);
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, PATIENT), 0);
    }
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void consume(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 3, 0);
    uint64_t handles[2], next[2] = {0, 0};
    int got;
    while ((got = ssm_ring_get(ring, handles, 2, PATIENT)) > 0)
        for (int i = 0; i < got; i++) {
            uint64_t number = number_in(f->pool, handles[i]);
            CHECK((uint32_t)number >= next[number >> 32]); /* of one producer, in its order */
            next[number >> 32] = (uint32_t)number + 1;
            ssm_add_acqrel_u64(&f->board->value[number >> 32], (uint32_t)number + 1);
            CHECK_EQ(ssm_free(f->pool, handles[i]), 0);
        }
    CHECK_EQ(got, -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void test_processes(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 3, 0);
    pid_t consumers[] = {child_start(consume, &f), child_start(consume, &f)};
    pid_t producers[] = {child_start(produce, &f), child_start(produce, &f)};
    for (int i = 0; i < 2; i++)
        child_finish(producers[i]);
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0); /* what is queued still comes */
    for (int i = 0; i < 2; i++)
        child_finish(consumers[i]);
    for (int i = 0; i < 2; i++)
        CHECK_EQ(ssm_load_relaxed_u64(&f.board->value[i]), (uint64_t)SENT * (SENT + 1) / 2);
    ssm_ring_close(ring);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- exclusive sides ---------------------------------------------------------------------------------------- */

static void claim_both_sides(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    put(f->pool, ring, 1);
    get(f->pool, ring, 1);
    put(f->pool, ring, 2);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
    ssm_ring_close(ring); /* gives the sides back */
    board_set(f->board, READY, 2);
    AWAIT(board_get(f->board, GO) == 2);
}

static void check_busy(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle = alloc(pool, 3), got;
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, PATIENT), -SSM_E_BUSY); /* at once */
    CHECK_EQ(ssm_ring_get(ring, &got, 1, PATIENT), -SSM_E_BUSY);
    CHECK_EQ(ssm_free(pool, handle), 0);
}

static void check_exclusive(bool dies)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring_stats stats;
    pid_t child = child_start(claim_both_sides, &f);
    AWAIT(board_get(f.board, READY) == 1);
    check_busy(f.pool, ring);
    child_stop(child);
    check_busy(f.pool, ring); /* stopped is alive */
    if (dies) {
        child_kill(child);
    } else {
        child_continue(child);
        board_set(f.board, GO, 1);
        AWAIT(board_get(f.board, READY) == 2);
    }
    put(f.pool, ring, 3);
    get(f.pool, ring, 2); /* what was delivered stays so */
    get(f.pool, ring, 3);
    check_empty(ring);
    CHECK_EQ(ssm_ring_stats(f.pool, ring_id(f.pool, "ring"), &stats), 0);
    CHECK_EQ(stats.recoveries, dies ? 2 : 0);
    board_set(f.board, GO, 2);
    if (!dies)
        child_finish(child);
    ssm_ring_close(ring);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* Closing the pool gives the sides back, with the ring still open. */
static void test_sides_come_back(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring *others = ring_open(other, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    put(other, others, 1);
    get(other, others, 1);
    check_busy(f.pool, ring);
    CHECK_EQ(ssm_pool_close(other), 0);
    put(f.pool, ring, 2);
    get(f.pool, ring, 2);
    struct ssm_ring_stats stats;
    CHECK_EQ(ssm_ring_stats(f.pool, ring_id(f.pool, "ring"), &stats), 0);
    CHECK_EQ(stats.recoveries, 0); /* given, not taken */
    ssm_ring_close(others);
    ssm_ring_close(ring);
    ssm_pool_destroy(other);
    fixture_close(&f);
}

/* Of a ring that is open twice, the spare one is closed: the process keeps the sides. */
static void test_a_spare_ring_gives_no_side_up(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring *others = ring_open(other, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring *spare = ring_open(other, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    put(other, others, 1);
    get(other, others, 1);
    ssm_ring_close_spare(spare);
    check_busy(f.pool, ring);
    ssm_ring_close(others);
    put(f.pool, ring, 2);
    get(f.pool, ring, 2);
    ssm_ring_close(ring);
    ssm_pool_destroy(other);
    fixture_close(&f);
}

/* ---- deaths in a get ---------------------------------------------------------------------------------------- */

#define QUEUED 4
#define TAKEN  3 /* of these */

/* A holder that died; its blocks may be free before anybody takes the side over. */
static bool blocks_are_used_again;

static void queue_some(struct fixture *f)
{
    struct ssm_ring *ring = ring_open(f->pool, "ring", 8, 0);
    for (uint64_t i = 0; i < QUEUED; i++)
        put(f->pool, ring, i);
    ssm_ring_close(ring);
    if (f->pool->geometry.holders <= 64)
        return;
    for (uint32_t slot = ssm_holder_high(f->pool); slot < 64; slot++) /* as if somebody had died there */
        ssm_store_release_u32(&ssm_holder_at(f->pool, slot)->kind, SSM_HOLDER_PROCESS);
    ssm_store_release_u32(&ssm_superblock_of(f->pool)->holder_high, 64);
}

/* A get of several, by steps 2 and 3 of get.c. */
static void take_some(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", 8, 0);
    struct ssm_side *consumer = &ring->shared->consumer;
    CHECK_EQ(ssm_side_enter(ring, consumer, false, -SSM_E_EMPTY), 0);
    board_set(f->board, READY, pool->self);
    for (uint64_t i = 0; i < TAKEN; i++) {
        struct ssm_block *block = ssm_block_at(pool, (uint32_t)ssm_slot_handle(&ring->shared->slots[i]));
        step(f);
        ssm_store_release_u64(&block->holders[pool->mark.word], pool->mark.bit);
        if (pool->mark.word != ring->mark.word) {
            step(f);
            ssm_store_release_u64(&block->holders[ring->mark.word], 0);
        }
    }
    step(f);
    ssm_store_release_u64(&consumer->index, TAKEN);
    step(f);
}

/* The blocks that the dead process took are reaped without its locks, and put into the ring as other packets. */
static void use_again(struct fixture *f, struct ssm_ring *ring, uint64_t taken)
{
    uint64_t handles[BLOCKS], again = 0;
    for (uint64_t i = 0; i < taken; i++)
        ssm_block_let_go(f->pool, (uint32_t)ssm_slot_handle(&ring->shared->slots[i]), board_get(f->board, READY));
    const uint32_t count = free_blocks(f->pool, 0);
    for (uint32_t i = 0; i < count; i++)
        handles[i] = alloc(f->pool, QUEUED + i);
    for (uint32_t i = 0; i < count; i++) {
        bool was_there = false;
        for (uint64_t k = 0; k < taken; k++)
            was_there = was_there || block_of(ssm_slot_handle(&ring->shared->slots[k])) == block_of(handles[i]);
        CHECK_EQ(was_there ? ssm_ring_put(ring, &handles[i], 1, 0, 0) : ssm_free(f->pool, handles[i]), 0);
        again += was_there;
    }
    CHECK_EQ(again, taken);
}

/* I19, once the side was taken over. */
static void check_marks(struct fixture *f, struct ssm_ring *ring)
{
    struct ssm_side *consumer = &ring->shared->consumer;
    CHECK_EQ(ssm_side_enter(ring, consumer, false, -SSM_E_EMPTY), 0);
    ssm_side_leave(consumer, false);
    const uint64_t head = ssm_load_relaxed_u64(&ring->shared->producer.index);
    for (uint64_t at = ssm_load_relaxed_u64(&consumer->index); at != head; at++) {
        const struct ssm_u64 *slot = &ring->shared->slots[at & ring->mask];
        const struct ssm_block *block = ssm_block_at(f->pool, (uint32_t)ssm_slot_handle(slot));
        CHECK(!(ssm_load_relaxed_u64(slot) & SSM_SLOT_COMMON) || ssm_block_is_exactly(f->pool, block, ring->id));
    }
}

/* The rest comes in order, and each packet once. */
static void get_the_rest(struct fixture *f)
{
    struct ssm_ring *ring = ring_open(f->pool, "ring", 8, 0);
    uint64_t first = ssm_load_relaxed_u64(&ring->shared->consumer.index), handles[2 * QUEUED];
    const uint64_t tail = first;
    while (first < QUEUED && !ssm_block_is_queued(f->pool, ring->id, ssm_slot_handle(&ring->shared->slots[first])))
        first++;
    const bool again = blocks_are_used_again && tail == 0;
    if (again)
        use_again(f, ring, first);
    check_marks(f, ring);
    const int got = ssm_ring_get(ring, handles, 2 * QUEUED, 0);
    CHECK_EQ(got, QUEUED - (int)first + (again ? (int)first : 0));
    for (uint64_t i = first; i < QUEUED; i++)
        CHECK_EQ(number_in(f->pool, handles[i - first]), i);
    for (int i = QUEUED - (int)first; i < got; i++)
        CHECK(number_in(f->pool, handles[i]) >= QUEUED);
    CHECK_EQ(ssm_free_many(f->pool, handles, (uint32_t)got), 0);
    check_empty(ring);
    fixture_reap(f->pool);
    ssm_ring_close(ring);
    check_all_there(f->pool, 0);
}

static void check_deaths_in_a_get(uint32_t holders, uint32_t steps)
{
    struct deaths deaths = {fixture_options(), queue_some, take_some, get_the_rest};
    deaths.options.holders = holders;
    CHECK_EQ(die_everywhere(&deaths), steps + 1);
}

static void test_deaths_in_a_get(void)
{
    for (int again = 0; again < 2; again++) {
        blocks_are_used_again = again;
        check_deaths_in_a_get(64, TAKEN + 2);
        check_deaths_in_a_get(128, 2 * TAKEN + 2); /* ring and process in different words of the set */
    }
}

/* ---- flags, shutdown ---------------------------------------------------------------------------------------- */

static void test_acl(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    uint64_t handle = alloc(f.pool, 2), got;
    put(f.pool, ring, 1);
    CHECK_EQ(ssm_ring_acl(ring), SSM_ACL_RDWR);
    CHECK_EQ(ssm_ring_set_acl(ring, 8), -EINVAL);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_DISCARD), -EINVAL);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_RDONLY), 0);
    CHECK_EQ(ssm_ring_acl(ring), SSM_ACL_RDONLY);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, PATIENT), -SSM_E_RDONLY);
    get(f.pool, ring, 1);
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), -SSM_E_EMPTY);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_RDWR), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_FLOWPEER), 0);
    get(f.pool, ring, 2);
    CHECK_EQ(ssm_ring_get(ring, &got, 1, PATIENT), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0); /* the peer is down for gets only */
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_FLOWDOWN), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, PATIENT), -SSM_E_SHUTDOWN);
    get(f.pool, ring, 2);
    CHECK_EQ(ssm_ring_get(ring, &got, 1, PATIENT), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void wait_to_put(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 1, 0);
    uint64_t handle = alloc(f->pool, 2);
    board_set(f->board, READY, 1);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, SSM_FOREVER), -SSM_E_SHUTDOWN);
    CHECK_EQ(number_in(f->pool, handle), 2); /* still its own */
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void wait_to_get(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 1, 0);
    uint64_t handle;
    board_set(f->board, READY, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, SSM_FOREVER), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void check_shutdown_wakes(void (*waiter)(void *), bool full, int immediate)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 1, 0);
    uint64_t handle;
    if (full)
        put(f.pool, ring, 1);
    pid_t child = child_start(waiter, &f);
    AWAIT(board_get(f.board, READY) == 1);
    ssm_nap_ns(5 * MS);
    CHECK_EQ(ssm_ring_shutdown(ring, immediate), 0);
    child_finish(child);
    CHECK_EQ(ssm_ring_acl(ring), SSM_ACL_FLOWDOWN);
    if (full && !immediate)
        get(f.pool, ring, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, SSM_FOREVER), -SSM_E_SHUTDOWN);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_shutdown(void)
{
    for (int immediate = 0; immediate < 2; immediate++) {
        check_shutdown_wakes(wait_to_put, true, immediate);
        check_shutdown_wakes(wait_to_get, false, immediate);
    }
}

static void get_and_stamp(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(f->pool, "ring", 1, 0);
    uint64_t handle;
    board_set(f->board, READY, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, SSM_FOREVER), -SSM_E_SHUTDOWN);
    ssm_store_release_u64(&f->board->value[0], ssm_now_ns());
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

/* Asleep, the child would look by itself only after half a minute. */
static void test_flags_wake(void)
{
    enum { ROUNDS = 20 };
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 1, 0);
    f.pool->recheck_ns = 30000 * MS;
    for (int round = 0; round < ROUNDS; round++) {
        CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_RDWR), 0);
        board_set(f.board, READY, 0);
        pid_t child = child_start(get_and_stamp, &f);
        AWAIT(board_get(f.board, READY) == 1);
        ssm_nap_ns(2 * MS);
        uint64_t set_ns = ssm_now_ns();
        if (round % 2)
            CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
        else
            CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_FLOWPEER), 0);
        child_finish(child);
        CHECK(ssm_load_acquire_u64(&f.board->value[0]) < set_ns + 10000 * MS);
    }
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Whoever shuts an exclusive ring down does not become its producer or its consumer by it. */
static void check_shutdown_of_unclaimed_sides(int immediate)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring *others = ring_open(other, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    uint64_t handle = alloc(other, 1), got;
    CHECK_EQ(ssm_ring_shutdown(ring, immediate), 0);
    CHECK_EQ(ssm_ring_put(others, &handle, 1, 0, 0), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_ring_get(others, &got, 1, 0), -SSM_E_SHUTDOWN);
    ssm_ring_close(ring);
    ssm_ring_close(others);
    pool_end(other);
    fixture_close(&f);
}

/* Where the consumer's side is somebody else's, that one discards. */
static void test_immediate_shutdown_by_the_producer(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    struct ssm_ring *others = ring_open(other, "ring", 4, SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    uint64_t handle;
    put(f.pool, ring, 1);
    put(f.pool, ring, 2);
    get(other, others, 1);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    CHECK_EQ(ssm_ring_get(others, &handle, 1, 0), -SSM_E_SHUTDOWN);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    ssm_ring_close(ring);
    ssm_ring_close(others);
    pool_end(other);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    check_seed();
    test_open();
    test_metadata();
    test_order();
    test_exact_capacity();
    test_time_outs();
    test_refused_puts();
    test_fan_out();
    test_processes();
    check_exclusive(false);
    check_exclusive(true);
    test_sides_come_back();
    test_a_spare_ring_gives_no_side_up();
    test_deaths_in_a_get();
    test_acl();
    test_shutdown();
    test_flags_wake();
    test_immediate_shutdown_by_the_producer();
    check_shutdown_of_unclaimed_sides(0);
    check_shutdown_of_unclaimed_sides(1);
    return 0;
}
