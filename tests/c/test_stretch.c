/* SPDX-License-Identifier: Apache-2.0
 *
 * Somebody who does not move has a lock, and a call wants it: how long does the call go on in one stretch, without a sleep
 * between the hooks, where others of its process would get on? Each is tried several times, and the best one counts: a
 * machine that is busy makes stretches longer, and nothing makes them shorter. */
#include "arena.h"
#include "cache.h"
#include "lock.h"
#include "pool_fixture.h"
#include "service.h"

#define TRIES 20
/* A few times SSM_LOCK_PATIENCE_NS, and what is done beside; a wait for one lock was twice as long once. Sanitizers and emulators are
 * too slow to tell. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || defined(SSM_EMULATED)
#define STRETCH_NS (100 * MS)
#else
#define STRETCH_NS (5 * MS)
#endif

/* ---- the clock --------------------------------------------------------------------------------------------- */

static uint64_t since_ns, longest_ns, hooks;

static void note(void)
{
    uint64_t now_ns = ssm_now_ns();
    if (now_ns - since_ns > longest_ns)
        longest_ns = now_ns - since_ns;
    since_ns = now_ns;
}

static void *before(void)
{
    note();
    hooks++;
    return NULL;
}

static uint32_t interrupt_after; /* so many sleeps; 0: never */

static int after(void *state)
{
    (void)state;
    since_ns = ssm_now_ns();
    return interrupt_after != 0 && --interrupt_after == 0;
}

/* ---- the one who does not move ----------------------------------------------------------------------------------- */

enum { REGISTRY, SHARDS, ARENA, SIDES, SERVICE, CACHE, IN_THE_WAY };
static const char *const ways[] = {"registry", "shards", "arena", "sides", "service", "cache"};

static int nothing_to_repair(struct ssm_pool *pool, void *context)
{
    (void)pool, (void)context;
    return 0;
}

static void take(struct ssm_pool *pool, struct ssm_lock *lock)
{
    CHECK_EQ(ssm_lock_take(pool, lock, 1000 * MS, nothing_to_repair, NULL), 0);
}

static void be_in_the_way(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[4];
    const uint32_t way = board_get(f->board, 1);
    struct ssm_ring_shared *ring = ssm_ring_shared_at(pool, ring_id(pool, "r"));
    switch (way) {
    case REGISTRY: CHECK_EQ(ssm_registry_lock(pool, 1000 * MS), 0); break;
    case SHARDS:
        for (uint32_t i = 0; i < 2 * pool->geometry.shards; i++)
            take(pool, &ssm_shard_at(pool, i / pool->geometry.shards, i % pool->geometry.shards)->lock);
        break;
    case ARENA: take(pool, &ssm_arena_of(pool)->lock); break;
    case SIDES:
        take(pool, &ring->producer.lock);
        take(pool, &ring->consumer.lock);
        break;
    case SERVICE: take(pool, &ssm_service_at(pool, 0)->lock); break;
    default:      /* inside a cache that has blocks */
        CHECK_EQ(ssm_alloc_many(pool, 256, 4, 0, handles), 0);
        CHECK_EQ(ssm_free_many(pool, handles, 4), 0);
        CHECK(ssm_cache_enter(pool, 0));
    }
    board_set(f->board, 0, 1);
    for (;;)
        pause();
}

/* ---- the calls --------------------------------------------------------------------------------------------------- */

struct hands {
    struct fixture     *f;
    struct ssm_pool    *pool;
    struct ssm_ring    *ring;
    struct ssm_service *ids;
};

static void do_alloc(struct hands *h)
{
    uint64_t handles[16];
    int count = 0;
    while (count < 16 && ssm_alloc(h->pool, 256, 0, &handles[count]) == 0)
        count++;
    uint64_t one;
    (void)ssm_alloc(h->pool, 256, 50 * (int64_t)MS, &one);
    (void)ssm_alloc(h->pool, 100000, 50 * (int64_t)MS, &one);
    while (count-- > 0)
        (void)ssm_free(h->pool, handles[count]);
}

static void do_ring(struct hands *h)
{
    uint64_t handle;
    if (ssm_alloc(h->pool, 1000, 0, &handle) != 0)
        return;
    (void)ssm_ring_put(h->ring, &handle, 1, SSM_KEEP, 0);
    (void)ssm_ring_put(h->ring, &handle, 1, SSM_KEEP, 50 * (int64_t)MS);
    (void)ssm_free(h->pool, handle);
    for (int i = 0; i < 2; i++)
        if (ssm_ring_get(h->ring, &handle, 1, i * 50 * (int64_t)MS) == 1)
            (void)ssm_free(h->pool, handle);
    (void)ssm_ring_shutdown(h->ring, 1);
}

