/* SPDX-License-Identifier: Apache-2.0
 *
 * The layout of the segment; see layout.h. */
#include "layout.h"

#include "hosted.h"
#include "segment.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define SIZE_LIMIT         (UINT64_C(1) << 62)
#define PAGE               UINT64_C(4096)
#define HUGE_PAGE          (UINT64_C(2) << 20)
#define ARENA_PACKETS_LOW  16u /* if the options do not say how many */
#define ARENA_PACKETS_HIGH 4096u

/* From the build: cmake/knobs.cmake. */
static const struct ssm_class_spec default_classes[] = {
    {256, SSM_POOL_256_BLOCKS},   {512, SSM_POOL_512_BLOCKS},     {1024, SSM_POOL_1K_BLOCKS},
    {2048, SSM_POOL_2K_BLOCKS},   {4096, SSM_POOL_4K_BLOCKS},     {16384, SSM_POOL_16K_BLOCKS},
    {65536, SSM_POOL_64K_BLOCKS}, {262144, SSM_POOL_256K_BLOCKS}, {1048576, SSM_POOL_1M_BLOCKS},
};

/* For rings and services: 4 MiB, and room for some rings of the default size. */
#define DEFAULT_METADATA (UINT64_C(4) << 20)
#define DEFAULT_RINGS    16u
#define RING_BYTES       ((uint64_t)SSM_RBUFF_SIZE * 2 * sizeof(uint64_t)) /* rounded up to a power of two */

static struct ssm_pool_options defaults(size_t size)
{
    struct ssm_pool_options options = {
        .size = size,
        .shards = SSM_POOL_SHARDS,
        .headroom = SSM_PK_BUFF_HEADSPACE,
        .tailroom = SSM_PK_BUFF_TAILSPACE,
        .cache = 32,
        .holders = SSM_POOL_HOLDERS,
        .metadata_bytes = DEFAULT_RINGS * RING_BYTES > DEFAULT_METADATA ? DEFAULT_RINGS * RING_BYTES : DEFAULT_METADATA,
    };
    for (uint32_t i = 0; i < sizeof default_classes / sizeof *default_classes; i++)
        if (default_classes[i].block_count > 0)
            options.classes[options.class_count++] = default_classes[i];
    return options;
}

void ssm_pool_options_init(struct ssm_pool_options *options, size_t size)
{
    const struct ssm_pool_options all = defaults(size);
    memset(options, 0, size);
    memcpy(options, &all, size < sizeof all ? size : sizeof all);
}

static uint64_t round_up(uint64_t value, uint64_t to)
{
    return (value + to - 1) / to * to;
}

static bool arena_grows(const struct ssm_pool_options *options)
{
    return options->grow_bytes > round_up(options->arena_bytes, SSM_GROW_UNIT);
}

/* The most that the arena can have: whole units where it grows, or else whole pages. */
static uint64_t arena_bytes_of(const struct ssm_pool_options *options)
{
    const uint64_t most = options->grow_bytes > options->arena_bytes ? options->grow_bytes : options->arena_bytes;
    return round_up(most, arena_grows(options) ? SSM_GROW_UNIT : PAGE);
}

/* An arena is of use only if it is larger than the blocks of the largest class. */
static int check_arena(const struct ssm_pool_options *options)
{
    if (options->arena_bytes == 0 && options->grow_bytes == 0)
        return options->arena_packets == 0 ? 0 : -EINVAL;
    return options->arena_bytes > SIZE_LIMIT || options->grow_bytes > SIZE_LIMIT ||
                   options->arena_packets > SSM_ARENA_PACKETS_MAX ||
                   arena_bytes_of(options) <= options->classes[options->class_count - 1].block_size
             ? -EINVAL
             : 0;
}

static int check_options(const struct ssm_pool_options *options)
{
    uint64_t total = 0;
    if (options->class_count == 0 || options->class_count > SSM_CLASS_MAX || options->shards == 0 ||
        options->shards > SSM_SHARD_MAX || options->holders == 0 || options->holders > SSM_HOLDER_MAX ||
        options->cache > SSM_CACHE_MAX || options->metadata_bytes > SIZE_LIMIT ||
        options->flags & ~(uint32_t)(SSM_EPHEMERAL | SSM_LOCKS_APART))
        return -EINVAL;
    for (uint32_t i = 0; i < options->class_count; i++) {
        const struct ssm_class_spec *spec = &options->classes[i];
        if (spec->block_size < SSM_CACHELINE || spec->block_size > SIZE_LIMIT || spec->block_count == 0 ||
            (i > 0 && spec->block_size <= options->classes[i - 1].block_size))
            return -EINVAL;
        total += spec->block_count;
    }
    total += options->arena_bytes != 0 || options->grow_bytes != 0 ? SSM_ARENA_PACKETS_MAX : 0;
    return total > SSM_BLOCK_MAX ? -EINVAL : check_arena(options);
}

