/* SPDX-License-Identifier: Apache-2.0
 *
 * Redelivery, by hand: what a dead consumer had taken comes back, at the front, in order, and once.
 * Its deaths at every store are in test_redelivery_deaths.c. */
#include "redelivery_fixture.h"
#include "ring_side.h"

#include <errno.h>

static void take_3_and_die(void *context)
{
    struct fixture *f = context;
    uint64_t handles[3];
    struct ssm_ring *ring = source(fixture_join(f));
    for (int i = 0; i < 3; i++) /* what came back comes alone */
        CHECK_EQ(ssm_ring_get(ring, handles + i, 1, 0), 1);
    CHECK_EQ(ssm_free(f->pool, handles[1]), 0);
    die_here();
}

static void test_front_and_order(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring_stats stats;
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    child_died(child_start(take_3_and_die, &f));
    CHECK_EQ(ssm_ring_depth(ring), 1);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_depth(ring), 3);
    put(f.pool, ring, 5);
    fixture_check(f.pool);
    get(f.pool, ring, 1, 1);
    CHECK_EQ(ssm_ring_depth(ring), 3);
    get(f.pool, ring, 3, 1);
    get(f.pool, ring, 4, 0);
    get(f.pool, ring, 5, 0);
    check_empty(ring);
    CHECK_EQ(ssm_ring_stats(f.pool, 1, &stats), 0);
    CHECK(stats.puts == 5 && stats.gets == 7 && stats.redelivered == 2 && stats.depth == 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* What came back comes first; a process that dies with it gives it back again, in the same order. */
static void test_twice(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    child_died(child_start(take_3_and_die, &f));
    fixture_reap(f.pool);
    child_died(child_start(take_3_and_die, &f)); /* 1, 3, 4; frees 3 */
    fixture_reap(f.pool);
    fixture_check(f.pool);
    uint64_t handles[4];
    for (int i = 0; i < 2; i++) /* alone, however many are asked for */
        CHECK_EQ(ssm_ring_get(ring, handles + i, 4, 0), 1);
    CHECK_EQ(ssm_packet_redelivered(f.pool, handles[0]), 1);
    CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0);
    CHECK_EQ(ssm_packet_redelivered(f.pool, handles[0]), -SSM_E_STALE);
    check_empty(ring);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* The index that a packet was put at names it, also when it comes back; how often it was delivered is counted. */
static void test_position(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    uint64_t handles[2], position = 77, count;
    struct ssm_ring *ring = source(f.pool);
    child_died(child_start(take_3_and_die, &f));
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_get(ring, handles, 1, 0), 1);
    const uint64_t first = ssm_packet_delivery(f.pool, handles[0]);
    CHECK_EQ(ssm_packet_position(f.pool, handles[0], SSM_NO_DELIVERY, &position), 0);
    CHECK_EQ(position, 77);
    CHECK_EQ(ssm_packet_position(f.pool, handles[0], first, &position), 1);
    CHECK_EQ(position, 0);
    CHECK_EQ(ssm_packet_deliveries(f.pool, handles[0], first, &count), 1);
    CHECK_EQ(count, 2);
    CHECK_EQ(ssm_ring_get(ring, handles + 1, 1, 0), 1);
    CHECK_EQ(ssm_packet_position(f.pool, handles[1], SSM_ANY_DELIVERY, &position), 1);
    CHECK_EQ(position, 2);
    CHECK_EQ(ssm_packet_position(f.pool, handles[1], first, &position), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 1, 0, 0), 0);
    CHECK_EQ(ssm_packet_position(f.pool, handles[0], first, &position), -SSM_E_STALE);
    CHECK_EQ(ssm_free(f.pool, handles[1]), 0);
    get(f.pool, ring, 4, 0);
    handles[0] = take(f.pool, ring, 1, 0);
    CHECK_EQ(ssm_packet_position(f.pool, handles[0], SSM_ANY_DELIVERY, &position), 1);
    CHECK_EQ(position, PACKETS); /* it was put once more */
    CHECK_EQ(ssm_packet_deliveries(f.pool, handles[0], SSM_ANY_DELIVERY, &count), 1);
    CHECK_EQ(count, 1);
    CHECK_EQ(ssm_packet_deliveries(f.pool, handles[0], first, &count), 0);
    CHECK_EQ(ssm_packet_position(f.pool, handles[0], first, &position), 0);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void check_oldest(struct ssm_ring *ring, uint64_t wanted, int returned)
{
    uint64_t position = 77;
    CHECK_EQ(ssm_ring_oldest(ring, &position), returned);
    CHECK_EQ(position, wanted);
}

