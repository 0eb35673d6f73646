/* SPDX-License-Identifier: Apache-2.0
 *
 * The arena: sizes at every limit, extents of former packets, exhaustion and who waits for it, rings, deaths, extents
 * that are scribbled over, and a model. */
#include "arena.h"
#include "pool_fixture.h"

#include <stdlib.h>

#define PAGE   UINT64_C(4096)
#define ARENA  (64 * PAGE)
#define KIB(n) (UINT64_C(1024) * (n))

enum { PACKETS = 12 };

/* All of this file is true of an arena that grows to that size, too, one unit after the other. */
static bool growing;

/* Two classes, of 256 and 1024 bytes, and the arena. */
static struct ssm_pool_options arena_options(void)
{
    struct ssm_pool_options options = fixture_options();
    options.arena_bytes = growing ? 0 : ARENA;
    options.grow_bytes = growing ? ARENA : 0;
    options.arena_packets = PACKETS;
    return options;
}

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = arena_options();
    return fixture_open(&options);
}

static uint64_t offset_of(struct ssm_pool *pool, uint64_t handle)
{
    const struct ssm_packet packet = fixture_view(pool, handle);
    return (uint64_t)(packet.data - packet.headroom - pool->base) - pool->geometry.classes[2].payload_start;
}

static void drop(struct ssm_pool *pool, uint64_t handle)
{
    CHECK_EQ(ssm_free(pool, handle), 0);
}

static struct ssm_arena_stats stats(struct ssm_pool *pool)
{
    struct ssm_arena_stats stats;
    CHECK_EQ(ssm_arena_stats(pool, &stats), 0);
    return stats;
}

/* ---- sizes ---------------------------------------------------------------------------------------------------- */

static void test_sizes(void)
{
    struct ssm_pool_options options = arena_options();
    options.headroom = 40;
    options.tailroom = 24;
    struct fixture f = fixture_open(&options);
    const struct {
        uint64_t size, block_size;
    } table[] = {
        {1, 256},          {1024 - 64, 1024},      {1025 - 64, 1088},         {1088 - 64, 1088},   {1089 - 64, 1152},
        {PAGE - 64, PAGE}, {PAGE - 63, PAGE + 64}, {KIB(100), KIB(100) + 64}, {ARENA - 65, ARENA}, {ARENA - 64, ARENA},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        uint64_t handle = fixture_alloc(f.pool, table[i].size);
        const struct ssm_packet packet = fixture_view(f.pool, handle);
        CHECK(packet.length == table[i].size && packet.headroom == 40 && packet.block_size == table[i].block_size);
        CHECK_EQ((uintptr_t)(packet.data - 40) % (packet.block_size < 16 * PAGE ? 64 : PAGE), 0);
        memset(packet.data - 40, 0xa5, packet.block_size);
        CHECK_EQ(ssm_usage_held(f.pool), packet.block_size);
        drop(f.pool, handle);
        CHECK_EQ(ssm_usage_held(f.pool), 0);
    }
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, ARENA - 63, 0, &handle), -SSM_E_TOO_LARGE);
    CHECK_EQ(ssm_alloc(f.pool, UINT64_MAX, 0, &handle), -SSM_E_TOO_LARGE);
    fixture_close(&f);
}

static void test_no_arena(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_arena_stats stats;
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 1025, 0, &handle), -SSM_E_TOO_LARGE);
    CHECK_EQ(ssm_arena_stats(f.pool, &stats), -ENOENT);
    fixture_close(&f);
}

static void test_edges_and_references(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, KIB(10) - 60);
    uint8_t *bytes;
    CHECK_EQ(ssm_packet_append(f.pool, handle, 60, &bytes), 0);
    CHECK_EQ(ssm_packet_append(f.pool, handle, 1, &bytes), -SSM_E_ROOM);
    CHECK_EQ(ssm_packet_trim_front(f.pool, handle, KIB(10), &bytes), 0);
    CHECK_EQ(ssm_packet_prepend(f.pool, handle, KIB(10), &bytes), 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    drop(f.pool, handle);
    CHECK_EQ(fixture_view(f.pool, handle).length, KIB(10));
    drop(f.pool, handle);
    CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
    fixture_close(&f);
}

/* ---- extents of former packets, and no room -------------------------------------------------------------------- */

