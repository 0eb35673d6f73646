/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder table: taking and leaving slots, who is dead, who adopts whose slot. */
#include "pool_fixture.h"

static uint32_t incarnation_of(const struct ssm_pool *pool, uint32_t slot)
{
    return ssm_load_acquire_u32(&ssm_holder_at(pool, slot)->incarnation);
}

static void lock_and_die(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_registry_lock(fixture_join(f), 0), 0);
    board_set(f->board, 0, 1);
    AWAIT(board_get(f->board, 0) == 2);
    die_here();
}

static void test_lock(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    pid_t child = child_start(lock_and_die, &f);
    AWAIT(board_get(f.board, 0) == 1);
    CHECK_EQ(ssm_registry_lock(f.pool, 0), -ETIMEDOUT);
    uint64_t start_ns = ssm_now_ns();
    CHECK_EQ(ssm_registry_lock(f.pool, 20 * MS), -ETIMEDOUT);
    CHECK(ssm_now_ns() - start_ns >= 20 * MS);
    board_set(f.board, 0, 2);
    CHECK_EQ(ssm_registry_lock(f.pool, 10000 * MS), 0); /* its owner's death is enough */
    ssm_registry_unlock(f.pool);
    child_died(child);
    fixture_reap(f.pool);
    fixture_close(&f);
}

static void test_slots(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *one = fixture_attach(f.fd, 0), *two = fixture_attach(f.fd, SSM_SERIAL);
    CHECK(f.pool->self == 0 && one->self == 1 && two->self == 2);
    CHECK_EQ(ssm_holder_high(f.pool), 3);
    CHECK_EQ(one->home, (uint32_t)getpid() % 4);
    CHECK_EQ(one->lock_word, (uint64_t)incarnation_of(one, 1) << 32 | 2);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(one, 1)->pid), getpid());
    uint32_t incarnation = incarnation_of(f.pool, 1);
    pool_end(one);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(f.pool, 1)->kind), SSM_HOLDER_NONE);
    CHECK_EQ(ssm_registry_find_free(f.pool), 1);
    one = fixture_attach(f.fd, 0); /* the lowest free slot, as somebody else */
    CHECK_EQ(one->self, 1);
    CHECK(incarnation_of(f.pool, 1) != incarnation);
    CHECK_EQ(ssm_holder_high(f.pool), 3);
    pool_end(one);
    pool_end(two);
    fixture_close(&f);
}

static void test_names(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *named, *unnamed;
    char name[100];
    memset(name, 'n', sizeof name);
    name[99] = 0;
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){.name = name}, &named), 0);
    CHECK_EQ(strnlen(ssm_holder_at(f.pool, named->self)->name, SSM_NAME_SIZE), SSM_NAME_SIZE - 1);
    CHECK(prctl(PR_SET_NAME, "by-kernel") == 0);
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){0}, &unnamed), 0);
    CHECK(strcmp(ssm_holder_at(f.pool, unnamed->self)->name, "by-kernel") == 0);
    pool_end(named);
    pool_end(unnamed);
    fixture_close(&f);
}

static void hold_slot(void *context)
{
    struct fixture *f = context;
    board_set(f->board, 1, fixture_join(f)->self);
    board_set(f->board, 0, 1);
    for (;;)
        pause();
}

static void test_who_is_dead(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    pid_t child = child_start(hold_slot, &f);
    AWAIT(board_get(f.board, 0) == 1);
    uint32_t slot = board_get(f.board, 1), incarnation = incarnation_of(f.pool, slot);
    CHECK(!ssm_holder_slot_is_dead(f.pool, slot));
    CHECK(!ssm_holder_is_dead(f.pool, slot, incarnation));
    CHECK(ssm_holder_is_dead(f.pool, slot, incarnation - 1)); /* who had the slot before */
    CHECK(ssm_holder_is_dead(f.pool, options.holders, 0));    /* nobody */
    CHECK(ssm_holder_is_dead(f.pool, SSM_NIL, 0));
    CHECK(!ssm_holder_slot_is_dead(f.pool, f.pool->self));
    CHECK(!ssm_holder_is_dead(f.pool, f.pool->self, incarnation_of(f.pool, f.pool->self)));
    child_stop(child);
    CHECK(!ssm_holder_slot_is_dead(f.pool, slot));
    child_kill(child);
    CHECK(ssm_holder_slot_is_dead(f.pool, slot));
    CHECK(!ssm_holder_slot_is_dead(f.pool, 40)); /* no process has it */
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    CHECK(!ssm_holder_slot_is_dead(f.pool, ring_id(f.pool, "ring")));
    ssm_ring_close(ring);
    fixture_reap(f.pool);
    CHECK(!ssm_holder_slot_is_dead(f.pool, slot));
    fixture_close(&f);
}

