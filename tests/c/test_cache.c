/* SPDX-License-Identifier: Apache-2.0
 *
 * The private cache: what it keeps and gives back, thieves, dead thieves, stopped thieves, and closed doors. */
#include "pool_fixture.h"

#define BLOCKS 64
#define LIMIT  8 /* BLOCKS / 8 */

static struct ssm_pool_options cached_options(void)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_count = BLOCKS;
    options.cache = LIMIT;
    return options;
}

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = cached_options();
    return fixture_open(&options);
}

/* Fills this process's cache to the brim. */
static void fill_cache(struct ssm_pool *pool)
{
    uint64_t handles[LIMIT];
    CHECK_EQ(ssm_alloc_many(pool, 256, LIMIT, 0, handles), 0);
    CHECK_EQ(ssm_free_many(pool, handles, LIMIT), 0);
    CHECK_EQ(cached_blocks(pool, 0), LIMIT);
}

static struct ssm_cache *cache_of(struct ssm_pool *pool)
{
    return ssm_cache_at(pool, pool->self, 0);
}

/* ---- alone -------------------------------------------------------------------------------------------------- */

static void test_keeps_and_flushes(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[BLOCKS];
    fill_cache(f.pool);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - LIMIT);
    CHECK_EQ(held_by(f.pool, 0, f.pool->self), LIMIT); /* they carry the process's bit */
    ssm_cache_flush(f.pool, 0, 3);
    CHECK_EQ(cached_blocks(f.pool, 0), 3);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - 3);
    ssm_cache_flush(f.pool, 0, 0);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS);
    CHECK_EQ(ssm_alloc_many(f.pool, 256, BLOCKS, 0, handles), 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, BLOCKS), 0);
    CHECK(cached_blocks(f.pool, 0) <= LIMIT);
    CHECK_EQ(cached_blocks(f.pool, 0) + listed_blocks(f.pool, 0), BLOCKS);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

static void test_push_and_pop(void)
{
    struct fixture f = open_fixture();
    struct ssm_cache *cache = cache_of(f.pool);
    uint32_t block_idx;
    CHECK_EQ(ssm_shard_take(f.pool, 0, 0, 1, 0, &block_idx), 1);
    uint32_t generation = ssm_load_relaxed_u32(&ssm_block_at(f.pool, block_idx)->generation);
    CHECK(ssm_cache_enter(f.pool, 0));
    const struct ssm_own_class *class = &f.pool->classes[0];
    const uint64_t handle = ssm_handle_of(generation, block_idx);
    uint64_t taken[2];
    CHECK(!ssm_cache_pop_one(f.pool, class, cache, taken));
    CHECK_EQ(ssm_cache_pop(f.pool, class, cache, 2, taken), 0);
    CHECK_EQ(ssm_cache_push(cache, &handle, 1, 1), 1);
    CHECK_EQ(ssm_cache_push(cache, &handle, 1, 1), 0); /* the limit */
    CHECK(ssm_cache_pop_one(f.pool, class, cache, taken) && taken[0] == handle);
    CHECK_EQ(ssm_cache_push(cache, &handle, 1, LIMIT), 1);
    ssm_cache_leave(cache);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* Entries that somebody wrote over: of no block of the class, and of one that this process has. */
static void test_garbage_entries(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_cache *cache = cache_of(f.pool);
    const struct ssm_own_class *class = &f.pool->classes[0];
    uint64_t held, handle, taken[2];
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &held), 0);
    fill_cache(f.pool);
    CHECK(ssm_cache_enter(f.pool, 0));
    CHECK_EQ(ssm_cache_pop(f.pool, class, cache, 1, &handle), 1);
    const uint64_t garbage[] = {ssm_handle_of(1, BLOCKS), UINT64_MAX, held};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(ssm_cache_push(cache, &handle, 1, LIMIT), 1);
        CHECK_EQ(ssm_cache_push(cache, &garbage[i], 1, LIMIT + 1), 1);
        CHECK(!ssm_cache_pop_one(f.pool, class, cache, taken));                          /* the fast path leaves it */
        CHECK(ssm_cache_pop(f.pool, class, cache, 1, taken) == 1 && taken[0] == handle); /* this passes over it */
    }
    CHECK_EQ(ssm_cache_push(cache, &handle, 1, LIMIT), 1);
    ssm_cache_leave(cache);
    CHECK_EQ(ssm_free(f.pool, held), 0);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* A call for several meets such an entry behind sound ones. It has changed their blocks, and fails, for all others are
 * held. Then the sound entries count as before: they are handed out, and another process may steal them. */
