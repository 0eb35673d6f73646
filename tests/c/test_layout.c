/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything stands: random parameters, every limit, overflow, and superblocks that are none. */
#include "allocators.h"
#include "pool_fixture.h"

#include <stddef.h>

struct region { uint64_t start, bytes, alignment; };

/* Each region aligned, behind the one before, inside the segment. */
static void check_order(const struct region *regions, uint32_t count, uint64_t size_bytes)
{
    uint64_t end = 0;
    for (uint32_t i = 0; i < count; i++) {
        CHECK(regions[i].start >= end);
        CHECK_EQ(regions[i].start % regions[i].alignment, 0);
        CHECK(regions[i].bytes <= size_bytes - regions[i].start);
        end = regions[i].start + regions[i].bytes;
    }
    CHECK(end <= size_bytes && size_bytes - end < 4096);
    CHECK_EQ(size_bytes % 4096, 0);
}

static void check_geometry(const struct ssm_geometry *g)
{
    struct region regions[12 + 2 * SSM_CLASS_MAX];
    uint32_t n = 0, first = 0;
    regions[n++] = (struct region){0, sizeof(struct ssm_superblock), 1};
    regions[n++] = (struct region){g->holders_start, (uint64_t)g->holders * sizeof(struct ssm_holder), 128};
    regions[n++] = (struct region){g->classes_start, g->class_count * sizeof(struct ssm_class), 128};
    regions[n++] = (struct region){g->shards_start, g->class_count * g->shards * sizeof(struct ssm_shard), 128};
    for (uint32_t i = 0; i < g->class_count; i++) {
        const struct ssm_class_geometry *c = &g->classes[i];
        regions[n++] = (struct region){c->lists_start, UINT64_C(4) * c->block_count * g->shards, 128};
    }
    regions[n++] = (struct region){g->blocks_start, (uint64_t)g->block_total * g->block_bytes, 64};
    regions[n++] = (struct region){g->caches_start, (uint64_t)g->holders * g->class_count * g->cache_bytes, 128};
    regions[n++] = (struct region){g->services_start, SSM_SERVICE_MAX * sizeof(struct ssm_service_shared), 128};
    regions[n++] = (struct region){g->carver_start, g->carver_bytes, 128};
    regions[n++] = (struct region){g->rmids_start, sizeof(struct al_rmid), 128};
    regions[n++] = (struct region){g->slots_start, al_pid_size_bytes(g->holder_words), 128};
    regions[n++] = (struct region){g->ring_ids_start, al_id_size_bytes(g->holders), 128};
    regions[n++] = (struct region){g->metadata_start, g->metadata_bytes, 4096};
    for (uint32_t i = 0; i < g->class_count; i++) {
        const struct ssm_class_geometry *c = &g->classes[i];
        CHECK(c->stride >= c->block_size && c->stride % 64 == 0 && c->stride - c->block_size < 64);
        CHECK_EQ(c->first_block, first);
        CHECK(c->cache_blocks <= g->cache && c->cache_blocks <= c->block_count / 8);
        first += c->block_count;
        regions[n++] = (struct region){c->payload_start, c->stride * c->block_count, 64};
    }
    check_order(regions, n, g->size_bytes);
    CHECK_EQ(g->block_total, first);
    CHECK(g->holders % 64 == 0 && g->holder_words * 64 == g->holders);
    CHECK(g->block_bytes >= sizeof(struct ssm_block) + g->holder_words * 8 && g->block_bytes % 64 == 0);
    CHECK(g->cache_bytes >= sizeof(struct ssm_cache) + (g->cache + SSM_PARK_SLOTS) * 8);
}