/* Appends `count` pieces of `bytes` to the layout. False if that exceeds the limit. */
static bool take(uint64_t *end, uint64_t count, uint64_t bytes, uint64_t alignment, uint64_t *start_out)
{
    uint64_t size;
    *start_out = round_up(*end, alignment);
    if (__builtin_mul_overflow(count, bytes, &size) || __builtin_add_overflow(*start_out, size, end))
        return false;
    return *end <= SIZE_LIMIT;
}

static void lay_out_classes(const struct ssm_pool_options *options, struct ssm_geometry *g)
{
    for (uint32_t i = 0; i < g->fixed_count; i++) {
        struct ssm_class_geometry *c = &g->classes[i];
        c->block_size = options->classes[i].block_size;
        c->block_count = options->classes[i].block_count;
        c->stride = round_up(c->block_size, SSM_CACHELINE);
        c->first_block = g->block_total;
        c->cache_blocks = g->cache < c->block_count / 8 ? g->cache : c->block_count / 8;
        if (c->block_size >= SSM_CACHED_BYTES)
            c->cache_blocks = 0;
        g->block_total += c->block_count;
    }
}

/* As many packets as the arena has room for, since each is larger than the largest block. At least a few; and not too
 * many to scan, unless descriptors are made as they are needed. */
static uint32_t default_arena_packets(const struct ssm_geometry *g)
{
    const uint32_t high = g->arena_units > 0 ? SSM_ARENA_PACKETS_MAX : ARENA_PACKETS_HIGH;
    uint64_t packets = g->arena_bytes / g->classes[g->fixed_count - 1].block_size;
    return packets < ARENA_PACKETS_LOW ? ARENA_PACKETS_LOW : packets > high ? high : (uint32_t)packets;
}

static void lay_out_arena(const struct ssm_pool_options *options, struct ssm_geometry *g)
{
    g->arena_bytes = arena_bytes_of(options);
    if (g->arena_bytes == 0)
        return;
    g->arena_units = arena_grows(options) ? g->arena_bytes / SSM_GROW_UNIT : 0;
    g->arena_reserved = g->arena_units == 0 ? g->arena_bytes : round_up(options->arena_bytes, SSM_GROW_UNIT);
    g->arena_packets = options->arena_packets != 0 ? options->arena_packets : default_arena_packets(g);
    g->arena_nodes = 2 * g->arena_packets + 1;
    g->arena_tree_bytes = al_tree_size_bytes(g->arena_nodes);
    g->classes[g->class_count++] = (struct ssm_class_geometry){
        .block_size = g->arena_bytes,
        .block_count = g->arena_packets,
        .first_block = g->block_total,
    };
    g->block_total += g->arena_packets;
}

struct ssm_service_options ssm_layout_registry_ids(const struct ssm_geometry *g, enum ssm_registry_ids which)
{
    if (which == SSM_REGISTRY_IDS_SLOTS)
        return (struct ssm_service_options){.kind = SSM_SERVICE_PIDS, .first = g->holder_words};
    if (which == SSM_REGISTRY_IDS_RINGS)
        return (struct ssm_service_options){.kind = SSM_SERVICE_IDS, .last = g->holders - 1};
    /* Not all RMIDs, since a reaper looks at each. Twice as many as processes, since some of them rest. */
    const uint32_t rmids = 2 * g->holders < AL_RMID_MAX ? 2 * g->holders : AL_RMID_MAX;
    return (struct ssm_service_options){.kind = SSM_SERVICE_RMIDS, .first = rmids, .last = SSM_RMID_REST_NS};
}

static uint64_t numbers_bytes(const struct ssm_geometry *g, enum ssm_registry_ids which)
{
    const struct ssm_service_options options = ssm_layout_registry_ids(g, which);
    return ssm_hosted_bare_bytes(&options);
}

static bool take_lists(struct ssm_geometry *g, uint32_t class_idx, uint64_t alignment, uint64_t *end)
{
    struct ssm_class_geometry *c = &g->classes[class_idx];
    return take(end, (uint64_t)c->block_count * g->shards, sizeof(uint32_t), alignment, &c->lists_start);
}

