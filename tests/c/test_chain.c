/* SPDX-License-Identifier: Apache-2.0
 *
 * Chains: messages of several blocks. By hand; then with a death after each block of a put, a get and their repairs; then
 * with links that somebody scribbled over. tests/crash kills at every instruction. */
#include "chain.h"
#include "pool_fixture.h"

#define BLOCKS 12
#define LENGTH 4 /* of most chains, numbered from 1 on by their tags */

static struct fixture open_fixture(void)
{
    const struct ssm_pool_options options = {
        .classes = {{64, BLOCKS}},
        .class_count = 1,
        .shards = 2,
        .holders = 128,
        .metadata_bytes = 8192,
    };
    return fixture_open(&options);
}

static struct ssm_ring *plain(struct ssm_pool *pool)
{
    return ring_open(pool, "ring", 4, 0);
}
static struct ssm_block *block(struct ssm_pool *pool, uint64_t handle)
{
    return ssm_block_at(pool, (uint32_t)handle);
}

static void alloc(struct ssm_pool *pool, uint64_t *handles, uint32_t count)
{
    CHECK_EQ(ssm_alloc_many(pool, 64, count, 0, handles), 0);
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(ssm_packet_set_tag(pool, handles[i], i + 1), 0);
}

static void make_chain(struct ssm_pool *pool, uint64_t *handles, uint32_t count)
{
    alloc(pool, handles, count);
    CHECK_EQ(ssm_packet_link(pool, handles[0], handles + 1, count - 1), 0);
}

static void check_chain(struct ssm_pool *pool, uint64_t handle, uint64_t count)
{
    for (uint64_t tag, number = 1; number <= count; number++) {
        CHECK_EQ(ssm_packet_tag(pool, handle, &tag), 0);
        CHECK_EQ(tag, number);
        CHECK_EQ(ssm_packet_next(pool, handle, &handle), number < count);
    }
}

static void check_all_free(struct fixture *f)
{
    fixture_reap(f->pool);
    CHECK_EQ(free_blocks(f->pool, 0), BLOCKS);
    fixture_check(f->pool);
}

/* ---- by hand ------------------------------------------------------------------------------------------------ */

static void test_link_and_free(void)
{
    struct fixture f = open_fixture();
    uint64_t h[LENGTH], more[2], next;
    make_chain(f.pool, h, LENGTH);
    check_chain(f.pool, h[0], LENGTH);
    CHECK_EQ(ssm_free(f.pool, h[2]), -SSM_E_STALE); /* the chain's, not the caller's */
    alloc(f.pool, more, 2);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], more, 2), 0); /* frees what hung there before */
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 3);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], NULL, 0), 0);
    CHECK_EQ(ssm_packet_next(f.pool, h[0], &next), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    CHECK_EQ(ssm_free(f.pool, h[0]), 0);
    make_chain(f.pool, h, LENGTH);
    CHECK_EQ(ssm_free(f.pool, h[0]), 0);
    check_all_free(&f);
    make_chain(f.pool, h, LENGTH);
    CHECK_EQ(ssm_packet_hold(f.pool, h[1]), 0);
    uint64_t both[] = {h[1], h[0]};
    CHECK_EQ(ssm_free_many(f.pool, both, 2), 0);
    check_all_free(&f);
    fixture_close(&f);
}

