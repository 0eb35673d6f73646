/* SPDX-License-Identifier: Apache-2.0
 *
 * When a call ends because nobody is left on the other side of a ring, and when it does not. */
#include "ring.h"
#include "ring_fixture.h"

#define BOTH (SSM_ONE_PRODUCER | SSM_ONE_CONSUMER)

/* Two attachments with the ring open: one that stays, and one that comes and goes. */
struct two {
    struct fixture   f;
    struct ssm_pool *other;
    struct ssm_ring *ring, *others;
};

static struct two begin(uint32_t flags, uint64_t alive_for_ns)
{
    struct two two = {.f = open_fixture()};
    const struct ssm_ring_options options = {.capacity = 2, .flags = flags, .alive_for_ns = alive_for_ns};
    two.other = fixture_attach(two.f.fd, 0);
    CHECK_EQ(ssm_ring_open(two.f.pool, "ring", &options, &two.ring), 0);
    CHECK_EQ(ssm_ring_open(two.other, "ring", &options, &two.others), 0);
    return two;
}

static void end(struct two *two)
{
    if (two->others != NULL)
        ssm_ring_close(two->others);
    ssm_ring_close(two->ring);
    if (two->other != NULL)
        pool_end(two->other);
    fixture_close(&two->f);
}

/* The other one closes the ring. */
static void others_close(struct two *two)
{
    ssm_ring_close(two->others);
    two->others = NULL;
}

static int try_get(struct ssm_ring *ring)
{
    uint64_t handle;
    return ssm_ring_get(ring, &handle, 1, 0);
}

/* The packet is the caller's, whatever comes of it. */
static int try_put(struct ssm_pool *pool, struct ssm_ring *ring, int64_t timeout_ns)
{
    uint64_t handle = alloc(pool, 7);
    int result = ssm_ring_put(ring, &handle, 1, 0, timeout_ns);
    if (result < 0) {
        CHECK_EQ(number_in(pool, handle), 7);
        CHECK_EQ(ssm_free(pool, handle), 0);
    }
    return result;
}

static int is_ready(struct ssm_ring *ring, enum ssm_readiness what)
{
    struct ssm_interest interest = {.ring = ring, .what = what};
    return ssm_wait_rings(&interest, 1, NULL, 0);
}

static void test_a_ring_that_never_had_a_partner_waits(void)
{
    struct two two = begin(BOTH, 0);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    others_close(&two); /* it had it open, and never used it */
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 0);
    end(&two);
    two = begin(BOTH, 0);
    put(two.f.pool, two.ring, 1);
    put(two.f.pool, two.ring, 2);
    others_close(&two);
    CHECK_EQ(try_put(two.f.pool, two.ring, (int64_t)MS), -SSM_E_FULL);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_PUT), 0);
    CHECK_EQ(ssm_ring_shutdown(two.ring, 1), 0);
    end(&two);
}

static void test_a_producer_closes(uint32_t flags)
{
    struct two two = begin(flags, 0);
    struct ssm_partner_info partner;
    put(two.other, two.others, 1);
    put(two.other, two.others, 2);
    get(two.f.pool, two.ring, 1);
    ssm_ring_partner(two.ring, SSM_READY_TO_GET, &partner);
    CHECK(partner.pid == (uint32_t)getpid() && partner.gone_ns == 0);
    others_close(&two);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 1);
    get(two.f.pool, two.ring, 2); /* what it put comes first */
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 1);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    ssm_ring_partner(two.ring, SSM_READY_TO_GET, &partner);
    CHECK(partner.pid == (uint32_t)getpid() && partner.died == 0 && partner.gone_ns > 0);
    put(two.f.pool, two.ring, 3); /* a new producer: this one */
    get(two.f.pool, two.ring, 3);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 0);
    end(&two);
}

static void test_a_consumer_closes(uint32_t flags)
{
    struct two two = begin(flags, 0);
    put(two.f.pool, two.ring, 1);
    get(two.other, two.others, 1);
    others_close(&two);
    put(two.f.pool, two.ring, 2); /* there is room */
    put(two.f.pool, two.ring, 3);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_PUT), 1);
    CHECK_EQ(try_put(two.f.pool, two.ring, 0), -SSM_E_ORPHANED);
    CHECK_EQ(try_put(two.f.pool, two.ring, SSM_FOREVER), -SSM_E_ORPHANED);
    get(two.f.pool, two.ring, 2); /* a new consumer: this one */
    put(two.f.pool, two.ring, 4);
    CHECK_EQ(try_put(two.f.pool, two.ring, 0), -SSM_E_FULL);
    CHECK_EQ(ssm_ring_shutdown(two.ring, 1), 0);
    end(&two);
}

/* Dead, and not reaped: a call that only tries finds it, now and then. */
static void test_a_producer_dies(void)
{
    struct two two = begin(SSM_ONE_PRODUCER, 0);
    struct ssm_partner_info partner;
    put(two.other, two.others, 1);
    get(two.f.pool, two.ring, 1);
    ssm_ring_close_spare(two.others);
    (void)kill_attachment(two.other, two.f.fd);
    AWAIT(try_get(two.ring) == -SSM_E_ORPHANED);
    ssm_ring_partner(two.ring, SSM_READY_TO_GET, &partner);
    CHECK(partner.died == 1 && partner.gone_ns > 0);
    two.others = NULL;
    two.other = NULL;
    end(&two);
}