/* The parts that exist from the beginning. Descriptors come last; those of the arena come after all others. */
static bool lay_out_fixed(struct ssm_geometry *g, uint64_t *end)
{
    const uint32_t fixed_blocks = g->block_total - g->arena_packets;
    bool fits = take(end, g->holders, sizeof(struct ssm_holder), PAGE, &g->holders_start) &&
                take(end, (uint64_t)g->holders * g->holder_words, sizeof(struct ssm_u64), SSM_NO_SHARING,
                     &g->opened_start) &&
                take(end, g->class_count, sizeof(struct ssm_class), SSM_NO_SHARING, &g->classes_start) &&
                take(end, (uint64_t)g->class_count * g->shards, sizeof(struct ssm_shard), SSM_NO_SHARING,
                     &g->shards_start);
    for (uint32_t i = 0; fits && i < g->fixed_count; i++)
        fits = take_lists(g, i, SSM_NO_SHARING, end);
    fits = fits && take(end, SSM_SERVICE_MAX, sizeof(struct ssm_service_shared), SSM_NO_SHARING, &g->services_start) &&
           take(end, 1, numbers_bytes(g, SSM_REGISTRY_IDS_RMIDS), SSM_NO_SHARING, &g->rmids_start) &&
           take(end, 1, numbers_bytes(g, SSM_REGISTRY_IDS_SLOTS), SSM_NO_SHARING, &g->slots_start) &&
           take(end, 1, numbers_bytes(g, SSM_REGISTRY_IDS_RINGS), SSM_NO_SHARING, &g->ring_ids_start) &&
           take(end, g->arena_bytes > 0, sizeof(struct ssm_arena), SSM_NO_SHARING, &g->arena_start);
    for (uint32_t i = 0; fits && i < g->fixed_count; i++) {
        uint64_t alignment = i == 0 || g->classes[i].stride >= HUGE_PAGE ? PAGE : SSM_CACHELINE;
        fits = take(end, g->classes[i].block_count, g->classes[i].stride, alignment, &g->classes[i].payload_start);
    }
    fits = fits && take(end, fixed_blocks, g->block_bytes, SSM_NO_SHARING, &g->blocks_start);
    g->reserved_bytes = round_up(*end, PAGE);
    return fits && take(end, g->arena_packets, g->block_bytes, 1, &(uint64_t){0});
}

/* The parts that are sparse if the arena grows. Each part that grows by itself begins on a page of its own. */
static bool lay_out_sparse(struct ssm_geometry *g, uint64_t *end)
{
    return (g->arena_bytes == 0 || take_lists(g, g->fixed_count, PAGE, end)) &&
           take(end, g->arena_packets, sizeof(struct ssm_extent), PAGE, &g->extents_start) &&
           take(end, 1, g->arena_tree_bytes, PAGE, &g->arena_tree_start) &&
           take(end, (g->arena_units + 63) / 64, sizeof(struct ssm_u64), PAGE, &g->backed_start) &&
           take(end, 1, g->carver_bytes, PAGE, &g->carver_start) &&
           take(end, (uint64_t)g->holders * g->class_count, g->cache_bytes, PAGE, &g->caches_start) &&
           take(end, 1, g->metadata_bytes, PAGE, &g->metadata_start) &&
           take(end, 1, g->arena_bytes, PAGE, &g->classes[g->fixed_count].payload_start);
}

int ssm_layout_compute(const struct ssm_pool_options *options, struct ssm_geometry *g)
{
    int result = check_options(options);
    if (result != 0)
        return result;
    *g = (struct ssm_geometry){
        .fixed_count = options->class_count,
        .class_count = options->class_count,
        .shards = options->shards,
        .headroom = options->headroom,
        .tailroom = options->tailroom,
        .cache = options->cache,
        .holders = (uint32_t)round_up(options->holders, 64),
        .flags = options->flags,
        .metadata_bytes = round_up(options->metadata_bytes, PAGE),
    };
    g->holder_words = g->holders / 64;
    g->block_bytes = (uint32_t)round_up(sizeof(struct ssm_block) + g->holder_words * sizeof(uint64_t), SSM_CACHELINE);
    g->cache_slots = g->cache + SSM_PARK_SLOTS;
    g->cache_bytes = (uint32_t)round_up(sizeof(struct ssm_cache) + g->cache_slots * sizeof(uint64_t), SSM_NO_SHARING);
    g->carver_nodes = 2 * (g->holders + SSM_SERVICE_MAX) + 1;
    g->carver_bytes = al_tree_size_bytes(g->carver_nodes);
    lay_out_classes(options, g);
    lay_out_arena(options, g);

    uint64_t end = sizeof(struct ssm_superblock);
    const bool fits = lay_out_fixed(g, &end) && lay_out_sparse(g, &end);
    g->size_bytes = round_up(end, PAGE);
    if (g->arena_units == 0)
        g->reserved_bytes = g->size_bytes;
    return fits ? 0 : -EOVERFLOW;
}