/* Takes every slot that is left, and a block for each. */
static void fill(void *context)
{
    struct fixture *f = context;
    for (uint32_t i = 1; i < 64; i++) {
        uint64_t handle;
        struct ssm_pool *pool = fixture_attach(f->fd, 0);
        if (i < 16)
            CHECK_EQ(ssm_alloc(pool, 100, 0, &handle), 0);
    }
    board_set(f->board, 0, 1);
    for (;;)
        pause();
}

static void test_full(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *more;
    struct ssm_ring *ring;
    pid_t child = child_start(fill, &f);
    AWAIT(board_get(f.board, 0) == 1);
    CHECK_EQ(ssm_registry_find_free(f.pool), SSM_NIL);
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){0}, &more), -SSM_E_HOLDERS);
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &(struct ssm_ring_options){.capacity = 4, .flags = 0}, &ring),
             -SSM_E_HOLDERS);
    child_kill(child);
    more = fixture_attach(f.fd, 0); /* adopts a slot, gives back what was held in its name, then reaps the rest */
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    CHECK_EQ(listed_blocks(f.pool, 0), 16);
    pool_end(more);
    fixture_close(&f);
}

/* A ring needs a slot, too: it is refused only while the living have all of them. */
static void test_ring_among_the_dead(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    pid_t child = child_start(fill, &f);
    AWAIT(board_get(f.board, 0) == 1);
    child_kill(child);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 4, 0);
    ssm_ring_close(ring);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* Nobody gets the slot of a living process. */
static void test_corrupt_slot(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *one = fixture_attach(f.fd, 0), *more;
    struct ssm_u32 *kind = &ssm_holder_at(f.pool, one->self)->kind;
    ssm_store_release_u32(kind, SSM_HOLDER_NONE); /* says that it is free, but its process lives */
    ssm_registry_ids_free(f.pool, SSM_REGISTRY_IDS_SLOTS, one->self);
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){0}, &more), 0);
    CHECK(more->self != one->self);
    ssm_pool_destroy(more);
    ssm_store_release_u32(kind, SSM_HOLDER_PROCESS);
    ssm_registry_ids_settle(f.pool, SSM_REGISTRY_IDS_SLOTS);
    ssm_store_release_u32(&ssm_superblock_of(f.pool)->holder_high, UINT32_MAX);
    CHECK_EQ(ssm_holder_high(f.pool), options.holders); /* scribbled: bounded all the same */
    ssm_store_release_u32(&ssm_superblock_of(f.pool)->holder_high, 2);
    pool_end(one);
    fixture_close(&f);
}

static void join(void *context)
{
    fixture_attach(((struct fixture *)context)->fd, 0);
    board_set(((struct fixture *)context)->board, 0, 1);
    for (;;)
        pause();
}

/* A user who may only read locks slots: free ones are passed over, the dead are dead, the living are not disturbed. */
static void test_reader(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    int reader = ssm_file_reopen(f.fd, false);
    for (uint32_t slot = 1; slot < 5; slot++)
        CHECK_EQ(read_lock(reader, SSM_BYTE_HOLDER(slot)), 0);
    struct ssm_pool *one = fixture_attach(f.fd, 0), *two = fixture_attach(f.fd, 0);
    CHECK_EQ(one->self, 5);
    CHECK_EQ(two->self, 6);
    pid_t child = child_start(join, &f);
    AWAIT(board_get(f.board, 0) == 1);
    child_kill(child);
    for (uint32_t slot = 7; slot < options.holders; slot++)
        CHECK_EQ(read_lock(reader, SSM_BYTE_HOLDER(slot)), 0);
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_reap(f.pool, &reaped), 0);
    CHECK_EQ(reaped.processes, 1);
    struct ssm_pool *more;
    CHECK_EQ(ssm_pool_attach(f.fd, &(struct ssm_attach_options){0}, &more), -SSM_E_HOLDERS);
    close(reader);
    pool_end(fixture_attach(f.fd, 0));
    pool_end(two);
    pool_end(one);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_reader();
    test_lock();
    test_slots();
    test_names();
    test_who_is_dead();
    test_full();
    test_corrupt_slot();
    test_ring_among_the_dead();
    return 0;
}