/* A segment that somebody keeps for himself is an ordinary packet, once it is out of the chain. */
static void test_keep_a_segment(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = plain(f.pool);
    uint64_t h[LENGTH], got, next;
    make_chain(f.pool, h, LENGTH);
    CHECK_EQ(ssm_packet_hold(f.pool, h[1]), 0);
    CHECK_EQ(ssm_ring_put(ring, &h[1], 1, 0, 0), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_ring_put(ring, &h[1], 1, SSM_KEEP, 0), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_ring_put(ring, &h[0], 1, 0, 0), -SSM_E_SHARED);
    CHECK_EQ(ssm_free(f.pool, h[0]), 0);
    CHECK_EQ(ssm_packet_next(f.pool, h[1], &next), 0);
    CHECK_EQ(ssm_ring_put(ring, &h[1], 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
    CHECK_EQ(got, h[1]);
    CHECK_EQ(ssm_free(f.pool, got), 0);
    ssm_ring_close(ring);
    check_all_free(&f);
    fixture_close(&f);
}

static void test_what_cannot_be_linked(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = plain(f.pool), *again = ring_open(f.pool, "again", 4, SSM_REDELIVER);
    uint64_t h[6], other[2], got, next;
    alloc(f.pool, h, 6);
    make_chain(f.pool, other, 2);
    uint64_t twice[] = {h[1], h[1]}, itself[] = {h[1], h[0]}, stale[] = {h[1], h[2] + (UINT64_C(1) << 32)};
    CHECK_EQ(ssm_packet_link(f.pool, h[0], h, SSM_CHAIN_MAX), -EINVAL);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], twice, 2), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], itself, 2), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], stale, 2), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_link(f.pool, stale[1], h, 1), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], other, 1), -SSM_E_CHAIN);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], other + 1, 1), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_packet_link(f.pool, other[1], h, 1), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_packet_hold(f.pool, h[1]), 0);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], h + 1, 2), -SSM_E_SHARED);
    CHECK_EQ(ssm_free(f.pool, h[1]), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, h[1]), 0);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], h + 1, 2), -SSM_E_PINNED);
    CHECK_EQ(ssm_packet_unpin(f.pool, h[1], 0), 0);
    CHECK_EQ(ssm_ring_put(ring, &h[3], 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], h + 3, 1), -SSM_E_SHARED);
    CHECK_EQ(ssm_packet_link(f.pool, h[3], h + 1, 1), -SSM_E_SHARED);
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
    CHECK_EQ(ssm_ring_put(again, &h[4], 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(again, &got, 1, 0), 1);
    CHECK_EQ(ssm_packet_link(f.pool, h[0], h + 4, 1), -SSM_E_CHAIN); /* that ring would take it back alone */
    CHECK_EQ(ssm_packet_link(f.pool, h[4], h, 1), -SSM_E_CHAIN);
    for (int i = 0; i < 6; i++)
        CHECK_EQ(ssm_packet_next(f.pool, h[i], &next), 0); /* nothing has changed */
    check_chain(f.pool, other[0], 2);
    CHECK_EQ(ssm_free(f.pool, h[3]), 0);
    CHECK_EQ(ssm_free_many(f.pool, h, 6), 0);
    CHECK_EQ(ssm_free(f.pool, other[0]), 0);
    ssm_ring_close(ring);
    ssm_ring_close(again);
    check_all_free(&f);
    fixture_close(&f);
}

/* ---- through rings ------------------------------------------------------------------------------------------ */

static void test_one_place(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *consumer = fixture_attach(f.fd, 0);
    struct ssm_ring *ring = plain(f.pool), *theirs = plain(consumer);
    struct ssm_ring_stats stats;
    uint64_t h[3 * 3 + 1], got[4];
    for (int i = 0; i < 3; i++)
        make_chain(f.pool, h + 3 * i, 3);
    alloc(f.pool, h + 9, 1);
    uint64_t heads[] = {h[0], h[3], h[9], h[6]};
    CHECK_EQ(ssm_ring_put(ring, heads, 4, 0, 0), 0);
    CHECK_EQ(ssm_ring_depth(ring), 4);
    fixture_check(f.pool);
    CHECK_EQ(ssm_ring_get(theirs, got, 4, 0), 4);
    CHECK(memcmp(got, heads, sizeof got) == 0);
    for (int i = 0; i < 4; i++)
        check_chain(consumer, got[i], i == 2 ? 1 : 3);
    CHECK_EQ(ssm_ring_put(theirs, got, 2, 0, 0), 0); /* on and back */
    CHECK_EQ(ssm_ring_get(ring, got, 4, 0), 2);
    check_chain(f.pool, got[1], 3);
    CHECK_EQ(ssm_free_many(f.pool, got, 2), 0);
    CHECK_EQ(ssm_free_many(consumer, got + 2, 2), 0);
    CHECK_EQ(ssm_ring_stats(f.pool, 2, &stats), 0);
    CHECK(stats.puts == 6 && stats.gets == 6 && stats.high_water == 4);
    ssm_ring_close(theirs);
    ssm_ring_close(ring);
    pool_end(consumer);
    check_all_free(&f);
    fixture_close(&f);
}

