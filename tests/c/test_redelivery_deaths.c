/* SPDX-License-Identifier: Apache-2.0
 *
 * Redelivery, with death at every store: a child joins a pool and goes through an operation step by step; each time it has
 * changed the segment, a copy is what its death right there would leave behind. Somebody attaches to the copy, which reaps,
 * and drains the rings: nothing is lost, nothing comes twice, no bit is left. Then the reaper itself dies at each of its
 * stores, and the next one has to come to the same end; without SSM_TEST_ALL=1 only those of the first operation. */
#include "redelivery_fixture.h"
#include "steps.h"

#include <pthread.h>

/* Where the packets 1 .. PACKETS are in the end, one letter each: S in the source, R in the source as redelivered, K in
 * the sink, B in the sink and redelivered in the source, - nowhere. */
enum second { NONE, VIEW, HOLD, SHARE, OTHER, SIDE, STALE };
enum step { FREE, PUT, KEEP, BACK, DROP, RETURN };
struct course {
    const char *name;
    void (*prepare)(struct fixture *f); /* may be NULL */
    void (*operate)(void *mem, const void *fixture);
    const char *finally;
    bool        puts_back; /* into the source: its packets stand behind the others */
    enum {
        NO_REAPER,
        CHANGES,
        ALL
    } reapers;          /* behind which deaths reapers die: those that made a difference, or all */
    bool        wide;   /* once more, with the child's bit and the rings' in different words of the holder sets */
    enum second second; /* the second reference of take_step() */
    enum step   step;
    const char *elsewhere; /* in the other ring, likewise; NULL: nothing was there */
};
static const struct course *running;

/* Copies of the segment, and what became of one. */
struct scene {
    const struct course *course;
    struct fixture      *f;
    size_t               bytes;
    int                  fds[2];
    uint8_t             *copies[2];
    struct ssm_pool     *reaper; /* attached to the pool itself */
    char                 last[PACKETS + 1], now[PACKETS + 1], elsewhere[PACKETS + 1];
    bool                 deep;
    unsigned             deaths;
};

/* What a child is about to do step by step; it becomes who does it as it is forked, so that the operation alone is stepped
 * through. */
static struct scene *joining, *reaping;

/* As if the scene's reaper had attached to the copy, and not to the pool. */
static void become_reaper(const struct scene *scene, const struct ssm_pool *as_it_was)
{
    struct ssm_pool *reaper = scene->reaper;
    *reaper = *as_it_was;
    ssm_pool_set_base(reaper, scene->copies[0]);
    reaper->fd = ssm_file_reopen(scene->fds[0], true);
    CHECK_EQ(ssm_file_identify(reaper->fd, &reaper->file), 0);
    reaper->registry = reaper->alive = SSM_NO_DESCRIPTION;
    CHECK_EQ(ssm_description_open(reaper->fd, &reaper->alive), 0);
    CHECK_EQ(ssm_byte_try_lock(reaper->alive.fd, SSM_BYTE_HOLDER(reaper->self)), 0);
}

static struct ssm_pool before_the_fork;

static void before_fork(void)
{
    if (reaping != NULL)
        before_the_fork = *reaping->reaper;
}

static void in_child(void)
{
    if (reaping != NULL)
        become_reaper(reaping, &before_the_fork);
    else if (joining != NULL)
        fixture_join(joining->f);
}

static int rank(char outcome)
{
    return (int)(strchr("SRBK-", outcome) - "SRBK-");
}

/* Drains a ring; marks what comes. `where`: of the letters of struct course. */
static void drain(struct scene *scene, struct ssm_pool *pool, struct ssm_ring *ring, bool is_source, char *outcome)
{
    uint64_t handle, tag, last = 0;
    bool seen[PACKETS + 1] = {false};
    while (ssm_ring_get(ring, &handle, 1, 0) == 1) {
        CHECK_EQ(ssm_packet_tag(pool, handle, &tag), 0);
        CHECK(tag >= 1 && tag <= PACKETS && !seen[tag]);
        CHECK(tag > last || (is_source && scene->course->puts_back));
        seen[last = tag] = true;
        char *now = &outcome[tag - 1];
        CHECK(*now == '-' ||
              (*now == 'R' && strchr(scene->course->finally, 'B') != NULL)); /* in both: where it was kept */
        *now = is_source ? (ssm_packet_redelivered(pool, handle) ? 'R' : 'S') : *now == 'R' ? 'B' : 'K';
        CHECK_EQ(ssm_free(pool, handle), 0);
    }
    CHECK_EQ(ssm_ring_depth(ring), 0);
}