/* The block that is free with an extent of that size keeps it; of another size, it gives it back. */
static void test_leftovers(void)
{
    struct fixture f = open_fixture();
    uint64_t first = fixture_alloc(f.pool, KIB(8)), other = fixture_alloc(f.pool, KIB(4));
    const uint64_t at = offset_of(f.pool, first);
    drop(f.pool, first);
    CHECK_EQ(stats(f.pool).largest, ARENA - KIB(12)); /* behind the second */
    uint64_t again = fixture_alloc(f.pool, KIB(8));
    CHECK(block_of(again) == block_of(first) && offset_of(f.pool, again) == at);
    drop(f.pool, again);
    again = fixture_alloc(f.pool, KIB(5));
    CHECK(block_of(again) == block_of(first) && offset_of(f.pool, again) == at); /* first match */
    drop(f.pool, again);
    again = fixture_alloc(f.pool, ARENA - KIB(12));
    CHECK_EQ(offset_of(f.pool, again), KIB(12));
    drop(f.pool, again);
    drop(f.pool, other);
    fixture_close(&f);
}

/* What other blocks that are free have left is room. */
static void test_sweep(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[4];
    for (int i = 0; i < 4; i++)
        handles[i] = fixture_alloc(f.pool, ARENA / 4);
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 1025, 0, &handle), -SSM_E_EXHAUSTED);
    drop(f.pool, handles[1]);
    CHECK_EQ(ssm_alloc(f.pool, ARENA / 4 + 1, 0, &handle), -SSM_E_EXHAUSTED);
    drop(f.pool, handles[3]);
    CHECK_EQ(ssm_alloc(f.pool, ARENA / 2, 0, &handle), -SSM_E_EXHAUSTED); /* in two pieces */
    CHECK_EQ(stats(f.pool).used, ARENA / 2);
    CHECK_EQ(stats(f.pool).largest, ARENA / 4);
    drop(f.pool, handles[2]);
    handle = fixture_alloc(f.pool, 3 * (ARENA / 4));
    CHECK_EQ(offset_of(f.pool, handle), ARENA / 4);
    CHECK(stats(f.pool).used == ARENA && stats(f.pool).largest == 0);
    drop(f.pool, handle);
    drop(f.pool, handles[0]);
    fixture_close(&f);
}

static void test_packets_are_counted(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[PACKETS], handle;
    CHECK_EQ(ssm_alloc_many(f.pool, 1025, PACKETS, 0, handles), 0);
    CHECK(stats(f.pool).free == 0 && stats(f.pool).largest > KIB(100));
    CHECK_EQ(ssm_alloc(f.pool, 1025, 0, &handle), -SSM_E_EXHAUSTED);
    CHECK_EQ(ssm_free_many(f.pool, handles, PACKETS), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1025, PACKETS + 1, 0, handles), -EINVAL);
    CHECK_EQ(ssm_alloc_many(f.pool, ARENA / 4 + 1, 4, 0, handles), -EINVAL); /* more than the arena */
    CHECK_EQ(ssm_alloc_many(f.pool, 21 * PAGE + 1, 3, 0, handles), -EINVAL); /* each begins on a page */
    CHECK_EQ(ssm_alloc_many(f.pool, ARENA / 4 - 63, 4, 0, handles), 0);
    handle = handles[3];
    CHECK_EQ(ssm_free_many(f.pool, handles, 3), 0);
    uint64_t three[4];
    CHECK_EQ(ssm_alloc_many(f.pool, ARENA / 4, 4, 0, three), -SSM_E_EXHAUSTED); /* nothing is taken */
    CHECK_EQ(stats(f.pool).free, PACKETS - 1);
    drop(f.pool, handle);
    fixture_close(&f);
}

static void test_quota(void)
{
    struct fixture f = open_fixture();
    uint64_t handle, second;
    CHECK_EQ(ssm_pool_set_quota(f.pool, KIB(8)), 0);
    CHECK_EQ(ssm_alloc(f.pool, KIB(8) + 1, 0, &handle), -SSM_E_QUOTA);
    handle = fixture_alloc(f.pool, KIB(4) + 1);
    CHECK_EQ(ssm_alloc(f.pool, KIB(4), 0, &second), -SSM_E_QUOTA); /* the first one took 64 more */
    second = fixture_alloc(f.pool, KIB(4) - 64);
    struct ssm_usage usage[64];
    CHECK_EQ(ssm_usage(f.pool, usage, 64), 0);
    CHECK(usage[0].arena_packets == 2 && usage[0].arena_bytes == KIB(8) && usage[0].peak_bytes == KIB(8));
    drop(f.pool, handle);
    drop(f.pool, second);
    fixture_close(&f);
}

/* ---- other processes --------------------------------------------------------------------------------------------- */

static void wait_for_room(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    board_set(f->board, 0, 1);
    CHECK_EQ(ssm_alloc(pool, ARENA / 2, 20000 * (int64_t)MS, &handle), 0);
    ssm_store_release_u64(&f->board->value[0], ssm_now_ns());
    drop(pool, handle);
}

