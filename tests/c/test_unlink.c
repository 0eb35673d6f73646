/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings come and go: unlinking, users, what is freed when the last one is gone. */
#include "ring_fixture.h"

#include "carver.h"
#include "interleave.h"
#include "ring_unlink.h"

static int try_stats(struct ssm_pool *pool, uint32_t id)
{
    struct ssm_ring_stats stats;
    return ssm_ring_stats(pool, id, &stats);
}

/* Nothing of the rings is left: no slot, no number, no memory, no block. */
static void check_no_ring(struct ssm_pool *pool)
{
    uint64_t start;
    for (uint32_t id = 0; id < pool->geometry.holders; id++)
        CHECK_EQ(try_stats(pool, id), -ENOENT);
    CHECK_EQ(ssm_registry_lock(pool, 0), 0);
    CHECK_EQ(ssm_carver_alloc(pool, pool->geometry.metadata_bytes, 0, 7, &start), 0); /* all of it is one range */
    ssm_carver_free(pool, start, pool->geometry.metadata_bytes);
    ssm_registry_unlock(pool);
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++)
        check_all_there(pool, class_idx);
}

static void test_the_name_goes_first(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    const uint32_t id = ring->id;
    put(f.pool, ring, 1);
    put(f.pool, ring, 2);
    CHECK_EQ(ssm_ring_is_unlinked(ring), 0);
    CHECK_EQ(ssm_ring_unlink(ring), 0);
    CHECK_EQ(ssm_ring_is_unlinked(ring), 1);
    CHECK_EQ(ssm_ring_unlink(ring), -ENOENT);
    CHECK_EQ(ssm_ring_unlink_name(f.pool, "ring"), -ENOENT);
    struct ssm_ring *found;
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &(struct ssm_ring_options){.existing = 1}, &found), -ENOENT);
    struct ssm_ring *next = ring_open(f.pool, "ring", 8, 0); /* another capacity: it is another ring */
    CHECK(!ssm_ring_is_same(ring, next));
    put(f.pool, next, 3);
    get(f.pool, ring, 1);
    put(f.pool, ring, 4);
    get(f.pool, next, 3);
    CHECK_EQ(ssm_ring_depth(ring), 2);
    CHECK_EQ(ssm_ring_unlink(ring), -ENOENT); /* not the new one's name */
    CHECK_EQ(ssm_ring_is_unlinked(next), 0);
    fixture_check(f.pool);
    ssm_ring_close(ring); /* with what is queued in it */
    CHECK_EQ(try_stats(f.pool, id), -ENOENT);
    CHECK_EQ(ssm_ring_unlink_name(f.pool, "ring"), 0);
    ssm_ring_close(next);
    check_no_ring(f.pool);
    fixture_close(&f);
}

static void test_a_ring_that_nobody_has(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_REDELIVER);
    put(f.pool, ring, 1);
    ssm_ring_close(ring);
    CHECK_EQ(try_stats(f.pool, ring_id(f.pool, "ring")), 0); /* it keeps its name and its packet */
    CHECK_EQ(ssm_ring_unlink_name(f.pool, "rin"), -ENOENT);
    CHECK_EQ(ssm_ring_unlink_name(f.pool, "ring"), 0);
    check_no_ring(f.pool);
    fixture_close(&f);
}

/* The last of its users, whoever that is, and however it goes. */
static void test_users(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *others[2] = {fixture_attach(f.fd, 0), fixture_attach(f.fd, 0)};
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0), *again = ring_open(f.pool, "ring", 4, 0);
    struct ssm_ring *theirs[2];
    struct ssm_ring_stats stats;
    struct ssm_holder_set users;
    for (int i = 0; i < 2; i++)
        theirs[i] = ring_open(others[i], "ring", 4, 0);
    const uint32_t id = ring->id;
    CHECK_EQ(ssm_ring_users(f.pool, id, &users), 3);
    CHECK(ssm_holder_set_has(&users, f.pool->self) && ssm_holder_set_has(&users, others[1]->self));
    put(f.pool, ring, 1);
    CHECK_EQ(ssm_ring_unlink(theirs[0]), 0);
    ssm_ring_close(ring);
    CHECK_EQ(ssm_ring_stats(f.pool, id, &stats), 0);
    CHECK(stats.unlinked == 1 && stats.users == 3); /* by the other handle */
    put(f.pool, again, 2);
    ssm_ring_close(again);
    CHECK_EQ(ssm_ring_users(f.pool, id, &users), 2);
    get(others[0], theirs[0], 1);
    CHECK_EQ(ssm_pool_close(others[0]), 0); /* its ring is open still */
    CHECK_EQ(ssm_ring_depth(theirs[0]), 0);
    CHECK_EQ(ssm_ring_put(theirs[0], (uint64_t[]){0}, 1, 0, 0), -SSM_E_CLOSED);
    CHECK_EQ(ssm_ring_users(f.pool, id, &users), 1);
    get(others[1], theirs[1], 2);
    put(others[1], theirs[1], 3);
    ssm_ring_close(theirs[1]);
    check_no_ring(f.pool);
    ssm_ring_close(theirs[0]);
    ssm_pool_destroy(others[0]);
    pool_end(others[1]);
    fixture_close(&f);
}