/* The oldest packet that is not done with, wherever it is: queued, in hand, returned, in hand again. */
static void test_oldest(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[2], position;
    struct ssm_ring *ring = source(f.pool), *plain = sink(f.pool);
    CHECK_EQ(ssm_ring_oldest(plain, &position), -EINVAL);
    check_oldest(ring, 0, 0); /* nothing was ever put */
    fill(&f);
    check_oldest(ring, 0, 0);
    child_died(child_start(take_3_and_die, &f)); /* has 0 and 2, and has freed 1 */
    check_oldest(ring, 0, 0);                    /* a dead process's, which was not reaped */
    fixture_reap(f.pool);
    check_oldest(ring, 0, 1);
    handles[0] = take(f.pool, ring, 1, 1);
    check_oldest(ring, 0, 0);
    handles[1] = take(f.pool, ring, 3, 1);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    check_oldest(ring, 2, 0);
    CHECK_EQ(ssm_ring_put(plain, handles + 1, 1, 0, 0), 0);
    check_oldest(ring, 3, 0); /* is queued */
    handles[0] = take(f.pool, ring, 4, 0);
    check_oldest(ring, 3, 0);
    CHECK_EQ(ssm_ring_put(plain, handles, 1, SSM_KEEP, 0), 0); /* is not done with */
    check_oldest(ring, 3, 0);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    check_oldest(ring, 4, 0);
    ssm_ring_close(plain);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Puts a new packet, which is done with what it took first, and dies with what it took next. */
static void make_one_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = source(pool);
    const uint64_t old = take(pool, ring, 1, 0), made = alloc(pool, 11);
    const struct ssm_done done = {&old, NULL, 1, 0};
    take(pool, ring, 2, 0);
    CHECK_EQ(ssm_ring_put_done(sink(pool), &made, NULL, 1, &done, 0, 0), 0);
    die_here();
}

