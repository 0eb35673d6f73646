/* SPDX-License-Identifier: Apache-2.0
 *
 * Looking at packets that others have: what is told is what is there, nothing is taken, a packet that is gone says so. */
#include "pool_fixture.h"

static struct fixture open_fixture(void)
{
    struct ssm_pool_options options = fixture_options();
    return fixture_open(&options);
}

static uint64_t packet_of(struct ssm_pool *pool, uint8_t byte, uint64_t length)
{
    uint64_t handle;
    struct ssm_packet packet;
    CHECK_EQ(ssm_alloc(pool, length, 0, &handle), 0);
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    memset(packet.data, byte, length);
    return handle;
}

static void test_arguments(void)
{
    struct fixture f = open_fixture();
    uint64_t handles[4];
    struct ssm_peek peek;
    CHECK_EQ(ssm_ring_peek(f.pool, f.pool->geometry.holders, handles, 4), -EINVAL);
    CHECK_EQ(ssm_ring_peek(f.pool, f.pool->self, handles, 4), -ENOENT);
    CHECK_EQ(ssm_packet_peek(f.pool, UINT32_MAX, NULL, 0, &peek), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_holders(f.pool, UINT32_MAX, NULL, 0), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_list(f.pool, NULL, 0), 0);
    fixture_close(&f);
}

static void test_queued_packets(void)
{
    struct fixture f = open_fixture();
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    struct ssm_ring *ring = ring_open(f.pool, "r", 4, 0);
    uint32_t id = ring_id(f.pool, "r"), holders[2];
    uint64_t handles[4], seen[4], got;
    uint8_t bytes[8] = {0};
    struct ssm_peek peek;
    for (int i = 0; i < 4; i++)
        handles[i] = packet_of(f.pool, (uint8_t)('a' + i), 5);
    CHECK_EQ(ssm_packet_set_tag(f.pool, handles[1], 77), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 3, 0, 0), 0);
    CHECK_EQ(ssm_ring_peek(reader, id, seen, 4), 3);
    CHECK(memcmp(seen, handles, 3 * sizeof *seen) == 0);
    CHECK_EQ(ssm_ring_peek(reader, id, seen, 2), 2);
    CHECK_EQ(ssm_packet_peek(reader, handles[1], bytes, 3, &peek), 0);
    CHECK(peek.length == 5 && peek.tag == 77 && memcmp(bytes, "bbb", 4) == 0); /* three, not more */
    CHECK_EQ(ssm_packet_holders(reader, handles[1], holders, 2), 1);
    CHECK_EQ(holders[0], id);
    CHECK_EQ(ssm_packet_list(reader, seen, 1), 4); /* with the one that was not put */
    CHECK_EQ(ssm_ring_get(ring, &got, 1, 0), 1);
    CHECK_EQ(ssm_ring_peek(reader, id, seen, 4), 2);
    CHECK_EQ(seen[0], handles[1]);
    CHECK_EQ(ssm_packet_holders(reader, got, holders, 2), 1);
    CHECK_EQ(holders[0], f.pool->self);
    CHECK_EQ(ssm_free(f.pool, got), 0);
    CHECK_EQ(ssm_packet_list(reader, seen, 4), 3); /* what lies in a cache is free */
    CHECK_EQ(ssm_free(f.pool, handles[3]), 0);
    CHECK_EQ(ssm_ring_shutdown(ring, 1), 0);
    ssm_ring_close(ring);
    pool_end(reader);
    fixture_close(&f);
}

/* A block with a new packet in it is not the old one's; an edge outside the block is not followed. */
static void test_what_is_gone(void)
{
    struct fixture f = open_fixture();
    struct ssm_peek peek;
    uint8_t bytes[256];
    uint32_t holders[2];
    uint64_t first = packet_of(f.pool, 1, 5);
    CHECK_EQ(ssm_free(f.pool, first), 0);
    uint64_t second = packet_of(f.pool, 2, 5);
    CHECK_EQ((uint32_t)first, (uint32_t)second);
    CHECK_EQ(ssm_packet_peek(f.pool, first, bytes, sizeof bytes, &peek), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_holders(f.pool, first, holders, 2), -SSM_E_STALE);
    struct ssm_block *block = ssm_block_at(f.pool, (uint32_t)second);
    uint64_t start = ssm_load_relaxed_u64(&block->start);
    ssm_store_relaxed_u64(&block->start, UINT64_MAX - 2);
    CHECK_EQ(ssm_packet_peek(f.pool, second, bytes, sizeof bytes, &peek), -SSM_E_CORRUPT);
    ssm_store_relaxed_u64(&block->start, start);
    CHECK_EQ(ssm_free(f.pool, second), 0);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_arguments();
    test_queued_packets();
    test_what_is_gone();
    return 0;
}
