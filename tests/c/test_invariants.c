/* SPDX-License-Identifier: Apache-2.0
 *
 * Executable invariants (invariant.h): in a build that has them, damage of each structure ends the next call that
 * relies on it, by abort(). Each scene runs in a child, once as it is, when the call succeeds, and once with the
 * damage. In any other build nothing of them is evaluated. */
#include "pool_fixture.h"

#include "arena.h"
#include "invariant.h"
#include "redelivery.h"
#include "reservation.h"
#include "service.h"

#include <stdlib.h>
#include <sys/resource.h>

#if SSM_ASSERTS

struct scene {
    const char *name;
    struct ssm_pool_options (*options)(void);
    void (*run)(struct ssm_pool *pool, bool damaged);
};

static struct ssm_pool_options with_cache(void)
{
    return (struct ssm_pool_options){
        .classes = {{256, 64}},
        .class_count = 1,
        .shards = 1,
        .holders = 64,
        .cache = 8,
        .metadata_bytes = 65536,
    };
}

static struct ssm_pool_options with_arena(void)
{
    struct ssm_pool_options options = fixture_options();
    options.arena_bytes = 1 << 20;
    options.arena_packets = 8;
    return options;
}

static struct ssm_pool_options with_growing_arena(void)
{
    struct ssm_pool_options options = fixture_options();
    options.grow_bytes = 1 << 20;
    options.arena_packets = 8;
    return options;
}

static uint64_t alloc(struct ssm_pool *pool, uint64_t size)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(pool, size, 0, &handle), 0);
    return handle;
}

/* ---- shards --------------------------------------------------------------------------------------------------- */

/* The block at the bottom of the list, which the next calls do not look at for themselves. */
static struct ssm_block *bottom(struct ssm_pool *pool)
{
    return ssm_block_at(pool, ssm_load_relaxed_u32(&ssm_list_at(pool, 0, 0)[0]));
}

static void list_holds_a_held_block(struct ssm_pool *pool, bool damaged)
{
    if (damaged)
        ssm_store_relaxed_u64(&bottom(pool)->holders[0], 1);
    alloc(pool, 8);
}

static void listed_elsewhere(struct ssm_pool *pool, bool damaged)
{
    if (damaged)
        ssm_store_relaxed_u32(&bottom(pool)->home, 1);
    alloc(pool, 8);
}

static void list_has_one_twice(struct ssm_pool *pool, bool damaged)
{
    struct ssm_u32 *list = ssm_list_at(pool, 0, 0);
    if (damaged)
        ssm_store_relaxed_u32(&list[0], ssm_load_relaxed_u32(&list[1]));
    alloc(pool, 8);
}

static void listed_on_no_list(struct ssm_pool *pool, bool damaged)
{
    const uint64_t handle = alloc(pool, 8), other = alloc(pool, 8);
    struct ssm_block *block = ssm_block_at(pool, block_of(handle));
    ssm_store_relaxed_u32(&block->listed, damaged);
    CHECK_EQ(ssm_free(pool, other), 0);
}

/* ---- caches --------------------------------------------------------------------------------------------------- */

static void cache_has_one_twice(struct ssm_pool *pool, bool damaged)
{
    CHECK_EQ(ssm_free(pool, alloc(pool, 8)), 0);
    struct ssm_cache *cache = ssm_cache_at(pool, pool->self, 0);
    CHECK(ssm_load_relaxed_u32(&cache->count) > 1);
    if (damaged)
        ssm_store_relaxed_u64(&cache->handles[1], ssm_load_relaxed_u64(&cache->handles[0]));
    uint64_t two[2];
    CHECK_EQ(ssm_alloc_many(pool, 8, 2, 0, two), 0);
}

static void cached_block_is_listed(struct ssm_pool *pool, bool damaged)
{
    CHECK_EQ(ssm_free(pool, alloc(pool, 8)), 0);
    const uint64_t handle = ssm_load_relaxed_u64(&ssm_cache_at(pool, pool->self, 0)->handles[0]);
    ssm_store_relaxed_u32(&ssm_block_at(pool, block_of(handle))->listed, damaged);
    uint64_t two[2];
    CHECK_EQ(ssm_alloc_many(pool, 8, 2, 0, two), 0);
}

