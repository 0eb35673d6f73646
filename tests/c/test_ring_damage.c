/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings: death at every store of a put and a get; slots and indices that were scribbled on. */
#include "ring_fixture.h"

/* ---- death at every store of a put -------------------------------------------------------------------------- */

static int no_repair(struct ssm_pool *pool, void *context)
{
    (void)pool, (void)context;
    return 0;
}

static uint32_t flags_of_ring; /* of the deaths below */

/* Ring with two packets in it, and some history, so that there are old handles in the slots. */
static void prepare_ring(struct fixture *f)
{
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, flags_of_ring);
    for (uint64_t i = 0; i < 7; i++) {
        put(f->pool, ring, 100 + i);
        get(f->pool, ring, 100 + i);
    }
    put(f->pool, ring, 1);
    put(f->pool, ring, 2);
    ssm_ring_close(ring);
}

/* Store by store, as the table at the top of put.c has it; one packet goes with the reference, one is kept. */
static void put_slowly(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint32_t id = ring_id(pool, "ring");
    struct ssm_ring_shared *shared = shared_of(pool);
    struct ssm_side *producer = &shared->producer;
    const uint64_t handles[2] = {alloc(pool, 3), alloc(pool, 4)};
    CHECK_EQ(ssm_lock_take(pool, &producer->lock, 0, no_repair, NULL), 0);
    uint64_t head = ssm_load_relaxed_u64(&producer->index);
    for (uint64_t i = 0; i < 2; i++) {
        step(f);
        ssm_store_relaxed_u64(&shared->slots[(head + i) & 3], handles[i]);
    }
    step(f);
    ssm_store_release_u64(&producer->put_intent, head + 2);
    step(f);
    ssm_block_swap(ssm_block_at(pool, block_of(handles[0])), pool->self, id);
    step(f);
    ssm_block_add(pool, ssm_block_at(pool, block_of(handles[1])), id);
    step(f);
    ssm_store_release_u64(&producer->index, head + 2);
    board_set(f->board, GO, 1); /* delivered */
    step(f);
    ssm_store_release_u64(&producer->put_intent, 0);
    step(f);
    if (!(flags_of_ring & SSM_ONE_PRODUCER))
        ssm_lock_release(&producer->lock);
    step(f);
}

/* All of the batch was delivered or none of it; the ring goes on. */
static void check_after_put(struct fixture *f)
{
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, flags_of_ring);
    bool delivered = board_get(f->board, GO) == 1;
    if (!delivered)
        put(f->pool, ring, 5); /* takes the side over: goes where the other's would have gone */
    get(f->pool, ring, 1);
    get(f->pool, ring, 2);
    get(f->pool, ring, delivered ? 3 : 5);
    if (delivered)
        get(f->pool, ring, 4);
    check_empty(ring);
    for (uint64_t i = 0; i < 9; i++) {
        put(f->pool, ring, i);
        get(f->pool, ring, i);
    }
    ssm_ring_close(ring);
    check_all_there(f->pool, 0);
}

/* The reaper comes first. */
static void check_after_put_and_reaper(struct fixture *f)
{
    bool delivered = board_get(f->board, GO) == 1;
    fixture_reap(f->pool);
    fixture_check(f->pool);
    CHECK_EQ(free_blocks(f->pool, 0), BLOCKS - (delivered ? 4 : 2));
    CHECK_EQ(ssm_load_relaxed_u64(&shared_of(f->pool)->producer.put_intent), 0);
    check_after_put(f);
}

static void test_deaths_in_put(void)
{
    for (flags_of_ring = 0; flags_of_ring <= SSM_ONE_PRODUCER; flags_of_ring += SSM_ONE_PRODUCER) {
        struct deaths d = {fixture_options(), prepare_ring, put_slowly, check_after_put};
        CHECK_EQ(die_everywhere(&d), 10);
        d.after = check_after_put_and_reaper;
        CHECK_EQ(die_everywhere(&d), 10);
    }
}

/* ---- death at every store of a get -------------------------------------------------------------------------- */

/* Four packets; the second is somebody else's, too. */
static void prepare_full_ring(struct fixture *f)
{
    prepare_ring(f);
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, flags_of_ring);
    uint64_t handle = alloc(f->pool, 3);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    ssm_store_relaxed_u64(&f->board->value[0], handle);
    put(f->pool, ring, 4);
    ssm_ring_close(ring);
}