/* Whichever packet of the arena is freed, wherever its block's home is. */
static void test_who_waits_is_woken(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[4];
    for (int i = 0; i < 4; i++)
        handles[i] = fixture_alloc(f.pool, ARENA / 4);
    pid_t child = child_start(wait_for_room, &f);
    AWAIT(board_get(f.board, 0) == 1);
    drop(f.pool, handles[0]);
    drop(f.pool, handles[2]); /* not beside it */
    ssm_nap_ns(20 * MS);
    CHECK_EQ(ssm_load_acquire_u64(&f.board->value[0]), 0);
    drop(f.pool, handles[1]);
    child_finish(child);
    drop(f.pool, handles[3]);
    fixture_reap(f.pool);
    fixture_close(&f);
}

/* So is he when a block that is taken gives back more than it takes: his last look did not see that as free. */
static void test_room_that_is_given_back_is_signalled(void)
{
    struct fixture f = open_fixture();
    drop(f.pool, fixture_alloc(f.pool, KIB(8)));
    const struct {
        uint64_t size;
        bool signalled;
    } table[] = {{KIB(8), false}, {KIB(6), true}};
    for (int i = 0; i < 2; i++) {
        struct ssm_event *event = &ssm_class_at(f.pool, 2)->several;
        const uint32_t seen = ssm_event_announce(event);
        ssm_class_announce(f.pool, 2);
        uint64_t handle = fixture_alloc(f.pool, table[i].size);
        CHECK_EQ(ssm_load_acquire_u32(&event->word) != seen, table[i].signalled);
        drop(f.pool, handle);
    }
    fixture_close(&f);
}

static void take_and_die(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t got;
    CHECK_EQ(ssm_ring_get(ring_open(pool, "frames", 4, 0), &got, 1, 10000 * (int64_t)MS), 1);
    const struct ssm_packet packet = fixture_view(pool, got);
    for (uint64_t i = 0; i < packet.length; i++)
        CHECK_EQ(packet.data[i], (uint8_t)i);
    (void)fixture_alloc(pool, ARENA / 2);
    die_here();
}

/* A packet goes to another process, which dies with it and with one of its own. */
static void test_ring_and_death(void)
{
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "frames", 4, 0);
    uint64_t handle = fixture_alloc(f.pool, KIB(100)), more;
    for (uint64_t i = 0; i < KIB(100); i++)
        fixture_view(f.pool, handle).data[i] = (uint8_t)i;
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
    CHECK_EQ(ssm_usage_held(f.pool), 0);
    uint8_t bytes[8];
    struct ssm_peek peek;
    CHECK_EQ(ssm_packet_peek(f.pool, handle, bytes, 8, &peek), 0);
    CHECK(peek.length == KIB(100) && peek.block_size == KIB(100) && bytes[7] == 7);
    child_died(child_start(take_and_die, &f));
    CHECK_EQ(ssm_alloc(f.pool, ARENA, 0, &more), 0); /* before it is said that there is no room */
    CHECK_EQ(ssm_packet_peek(f.pool, handle, bytes, 8, &peek), -SSM_E_STALE);
    drop(f.pool, more);
    ssm_ring_close(ring);
    fixture_close(&f);
}

/* ---- scribbled over ------------------------------------------------------------------------------------------------ */

static struct ssm_extent *extent_of(struct ssm_pool *pool, uint64_t handle)
{
    return ssm_extent_at(pool, block_of(handle));
}

static void count_sentence(void *context, const char *sentence)
{
    const char *part = ((const char **)context)[0];
    ((const char **)context)[1] = strstr(sentence, part) != NULL ? part : ((const char **)context)[1];
}

#define CHECK_FOUND(pool, part)                           \
    do {                                                  \
        const char *look[2] = {part, NULL};               \
        CHECK(ssm_check(pool, count_sentence, look) > 0); \
        CHECK(look[1] != NULL);                           \
    } while (0)

