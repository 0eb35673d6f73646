/* SPDX-License-Identifier: Apache-2.0
 *
 * Everything that can be waited for wakes its waiter. Here nobody looks by himself for half a minute, so a wake-up that is
 * forgotten is a child that does not end. */
#include "ring_fixture.h"
#include "ring_unlink.h"

#include <pthread.h>

#define LOOK_NS (30000 * MS) /* longer than the patience of AWAIT() */
#define ARENA   (1 << 19)

static const int64_t PATIENT = INT64_C(60000000000);

/* A child waits; once it sleeps, the parent does what is to wake it. */
struct scene {
    const char *name;
    uint32_t    capacity, flags; /* of the ring */
    void (*prepare)(struct fixture *f, struct ssm_ring *ring);
    int (*wait)(struct ssm_pool *pool, struct ssm_ring *ring);
    int result;                                        /* of the wait */
    struct ssm_event *(*event)(struct ssm_pool *pool); /* that it sleeps on */
    void (*wake)(struct fixture *f, struct ssm_ring *ring);
};

static uint64_t kept[BLOCKS]; /* the parent's */

/* ---- events -------------------------------------------------------------------------------------------------- */

/* clang-format off */
static struct ssm_event *not_empty(struct ssm_pool *pool) { return &shared_of(pool)->not_empty; }
static struct ssm_event *not_full(struct ssm_pool *pool) { return &shared_of(pool)->not_full; }
static struct ssm_event *all_done(struct ssm_pool *pool) { return &shared_of(pool)->all_done; }
static struct ssm_event *several(struct ssm_pool *pool) { return &ssm_class_at(pool, 0)->several; }
static struct ssm_event *room(struct ssm_pool *pool) { return &ssm_class_at(pool, 2)->several; }
static struct ssm_event *block(struct ssm_pool *pool) { return &ssm_shard_at(pool, 0, 3)->event; }
/* clang-format on */

/* ---- states -------------------------------------------------------------------------------------------------- */

static void nothing(struct fixture *f, struct ssm_ring *ring)
{
    (void)f, (void)ring;
}

static void fill(struct fixture *f, struct ssm_ring *ring)
{
    while (ssm_ring_room(ring) > 0)
        put(f->pool, ring, 1);
}

/* What is put into a full ring that overwrites: one packet gave way. */
static void overfill(struct fixture *f, struct ssm_ring *ring)
{
    fill(f, ring);
    put(f->pool, ring, 2);
}

static void take_all(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    CHECK_EQ(ssm_alloc_many(f->pool, 8, BLOCKS, 0, kept), 0);
}

static void take_the_arena(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    kept[0] = fixture_alloc(f->pool, ARENA);
}

/* ---- waits --------------------------------------------------------------------------------------------------- */

static int to_get(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle;
    int result = ssm_ring_get(ring, &handle, 1, PATIENT);
    return result == 1 ? ssm_free(pool, handle) : result;
}

static int to_put(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle = alloc(pool, 3);
    int result = ssm_ring_put(ring, &handle, 1, 0, PATIENT);
    return result == 0 ? 0 : ssm_free(pool, handle) == 0 ? result : -EIO;
}

static int to_join(struct ssm_pool *pool, struct ssm_ring *ring)
{
    (void)pool;
    return ssm_ring_join(ring, PATIENT);
}

static int to_alloc(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle;
    (void)ring;
    pool->home = 3; /* whatever shard it comes back to */
    int result = ssm_alloc(pool, 8, PATIENT, &handle);
    return result == 0 ? ssm_free(pool, handle) : result;
}

static int to_alloc_many(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handles[3];
    (void)ring;
    int result = ssm_alloc_many(pool, 8, 3, PATIENT, handles);
    return result == 0 ? ssm_free_many(pool, handles, 3) : result;
}

static int to_alloc_room(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle;
    (void)ring;
    int result = ssm_alloc(pool, ARENA / 2, PATIENT, &handle);
    return result == 0 ? ssm_free(pool, handle) : result;
}

static int to_see_a_packet(struct ssm_pool *pool, struct ssm_ring *ring)
{
    struct ssm_interest interest = {.ring = ring, .what = SSM_READY_TO_GET};
    (void)pool;
    return ssm_wait_rings(&interest, 1, NULL, PATIENT);
}