/* A newcomer finds what the dead have left. */
static void look(struct scene *scene, int copy, char *outcome)
{
    struct ssm_pool *pool = fixture_attach(scene->fds[copy], 0);
    struct ssm_ring *rings[] = {source(pool), sink(pool), other(pool), side(pool)};
    char aside[PACKETS + 1] = "----";
    memset(outcome, '-', PACKETS);
    memset(scene->elsewhere, '-', PACKETS);
    fixture_check(pool);
    drain(scene, pool, rings[0], true, outcome);
    drain(scene, pool, rings[1], false, outcome);
    drain(scene, pool, rings[2], true, scene->elsewhere);
    drain(scene, pool, rings[3], false, aside);
    for (int i = 0; i < 4; i++)
        ssm_ring_close(rings[i]);
    fixture_reap(pool);
    fixture_check(pool);
    CHECK_EQ(free_blocks(pool, 0), BLOCKS);
    check_all_there(pool, 0);
    pool_end(pool);
}

static void reap_step_by_step(void *mem, const void *context)
{
    const struct scene *scene = context;
    (void)mem;
    fixture_reap(scene->reaper);
}

static void reaper_died(void *context)
{
    struct scene *scene = context;
    char outcome[PACKETS + 1] = "";
    memcpy(scene->copies[1], scene->copies[0], scene->bytes);
    look(scene, 1, outcome);
    CHECK(memcmp(outcome, scene->now, PACKETS) == 0);
    scene->deaths++;
}

/* While a put is under way that no reaper must judge by its bits alone, it says whose it is. All that is put here came out
 * of a redelivering ring. */
static void check_span(const struct ssm_pool *pool)
{
    for (uint32_t id = 1; id <= 3; id++) {
        const struct ssm_side *producer = &ssm_ring_shared_at(pool, id)->producer;
        CHECK(ssm_load_acquire_u64(&producer->put_intent) <= ssm_load_acquire_u64(&producer->index) ||
              ssm_load_acquire_u64(&producer->put_owner) != 0);
    }
}

static void consumer_died(void *context)
{
    struct scene *scene = context;
    check_span(scene->f->pool);
    memcpy(scene->copies[0], scene->f->pool->base, scene->bytes);
    look(scene, 0, scene->now);
    scene->deaths++;
    for (int i = 0; i < PACKETS; i++) /* what has happened stays so */
        CHECK(rank(scene->now[i]) >= rank(scene->last[i]) || scene->course->puts_back);
    bool changed = memcmp(scene->now, scene->last, PACKETS) != 0;
    if (scene->deep && (changed || scene->course->reapers == ALL)) {
        memcpy(scene->copies[0], scene->f->pool->base, scene->bytes);
        reaping = scene;
        steps_trace(scene->copies[0], scene->bytes, reap_step_by_step, scene, reaper_died, scene);
        reaping = NULL;
    }
    memcpy(scene->last, scene->now, PACKETS);
}

