/* SPDX-License-Identifier: Apache-2.0
 *
 * Rings that overflow: what goes in, what is freed, what is counted, one after the other and from several processes, some of
 * which are killed or stopped. */
#include "get.h"
#include "pool_fixture.h"

#define CAPACITY 4
#define BLOCKS   16

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

static struct ssm_ring_stats stats_of(struct ssm_pool *pool)
{
    struct ssm_ring_stats stats;
    CHECK_EQ(ssm_ring_stats(pool, ring_id(pool, "ring"), &stats), 0);
    return stats;
}

/* Packets with the tags from .. from + count - 1. */
static void alloc_tagged(struct ssm_pool *pool, uint64_t *handles, uint32_t count, uint64_t from)
{
    CHECK_EQ(ssm_alloc_many(pool, 8, count, 0, handles), 0);
    for (uint32_t i = 0; i < count; i++)
        CHECK_EQ(ssm_packet_set_tag(pool, handles[i], from + i), 0);
}

static int put_tagged_within(struct ssm_pool *pool, struct ssm_ring *ring, uint32_t count, uint64_t from,
                             int64_t timeout_ns)
{
    uint64_t handles[CAPACITY];
    alloc_tagged(pool, handles, count, from);
    return ssm_ring_put(ring, handles, count, 0, timeout_ns);
}

static int put_tagged(struct ssm_pool *pool, struct ssm_ring *ring, uint32_t count, uint64_t from)
{
    return put_tagged_within(pool, ring, count, from, 0);
}

/* The ring has these tags, and no other. */
static void get_tagged(struct ssm_pool *pool, struct ssm_ring *ring, uint32_t count, uint64_t from)
{
    uint64_t handle, tag;
    for (uint32_t i = 0; i < count; i++) {
        CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), 1);
        CHECK_EQ(ssm_packet_tag(pool, handle, &tag), 0);
        CHECK_EQ(tag, from + i);
        CHECK_EQ(ssm_free(pool, handle), 0);
    }
    CHECK_EQ(ssm_ring_get(ring, &handle, 1, 0), -SSM_E_EMPTY);
}

static void check_books(struct ssm_pool *pool, uint64_t puts, uint64_t gets, uint64_t drops)
{
    struct ssm_ring_stats stats = stats_of(pool);
    CHECK_EQ(stats.puts, puts);
    CHECK_EQ(stats.gets, gets);
    CHECK_EQ(stats.drops, drops);
}

/* ---- one process -------------------------------------------------------------------------------------------- */

static void test_flags(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring;
    const uint32_t wrong[] = {
        SSM_OVERFLOW_DROP | SSM_OVERFLOW_OVERWRITE,
        SSM_OVERFLOW_OVERWRITE | SSM_ONE_CONSUMER,
        SSM_OVERFLOW_OVERWRITE | SSM_REDELIVER,
        1u << 7,
        SSM_OVERFLOW_SAMPLE,
        SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(1),
        SSM_OVERFLOW_DROP | SSM_OVERFLOW_EVERY(2),
        SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(2) | SSM_REDELIVER,
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        CHECK_EQ(ssm_ring_open(f.pool, "ring", &(struct ssm_ring_options){.capacity = 4, .flags = wrong[i]}, &ring),
                 -EINVAL);
    ssm_ring_close(ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_DROP | SSM_ONE_CONSUMER));
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &(struct ssm_ring_options){.capacity = 4, .flags = SSM_ONE_CONSUMER}, &ring),
             -SSM_E_MISMATCH);
    fixture_close(&f);
}