static void have_it_open(void *context)
{
    struct fixture *f = context;
    struct ssm_ring *ring = ring_open(fixture_join(f), "ring", 4, 0);
    put(f->pool, ring, 1);
    CHECK_EQ(ssm_ring_unlink(ring), 0);
    board_set(f->board, READY, 1 + ring->id);
    AWAIT(false);
}

/* The last user is killed: the ring is there until somebody looks for the dead. */
static void test_a_dead_user(void)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(have_it_open, &f);
    AWAIT(board_get(f.board, READY) != 0);
    const uint32_t id = board_get(f.board, READY) - 1;
    CHECK_EQ(try_stats(f.pool, id), 0);
    child_kill(child);
    CHECK_EQ(ssm_ring_users(f.pool, id, NULL), 1);
    fixture_check(f.pool);
    fixture_reap(f.pool);
    check_no_ring(f.pool);
    fixture_close(&f);
}

static void wait_for_a_packet(void *context)
{
    struct fixture *f = context;
    uint64_t handle;
    struct ssm_ring *ring = ring_open(fixture_join(f), "ring", 4, 0);
    board_set(f->board, READY, 1);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, SSM_FOREVER), 1);
    CHECK_EQ(number_in(f->pool, handle), 7);
    CHECK_EQ(ssm_free(f->pool, handle), 0);
    ssm_ring_close(ring);
    pool_end(f->pool);
}

/* A call that waits goes on, and is woken. */
static void test_a_call_that_waits(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    pid_t child = child_start(wait_for_a_packet, &f);
    AWAIT(board_get(f.board, READY) == 1);
    CHECK_EQ(ssm_ring_unlink(ring), 0);
    struct ssm_ring *next = ring_open(f.pool, "ring", 4, 0);
    put(f.pool, next, 8); /* not for the one that waits */
    put(f.pool, ring, 7);
    child_finish(child);
    get(f.pool, next, 8);
    CHECK_EQ(ssm_ring_unlink(next), 0);
    ssm_ring_close(next);
    ssm_ring_close(ring);
    check_no_ring(f.pool);
    fixture_close(&f);
}

/* A process with a packet that a death would return has the ring open, whether or not it has a handle. */
static void test_a_delivery_is_a_use(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *worker = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, SSM_REDELIVER),
                    *theirs = ring_open(worker, "ring", 4, SSM_REDELIVER);
    uint64_t handles[2];
    const uint32_t id = ring->id;
    put(f.pool, ring, 1);
    put(f.pool, ring, 2);
    CHECK_EQ(ssm_ring_get(theirs, handles, 2, 0), 2);
    CHECK_EQ(ssm_ring_unlink(ring), 0);
    ssm_ring_close(theirs);
    CHECK_EQ(ssm_ring_users(f.pool, id, NULL), 2);
    CHECK_EQ(ssm_free(worker, handles[0]), 0);
    CHECK_EQ(ssm_ring_users(f.pool, id, NULL), 2);
    CHECK_EQ(ssm_delivery_return(worker, handles[1], SSM_ANY_DELIVERY), 0);
    CHECK_EQ(ssm_ring_users(f.pool, id, NULL), 1);
    CHECK_EQ(ssm_free(worker, handles[1]), 0);
    CHECK_EQ(ssm_ring_get(ring, handles, 1, 0), 1); /* once more */
    ssm_ring_close(ring);
    CHECK_EQ(try_stats(f.pool, id), 0);
    struct ssm_ring *next = ring_open(f.pool, "next", 4, SSM_REDELIVER); /* the same process, another ring */
    CHECK(next->id != id);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0); /* the last delivery */
    CHECK_EQ(try_stats(f.pool, id), -ENOENT);
    struct ssm_ring *heir = ring_open(f.pool, "heir", 8, SSM_REDELIVER); /* with that slot, and the table of before */
    CHECK_EQ(heir->id, id);
    put(f.pool, heir, 3);
    put(f.pool, heir, 4);
    CHECK_EQ(ssm_ring_get(heir, handles, 2, 0), 2);
    CHECK_EQ(ssm_delivery_return(f.pool, handles[0], SSM_ANY_DELIVERY), 0);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    get(f.pool, heir, 3);
    CHECK_EQ(ssm_free(f.pool, handles[1]), 0);
    CHECK_EQ(ssm_ring_unlink(heir), 0);
    CHECK_EQ(ssm_ring_unlink(next), 0);
    ssm_ring_close(heir);
    ssm_ring_close(next);
    check_no_ring(f.pool);
    pool_end(worker);
    fixture_close(&f);
}