static void get_slowly(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint32_t id = ring_id(pool, "ring");
    struct ssm_ring_shared *shared = shared_of(pool);
    CHECK_EQ(ssm_lock_take(pool, &shared->consumer.lock, 0, no_repair, NULL), 0);
    uint64_t tail = ssm_load_relaxed_u64(&shared->consumer.index);
    for (uint32_t i = 0; i < 3; i++) {
        struct ssm_block *block = ssm_block_at(pool, block_of(ssm_slot_handle(&shared->slots[(tail + i) & 3])));
        step(f);
        if (i < 2) {
            ssm_block_swap(block, id, pool->self);
        } else {
            ssm_block_add(pool, block, pool->self);
            step(f);
            ssm_block_remove(block, id);
        }
        board_set(f->board, GO, i + 1); /* taken */
    }
    step(f);
    ssm_store_release_u64(&shared->consumer.index, tail + 3);
    step(f);
    if (!(flags_of_ring & SSM_ONE_CONSUMER))
        ssm_lock_release(&shared->consumer.lock);
    step(f);
}

/* What the dead one took is gone with it; what it did not take comes, once. */
static void check_after_get(struct fixture *f)
{
    struct ssm_ring *ring = ring_open(f->pool, "ring", 4, flags_of_ring);
    for (uint64_t number = board_get(f->board, GO) + 1; number <= 4; number++)
        get(f->pool, ring, number);
    check_empty(ring);
    put(f->pool, ring, 9);
    get(f->pool, ring, 9);
    uint64_t kept = ssm_load_relaxed_u64(&f->board->value[0]);
    CHECK_EQ(number_in(f->pool, kept), 3);
    CHECK_EQ(ssm_free(f->pool, kept), 0);
    ssm_ring_close(ring);
    check_all_there(f->pool, 0);
}

static void check_after_get_and_reaper(struct fixture *f)
{
    uint32_t taken = board_get(f->board, GO);
    fixture_reap(f->pool);
    fixture_check(f->pool);
    /* Four are queued; the third is also the parent's. */
    CHECK_EQ(free_blocks(f->pool, 0), BLOCKS - 4 + (taken > 2 ? 2 : taken));
    check_after_get(f);
}

static void test_deaths_in_get(void)
{
    for (flags_of_ring = 0; flags_of_ring <= SSM_ONE_CONSUMER; flags_of_ring += SSM_ONE_CONSUMER) {
        struct deaths d = {fixture_options(), prepare_full_ring, get_slowly, check_after_get};
        CHECK_EQ(die_everywhere(&d), 8);
        d.after = check_after_get_and_reaper;
        CHECK_EQ(die_everywhere(&d), 8);
    }
}

/* Slots that the dead consumer had emptied are passed over even when the ring is full of them. */
static void take_all_but_the_index(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring_shared *shared = shared_of(pool);
    CHECK_EQ(ssm_lock_take(pool, &shared->consumer.lock, 0, no_repair, NULL), 0);
    for (uint32_t i = 0; i < 4; i++) {
        uint64_t handle = ssm_slot_handle(&shared->slots[i]);
        ssm_block_swap(ssm_block_at(pool, block_of(handle)), ring_id(pool, "ring"), pool->self);
    }
    die_here();
}

static void test_ring_full_of_taken_packets(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    for (uint64_t i = 0; i < 4; i++)
        put(f.pool, ring, i);
    child_died(child_start(take_all_but_the_index, &f));
    uint64_t handle = alloc(f.pool, 9);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_FULL); /* by the index it is */
    check_empty(ring);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    get(f.pool, ring, 9);
    ssm_ring_close(ring);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- scribbled ---------------------------------------------------------------------------------------------- */

static void test_garbage_in_slots(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 8, 0);
    struct ssm_ring_shared *shared = shared_of(f.pool);
    uint64_t held = alloc(f.pool, 50), first = alloc(f.pool, 1);
    CHECK_EQ(ssm_ring_put(ring, &first, 1, 0, 0), 0);
    for (uint64_t i = 2; i < 7; i++)
        put(f.pool, ring, i);
    uint64_t second = ssm_slot_handle(&shared->slots[1]);
    ssm_store_relaxed_u64(&shared->slots[1], UINT64_MAX);
    ssm_store_relaxed_u64(&shared->slots[2], first);                        /* a second time */
    ssm_store_relaxed_u64(&shared->slots[3], held);                         /* somebody's who did not put it */
    ssm_store_relaxed_u64(&shared->slots[4], second + (UINT64_C(1) << 32)); /* another generation */
    get(f.pool, ring, 1);
    get(f.pool, ring, 6); /* nothing of the rest was handed out */
    check_empty(ring);
    CHECK_EQ(number_in(f.pool, held), 50);
    CHECK_EQ(ssm_free(f.pool, held), 0);
    uint32_t id = ring_id(f.pool, "ring");
    for (uint32_t i = 0; i < BLOCKS; i++) /* what the scribbler lost stays the ring's */
        ssm_block_remove(ssm_block_at(f.pool, i), id);
    fixture_reap(f.pool);
    ssm_ring_close(ring);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

