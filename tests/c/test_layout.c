/* SPDX-License-Identifier: Apache-2.0
 *
 * Where everything stands: random parameters, every limit, overflow, and superblocks that are none. */
#include "allocators.h"
#include "pool_fixture.h"

#include <stddef.h>
#include <stdlib.h>

struct region { uint64_t start, bytes, alignment; };

static int by_start(const void *one, const void *other)
{
    const struct region *a = one, *b = other;
    return a->start != b->start ? (a->start > b->start) - (a->start < b->start)
                                : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

/* Each region aligned, none overlaps another, all inside the segment. */
static void check_order(struct region *regions, uint32_t count, uint64_t size_bytes)
{
    uint64_t end = 0;
    qsort(regions, count, sizeof *regions, by_start);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(regions[i].start >= end);
        CHECK_EQ(regions[i].start % regions[i].alignment, 0);
        CHECK(regions[i].bytes <= size_bytes - regions[i].start);
        end = regions[i].start + regions[i].bytes;
    }
    CHECK(end <= size_bytes && size_bytes - end < 4096);
    CHECK_EQ(size_bytes % 4096, 0);
}

/* What is there from the beginning, and what gets its memory later. */
static void check_sparse(const struct ssm_geometry *g)
{
    const uint64_t later[] = {g->extents_start,
                              g->arena_tree_start,
                              g->backed_start,
                              g->carver_start,
                              g->caches_start,
                              g->metadata_start,
                              g->classes[g->fixed_count].lists_start,
                              g->classes[g->fixed_count].payload_start};
    const uint64_t at_once[] = {g->services_start,
                                g->rmids_start,
                                g->slots_start,
                                g->ring_ids_start,
                                g->arena_start,
                                g->blocks_start,
                                g->classes[g->fixed_count - 1].payload_start};
    CHECK_EQ(g->reserved_bytes % 4096, 0);
    if (g->arena_units == 0) {
        CHECK_EQ(g->reserved_bytes, g->size_bytes);
        return;
    }
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        CHECK(later[i] >= g->reserved_bytes && later[i] % 4096 == 0);
    for (size_t i = 0; i < sizeof at_once / sizeof *at_once; i++)
        CHECK(at_once[i] < g->reserved_bytes);
    CHECK(g->blocks_start + (uint64_t)(g->block_total - g->arena_packets) * g->block_bytes <= g->reserved_bytes);
}

static void check_geometry(const struct ssm_geometry *g)
{
    struct region regions[16 + 2 * (SSM_CLASS_MAX + 1)];
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
    if (g->arena_bytes > 0) {
        regions[n++] = (struct region){g->arena_start, sizeof(struct ssm_arena), 128};
        regions[n++] = (struct region){g->extents_start, g->arena_packets * sizeof(struct ssm_extent), 128};
        regions[n++] = (struct region){g->arena_tree_start, al_tree_size_bytes(2 * g->arena_packets + 1), 128};
        regions[n++] = (struct region){g->backed_start, (g->arena_units + 63) / 64 * 8, 128};
    }
    regions[n++] = (struct region){g->metadata_start, g->metadata_bytes, 4096};
    for (uint32_t i = 0; i < g->fixed_count; i++) {
        const struct ssm_class_geometry *c = &g->classes[i];
        CHECK(c->stride >= c->block_size && c->stride % 64 == 0 && c->stride - c->block_size < 64);
        CHECK_EQ(c->first_block, first);
        CHECK(c->cache_blocks <= g->cache && c->cache_blocks <= c->block_count / 8);
        first += c->block_count;
        regions[n++] = (struct region){c->payload_start, c->stride * c->block_count, 64};
    }
    if (g->arena_bytes > 0) {
        const struct ssm_class_geometry *c = &g->classes[g->fixed_count];
        CHECK(g->class_count == g->fixed_count + 1 && c->first_block == first && c->block_count == g->arena_packets);
        CHECK(c->block_size == g->arena_bytes && c->cache_blocks == 0);
        CHECK(g->arena_packets >= 1 && g->arena_packets <= SSM_ARENA_PACKETS_MAX);
        first += g->arena_packets;
        regions[n++] = (struct region){c->payload_start, g->arena_bytes, 4096};
    }
    check_order(regions, n, g->size_bytes);
    check_sparse(g);
    CHECK_EQ(g->block_total, first);
    CHECK(g->holders % 64 == 0 && g->holder_words * 64 == g->holders);
    CHECK(g->block_bytes >= sizeof(struct ssm_block) + g->holder_words * 8 && g->block_bytes % 64 == 0);
    CHECK(g->cache_bytes >= sizeof(struct ssm_cache) + (g->cache + SSM_PARK_SLOTS) * 8);
}

static struct ssm_pool_options random_options(void)
{
    struct ssm_pool_options o = {
        .class_count = 1 + (uint32_t)check_below(SSM_CLASS_MAX),
        .shards = 1 + (uint32_t)check_below(SSM_SHARD_MAX),
        .cache = (uint32_t)check_below(100),
        .holders = 1 + (uint32_t)check_below(SSM_HOLDER_MAX),
        .metadata_bytes = check_below(1 << 20),
    };
    uint64_t size = 64 + check_below(100);
    for (uint32_t i = 0; i < o.class_count; i++) {
        o.classes[i] = (struct ssm_class_spec){size, 1 + (uint32_t)check_below(1000)};
        size += 1 + check_below(size);
    }
    if (check_below(2) == 0) {
        o.arena_bytes = size + check_below(UINT64_C(1) << check_below(40));
        o.arena_packets = (uint32_t)check_below(2000); /* 0: the build's */
    }
    o.headroom = (uint32_t)check_below(32);
    o.tailroom = (uint32_t)check_below(32);
    return o;
}