static void go_through(const struct course *course, bool wide, bool deep)
{
    struct ssm_pool_options small = options();
    small.holders = wide ? 128 : 64;
    struct fixture f = fixture_open(&small);
    ssm_ring_close(source(f.pool));
    ssm_ring_close(sink(f.pool));
    ssm_ring_close(other(f.pool));
    ssm_ring_close(side(f.pool));
    running = course;
    fill(&f);
    if (course->prepare != NULL)
        course->prepare(&f);
    if (wide) { /* as if somebody had died there; reaped when the child has a slot behind them */
        for (uint32_t slot = ssm_holder_high(f.pool); slot < 64; slot++)
            ssm_store_release_u32(&ssm_holder_at(f.pool, slot)->kind, SSM_HOLDER_PROCESS);
        ssm_store_release_u32(&ssm_superblock_of(f.pool)->holder_high, 64);
    }
    struct scene scene = {.course = course, .f = &f, .bytes = f.pool->geometry.size_bytes, .deep = deep};
    for (int i = 0; i < 2; i++) {
        scene.fds[i] = fixture_file();
        CHECK(ftruncate(scene.fds[i], (off_t)scene.bytes) == 0);
        scene.copies[i] = mmap(NULL, scene.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, scene.fds[i], 0);
        CHECK(scene.copies[i] != MAP_FAILED);
    }
    scene.reaper = fixture_attach(f.fd, 0);
    memcpy(scene.copies[0], f.pool->base, scene.bytes);
    look(&scene, 0, scene.last);
    joining = &scene;
    steps_trace(f.pool->base, scene.bytes, course->operate, &f, consumer_died, &scene);
    joining = NULL;
    printf("%s%s: %u deaths, %s in the end\n", course->name, wide ? ", two words" : "", scene.deaths, scene.now);
    fflush(stdout);
    CHECK(memcmp(scene.now, course->finally, PACKETS) == 0);
    CHECK(memcmp(scene.elsewhere, course->elsewhere != NULL ? course->elsewhere : "----", PACKETS) == 0);
    for (int i = 0; i < 2; i++) {
        munmap(scene.copies[i], scene.bytes);
        close(scene.fds[i]);
    }
    pool_end(scene.reaper);
    pool_end(f.pool);
    close(f.fd);
    board_drop(f.board);
}

static struct ssm_pool *join(const void *fixture)
{
    return fixture_join(fixture);
}

static void get_one(void *mem, const void *fixture)
{
    uint64_t handle;
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(join(fixture)), &handle, 1, 0), 1);
}

/* What came back comes alone. */
static void get_all(struct ssm_ring *ring, uint64_t *handles, uint32_t count)
{
    for (int more; count > 0; handles += more, count -= (uint32_t)more)
        CHECK((more = ssm_ring_get(ring, handles, count, 0)) > 0);
}

static void get_and_free(void *mem, const void *fixture)
{
    uint64_t handles[3];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 3, 0), 3);
    CHECK_EQ(ssm_free(pool, handles[1]), 0);
    CHECK_EQ(ssm_free_many(pool, (uint64_t[]){handles[0], handles[2]}, 2), 0);
}

static void get_and_close(void *mem, const void *fixture)
{
    uint64_t handles[3];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 3, 0), 3);
    CHECK_EQ(ssm_pool_close(pool), 0);
}

static void forward(void *mem, const void *fixture)
{
    uint64_t handles[3];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 3, 0), 3);
    CHECK_EQ(ssm_ring_put(sink(pool), handles, 2, 0, 0), 0);
}

static void forward_waiting(void *mem, const void *fixture)
{
    uint64_t handles[2];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 2, 0), 2);
    CHECK_EQ(ssm_ring_put(sink(pool), handles, 2, SSM_KEEP | SSM_HANDOVER, 0), 0);
    CHECK_EQ(ssm_free_many(pool, handles, 2), 0);
}

static void forward_keeping(void *mem, const void *fixture)
{
    uint64_t handles[2];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 2, 0), 2);
    CHECK_EQ(ssm_ring_put(sink(pool), handles, 2, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_free(pool, handles[0]), 0);
}

static void put_back(void *mem, const void *fixture)
{
    uint64_t handles[2];
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool);
    (void)mem;
    CHECK_EQ(ssm_ring_get(ring, handles, 2, 0), 2);
    CHECK_EQ(ssm_ring_put(ring, handles, 1, 0, 0), 0);
}

static void put_back_keeping(void *mem, const void *fixture)
{
    uint64_t handles[2];
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool);
    (void)mem;
    get_all(ring, handles, 2);
    CHECK_EQ(ssm_ring_put(ring, handles, 2, SSM_KEEP, 0), 0);
}

static void forward_all(void *mem, const void *fixture)
{
    uint64_t handles[4];
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool), *to = sink(pool);
    (void)mem;
    get_all(ring, handles, PACKETS);
    CHECK_EQ(ssm_ring_put(to, handles, 3, 0, 0), 0);
}