static void test_garbage_among_many(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_cache *cache = cache_of(f.pool);
    uint64_t held[BLOCKS - LIMIT], handles[LIMIT];
    uint32_t stolen[LIMIT];
    CHECK_EQ(ssm_alloc_many(f.pool, 256, BLOCKS - LIMIT, 0, held), 0);
    fill_cache(f.pool);
    const uint64_t sound = ssm_load_relaxed_u64(&cache->handles[LIMIT - 1]), used = ssm_usage_held(f.pool);
    const uint64_t garbage[] = {ssm_handle_of(1, BLOCKS), held[0]};
    for (int i = 0; i < 2; i++) {
        ssm_store_relaxed_u64(&cache->handles[LIMIT - 1], garbage[i]);
        ssm_store_relaxed_u32(&cache->count, LIMIT);
        CHECK_EQ(ssm_alloc_many(f.pool, 256, LIMIT, 0, handles), -SSM_E_EXHAUSTED);
        CHECK_EQ(ssm_usage_held(f.pool), used);
        CHECK_EQ(ssm_cache_held(other, f.pool->self, 0), LIMIT - 1);
        CHECK_EQ(ssm_alloc_many(f.pool, 256, LIMIT - 1, 0, handles), 0);
        CHECK_EQ(ssm_free_many(f.pool, handles, LIMIT - 1), 0);
    }
    CHECK_EQ(ssm_cache_steal(other, 0, LIMIT, stolen), LIMIT - 1);
    CHECK_EQ(ssm_shard_give(other, 0, stolen, LIMIT - 1, 0), 0);
    CHECK_EQ(ssm_free_many(f.pool, held, BLOCKS - LIMIT), 0);
    CHECK(ssm_cache_enter(f.pool, 0));
    CHECK(ssm_cache_push(cache, &sound, 1, LIMIT + 1) == 1);
    ssm_cache_leave(cache);
    check_all_there(f.pool, 0);
    pool_end(other);
    fixture_close(&f);
}

/* Scribbled: what was in it comes back when the process is gone. */
static void test_garbage_count(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint64_t handle;
    fill_cache(other);
    ssm_store_relaxed_u32(&cache_of(other)->count, UINT32_MAX);
    CHECK_EQ(ssm_cache_steal(f.pool, 0, 1, &(uint32_t){0}), 0);
    CHECK_EQ(ssm_alloc(other, 256, 0, &handle), 0);
    CHECK_EQ(ssm_free(other, handle), 0);
    pool_end(other);
    fixture_reap(f.pool);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* Of every class. */
static void test_reset(void)
{
    struct fixture f = open_fixture();
    const uint32_t classes = f.pool->geometry.class_count;
    CHECK(classes > 1);
    for (uint32_t class_idx = 0; class_idx < classes; class_idx++) {
        struct ssm_cache *cache = ssm_cache_at(f.pool, f.pool->self, class_idx);
        ssm_store_relaxed_u32(&cache->busy, 1);
        ssm_store_relaxed_u32(&cache->count, UINT32_MAX);
    }
    ssm_cache_reset(f.pool);
    for (uint32_t class_idx = 0; class_idx < classes; class_idx++) {
        struct ssm_cache *cache = ssm_cache_at(f.pool, f.pool->self, class_idx);
        CHECK_EQ(ssm_load_relaxed_u32(&cache->busy), 0);
        CHECK_EQ(ssm_load_relaxed_u32(&cache->count), 0);
        CHECK_EQ(ssm_load_relaxed_u64(&cache->thief.word), 0);
    }
    fixture_close(&f);
}

/* ---- large blocks ------------------------------------------------------------------------------------------- */

#define LARGE       SSM_CACHED_BYTES
#define LARGE_COUNT 64
#define ROUNDS      500

/* Packets of that size go from one process to another one, at most `depth` at a time. Returns how many blocks there are
 * that ever had one of them. */
static uint32_t circulate(uint64_t size, uint32_t depth)
{
    struct ssm_pool_options options = cached_options();
    options.classes[0] = (struct ssm_class_spec){size, LARGE_COUNT};
    options.class_count = 1;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    other->home = (f.pool->home + 1) % options.shards;
    struct ssm_ring *ring = ring_open(f.pool, "ring", LARGE_COUNT, 0), *others = ring_open(other, "ring", 0, 0);
    uint32_t count = 0;
    bool seen[LARGE_COUNT] = {false};
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t handle;
        for (uint32_t i = 0; i < depth; i++) {
            CHECK_EQ(ssm_alloc(f.pool, size / 2, 0, &handle), 0);
            count += !seen[block_of(handle)];
            seen[block_of(handle)] = true;
            CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
        }
        for (uint32_t i = 0; i < depth; i++) {
            CHECK_EQ(ssm_ring_get(others, &handle, 1, 0), 1);
            CHECK_EQ(ssm_free(other, handle), 0);
        }
    }
    ssm_ring_close(ring);
    ssm_ring_close(others);
    pool_end(other);
    check_all_there(f.pool, 0);
    fixture_close(&f);
    return count;
}