static void test_what_cannot_be_put(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = plain(f.pool), *again = ring_open(f.pool, "again", 4, SSM_REDELIVER);
    uint64_t h[LENGTH], plain_one;
    make_chain(f.pool, h, LENGTH);
    alloc(f.pool, &plain_one, 1);
    uint64_t batch[] = {plain_one, h[0], h[0]}, with_segment[] = {plain_one, h[1]};
    CHECK_EQ(ssm_ring_put(ring, h, 1, SSM_KEEP, 0), -SSM_E_CHAIN);
    CHECK_EQ(ssm_ring_put(again, h, 1, 0, 0), -SSM_E_CHAIN);
    CHECK_EQ(ssm_ring_put(ring, with_segment, 2, 0, 0), -SSM_E_SEGMENT);
    CHECK_EQ(ssm_ring_put(ring, batch, 3, 0, 0), -SSM_E_QUEUED);
    CHECK_EQ(ssm_packet_hold(f.pool, h[2]), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, h[2]), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, h[2]), -EINVAL); /* the other one is the link's */
    CHECK_EQ(ssm_ring_put(ring, batch, 2, 0, 0), -SSM_E_PINNED);
    CHECK_EQ(ssm_packet_unpin(f.pool, h[2], 1), 0);
    CHECK_EQ(ssm_ring_depth(ring), 0);
    CHECK_EQ(ssm_ring_put(ring, batch, 2, 0, 0), 0);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0); /* discards it, with its segments */
    ssm_ring_close(ring);
    ssm_ring_close(again);
    check_all_free(&f);
    fixture_close(&f);
}

/* A head that was pinned is left by the close, its segments are not; a forked child has nothing of a chain. */
static void join_and_look(void *context)
{
    struct fixture *f = context;
    uint64_t next, head = ssm_load_relaxed_u64(&f->board->value[0]);
    CHECK_EQ(ssm_packet_next(fixture_join(f), head, &next), -SSM_E_STALE);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void test_fork_and_close(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint64_t h[LENGTH];
    make_chain(f.pool, h, LENGTH);
    ssm_store_relaxed_u64(&f.board->value[0], h[0]);
    child_finish(child_start(join_and_look, &f));
    check_chain(f.pool, h[0], LENGTH);
    CHECK_EQ(ssm_free(f.pool, h[0]), 0);
    make_chain(other, h, LENGTH);
    CHECK_EQ(ssm_packet_pin(other, h[0]), 0);
    CHECK_EQ(ssm_pool_close(other), 1); /* one is pinned */
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    CHECK_EQ(ssm_packet_unpin(other, h[0], 1), 0);
    ssm_pool_destroy(other);
    check_all_free(&f);
    fixture_close(&f);
}

/* ---- deaths --------------------------------------------------------------------------------------------------- */

enum { TAKEN, FREED, OF }; /* steps of the board: what the dead did before */

/* Step 2 of get for the last blocks of the chain; then, as the next one, part of the clearing away. */
static void take_part_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    const uint32_t taken = board_get(f->board, TAKEN), freed = board_get(f->board, FREED);
    const uint32_t ring_holder = board_get(f->board, OF);
    for (uint32_t i = 0; i < taken + freed; i++) {
        uint64_t handle = ssm_load_relaxed_u64(&f->board->value[LENGTH - 1 - i]);
        if (i < taken)
            ssm_block_swap(block(pool, handle), ring_holder, pool->self);
        else
            ssm_chain_drop(pool, ring_holder, &handle, 1);
    }
    die_here();
}