static void cached_block_is_claimed(struct ssm_pool *pool, bool damaged)
{
    CHECK_EQ(ssm_free(pool, alloc(pool, 8)), 0);
    const uint64_t handle = ssm_load_relaxed_u64(&ssm_cache_at(pool, pool->self, 0)->handles[0]);
    pool->claims[block_of(handle)].references = damaged;
    uint64_t two[2];
    CHECK_EQ(ssm_alloc_many(pool, 8, 2, 0, two), 0);
}

static void cache_is_left_twice(struct ssm_pool *pool, bool damaged)
{
    struct ssm_cache *cache = ssm_cache_at(pool, pool->self, 0);
    CHECK(ssm_cache_enter(pool, 0));
    ssm_cache_leave(cache);
    if (damaged)
        ssm_cache_leave(cache);
}

/* ---- rings ---------------------------------------------------------------------------------------------------- */

static struct ssm_ring *filled_ring(struct ssm_pool *pool)
{
    struct ssm_ring *ring = ring_open(pool, "ring", 4, 0);
    for (int i = 0; i < 2; i++) {
        uint64_t handle = alloc(pool, 8);
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    }
    return ring;
}

static void put_more(struct ssm_pool *pool, struct ssm_ring *ring)
{
    uint64_t handle = alloc(pool, 8);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
}

static void get_one(struct ssm_ring *ring)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
}

static void more_done_than_put(struct ssm_pool *pool, bool damaged)
{
    struct ssm_ring *ring = filled_ring(pool);
    if (damaged)
        ssm_store_relaxed_u64(&ssm_ring_shared_of(ring)->done, 9);
    put_more(pool, ring);
}

static void intent_is_left(struct ssm_pool *pool, bool damaged)
{
    struct ssm_ring *ring = filled_ring(pool);
    if (damaged)
        ssm_store_relaxed_u64(&ssm_ring_shared_of(ring)->producer.put_owner, 1);
    put_more(pool, ring);
}

static void tail_before_head(struct ssm_pool *pool, bool damaged)
{
    struct ssm_ring *ring = filled_ring(pool);
    if (damaged)
        ssm_store_relaxed_u64(&ssm_ring_shared_of(ring)->producer.index, 9);
    get_one(ring);
}

/* ---- redelivery ----------------------------------------------------------------------------------------------- */

static void delivery_without_a_claim(struct ssm_pool *pool, bool damaged)
{
    struct ssm_ring *ring = ring_open(pool, "jobs", 4, SSM_REDELIVER);
    put_more(pool, ring);
    put_more(pool, ring);
    if (damaged)
        pool->redeliveries->own[block_of(alloc(pool, 8))].references = 1;
    get_one(ring);
}

static void entry_without_a_delivery(struct ssm_pool *pool, bool damaged)
{
    struct ssm_ring *ring = ring_open(pool, "jobs", 4, SSM_REDELIVER);
    uint64_t handle;
    put_more(pool, ring);
    put_more(pool, ring);
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
    if (damaged)
        pool->redeliveries->own[block_of(handle)].references = 0;
    get_one(ring);
}

/* ---- the arena ------------------------------------------------------------------------------------------------ */

static uint32_t first_large(struct ssm_pool *pool)
{
    return block_of(alloc(pool, 8192));
}

static void extent_that_the_tree_has_not(struct ssm_pool *pool, bool damaged)
{
    const uint32_t block_idx = first_large(pool);
    if (damaged)
        ssm_store_relaxed_u64(&ssm_extent_at(pool, block_idx)->start, 1 << 19);
    first_large(pool);
}

static void range_without_an_extent(struct ssm_pool *pool, bool damaged)
{
    const uint32_t block_idx = first_large(pool);
    if (damaged)
        ssm_store_relaxed_u64(&ssm_extent_at(pool, block_idx)->bytes, 0);
    first_large(pool);
}

/* A bit of the bitmap says that a unit is reserved, and the file has no memory there. */
static void unit_is_not_reserved(struct ssm_pool *pool, bool damaged)
{
    if (damaged)
        ssm_store_relaxed_u64((struct ssm_u64 *)(pool->base + pool->geometry.backed_start), UINT64_C(0xffff));
    first_large(pool);
}

