/* SPDX-License-Identifier: Apache-2.0
 *
 * Packets: the window and its edges, references, pins, tags, stale and scribbled ones. */
#include "pool_fixture.h"

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    options.headroom = 40;
    options.tailroom = 20;
    return fixture_open(&options);
}

/* ---- the window --------------------------------------------------------------------------------------------- */

static void test_fresh(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100), tag;
    struct ssm_packet p = fixture_view(f.pool, handle);
    CHECK(p.length == 100 && p.headroom == 40 && p.tailroom == 116 && p.block_size == 256);
    CHECK_EQ((uintptr_t)(p.data - p.headroom) % 64, 0);
    CHECK_EQ(ssm_packet_set_tag(f.pool, handle, UINT64_MAX), 0);
    CHECK_EQ(ssm_packet_tag(f.pool, handle, &tag), 0);
    CHECK(tag == UINT64_MAX);
    CHECK_EQ(ssm_packet_trim_back(f.pool, handle, 50, NULL), 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    uint64_t again = fixture_alloc(f.pool, 100); /* the same block: nothing of its past */
    CHECK_EQ(block_of(again), block_of(handle));
    p = fixture_view(f.pool, again);
    CHECK(p.length == 100 && p.headroom == 40);
    CHECK_EQ(ssm_packet_tag(f.pool, again, &tag), 0);
    CHECK_EQ(tag, 0);
    CHECK_EQ(ssm_free(f.pool, again), 0);
    fixture_close(&f);
}

static void test_edges(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100);
    uint8_t *base = fixture_view(f.pool, handle).data - 40, *bytes;
    CHECK_EQ(ssm_packet_prepend(f.pool, handle, 10, &bytes), 0);
    CHECK(bytes == base + 30 && fixture_view(f.pool, handle).data == base + 30 &&
          fixture_view(f.pool, handle).length == 110);
    CHECK_EQ(ssm_packet_append(f.pool, handle, 5, &bytes), 0);
    CHECK(bytes == base + 140 && fixture_view(f.pool, handle).length == 115);
    CHECK_EQ(ssm_packet_trim_front(f.pool, handle, 15, &bytes), 0);
    CHECK(bytes == base + 30 && fixture_view(f.pool, handle).data == base + 45 &&
          fixture_view(f.pool, handle).length == 100);
    CHECK_EQ(ssm_packet_trim_back(f.pool, handle, 99, &bytes), 0);
    CHECK(bytes == base + 46 && fixture_view(f.pool, handle).length == 1 &&
          fixture_view(f.pool, handle).headroom == 45);
    CHECK_EQ(ssm_packet_append(f.pool, handle, 0, &bytes), 0);
    CHECK(bytes == base + 46);
    CHECK_EQ(ssm_packet_trim_back(f.pool, handle, 1, NULL), 0); /* empty is a length */
    CHECK_EQ(ssm_packet_prepend(f.pool, handle, 45, NULL), 0);
    CHECK_EQ(ssm_packet_append(f.pool, handle, 211, NULL), 0);
    CHECK(fixture_view(f.pool, handle).data == base && fixture_view(f.pool, handle).length == 256);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    fixture_close(&f);
}

static void test_no_room(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100);
    uint8_t *bytes = NULL;
    const uint64_t far[] = {0, UINT64_MAX - 200, UINT64_MAX};
    for (int i = 0; i < 3; i++) {
        CHECK_EQ(ssm_packet_prepend(f.pool, handle, i == 0 ? 41 : far[i], &bytes), -SSM_E_ROOM);
        CHECK_EQ(ssm_packet_append(f.pool, handle, i == 0 ? 117 : far[i], &bytes), -SSM_E_ROOM);
        CHECK_EQ(ssm_packet_trim_front(f.pool, handle, i == 0 ? 101 : far[i], &bytes), -SSM_E_ROOM);
        CHECK_EQ(ssm_packet_trim_back(f.pool, handle, i == 0 ? 101 : far[i], &bytes), -SSM_E_ROOM);
    }
    CHECK(bytes == NULL);
    CHECK(fixture_view(f.pool, handle).headroom == 40 && fixture_view(f.pool, handle).length == 100);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    fixture_close(&f);
}