static void test_death_of_a_consumer(void)
{
    for (uint32_t taken = 0; taken <= LENGTH; taken++)
        for (uint32_t freed = 0; taken > 0 && freed <= LENGTH - taken; freed++) {
            struct fixture f = open_fixture();
            struct ssm_ring *ring = plain(f.pool);
            uint64_t h[LENGTH], behind, got;
            make_chain(f.pool, h, LENGTH);
            alloc(f.pool, &behind, 1);
            for (int i = 0; i < LENGTH; i++)
                ssm_store_relaxed_u64(&f.board->value[i], h[i]);
            CHECK_EQ(ssm_ring_put(ring, h, 1, 0, 0), 0);
            CHECK_EQ(ssm_ring_put(ring, &behind, 1, 0, 0), 0);
            board_set(f.board, TAKEN, taken);
            board_set(f.board, FREED, freed);
            board_set(f.board, OF, ring_id(f.pool, "ring"));
            child_died(child_start(take_part_and_die, &f));
            fixture_check(f.pool);
            CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
            CHECK_EQ(got, behind); /* the chain was delivered to the dead */
            CHECK_EQ(ssm_free(f.pool, got), 0);
            ssm_ring_close(ring);
            check_all_free(&f);
            fixture_close(&f);
        }
}

/* A segment that the dead had taken became another packet, queued in the same ring. */
static void test_link_to_a_later_packet(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = plain(f.pool);
    uint64_t h[LENGTH], all[BLOCKS], got[2];
    make_chain(f.pool, h, LENGTH);
    for (int i = 0; i < LENGTH; i++)
        ssm_store_relaxed_u64(&f.board->value[i], h[i]);
    CHECK_EQ(ssm_ring_put(ring, h, 1, 0, 0), 0);
    board_set(f.board, TAKEN, 1);
    board_set(f.board, OF, ring_id(f.pool, "ring"));
    child_died(child_start(take_part_and_die, &f));
    fixture_reap(f.pool);
    alloc(f.pool, all, BLOCKS - LENGTH + 1);
    uint32_t at = 0;
    while ((uint32_t)all[at] != (uint32_t)h[LENGTH - 1])
        at++;
    CHECK_EQ(ssm_ring_put(ring, &all[at], 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_get(ring, got, 2, 0), 1);
    CHECK_EQ(got[0], all[at]);
    CHECK_EQ(ssm_free_many(f.pool, all, BLOCKS - LENGTH + 1), 0);
    ssm_ring_close(ring);
    check_all_free(&f);
    fixture_close(&f);
}

/* Steps 2 to 4 of put for the first blocks of the chain. */
static void put_part_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = plain(pool);
    struct ssm_ring_shared *shared = ssm_ring_shared_of(ring);
    uint64_t h[LENGTH];
    make_chain(pool, h, LENGTH);
    ssm_store_release_u64(&shared->producer.lock.word, pool->lock_word);
    ssm_store_relaxed_u64(&shared->slots[0], h[0]);
    ssm_store_release_u64(&shared->producer.put_intent, 1);
    for (uint32_t i = 0; i < board_get(f->board, TAKEN); i++) {
        ssm_store_relaxed_u64(&f->board->value[i], h[i]);
        ssm_block_swap(block(pool, h[i]), pool->self, board_get(f->board, OF));
    }
    die_here();
}

/* The repair, which dies as well. */
static void undo_part_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring_shared *shared = ssm_ring_shared_of(plain(pool));
    ssm_store_release_u64(&shared->producer.lock.word, pool->lock_word);
    for (uint32_t i = board_get(f->board, TAKEN), left = board_get(f->board, FREED); left > 0; left--) {
        uint64_t handle = ssm_load_relaxed_u64(&f->board->value[--i]);
        ssm_chain_drop(pool, board_get(f->board, OF), &handle, 1);
    }
    die_here();
}