/* One that this process has besides that of its delivery from the source; the packet's, or another one's name. */
static void take_second(struct ssm_pool *pool, uint64_t handle, uint64_t delivery)
{
    uint64_t taken;
    switch (running->second) {
    case VIEW:  CHECK_EQ(ssm_packet_pin(pool, handle), 0); break;
    case HOLD:  CHECK_EQ(ssm_packet_hold(pool, handle), 0); break;
    case SHARE: CHECK_EQ(ssm_packet_hold_of(pool, handle, delivery), 0); break;
    case OTHER: CHECK(ssm_ring_get(other(pool), &taken, 1, 0) == 1 && taken == handle); break;
    case SIDE:  CHECK(ssm_ring_get(side(pool), &taken, 1, 0) == 1 && taken == handle); break;
    default:    break;
    }
}

/* Takes a packet out, takes a second reference to it, and ends the delivery in one way, or does not. */
static void take_step(void *mem, const void *fixture)
{
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool), *to = running->step == BACK ? ring : sink(pool);
    const bool viewed = running->second == VIEW;
    uint64_t handle;
    (void)mem;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    const uint64_t delivery = ssm_packet_delivery(pool, handle);
    CHECK(delivery != SSM_NO_DELIVERY);
    take_second(pool, handle, delivery);
    switch (running->step) {
    case FREE:
        CHECK_EQ(viewed ? ssm_delivery_done(pool, handle, delivery) : ssm_free_of(pool, handle, delivery, true), 0);
        break;
    case DROP: CHECK_EQ(ssm_free_of(pool, handle, delivery, false), 0); break;
    case RETURN:
        CHECK_EQ(ssm_delivery_return(pool, handle, delivery), 0);
        if (!viewed)
            CHECK_EQ(ssm_free_of(pool, handle, delivery, true), 0);
        break;
    case KEEP: CHECK_EQ(ssm_ring_put_of(to, &handle, &delivery, 1, SSM_KEEP, 0), 0); break;
    default:   CHECK_EQ(ssm_ring_put_of(to, &handle, &delivery, 1, viewed ? SSM_KEEP | SSM_HANDOVER : 0, 0), 0);
    }
}

/* The second and third of those that came back before, and a new one. */
static void return_three(void *mem, const void *fixture)
{
    struct ssm_pool *pool = join(fixture);
    uint64_t handles[PACKETS];
    (void)mem;
    get_all(source(pool), handles, 3);
    CHECK_EQ(ssm_free(pool, handles[0]), 0);
    for (int i = 2; i > 0; i--) {
        CHECK_EQ(ssm_delivery_return(pool, handles[i], SSM_ANY_DELIVERY), 0);
        CHECK_EQ(ssm_delivery_return(pool, handles[i], SSM_ANY_DELIVERY), 0); /* it has ended: nothing */
        CHECK_EQ(ssm_free(pool, handles[i]), 0);
    }
}

/* Put back and kept: it stands in its slot, and is not delivered twice. */
static void return_what_is_queued(void *mem, const void *fixture)
{
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool);
    uint64_t handles[PACKETS];
    (void)mem;
    CHECK_EQ(ssm_ring_get(ring, handles, PACKETS, 0), PACKETS);
    CHECK_EQ(ssm_ring_put(ring, handles, PACKETS, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_delivery_return(pool, handles[0], SSM_ANY_DELIVERY), 0);
}

/* A reference that outlived one delivery of the packet is none of the next. */
static void outlive(void *mem, const void *fixture)
{
    struct ssm_pool *pool = join(fixture);
    struct ssm_ring *ring = source(pool);
    uint64_t handles[PACKETS], first;
    (void)mem;
    CHECK_EQ(ssm_ring_get(ring, handles, PACKETS, 0), PACKETS);
    first = ssm_packet_delivery(pool, handles[0]);
    CHECK_EQ(ssm_packet_hold_of(pool, handles[0], first), 0);
    CHECK_EQ(ssm_ring_put_of(ring, handles, &first, PACKETS, SSM_ONE_DELIVERY, 0), 0);
    CHECK_EQ(ssm_ring_get(ring, handles, 1, 0), 1);
    CHECK(ssm_packet_delivery(pool, handles[0]) != first);
    CHECK_EQ(ssm_free_of(pool, handles[0], first, true), 0);
}

/* The second reference is freed, and is not that of the delivery; with STALE, it came first, and the delivery is not the
 * latest. */