/* An extent that cannot be makes no pointer; whoever holds the packet already is not concerned. */
static void test_scribbled_extent(void)
{
    const struct {
        uint64_t start, bytes;
    } wrong[] = {
        {ARENA, 64}, {0, ARENA + 64}, {ARENA - 64, 128},     {UINT64_MAX - 63, 128},
        {32, 64},    {0, 100},        {64, UINT64_MAX - 63},
    };
    struct fixture f = open_fixture();
    struct ssm_ring *ring = ring_open(f.pool, "frames", 4, 0);
    uint64_t handle = fixture_alloc(f.pool, KIB(8)), got;
    struct ssm_packet packet;
    struct ssm_extent *extent = extent_of(f.pool, handle), was = *extent;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        ssm_store_relaxed_u64(&extent->start, wrong[i].start);
        ssm_store_relaxed_u64(&extent->bytes, wrong[i].bytes);
        CHECK_EQ(fixture_view(f.pool, handle).block_size, KIB(8));
        if (i == 0) /* it looks for long */
            CHECK_FOUND(f.pool, "I12: an extent reaches beyond it");
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
        CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
        CHECK_EQ(ssm_packet_view(f.pool, got, &packet), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_usage_held(f.pool), 0);
        *extent = was;
        CHECK_EQ(ssm_ring_put(ring, &handle, 1, 0, 0), 0);
        CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
        CHECK_EQ(ssm_usage_held(f.pool), KIB(8));
    }
    drop(f.pool, handle);
    ssm_ring_close(ring);
    fixture_close(&f);
}

static void test_findings(void)
{
    struct fixture f = open_fixture();
    uint64_t one = fixture_alloc(f.pool, KIB(8)), other = fixture_alloc(f.pool, KIB(8));
    struct ssm_extent *extent = extent_of(f.pool, one), was = *extent;
    CHECK_EQ(ssm_packet_trim_back(f.pool, one, KIB(4), NULL), 0); /* its window is right in all that follows */
    *extent = *extent_of(f.pool, other);
    CHECK_FOUND(f.pool, "I12: two blocks have one extent");
    *extent = was;
    ssm_store_relaxed_u64(&extent->bytes, 0);
    CHECK_FOUND(f.pool, "I13: the tree has other ranges than the extents");
    ssm_store_relaxed_u64(&extent->bytes, KIB(8) / 2);
    CHECK_FOUND(f.pool, "I13: the tree does not have an extent");
    *extent = was;
    fixture_check(f.pool);
    memset(f.pool->base + f.pool->geometry.arena_tree_start, 0, 256); /* no tree: it is made anew */
    CHECK_FOUND(f.pool, "what stands in the place of its tree is none");
    uint64_t more = fixture_alloc(f.pool, KIB(8));
    CHECK(offset_of(f.pool, more) == KIB(16) && stats(f.pool).recoveries == 1);
    drop(f.pool, one);
    drop(f.pool, other);
    drop(f.pool, more);
    fixture_close(&f);
}

/* ---- at random, beside a model -------------------------------------------------------------------------------------- */

struct model {
    struct { uint64_t handle, start, bytes; } held[PACKETS];
    uint32_t count;
};

/* Is a stretch of that size free by the model, at an address that is aligned for it? */
static bool model_has_room(const struct model *m, uint64_t bytes)
{
    const uint64_t step = bytes < 16 * PAGE ? 64 : PAGE;
    for (uint64_t start = 0; start + bytes <= ARENA; start += step) {
        bool free = true;
        for (uint32_t i = 0; i < m->count && free; i++)
            free = start >= m->held[i].start + m->held[i].bytes || m->held[i].start >= start + bytes;
        if (free)
            return true;
    }
    return false;
}

static void model_alloc(struct ssm_pool *pool, struct model *m, uint64_t size)
{
    uint64_t handle;
    const uint64_t bytes = ssm_arena_round(size);
    const bool room = m->count < PACKETS && model_has_room(m, bytes);
    CHECK_EQ(ssm_alloc(pool, size, 0, &handle), room ? 0 : -SSM_E_EXHAUSTED);
    if (!room)
        return;
    m->held[m->count].handle = handle;
    m->held[m->count].start = offset_of(pool, handle);
    m->held[m->count].bytes = bytes;
    for (uint32_t i = 0; i < m->count; i++)
        CHECK(m->held[i].start >= m->held[m->count].start + bytes ||
              m->held[m->count].start >= m->held[i].start + m->held[i].bytes);
    CHECK_EQ(fixture_view(pool, handle).block_size, bytes);
    m->count++;
}

static void test_model(void)
{
    struct fixture f = open_fixture();
    struct model m = {.count = 0};
    for (int i = 0; i < 4000; i++) {
        uint32_t which = (uint32_t)check_below(PACKETS + 2);
        if (which >= m.count) {
            model_alloc(f.pool, &m,
                        1025 + check_below(check_below(4) == 0 ? ARENA - 1024
                                           : check_below(2)    ? KIB(40)
                                                               : 4000));
            continue;
        }
        drop(f.pool, m.held[which].handle);
        m.held[which] = m.held[--m.count];
        f.pool->home = (uint32_t)check_below(4);
    }
    while (m.count > 0)
        drop(f.pool, m.held[--m.count].handle);
    CHECK(stats(f.pool).used == 0 && stats(f.pool).largest == ARENA && stats(f.pool).free == PACKETS);
    fixture_close(&f);
}