static void test_done(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *made = sink(f.pool);
    child_died(child_start(make_one_and_die, &f));
    fixture_reap(f.pool);
    fixture_check(f.pool);
    get(f.pool, made, 11, 0);
    check_empty(made);
    get(f.pool, ring, 2, 1);
    get(f.pool, ring, 3, 0);
    get(f.pool, ring, 4, 0);
    check_empty(ring);
    ssm_ring_close(made);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static int put_done(struct ssm_ring *ring, uint64_t made, uint64_t old, uint64_t delivery)
{
    const struct ssm_done done = {&old, &delivery, 1, 1};
    return ssm_ring_put_done(ring, &made, NULL, 1, &done, 0, 0);
}

/* After an error nothing has changed: both packets are this process's, and the delivery is open. */
static void test_done_refused(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *made = sink(f.pool);
    const uint64_t old = take(f.pool, ring, 1, 0), new = alloc(f.pool, 11), plain = alloc(f.pool, 12);
    const uint64_t delivery = ssm_packet_delivery(f.pool, old), twice[] = {old, old};
    const struct ssm_done both = {twice, NULL, 2, 0}, none = {NULL, NULL, 0, 0};
    for (uint64_t number = 2; number <= PACKETS; number++)
        get(f.pool, ring, number, 0);
    CHECK_EQ(put_done(made, new, plain, SSM_ANY_DELIVERY), -SSM_E_DONE);
    CHECK_EQ(put_done(made, new, old, SSM_NO_DELIVERY), -SSM_E_DONE);
    CHECK_EQ(put_done(made, new, old + (UINT64_C(1) << 32), delivery), -SSM_E_DONE); /* no packet of this process */
    CHECK_EQ(put_done(made, old, old, delivery), -SSM_E_DONE);                       /* is put itself */
    CHECK_EQ(ssm_ring_put_done(made, &new, NULL, 1, &both, 0, 0), -SSM_E_DONE);
    CHECK_EQ(put_done(made, new + (UINT64_C(1) << 32), old, delivery), -SSM_E_STALE);
    for (uint64_t number = 1; number <= PACKETS; number++)
        put(f.pool, made, number);
    CHECK_EQ(put_done(made, new, old, delivery), -SSM_E_FULL);
    get(f.pool, made, 1, 0);
    CHECK_EQ(ssm_ring_set_acl(made, SSM_ACL_RDONLY), 0);
    CHECK_EQ(put_done(made, new, old, delivery), -SSM_E_RDONLY);
    CHECK_EQ(ssm_ring_set_acl(made, SSM_ACL_RDWR), 0);
    CHECK_EQ(ssm_ring_put_done(made, &plain, NULL, 1, &none, 0, 0), 0);
    get(f.pool, made, 2, 0);
    CHECK_EQ(ssm_packet_delivery(f.pool, old), delivery); /* it is open still */
    CHECK_EQ(put_done(made, new, old, delivery), 0);
    CHECK_EQ(put_done(made, old, old, delivery), -SSM_E_DONE); /* has ended */
    CHECK_EQ(ssm_packet_delivery(f.pool, old), SSM_NO_DELIVERY);
    CHECK_EQ(ssm_free(f.pool, old), 0); /* its reference had stayed */
    fixture_check(f.pool);
    ssm_ring_close(made);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* A ring that drops: what is dropped is done, and so is what it was made from. One that samples takes one at a time. */
static void test_done_dropped(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *drops = ring_open(f.pool, "drops", 2, SSM_OVERFLOW_DROP);
    struct ssm_ring *samples = ring_open(f.pool, "samples", 2, SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(2));
    const uint64_t old[] = {take(f.pool, ring, 1, 0), take(f.pool, ring, 2, 0)};
    const uint64_t made[] = {alloc(f.pool, 11), alloc(f.pool, 12)}, third = alloc(f.pool, 13);
    const struct ssm_done first = {old, NULL, 1, 0}, second = {old + 1, NULL, 1, 0};
    put(f.pool, drops, 10);
    CHECK_EQ(ssm_ring_put_done(samples, made, NULL, 2, &first, 0, 0), -EINVAL);
    CHECK_EQ(ssm_ring_put_done(drops, made, NULL, 2, &first, SSM_KEEP, 0), 1);
    CHECK_EQ(ssm_packet_delivery(f.pool, old[0]), SSM_NO_DELIVERY);
    CHECK(ssm_packet_delivery(f.pool, old[1]) != SSM_NO_DELIVERY);
    CHECK_EQ(ssm_ring_put_done(drops, &third, NULL, 1, &second, 0, 0), 1);
    CHECK_EQ(ssm_packet_delivery(f.pool, old[1]), SSM_NO_DELIVERY);
    CHECK_EQ(ssm_free_many(f.pool, old, 2), 0);
    CHECK_EQ(ssm_free_many(f.pool, made, 2), 0);
    fixture_check(f.pool);
    ssm_ring_close(samples);
    ssm_ring_close(drops);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_close_gives_nothing_back(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_pool *consumer = fixture_attach(f.fd, 0);
    struct ssm_ring *theirs = source(consumer), *ring = source(f.pool);
    take(consumer, theirs, 1, 0);
    ssm_ring_close(theirs);
    pool_end(consumer);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_depth(ring), PACKETS - 1);
    get(f.pool, ring, 2, 0);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* What was taken through a ring object that is closed since, and freed, does not come back. */
static void free_after_ring_close(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = source(fixture_join(f));
    uint64_t handle = take(f->pool, ring, 1, 0);
    ssm_ring_close(ring);
    CHECK_EQ(ssm_free(f->pool, handle), 0);
    die_here();
}

static void test_ring_closed_before_free(void)
{
    struct ssm_pool_options cached = options();
    cached.cache = 1; /* 1/8 of 8: a freed block keeps this process's bit, and its generation */
    struct fixture f = fixture_open(&cached);
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    child_died(child_start(free_after_ring_close, &f));
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_depth(ring), PACKETS - 1);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_shutdown(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    uint64_t handle;
    child_died(child_start(take_3_and_die, &f));
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
    get(f.pool, ring, 4, 0); /* nobody has reaped yet */
    get(f.pool, ring, 1, 1); /* but before the end is said, somebody does */
    get(f.pool, ring, 3, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_SHUTDOWN);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_immediate_shutdown(void)
{
    for (int reaped_before = 0; reaped_before < 2; reaped_before++) {
        struct fixture f = open_fixture();
        fill(&f);
        struct ssm_ring *ring = source(f.pool);
        uint64_t handle;
        child_died(child_start(take_3_and_die, &f));
        if (reaped_before)
            fixture_reap(f.pool);
        CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
        fixture_reap(f.pool);
        CHECK_EQ(ssm_ring_depth(ring), 0);
        CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_SHUTDOWN);
        CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
        ssm_ring_close(ring);
        fixture_close(&f);
    }
}

static void take_2_and_die(void *context)
{
    struct fixture *f = context;
    uint64_t handles[2];
    CHECK_EQ(ssm_ring_get(source(fixture_join(f)), handles, 2, 0), 2);
    die_here();
}

/* Died before it published the tail: its slots are void, and stay so when what they held is put back behind the others. */
static void test_void_slots_stay_void(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    child_died(child_start(take_2_and_die, &f));
    ssm_store_release_u64(&ssm_ring_shared_at(f.pool, 1)->consumer.index, 0);
    fixture_reap(f.pool);
    uint64_t handle = take(f.pool, ring, 1, 1);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    fixture_check(f.pool);
    get(f.pool, ring, 2, 1);
    get(f.pool, ring, 3, 0);
    get(f.pool, ring, 4, 0);
    get(f.pool, ring, 1, 0);
    check_empty(ring);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Out of each ring the packet is under way once: it cannot be put there by somebody else meanwhile. */
static void test_under_way(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *consumer = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = source(f.pool), *theirs = source(consumer), *sinks[] = {sink(f.pool), sink(consumer)};
    uint64_t handle = alloc(f.pool, 1);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), -SSM_E_QUEUED);
    uint64_t taken = take(consumer, theirs, 1, 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), -SSM_E_QUEUED);
    fixture_check(f.pool);
    CHECK_EQ(ssm_ring_put(sinks[1], &taken, 1, 0, 0), 0); /* handed on */
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    get(f.pool, sinks[0], 1, 0);
    taken = take(consumer, theirs, 1, 0);
    CHECK_EQ(ssm_ring_put(theirs, &taken, 1, 0, 0), 0); /* back where it was */
    get(f.pool, ring, 1, 0);
    struct ssm_ring *rings[] = {ring, theirs, sinks[0], sinks[1]};
    for (int i = 0; i < 4; i++)
        ssm_ring_close(rings[i]);
    pool_end(consumer);
    fixture_close(&f);
}

static void forward_keeping_a_reference(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = source(fixture_join(f)), *to = sink(f->pool);
    uint64_t held = take(f->pool, ring, 1, 0), kept = take(f->pool, ring, 2, 0), viewed = take(f->pool, ring, 3, 0);
    CHECK_EQ(ssm_packet_hold(f->pool, held), 0);
    CHECK_EQ(ssm_ring_put(to, &held, 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(to, &kept, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_ring_put(to, &viewed, 1, SSM_KEEP | SSM_HANDOVER, 0), 0);
    die_here();
}

/* Whatever references are left, who has put a packet into a ring has handed it on, unless he keeps it. */
static void test_references(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *to = sink(f.pool);
    child_died(child_start(forward_keeping_a_reference, &f));
    fixture_reap(f.pool);
    get(f.pool, ring, 2, 1);
    get(f.pool, ring, 4, 0);
    check_empty(ring);
    for (uint64_t number = 1; number <= 3; number++)
        get(f.pool, to, number, 0);
    ssm_ring_close(ring);
    ssm_ring_close(to);
    fixture_close(&f);
}

/* A packet whose delivery is over is one like any other, whatever references are left. */
static void test_after_a_delivery(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *to = sink(f.pool);
    uint64_t handle = take(f.pool, ring, 1, 0);
    const struct ssm_claim *claim = &f.pool->claims[block_of(handle)];
    CHECK(claim->flags & SSM_CLAIM_DELIVERED);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    CHECK_EQ(ssm_ring_put(to, &handle, 1, 0, 0), 0);
    CHECK(claim->references == 1 && !(claim->flags & SSM_CLAIM_DELIVERED));
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    get(f.pool, to, 1, 0);
    ssm_ring_close(ring);
    ssm_ring_close(to);
    fixture_close(&f);
}

/* A packet that was given back, and that this process holds still, is not its alone. */
static void test_after_it_was_given_back(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *to = sink(f.pool);
    uint64_t handle = take(f.pool, ring, 1, 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    CHECK_EQ(ssm_delivery_return(f.pool, handle, SSM_ANY_DELIVERY), 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_ring_put(to, &handle, 1, 0, 0), 0); /* from one reference: both rings have it now */
    get(f.pool, ring, 1, 1);
    get(f.pool, to, 1, 0);
    ssm_ring_close(ring);
    ssm_ring_close(to);
    fixture_close(&f);
}

static void fork_without_telling(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = source(fixture_join(f));
    take(f->pool, ring, 1, 0);
    pid_t child = fork(); /* holds nothing of its parent's */
    if (child == 0) {
        fixture_join(f);
        take(f->pool, ring, 2, 0);
        die_here();
    }
    child_died(child);
    AWAIT(board_get(f->board, DONE) == 1);
    die_here();
}

static void test_fork(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    pid_t parent = child_start(fork_without_telling, &f);
    AWAIT(ssm_ring_depth(ring) == 2);
    AWAIT((fixture_reap(f.pool), ssm_ring_depth(ring)) == 3);
    get(f.pool, ring, 2, 1);
    board_set(f.board, DONE, 1);
    child_died(parent);
    fixture_reap(f.pool);
    get(f.pool, ring, 1, 1);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void take_all_in_all_slots(void *context)
{
    struct fixture *f = context;
    for (uint64_t number = 1;; number++) {
        struct ssm_pool *pool;
        int result = ssm_pool_attach(f->fd, NULL, &pool);
        if (result == -SSM_E_HOLDERS)
            die_here();
        CHECK_EQ(result, 0);
        if (number <= PACKETS)
            take(pool, source(pool), number, 0);
    }
}

/* Died with the slot in hand, before its former owner's packets were returned. */
static void adopt_and_die(void *context)
{
    struct fixture *f = context;
    bool adopted;
    CHECK_EQ(ssm_registry_lock(f->pool, 1000 * MS), 0);
    CHECK_EQ(ssm_registry_take(f->pool, true, &adopted), 0);
    CHECK(adopted);
    die_here();
}

static void test_adoption(void)
{
    for (int adopters = 0; adopters < 3; adopters++) {
        struct fixture f = open_fixture();
        fill(&f);
        struct ssm_ring *ring = source(f.pool);
        child_died(child_start(take_all_in_all_slots, &f));
        CHECK_EQ(ssm_registry_find_free(f.pool), SSM_NIL);
        for (int i = 0; i < adopters; i++)
            child_died(child_start(adopt_and_die, &f));
        pool_end(fixture_attach(f.fd, 0));
        for (uint64_t number = 1; number <= PACKETS; number++)
            get(f.pool, ring, number, 1);
        check_empty(ring);
        ssm_ring_close(ring);
        fixture_close(&f);
    }
}

/* Somebody alive has stolen the side of a dead forwarder and is repairing it: that one has to wait. */
static void test_repair_under_way(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool), *to = sink(f.pool);
    child_died(child_start(take_3_and_die, &f));
    struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, 2);
    CHECK(shared != NULL && f.pool->self == 0);
    ssm_store_release_u64(&shared->producer.lock.word, f.pool->lock_word); /* the child's slot was 3 */
    ssm_store_release_u64(&shared->producer.put_owner, (uint64_t)3 << 32 | 1);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_depth(ring), 1);
    CHECK_EQ(held_by(f.pool, 0, 3), 2);
    ssm_store_release_u64(&shared->producer.put_owner, 0);
    ssm_store_release_u64(&shared->producer.lock.word, 0);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_ring_depth(ring), 3);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    ssm_ring_close(ring);
    ssm_ring_close(to);
    fixture_close(&f);
}

static void test_check_finds(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    struct ssm_redelivery table;
    CHECK(ssm_ring_table(f.pool, 1, &table));
    uint64_t handle = take(f.pool, ring, 1, 0);
    struct ssm_u64 *taken = &table.entries[block_of(handle)].taken;
    uint64_t was = ssm_load_acquire_u64(taken);
    fixture_check(f.pool);
    ssm_store_release_u64(taken, (was & ~(uint64_t)UINT32_MAX) | UINT32_C(1) << 31);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1); /* returned, but not the ring's */
    ssm_store_release_u64(taken, was + 7);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1); /* nobody's */
    ssm_store_release_u64(taken, was);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    child_died(child_start(take_3_and_die, &f)); /* 2, 3, 4; frees 3 */
    fixture_reap(f.pool);
    ssm_store_release_u32(&ssm_ring_shared_at(f.pool, 1)->returned, 0);
    CHECK_EQ(ssm_check(f.pool, NULL, NULL), 1); /* forgotten */
    fixture_reap(f.pool);
    fixture_check(f.pool);
    get(f.pool, ring, 2, 1);
    get(f.pool, ring, 4, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* What an entry says of its block's former packet is owed to nobody: a get that meets the end does not wait for it. */
static void test_old_entries_are_not_owed(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = source(f.pool);
    struct ssm_redelivery table;
    CHECK(ssm_ring_table(f.pool, 1, &table));
    uint64_t handle = alloc(f.pool, 1), dead = UINT64_C(1) << 30 | (ssm_holder_high(f.pool) + 1);
    struct ssm_u64 *taken = &table.entries[block_of(handle)].taken;
    struct ssm_u32 *kind = &ssm_holder_at(f.pool, (uint32_t)dead & 0xfff)->kind;
    ssm_store_release_u32(kind, SSM_HOLDER_PROCESS); /* and nobody lives there */
    ssm_store_release_u64(taken, (handle & ~(uint64_t)UINT32_MAX) | dead);
    CHECK(ssm_redelivery_is_owed(f.pool, &table));
    ssm_store_release_u64(taken, ((handle & ~(uint64_t)UINT32_MAX) - (UINT64_C(1) << 32)) | dead);
    CHECK(!ssm_redelivery_is_owed(f.pool, &table));
    ssm_store_release_u64(taken, handle & ~(uint64_t)UINT32_MAX);
    CHECK(!ssm_redelivery_is_owed(f.pool, &table));
    ssm_store_release_u32(kind, SSM_HOLDER_NONE);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static int looks_before;

static bool reap_at_the_last_look(struct ssm_pool *pool)
{
    if (++looks_before == SSM_RING_LOOKS)
        fixture_reap(pool);
    return true;
}

/* What comes back while a get looks for the last time is got: it tries once more before it says that no more will come. */
static void test_returned_at_the_last_look(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_ring *ring = source(f.pool);
    bool (*as_it_was)(struct ssm_pool *pool) = f.pool->on_stall;
    child_died(child_start(take_3_and_die, &f));
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
    get(f.pool, ring, 4, 0);
    f.pool->on_stall = reap_at_the_last_look;
    get(f.pool, ring, 1, 1);
    f.pool->on_stall = as_it_was;
    CHECK_EQ(looks_before, SSM_RING_LOOKS);
    get(f.pool, ring, 3, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static bool close_while_it_looks(struct ssm_pool *pool)
{
    looks_before++;
    CHECK_EQ(ssm_pool_close(pool), 0);
    return true;
}

static void test_closed_while_it_looks(void)
{
    struct fixture f = open_fixture();
    fill(&f);
    struct ssm_pool *pool = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = source(pool);
    uint64_t handle;
    child_died(child_start(take_3_and_die, &f));
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
    get(pool, ring, 4, 0);
    looks_before = 0;
    pool->on_stall = close_while_it_looks;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_SHUTDOWN);
    CHECK_EQ(looks_before, 1);
    ssm_ring_close(ring);
    pool_end(pool);
    fixture_reap(f.pool);
    fixture_close(&f);
}

int main(void)
{
    alarm(280);
    test_front_and_order();
    test_twice();
    test_position();
    test_oldest();
    test_done();
    test_done_refused();
    test_done_dropped();
    test_close_gives_nothing_back();
    test_ring_closed_before_free();
    test_shutdown();
    test_immediate_shutdown();
    test_void_slots_stay_void();
    test_under_way();
    test_references();
    test_after_a_delivery();
    test_after_it_was_given_back();
    test_fork();
    test_adoption();
    test_repair_under_way();
    test_check_finds();
    test_old_entries_are_not_owed();
    test_returned_at_the_last_look();
    test_closed_while_it_looks();
    return 0;
}