struct family {
    struct fixture   f;
    struct ssm_ring *stays, *goes;
};

static void use_what_was_inherited(void *context)
{
    struct family *family = context;
    struct ssm_pool *pool = family->f.pool;
    uint64_t handle = 0;
    char text[SSM_TYPE_SIZE];
    board_set(family->f.board, READY, 1);
    AWAIT(board_get(family->f.board, GO) == 1);
    CHECK_EQ(ssm_ring_depth(family->stays), 1); /* it is no holder yet */
    CHECK_EQ(ssm_ring_depth(family->goes), 0);  /* the memory is another ring's, which is full */
    CHECK_EQ(ssm_ring_room(family->goes), 0);
    CHECK_EQ(ssm_ring_type(family->goes, text), -SSM_E_UNLINKED);
    CHECK_EQ(ssm_ring_get(family->goes, &handle, 1, SSM_FOREVER), -SSM_E_UNLINKED);
    CHECK_EQ(ssm_ring_users(pool, family->stays->id, NULL), 2);
    handle = alloc(pool, 5);
    CHECK_EQ(ssm_ring_put(family->goes, &handle, 1, 0, SSM_FOREVER), -SSM_E_UNLINKED);
    CHECK_EQ(ssm_ring_shutdown(family->goes, 1), -SSM_E_UNLINKED);
    CHECK_EQ(ssm_ring_set_acl(family->goes, SSM_ACL_RDWR), -SSM_E_UNLINKED);
    CHECK_EQ(ssm_ring_unlink(family->goes), -ENOENT);
    CHECK_EQ(ssm_ring_join(family->goes, SSM_FOREVER), 0);
    CHECK_EQ(ssm_ring_task_done(family->goes), -EINVAL);
    CHECK_EQ(ssm_ring_unfinished(family->goes), 0);
    struct ssm_interest interests[] = {{family->goes, SSM_READY_TO_GET, 0}, {family->stays, SSM_READY_TO_GET, 0}};
    CHECK_EQ(ssm_wait_rings(interests, 2, NULL, 0), 2);
    CHECK_EQ(ssm_ring_put(family->stays, &handle, 1, 0, 0), 0);
    ssm_ring_close(family->goes);
    ssm_ring_close(family->stays);
    pool_end(pool);
}

/* A forked child counts from its first call on; what is gone by then is no other ring's memory for it. */
static void test_fork(uint32_t flags)
{
    struct family family = {.f = open_fixture()};
    struct ssm_pool *pool = family.f.pool;
    family.stays = ring_open(pool, "stays", 4, flags);
    family.goes = ring_open(pool, "goes", 4, flags | SSM_ONE_CONSUMER);
    put(pool, family.stays, 1);
    pid_t child = child_start(use_what_was_inherited, &family);
    AWAIT(board_get(family.f.board, READY) == 1);
    const uint32_t id = family.goes->id;
    CHECK_EQ(ssm_ring_unlink(family.goes), 0);
    ssm_ring_close(family.goes);
    struct ssm_ring *next = ring_open(pool, "next", 4, flags | SSM_ONE_CONSUMER);
    CHECK_EQ(next->id, id);
    for (uint64_t i = 0; i < 4; i++)
        put(pool, next, i);
    board_set(family.f.board, GO, 1);
    child_finish(child);
    for (uint64_t i = 0; i < 4; i++)
        get(pool, next, i);
    get(pool, family.stays, 1);
    get(pool, family.stays, 5);
    ssm_ring_close(next);
    ssm_ring_close(family.stays);
    fixture_close(&family.f);
}

static void test_as_many_as_one_likes(void)
{
    struct fixture f = open_fixture();
    char name[SSM_NAME_SIZE];
    struct ssm_ring *kept[3] = {NULL, NULL, NULL}, *ring;
    for (uint32_t i = 0; i < 500; i++) {
        snprintf(name, sizeof name, "reply %u", i);
        ring = ring_open(f.pool, name, 1 + i % 64, i % 5 == 0 ? SSM_REDELIVER : 0);
        put(f.pool, ring, i);
        CHECK_EQ(ssm_ring_unlink(ring), 0);
        if (kept[i % 3] != NULL)
            ssm_ring_close(kept[i % 3]);
        kept[i % 3] = ring;
    }
    for (int i = 0; i < 3; i++)
        ssm_ring_close(kept[i]);
    check_no_ring(f.pool);
    fixture_close(&f);
}