static void test_death_of_a_producer(void)
{
    for (uint32_t put = 0; put <= LENGTH; put++)
        for (uint32_t undone = 0; undone <= put; undone++) {
            struct fixture f = open_fixture();
            struct ssm_ring *ring = plain(f.pool);
            uint64_t one, got;
            board_set(f.board, TAKEN, put);
            board_set(f.board, FREED, undone);
            board_set(f.board, OF, ring_id(f.pool, "ring"));
            child_died(child_start(put_part_and_die, &f));
            child_died(child_start(undo_part_and_die, &f));
            fixture_check(f.pool);
            alloc(f.pool, &one, 1);
            CHECK_EQ(ssm_ring_put(ring, &one, 1, 0, 0), 0);
            CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
            CHECK_EQ(got, one);
            CHECK_EQ(ssm_free(f.pool, got), 0);
            ssm_ring_close(ring);
            check_all_free(&f);
            fixture_close(&f);
        }
}

/* ---- links that somebody scribbled over ------------------------------------------------------------------------ */

/* In a ring: whatever they say, each packet comes out once at most, and all blocks come back. */
static void test_scribbled_in_a_ring(void)
{
    for (int how = 0; how < 6; how++) {
        struct fixture f = open_fixture();
        struct ssm_ring *ring = plain(f.pool);
        uint64_t h[LENGTH], one, mine, got[4];
        make_chain(f.pool, h, LENGTH);
        alloc(f.pool, &one, 1);
        alloc(f.pool, &mine, 1);
        CHECK_EQ(ssm_ring_put(ring, h, 1, 0, 0), 0);
        CHECK_EQ(ssm_ring_put(ring, &one, 1, 0, 0), 0);
        const uint64_t links[] = {h[0], h[1], one, mine, h[2] + (UINT64_C(1) << 32), UINT64_C(0xfffffffe)};
        ssm_store_relaxed_u64(&block(f.pool, h[2])->next, links[how]);
        int count = ssm_ring_get(ring, got, 4, 0);
        CHECK(count == 1);
        for (int i = 0; i < count; i++)
            CHECK_EQ(ssm_free(f.pool, got[i]), 0);
        CHECK_EQ(ssm_ring_get(ring, got, 4, 0), -SSM_E_EMPTY);
        CHECK_EQ(ssm_free(f.pool, mine), 0);
        CHECK_EQ(ssm_packet_next(f.pool, h[0], got), -SSM_E_STALE);
        CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
        ssm_ring_close(ring);
        fixture_reap(f.pool);
        CHECK(free_blocks(f.pool, 0) >= BLOCKS - 1); /* the segment that was cut off is the ring's still */
        pool_end(f.pool);
        CHECK(close(f.fd) == 0);
        board_drop(f.board);
    }
}

/* In a process's own chain: it ends there, or is told to be damaged; nothing is given back twice. */
static void test_scribbled_in_hand(void)
{
    for (int how = 0; how < 5; how++) {
        struct fixture f = open_fixture();
        struct ssm_ring *ring = plain(f.pool);
        uint64_t h[LENGTH], mine, at, steps = 0;
        make_chain(f.pool, h, LENGTH);
        alloc(f.pool, &mine, 1);
        const uint64_t links[] = {h[0], h[1], mine, h[3] + (UINT64_C(1) << 32), UINT64_C(0xfffffffe)};
        ssm_store_relaxed_u64(&block(f.pool, h[2])->next, links[how]);
        for (at = h[0]; steps < 10 && ssm_packet_next(f.pool, at, &at) == 1; steps++) {}
        CHECK_EQ(steps, how == 1 ? 10 : 2);
        CHECK_EQ(ssm_ring_put(ring, h, 1, 0, 0), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_free(f.pool, h[0]), 0);
        CHECK_EQ(ssm_free(f.pool, mine), 0);
        CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1); /* what was cut off comes back with the process */
        ssm_ring_close(ring);
        fixture_close(&f);
    }
}

int main(void)
{
    test_link_and_free();
    test_keep_a_segment();
    test_what_cannot_be_linked();
    test_one_place();
    test_what_cannot_be_put();
    test_fork_and_close();
    test_death_of_a_consumer();
    test_link_to_a_later_packet();
    test_death_of_a_producer();
    test_scribbled_in_a_ring();
    test_scribbled_in_hand();
    return 0;
}