/* Each row of the table: its words lead to its flags and back, and a ring can have them. */
static void test_words(void)
{
    struct fixture f = open_fixture();
    char words[SSM_OVERFLOW_SIZE];
    uint32_t flags, seen = 0, number = 0;
    for (const char *name; (name = ssm_overflow_name(number)) != NULL; number++) {
        CHECK(ssm_overflow_text(number) != NULL);
        CHECK_EQ(ssm_overflow_of_words(name, &flags), 0);
        CHECK((flags & ~SSM_OVERFLOW_MASK) == 0 && (flags & seen) == 0 && (flags != 0) == (number > 0));
        CHECK_EQ(ssm_overflow_in_words(flags, words), 0);
        CHECK(strcmp(words, name) == 0);
        ssm_ring_close(ring_open(f.pool, name, CAPACITY, flags));
        seen |= flags;
    }
    CHECK(ssm_overflow_text(number) == NULL);
    CHECK_EQ(ssm_overflow_of_words("lose", &flags), -EINVAL);
    CHECK_EQ(ssm_overflow_in_words(SSM_OVERFLOW_DROP | SSM_OVERFLOW_OVERWRITE, words), -EINVAL);
    fixture_close(&f);
}

static void test_drop(uint32_t flags)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_DROP | flags);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 0), 0);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 3), 2); /* the first one went in */
    CHECK_EQ(put_tagged(f.pool, ring, 1, 6), 1);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - CAPACITY);
    get_tagged(f.pool, ring, 4, 0);
    check_books(f.pool, 4, 4, 3);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_dropped_ones_are_kept(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_DROP);
    uint64_t handles[CAPACITY];
    CHECK_EQ(put_tagged(f.pool, ring, 3, 0), 0);
    alloc_tagged(f.pool, handles, CAPACITY, 3);
    CHECK_EQ(ssm_ring_put(ring, handles, CAPACITY, SSM_KEEP, 0), 3);
    CHECK_EQ(ssm_free_many(f.pool, handles, CAPACITY), 0);
    get_tagged(f.pool, ring, 4, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Of what is refused, nothing is put and nothing dropped. */
static void test_refused_puts(uint32_t flags)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, flags);
    uint64_t handles[CAPACITY + 1];
    CHECK_EQ(put_tagged(f.pool, ring, 3, 0), 0);
    alloc_tagged(f.pool, handles, CAPACITY, 3);
    CHECK_EQ(ssm_ring_put(ring, handles, CAPACITY + 1, 0, 0), -EINVAL);
    handles[3] = handles[1];
    CHECK_EQ(ssm_ring_put(ring, handles, CAPACITY, 0, 0), -SSM_E_QUEUED);
    handles[3] = SSM_NIL;
    CHECK_EQ(ssm_ring_put(ring, handles, CAPACITY, 0, 0), -SSM_E_STALE);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_FLOWDOWN), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 3, 0, 0), -SSM_E_SHUTDOWN);
    CHECK_EQ(ssm_ring_set_acl(ring, SSM_ACL_RDWR), 0);
    check_books(f.pool, 3, 0, 0);
    CHECK_EQ(ssm_free_many(f.pool, handles, 3), 0);
    get_tagged(f.pool, ring, 3, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_overwrite(uint32_t flags)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_OVERWRITE | flags);
    CHECK_EQ(put_tagged(f.pool, ring, 4, 0), 0);
    CHECK_EQ(put_tagged(f.pool, ring, 1, 4), 0);
    check_books(f.pool, 5, 0, 1);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 5), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - CAPACITY);
    get_tagged(f.pool, ring, 4, 4);
    check_books(f.pool, 8, 4, 4);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 0), 0);
    CHECK_EQ(put_tagged(f.pool, ring, 2, 3), 0); /* one gives way, not two */
    get_tagged(f.pool, ring, 4, 1);
    check_books(f.pool, 13, 8, 5);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* More than are freed at once; and packets that this process has, too. */
static void test_overwrite_many(void)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_count = 256;
    struct fixture f = fixture_open(&options);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 100, SSM_OVERFLOW_OVERWRITE);
    uint64_t first[100], second[100];
    alloc_tagged(f.pool, first, 100, 0);
    alloc_tagged(f.pool, second, 100, 100);
    CHECK_EQ(ssm_ring_put(ring, first, 100, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, second, 99, 0, 0), 0);
    CHECK_EQ(ssm_ring_put(ring, second + 99, 1, 0, 0), 0);
    check_books(f.pool, 200, 0, 100);
    CHECK_EQ(ssm_ring_unfinished(ring), 100); /* what gave way is done */
    CHECK_EQ(ssm_free_many(f.pool, first, 100), 0);
    get_tagged(f.pool, ring, 100, 100);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Every third packet that finds the ring full goes in; what finds room is not counted. */