/* Blocks do not overlap, and none reaches into another's memory. */
static void test_memory_is_ones_own(void)
{
    struct ssm_pool_options options = fixture_options();
    options.classes[0].block_size = 100; /* no multiple of a cache line */
    struct fixture f = fixture_open(&options);
    uint64_t handles[24];
    CHECK_EQ(ssm_alloc_many(f.pool, 100, 16, 0, handles), 0);
    CHECK_EQ(ssm_alloc_many(f.pool, 1024, 8, 0, handles + 16), 0);
    for (int i = 0; i < 24; i++)
        memset(fixture_view(f.pool, handles[i]).data, i + 1, fixture_view(f.pool, handles[i]).length);
    for (int i = 0; i < 24; i++)
        for (uint64_t k = 0; k < fixture_view(f.pool, handles[i]).length; k++)
            CHECK_EQ(fixture_view(f.pool, handles[i]).data[k], i + 1);
    fixture_check(f.pool); /* payload does not touch what stands in front of it */
    CHECK_EQ(ssm_free_many(f.pool, handles, 24), 0);
    fixture_close(&f);
}

static void test_scribbled(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100), tag;
    struct ssm_block *block = ssm_block_at(f.pool, block_of(handle));
    struct ssm_packet packet;
    const uint64_t windows[][2] = {{257, 0},        {0, 257},        {200, 57},
                                   {UINT64_MAX, 1}, {1, UINT64_MAX}, {UINT64_MAX, UINT64_MAX}};
    for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
        ssm_store_relaxed_u64(&block->start, windows[i][0]);
        ssm_store_relaxed_u64(&block->length, windows[i][1]);
        CHECK_EQ(ssm_packet_view(f.pool, handle, &packet), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_packet_append(f.pool, handle, 1, NULL), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_packet_trim_front(f.pool, handle, 1, NULL), -SSM_E_CORRUPT);
        CHECK_EQ(ssm_packet_tag(f.pool, handle, &tag), -SSM_E_CORRUPT);
    }
    CHECK_EQ(ssm_free(f.pool, handle), 0); /* can be given back all the same */
    handle = fixture_alloc(f.pool, 100);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    fixture_close(&f);
}

/* ---- references --------------------------------------------------------------------------------------------- */

static void test_hold(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    for (int i = 0; i < 3; i++) {
        (void)fixture_view(f.pool, handle);
        CHECK_EQ(free_blocks(f.pool, 0), 15);
        CHECK_EQ(ssm_free(f.pool, handle), 0);
    }
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), -SSM_E_STALE);
    CHECK_EQ(ssm_free(f.pool, handle), -SSM_E_STALE);
    fixture_close(&f);
}

static void test_stale(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100), tag;
    struct ssm_packet packet;
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    const uint64_t handles[] = {handle, 0, 24, UINT64_MAX};
    for (int i = 0; i < 4; i++) {
        CHECK_EQ(ssm_packet_view(f.pool, handles[i], &packet), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_prepend(f.pool, handles[i], 0, NULL), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_tag(f.pool, handles[i], &tag), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_set_tag(f.pool, handles[i], 1), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_hold(f.pool, handles[i]), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_pin(f.pool, handles[i]), -SSM_E_STALE);
        CHECK_EQ(ssm_packet_unpin(f.pool, handles[i], 1), -SSM_E_STALE);
    }
    fixture_close(&f);
}

static void test_pin(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100);
    CHECK_EQ(ssm_packet_unpin(f.pool, handle, 0), -SSM_E_STALE); /* not pinned */
    CHECK_EQ(ssm_packet_pin(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_unpin(f.pool, handle, 0), 0);
    (void)fixture_view(f.pool, handle); /* the mark went, the reference stayed */
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, handle), 0);
    CHECK_EQ(f.pool->pinned, 1); /* blocks, not pins */
    CHECK_EQ(ssm_packet_unpin(f.pool, handle, 1), 0);
    CHECK_EQ(f.pool->pinned, 1);
    (void)fixture_view(f.pool, handle);
    CHECK_EQ(ssm_packet_unpin(f.pool, handle, 1), 0);
    CHECK_EQ(f.pool->pinned, 0);
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    fixture_close(&f);
}