static int to_see_a_place(struct ssm_pool *pool, struct ssm_ring *ring)
{
    struct ssm_interest interest = {.ring = ring, .what = SSM_READY_TO_PUT};
    (void)pool;
    return ssm_wait_rings(&interest, 1, NULL, PATIENT);
}

/* ---- wake-ups ------------------------------------------------------------------------------------------------ */

static void get_one(struct fixture *f, struct ssm_ring *ring)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    CHECK_EQ(ssm_free(f->pool, handle), 0);
}

static void get_two(struct fixture *f, struct ssm_ring *ring)
{
    uint64_t handles[2];
    CHECK_EQ(ssm_ring_get(ring, handles, 2, 0), 2);
    CHECK_EQ(ssm_free_many(f->pool, handles, 2), 0);
}

static void put_one(struct fixture *f, struct ssm_ring *ring)
{
    put(f->pool, ring, 1);
}

static void put_and_keep(struct fixture *f, struct ssm_ring *ring)
{
    uint64_t handle = alloc(f->pool, 1);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_free(f->pool, handle), 0);
}

static void finish_all(struct fixture *f, struct ssm_ring *ring)
{
    while (ssm_ring_depth(ring) > 0) {
        get_one(f, ring);
        CHECK_EQ(ssm_ring_task_done(ring), 0);
    }
}

static void shut_down(struct fixture *f, struct ssm_ring *ring)
{
    (void)f;
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
}

/* This process is the only producer, or consumer, and leaves. */
static void come_to_put(struct fixture *f, struct ssm_ring *ring)
{
    put(f->pool, ring, 1);
    get(f->pool, ring, 1);
}

static void come_to_get(struct fixture *f, struct ssm_ring *ring)
{
    come_to_put(f, ring);
    fill(f, ring);
}

static void leave_sides(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    ssm_ring_release_sides(f->pool, ring_id(f->pool, "ring"));
}

/* This process, with other ones, is a user of the ring, and leaves. */
static void leave_rings(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    ssm_rings_leave(f->pool);
}

/* Another process is the only producer, or consumer, dies, and is reaped. */
static struct ssm_pool *mortal;

static void another_comes_to_put(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    mortal = fixture_attach(f->fd, 0);
    struct ssm_ring *others = ring_open(mortal, "ring", 1, SSM_ONE_PRODUCER);
    put(mortal, others, 1);
    get(mortal, others, 1);
    ssm_ring_close_spare(others);
}

static void another_comes_to_get(struct fixture *f, struct ssm_ring *ring)
{
    mortal = fixture_attach(f->fd, 0);
    struct ssm_ring *others = ring_open(mortal, "ring", 1, SSM_ONE_CONSUMER);
    check_empty(others);
    ssm_ring_close_spare(others);
    fill(f, ring);
}

static void reap_the_other(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    (void)kill_attachment(mortal, f->fd);
    fixture_harmed = false; /* the wake-ups count */
    fixture_reap(f->pool);
}

static void shut_down_at_once(struct fixture *f, struct ssm_ring *ring)
{
    (void)f;
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
}

static void free_one(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    CHECK_EQ(ssm_free(f->pool, kept[0]), 0);
}

static void free_rest(struct fixture *f, struct ssm_ring *ring)
{
    (void)ring;
    CHECK_EQ(ssm_free_many(f->pool, kept, BLOCKS), 0);
}

/* It parks the block where a thief finds it, for it gets at no shard's list. */
static void free_while_all_shards_are_locked(struct fixture *f, struct ssm_ring *ring)
{
    for (uint32_t i = 0; i < 4; i++)
        CHECK_EQ(ssm_shard_lock(f->pool, 0, i, 0), 0);
    struct ssm_pool *other = fixture_attach(f->fd, 0);
    uint64_t handle;
    struct ssm_ring *same = ring_open(other, "ring", 0, 0);
    CHECK_EQ(ssm_ring_get(same, &handle, 1, 0), 1);
    CHECK_EQ(ssm_free(other, handle), 0);
    AWAIT(ssm_load_acquire_u64(&f->board->value[0]) != 0);
    for (uint32_t i = 0; i < 4; i++)
        ssm_lock_release(&ssm_shard_at(f->pool, 0, i)->lock);
    CHECK_EQ(ssm_free_many(f->pool, kept + 1, BLOCKS - 1), 0);
    ssm_ring_close(same);
    pool_end(other);
    (void)ring;
}