/* Of 64 holders, 8 are kept for processes. */
static void test_rings_leave_room_for_processes(void)
{
    struct ssm_pool_options options = fixture_options();
    options.metadata_bytes = UINT64_C(1) << 18;
    struct fixture f = fixture_open(&options);
    struct ssm_ring *rings[56], *more;
    struct ssm_pool *others[7], *one;
    struct ssm_pool_info info;
    char name[SSM_NAME_SIZE];
    CHECK_EQ(ssm_pool_info(f.pool, &info), 0);
    CHECK_EQ(info.rings_max, 56);
    for (uint32_t i = 0; i < 56; i++) {
        snprintf(name, sizeof name, "%u", i);
        rings[i] = ring_open(f.pool, name, 1, 0);
    }
    CHECK_EQ(ssm_ring_open(f.pool, "one more", &(struct ssm_ring_options){.capacity = 1}, &more), -SSM_E_RINGS);
    for (int i = 0; i < 7; i++)
        others[i] = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_pool_attach(f.fd, NULL, &one), -SSM_E_HOLDERS);
    CHECK_EQ(ssm_ring_unlink(rings[9]), 0);
    CHECK_EQ(ssm_ring_open(f.pool, "one more", &(struct ssm_ring_options){.capacity = 1}, &more), -SSM_E_RINGS);
    ssm_ring_close(rings[9]);
    rings[9] = ring_open(f.pool, "one more", 1, 0);
    for (int i = 0; i < 7; i++)
        pool_end(others[i]);
    for (int i = 0; i < 56; i++)
        ssm_ring_close(rings[i]);
    fixture_close(&f);
}

static void report(void *context, const char *sentence)
{
    *(bool *)context |= strstr(sentence, "has ring 1 open, which is none") != NULL;
}

static void test_check(void)
{
    struct fixture f = open_fixture();
    bool found = false;
    struct ssm_u64 *opened = ssm_opened_at(f.pool, f.pool->self, 1);
    ssm_store_relaxed_u64(opened, 2); /* I20 */
    CHECK_EQ(ssm_check(f.pool, report, &found), 1);
    CHECK(found);
    ssm_store_relaxed_u64(opened, 0);
    fixture_close(&f);
}

/* ---- opening, at every instruction, while the ring is unlinked and another one made ----------------------------- */

struct race {
    struct fixture  f;
    struct ssm_pool opener; /* in the child; not in the list of attachments, so that it outlives the fork */
};

static void prepare_race(void *context)
{
    struct race *race = context;
    struct ssm_ring *ring = ring_open(race->f.pool, "ring", 4, 0);
    ssm_ring_close(ring);
}

static void open_and_close(void *context)
{
    struct race *race = context;
    struct ssm_ring *ring;
    if (ssm_ring_open(&race->opener, "ring", &(struct ssm_ring_options){.existing = 1}, &ring) != 0)
        _exit(3);
    if (strcmp(ssm_holder_at(&race->opener, ring->id)->name, "ring") != 0 || ring->shared->capacity != ring->capacity)
        _exit(4); /* another one's memory */
    ssm_ring_close(ring);
}

static void unlink_and_make_another(void *context)
{
    struct race *race = context;
    if (ssm_registry_lock(race->f.pool, 0) != 0)
        return; /* the child has it */
    ssm_registry_unlock(race->f.pool);
    CHECK_EQ(ssm_ring_unlink_name(race->f.pool, "ring"), 0);
    struct ssm_ring *stranger = ring_open(race->f.pool, "stranger", 8, 0); /* in its place, if that is free */
    struct ssm_ring *next = ring_open(race->f.pool, "ring", 4, 0);
    put(race->f.pool, stranger, 1);
    get(race->f.pool, stranger, 1);
    CHECK_EQ(ssm_ring_unlink(stranger), 0);
    ssm_ring_close(stranger);
    ssm_ring_close(next);
}

static void end_race(void *context)
{
    struct race *race = context;
    CHECK_EQ(ssm_ring_unlink_name(race->f.pool, "ring"), 0);
    check_no_ring(race->f.pool);
}

static void test_race(void)
{
    const struct interleaving open = {prepare_race, open_and_close, unlink_and_make_another, end_race};
    struct race race = {.f = open_fixture()};
    struct ssm_pool *pool = fixture_attach(race.f.fd, 0);
    race.opener = *pool;
    race.opener.flags |= SSM_SERIAL;
    printf("open: %u instructions\n", interleave_everywhere(&open, &race));
    pool_end(pool);
    fixture_close(&race.f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_the_name_goes_first();
    test_a_ring_that_nobody_has();
    test_users();
    test_a_dead_user();
    test_a_call_that_waits();
    test_a_delivery_is_a_use();
    test_fork(0);
    test_fork(SSM_REDELIVER);
    test_as_many_as_one_likes();
    test_rings_leave_room_for_processes();
    test_check();
    if (STEPS_WANTED && steps_possible())
        test_race();
    return 0;
}