static void test_sample(uint32_t flags)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(3) | flags);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 0), 0);
    CHECK_EQ(put_tagged(f.pool, ring, 3, 3), 2); /* 3 finds room */
    CHECK_EQ(put_tagged(f.pool, ring, 1, 6), 0);
    CHECK_EQ(put_tagged(f.pool, ring, 4, 7), 3); /* 9 goes in */
    check_books(f.pool, 6, 0, 7);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - CAPACITY);
    uint64_t handles[CAPACITY], tag;
    const uint64_t left[CAPACITY] = {2, 3, 6, 9};
    CHECK_EQ(ssm_ring_get(ring, handles, CAPACITY, 0), CAPACITY);
    for (uint32_t i = 0; i < CAPACITY; i++) {
        CHECK_EQ(ssm_packet_tag(f.pool, handles[i], &tag), 0);
        CHECK_EQ(tag, left[i]);
    }
    CHECK_EQ(ssm_free_many(f.pool, handles, CAPACITY), 0);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_samples_are_kept(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(2));
    uint64_t handles[CAPACITY];
    CHECK_EQ(put_tagged(f.pool, ring, CAPACITY, 100), 0);
    alloc_tagged(f.pool, handles, CAPACITY, 0);
    CHECK_EQ(ssm_ring_put(ring, handles, CAPACITY, SSM_KEEP, 0), 2);
    CHECK_EQ(ssm_free_many(f.pool, handles, CAPACITY), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - CAPACITY);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Slots whose packets a dead consumer took are room: nobody needs to give way. */