static struct ssm_pool_options random_options(void)
{
    struct ssm_pool_options o = {
        .class_count = 1 + (uint32_t)check_below(SSM_CLASS_MAX), .shards = 1 + (uint32_t)check_below(SSM_SHARD_MAX),
        .cache = (uint32_t)check_below(100), .holders = 1 + (uint32_t)check_below(SSM_HOLDER_MAX),
        .metadata_bytes = check_below(1 << 20),
    };
    uint64_t size = 64 + check_below(100);
    for (uint32_t i = 0; i < o.class_count; i++) {
        o.classes[i] = (struct ssm_class_spec){size, 1 + (uint32_t)check_below(1000)};
        size += 1 + check_below(size);
    }
    o.headroom = (uint32_t)check_below(32);
    o.tailroom = (uint32_t)check_below(32);
    return o;
}

static void test_random_options(void)
{
    struct ssm_geometry g;
    struct ssm_pool_options o;
    ssm_pool_options_default(&o);
    CHECK_EQ(ssm_layout_compute(&o, &g), 0);
    check_geometry(&g);
    for (int i = 0; i < 2000; i++) {
        o = random_options();
        int result = ssm_layout_compute(&o, &g);
        CHECK(result == 0 || result == -EOVERFLOW);
        if (result == 0)
            check_geometry(&g);
    }
}

/* Changes one parameter of a good set and says what comes of it. */
#define EXPECT(expected, change)                                                                                       \
    do {                                                                                                               \
        struct ssm_pool_options o = fixture_options();                                                                 \
        struct ssm_geometry g;                                                                                         \
        change;                                                                                                        \
        CHECK_EQ(ssm_layout_compute(&o, &g), expected);                                                                \
        if ((expected) == 0)                                                                                           \
            check_geometry(&g);                                                                                        \
    } while (0)

static void test_limits(void)
{
    EXPECT(0, (void)o);
    EXPECT(-EINVAL, o.class_count = 0);
    EXPECT(-EINVAL, o.class_count = SSM_CLASS_MAX + 1);
    EXPECT(-EINVAL, o.class_count = 3); /* the third is empty */
    EXPECT(-EINVAL, o.shards = 0);
    EXPECT(-EINVAL, o.shards = SSM_SHARD_MAX + 1);
    EXPECT(0, o.shards = SSM_SHARD_MAX);
    EXPECT(-EINVAL, o.holders = 0);
    EXPECT(-EINVAL, o.holders = SSM_HOLDER_MAX + 1);
    EXPECT(0, o.holders = SSM_HOLDER_MAX);
    EXPECT(-EINVAL, o.cache = SSM_CACHE_MAX + 1);
    EXPECT(0, o.cache = SSM_CACHE_MAX);
    EXPECT(-EINVAL, o.flags = SSM_READONLY);
    EXPECT(0, o.flags = SSM_EPHEMERAL);
    EXPECT(-EINVAL, o.classes[0].block_size = 63);
    EXPECT(0, o.classes[0].block_size = 64);
    EXPECT(-EINVAL, o.classes[0].block_size = 1024); /* no size twice */
    EXPECT(-EINVAL, o.classes[0].block_size = 2048); /* ascending */
    EXPECT(-EINVAL, o.classes[1].block_count = 0);
    EXPECT(0, (o.headroom = UINT32_MAX, o.tailroom = UINT32_MAX)); /* nothing fits, and allocating says so */
    EXPECT(0, o.metadata_bytes = 0);
    EXPECT(0, o.metadata_bytes = 1);
}