/* ---- growing ---------------------------------------------------------------------------------------------------- */

static uint64_t beside_arena; /* bytes of the file that are not its memory, once it has blocks and bits */

static struct fixture open_growing(uint64_t reserved, uint64_t most)
{
    struct ssm_pool_options options = arena_options();
    options.arena_bytes = reserved;
    options.grow_bytes = most;
    struct fixture f = fixture_open(&options);
    if (f.pool->geometry.arena_units > 0)
        CHECK_EQ(ssm_arena_add_packets(f.pool, 1), 0);
    beside_arena = ssm_segment_reserved_bytes(f.fd) - f.pool->geometry.arena_reserved + (reserved == 0 ? PAGE : 0);
    return f;
}

/* Of the arena's memory: what the file has of it. */
static uint64_t bytes_there(const struct fixture *f)
{
    return ssm_segment_reserved_bytes(f->fd) - beside_arena;
}

static bool is_backed(const struct fixture *f, uint64_t backed)
{
    fixture_check(f->pool);
    return stats(f->pool).backed == backed && bytes_there(f) == backed;
}

static void test_it_grows_by_units(void)
{
    struct fixture f = open_growing(1, KIB(64) * 5 - 1); /* rounded up: one of five is reserved */
    CHECK(stats(f.pool).bytes == KIB(64) * 5 && is_backed(&f, KIB(64)));
    uint64_t a = fixture_alloc(f.pool, KIB(64)), b;
    CHECK(is_backed(&f, KIB(64)));
    b = fixture_alloc(f.pool, KIB(2)); /* one byte of a unit is the whole unit */
    CHECK(offset_of(f.pool, b) == KIB(64) && is_backed(&f, KIB(128)));
    drop(f.pool, a);
    a = fixture_alloc(f.pool, KIB(60)); /* swept first */
    CHECK(offset_of(f.pool, a) == 0 && is_backed(&f, KIB(128)));
    drop(f.pool, b);
    b = fixture_alloc(f.pool, KIB(150)); /* two units more, the rest of the first one first */
    CHECK(offset_of(f.pool, b) == KIB(60) && is_backed(&f, KIB(256)));
    drop(f.pool, a);
    drop(f.pool, b);
    CHECK(is_backed(&f, KIB(256)));
    a = fixture_alloc(f.pool, KIB(64) * 5);
    CHECK(is_backed(&f, KIB(64) * 5));
    drop(f.pool, a);
    fixture_close(&f);
}

static void test_what_does_not_grow(void)
{
    struct fixture f = open_growing(KIB(60), KIB(64)); /* no unit more than is reserved */
    CHECK(f.pool->geometry.arena_units == 0 && stats(f.pool).bytes == KIB(64) && stats(f.pool).backed == KIB(64));
    CHECK_EQ(ssm_segment_reserved_bytes(f.fd), f.pool->geometry.size_bytes);
    fixture_close(&f);
}

/* A unit that is there without its bit, as a death leaves it, is reserved again; what is in it stays. */
static void test_reserved_again(void)
{
    struct fixture f = open_growing(0, KIB(64) * 2);
    uint64_t a = fixture_alloc(f.pool, KIB(10)), b = fixture_alloc(f.pool, KIB(10));
    memset(fixture_view(f.pool, a).data, 0x5a, KIB(10));
    drop(f.pool, b);
    ssm_store_relaxed_u64((struct ssm_u64 *)(f.pool->base + f.pool->geometry.backed_start), 0);
    b = fixture_alloc(f.pool, KIB(10)); /* the same extent */
    CHECK(offset_of(f.pool, b) == KIB(10) && is_backed(&f, KIB(64)));
    for (uint64_t i = 0; i < KIB(10); i++)
        CHECK(fixture_view(f.pool, a).data[i] == 0x5a);
    drop(f.pool, a);
    drop(f.pool, b);
    fixture_close(&f);
}

static int reserve(const struct fixture *f, uint64_t start, uint64_t bytes)
{
    return ssm_segment_reserve(f->fd, f->pool->geometry.classes[2].payload_start + start, bytes, NULL, NULL);
}