static void test_void_slots_are_room(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_OVERWRITE);
    struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, ring_id(f.pool, "ring"));
    uint64_t handles[2];
    CHECK_EQ(put_tagged(f.pool, ring, 4, 0), 0);
    CHECK_EQ(ssm_ring_get(ring, handles, 2, 0), 2);
    CHECK_EQ(ssm_free_many(f.pool, handles, 2), 0);
    ssm_store_relaxed_u64(&shared->consumer.index, 0); /* as if it had died before that store */
    CHECK_EQ(put_tagged(f.pool, ring, 1, 4), 0);
    CHECK_EQ(stats_of(f.pool).drops, 0);
    CHECK_EQ(put_tagged(f.pool, ring, 2, 5), 0);
    CHECK_EQ(stats_of(f.pool).drops, 1);
    get_tagged(f.pool, ring, 4, 3);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_scribbled_index(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_OVERWRITE);
    struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, ring_id(f.pool, "ring"));
    uint64_t handle;
    CHECK_EQ(put_tagged(f.pool, ring, 4, 0), 0);
    alloc_tagged(f.pool, &handle, 1, 4);
    ssm_store_relaxed_u64(&shared->consumer.index, 77);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), -SSM_E_CORRUPT);
    ssm_store_relaxed_u64(&shared->consumer.index, 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    get_tagged(f.pool, ring, 4, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* Room may have come since a put saw none: then nothing gives way. And nothing does where the index is none. */
static void test_room_that_came(void)
{
    EXPECT_DAMAGE;
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, SSM_OVERFLOW_OVERWRITE);
    struct ssm_ring_shared *shared = ssm_ring_shared_at(f.pool, ring_id(f.pool, "ring"));
    CHECK_EQ(put_tagged(f.pool, ring, 2, 0), 0);
    CHECK_EQ(ssm_ring_make_room(ring, 1), 0);
    CHECK_EQ(ssm_ring_make_room(ring, 2), 0);
    CHECK_EQ(stats_of(f.pool).drops, 0);
    CHECK_EQ(ssm_ring_make_room(ring, 3), 0);
    CHECK_EQ(stats_of(f.pool).drops, 1);
    ssm_store_relaxed_u64(&shared->consumer.index, 77);
    CHECK_EQ(ssm_ring_make_room(ring, 1), -SSM_E_CORRUPT);
    ssm_store_relaxed_u64(&shared->consumer.index, 1);
    get_tagged(f.pool, ring, 1, 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* A returned packet is in no slot, and takes none: what finds no slot is dropped. What is dropped is owed no more. */
static void test_drop_redelivers(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *from = ring_open(f.pool, "from", CAPACITY, SSM_REDELIVER);
    struct ssm_ring *ring = ring_open(f.pool, "ring", 1, SSM_OVERFLOW_DROP | SSM_REDELIVER);
    uint64_t handles[2];
    CHECK_EQ(put_tagged(f.pool, from, 2, 0), 0);
    CHECK_EQ(ssm_ring_get(from, handles, 2, 0), 2);
    CHECK_EQ(put_tagged(f.pool, ring, 1, 9), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 1, 0, 0), 1);
    CHECK_EQ(ssm_packet_tag(f.pool, handles[0], &handles[0]), -SSM_E_STALE);
    CHECK_EQ(ssm_ring_put(from, handles + 1, 1, 0, 0), 0);
    get_tagged(f.pool, from, 1, 1);
    get_tagged(f.pool, ring, 1, 9);
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    ssm_ring_close(from);
    fixture_close(&f);
}

/* ---- several processes -------------------------------------------------------------------------------------- */

/* Its consumer is stopped with the right in its hands: an overwriting put waits as long as it is told to, a dropping one
 * does not. */
static void stop_with_the_right(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring_shared *shared = ssm_ring_shared_at(pool, ring_id(pool, "ring"));
    ssm_store_release_u64(&shared->consumer.lock.word, pool->lock_word);
    board_set(f->board, 0, 1);
    for (;;)
        pause();
}

static void test_stopped_consumer(uint32_t flags)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, flags);
    uint64_t handle;
    CHECK_EQ(put_tagged(f.pool, ring, 4, 0), 0);
    alloc_tagged(f.pool, &handle, 1, 4);
    pid_t child = child_start(stop_with_the_right, &f);
    AWAIT(board_get(f.board, 0) == 1);
    child_stop(child);
    uint64_t since_ns = ssm_now_ns();
    int result = ssm_ring_put(ring, &handle, 1, SSM_KEEP, INT64_C(100000000));
    uint64_t took_ns = ssm_now_ns() - since_ns;
    if (flags & SSM_OVERFLOW_DROP) {
        CHECK_EQ(result, 1);
    } else {
        CHECK_EQ(result, -SSM_E_FULL);
        CHECK(took_ns >= 100 * MS && took_ns < 5000 * MS);
    }
    CHECK_EQ(stats_of(f.pool).drops, flags & SSM_OVERFLOW_DROP ? 1 : 0);
    child_kill(child);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), flags & SSM_OVERFLOW_DROP ? 1 : 0);
    get_tagged(f.pool, ring, 4, flags & SSM_OVERFLOW_DROP ? 0 : 1);
    ssm_ring_close(ring);
    fixture_close(&f);
}

enum { PRODUCERS = 3, ROUNDS = 4000 };

struct production {
    uint32_t flags;
    bool     endless;
};

/* Tags: producer << 32 | number, growing. */
static void produce(void *context)
{
    struct fixture *f = context;
    const struct production *production = f->more;
    struct ssm_pool *pool = fixture_join(f);
    struct ssm_ring *ring = ring_open(pool, "ring", CAPACITY, production->flags);
    uint64_t me = ssm_add_acqrel_u32(&f->board->step[0], 1), dropped = 0;
    for (uint64_t i = 0; i < ROUNDS || production->endless;) {
        uint32_t count = 1 + (uint32_t)(i % 3);
        int result = put_tagged_within(pool, ring, count, me << 32 | i,
                                       SSM_FOREVER); /* who has a right may be off its CPU */
        CHECK(result >= 0 && (result == 0 || production->flags & SSM_OVERFLOW_DROP));
        dropped += (uint64_t)result;
        i += count;
        ssm_add_acqrel_u32(&f->board->step[1], count - (uint32_t)result);
        ssm_add_acqrel_u32(&f->board->step[3], count);
    }
    ssm_add_acqrel_u32(&f->board->step[2], (uint32_t)dropped);
    ssm_ring_close(ring);
}