static void keep_all_but_one_queued(struct fixture *f, struct ssm_ring *ring)
{
    take_all(f, ring);
    CHECK_EQ(ssm_ring_put(ring, &kept[0], 1, 0, 0), 0);
}

static const struct scene scenes[] = {
    {"a get, for a place", 1, 0, fill, to_put, 0, not_full, get_one},
    {"a get of several, for a place", 2, 0, fill, to_put, 0, not_full, get_two},
    {"a get of a delivery, for a place", 1, SSM_REDELIVER, fill, to_put, 0, not_full, get_one},
    {"a get, for who looks for a place", 1, 0, fill, to_see_a_place, 1, not_full, get_one},
    {"a put, for a packet", 1, 0, nothing, to_get, 0, not_empty, put_one},
    {"a put that keeps, for a packet", 1, 0, nothing, to_get, 0, not_empty, put_and_keep},
    {"a put, for who looks for a packet", 1, 0, nothing, to_see_a_packet, 1, not_empty, put_one},
    {"a shutdown, for a packet", 1, 0, nothing, to_get, -SSM_E_SHUTDOWN, not_empty, shut_down},
    {"a shutdown, for a place", 1, 0, fill, to_put, -SSM_E_SHUTDOWN, not_full, shut_down},
    {"the only producer's close, for a packet", 1, SSM_ONE_PRODUCER, come_to_put, to_get, -SSM_E_ORPHANED, not_empty,
     leave_sides},
    {"the only consumer's close, for a place", 1, SSM_ONE_CONSUMER, come_to_get, to_put, -SSM_E_ORPHANED, not_full,
     leave_sides},
    {"the only producer's close, for who looks for a packet", 1, SSM_ONE_PRODUCER, come_to_put, to_see_a_packet, 1,
     not_empty, leave_sides},
    {"the only consumer's close, for who looks for a place", 1, SSM_ONE_CONSUMER, come_to_get, to_see_a_place, 1,
     not_full, leave_sides},
    {"the last producer's close, for a packet", 1, SSM_PEERS, come_to_put, to_get, -SSM_E_ORPHANED, not_empty,
     leave_rings},
    {"the last consumer's close, for a place", 1, SSM_PEERS, come_to_get, to_put, -SSM_E_ORPHANED, not_full,
     leave_rings},
    {"the reaper of the only producer, for a packet", 1, SSM_ONE_PRODUCER, another_comes_to_put, to_get,
     -SSM_E_ORPHANED, not_empty, reap_the_other},
    {"the reaper of the only consumer, for a place", 1, SSM_ONE_CONSUMER, another_comes_to_get, to_put, -SSM_E_ORPHANED,
     not_full, reap_the_other},
    {"the last task that is done", 3, 0, fill, to_join, 0, all_done, finish_all},
    {"the last task that is done, where one gave way", 2, SSM_OVERFLOW_OVERWRITE, overfill, to_join, 0, all_done,
     finish_all},
    {"a shutdown that frees the last tasks", 3, 0, fill, to_join, 0, all_done, shut_down_at_once},
    {"a free, for a block", 1, 0, take_all, to_alloc, 0, block, free_one},
    {"a free of several, for a block", 1, 0, take_all, to_alloc, 0, block, free_rest},
    {"a free of several, for several", 1, 0, take_all, to_alloc_many, 0, several, free_rest},
    {"a free, for room in the arena", 1, 0, take_the_arena, to_alloc_room, 0, room, free_one},
    {"a free past locked shards, for a block", 1, 0, keep_all_but_one_queued, to_alloc, 0, block,
     free_while_all_shards_are_locked},
};

struct run {
    struct fixture      f;
    const struct scene *scene;
};