static void free_the_other(void *mem, const void *fixture)
{
    struct ssm_pool *pool = join(fixture);
    uint64_t handle, name;
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), &handle, 1, 0), 1);
    name = ssm_packet_delivery(pool, handle);
    CHECK_EQ(ssm_ring_get(running->second == SIDE ? side(pool) : other(pool), &handle, 1, 0), 1);
    if (running->second != STALE)
        name = running->second == SIDE ? SSM_NO_DELIVERY : ssm_packet_delivery(pool, handle);
    if (running->step == FREE)
        CHECK_EQ(ssm_free_of(pool, handle, name, true), 0);
    else
        CHECK_EQ(ssm_ring_put_of(sink(pool), &handle, &name, 1, 0, 0), 0);
}

/* With no name the latest delivery is meant: after two frees of what came out of two rings both are done. */
static void free_twice(void *mem, const void *fixture)
{
    uint64_t handles[2];
    struct ssm_pool *pool = join(fixture);
    (void)mem;
    CHECK_EQ(ssm_ring_get(source(pool), handles, 1, 0), 1);
    CHECK_EQ(ssm_ring_get(other(pool), handles + 1, 1, 0), 1);
    CHECK_EQ(handles[0], handles[1]);
    CHECK_EQ(ssm_free(pool, handles[0]), 0);
    CHECK_EQ(ssm_free(pool, handles[1]), 0);
}

static void shut_down(void *mem, const void *fixture)
{
    (void)mem;
    CHECK_EQ(ssm_ring_shutdown(source(join(fixture)), 1), 0);
}

static void somebody_died_with_two(void *fixture)
{
    uint64_t handles[2];
    CHECK_EQ(ssm_ring_get(source(join(fixture)), handles, 2, 0), 2);
    die_here();
}

static void two_have_come_back(struct fixture *f)
{
    child_died(child_start(somebody_died_with_two, f));
    fixture_reap(f->pool);
}