/* Of each producer they come in order. How many. */
static uint64_t consume(struct fixture *f, struct ssm_ring *ring, uint64_t *last)
{
    uint64_t handles[2], tag;
    int got = ssm_ring_get(ring, handles, 2, 0);
    for (int i = 0; i < got; i++) {
        CHECK_EQ(ssm_packet_tag(f->pool, handles[i], &tag), 0);
        CHECK(tag >> 32 < PRODUCERS + 1 && (tag & UINT32_MAX) + 1 > last[tag >> 32]);
        last[tag >> 32] = (tag & UINT32_MAX) + 1;
    }
    if (got > 0)
        CHECK_EQ(ssm_free_many(f->pool, handles, (uint32_t)got), 0);
    return got > 0 ? (uint64_t)got : 0;
}

static void test_producers(uint32_t flags, bool kill_one)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "ring", CAPACITY, flags);
    uint64_t last[PRODUCERS + 1] = {0}, got = 0;
    uint32_t left = PRODUCERS;
    pid_t children[PRODUCERS];
    struct production production = {.flags = flags};
    f.more = &production;
    for (int i = 0; i < PRODUCERS; i++) {
        production.endless = kill_one && i == PRODUCERS - 1;
        children[i] = child_start(produce, &f);
    }
    if (kill_one) {
        AWAIT(board_get(f.board, 3) > 1000);
        child_kill(children[--left]);
    }
    for (uint64_t until_ns = ssm_now_ns() + 100 * MS; ssm_now_ns() < until_ns; ssm_nap_ns(MS))
        got += consume(&f, ring, last);
    for (uint32_t i = 0; i < left; i++)
        child_finish(children[i]);
    uint64_t more;
    while ((more = consume(&f, ring, last)) != 0)
        got += more;
    fixture_reap(f.pool);
    struct ssm_ring_stats stats = stats_of(f.pool);
    CHECK_EQ(stats.gets, got);
    CHECK_EQ(stats.depth, 0);
    uint64_t lost = stats.puts - stats.gets - (flags & SSM_OVERFLOW_DROP ? 0 : stats.drops);
    CHECK(lost <= (kill_one ? CAPACITY : 0)); /* what it had taken out to make room, not counted yet */
    if (!kill_one) {
        CHECK_EQ(stats.puts, board_get(f.board, 1));
        if (flags & SSM_OVERFLOW_DROP)
            CHECK_EQ(stats.drops, board_get(f.board, 2));
    }
    check_all_there(f.pool, 0);
    ssm_ring_close(ring);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_flags();
    test_words();
    test_drop(0);
    test_drop(SSM_ONE_PRODUCER | SSM_ONE_CONSUMER);
    test_drop(SSM_REDELIVER);
    test_dropped_ones_are_kept();
    test_refused_puts(SSM_OVERFLOW_DROP);
    test_refused_puts(SSM_OVERFLOW_OVERWRITE);
    test_refused_puts(SSM_OVERFLOW_SAMPLE | SSM_OVERFLOW_EVERY(2));
    test_overwrite(0);
    test_overwrite(SSM_ONE_PRODUCER);
    test_overwrite_many();
    test_sample(0);
    test_sample(SSM_ONE_PRODUCER);
    test_samples_are_kept();
    test_void_slots_are_room();
    test_scribbled_index();
    test_room_that_came();
    test_drop_redelivers();
    test_stopped_consumer(SSM_OVERFLOW_DROP);
    test_stopped_consumer(SSM_OVERFLOW_OVERWRITE);
    for (int kill_one = 0; kill_one < 2; kill_one++) {
        test_producers(SSM_OVERFLOW_DROP, kill_one);
        test_producers(SSM_OVERFLOW_OVERWRITE, kill_one);
    }
    return 0;
}
