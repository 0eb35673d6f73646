/* SPDX-License-Identifier: Apache-2.0
 *
 * Holder sets: every operation on every word, and that a set that is never empty never looks empty. */
#include "pool_fixture.h"

#include <sched.h>

static const uint32_t ids[] = {0, 1, 63, 64, 100, 127, 128, 191};
#define IDS (sizeof ids / sizeof *ids)

static struct fixture open_fixture(uint32_t holders)
{
    struct ssm_pool_options options = fixture_options();
    options.holders = holders;
    return fixture_open(&options);
}

/* Exactly this one, of all. */
static void check_exactly(const struct ssm_pool *pool, const struct ssm_block *block, uint32_t holder)
{
    for (size_t i = 0; i < IDS; i++) {
        CHECK_EQ(ssm_block_has(block, ids[i]), ids[i] == holder);
        CHECK_EQ(ssm_block_is_exactly(pool, block, ids[i]), ids[i] == holder);
    }
    CHECK_EQ(ssm_block_is_free(pool, block), holder == SSM_NIL);
}

static void test_operations(void)
{
    struct fixture f = open_fixture(192);
    struct ssm_block *block = ssm_block_at(f.pool, 0);
    check_exactly(f.pool, block, SSM_NIL);
    for (size_t i = 0; i < IDS; i++)
        for (size_t k = 0; k < IDS; k++) {
            ssm_block_claim(block, ids[i]);
            check_exactly(f.pool, block, ids[i]);
            ssm_block_swap(block, ids[i], ids[k]);
            check_exactly(f.pool, block, ids[k]);
            if (i != k) {
                ssm_block_add(f.pool, block, ids[i]);
                CHECK(ssm_block_has(block, ids[i]) && ssm_block_has(block, ids[k]));
                CHECK(!ssm_block_is_exactly(f.pool, block, ids[i]) && !ssm_block_is_exactly(f.pool, block, ids[k]));
                CHECK(!ssm_block_is_free(f.pool, block));
                ssm_block_remove(block, ids[i]);
                ssm_block_remove(block, ids[i]); /* idempotent */
            }
            check_exactly(f.pool, block, ids[k]);
            ssm_block_remove(block, ids[k]);
            check_exactly(f.pool, block, SSM_NIL);
        }
    fixture_close(&f);
}

/* B1: a block that moves between words, or is added to one while it is in another, counts. */
static void test_moves(void)
{
    struct fixture f = open_fixture(192);
    struct ssm_block *block = ssm_block_at(f.pool, 0);
    ssm_block_claim(block, 3);
    ssm_block_swap(block, 3, 4);
    CHECK_EQ(ssm_load_relaxed_u32(&block->moves), 0); /* one store: nothing to see in between */
    ssm_block_swap(block, 4, 130);
    CHECK_EQ(ssm_load_relaxed_u32(&block->moves), 1);
    ssm_block_add(f.pool, block, 70);
    CHECK_EQ(ssm_load_relaxed_u32(&block->moves), 2);
    ssm_block_remove(block, 130);
    ssm_block_remove(block, 70);
    fixture_close(&f);
}

/* ---- two processes move a block to and fro; a third looks --------------------------------------------------- */

enum { TURN = 0, STOP = 1, SHARED = 2 };

static void move(struct fixture *f, uint32_t from, uint32_t to)
{
    struct ssm_block *block = ssm_block_at(f->pool, 0);
    if (board_get(f->board, SHARED)) {
        ssm_block_add(f->pool, block, to);
        ssm_block_remove(block, from);
    } else {
        ssm_block_swap(block, from, to);
    }
}

/* Each has a thousand moves in a row, so that the one who looks meets some on the other processor. */
static void move_to_and_fro(struct fixture *f, uint32_t mine, uint32_t theirs)
{
    while (!board_get(f->board, STOP)) {
        if (board_get(f->board, TURN) != mine) {
            sched_yield();
            continue;
        }
        for (int i = 0; i < 500; i++) {
            move(f, mine, theirs);
            move(f, theirs, mine);
        }
        move(f, mine, theirs);
        board_set(f->board, TURN, theirs);
    }
}

static void first(void *context)
{
    move_to_and_fro(context, 3, 130);
}
static void second(void *context)
{
    move_to_and_fro(context, 130, 3);
}

static void check_never_free(bool shared)
{
    struct fixture f = open_fixture(192);
    const struct ssm_block *block = ssm_block_at(f.pool, 0);
    ssm_store_release_u32(&ssm_block_at(f.pool, 0)->listed, 0);
    ssm_block_claim(ssm_block_at(f.pool, 0), 3);
    board_set(f.board, TURN, 3);
    board_set(f.board, SHARED, shared);
    pid_t children[] = {child_start(first, &f), child_start(second, &f)};
    uint64_t until_ns = ssm_now_ns() + 300 * MS;
    while (ssm_now_ns() < until_ns || ssm_load_relaxed_u32(&block->moves) <= 1001) /* both have been at it */
        for (int i = 0; i < 1000; i++) {
            CHECK(!ssm_block_is_free(f.pool, block));
            CHECK(!ssm_block_is_exactly(f.pool, block, 64)); /* its word is always empty */
        }
    board_set(f.board, STOP, 1);
    child_finish(children[0]);
    child_finish(children[1]);
    ssm_block_remove(ssm_block_at(f.pool, 0), board_get(f.board, TURN));
    ssm_store_release_u32(&ssm_block_at(f.pool, 0)->listed, 1);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_operations();
    test_moves();
    check_never_free(false);
    check_never_free(true);
    return 0;
}
