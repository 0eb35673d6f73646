/* SPDX-License-Identifier: Apache-2.0
 *
 * The pid bitmap: behaviour at every order up to 4096 that changes the shape, a model, corrupt memory, death at every
 * instruction.
 */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "check.h"
#include "pid_bitmap.h"

static void complain(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
}

static void *memory(uint64_t bytes)
{
    void *mem = malloc(bytes);
    CHECK(mem != NULL);
    memset(mem, 0xa5, bytes);
    return mem;
}

/* All out, none twice, all back, all out again. */
static void test_order(uint32_t order, uint32_t layers)
{
    struct al_pid a, other;
    uint64_t bytes = al_pid_size_bytes(order);
    uint32_t pid, count = order * 64;
    void *mem = memory(bytes);

    CHECK_EQ(al_pid_init(&a, mem, bytes, order), AL_OK);
    CHECK_EQ(a.layers.layers, layers);
    CHECK_EQ(al_pid_free(&a, 0), AL_ALREADY_RELEASED);
    CHECK_EQ(al_pid_free(&a, count), AL_OUT_OF_RANGE);
    for (unsigned round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < count; i++) {
            CHECK_EQ(al_pid_alloc(&a, &pid), AL_OK);
            CHECK_EQ(pid, i);
        }
        CHECK_EQ(al_pid_alloc(&a, &pid), AL_NOT_AVAILABLE);
        CHECK_EQ(al_pid_check(&a, complain, NULL), 0);
        CHECK_EQ(al_pid_attach(&other, mem, bytes), AL_OK);
        CHECK_EQ(al_pid_used_count(&other), count);
        for (uint32_t i = 0; i < count; i++) /* 5 is prime to every count here */
            CHECK_EQ(al_pid_free(&a, (uint32_t)((uint64_t)i * 5 % count)), AL_OK);
        CHECK_EQ(al_pid_used_count(&a), 0);
        CHECK_EQ(al_pid_check(&a, complain, NULL), 0);
    }
    CHECK_EQ(al_pid_next(&a, 0, &pid), AL_NOT_AVAILABLE);
    CHECK_EQ(al_pid_peek(&a, &pid), AL_OK);
    CHECK_EQ(pid, 0);
    CHECK_EQ(al_pid_take(&a, count - 1), AL_OK);
    CHECK_EQ(al_pid_take(&a, count - 1), AL_NOT_AVAILABLE);
    CHECK_EQ(al_pid_take(&a, count), AL_OUT_OF_RANGE);
    CHECK_EQ(al_pid_next(&a, 0, &pid), AL_OK);
    CHECK_EQ(pid, count - 1);
    free(mem);
}

static void test_limits(void)
{
    struct al_pid a;
    char mem[4096];

    CHECK_EQ(al_pid_size_bytes(0), 0);
    CHECK_EQ(al_pid_size_bytes(AL_PID_ORDER_MAX + 1), 0);
    CHECK_EQ(al_pid_init(&a, mem, sizeof mem, 0), AL_INVALID_SIZE);
    CHECK_EQ(al_pid_init(&a, mem, 80, 8), AL_INVALID_SIZE);
    memset(mem, 0, sizeof mem);
    CHECK_EQ(al_pid_attach(&a, mem, sizeof mem), AL_CORRUPT);
}

static void test_model(uint32_t order, unsigned rounds)
{
    struct al_pid a;
    uint64_t bytes = al_pid_size_bytes(order);
    uint32_t pid, count = order * 64;
    void *mem = memory(bytes);
    uint8_t *model = calloc(count, 1);

    CHECK(model != NULL);
    CHECK_EQ(al_pid_init(&a, mem, bytes, order), AL_OK);
    for (unsigned i = 0; i < rounds; i++) {
        if (check_below(100) < (i / 2000 % 2 ? 35u : 65u)) {
            uint32_t want = 0;
            while (want < count && model[want])
                want++;
            int result = al_pid_alloc(&a, &pid);
            CHECK_EQ(result, want == count ? AL_NOT_AVAILABLE : AL_OK);
            if (result == AL_OK) {
                CHECK_EQ(pid, want);
                model[want] = 1;
            }
        } else {
            uint32_t at = (uint32_t)check_below(count);
            CHECK_EQ(al_pid_free(&a, at), model[at] ? AL_OK : AL_ALREADY_RELEASED);
            model[at] = 0;
        }
        if (i % 32 == 0)
            CHECK_EQ(al_pid_check(&a, complain, NULL), 0);
    }
    free(mem);
    free(model);
}

