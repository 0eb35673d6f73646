/* SPDX-License-Identifier: Apache-2.0
 *
 * A process is stopped inside its operations, at each instruction at which it has a lock: all others go on, at once.
 * Then it goes on itself, and nothing is lost.
 *
 * A tracer's stop is like SIGSTOP to everybody: the process lives, keeps its locks, and does not move. */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "lock.h"
#include "pool_fixture.h"
#include "service.h"

#define BLOCKS 16

static const struct ssm_service_options IDS = {.kind = SSM_SERVICE_IDS, .first = 0, .last = 63};

/* What the process that is stopped has for its operation, and what the others have. */
struct hands {
    struct ssm_pool    *pool;
    struct ssm_ring    *ring;
    struct ssm_service *ids;
    uint64_t            handle;
};

enum { ALLOC, FREE, PUT, GET, TAKE_ID, FREE_ID, OPERATIONS };
static const char *const names[] = {"alloc", "free", "put", "get", "take an id", "free an id"};

static struct hands take_hands(struct ssm_pool *pool, const char *ring, const char *ids)
{
    struct hands hands = {.pool = pool, .ring = ring_open(pool, ring, 4, 0)};
    pool->home = 1; /* all of them */
    CHECK_EQ(ssm_service_open(pool, ids, &IDS, &hands.ids), 0);
    CHECK_EQ(ssm_alloc(pool, 256, 0, &hands.handle), 0);
    return hands;
}

static void let_hands_go(struct hands *hands)
{
    ssm_ring_close(hands->ring);
    ssm_service_close(hands->ids);
}

static void operate(struct hands *h, int what)
{
    uint32_t id;
    int result = what == ALLOC   ? ssm_alloc(h->pool, 256, 0, &h->handle)
               : what == FREE    ? ssm_free(h->pool, h->handle)
               : what == PUT     ? ssm_ring_put(h->ring, &h->handle, 1, 0, 0)
               : what == GET     ? ssm_ring_get(h->ring, &h->handle, 1, 0)
               : what == TAKE_ID ? ssm_number_alloc(h->ids, 0, &id)
                                 : ssm_number_free(h->ids, 0, 0);
    if (result < 0)
        fprintf(stderr, "%s: %s\n", names[what], ssm_strerror(result));
    CHECK(result >= 0);
}

/* ---- in the child ------------------------------------------------------------------------------------------------ */

static void be_stopped(void *context)
{
    struct fixture *f = context;
    struct hands hands = take_hands(fixture_join(f), "r", "s");
    int what = (int)board_get(f->board, 0);
    if (what == GET)
        operate(&hands, PUT);
    if (what == FREE_ID)
        operate(&hands, TAKE_ID);
    board_set(f->board, 1, hands.pool->self + 1);
    CHECK(ptrace(PTRACE_TRACEME, 0, 0, 0) == 0);
    raise(SIGSTOP);
    operate(&hands, what);
    raise(SIGSTOP);
    CHECK_EQ(ssm_pool_close(hands.pool), 0);
}

/* ---- in the others ----------------------------------------------------------------------------------------------- */

/* Has it the lock of a shard, of a side of its ring, or of its service? */
static bool is_inside(const struct fixture *f, uint32_t its_word)
{
    const struct ssm_ring_shared *ring = ssm_ring_shared_at(f->pool, ring_id(f->pool, "r"));
    const struct ssm_lock *locks[] = {
        &ssm_shard_at(f->pool, 0, 0)->lock,
        &ssm_shard_at(f->pool, 0, 1)->lock,
        &ssm_shard_at(f->pool, 0, 2)->lock,
        &ssm_shard_at(f->pool, 0, 3)->lock,
        &ring->producer.lock,
        &ring->consumer.lock,
        &ssm_service_at(f->pool, 0)->lock,
    };
    for (size_t i = 0; i < sizeof locks / sizeof locks[0]; i++)
        if ((uint32_t)(ssm_load_acquire_u64(&locks[i]->word) & ~SSM_LOCK_WAITERS) == its_word)
            return true;
    return false;
}

/* Everything that does not need just that lock. The blocks that come and go are at home in the same shard as its own. */
static void go_on(struct hands *h)
{
    uint64_t since_ns = ssm_now_ns();
    static const int round[] = {ALLOC, FREE, ALLOC, PUT, GET, TAKE_ID, FREE_ID, FREE};
    uint64_t kept = h->handle;
    for (size_t i = 0; i < sizeof round / sizeof round[0]; i++)
        operate(h, round[i]);
    h->handle = kept;
    operate(h, FREE);
    operate(h, ALLOC);
    CHECK(ssm_now_ns() - since_ns < PROMPT_NS);
}

/* How many times it was stopped with a lock. */
static uint32_t stop_inside(struct fixture *f, struct hands *others, pid_t child)
{
    uint32_t stops = 0, its_word = board_get(f->board, 1);
    int status;
    for (;;) {
        CHECK(ptrace(PTRACE_SINGLESTEP, child, 0, 0) == 0);
        CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
        if (WSTOPSIG(status) == SIGSTOP)
            return stops;
        if (!is_inside(f, its_word))
            continue;
        go_on(others);
        stops++;
    }
}

/* Four blocks to each shard. */
static void spread(struct ssm_pool *pool)
{
    uint64_t handles[BLOCKS];
    CHECK_EQ(ssm_alloc_many(pool, 256, BLOCKS, 0, handles), 0);
    for (uint32_t i = 0; i < BLOCKS; i++)
        ssm_store_relaxed_u32(&ssm_block_at(pool, block_of(handles[i]))->home, i % 4);
    CHECK_EQ(ssm_free_many(pool, handles, BLOCKS), 0);
}

static void test_stops_in(int what)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    int status;
    spread(f.pool);
    struct hands first = take_hands(f.pool, "r", "s"); /* the first ring, and the first service */
    board_set(f.board, 0, (uint32_t)what);
    pid_t child = child_start(be_stopped, &f);
    CHECK(waitpid(child, &status, 0) == child && WIFSTOPPED(status));
    struct hands others = take_hands(f.pool, "other ring", "other ids");
    uint32_t stops = stop_inside(&f, &others, child);
    CHECK(ptrace(PTRACE_DETACH, child, 0, 0) == 0);
    child_finish(child);
    printf("%s: stopped %u times with a lock\n", names[what], stops);
    CHECK(stops > 5);
    CHECK_EQ(ssm_load_relaxed_u64(&ssm_ring_shared_at(f.pool, ring_id(f.pool, "r"))->producer.recoveries), 0);
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(ssm_load_relaxed_u32(&ssm_shard_at(f.pool, 0, i)->recoveries), 0);
    fixture_reap(f.pool);
    uint32_t queued = held_by(f.pool, 0, ring_id(f.pool, "r"));
    CHECK_EQ(queued, what == PUT);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 2 - queued); /* two are this process's */
    let_hands_go(&first);
    let_hands_go(&others);
    fixture_close(&f);
}

int main(void)
{
    alarm(2 * WATCHDOG_S);
#ifdef __SANITIZE_THREAD__ /* it makes a step cost fifty times as much */
    return 77;
#endif
    if (!steps_possible())
        return 77;
    for (int what = 0; what < OPERATIONS; what++)
        test_stops_in(what);
    return 0;
}
