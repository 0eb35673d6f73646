/* SPDX-License-Identifier: Apache-2.0
 *
 * The robust lock: exclusion, patience, wake-ups, and take-overs: only from the dead, each repaired exactly once. */
#include "pool_fixture.h"

enum { READY = 0, GO = 1, IN = 2 };             /* steps of the board */
enum { LOCK = 0, REPAIRS, LEFT, RIGHT, STAMP }; /* values of the board */

static struct ssm_lock *lock_of(struct fixture *f)
{
    return (struct ssm_lock *)&f->board->value[LOCK];
}

static uint64_t get(struct fixture *f, int value)
{
    return ssm_load_relaxed_u64(&f->board->value[value]);
}

static void set(struct fixture *f, int value, uint64_t to)
{
    ssm_store_relaxed_u64(&f->board->value[value], to);
}

/* The two halves are equal unless somebody is inside, or died there. */
static int repair(struct ssm_pool *pool, void *context)
{
    struct fixture *f = context;
    (void)pool;
    CHECK(ssm_lock_is_mine(pool, lock_of(f)));
    set(f, REPAIRS, get(f, REPAIRS) + 1);
    set(f, RIGHT, get(f, LEFT));
    return 0;
}

static int take(struct fixture *f, uint64_t patience_ns)
{
    return ssm_lock_take(f->pool, lock_of(f), patience_ns, repair, f);
}

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

/* ---- exclusion ---------------------------------------------------------------------------------------------- */

#define ENTRIES 20000

static void enter_often(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    AWAIT(board_get(f->board, GO) == 1);
    for (int i = 0; i < ENTRIES; i++) {
        CHECK_EQ(take(f, 10000 * MS), 0);
        uint64_t left = get(f, LEFT);
        CHECK_EQ(left, get(f, RIGHT));
        set(f, LEFT, left + 1);
        ssm_cpu_relax();
        set(f, RIGHT, left + 1);
        ssm_lock_release(lock_of(f));
    }
}

static void test_exclusion(void)
{
    struct fixture f = open_fixture();
    pid_t children[3];
    for (int i = 0; i < 3; i++)
        children[i] = child_start(enter_often, &f);
    board_set(f.board, GO, 1);
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    CHECK_EQ(get(&f, LEFT), 3 * ENTRIES);
    CHECK_EQ(get(&f, RIGHT), 3 * ENTRIES);
    CHECK_EQ(get(&f, REPAIRS), 0);
    CHECK_EQ(ssm_load_relaxed_u64(&lock_of(&f)->word), 0);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- taking over -------------------------------------------------------------------------------------------- */

static void take_and_die(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    CHECK_EQ(take(f, 1000 * MS), 0);
    set(f, LEFT, get(f, LEFT) + 1); /* torn */
    die_here();
}

static void test_steal_from_the_dead(void)
{
    struct fixture f = open_fixture();
    for (uint64_t i = 1; i <= 50; i++) {
        child_died(child_start(take_and_die, &f));
        CHECK(ssm_lock_owner_is_dead(f.pool, lock_of(&f)));
        CHECK_EQ(take(&f, 0), 0); /* needs no patience */
        CHECK_EQ(get(&f, REPAIRS), i);
        CHECK_EQ(get(&f, LEFT), get(&f, RIGHT));
        ssm_lock_release(lock_of(&f));
        CHECK_EQ(take(&f, 0), 0);
        CHECK_EQ(get(&f, REPAIRS), i);
        ssm_lock_release(lock_of(&f));
        fixture_reap(f.pool);
    }
    fixture_close(&f);
}

static void contend(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    while (board_get(f->board, GO) == 0) {
        CHECK_EQ(take(f, 10000 * MS), 0);
        CHECK_EQ(get(f, LEFT), get(f, RIGHT));
        ssm_lock_release(lock_of(f));
    }
}

static void test_one_repair_per_death(void)
{
    struct fixture f = open_fixture();
    pid_t thieves[2];
    for (int i = 0; i < 2; i++)
        thieves[i] = child_start(contend, &f);
    for (uint64_t i = 1; i <= 50; i++) {
        child_died(child_start(take_and_die, &f));
        AWAIT(ssm_load_acquire_u64(&f.board->value[REPAIRS]) == i);
        fixture_reap(f.pool); /* else the slots run out */
    }
    board_set(f.board, GO, 1);
    for (int i = 0; i < 2; i++)
        child_finish(thieves[i]);
    CHECK_EQ(get(&f, REPAIRS), 50);
    fixture_reap(f.pool);
    fixture_close(&f);
}

static int repair_and_die(struct ssm_pool *pool, void *context)
{
    struct fixture *f = context;
    (void)pool;
    set(f, REPAIRS, get(f, REPAIRS) + 1);
    die_here();
}

static void die_in_repair(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    ssm_lock_take(f->pool, lock_of(f), 1000 * MS, repair_and_die, f);
}

static void test_death_in_the_repair(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(take_and_die, &f));
    child_died(child_start(die_in_repair, &f));
    child_died(child_start(die_in_repair, &f));
    CHECK_EQ(get(&f, REPAIRS), 2);
    CHECK_EQ(take(&f, 0), 0);
    CHECK_EQ(get(&f, REPAIRS), 3);
    CHECK_EQ(get(&f, LEFT), get(&f, RIGHT));
    ssm_lock_release(lock_of(&f));
    fixture_reap(f.pool);
    fixture_close(&f);
}