/* A pin is of a reference; with the references gone there is nothing that could be pinned. However the two are mixed,
 * close comes to an end once everything was given back. */
static void test_more_pins_than_references(void)
{
    struct fixture f = open_fixture();
    uint64_t handle = fixture_alloc(f.pool, 100);
    int pins = 0;
    while (pins < 2 && ssm_packet_pin(f.pool, handle) == 0)
        pins++;
    while (pins-- > 0)
        (void)ssm_packet_unpin(f.pool, handle, 1);
    (void)ssm_free(f.pool, handle);
    CHECK_EQ(f.pool->pinned, 0);
    CHECK_EQ(free_blocks(f.pool, 0), 16);
    fixture_close(&f);
}

/* ---- many, and alone ---------------------------------------------------------------------------------------- */

static void test_view_many(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[3], lengths[3], tags[3], none = UINT64_MAX;
    uint8_t *data[3];
    for (uint32_t i = 0; i < 3; i++) {
        handles[i] = fixture_alloc(f.pool, 100 + i);
        CHECK_EQ(ssm_packet_set_tag(f.pool, handles[i], none - i), 0);
    }
    CHECK_EQ(ssm_packet_trim_front(f.pool, handles[2], 7, NULL), 0);
    CHECK_EQ(ssm_packet_view_many(f.pool, handles, 3, data, lengths, tags), 0);
    for (uint32_t i = 0; i < 3; i++) {
        const struct ssm_packet p = fixture_view(f.pool, handles[i]);
        CHECK(data[i] == p.data && lengths[i] == p.length && tags[i] == none - i);
    }
    CHECK(lengths[0] == 100 && lengths[2] == 95);
    CHECK_EQ(ssm_packet_view_many(f.pool, handles, 3, NULL, NULL, NULL), 0);
    CHECK_EQ(ssm_packet_view_many(f.pool, NULL, 0, NULL, NULL, NULL), 0);
    CHECK_EQ(ssm_free(f.pool, handles[1]), 0);
    CHECK_EQ(ssm_packet_view_many(f.pool, handles, 3, data, lengths, tags), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_view_many(f.pool, handles, 1, data, NULL, NULL), 0);
    CHECK_EQ(ssm_free(f.pool, handles[0]), 0);
    CHECK_EQ(ssm_free(f.pool, handles[2]), 0);
    fixture_close(&f);
}

static void test_alone(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    struct ssm_ring *ring, *there;
    const struct ssm_ring_options options = {.capacity = 4};
    uint64_t handle = fixture_alloc(f.pool, 100), got;
    CHECK_EQ(ssm_ring_open(f.pool, "ring", &options, &ring), 0);
    CHECK_EQ(ssm_ring_open(other, "ring", &options, &there), 0);
    CHECK_EQ(ssm_packet_is_alone(f.pool, handle), 1);
    CHECK_EQ(ssm_packet_hold(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_is_alone(f.pool, handle), 0); /* two references of this process */
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_ring_put(ring, &handle, 1, SSM_KEEP, 0), 0);
    CHECK_EQ(ssm_packet_is_alone(f.pool, handle), 0); /* the ring */
    CHECK_EQ(ssm_ring_get(there, &got, 1, 0), 1);
    CHECK_EQ(ssm_packet_is_alone(f.pool, handle), 0); /* the other holder */
    CHECK_EQ(ssm_packet_is_alone(other, got), 0);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    CHECK_EQ(ssm_packet_is_alone(other, got), 1);
    CHECK_EQ(ssm_packet_is_alone(f.pool, handle), -SSM_E_STALE);
    ssm_ring_close(ring);
    ssm_ring_close(there);
    pool_end(other);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_fresh();
    test_view_many();
    test_alone();
    test_edges();
    test_no_room();
    test_memory_is_ones_own();
    test_scribbled();
    test_hold();
    test_stale();
    test_pin();
    test_more_pins_than_references();
    return 0;
}