static void do_service(struct hands *h)
{
    uint32_t number;
    interrupt_after = 20;
    if (ssm_number_alloc(h->ids, 0, &number) == 0)
        (void)ssm_number_free(h->ids, number, 0);
}

static void do_reap(struct hands *h)
{
    struct ssm_reaped reaped;
    interrupt_after = 20;
    (void)ssm_reap(h->pool, &reaped);
}

static void do_check(struct hands *h)
{
    interrupt_after = 20;
    (void)ssm_check(h->pool, NULL, NULL);
}

static void do_open(struct hands *h)
{
    struct ssm_ring *ring;
    struct ssm_service *ids;
    interrupt_after = 20;
    if (ssm_ring_open(h->pool, "r", &(struct ssm_ring_options){0}, &ring) == 0)
        ssm_ring_close(ring);
    interrupt_after = 20;
    if (ssm_service_open(h->pool, "s", &(struct ssm_service_options){.kind = SSM_SERVICE_IDS, .last = 9}, &ids) == 0)
        ssm_service_close(ids);
}

static struct ssm_pool *attach(struct fixture *f)
{
    struct ssm_attach_options options = {.name = "test", .flags = SSM_SERIAL, .hooks = {before, after}};
    struct ssm_pool *pool;
    int result = ssm_pool_attach(f->fd, &options, &pool);
    return result == 0 ? pool : NULL;
}

static void do_attach(struct hands *h)
{
    interrupt_after = 20;
    struct ssm_pool *pool = attach(h->f);
    interrupt_after = 0;
    if (pool != NULL)
        ssm_pool_destroy(pool);
}

static void do_close(struct hands *h)
{
    interrupt_after = 20;
    (void)ssm_pool_close(h->pool);
}

static const struct {
    const char *name;
    void (*call)(struct hands *hands);
} calls[] = {
    {"alloc", do_alloc}, {"ring", do_ring}, {"service", do_service}, {"reap", do_reap},
    {"check", do_check}, {"open", do_open}, {"attach", do_attach},   {"close", do_close}, /* the last one */
};

/* ---- both -------------------------------------------------------------------------------------------------------- */

static uint64_t stretch_of(uint32_t way, size_t call)
{
    struct ssm_pool_options options = fixture_options();
    options.arena_bytes = 1 << 20;
    options.cache = 16;
    options.classes[0].block_count = 128; /* enough for caches */
    struct fixture f = fixture_open(&options);
    struct hands hands = {.f = &f, .pool = attach(&f)};
    hands.ring = ring_open(hands.pool, "r", 4, 0);
    CHECK_EQ(ssm_service_open(hands.pool, "s", &(struct ssm_service_options){.kind = SSM_SERVICE_IDS, .last = 9},
                              &hands.ids),
             0);
    board_set(f.board, 1, way);
    pid_t child = child_start(be_in_the_way, &f);
    AWAIT(board_get(f.board, 0) == 1);
    longest_ns = 0;
    since_ns = ssm_now_ns();
    calls[call].call(&hands);
    note();
    interrupt_after = 0;
    child_kill(child);
    ssm_ring_close(hands.ring);
    ssm_service_close(hands.ids);
    ssm_pool_destroy(hands.pool);
    fixture_reap(f.pool);
    fixture_close(&f);
    return longest_ns;
}

int main(void)
{
    alarm(2 * WATCHDOG_S);
    for (uint32_t way = 0; way < IN_THE_WAY; way++)
        for (size_t call = 0; call < sizeof calls / sizeof calls[0]; call++) {
            uint64_t best_ns = UINT64_MAX;
            for (int try = 0; try < TRIES && best_ns > STRETCH_NS; try++) {
                uint64_t stretch_ns = stretch_of(way, call);
                best_ns = stretch_ns < best_ns ? stretch_ns : best_ns;
            }
            if (best_ns > STRETCH_NS)
                fprintf(stderr, "%s beside one who has the %s: %.1f ms without a sleep\n", calls[call].name, ways[way],
                        (double)best_ns / 1e6);
            CHECK(best_ns <= STRETCH_NS);
        }
    CHECK(hooks > 100);
    return 0;
}
