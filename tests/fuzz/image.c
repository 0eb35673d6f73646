/* SPDX-License-Identifier: Apache-2.0
 *
 * See image.h. */
#include "image.h"

#include "attachment.h"
#include "cache.h"
#include "check.h"
#include "sandbox.h"
#include "shard.h"

#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const struct ssm_pool_options options = {
    .classes = {{64, 24}, {256, 16}},
    .class_count = 2,
    .shards = 2,
    .headroom = 16,
    .tailroom = 8,
    .cache = 4,
    .holders = 64,
    .metadata_bytes = 65536,
    .arena_bytes = 16384,
    .arena_packets = 6,
};
const char *const image_ring_names[] = {"many", "newest", "one"};
const struct ssm_ring_options image_rings[] = {
    {.capacity = 8},
    {.capacity = 7, .flags = SSM_OVERFLOW_OVERWRITE},
    {.capacity = 5, .flags = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_REDELIVER},
};
const char *const image_service_names[] = {"ids", "pids", "rmids", "addresses"};
const struct ssm_service_options image_services[] = {
    {.kind = SSM_SERVICE_IDS, .first = 10, .last = 209, .flags = SSM_RECLAIM},
    {.kind = SSM_SERVICE_PIDS, .first = 2},
    {.kind = SSM_SERVICE_RMIDS, .first = 16, .last = 1000, .flags = SSM_RECLAIM},
    {.kind = SSM_SERVICE_ADDRESSES, .first = 0x1000, .last = 0xffff, .ranges = 12, .flags = SSM_RECLAIM},
};

static struct ssm_geometry geometry;
static uint8_t *images[IMAGE_KINDS];

int image_file(void)
{
    int fd = memfd_create("ssm-fuzz", MFD_CLOEXEC);
    CHECK(fd >= 0);
    return fd;
}

static void use_services(struct ssm_pool *pool)
{
    for (int i = 0; i < IMAGE_SERVICES; i++) {
        struct ssm_service *service;
        uint32_t number;
        uint64_t start;
        CHECK_EQ(ssm_service_open(pool, image_service_names[i], &image_services[i], &service), 0);
        for (uint64_t size = 1; size <= 3; size++)
            if (image_services[i].kind == SSM_SERVICE_ADDRESSES)
                CHECK_EQ(ssm_range_alloc(service,
                                         &(struct ssm_range_request){.size = size * 256, .align = 256, .max = 0xffff},
                                         &start),
                         0);
            else
                CHECK_EQ(ssm_number_alloc(service, ssm_now_ns(), &number), 0);
        ssm_service_close(service);
    }
}

static struct ssm_ring *open_ones[2]; /* that the maker has open when it dies, in that image */

/* Packets in all rings, some held by this process too, some in its cache. */
static void use_rings(struct ssm_pool *pool)
{
    for (int i = 0; i < IMAGE_RINGS; i++) {
        struct ssm_ring *ring;
        uint64_t handles[6];
        CHECK_EQ(ssm_ring_open(pool, image_ring_names[i], &image_rings[i], &ring), 0);
        CHECK_EQ(ssm_alloc_many(pool, 20, 6, 0, handles), 0);
        CHECK_EQ(ssm_ring_put(ring, handles, 3, 0, 0), 0);
        CHECK_EQ(ssm_ring_put(ring, handles + 3, 1, SSM_KEEP, 0), 0);
        CHECK_EQ(ssm_ring_get(ring, handles, 1, 0), 1);
        CHECK_EQ(ssm_free(pool, handles[5]), 0);
        if (image_rings[i].flags & SSM_ONE_PRODUCER)
            open_ones[0] = ring; /* its exclusive sides stay this process's */
        else
            ssm_ring_close(ring);
    }
}

/* A ring without a name: this process has it open, and a packet is queued in it. */
static void unlink_ring(struct ssm_pool *pool)
{
    uint64_t handle;
    CHECK_EQ(ssm_ring_open(pool, "unlinked", &(struct ssm_ring_options){.capacity = 4}, &open_ones[1]), 0);
    CHECK_EQ(ssm_alloc(pool, 20, 0, &handle), 0);
    CHECK_EQ(ssm_ring_put(open_ones[1], &handle, 1, 0, 0), 0);
    CHECK_EQ(ssm_ring_unlink(open_ones[1]), 0);
}

/* One packet queued, one in hand, and what a third one has left. */
static void use_arena(struct ssm_pool *pool)
{
    struct ssm_ring *ring;
    uint64_t handles[3];
    CHECK_EQ(ssm_ring_open(pool, image_ring_names[0], &image_rings[0], &ring), 0);
    CHECK_EQ(ssm_alloc_many(pool, 1000, 3, 0, handles), 0);
    CHECK_EQ(ssm_ring_put(ring, handles, 1, 0, 0), 0);
    CHECK_EQ(ssm_free(pool, handles[1]), 0);
    ssm_ring_close(ring);
}

static void keep(int fd, enum image_kind kind)
{
    images[kind] = malloc(geometry.size_bytes);
    CHECK(images[kind] != NULL);
    CHECK(pread(fd, images[kind], geometry.size_bytes, 0) == (ssize_t)geometry.size_bytes);
}

static void make_images(void)
{
    struct ssm_pool *pool;
    int fd = image_file();
    sandbox_begin();
    CHECK_EQ(ssm_pool_create(fd, &options, &(struct ssm_attach_options){.name = "maker"}, &pool), 0);
    geometry = pool->geometry;
    pool->home = 0; /* whatever its pid is */
    ssm_store_relaxed_u32(&((struct ssm_holder *)(pool->base + geometry.holders_start))[pool->self].pid, 1);
    use_services(pool);
    use_rings(pool);
    unlink_ring(pool);
    use_arena(pool);
    struct ssm_u64 *arena_lock = &((struct ssm_arena *)(pool->base + geometry.arena_start))->lock.word;
    CHECK_EQ(ssm_shard_lock(pool, 1, 0, 0), 0);
    ssm_store_release_u64(arena_lock, pool->lock_word);
    keep(fd, IMAGE_DEAD);
    ssm_lock_release(&ssm_shard_at(pool, 1, 0)->lock);
    ssm_store_release_u64(arena_lock, 0);
    ssm_ring_close(open_ones[0]);
    ssm_ring_close(open_ones[1]);
    ssm_pool_destroy(pool);
    keep(fd, IMAGE_QUIET);
    close(fd);
}

const struct ssm_geometry *image_write(int fd, enum image_kind kind)
{
    if (images[kind] == NULL)
        make_images();
    CHECK(ftruncate(fd, (off_t)geometry.size_bytes) == 0);
    CHECK(pwrite(fd, images[kind], geometry.size_bytes, 0) == (ssize_t)geometry.size_bytes);
    return &geometry;
}
