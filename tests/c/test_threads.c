/* SPDX-License-Identifier: Apache-2.0
 *
 * The thread forms of the storms, for ThreadSanitizer: many threads on one attachment, and several attachments of one
 * process, each with its own thread. Every packet that was put is got, once, whole. */
#include "pool_fixture.h"

#include <pthread.h>

#define THREADS 4
#define ROUNDS  400
#define WAIT_NS INT64_C(10000000000)

struct worker {
    struct ssm_pool *pool;
    uint64_t         index, sent, received; /* sums of numbers */
    struct ssm_ring *ring;
};

static struct ssm_pool_options cached_options(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    return options;
}

static void run_all(struct worker workers[THREADS], void *(*run)(void *))
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_create(&threads[i], NULL, run, &workers[i]), 0);
    for (int i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

/* ---- alloc and free ----------------------------------------------------------------------------------------- */

static void fill(struct ssm_pool *pool, uint64_t handle, uint64_t number)
{
    struct ssm_packet packet;
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    for (uint64_t i = 0; i + 8 <= packet.length; i += 8)
        memcpy(packet.data + i, &number, 8);
}

/* All of it says the same number; which. */
static uint64_t number_in(struct ssm_pool *pool, uint64_t handle)
{
    struct ssm_packet packet;
    uint64_t number, other;
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    memcpy(&number, packet.data, 8);
    for (uint64_t i = 0; i + 8 <= packet.length; i += 8) {
        memcpy(&other, packet.data + i, 8);
        CHECK(other == number);
    }
    return number;
}

static void *alloc_and_free(void *context)
{
    struct worker *w = context;
    uint64_t handles[4];
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint32_t count = 1 + (uint32_t)(i % 4);
        CHECK_EQ(ssm_alloc_many(w->pool, 256, count, WAIT_NS, handles), 0); /* 16 in all: enough for each alone */
        for (uint32_t k = 0; k < count; k++)
            fill(w->pool, handles[k], w->index << 32 | i);
        CHECK_EQ(ssm_packet_hold(w->pool, handles[0]), 0);
        CHECK_EQ(ssm_packet_pin(w->pool, handles[0]), 0);
        for (uint32_t k = 0; k < count; k++)
            CHECK_EQ(number_in(w->pool, handles[k]), w->index << 32 | i);
        CHECK_EQ(ssm_packet_unpin(w->pool, handles[0], 1), 0);
        CHECK_EQ(ssm_free_many(w->pool, handles, count), 0);
    }
    return NULL;
}

/* ---- blocks are scarce: everybody sleeps now and then ------------------------------------------------------- */

static void *wait_for_blocks(void *context)
{
    struct worker *w = context;
    for (uint64_t i = 0; i < ROUNDS / 20; i++) {
        uint64_t handles[7];
        CHECK_EQ(ssm_alloc_many(w->pool, 1024, 7, WAIT_NS, handles), 0); /* of 8 */
        if (i % 8 == w->index)
            ssm_nap_ns(25 * MS); /* beyond a sleeper's bound: it looks for the dead */
        CHECK_EQ(ssm_free_many(w->pool, handles, 7), 0);
    }
    return NULL;
}

/* All wait for what does not come, and give up at the same time. */
static void *wait_in_vain(void *context)
{
    struct worker *w = context;
    uint64_t handle;
    CHECK_EQ(ssm_alloc(w->pool, 1024, 45 * (int64_t)MS, &handle), -SSM_E_EXHAUSTED);
    return NULL;
}

static void check_waiting_in_vain(struct ssm_pool *pool, struct worker workers[THREADS])
{
    uint64_t handles[8];
    CHECK_EQ(ssm_alloc_many(pool, 1024, 8, 0, handles), 0);
    for (int round = 0; round < 8; round++)
        run_all(workers, wait_in_vain);
    CHECK_EQ(ssm_free_many(pool, handles, 8), 0);
}

/* ---- put and get -------------------------------------------------------------------------------------------- */

static void *put_and_get(void *context)
{
    struct worker *w = context;
    for (uint64_t i = 0; i < ROUNDS; i++) {
        uint64_t handle, number = w->index << 32 | i;
        CHECK_EQ(ssm_alloc(w->pool, 128, WAIT_NS, &handle), 0);
        fill(w->pool, handle, number);
        CHECK_EQ(ssm_packet_set_tag(w->pool, handle, number), 0);
        CHECK_EQ(ssm_ring_put(w->ring, &handle, 1, 0, WAIT_NS), 0);
        w->sent += number;
        CHECK_EQ(ssm_ring_get(w->ring, &handle, 1, WAIT_NS), 1); /* this one or another's */
        CHECK_EQ(ssm_packet_tag(w->pool, handle, &number), 0);
        CHECK_EQ(number_in(w->pool, handle), number);
        w->received += number;
        CHECK_EQ(ssm_free(w->pool, handle), 0);
    }
    return NULL;
}

static void check_sums(const struct worker workers[THREADS], struct ssm_ring *ring)
{
    uint64_t sent = 0, received = 0;
    for (int i = 0; i < THREADS; i++) {
        sent += workers[i].sent;
        received += workers[i].received;
    }
    CHECK_EQ(sent, received);
    CHECK_EQ(ssm_ring_depth(ring), 0);
}

/* ---- looking in meanwhile ----------------------------------------------------------------------------------- */