/* ---- services ------------------------------------------------------------------------------------------------- */

static struct ssm_service *service_of(struct ssm_pool *pool)
{
    const struct ssm_service_options options = {.kind = SSM_SERVICE_IDS, .first = 1, .last = 1000};
    struct ssm_service *service;
    CHECK_EQ(ssm_service_open(pool, "ids", &options, &service), 0);
    return service;
}

/* It counts one more than its bitmap has. */
static void service_contradicts_itself(struct ssm_pool *pool, bool damaged)
{
    struct ssm_service *service = service_of(pool);
    uint32_t number;
    CHECK_EQ(ssm_number_alloc(service, 0, &number), 0);
    if (damaged)
        service->hosted.ids.layers.head->used += 1;
    CHECK_EQ(ssm_number_alloc(service, 0, &number), 0);
}

static struct ssm_service *semaphore_of(struct ssm_pool *pool)
{
    const struct ssm_service_options options = {.kind = SSM_SERVICE_SEMAPHORE, .first = 4};
    struct ssm_service *service;
    CHECK_EQ(ssm_service_open(pool, "semaphore", &options, &service), 0);
    return service;
}

static void permit_is_free_while_a_call_waits(struct ssm_pool *pool, bool damaged)
{
    struct ssm_service *semaphore = semaphore_of(pool);
    ssm_store_relaxed_u64(&semaphore->hosted.permits.shared->waiters[0].ticket, damaged);
    CHECK_EQ(ssm_semaphore_acquire(semaphore, 0, NULL), 0);
}

static void permits_are_miscounted(struct ssm_pool *pool, bool damaged)
{
    struct ssm_service *semaphore = semaphore_of(pool);
    ssm_store_relaxed_u64(&semaphore->hosted.permits.shared->used, damaged);
    CHECK_EQ(ssm_semaphore_acquire(semaphore, 0, NULL), 0);
}

/* ---- locks and slots ------------------------------------------------------------------------------------------ */

static int no_repair(struct ssm_pool *pool, void *context)
{
    (void)pool, (void)context;
    return 0;
}

static void lock_is_released_twice(struct ssm_pool *pool, bool damaged)
{
    struct ssm_lock *lock = &ssm_shard_at(pool, 0, 0)->lock;
    CHECK_EQ(ssm_lock_take(pool, lock, 0, no_repair, NULL), 0);
    ssm_lock_release(lock);
    if (damaged)
        ssm_lock_release(lock);
}

static void attachment_is_left_twice(struct ssm_pool *pool, bool damaged)
{
    CHECK_EQ(ssm_pool_enter(pool), 0);
    ssm_pool_leave(pool);
    if (damaged)
        ssm_pool_leave(pool);
}

static void slot_is_released_twice(struct ssm_pool *pool, bool damaged)
{
    const uint32_t slot = pool->self;
    CHECK_EQ(ssm_registry_lock(pool, 0), 0);
    ssm_registry_release(pool, slot);
    if (damaged)
        ssm_registry_release(pool, slot);
    ssm_registry_unlock(pool);
}

/* ---- private memory ------------------------------------------------------------------------------------------- */

static void more_bytes_go_than_there_are(struct ssm_pool *pool, bool damaged)
{
    const uint64_t handle = alloc(pool, 8);
    if (damaged)
        pool->left_bytes = (int64_t)pool->unchecked_bytes_max - 1;
    CHECK_EQ(ssm_free(pool, handle), 0);
}

static void index_beyond_the_last_block(struct ssm_pool *pool, bool damaged)
{
    ssm_block_at(pool, pool->geometry.block_total - !damaged);
}

/* A call that waits goes on with a place in the queue, and the place is another slot's. */
static void claimant_has_anothers_entry(struct ssm_pool *pool, bool damaged)
{
    struct ssm_claimant claimant = {0};
    ssm_claimant_step(pool, 0, &claimant);
    claimant.entry ^= damaged;
    ssm_claimant_step(pool, 0, &claimant);
}

