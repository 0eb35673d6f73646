/* SPDX-License-Identifier: Apache-2.0
 *
 * Topics: rings that go with their process, and the roster that orders subscribing and publishing. */
#include "ring_fixture.h"
#include "ring_owned.h"

#define HISTORY 3

/* The topic's own ring, and one of a subscription, of this process. */
static struct ssm_ring *topic_of(struct ssm_pool *pool)
{
    return ring_open(pool, "topic", HISTORY, SSM_OVERFLOW_OVERWRITE);
}

static struct ssm_ring *subscribe(struct ssm_pool *pool, struct ssm_ring *topic, uint32_t count, int got)
{
    uint64_t room[HISTORY];
    struct ssm_ring *ring = ring_open(pool, "ring", 4, SSM_OWNED);
    CHECK_EQ(ssm_ring_number(ring), 0);
    CHECK_EQ(ssm_ring_enrol(topic, ring, count, room), got);
    return ring;
}

static uint32_t publish(struct ssm_pool *pool, struct ssm_ring *topic, uint64_t number)
{
    uint32_t roster = UINT32_MAX;
    uint64_t handle = alloc(pool, number);
    CHECK_EQ(ssm_ring_publish(topic, handle, 0, &roster), 0);
    CHECK_EQ(ssm_free(pool, handle), 0);
    return roster;
}

static uint32_t roster_of(struct ssm_ring *topic, uint32_t known)
{
    uint32_t roster = UINT32_MAX;
    CHECK_EQ(ssm_ring_roster(topic, known, &roster), 0);
    return roster;
}

/* ---- one process -------------------------------------------------------------------------------------------- */

static void test_a_subscription_begins_with_the_latest(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *topic = topic_of(f.pool);
    CHECK_EQ(roster_of(topic, 0), 0);
    for (uint64_t number = 0; number < 5; number++)
        CHECK_EQ(publish(f.pool, topic, number), 0);
    struct ssm_ring *ring = subscribe(f.pool, topic, 2, 2);
    CHECK_EQ(ssm_ring_number(ring), 1);
    CHECK_EQ(roster_of(topic, 0), 1);
    CHECK_EQ(roster_of(topic, 1), 1);
    CHECK_EQ(publish(f.pool, topic, 5), 1);
    get(f.pool, ring, 3);
    get(f.pool, ring, 4);
    check_empty(ring);
    for (uint64_t number = 3; number < 6; number++) /* they stay in the topic */
        get(f.pool, topic, number);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    ssm_ring_close(topic);
    fixture_close(&f);
}

static void test_what_this_process_holds_already(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *topic = topic_of(f.pool);
    uint32_t roster;
    uint64_t handle = alloc(f.pool, 7);
    CHECK_EQ(ssm_ring_publish(topic, handle, 0, &roster), 0);
    CHECK_EQ(ssm_ring_publish(topic, handle, 0, &roster), -SSM_E_QUEUED);
    struct ssm_ring *ring = subscribe(f.pool, topic, HISTORY, 1);
    CHECK_EQ(number_in(f.pool, handle), 7);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    get(f.pool, ring, 7);
    get(f.pool, topic, 7);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    ssm_ring_close(topic);
    fixture_close(&f);
}

/* A slot whose packet a dead process took is passed over. */
static void test_a_packet_that_is_gone_is_passed_over(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *topic = topic_of(f.pool);
    for (uint64_t number = 0; number < 3; number++)
        publish(f.pool, topic, number);
    struct ssm_ring_shared *shared = ssm_ring_shared_of(topic);
    const uint32_t taken = block_of(ssm_load_relaxed_u64(&shared->slots[1]));
    ssm_block_let_go(f.pool, taken, ring_id(f.pool, "topic"));
    struct ssm_ring *ring = subscribe(f.pool, topic, HISTORY, 2);
    get(f.pool, ring, 0);
    get(f.pool, ring, 2);
    ssm_ring_close(ring);
    ssm_ring_close(topic);
    fixture_close(&f);
}