static void *look_in(void *context)
{
    struct worker *w = context;
    struct ssm_holder_info list[64];
    struct ssm_class_stats class;
    struct ssm_shard_stats shard;
    struct ssm_reaped reaped;
    for (uint64_t i = 0; i < ROUNDS / 20; i++) {
        CHECK_EQ(ssm_holder_list(w->pool, list, 64), 0);
        CHECK_EQ(ssm_class_stats(w->pool, 0, &class), 0);
        CHECK_EQ(ssm_shard_stats(w->pool, 0, 0, &shard), 0);
        CHECK_EQ(ssm_reap(w->pool, &reaped), 0);
        CHECK_EQ(ssm_check(w->pool, fixture_print, NULL), 0);
        CHECK(ssm_ring_depth(w->ring) <= 3);
    }
    return NULL;
}

/* Most workers work, the last one looks. */
static void *work_or_look(void *context)
{
    struct worker *w = context;
    return w->index + 1 < THREADS ? put_and_get(context) : look_in(context);
}

static void test_one_attachment(void)
{
    struct ssm_pool_options options = cached_options();
    struct fixture f = fixture_open(&options);
    struct worker workers[THREADS] = {0};
    struct ssm_ring *ring = ring_open(f.pool, "ring", 3, 0);
    for (uint32_t i = 0; i < THREADS; i++)
        workers[i] = (struct worker){.pool = f.pool, .index = i, .ring = ring};
    run_all(workers, alloc_and_free);
    run_all(workers, put_and_get);
    run_all(workers, work_or_look);
    run_all(workers, wait_for_blocks);
    check_waiting_in_vain(f.pool, workers);
    check_sums(workers, ring);
    ssm_ring_close(ring);
    check_all_there(f.pool, 0);
    check_all_there(f.pool, 1);
    fixture_close(&f);
}

static void test_several_attachments(void)
{
    struct ssm_pool_options options = cached_options();
    struct fixture f = fixture_open(&options);
    struct worker workers[THREADS] = {0};
    for (uint32_t i = 0; i < THREADS; i++) {
        struct ssm_pool *pool = fixture_attach(f.fd, SSM_SERIAL);
        pool->home = i % 4;
        workers[i] = (struct worker){.pool = pool, .index = i, .ring = ring_open(pool, "ring", 3, 0)};
    }
    run_all(workers, alloc_and_free);
    run_all(workers, put_and_get);
    run_all(workers, work_or_look);
    run_all(workers, wait_for_blocks);
    check_sums(workers, workers[0].ring);
    for (int i = 0; i < THREADS; i++) {
        ssm_ring_close(workers[i].ring);
        pool_end(workers[i].pool);
    }
    check_all_there(f.pool, 0);
    check_all_there(f.pool, 1);
    fixture_close(&f);
}

/* Attachments come and go in every thread at once. */
static void *come_and_go(void *context)
{
    const struct worker *w = context;
    for (uint64_t i = 0; i < ROUNDS / 20; i++) {
        uint64_t handle;
        struct ssm_pool *pool = fixture_attach((int)w->index, i % 2 ? SSM_SERIAL : 0);
        CHECK_EQ(ssm_alloc(pool, 256, WAIT_NS, &handle), 0);
        pool_end(pool);
    }
    return NULL;
}

static void test_coming_and_going(void)
{
    struct ssm_pool_options options = cached_options();
    struct fixture f = fixture_open(&options);
    struct worker workers[THREADS] = {0};
    for (uint32_t i = 0; i < THREADS; i++)
        workers[i].index = (uint64_t)f.fd;
    run_all(workers, come_and_go);
    CHECK_EQ(ssm_registry_find_free(f.pool), 1);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* Closed while others sleep in it: they come back and say so; until then close counts them. */
static void *sleep_until_closed(void *context)
{
    struct worker *w = context;
    uint64_t handle;
    struct ssm_interest interest = {.ring = w->ring, .what = SSM_READY_TO_GET};
    int result = w->index % 3 == 0 ? ssm_alloc(w->pool, 1024, SSM_FOREVER, &handle)
               : w->index % 3 == 1 ? ssm_ring_get(w->ring, &handle, 1, SSM_FOREVER)
                                   : ssm_wait_rings(&interest, 1, NULL, SSM_FOREVER);
    CHECK_EQ(result, -SSM_E_CLOSED);
    return NULL;
}

static void test_closing_under_sleepers(void)
{
    struct ssm_pool_options options = cached_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(other, "ring", 3, 0);
    uint64_t handles[8];
    pthread_t threads[THREADS];
    struct worker workers[THREADS];
    CHECK_EQ(ssm_alloc_many(f.pool, 1024, 8, 0, handles), 0);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (struct worker){.pool = other, .index = i, .ring = ring};
        CHECK_EQ(pthread_create(&threads[i], NULL, sleep_until_closed, &workers[i]), 0);
    }
    AWAIT(ssm_load_acquire_u32(&other->sleepers) == THREADS);
    CHECK(ssm_pool_close(other) > 0);
    for (uint32_t i = 0; i < THREADS; i++)
        CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(ssm_pool_close(other), 0);
    ssm_ring_close(ring);
    ssm_pool_destroy(other);
    CHECK_EQ(ssm_free_many(f.pool, handles, 8), 0);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_one_attachment();
    test_several_attachments();
    test_coming_and_going();
    test_closing_under_sleepers();
    return 0;
}