static const struct scene SCENES[] = {
    {"shard: a block on its list is held", fixture_options, list_holds_a_held_block},
    {"shard: a block on its list is at home elsewhere", fixture_options, listed_elsewhere},
    {"shard: a block stands twice on its list", fixture_options, list_has_one_twice},
    {"shard: a block says that it is listed and is not", fixture_options, listed_on_no_list},
    {"cache: a block stands twice in it", with_cache, cache_has_one_twice},
    {"cache: a block in it is listed", with_cache, cached_block_is_listed},
    {"cache: a block in it is claimed", with_cache, cached_block_is_claimed},
    {"cache: it is left twice", with_cache, cache_is_left_twice},
    {"ring side: more is done than was put", fixture_options, more_done_than_put},
    {"ring side: put_owner is left behind", fixture_options, intent_is_left},
    {"ring side: more is in it than it holds", fixture_options, tail_before_head},
    {"redelivery: a delivery of a packet that it was not taken with", fixture_options, delivery_without_a_claim},
    {"redelivery: an entry names this process, and no delivery is open", fixture_options, entry_without_a_delivery},
    {"arena: an extent that the tree does not have", with_arena, extent_that_the_tree_has_not},
    {"arena: a range that no extent has", with_arena, range_without_an_extent},
    {"arena: a unit that is said to be reserved is not", with_growing_arena, unit_is_not_reserved},
    {"service: its allocator contradicts itself", fixture_options, service_contradicts_itself},
    {"semaphore: a permit is free while a call waits", fixture_options, permit_is_free_while_a_call_waits},
    {"semaphore: the used permits are miscounted", fixture_options, permits_are_miscounted},
    {"lock: it is released twice", fixture_options, lock_is_released_twice},
    {"thread lock: it is released twice", fixture_options, attachment_is_left_twice},
    {"registry: a slot is released twice", fixture_options, slot_is_released_twice},
    {"block: an index beyond the last one", fixture_options, index_beyond_the_last_block},
    {"reservation: a place in the queue is another slot's", fixture_options, claimant_has_anothers_entry},
    {"claims: more bytes are given back than there are", fixture_options, more_bytes_go_than_there_are},
};

struct performance {
    const struct scene *scene;
    bool                damaged;
};

static void perform(void *context)
{
    const struct performance *p = context;
    const struct ssm_pool_options options = p->scene->options();
    const struct rlimit no_core = {0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    if (p->damaged && freopen("/dev/null", "w", stderr) == NULL) /* what it says is expected */
        _exit(1);
    struct fixture f = fixture_open(&options);
    p->scene->run(f.pool, p->damaged);
}

static int status_of(const struct scene *scene, bool damaged)
{
    struct performance p = {scene, damaged};
    int status;
    pid_t pid = child_start(perform, &p);
    CHECK(waitpid(pid, &status, 0) == pid);
    return status;
}

static void test_scenes(void)
{
    for (size_t i = 0; i < sizeof SCENES / sizeof *SCENES; i++) {
        int sound = status_of(&SCENES[i], false), damaged = status_of(&SCENES[i], true);
        if (sound != 0 || !WIFSIGNALED(damaged) || WTERMSIG(damaged) != SIGABRT)
            fprintf(stderr, "%s: status %x as it is, %x with the damage\n", SCENES[i].name, (unsigned)sound,
                    (unsigned)damaged);
        CHECK(sound == 0);
        CHECK(WIFSIGNALED(damaged) && WTERMSIG(damaged) == SIGABRT);
    }
}

/* A test that damages a pool on purpose turns them off for shared memory, and only for that. */
static void test_expected_damage(void)
{
    int evaluated = 0;
    SSM_EXPECT_DAMAGE(true);
    SSM_ASSERT_SHARED(evaluated++ < 0);
    SSM_EXPENSIVE(evaluated++ < 0);
    SSM_ASSERT(evaluated++ == 0);
    SSM_EXPECT_DAMAGE(false);
    CHECK_EQ(evaluated, 1);
}

#else

static void test_scenes(void)
{
}

static void test_expected_damage(void)
{
    int evaluated = 0;
    SSM_EXPECT_DAMAGE(false);
    SSM_ASSERT(evaluated++ < 0);
    SSM_ASSERT_SHARED(evaluated++ < 0);
    SSM_EXPENSIVE(evaluated++ < 0);
    CHECK_EQ(evaluated, 0);
}

#endif

int main(void)
{
    test_scenes();
    test_expected_damage();
    return 0;
}