/* The class of a size is found by the number of its bits: it is the one that a look at all of them finds. */
static void check_class_index(const struct ssm_geometry *g)
{
    static struct ssm_pool pool;
    const uint64_t overhead = (uint64_t)g->headroom + g->tailroom;
    static uint8_t nothing[1]; /* addresses are taken in it, none is looked at */
    pool.geometry = *g;
    pool.self = SSM_NIL;
    ssm_pool_set_base(&pool, nothing);
    for (uint32_t i = 0; i < 4 * g->class_count + 8; i++) {
        uint64_t size = i < 8 ? i : g->classes[i % g->class_count].block_size - overhead - 2 + i / g->class_count;
        uint32_t expected = 0;
        while (expected < g->class_count &&
               (g->classes[expected].block_size < overhead || size > g->classes[expected].block_size - overhead))
            expected++;
        CHECK_EQ(ssm_class_for(&pool, size)->class_idx, expected);
    }
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
        if (result == 0) {
            check_geometry(&g);
            check_class_index(&g);
            g.headroom = (uint32_t)check_below(1000); /* more than the smallest blocks have */
            check_class_index(&g);
        }
    }
}

/* Changes one parameter of a good set and says what comes of it. */
#define EXPECT(expected, change)                        \
    do {                                                \
        struct ssm_pool_options o = fixture_options();  \
        struct ssm_geometry g;                          \
        change;                                         \
        CHECK_EQ(ssm_layout_compute(&o, &g), expected); \
        if ((expected) == 0)                            \
            check_geometry(&g);                         \
    } while (0)

static void fill_classes(struct ssm_pool_options *options)
{
    for (uint32_t i = 0; i < options->class_count; i++)
        options->classes[i] = (struct ssm_class_spec){64 * (i + 1), 1};
}

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
    EXPECT(-EINVAL, o.arena_packets = 1);                                    /* of no arena */
    EXPECT(0, o.arena_bytes = 1);                                            /* it is a page */
    EXPECT(-EINVAL, (o.arena_bytes = 4096, o.classes[1].block_size = 4096)); /* no packet would take it */
    EXPECT(0, (o.arena_bytes = 4097, o.classes[1].block_size = 4096));
    EXPECT(0, (o.arena_bytes = 1 << 20, o.arena_packets = SSM_ARENA_PACKETS_MAX));
    EXPECT(-EINVAL, (o.arena_bytes = 1 << 20, o.arena_packets = SSM_ARENA_PACKETS_MAX + 1));
    EXPECT(-EINVAL,
           (o.arena_bytes = 1 << 20, o.classes[0].block_count = (UINT32_C(1) << 31) - 8)); /* its blocks count */
    EXPECT(0, (o.arena_bytes = 1 << 20, o.class_count = SSM_CLASS_MAX, fill_classes(&o)));
}

/* As many as can be there of packets that no block has room for, within bounds. */
static void test_arena_packets(void)
{
    const struct {
        uint64_t arena_bytes;
        uint32_t packets;
    } table[] = {
        {1, 16}, {16 * 1024, 16}, {20 * 1024, 20}, {4096 * 1024, 4096}, {UINT64_C(1) << 40, 4096},
    };
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        struct ssm_pool_options o = fixture_options(); /* its largest blocks have 1024 bytes */
        struct ssm_geometry g;
        o.arena_bytes = table[i].arena_bytes;
        CHECK_EQ(ssm_layout_compute(&o, &g), 0);
        CHECK_EQ(g.arena_packets, table[i].packets);
        check_geometry(&g);
    }
}

static void test_overflow(void)
{
    EXPECT(-EINVAL, o.metadata_bytes = UINT64_MAX);
    EXPECT(-EINVAL, o.arena_bytes = UINT64_MAX);
    EXPECT(-EOVERFLOW, o.arena_bytes = UINT64_C(1) << 62);
    EXPECT(-EOVERFLOW, o.metadata_bytes = UINT64_C(1) << 62);
    EXPECT(-EINVAL, o.classes[1].block_size = UINT64_MAX);
    EXPECT(-EOVERFLOW, o.classes[1].block_size = UINT64_C(1) << 62);
    EXPECT(-EOVERFLOW, o.classes[1].block_size = UINT64_C(1) << 59);                                 /* 8 of them */
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
    CHECK_EQ(ssm_superblock_read(&s, geometry_out->size_bytes, geometry_out), -SSM_E_LAYOUT); /* not yet */
    ssm_superblock_publish(&s);
    return s;
}

static void test_superblock(void)
{
    struct ssm_pool_options o = fixture_options();
    struct ssm_geometry g, read;
    memset(&read, 0, sizeof read);
    o.arena_bytes = 5000;
    o.arena_packets = 3;
    struct ssm_superblock s = superblock_of(&o, &g);
    CHECK_EQ(ssm_superblock_read(&s, g.size_bytes, &read), 0);
    CHECK(read.arena_bytes == 8192 && read.arena_packets == 3 &&
          read.classes[2].payload_start == g.classes[2].payload_start);
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
    test_arena_packets();
    test_overflow();
    test_superblock();
    test_every_bit();
    test_garbage();
    return 0;
}