/* They are used again while they are hot: as many blocks as there are packets under way. A small one may wait in a
 * cache. */
static void test_few_large_blocks_circulate(void)
{
    for (uint32_t depth = 1; depth <= 16; depth *= 4)
        CHECK_EQ(circulate(LARGE, depth), depth);
    CHECK(circulate(LARGE / 2, 1) > 1);
}

/* ---- thieves ------------------------------------------------------------------------------------------------ */

enum { READY, GO, OWNER }; /* steps of the board */

static void idle_with_a_full_cache(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    fill_cache(pool);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
    check_all_there(pool, 0); /* and back again */
}

static void test_steal_from_an_idle_process(void)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(idle_with_a_full_cache, &f);
    AWAIT(board_get(f.board, READY) == 1);
    CHECK_EQ(listed_blocks(f.pool, 0), BLOCKS - LIMIT);
    check_all_there(f.pool, 0);
    board_set(f.board, GO, 1);
    child_finish(child);
    fixture_reap(f.pool);
    fixture_close(&f);
}

static void test_steal_counts(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint32_t blocks[BLOCKS];
    fill_cache(other);
    f.pool->home = 2;
    CHECK_EQ(ssm_cache_steal(f.pool, 0, 3, blocks), 3);
    CHECK_EQ(cached_blocks(other, 0), LIMIT - 3);
    for (int i = 0; i < 3; i++) {
        CHECK(ssm_block_is_exactly(f.pool, ssm_block_at(f.pool, blocks[i]), f.pool->self));
        CHECK_EQ(ssm_load_relaxed_u32(&ssm_block_at(f.pool, blocks[i])->home), 2);
    }
    CHECK_EQ(ssm_cache_steal(f.pool, 0, BLOCKS, blocks + 3), LIMIT - 3);
    CHECK_EQ(ssm_cache_steal(f.pool, 0, BLOCKS, blocks), 0);
    CHECK_EQ(ssm_shard_give(f.pool, 0, blocks, LIMIT, 0), 0);
    pool_end(other);
    fixture_close(&f);
}

/* An owner that was stopped in its cache: no thief waits for long, and none takes anything. */
static void stay_inside(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    fill_cache(pool);
    CHECK(ssm_cache_enter(pool, 0));
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
    uint64_t handle;
    CHECK(ssm_cache_pop_one(pool, &pool->classes[0], cache_of(pool), &handle)); /* still its own */
    ssm_cache_leave(cache_of(pool));
}