static void be_woken(void *context)
{
    struct run *run = context;
    /* The handle that this process has inherited may be put into as well: it would be waited for. */
    struct ssm_pool *pool = run->scene->flags & SSM_PEERS ? fixture_attach(run->f.fd, 0) : fixture_join(&run->f);
    pool->recheck_ns = run->f.pool->recheck_ns;
    struct ssm_ring *ring = ring_open(pool, "ring", run->scene->capacity, run->scene->flags);
    CHECK_EQ(run->scene->wait(pool, ring), run->scene->result);
    ssm_store_release_u64(&run->f.board->value[0], 1);
    ssm_ring_close(ring);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void play(const struct scene *scene)
{
    struct ssm_pool_options options = fixture_options();
    options.arena_bytes = ARENA;
    struct run run = {.f = fixture_open(&options), .scene = scene};
    run.f.pool->recheck_ns = LOOK_NS;
    struct ssm_ring *ring = ring_open(run.f.pool, "ring", scene->capacity, scene->flags);
    scene->prepare(&run.f, ring);
    pid_t child = child_start(be_woken, &run);
    AWAIT(ssm_load_acquire_u32(&scene->event(run.f.pool)->word) & SSM_EVENT_WAITERS);
    ssm_nap_ns(10 * MS); /* by then its sleeps are long ones */
    CHECK_EQ(ssm_load_acquire_u64(&run.f.board->value[0]), 0);
    scene->wake(&run.f, ring);
    AWAIT(ssm_load_acquire_u64(&run.f.board->value[0]) == 1);
    child_finish(child);
    CHECK_EQ(late_wakes(run.f.pool), 0);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    for (int i = 0; i < BLOCKS; i++)
        (void)ssm_free(run.f.pool, kept[i]); /* those that are left */
    ssm_ring_close(ring);
    fixture_close(&run.f);
}

/* A put that wakes nobody, as if it had been forgotten: the wait ends by a look, and is counted. Not where a busy machine holds
 * the child off before its first full sleep: so there are more rounds than have to count. */
static void test_a_forgotten_wake_up_is_counted(void)
{
    const struct scene scene = {"", 1, 0, nothing, to_get, 0, not_empty, nothing};
    struct ssm_pool_options options = fixture_options();
    struct run run = {.f = fixture_open(&options), .scene = &scene};
    struct ssm_ring *ring = ring_open(run.f.pool, "ring", 1, 0);
    struct ssm_event *event = not_empty(run.f.pool);
    uint64_t counted = 0;
    for (int round = 0; counted < 3; round++) {
        CHECK(round < 30);
        ssm_store_release_u64(&run.f.board->value[0], 0);
        pid_t child = child_start(be_woken, &run);
        AWAIT(ssm_load_acquire_u32(&event->word) & SSM_EVENT_WAITERS);
        ssm_nap_ns(10 * MS);
        uint32_t word = ssm_load_acquire_u32(&event->word);
        ssm_store_release_u32(&event->word, word & ~SSM_EVENT_WAITERS);
        put(run.f.pool, ring, 1);
        ssm_store_release_u32(&event->word, word);
        child_finish(child);
        const uint64_t late = late_wakes(run.f.pool);
        CHECK(late <=
              counted + 1); /* fewer: the child announced itself anew, the put did wake it, and took counts back */
        counted = late;
    }
    ssm_ring_close(ring);
    fixture_harmed = true;
    fixture_close(&run.f);
}

/* ---- who sleeps ---------------------------------------------------------------------------------------------- */

static void *sleep_on_ring(void *context)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(context, &handle, 1, SSM_FOREVER), -SSM_E_SHUTDOWN);
    return NULL;
}

static void close_at_once(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_load_acquire_u32(&f->pool->sleepers), 0);
    CHECK_EQ(ssm_pool_close(fixture_join(f)), 0); /* nobody of this process is there still */
}

/* The thread that sleeps stays with the parent. */
static void test_a_forked_child_has_no_sleepers(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 1, 0);
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, sleep_on_ring, ring), 0);
    AWAIT(ssm_load_acquire_u32(&f.pool->sleepers) == 1);
    child_finish(child_start(close_at_once, &f));
    CHECK_EQ(ssm_ring_shutdown(ring, 0), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    for (unsigned i = 0; i < sizeof scenes / sizeof scenes[0]; i++) {
        printf("%s\n", scenes[i].name);
        alarm(WATCHDOG_S);
        play(&scenes[i]);
    }
    test_a_forgotten_wake_up_is_counted();
    test_a_forked_child_has_no_sleepers();
    return 0;
}