static void test_garbage_indices(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 5, 0);
    struct ssm_ring_shared *shared = shared_of(f.pool);
    uint64_t handle = alloc(f.pool, 1), got;
    ssm_store_relaxed_u64(&shared->producer.index, 6); /* six in five places */
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), -SSM_E_CORRUPT);
    CHECK(ssm_ring_put(ring, &handle, 1, 0, 0) < 0);
    CHECK(ssm_ring_depth(ring) <= 5);
    ssm_store_relaxed_u64(&shared->producer.index, UINT64_MAX); /* behind the tail */
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), -SSM_E_CORRUPT);
    CHECK(ssm_ring_depth(ring) <= 5);
    ssm_store_relaxed_u64(&shared->producer.index, 0);
    ssm_store_relaxed_u64(&shared->producer.peer, 0);
    ssm_store_relaxed_u64(&shared->consumer.peer, UINT64_MAX); /* a hint: looked up again */
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    get(f.pool, ring, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* One packet more than 2^64 - 1 is not none: a ring that contradicts itself takes nothing that it could not deliver. */
static void test_head_behind_the_tail(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 5, 0);
    uint64_t handle = alloc(f.pool, 1);
    ssm_store_relaxed_u64(&shared_of(f.pool)->producer.index, UINT64_MAX);
    CHECK(ssm_ring_put(ring, &handle, 1, 0, 0) < 0);
    ssm_store_relaxed_u64(&shared_of(f.pool)->producer.index, 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* A dead producer whose put_intent reaches far: the repair looks at each slot once. */
static void scribble_note_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring_shared *shared = shared_of(pool);
    CHECK_EQ(ssm_lock_take(pool, &shared->producer.lock, 0, no_repair, NULL), 0);
    ssm_store_release_u64(&shared->producer.put_intent, UINT64_MAX);
    die_here();
}

static void test_garbage_note(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 5, 0);
    child_died(child_start(scribble_note_and_die, &f));
    put(f.pool, ring, 1);
    get(f.pool, ring, 1);
    ssm_ring_close(ring);
    fixture_reap(f.pool);
    fixture_close(&f);
}

static void test_garbage_ring(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 5, 0);
    uint32_t id = ring_id(f.pool, "ring");
    struct ssm_ring_shared *shared = shared_of(f.pool);
    struct ssm_ring_stats stats;
    const uint64_t starts[] = {1, 64, 65536, 65536 - 128, UINT64_MAX - 127};
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++) {
        ssm_store_relaxed_u64(&ssm_holder_at(f.pool, id)->ring_start, starts[i]);
        CHECK(ssm_ring_shared_at(f.pool, id) == NULL);
        CHECK_EQ(try_open(f.pool, "ring", 5, 0), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_ring_stats(f.pool, id, &stats), -SSM_E_CORRUPT);
    }
    ssm_store_relaxed_u64(&ssm_holder_at(f.pool, id)->ring_start, 0);
    const uint32_t capacities[] = {0, SSM_RING_MAX, SSM_RING_MAX + 1, UINT32_MAX, 65536 / 8};
    for (size_t i = 0; i < sizeof capacities / sizeof *capacities; i++) {
        shared->capacity = capacities[i];
        CHECK(ssm_ring_shared_at(f.pool, id) == NULL);
        CHECK_EQ(try_open(f.pool, "ring", 5, 0), -SSM_E_CORRUPT);
    }
    shared->capacity = 5;
    put(f.pool, ring, 1);
    get(f.pool, ring, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_deaths_in_put();
    test_deaths_in_get();
    test_ring_full_of_taken_packets();
    test_garbage_in_slots();
    test_garbage_indices();
    test_garbage_note();
    test_garbage_ring();
    test_head_behind_the_tail();
    return 0;
}