static void test_busy_owner(void)
{
    struct fixture f = open_fixture();
    uint32_t blocks[BLOCKS];
    pid_t child = child_start(stay_inside, &f);
    AWAIT(board_get(f.board, READY) == 1);
    child_stop(child);
    uint64_t start_ns = ssm_now_ns();
    CHECK_EQ(ssm_cache_steal(f.pool, 0, BLOCKS, blocks), 0);
    CHECK(ssm_now_ns() - start_ns < PROMPT_NS);
    child_continue(child);
    board_set(f.board, GO, 1);
    child_finish(child);
    fixture_reap(f.pool);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* Both at full speed: whatever is taken, is taken once. */
static void use_cache(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handles[4];
    fill_cache(pool); /* there is always something to steal, wherever this process is put aside */
    board_set(f->board, READY, 1);
    while (board_get(f->board, GO) == 0) {
        CHECK_EQ(ssm_alloc_many(pool, 256, 4, 0, handles), 0);
        for (int i = 0; i < 4; i++)
            CHECK(ssm_block_is_exactly(pool, ssm_block_at(pool, block_of(handles[i])), pool->self));
        CHECK_EQ(ssm_free_many(pool, handles, 4), 0);
    }
}

static void test_steal_from_a_busy_process(void)
{
    struct fixture f = open_fixture();
    uint32_t blocks[BLOCKS], stolen = 0;
    pid_t child = child_start(use_cache, &f);
    AWAIT(board_get(f.board, READY) == 1);
    const uint64_t start_ns = ssm_now_ns();
    for (uint64_t now_ns = start_ns; now_ns < start_ns + (stolen > 0 ? 200 : 20000) * MS; now_ns = ssm_now_ns()) {
        uint32_t count = ssm_cache_steal(f.pool, 0, 2, blocks);
        for (uint32_t i = 0; i < count; i++)
            CHECK(ssm_block_is_exactly(f.pool, ssm_block_at(f.pool, blocks[i]), f.pool->self));
        CHECK_EQ(ssm_shard_give(f.pool, 0, blocks, count, 1000 * MS), 0);
        stolen += count;
    }
    board_set(f.board, GO, 1);
    child_finish(child);
    CHECK(stolen > 0);
    fixture_reap(f.pool);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- dead thieves ------------------------------------------------------------------------------------------- */

static int no_repair(struct ssm_pool *pool, void *context)
{
    (void)pool, (void)context;
    return 0;
}

static void prepare_cache(struct fixture *f)
{
    fill_cache(f->pool);
    board_set(f->board, OWNER, f->pool->self);
}

/* ssm_cache_steal() from the parent's cache, store by store. */
static void steal_slowly(void *context)
{
    struct fixture *f = context;
    uint32_t owner = board_get(f->board, OWNER);
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_cache *cache = ssm_cache_at(pool, owner, 0);
    step(f);
    CHECK_EQ(ssm_lock_take(pool, &cache->thief, 0, no_repair, NULL), 0);
    step(f);
    ssm_store_release_u32(&cache->stealing, 1);
    for (uint32_t count = LIMIT; count > LIMIT - 3;) {
        uint64_t handle = ssm_load_relaxed_u64(&cache->handles[count - 1]);
        struct ssm_block *block;
        CHECK(ssm_cache_entry_counts(pool, &pool->classes[0], ssm_mark_of(owner), handle, &block));
        step(f);
        ssm_block_swap(block, owner, pool->self);
        step(f);
        ssm_store_release_u32(&block->home, 3);
        step(f);
        ssm_store_release_u32(&cache->count, --count);
    }
    step(f);
    ssm_store_release_u32(&cache->stealing, 0);
    step(f);
    ssm_lock_release(&cache->thief);
    step(f);
}

/* Each entry counts: the owner takes them without a look. */
static void check_entries(struct ssm_pool *pool)
{
    struct ssm_cache *cache = cache_of(pool);
    struct ssm_block *block;
    CHECK_EQ(ssm_load_relaxed_u32(&cache->stealing), 0);
    for (uint32_t i = 0; i < ssm_load_relaxed_u32(&cache->count); i++)
        CHECK(ssm_cache_entry_counts(pool, &pool->classes[0], pool->mark, ssm_load_relaxed_u64(&cache->handles[i]),
                                     &block));
}

static void check_after_thief(struct fixture *f)
{
    struct ssm_cache *cache = cache_of(f->pool);
    if (ssm_cache_enter(f->pool, 0)) /* or it finds the name of the dead, scrubs it, and stays outside for this time */
        ssm_cache_leave(cache);
    CHECK(ssm_cache_enter(f->pool, 0));
    check_entries(f->pool);
    ssm_cache_leave(cache);
    check_all_there(f->pool, 0); /* it reaps on its way */
}

static void check_after_thief_by_reaper(struct fixture *f)
{
    fixture_reap(f->pool);
    CHECK_EQ(ssm_load_relaxed_u64(&cache_of(f->pool)->thief.word), 0);
    check_entries(f->pool);
    CHECK_EQ(free_blocks(f->pool, 0) + held_by(f->pool, 0, f->pool->self), BLOCKS);
    check_all_there(f->pool, 0);
}

static void test_dead_thieves(void)
{
    struct deaths d = {cached_options(), prepare_cache, steal_slowly, check_after_thief};
    CHECK(die_everywhere(&d) > 10);
    d.after = check_after_thief_by_reaper;
    CHECK(die_everywhere(&d) > 10);
}

static void test_recover(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_u64 *word = &cache_of(other)->thief.word;
    CHECK_EQ(ssm_cache_recover(f.pool, other->self, 0), 0);
    ssm_store_release_u64(word, f.pool->lock_word);
    CHECK_EQ(ssm_cache_recover(other, other->self, 0), 0); /* a living thief */
    CHECK(!ssm_cache_enter(other, 0));
    CHECK_EQ(ssm_load_relaxed_u32(&cache_of(other)->busy), 0);
    ssm_store_release_u64(word, f.pool->lock_word - (UINT64_C(1) << 32));
    CHECK_EQ(ssm_cache_recover(f.pool, other->self, 0), 1);
    CHECK_EQ(ssm_load_relaxed_u64(word), 0);
    pool_end(other);
    fixture_close(&f);
}

/* ---- sealed caches ------------------------------------------------------------------------------------------ */

static void test_seal(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint32_t blocks[BLOCKS];
    uint64_t handle;
    fill_cache(other);
    CHECK_EQ(ssm_cache_seal(f.pool, other->self), 0);
    struct ssm_pool *third = fixture_attach(f.fd, 0);
    CHECK_EQ(ssm_cache_steal(third, 0, 1, blocks), 0);
    CHECK(!ssm_cache_enter(other, 0));
    CHECK_EQ(ssm_alloc(other, 256, 0, &handle), 0); /* waits for nobody */
    CHECK_EQ(ssm_free(other, handle), 0);
    CHECK_EQ(cached_blocks(other, 0), LIMIT);
    ssm_cache_unseal(f.pool, other->self);
    CHECK(ssm_cache_enter(other, 0));
    ssm_cache_leave(cache_of(other));
    CHECK_EQ(ssm_cache_steal(third, 0, 1, blocks), 1);
    CHECK_EQ(ssm_shard_give(third, 0, blocks, 1, 0), 0);
    pool_end(third);
    pool_end(other);
    fixture_close(&f);
}

static void test_seal_behind_a_thief(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_u64 *first = &ssm_cache_at(f.pool, other->self, 0)->thief.word;
    struct ssm_u64 *second = &ssm_cache_at(f.pool, other->self, 1)->thief.word;
    ssm_store_release_u64(second, other->lock_word); /* lives, and does not let go */
    CHECK_EQ(ssm_cache_seal(f.pool, other->self), -ETIMEDOUT);
    CHECK_EQ(ssm_load_relaxed_u64(first), 0); /* all or none */
    ssm_store_release_u64(second, 0);
    CHECK_EQ(ssm_cache_seal(f.pool, other->self), 0);
    CHECK(ssm_load_relaxed_u64(first) != 0 && ssm_load_relaxed_u64(second) != 0);
    ssm_cache_unseal(f.pool, other->self);
    pool_end(other);
    fixture_close(&f);
}

/* A process that closes while a thief who does not come to an end has its cache leaves the rest to the reaper. */
static void test_close_behind_a_thief(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint32_t slot = other->self;
    struct ssm_u64 *word = &ssm_cache_at(f.pool, slot, 0)->thief.word;
    fill_cache(other);
    ssm_store_release_u64(word, f.pool->lock_word);
    pool_end(other);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(f.pool, slot)->kind), SSM_HOLDER_PROCESS);
    CHECK(ssm_holder_slot_is_dead(f.pool, slot));
    ssm_store_release_u64(word, 0);
    fixture_reap(f.pool);
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(f.pool, slot)->kind), SSM_HOLDER_NONE);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* A stopped owner of a shard's lock keeps blocks from going home: they stay in the cache, beyond its size. */
static void test_flush_to_a_locked_shard(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    f.pool->home = 1;
    fill_cache(f.pool);
    CHECK_EQ(ssm_shard_lock(other, 0, 1, 0), 0);
    ssm_cache_flush(f.pool, 0, 0);
    CHECK_EQ(cached_blocks(f.pool, 0), LIMIT);
    for (int i = 0; i < LIMIT; i += 2) { /* every other one goes home, to a shard that is not locked */
        uint64_t handle = ssm_load_relaxed_u64(&cache_of(f.pool)->handles[i]);
        ssm_store_release_u32(&ssm_block_at(f.pool, block_of(handle))->home, 2);
    }
    ssm_cache_flush(f.pool, 0, 0);
    CHECK_EQ(shard_free(f.pool, 0, 2), LIMIT / 2);
    CHECK_EQ(cached_blocks(f.pool, 0), LIMIT / 2);
    ssm_lock_release(&ssm_shard_at(other, 0, 1)->lock);
    ssm_cache_flush(f.pool, 0, 0);
    CHECK_EQ(cached_blocks(f.pool, 0), 0);
    CHECK_EQ(shard_free(f.pool, 0, 1), LIMIT / 2);
    pool_end(other);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_keeps_and_flushes();
    test_push_and_pop();
    test_garbage_entries();
    test_garbage_among_many();
    test_reset();
    test_few_large_blocks_circulate();
    test_steal_from_an_idle_process();
    test_steal_counts();
    test_busy_owner();
    test_steal_from_a_busy_process();
    test_dead_thieves();
    test_recover();
    test_seal();
    test_seal_behind_a_thief();
    test_close_behind_a_thief();
    test_flush_to_a_locked_shard();
    test_garbage_count();
    return 0;
}