static uint64_t fnv1a(uint64_t hash, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++)
        hash = (hash ^ ((const uint8_t *)bytes)[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* The layout folded into one word. A build with other structs gets another word. */
static uint64_t layout_hash(void)
{
    const uint64_t facts[] = {
        SSM_LAYOUT_VERSION,
        sizeof(struct ssm_superblock),
        sizeof(struct ssm_holder),
        sizeof(struct ssm_class),
        sizeof(struct ssm_shard),
        sizeof(struct ssm_block),
        sizeof(struct ssm_cache),
        sizeof(struct ssm_ring_shared),
        sizeof(struct ssm_arena),
        sizeof(struct ssm_extent),
        sizeof(struct al_tree_node),
        sizeof(struct al_tree_head),
        sizeof(struct ssm_service_shared),
        sizeof(struct al_rmid),
        sizeof(struct al_pid_head),
        sizeof(struct al_id_head),
        sizeof(struct ssm_permits_shared),
        SSM_SERVICE_MAX,
        SSM_CLASS_MAX,
        SSM_SHARD_MAX,
        SSM_NAME_SIZE,
        SSM_PARK_SLOTS,
        SSM_NO_SHARING,
    };
    return fnv1a(UINT64_C(0xcbf29ce484222325), facts, sizeof facts);
}

static uint64_t params_hash(const struct ssm_superblock *s)
{
    size_t start = offsetof(struct ssm_superblock, size_bytes);
    return fnv1a(UINT64_C(0xcbf29ce484222325), (const uint8_t *)s + start,
                 offsetof(struct ssm_superblock, state) - start);
}

void ssm_superblock_write(struct ssm_superblock *s, const struct ssm_geometry *g)
{
    memset(s, 0, sizeof *s);
    s->size_bytes = g->size_bytes;
    s->generation = ssm_random_u64();
    s->metadata_bytes = g->metadata_bytes;
    s->arena_bytes = g->arena_reserved;
    s->grow_bytes = g->arena_units != 0 ? g->arena_bytes : 0;
    s->arena_packets = g->arena_packets;
    s->class_count = g->fixed_count;
    s->shards = g->shards;
    s->headroom = g->headroom;
    s->tailroom = g->tailroom;
    s->cache = g->cache;
    s->holders = g->holders;
    s->flags = g->flags;
    for (uint32_t i = 0; i < g->fixed_count; i++) { /* field by field: the padding is hashed, and stays zero */
        s->classes[i].block_size = g->classes[i].block_size;
        s->classes[i].block_count = g->classes[i].block_count;
    }
    s->params_hash = params_hash(s);
    s->layout_hash = layout_hash();
}

void ssm_superblock_publish(struct ssm_superblock *s)
{
    ssm_store_release_u64(&s->magic, SSM_MAGIC); /* release: all earlier stores are there, even after a death */
}

int ssm_superblock_read(const struct ssm_superblock *s, uint64_t file_size, struct ssm_geometry *geometry_out)
{
    if (ssm_load_relaxed_u64(&s->magic) != SSM_MAGIC || s->layout_hash != layout_hash()) /* a private copy */
        return -SSM_E_LAYOUT;
    if (s->params_hash != params_hash(s) || s->class_count > SSM_CLASS_MAX)
        return -SSM_E_CORRUPT;
    struct ssm_pool_options options = {
        .class_count = s->class_count,
        .shards = s->shards,
        .headroom = s->headroom,
        .tailroom = s->tailroom,
        .cache = s->cache,
        .holders = s->holders,
        .flags = s->flags,
        .metadata_bytes = s->metadata_bytes,
        .arena_bytes = s->arena_bytes,
        .grow_bytes = s->grow_bytes,
        .arena_packets = s->arena_packets,
    };
    memcpy(options.classes, s->classes, sizeof options.classes);
    if (ssm_layout_compute(&options, geometry_out) != 0 || geometry_out->size_bytes != s->size_bytes ||
        file_size != s->size_bytes)
        return -SSM_E_CORRUPT;
    return 0;
}