/* It needs what cannot be had: what is reserved is of use all the same, wherever it lies. */
static void test_no_memory(void)
{
    struct fixture f = open_growing(KIB(128), KIB(64) * 8);
    uint64_t a = fixture_alloc(f.pool, KIB(64)), b = fixture_alloc(f.pool, KIB(64)), c, pair[2];
    CHECK_EQ(reserve(&f, KIB(64) * 5, KIB(64) * 2), 0);
    ssm_store_relaxed_u64((struct ssm_u64 *)(f.pool->base + f.pool->geometry.backed_start), 1 << 1 | 1 << 5 | 1 << 6);
    drop(f.pool, a);
    f.pool->grow_again_ns = UINT64_MAX;
    CHECK_EQ(ssm_alloc(f.pool, KIB(192), 0, &c), -SSM_E_EXHAUSTED);
    CHECK_EQ(ssm_alloc_many(f.pool, KIB(100), 2, 0, pair), -SSM_E_EXHAUSTED);
    CHECK_EQ(ssm_alloc(f.pool, KIB(100), 0, &c), 0);
    CHECK_EQ(offset_of(f.pool, c), KIB(320));
    drop(f.pool, c);
    CHECK_EQ(ssm_alloc_many(f.pool, KIB(64), 2, 0, pair), 0);
    CHECK(offset_of(f.pool, pair[0]) == KIB(320) && offset_of(f.pool, pair[1]) == KIB(384));
    CHECK_EQ(ssm_alloc(f.pool, KIB(2), 0, &c), -SSM_E_EXHAUSTED);
    f.pool->grow_again_ns = ssm_now_ns() + 20 * MS;
    CHECK_EQ(ssm_alloc(f.pool, KIB(2), (int64_t)(WATCHDOG_S * 1000 * MS), &c), 0); /* it looks again by itself */
    CHECK_EQ(offset_of(f.pool, c), 0);
    drop(f.pool, b);
    drop(f.pool, c);
    CHECK_EQ(ssm_free_many(f.pool, pair, 2), 0);
    fixture_close(&f);
}

/* A hole is SIGBUS at the first touch when memory is short. */
static void test_a_file_that_was_cut(void)
{
    struct fixture f = open_growing(0, KIB(64) * 4);
    struct ssm_pool *again;
    uint64_t a = fixture_alloc(f.pool, KIB(100));
    const uint64_t size = f.pool->geometry.size_bytes;
    CHECK_EQ(ssm_pool_attach(f.fd, NULL, &again), 0);
    ssm_pool_destroy(again);
    CHECK(ftruncate(f.fd, (off_t)(size - KIB(64) * 3)) == 0 && ftruncate(f.fd, (off_t)size) == 0);
    CHECK_EQ(ssm_pool_attach(f.fd, NULL, &again), -SSM_E_CORRUPT);
    CHECK_FOUND(f.pool, "I15: more is said to be reserved than the file has");
    CHECK_EQ(reserve(&f, 0, KIB(128)), 0);
    drop(f.pool, a);
    fixture_close(&f);
}

/* Looking does not give memory to a hole. */
static void test_peek_touches_nothing(void)
{
    struct fixture f = open_growing(0, KIB(64) * 2);
    uint64_t a = fixture_alloc(f.pool, KIB(8)), bytes = KIB(64);
    struct ssm_peek peek;
    uint8_t *copy = malloc(KIB(8));
    CHECK(copy != NULL);
    memset(fixture_view(f.pool, a).data, 0x33, KIB(8));
    CHECK(ssm_packet_peek(f.pool, a, copy, KIB(8), &peek) == 0 && peek.length == KIB(8) && copy[KIB(8) - 1] == 0x33);
    struct ssm_extent *extent = extent_of(f.pool, a), was = *extent;
    ssm_store_relaxed_u64(&extent->start, KIB(64)); /* it lies where nothing is */
    CHECK(ssm_packet_peek(f.pool, a, copy, KIB(8), &peek) == 0 && copy[0] == 0);
    CHECK_EQ(bytes_there(&f), bytes);
    *extent = was;
    free(copy);
    drop(f.pool, a);
    fixture_close(&f);
}

/* ---- spilling ---------------------------------------------------------------------------------------------------- */

static void take_all_small(struct ssm_pool *pool, uint64_t handles[16])
{
    for (int i = 0; i < 16; i++)
        handles[i] = fixture_alloc(pool, 256);
    CHECK_EQ(stats(pool).used, 0);
}