static void test_corrupt(void)
{
    uint64_t bytes = al_pid_size_bytes(70);
    void *mem = memory(bytes);

    for (unsigned round = 0; round < 2000; round++) {
        struct al_pid a, again;
        uint32_t pid;
        CHECK_EQ(al_pid_init(&a, mem, bytes, 70), AL_OK);
        for (unsigned i = 0; i < 100; i++)
            CHECK_EQ(al_pid_alloc(&a, &pid), AL_OK);
        for (unsigned i = 0; i < 1 + round % 8; i++)
            ((uint8_t *)mem)[check_below(bytes)] = (uint8_t)check_random();
        (void)al_pid_check(&a, NULL, NULL);
        for (unsigned i = 0; i < 20; i++) {
            (void)al_pid_alloc(&a, &pid);
            (void)al_pid_free(&a, (uint32_t)check_below(5000));
        }
        (void)al_pid_recover(&a);
        (void)al_pid_attach(&again, mem, bytes);
    }
    free(mem);
}

#define STEPS_ORDER 65u /* three layers */
static uint64_t steps_bytes;

static void steps_operate(void *mem, const void *argument)
{
    struct al_pid a;
    uint32_t pid;
    int64_t which = *(const int64_t *)argument;

    if (al_pid_attach(&a, mem, steps_bytes) != AL_OK)
        _exit(1);
    int result = which < 0 ? al_pid_alloc(&a, &pid) : al_pid_free(&a, (uint32_t)which);
    if (result != AL_OK)
        _exit(1);
}

static void steps_recovery(void *mem)
{
    struct al_pid a;
    if (al_pid_attach(&a, mem, steps_bytes) != AL_OK || al_pid_recover(&a) != AL_OK)
        _exit(1);
}

static uint64_t steps_digest(void *mem)
{
    struct al_pid a;
    uint64_t hash = 1;
    uint32_t pid = 0;

    CHECK_EQ(al_pid_attach(&a, mem, steps_bytes), AL_OK);
    CHECK_EQ(al_pid_check(&a, complain, NULL), 0);
    for (uint32_t from = 0; al_pid_next(&a, from, &pid) == AL_OK; from = pid + 1)
        hash = steps_mix(hash, pid);
    return hash;
}

static void test_death(void)
{
    steps_bytes = al_pid_size_bytes(STEPS_ORDER);
    void *mem = memory(steps_bytes);
    struct al_pid a;
    struct steps s = {steps_bytes, steps_operate, steps_recovery, steps_digest};
    unsigned deaths = 0;
    uint32_t pid;
    int64_t alloc = -1;

    CHECK_EQ(al_pid_init(&a, mem, steps_bytes, STEPS_ORDER), AL_OK);
    deaths += steps_run(&s, mem, &alloc, true);
    while (al_pid_used_count(&a) < STEPS_ORDER * 64 - 1)
        CHECK_EQ(al_pid_alloc(&a, &pid), AL_OK);
    deaths += steps_run(&s, mem, &alloc, true); /* every layer becomes full */
    for (int64_t which = 3; which < STEPS_ORDER * 64; which += 900)
        deaths += steps_run(&s, mem, &which, true);
    for (unsigned i = 0; i < 5; i++)
        deaths += steps_run(&s, mem, &alloc, true);
    printf("recovered from %u deaths\n", deaths);
    CHECK(deaths > 20);
    free(mem);
}

int main(void)
{
    check_seed();
    test_order(1, 1);
    test_order(2, 2);
    test_order(8, 2);
    test_order(64, 2);
    test_order(66, 3); /* the original breaks above 64 */
    test_order(4096, 3);
    test_order(4097, 4);
    test_limits();
    test_model(1, 5000);
    test_model(8, 20000);
    test_model(100, 30000);
    test_corrupt();
    if (steps_possible())
        test_death();
    return 0;
}
