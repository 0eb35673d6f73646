/* SPDX-License-Identifier: Apache-2.0
 *
 * The text that says what a ring's packets are; what a ring that is there has to agree in. */
#include "pool_fixture.h"

static struct ssm_ring_shared *shared; /* of the ring that was opened last */

static int try_type(struct ssm_pool *pool, const char *type, uint32_t flags, char text_out[SSM_TYPE_SIZE])
{
    struct ssm_ring_options options = {.capacity = 4, .flags = flags, .content = type};
    struct ssm_ring *ring;
    int result = ssm_ring_open(pool, "typed", &options, &ring);
    if (result != 0)
        return result;
    result = ssm_ring_type(ring, text_out);
    shared = ssm_ring_shared_of(ring);
    ssm_ring_close(ring);
    return result;
}

static void test_type(void)
{
    char text[SSM_TYPE_SIZE], longest[SSM_TYPE_SIZE + 1];
    memset(longest, 'x', sizeof longest);
    longest[SSM_TYPE_SIZE] = '\0';
    for (uint32_t flags = 0; flags <= SSM_REDELIVER; flags += SSM_REDELIVER) { /* behind the slots, behind the table */
        struct ssm_pool_options options;
        ssm_pool_options_default(&options);
        options.class_count = 1;
        struct fixture f = fixture_open(&options);
        CHECK_EQ(try_type(f.pool, longest, flags, text), -EINVAL);
        longest[SSM_TYPE_SIZE - 1] = '\0';
        CHECK_EQ(try_type(f.pool, longest, flags, text), SSM_TYPE_SIZE - 1);
        CHECK(strcmp(text, longest) == 0);
        longest[SSM_TYPE_SIZE - 1] = 'x';
        CHECK_EQ(try_type(f.pool, NULL, flags, text), SSM_TYPE_SIZE - 1); /* as it is */
        CHECK_EQ(try_type(f.pool, "x", flags, text), -SSM_E_MISMATCH);
        CHECK_EQ(try_type(f.pool, "", flags, text), -SSM_E_MISMATCH);
        shared->type_bytes = SSM_TYPE_SIZE; /* scribbled */
        CHECK_EQ(try_type(f.pool, NULL, flags, text), -SSM_E_CORRUPT);
        shared->type_bytes = SSM_TYPE_SIZE - 1;
        fixture_close(&f);
    }
}

/* A ring that is there has to agree in the flags that are asked for, and in no other; a new one gets what is asked for. */
static void test_as_it_is(void)
{
    const uint32_t every = SSM_ONE_PRODUCER | SSM_ONE_CONSUMER | SSM_REDELIVER | SSM_OVERFLOW_DROP |
                           SSM_OVERFLOW_OVERWRITE;
    const uint32_t has = SSM_ONE_CONSUMER | SSM_OVERFLOW_DROP;
    struct ssm_pool_options pool_options;
    ssm_pool_options_default(&pool_options);
    pool_options.class_count = 1;
    struct fixture f = fixture_open(&pool_options);
    struct ssm_ring_options options = {.capacity = 8, .flags = has, .as_it_is = every & ~has};
    struct ssm_ring *ring, *again;
    CHECK_EQ(ssm_ring_open(f.pool, "r", &options, &ring), 0);
    CHECK_EQ(ssm_ring_flags(ring), has);
    for (uint32_t asked = 0; asked <= every; asked++) {
        for (uint32_t flags = asked;; flags = (flags - 1) & asked) { /* each subset of what is asked for */
            options = (struct ssm_ring_options){.flags = flags, .as_it_is = every & ~asked};
            bool matches = flags == (has & asked);
            CHECK_EQ(ssm_ring_matches(ring, &options), matches);
            CHECK_EQ(ssm_ring_open(f.pool, "r", &options, &again), matches ? 0 : -SSM_E_MISMATCH);
            if (matches) {
                CHECK_EQ(ssm_ring_flags(again), has);
                ssm_ring_close_spare(again);
            }
            if (flags == 0)
                break;
        }
    }
    options = (struct ssm_ring_options){.capacity = 9, .as_it_is = every};
    CHECK_EQ(ssm_ring_matches(ring, &options), 0);
    ssm_ring_close(ring);
    options = (struct ssm_ring_options){.flags = SSM_OVERFLOW_OVERWRITE | SSM_ONE_CONSUMER};
    CHECK_EQ(ssm_ring_open(f.pool, "new", &options, &ring), -EINVAL);
    options = (struct ssm_ring_options){.flags = 1u << 7};
    CHECK_EQ(ssm_ring_open(f.pool, "r", &options, &ring), -EINVAL);
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_type();
    test_as_it_is();
    return 0;
}