static void test_a_full_class_spills(void)
{
    struct fixture f = open_growing(0, ARENA);
    uint64_t small[16], many[17], a, b, c;
    take_all_small(f.pool, small);
    a = fixture_alloc(f.pool, 129);
    CHECK_EQ(stats(f.pool).used, 192); /* what it needs, rounded up */
    b = fixture_alloc(f.pool, 256);
    CHECK_EQ(stats(f.pool).used, 192 + 256);
    drop(f.pool, small[0]);
    small[0] = fixture_alloc(f.pool, 1); /* its own class first */
    CHECK_EQ(stats(f.pool).used, 192 + 256);
    CHECK_EQ(ssm_alloc_many(f.pool, 1024, 9, 0, many), 0); /* the class has 8 */
    CHECK_EQ(stats(f.pool).used, 192 + 256 + 9 * 1024);
    CHECK_EQ(ssm_alloc_many(f.pool, 200, 17, 0, many), -EINVAL); /* more than either has */
    CHECK_EQ(ssm_free_many(f.pool, many, 9), 0);
    drop(f.pool, a);
    drop(f.pool, b);
    c = fixture_alloc(f.pool, ARENA);
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &a), -SSM_E_EXHAUSTED); /* both are full */
    drop(f.pool, c);
    CHECK_EQ(ssm_free_many(f.pool, small, 16), 0);
    fixture_check(f.pool);
    fixture_close(&f);
}

static void wait_for_a_small_one(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    uint64_t handle;
    board_set(f->board, 0, 1);
    CHECK_EQ(ssm_alloc(pool, 256, 20000 * (int64_t)MS, &handle), 0);
    drop(pool, handle);
}

/* A call that found both full is woken by either. */
static void test_who_waits_for_either_is_woken(void)
{
    for (int i = 0; i < 2; i++) {
        struct fixture f = open_growing(0, ARENA);
        struct ssm_event *event = &ssm_class_at(f.pool, 2)->several;
        uint64_t small[16], large;
        take_all_small(f.pool, small);
        large = fixture_alloc(f.pool, ARENA);
        pid_t child = child_start(wait_for_a_small_one, &f);
        AWAIT(board_get(f.board, 0) == 1 && ssm_load_acquire_u32(&ssm_class_at(f.pool, 0)->announced) & 1 &&
              ssm_load_acquire_u32(&event->word) & SSM_EVENT_WAITERS);
        ssm_nap_ns(5 * MS); /* it sleeps by now, most likely */
        const uint32_t seen = ssm_event_announce(event);
        drop(f.pool, i == 0 ? large : small[0]);
        CHECK(ssm_load_acquire_u32(&event->word) != seen);
        child_finish(child);
        if (i == 1)
            drop(f.pool, large);
        CHECK_EQ(ssm_free_many(f.pool, small + i, 16 - (uint32_t)i), 0);
        fixture_reap(f.pool);
        fixture_close(&f);
    }
}

/* ---- giving back ------------------------------------------------------------------------------------------------ */

/* As if there had been too much memory for so long. */
static void long_ago(struct ssm_pool *pool, uint64_t ms)
{
    ssm_store_relaxed_u64(&ssm_arena_of(pool)->excess_ns, ssm_clock_ns() - ms * MS);
}

/* 32 units, an eighth of which is never too much. It is given back a second after it was found to be too much, not before, the
 * last units first; what packets have, whole or in part, stays. */
static void test_it_is_given_back(void)
{
    struct fixture f = open_growing(0, KIB(64) * 32);
    uint64_t a = fixture_alloc(f.pool, KIB(70)), b = fixture_alloc(f.pool, KIB(64) * 29), c;
    CHECK_EQ(offset_of(f.pool, b), KIB(72));
    CHECK(is_backed(&f, KIB(64) * 31)); /* up to 1928 KiB */
    c = fixture_alloc(f.pool, KIB(10));
    memset(fixture_view(f.pool, a).data, 0x11, KIB(70));
    memset(fixture_view(f.pool, c).data, 0x33, KIB(10));
    drop(f.pool, b); /* more than an eighth was freed: it is looked at */
    CHECK(ssm_load_relaxed_u64(&ssm_arena_of(f.pool)->excess_ns) != 0 && is_backed(&f, KIB(64) * 31));
    long_ago(f.pool, 900);
    ssm_arena_trim(f.pool);
    CHECK(is_backed(&f, KIB(64) * 31));
    long_ago(f.pool, 1100);
    ssm_arena_trim(f.pool);
    CHECK(is_backed(&f, KIB(64) * 4)); /* 82 KiB, and the half of 256 more, in units */
    for (uint64_t i = 0; i < KIB(70); i++)
        CHECK(fixture_view(f.pool, a).data[i] == 0x11);
    for (uint64_t i = 0; i < KIB(10); i++)
        CHECK(fixture_view(f.pool, c).data[i] == 0x33);
    ssm_arena_trim(f.pool);
    CHECK(ssm_load_relaxed_u64(&ssm_arena_of(f.pool)->excess_ns) == 0); /* it is not too much any more */
    b = fixture_alloc(f.pool, KIB(64) * 20);                            /* and grows again */
    memset(fixture_view(f.pool, b).data, 0x22, KIB(64) * 20);
    drop(f.pool, a);
    drop(f.pool, b);
    drop(f.pool, c);
    fixture_close(&f);
}