static void test_refusals(void)
{
    struct fixture f = open_fixture();
    uint64_t room[8];
    uint32_t roster;
    struct ssm_ring *topic = topic_of(f.pool), *ring = ring_open(f.pool, "ring", 2, SSM_OWNED);
    struct ssm_ring *one = ring_open(f.pool, "one", 4, SSM_ONE_CONSUMER);
    struct ssm_ring *again = ring_open(f.pool, "again", 4, SSM_REDELIVER);
    CHECK_EQ(ssm_ring_enrol(topic, ring, 3, room), -EINVAL); /* more than the subscription takes */
    CHECK_EQ(ssm_ring_enrol(topic, topic, 1, room), -EINVAL);
    CHECK_EQ(ssm_ring_enrol(topic, ring, HISTORY + 1, room), -EINVAL);
    CHECK_EQ(ssm_ring_enrol(one, ring, 1, room), -EINVAL);
    CHECK_EQ(ssm_ring_enrol(again, ring, 1, room), -EINVAL);
    CHECK_EQ(ssm_ring_roster(one, 0, &roster), -EINVAL);
    CHECK_EQ(try_open(f.pool, "both", 4, SSM_OWNED | SSM_REDELIVER), -EINVAL);
    put(f.pool, ring, 1);
    put(f.pool, ring, 2);
    publish(f.pool, topic, 3);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    CHECK_EQ(ssm_ring_enrol(topic, ring, 1, room), -SSM_E_SHUTDOWN); /* the subscription's */
    CHECK_EQ(roster_of(topic, 0), 0);
    CHECK_EQ(ssm_ring_shutdown(topic, 1), 0);
    CHECK_EQ(ssm_ring_enrol(topic, ring, 0, room), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_ring_roster(topic, 0, &roster), -SSM_E_SHUTDOWN);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    ssm_ring_close(one);
    ssm_ring_close(again);
    ssm_ring_close(topic);
    fixture_close(&f);
}

/* ---- several processes -------------------------------------------------------------------------------------- */

static void own_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", 4, SSM_OWNED);
    for (uint64_t number = 0; number < 4; number++)
        put(pool, ring, number);
    board_set(f->board, READY, 1);
    while (board_get(f->board, GO) == 0)
        ssm_nap_ns(MS);
    if (board_get(f->board, GO) == 1)
        die_here();
    pool_end(pool);
}

/* Its ring is ended by whoever reaps it, or by itself; a put that waits for room returns. */
static void test_an_owned_ring_ends_with_its_process(uint32_t how)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(own_and_die, &f);
    AWAIT(board_get(f.board, READY) == 1);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_OWNED);
    uint64_t handle = alloc(f.pool, 4);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_FULL);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 5);
    board_set(f.board, GO, how);
    if (how == 1)
        child_died(child);
    else
        child_finish(child);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, (int64_t)(20000 * MS)), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_SHUTDOWN);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Without anything being done with the ring: a process that finds no block reaps, and has its packets. */
static void test_what_a_dead_process_was_to_get_is_free(void)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(own_and_die, &f);
    uint64_t handles[BLOCKS];
    AWAIT(board_get(f.board, READY) == 1);
    CHECK_EQ(ssm_alloc_many(f.pool, 8, BLOCKS - 4, 0, handles), 0);
    CHECK_EQ(ssm_alloc(f.pool, 8, 0, &handles[BLOCKS - 4]), -SSM_E_EXHAUSTED);
    board_set(f.board, GO, 1);
    child_died(child);
    CHECK_EQ(ssm_alloc_many(f.pool, 8, 4, (int64_t)(20000 * MS), &handles[BLOCKS - 4]), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    fixture_close(&f);
}

int main(void)
{
    test_a_subscription_begins_with_the_latest();
    test_what_this_process_holds_already();
    test_a_packet_that_is_gone_is_passed_over();
    test_refusals();
    test_an_owned_ring_ends_with_its_process(1);
    test_an_owned_ring_ends_with_its_process(2);
    test_what_a_dead_process_was_to_get_is_free();
    return 0;
}