static int fail_to_repair(struct ssm_pool *pool, void *context)
{
    (void)pool, (void)context;
    return -SSM_E_CORRUPT;
}

static void test_error_of_the_repair(void)
{
    struct fixture f = open_fixture();
    child_died(child_start(take_and_die, &f));
    CHECK_EQ(ssm_lock_take(f.pool, lock_of(&f), 0, fail_to_repair, NULL), -SSM_E_CORRUPT);
    CHECK(!ssm_lock_is_mine(f.pool, lock_of(&f)));
    CHECK_EQ(take(&f, 0), 0);
    ssm_lock_release(lock_of(&f));
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- the living --------------------------------------------------------------------------------------------- */

static void take_and_stay(void *context)
{
    struct fixture *f = context;
    fixture_join(f);
    CHECK_EQ(take(f, 0), 0);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 1);
    ssm_lock_release(lock_of(f));
}

static void check_refused(struct fixture *f, uint64_t patience_ns)
{
    uint64_t start_ns = ssm_now_ns();
    CHECK(!ssm_lock_owner_is_dead(f->pool, lock_of(f)));
    CHECK_EQ(take(f, patience_ns), -ETIMEDOUT);
    uint64_t took_ns = ssm_now_ns() - start_ns;
    CHECK(took_ns >= patience_ns);
    CHECK(took_ns < patience_ns + PROMPT_NS);
    CHECK_EQ(get(f, REPAIRS), 0);
}

static void test_patience(void)
{
    struct fixture f = open_fixture();
    pid_t child = child_start(take_and_stay, &f);
    AWAIT(board_get(f.board, READY) == 1);
    check_refused(&f, 0);
    check_refused(&f, 3 * MS);
    check_refused(&f, 35 * MS); /* several steps */
    child_stop(child);
    check_refused(&f, 0);
    check_refused(&f, 35 * MS);
    child_continue(child);
    board_set(f.board, GO, 1);
    CHECK_EQ(take(&f, 10000 * MS), 0);
    CHECK_EQ(get(&f, REPAIRS), 0);
    ssm_lock_release(lock_of(&f));
    child_finish(child);
    fixture_reap(f.pool);
    fixture_close(&f);
}

#define HANDOVERS 30

static void take_and_stamp(struct fixture *f, int waiter)
{
    fixture_join(f);
    for (uint32_t round = 1; round <= HANDOVERS; round++) {
        AWAIT(board_get(f->board, GO) == round);
        CHECK_EQ(take(f, 10000 * MS), 0);
        set(f, STAMP + waiter, ssm_now_ns());
        ssm_lock_release(lock_of(f));
        ssm_add_acqrel_u32(&f->board->step[READY], 1);
        AWAIT(board_get(f->board, READY) >= 2 * round); /* the other one may be in the next already */
    }
}