/* What was reserved when the pool was made stays. */
static void test_what_is_never_given_back(void)
{
    struct fixture f = open_growing(KIB(64) * 10, KIB(64) * 32);
    drop(f.pool, fixture_alloc(f.pool, KIB(64) * 30));
    CHECK(is_backed(&f, KIB(64) * 30));
    long_ago(f.pool, 5000);
    ssm_arena_trim(f.pool);
    CHECK(is_backed(&f, KIB(64) * 10));
    fixture_close(&f);
}

/* A process died behind each of the steps; and what it says was scribbled, or is in use: then nothing is given back. */
static void test_given_back_by_the_dead(void)
{
    for (int step = 1; step <= 6; step++) {
        struct fixture f = open_growing(0, KIB(64) * 16);
        struct ssm_arena *arena = ssm_arena_of(f.pool);
        struct ssm_u64 *bits = (struct ssm_u64 *)(f.pool->base + f.pool->geometry.backed_start);
        uint64_t a = fixture_alloc(f.pool, KIB(64)), b = fixture_alloc(f.pool, KIB(64) * 11);
        drop(f.pool, b);
        const uint64_t before = ssm_segment_reserved_bytes(f.fd);
        struct ssm_pool *dead = fixture_attach(f.fd, 0);
        beside_arena += ssm_segment_reserved_bytes(f.fd) - before; /* its caches */
        const uint64_t start = step == 5 ? 0 : 4, count = step == 6 ? UINT64_MAX - 3 : 6;
        CHECK(is_backed(&f, KIB(64) * 12));
        ssm_store_relaxed_u64(&arena->punch_start, start);
        ssm_store_relaxed_u64(&arena->punch_units, count);
        if (step > 1 && step < 5)
            ssm_store_relaxed_u64(bits, ssm_load_relaxed_u64(bits) & ~(UINT64_C(0x3f) << 4));
        if (step > 2 && step < 5)
            CHECK_EQ(ssm_segment_punch(f.fd, f.pool->geometry.classes[2].payload_start + KIB(64) * 4, KIB(64) * 6), 0);
        if (step == 4)
            ssm_store_relaxed_u64(&arena->punch_units, 0);
        ssm_store_relaxed_u64(&arena->lock.word, dead->lock_word);
        struct ssm_pool ghost = kill_attachment(dead, f.fd);
        (void)ghost;
        fixture_reap(f.pool);
        CHECK(is_backed(&f, KIB(64) * (step < 5 ? 6 : 12)));
        CHECK_EQ(ssm_load_relaxed_u64(&arena->punch_units), 0);
        dead->self = SSM_NIL;
        ssm_pool_destroy(dead);
        drop(f.pool, a);
        fixture_close(&f);
    }
}

/* A reader compares the bits with what the file has, while others make it more and less: it is never told that it was cut. */
static void churn(void *context)
{
    struct fixture *f = context;
    struct ssm_pool *pool = fixture_join(f);
    while (board_get(f->board, 0) == 0) {
        drop(pool, fixture_alloc(pool, KIB(64) * 14));
        long_ago(pool, 5000);
        ssm_arena_trim(pool);
    }
    ssm_pool_destroy(pool);
}

static void test_attaching_meanwhile(void)
{
    struct fixture f = open_growing(0, KIB(64) * 16);
    pid_t child = child_start(churn, &f);
    for (int i = 0; i < 300; i++)
        ssm_pool_destroy(fixture_attach(f.fd, i % 2 ? SSM_READONLY : 0));
    board_set(f.board, 0, 1);
    child_finish(child);
    fixture_close(&f);
}

static void test_growing(void)
{
    test_it_is_given_back();
    test_what_is_never_given_back();
    test_given_back_by_the_dead();
    test_attaching_meanwhile();
    test_a_full_class_spills();
    test_who_waits_for_either_is_woken();
    test_it_grows_by_units();
    test_what_does_not_grow();
    test_reserved_again();
    test_no_memory();
    test_a_file_that_was_cut();
    test_peek_touches_nothing();
}

static void test_all(void)
{
    test_sizes();
    test_no_arena();
    test_edges_and_references();
    test_leftovers();
    test_sweep();
    test_packets_are_counted();
    test_quota();
    test_who_waits_is_woken();
    test_room_that_is_given_back_is_signalled();
    test_ring_and_death();
    test_scribbled_extent();
    test_findings();
    test_model();
}

int main(void)
{
    alarm(WATCHDOG_S);
    check_seed();
    test_all();
    growing = true;
    test_all();
    test_growing();
    return 0;
}