static void test_overflow(void)
{
    EXPECT(-EINVAL, o.metadata_bytes = UINT64_MAX);
    EXPECT(-EOVERFLOW, o.metadata_bytes = UINT64_C(1) << 62);
    EXPECT(-EINVAL, o.classes[1].block_size = UINT64_MAX);
    EXPECT(-EOVERFLOW, o.classes[1].block_size = UINT64_C(1) << 62);
    EXPECT(-EOVERFLOW, o.classes[1].block_size = UINT64_C(1) << 59); /* 8 of them */
    EXPECT(-EOVERFLOW, (o.classes[1].block_size = UINT64_C(1) << 61, o.classes[1].block_count = 8)); /* 2^64 */
    EXPECT(-EOVERFLOW, (o.classes[0] = (struct ssm_class_spec){UINT64_C(1) << 60, 2},
                        o.classes[1] = (struct ssm_class_spec){UINT64_C(1) << 61, 1})); /* each fits, not both */
    EXPECT(0, o.classes[1].block_size = UINT64_C(1) << 58);
    EXPECT(-EINVAL, (o.classes[0].block_count = UINT32_MAX, o.classes[1].block_count = UINT32_MAX));
    EXPECT(-EINVAL, o.classes[0].block_count = UINT32_C(1) << 31); /* and 8 more */
}

/* ---- superblocks -------------------------------------------------------------------------------------------- */

static struct ssm_superblock superblock_of(const struct ssm_pool_options *options, struct ssm_geometry *geometry_out)
{
    struct ssm_superblock s;
    CHECK_EQ(ssm_layout_compute(options, geometry_out), 0);
    ssm_superblock_write(&s, geometry_out);
    return s;
}

static void test_superblock(void)
{
    struct ssm_pool_options o = fixture_options();
    struct ssm_geometry g, read;
    memset(&read, 0, sizeof read);
    struct ssm_superblock s = superblock_of(&o, &g);
    CHECK_EQ(ssm_superblock_read(&s, g.size_bytes, &read), 0);
    CHECK_EQ(read.size_bytes, g.size_bytes);
    CHECK_EQ(read.classes[1].payload_start, g.classes[1].payload_start);
    CHECK_EQ(ssm_superblock_read(&s, g.size_bytes + 1, &read), -SSM_E_CORRUPT);
    CHECK_EQ(ssm_superblock_read(&s, g.size_bytes - 1, &read), -SSM_E_CORRUPT); /* truncated */
    CHECK(superblock_of(&o, &g).generation != s.generation);
}

static void test_every_bit(void)
{
    struct ssm_pool_options o = fixture_options();
    struct ssm_geometry g, read;
    struct ssm_superblock s = superblock_of(&o, &g);
    uint8_t *bytes = (uint8_t *)&s;
    for (size_t i = 0; i < offsetof(struct ssm_superblock, state) * 8; i++) {
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
        int result = ssm_superblock_read(&s, g.size_bytes, &read);
        CHECK_EQ(result, i < 128 ? -SSM_E_LAYOUT : -SSM_E_CORRUPT); /* magic and layout hash come first */
        bytes[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    CHECK_EQ(ssm_superblock_read(&s, g.size_bytes, &read), 0);
}

static uint64_t fnv1a(const uint8_t *bytes, size_t count)
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Garbage whose hash is right: taken for what it says or refused, never more than is there. */
static void test_garbage(void)
{
    struct ssm_pool_options o = fixture_options();
    struct ssm_geometry g, read;
    const struct ssm_superblock good = superblock_of(&o, &g);
    const size_t from = offsetof(struct ssm_superblock, size_bytes), to = offsetof(struct ssm_superblock, state);
    int accepted = 0;
    for (int i = 0; i < 20000; i++) {
        struct ssm_superblock s = good;
        for (uint64_t n = check_below(4); n > 0; n--)
            ((uint8_t *)&s)[from + check_below(to - from)] = (uint8_t)check_random();
        s.params_hash = fnv1a((const uint8_t *)&s + from, to - from);
        if (ssm_superblock_read(&s, g.size_bytes, &read) != 0)
            continue;
        accepted++;
        CHECK(read.size_bytes <= g.size_bytes);
        check_geometry(&read);
    }
    CHECK(accepted > 0); /* the hash here is the one there */
}

int main(void)
{
    alarm(WATCHDOG_S);
    check_seed();
    test_random_options();
    test_limits();
    test_overflow();
    test_superblock();
    test_every_bit();
    test_garbage();
    return 0;
}