static void test_a_consumer_dies(void)
{
    struct two two = begin(SSM_ONE_CONSUMER, 0);
    CHECK_EQ(try_get(two.others), -SSM_E_EMPTY); /* that makes it the consumer */
    put(two.f.pool, two.ring, 1);
    put(two.f.pool, two.ring, 2);
    ssm_ring_close_spare(two.others);
    (void)kill_attachment(two.other, two.f.fd);
    CHECK_EQ(try_put(two.f.pool, two.ring, SSM_FOREVER), -SSM_E_ORPHANED);
    CHECK_EQ(ssm_ring_shutdown(two.ring, 1), 0);
    two.others = NULL;
    two.other = NULL;
    end(&two);
}

static void test_time_of_grace(void)
{
    struct two two = begin(SSM_ONE_PRODUCER, 50 * MS);
    CHECK_EQ(ssm_ring_alive_for_ns(two.ring), 50 * MS);
    put(two.other, two.others, 1);
    get(two.f.pool, two.ring, 1);
    uint64_t since_ns = ssm_now_ns(), handle;
    ssm_ring_release_sides(two.other, ring_id(two.other, "ring"));
    CHECK_EQ(ssm_ring_get(two.ring, &handle, 1, SSM_FOREVER), -SSM_E_ORPHANED);
    CHECK(ssm_now_ns() - since_ns >= 50 * MS);
    put(two.other, two.others, 2); /* back again: the next time of grace begins when it goes */
    get(two.f.pool, two.ring, 2);
    since_ns = ssm_now_ns();
    ssm_ring_release_sides(two.other, ring_id(two.other, "ring"));
    AWAIT(is_ready(two.ring, SSM_READY_TO_GET) == 1);
    CHECK(ssm_now_ns() - since_ns >= 50 * MS);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    end(&two);
}

/* Whoever only borrows a side, to shut the ring down, is no partner. */
static void test_a_shutdown_is_no_partner(void)
{
    struct two two = begin(BOTH, 0);
    CHECK_EQ(ssm_ring_shutdown(two.others, 1), 0);
    CHECK_EQ(ssm_ring_set_acl(two.ring, SSM_ACL_RDWR), 0);
    ssm_lock_take(two.other, &shared_of(two.other)->producer.lock, 0, NULL, NULL);
    ssm_ring_close_spare(two.others);
    (void)kill_attachment(two.other, two.f.fd); /* in a shutdown */
    fixture_reap(two.f.pool);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    two.others = NULL;
    two.other = NULL;
    end(&two);
}

static void test_shut_down_comes_first(void)
{
    struct two two = begin(BOTH, 0);
    put(two.other, two.others, 1);
    get(two.f.pool, two.ring, 1);
    CHECK_EQ(ssm_ring_shutdown(two.others, 0), 0);
    others_close(&two);
    CHECK_EQ(try_get(two.ring), -SSM_E_SHUTDOWN);
    end(&two);
}

static void test_wait_anyway(void)
{
    struct two two = begin(BOTH | SSM_WAIT_ANYWAY, 0);
    put(two.other, two.others, 1);
    get(two.f.pool, two.ring, 1);
    others_close(&two);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 0);
    end(&two);
}

static void test_a_ring_that_overflows_never_waits(void)
{
    struct two two = begin(SSM_ONE_CONSUMER | SSM_OVERFLOW_DROP, 0);
    put(two.f.pool, two.ring, 1);
    get(two.other, two.others, 1);
    others_close(&two);
    put(two.f.pool, two.ring, 2);
    put(two.f.pool, two.ring, 3);
    uint64_t handle = alloc(two.f.pool, 4);
    CHECK_EQ(ssm_ring_put(two.ring, &handle, 1, 0, 0), 1); /* dropped */
    CHECK_EQ(ssm_ring_shutdown(two.ring, 1), 0);
    end(&two);
}

/* What a dead consumer had taken comes back before a redelivering ring says that nobody puts. */
static void test_deliveries_come_back_first(void)
{
    struct two two = begin(SSM_ONE_PRODUCER | SSM_REDELIVER, 0);
    uint64_t handle;
    put(two.f.pool, two.ring, 1);
    CHECK_EQ(ssm_ring_get(two.others, &handle, 1, 0), 1);
    ssm_ring_close_spare(two.others);
    ssm_ring_release_sides(two.f.pool, ring_id(two.f.pool, "ring"));
    (void)kill_attachment(two.other, two.f.fd);
    CHECK_EQ(ssm_ring_get(two.ring, &handle, 1, SSM_FOREVER), 1);
    CHECK_EQ(number_in(two.f.pool, handle), 1);
    CHECK_EQ(ssm_free(two.f.pool, handle), 0);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    two.others = NULL;
    two.other = NULL;
    end(&two);
}