static void first_waiter(void *context)
{
    take_and_stamp(context, 0);
}
static void second_waiter(void *context)
{
    take_and_stamp(context, 1);
}

/* Asleep, they would look by themselves after up to SSM_LOCK_STEP_NS; woken, one after the other, they come at once. */
static void test_waiters_are_woken(void)
{
    struct fixture f = open_fixture();
    uint32_t prompt = 0;
    pid_t children[] = {child_start(first_waiter, &f), child_start(second_waiter, &f)};
    for (uint32_t round = 1; round <= HANDOVERS; round++) {
        CHECK_EQ(take(&f, 1000 * MS), 0);
        board_set(f.board, GO, round);
        AWAIT(ssm_load_acquire_u64(&lock_of(&f)->word) & SSM_LOCK_WAITERS);
        ssm_nap_ns(MS);
        uint64_t released_ns = ssm_now_ns();
        ssm_lock_release(lock_of(&f));
        AWAIT(board_get(f.board, READY) >= 2 * round);
        prompt += get(&f, STAMP) < released_ns + 3 * MS && get(&f, STAMP + 1) < released_ns + 3 * MS;
    }
    CHECK(prompt > HANDOVERS / 2);
    child_finish(children[0]);
    child_finish(children[1]);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* ---- names in lock words ------------------------------------------------------------------------------------ */

static void test_incarnations(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_u64 *word = &lock_of(&f)->word;
    uint64_t newcomer = other->lock_word, ancestor = newcomer - (UINT64_C(1) << 32);
    ssm_store_release_u64(word, newcomer);
    check_refused(&f, 0);
    ssm_store_release_u64(word, ancestor); /* had the slot before: dead, although its byte is locked */
    CHECK(ssm_lock_owner_is_dead(f.pool, lock_of(&f)));
    CHECK_EQ(take(&f, 0), 0);
    CHECK_EQ(get(&f, REPAIRS), 1);
    ssm_lock_release(lock_of(&f));
    ssm_store_release_u64(word, ancestor | SSM_LOCK_WAITERS);
    CHECK_EQ(take(&f, 0), 0);
    CHECK(ssm_lock_is_mine(f.pool, lock_of(&f))); /* with the waiters bit */
    ssm_lock_release(lock_of(&f));
    CHECK_EQ(ssm_load_relaxed_u64(word), 0);
    pool_end(other);
    fixture_close(&f);
}

static void test_garbage_words(void)
{
    struct fixture f = open_fixture();
    const uint64_t words[] = {SSM_LOCK_WAITERS, UINT64_C(1) << 32, 65, 4097, UINT64_MAX, UINT64_C(7) << 32 | 30};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        ssm_store_release_u64(&lock_of(&f)->word, words[i]);
        CHECK_EQ(take(&f, 0), 0);
        CHECK_EQ(get(&f, REPAIRS), i + 1);
        ssm_lock_release(lock_of(&f));
    }
    fixture_close(&f);
}

/* A failed call tries again while locks stay taken, for as long as its patience lasts. */
static void test_retry(void)
{
    struct fixture f = open_fixture();
    struct ssm_lock_retry retry = ssm_lock_retry_begin(f.pool), impatient = retry;
    CHECK_EQ(ssm_lock_retry(f.pool, &retry, 60000 * MS), 0); /* none did */
    ssm_lock_note_stayed(f.pool, ssm_now_ns());
    CHECK_EQ(ssm_lock_retry(f.pool, &retry, 60000 * MS), 1);
    CHECK_EQ(ssm_lock_retry(f.pool, &retry, 60000 * MS), 0); /* none did since */
    ssm_lock_note_stayed(f.pool, ssm_now_ns());
    CHECK_EQ(ssm_lock_retry(f.pool, &retry, 0), 1); /* the patience is that of the first try */
    CHECK_EQ(ssm_lock_retry(f.pool, &impatient, 0), 0);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_exclusion();
    test_steal_from_the_dead();
    test_one_repair_per_death();
    test_death_in_the_repair();
    test_error_of_the_repair();
    test_patience();
    test_waiters_are_woken();
    test_incarnations();
    test_garbage_words();
    test_retry();
    return 0;
}