static void in_both_rings(struct fixture *f)
{
    struct ssm_ring *rings[] = {source(f->pool), running->second == SIDE ? side(f->pool) : other(f->pool)};
    uint64_t handles[PACKETS];
    CHECK_EQ(ssm_ring_get(rings[0], handles, PACKETS, 0), PACKETS);
    CHECK_EQ(ssm_ring_put(rings[0], handles, PACKETS, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_ring_put(rings[1], handles, PACKETS, 0, 0), 0);
    ssm_ring_close(rings[0]);
    ssm_ring_close(rings[1]);
}

static const struct course courses[] = {
    {"get", NULL, get_one, .finally = "RSSS", .reapers = CHANGES},
    {"get what came back", two_have_come_back, get_one, .finally = "RRSS", .reapers = ALL, .wide = true},
    {"get and free", NULL, get_and_free, .finally = "---S", .wide = true},
    {"get and close", NULL, get_and_close, .finally = "---S"},
    {"forward", NULL, forward, .finally = "KKRS", .wide = true, .reapers = CHANGES},
    {"forward as a waiting put does", NULL, forward_waiting, .finally = "KKSS"},
    {"forward and keep", NULL, forward_keeping, .finally = "KBSS"},
    {"put back", NULL, put_back, .finally = "SRSS", .puts_back = true, .wide = true, .reapers = CHANGES},
    {"put back and keep", NULL, put_back_keeping, .finally = "SSSS", .puts_back = true},
    {"put back and keep what came back", two_have_come_back, put_back_keeping, .finally = "RRSS", .puts_back = true},
    {"forward what came back", two_have_come_back, forward_all, .finally = "KKKR", .reapers = CHANGES},
    {"out of two rings", in_both_rings, free_twice, .finally = "-SSS", .elsewhere = "-SSS"},
    {"view: free", NULL, take_step, .finally = "-SSS", .second = VIEW, .step = FREE},
    {"view: put", NULL, take_step, .finally = "KSSS", .second = VIEW, .step = PUT, .reapers = CHANGES, .wide = true},
    {"view: put, keep", NULL, take_step, .finally = "BSSS", .second = VIEW, .step = KEEP},
    {"view: put back", NULL, take_step, .finally = "SSSS", .second = VIEW, .step = BACK, .puts_back = true},
    {"hold: free", NULL, take_step, .finally = "-SSS", .second = HOLD, .step = FREE},
    {"hold: put", NULL, take_step, .finally = "KSSS", .second = HOLD, .step = PUT},
    {"hold: drop", NULL, take_step, .finally = "-SSS", .second = HOLD, .step = DROP},
    {"shared: free", NULL, take_step, .finally = "-SSS", .second = SHARE, .step = FREE},
    {"shared: put", NULL, take_step, .finally = "KSSS", .second = SHARE, .step = PUT},
    {"shared: drop", NULL, take_step, .finally = "RSSS", .second = SHARE, .step = DROP},
    {"return", NULL, take_step, .finally = "RSSS", .step = RETURN, .reapers = ALL, .wide = true},
    {"return what came back", two_have_come_back, return_three, .finally = "-RRS", .reapers = CHANGES},
    {"return what is queued", NULL, return_what_is_queued, .finally = "SSSS", .puts_back = true},
    {"view: return", NULL, take_step, .finally = "RSSS", .second = VIEW, .step = RETURN},
    {"also by a redelivering ring: return", in_both_rings, take_step, .finally = "RSSS", .second = OTHER,
     .step = RETURN, .elsewhere = "RSSS"},
    {"shared: outlived a delivery", NULL, outlive, .finally = "RSSS", .puts_back = true},
    {"also by a redelivering ring: free", in_both_rings, take_step, .finally = "-SSS", .second = OTHER, .step = FREE,
     .elsewhere = "RSSS", .reapers = CHANGES},
    {"also by a redelivering ring: put", in_both_rings, take_step, .finally = "KSSS", .second = OTHER, .step = PUT,
     .elsewhere = "RSSS", .reapers = CHANGES, .wide = true},
    {"also by a redelivering ring: put, keep", in_both_rings, take_step, .finally = "BSSS", .second = OTHER,
     .step = KEEP, .elsewhere = "RSSS"},
    {"also by a redelivering ring: put back", in_both_rings, take_step, .finally = "SSSS", .second = OTHER,
     .step = BACK, .elsewhere = "RSSS", .puts_back = true},
    {"also by a redelivering ring: drop", in_both_rings, take_step, .finally = "-SSS", .second = OTHER, .step = DROP,
     .elsewhere = "RSSS"},
    {"also by an ordinary ring: free", in_both_rings, take_step, .finally = "-SSS", .second = SIDE, .step = FREE},
    {"also by an ordinary ring: put", in_both_rings, take_step, .finally = "KSSS", .second = SIDE, .step = PUT},
    {"also by an ordinary ring: put, keep", in_both_rings, take_step, .finally = "BSSS", .second = SIDE, .step = KEEP},
    {"also by an ordinary ring: drop", in_both_rings, take_step, .finally = "-SSS", .second = SIDE, .step = DROP},
    {"also by an ordinary ring: free that one", in_both_rings, free_the_other, .finally = "RSSS", .second = SIDE,
     .step = FREE},
    {"also by an ordinary ring: put that one", in_both_rings, free_the_other, .finally = "BSSS", .second = SIDE,
     .step = PUT},
    {"also by a redelivering ring: free that one", in_both_rings, free_the_other, .finally = "RSSS", .second = OTHER,
     .step = FREE, .elsewhere = "-SSS"},
    {"also by a redelivering ring: put that one", in_both_rings, free_the_other, .finally = "BSSS", .second = OTHER,
     .step = PUT, .elsewhere = "-SSS"},
    {"also by a redelivering ring, later: free", in_both_rings, free_the_other, .finally = "-SSS", .second = STALE,
     .step = FREE, .elsewhere = "RSSS"},
    {"shut down", two_have_come_back, shut_down, .finally = "----"},
};

static void test_every_death(void)
{
    if (!STEPS_WANTED || !steps_possible())
        return;
    CHECK(pthread_atfork(before_fork, NULL, in_child) == 0); /* in the child, behind the library's */
    for (size_t i = 0; i < sizeof courses / sizeof *courses; i++) {
        go_through(&courses[i], false, courses[i].reapers != NO_REAPER && (i == 0 || check_all()));
        if (courses[i].wide)
            go_through(&courses[i], true, false);
    }
}

int main(void)
{
    alarm(280);
    test_every_death();
    return 0;
}
