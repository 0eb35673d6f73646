/* SPDX-License-Identifier: Apache-2.0
 *
 * Options begin with their size: programs that were compiled with another release of ssm.h. */
#include "pool_fixture.h"

/* Options of a later release: as large as those of this one, with a field behind them. */
#define LATER(type)        \
    struct {               \
        struct type known; \
        uint64_t field;    \
    }

/* What a call says to options with each size, the field of a later release unset and set. */
#define CHECK_SIZES(options, call)                      \
    do {                                                \
        const size_t known_ = sizeof(options).known;    \
        (options).known.size = 0;                       \
        (options).field = 0;                            \
        CHECK_EQ((call), 0);                            \
        (options).known.size = known_;                  \
        CHECK_EQ((call), 0);                            \
        (options).known.size = sizeof(options);         \
        CHECK_EQ((call), 0);                            \
        (options).field = UINT64_C(1) << 63;            \
        CHECK_EQ((call), -E2BIG);                       \
        (options).known.size = known_;                  \
        CHECK_EQ((call), 0); /* it is not the size's */ \
        (options).known.size = known_ - 1;              \
        CHECK_EQ((call), -EINVAL);                      \
        (options).known.size = 1;                       \
        CHECK_EQ((call), -EINVAL);                      \
    } while (0)

static int try_create(const struct ssm_pool_options *options, const struct ssm_attach_options *attach)
{
    struct ssm_pool *pool;
    int fd = memfd_create("ssm-test", MFD_CLOEXEC), result = ssm_pool_create(fd, options, attach, &pool);
    if (result == 0) {
        ssm_pool_close(pool);
        ssm_pool_destroy(pool);
    }
    close(fd);
    return result;
}

static int try_attach(int fd, const struct ssm_attach_options *attach)
{
    struct ssm_pool *pool;
    int result = ssm_pool_attach(fd, attach, &pool);
    if (result == 0) {
        ssm_pool_close(pool);
        ssm_pool_destroy(pool);
    }
    return result;
}

static int try_ring(struct ssm_pool *pool, const struct ssm_ring_options *options)
{
    struct ssm_ring *ring;
    int result = ssm_ring_open(pool, "ring", options, &ring);
    if (result == 0) {
        const int matches = ssm_ring_matches(ring, options);
        ssm_ring_close(ring);
        result = matches == 1 ? 0 : -EIO;
    }
    return result;
}

static int try_service(struct ssm_pool *pool, const struct ssm_service_options *options)
{
    struct ssm_service *service;
    int result = ssm_service_open(pool, "ids", options, &service);
    if (result == 0)
        ssm_service_close(service);
    return result;
}

static void test_sizes(void)
{
    struct ssm_pool_options plain = fixture_options();
    struct fixture f = fixture_open(&plain);
    LATER(ssm_pool_options) pool = {.known = plain};
    LATER(ssm_attach_options) attach = {0};
    LATER(ssm_ring_options) ring = {.known.capacity = 4};
    LATER(ssm_service_options) service = {.known = {.kind = SSM_SERVICE_IDS, .last = 9}};
    CHECK_SIZES(pool, try_create(&pool.known, NULL));
    CHECK_SIZES(pool, ssm_pool_bytes(&pool.known) > 0 ? 0 : (int)ssm_pool_bytes(&pool.known));
    CHECK_SIZES(attach, try_create(&plain, &attach.known));
    CHECK_SIZES(attach, try_attach(f.pool->fd, &attach.known));
    CHECK_SIZES(ring, try_ring(f.pool, &ring.known));
    CHECK_SIZES(service, try_service(f.pool, &service.known));
    fixture_close(&f);
}

/* A program that knows less gets no byte more than it has room for; one that knows more gets zeros. */
static void test_defaults(void)
{
    struct ssm_pool_options all, less;
    LATER(ssm_pool_options) more = {.field = 7};
    const size_t half = offsetof(struct ssm_pool_options, metadata_bytes);
    ssm_pool_options_default(&all);
    CHECK_EQ(all.size, sizeof all);
    memset(&less, 0xa5, sizeof less);
    ssm_pool_options_init(&less, half);
    CHECK_EQ(less.size, half);
    CHECK_EQ(less.class_count, all.class_count);
    for (uint32_t i = 0; i < all.class_count; i++) {
        CHECK_EQ(less.classes[i].block_size, all.classes[i].block_size);
        CHECK_EQ(less.classes[i].block_count, all.classes[i].block_count);
    }
    CHECK(less.shards == all.shards && less.headroom == all.headroom && less.tailroom == all.tailroom);
    CHECK(less.cache == all.cache && less.holders == all.holders);
    for (size_t i = half; i < sizeof less; i++)
        CHECK_EQ(((uint8_t *)&less)[i], 0xa5);
    ssm_pool_options_init(&more.known, sizeof more);
    CHECK(more.known.size == sizeof more && more.field == 0 && more.known.metadata_bytes == all.metadata_bytes);
}

int main(void)
{
    test_sizes();
    test_defaults();
    return 0;
}
