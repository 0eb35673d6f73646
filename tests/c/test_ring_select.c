/* SPDX-License-Identifier: Apache-2.0
 *
 * Waiting for several rings: what is ready is told, a put wakes, a shutdown wakes, a waker wakes, time ends it. */
#include "pool_fixture.h"

#include <pthread.h>

static struct ssm_interest to_get(struct ssm_ring *ring)
{
    return (struct ssm_interest){.ring = ring, .what = SSM_READY_TO_GET};
}

static void put_one(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(pool, 8, 0, &handle), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
}

static void get_one(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    CHECK_EQ(ssm_free(pool, handle), 0);
}

static void test_looking(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_ring *a = ring_open(f.pool, "a", 1, 0), *b = ring_open(f.pool, "b", 1, 0);
    struct ssm_interest both[] = {to_get(a), to_get(b)};
    struct ssm_interest room = {.ring = b, .what = SSM_READY_TO_PUT};
    CHECK_EQ(ssm_wait_rings(both, 0, NULL, 0), -EINVAL);
    CHECK_EQ(ssm_wait_rings(both, 2, NULL, 0), 0);
    CHECK_EQ(ssm_wait_rings(&room, 1, NULL, 0), 1);
    uint64_t before_ns = ssm_now_ns();
    CHECK_EQ(ssm_wait_rings(both, 2, NULL, 30 * (int64_t)MS), 0);
    CHECK(ssm_now_ns() - before_ns >= 30 * (int64_t)MS);
    put_one(f.pool, b);
    CHECK_EQ(ssm_wait_rings(both, 2, NULL, SSM_FOREVER), 1);
    CHECK(!both[0].ready && both[1].ready);
    CHECK_EQ(ssm_wait_rings(&room, 1, NULL, 0), 0); /* full */
    get_one(f.pool, b);
    CHECK_EQ(ssm_ring_shutdown(a, 0), 0);
    CHECK_EQ(ssm_wait_rings(both, 2, NULL, SSM_FOREVER), 1);
    CHECK(both[0].ready && !both[1].ready);
    ssm_ring_close(a);
    ssm_ring_close(b);
    fixture_close(&f);
}

/* Waits for two rings of two pools; takes the packet, and says so by a packet of its own. */
static void wait_and_answer(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(&f[0]), *other = fixture_join(&f[1]);
    struct ssm_ring *a = ring_open(pool, "a", 4, 0), *b = ring_open(other, "b", 4, 0),
                    *back = ring_open(pool, "back", 4, 0);
    struct ssm_interest both[] = {to_get(a), to_get(b)};
    for (int left = 2; left > 0; left--) {
        CHECK_EQ(ssm_wait_rings(both, 2, NULL, SSM_FOREVER), 1);
        get_one(both[0].ready ? pool : other, both[0].ready ? a : b);
        put_one(pool, back);
    }
    CHECK_EQ(ssm_pool_close(pool), 0);
    CHECK_EQ(ssm_pool_close(other), 0);
}

static void test_a_put_wakes(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f[2] = {fixture_open(&options), fixture_open(&options)};
    struct ssm_ring *a = ring_open(f[0].pool, "a", 4, 0), *b = ring_open(f[1].pool, "b", 4, 0),
                    *back = ring_open(f[0].pool, "back", 4, 0);
    pid_t child = child_start(wait_and_answer, f);
    struct ssm_interest answer = to_get(back);
    for (int i = 0; i < 2; i++) {
        ssm_nap_ns(2 * MS); /* it sleeps by then, mostly */
        put_one(f[i].pool, i == 0 ? a : b);
        CHECK_EQ(ssm_wait_rings(&answer, 1, NULL, SSM_FOREVER), 1);
        get_one(f[0].pool, back);
    }
    child_finish(child);
    struct ssm_ring *const rings[] = {a, b, back};
    for (int i = 0; i < 3; i++)
        ssm_ring_close(rings[i]);
    fixture_close(&f[0]);
    fixture_close(&f[1]);
}

static void *wake(void *waker)
{
    ssm_nap_ns(2 * MS);
    ssm_waker_wake(waker);
    return NULL;
}

static void test_a_waker_wakes(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_ring *a = ring_open(f.pool, "a", 4, 0);
    struct ssm_interest one = to_get(a);
    struct ssm_waker *waker = ssm_waker_new();
    pthread_t thread;
    ssm_waker_wake(waker); /* before: the next wait returns */
    CHECK_EQ(ssm_wait_rings(&one, 1, waker, SSM_FOREVER), 0);
    CHECK_EQ(pthread_create(&thread, NULL, wake, waker), 0);
    CHECK_EQ(ssm_wait_rings(&one, 1, waker, SSM_FOREVER), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    ssm_waker_free(waker);
    ssm_ring_close(a);
    fixture_close(&f);
}

/* More rings than the kernel sleeps on at once. */
static void test_many(void)
{
    enum { RINGS = 150 };
    struct ssm_pool_options options = fixture_options();
    options.holders = 256;
    options.metadata_bytes = 1 << 20;
    struct fixture f = fixture_open(&options);
    struct ssm_interest all[RINGS];
    struct ssm_ring *rings[RINGS];
    for (int i = 0; i < RINGS; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%d", i);
        rings[i] = ring_open(f.pool, name, 1, 0);
        all[i] = to_get(rings[i]);
    }
    CHECK_EQ(ssm_wait_rings(all, RINGS, NULL, 5 * (int64_t)MS), 0);
    put_one(f.pool, rings[RINGS - 1]);
    CHECK_EQ(ssm_wait_rings(all, RINGS, NULL, SSM_FOREVER), 1);
    CHECK(all[RINGS - 1].ready);
    get_one(f.pool, rings[RINGS - 1]);
    for (int i = 0; i < RINGS; i++)
        ssm_ring_close(rings[i]);
    fixture_close(&f);
}

/* Those who wait look for the dead in turn; a stamp that cannot be does not keep them from it. */
static void test_turns_of_looking(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    const uint64_t now_ns = ssm_now_ns();
    CHECK(ssm_pool_look_in_turn(f.pool, now_ns));
    CHECK(!ssm_pool_look_in_turn(other, now_ns + SSM_RECHECK_NS - 1));
    CHECK(!ssm_pool_look_in_turn(f.pool, now_ns + SSM_RECHECK_NS - 1));
    CHECK(ssm_pool_look_in_turn(other, now_ns + SSM_RECHECK_NS));
    CHECK(ssm_pool_look_in_turn(f.pool, now_ns - 1000 * MS)); /* behind: another clock */
    ssm_pool_destroy(other);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_looking();
    test_a_put_wakes();
    test_a_waker_wakes();
    test_many();
    test_turns_of_looking();
    return 0;
}
