/* SPDX-License-Identifier: Apache-2.0
 *
 * The text that says what a ring's packets are. */
#include "pool_fixture.h"

static struct ssm_ring_shared *shared; /* of the ring that was opened last */

static int try_type(struct ssm_pool *pool, const char *type, uint32_t flags, char text_out[SSM_TYPE_SIZE])
{
    struct ssm_ring_options options = {.capacity = 4, .flags = flags, .type = type};
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

int main(void)
{
    alarm(WATCHDOG_S);
    test_type();
    return 0;
}