/* Shared sides, on request: while one of the processes that used the side is left, calls wait. */
static void test_shared_sides(void)
{
    struct two two = begin(SSM_PEERS, 0);
    struct ssm_partner_info partner;
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    put(two.other, two.others, 1);
    put(two.f.pool, two.ring, 2);
    get(two.f.pool, two.ring, 1);
    get(two.f.pool, two.ring, 2);
    others_close(&two);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY); /* this process has put, too */
    ssm_ring_close(two.ring);
    two.ring = ring_open(two.f.pool, "ring", 2, SSM_PEERS);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    two.others = ring_open(two.other, "ring", 2, SSM_PEERS);
    put(two.other, two.others, 3);
    get(two.f.pool, two.ring, 3);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    (void)kill_attachment(two.other, two.f.fd);
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 0);
    fixture_reap(two.f.pool);
    ssm_ring_close_spare(two.others); /* of the dead: it has no bits any more */
    CHECK_EQ(is_ready(two.ring, SSM_READY_TO_GET), 1);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    ssm_ring_partner(two.ring, SSM_READY_TO_GET, &partner);
    CHECK(partner.pid == (uint32_t)getpid() && partner.died == 1);
    two.others = NULL;
    two.other = NULL;
    end(&two);
}

/* A process that has the ring open and has used neither side is waited for, until it takes a packet or closes the ring. */
static void test_who_may_come(void)
{
    struct two two = begin(SSM_PEERS, 0);
    put(two.f.pool, two.ring, 1);
    put(two.f.pool, two.ring, 2);
    ssm_ring_close(two.ring);
    two.ring = ring_open(two.f.pool, "ring", 2, SSM_PEERS);
    get(two.f.pool, two.ring, 1);
    struct ssm_ring *again = ring_open(two.f.pool, "ring", 2, SSM_PEERS);
    get(two.other, two.others, 2);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY); /* another thread may put, by the other handle */
    CHECK_EQ(is_ready(again, SSM_READY_TO_GET), 1);
    ssm_ring_close(again);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    CHECK_EQ(try_get(two.others), -SSM_E_ORPHANED);
    struct ssm_ring *third = ring_open(two.other, "ring", 2, SSM_PEERS);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    put(two.other, third, 3);
    get(two.f.pool, two.ring, 3);
    ssm_ring_close(third);
    CHECK_EQ(try_get(two.ring), -SSM_E_ORPHANED);
    end(&two);
}

/* The time of grace begins when the last process that might have come goes, whatever it has done. */
static void test_grace_of_shared_sides(void)
{
    struct two two = begin(SSM_PEERS, UINT64_C(3600000000000));
    put(two.other, two.others, 1);
    get(two.f.pool, two.ring, 1);
    others_close(&two);
    CHECK_EQ(try_get(two.ring), -SSM_E_EMPTY);
    const struct ssm_u64 *gone_ns = &ssm_ring_shared_of(two.ring)->last_producer.gone_ns;
    const uint64_t first_ns = ssm_load_relaxed_u64(gone_ns);
    const struct ssm_ring_options any = {.as_it_is = UINT32_MAX};
    CHECK_EQ(ssm_ring_open(two.other, "ring", &any, &two.others), 0);
    others_close(&two);
    CHECK(first_ns > 0 && ssm_load_relaxed_u64(gone_ns) > first_ns);
    end(&two);
}

static void test_options(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring;
    struct ssm_ring_options options = {.capacity = 4, .alive_for_ns = 1};
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), -EINVAL); /* which side? */
    options.flags = SSM_ONE_PRODUCER | SSM_WAIT_ANYWAY;
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), -EINVAL);
    options.flags = SSM_PEERS | SSM_WAIT_ANYWAY;
    options.alive_for_ns = 0;
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), -EINVAL);
    options.alive_for_ns = 1;
    options.flags = SSM_ONE_PRODUCER | SSM_ALIVE_FOR; /* which says what is not asked for */
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), -EINVAL);
    options.flags = SSM_ONE_PRODUCER;
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), 0);
    options.alive_for_ns = 2;
    CHECK_EQ(ssm_ring_matches(ring, &options), 0);
    options.as_it_is = SSM_ALIVE_FOR;
    CHECK_EQ(ssm_ring_matches(ring, &options), 1);
    options.flags |= SSM_WAIT_ANYWAY;
    CHECK_EQ(ssm_ring_matches(ring, &options), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    test_a_ring_that_never_had_a_partner_waits();
    test_a_producer_closes(SSM_ONE_PRODUCER);
    test_a_producer_closes(SSM_ONE_PRODUCER | SSM_REDELIVER);
    test_a_consumer_closes(SSM_ONE_CONSUMER);
    test_a_producer_dies();
    test_a_consumer_dies();
    test_time_of_grace();
    test_a_shutdown_is_no_partner();
    test_shut_down_comes_first();
    test_wait_anyway();
    test_a_ring_that_overflows_never_waits();
    test_deliveries_come_back_first();
    test_shared_sides();
    test_who_may_come();
    test_grace_of_shared_sides();
    test_options();
    return 0;
}
