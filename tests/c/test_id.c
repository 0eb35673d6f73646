/* SPDX-License-Identifier: Apache-2.0
 *
 * The id allocator: behaviour, a model, growth, corrupt memory, death at every instruction.
 */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "check.h"
#include "id.h"

static void complain(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
}

static void *memory(uint64_t bytes)
{
    void *mem = malloc(bytes);
    CHECK(mem != NULL);
    memset(mem, 0xa5, bytes); /* contents before init do not matter */
    return mem;
}

static struct al_id make(uint32_t base, uint32_t end, uint64_t capacity)
{
    struct al_id a;
    uint64_t bytes = al_id_size_bytes(capacity);

    CHECK_EQ(al_id_init(&a, memory(bytes), bytes, base, end, capacity), AL_OK);
    return a;
}

static void test_table(void)
{
    struct al_id a;
    uint32_t id;
    char mem[4096];

    CHECK_EQ(al_id_init(&a, mem, sizeof mem, 23, 5, 1), AL_INVALID_RANGE);
    CHECK_EQ(al_id_init(&a, mem, sizeof mem, 5, 23, 20), AL_INVALID_SIZE);
    CHECK_EQ(al_id_init(&a, mem, 70, 5, 23, 19), AL_INVALID_SIZE);
    CHECK_EQ(al_id_size_bytes(0), 0);
    CHECK_EQ(al_id_size_bytes(AL_LAYERS_BITS_MAX + 1), 0);

    a = make(5, 23, 19);
    CHECK_EQ(al_id_free(&a, 3), AL_OUT_OF_RANGE);
    CHECK_EQ(al_id_free(&a, 24), AL_OUT_OF_RANGE);
    CHECK_EQ(al_id_free(&a, 5), AL_NEVER_ALLOCATED); /* the next one: the original accepts it */
    for (uint32_t i = 5; i < 14; i++) {
        CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
        CHECK_EQ(id, i);
    }
    CHECK_EQ(al_id_free(&a, 10), AL_OK);
    CHECK_EQ(al_id_free(&a, 10), AL_ALREADY_RELEASED);
    CHECK_EQ(al_id_free(&a, 9), AL_OK);
    CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    CHECK_EQ(id, 9);
    CHECK_EQ(al_id_free(&a, 14), AL_NEVER_ALLOCATED);
    CHECK_EQ(al_id_free(&a, 21), AL_NEVER_ALLOCATED);
    CHECK(al_id_is_allocated(&a, 9) && !al_id_is_allocated(&a, 10) && !al_id_is_allocated(&a, 4));
    CHECK_EQ(al_id_used_count(&a), 8);
    CHECK_EQ(al_id_next(&a, 10, &id), AL_OK);
    CHECK_EQ(id, 11);
    CHECK_EQ(al_id_next(&a, 14, &id), AL_NOT_AVAILABLE);
    while (al_id_alloc(&a, &id) == AL_OK)
        ;
    CHECK_EQ(al_id_alloc(&a, &id), AL_NOT_AVAILABLE);
    CHECK_EQ(al_id_check(&a, complain, NULL), 0);
    free(a.head);
}

static void test_top_of_u32(void)
{
    struct al_id a = make(UINT32_MAX - 1, UINT32_MAX, 2);
    uint32_t id;

    CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    CHECK_EQ(id, UINT32_MAX);
    CHECK_EQ(al_id_alloc(&a, &id), AL_OVERFLOW);
    CHECK_EQ(al_id_free(&a, UINT32_MAX), AL_OK);
    CHECK_EQ(al_id_free(&a, UINT32_MAX), AL_ALREADY_RELEASED);
    CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    CHECK_EQ(id, UINT32_MAX);
    CHECK_EQ(al_id_alloc(&a, &id), AL_OVERFLOW);
    free(a.head);
}

/* Beside a byte per id, growing when asked to. */
static void test_model(uint32_t base, uint32_t count, unsigned rounds)
{
    uint32_t end = base + count - 1, next = 0;
    struct al_id a = make(base, end, 1);
    uint8_t *model = calloc(count, 1);
    CHECK(model != NULL);

    for (unsigned i = 0; i < rounds; i++) {
        unsigned phase = i / 500 % 2 ? 2 : 4;
        if (check_below(6) < phase) {
            uint32_t id = 0, want = 0;
            while (want < count && model[want])
                want++;
            int result = al_id_alloc(&a, &id);
            if (result == AL_NO_MEMORY) {
                struct al_id larger;
                uint64_t capacity = a.layers.bits * 2 < count ? a.layers.bits * 2 : count;
                uint64_t bytes = al_id_size_bytes(capacity);
                CHECK_EQ(want, a.layers.bits);
                CHECK_EQ(al_id_grow(&larger, memory(bytes), bytes, capacity, &a), AL_OK);
                free(a.head);
                a = larger;
                result = al_id_alloc(&a, &id);
            }
            if (want == count) {
                CHECK_EQ(result, end == UINT32_MAX ? AL_OVERFLOW : AL_NOT_AVAILABLE);
                continue;
            }
            CHECK_EQ(result, AL_OK);
            CHECK_EQ(id, base + want);
            model[want] = 1;
            next = want == next ? next + 1 : next;
        } else {
            uint32_t at = (uint32_t)check_below(check_below(2) ? count : (uint64_t)next + 1) % count;
            int want = at >= next ? AL_NEVER_ALLOCATED : model[at] ? AL_OK : AL_ALREADY_RELEASED;
            CHECK_EQ(al_id_free(&a, base + at), want);
            model[at] = 0;
        }
        if (i % 16 == 0)
            CHECK_EQ(al_id_check(&a, complain, NULL), 0);
    }
    for (uint32_t at = 0; at < count; at++)
        CHECK_EQ(al_id_is_allocated(&a, base + at), model[at]);
    free(model);
    free(a.head);
}

/* Whatever the memory says, calls come back and do not leave it. */
static void test_corrupt(void)
{
    uint64_t bytes = al_id_size_bytes(5000);
    void *mem = memory(bytes), *clean = memory(bytes);

    for (unsigned round = 0; round < 2000; round++) {
        struct al_id a, again;
        uint32_t id;
        CHECK_EQ(al_id_init(&a, mem, bytes, 100, 10099, 5000), AL_OK);
        for (unsigned i = 0; i < 200; i++)
            CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
        memcpy(clean, mem, bytes);
        for (unsigned i = 0; i < 1 + round % 8; i++)
            ((uint8_t *)mem)[check_below(bytes)] = (uint8_t)check_random();
        (void)al_id_check(&a, NULL, NULL);
        for (unsigned i = 0; i < 20; i++) {
            (void)al_id_alloc(&a, &id);
            (void)al_id_free(&a, (uint32_t)check_below(11000));
            (void)al_id_next(&a, (uint32_t)check_below(11000), &id);
        }
        (void)al_id_recover(&a);
        (void)al_id_attach(&again, mem, bytes);
    }
    free(mem);
    free(clean);
}

#define STEPS_IDS 4161u /* three layers, with padding in each */
static uint64_t steps_bytes;

static void steps_operate(void *mem, const void *argument)
{
    struct al_id a;
    uint32_t id;
    int64_t which = *(const int64_t *)argument;

    if (al_id_attach(&a, mem, steps_bytes) != AL_OK)
        _exit(1);
    int result = which < 0 ? al_id_alloc(&a, &id) : al_id_free(&a, (uint32_t)which);
    if (result != AL_OK)
        _exit(1);
}

static void steps_recovery(void *mem)
{
    struct al_id a;
    if (al_id_attach(&a, mem, steps_bytes) != AL_OK || al_id_recover(&a) != AL_OK)
        _exit(1);
}

static uint64_t steps_digest(void *mem)
{
    struct al_id a;
    uint64_t hash = 1;

    CHECK_EQ(al_id_attach(&a, mem, steps_bytes), AL_OK);
    CHECK_EQ(al_id_check(&a, complain, NULL), 0);
    hash = steps_mix(hash, a.head->next);
    for (uint64_t bit = al_layers_next_set(&a.layers, 0); bit < STEPS_IDS; bit = al_layers_next_set(&a.layers, bit + 1))
        hash = steps_mix(hash, bit);
    return hash;
}

static void test_death(void)
{
    steps_bytes = al_id_size_bytes(STEPS_IDS);
    void *mem = memory(steps_bytes);
    struct al_id a;
    struct steps s = {steps_bytes, steps_operate, steps_recovery, steps_digest};
    unsigned deaths = 0;
    uint32_t id;
    int64_t alloc = -1;

    CHECK_EQ(al_id_init(&a, mem, steps_bytes, 0, STEPS_IDS - 1, STEPS_IDS), AL_OK);
    deaths += steps_run(&s, mem, &alloc, true);
    for (unsigned i = 0; i < 62; i++)
        CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    for (unsigned i = 0; i < 3; i++) /* over the end of the first word */
        deaths += steps_run(&s, mem, &alloc, true);
    while (al_id_used_count(&a) < STEPS_IDS - 1)
        CHECK_EQ(al_id_alloc(&a, &id), AL_OK);
    deaths += steps_run(&s, mem, &alloc, true); /* every layer becomes full */
    for (int64_t which = 0; which < (int64_t)STEPS_IDS; which += 1040)
        deaths += steps_run(&s, mem, &which, true);
    deaths += steps_run(&s, mem, &alloc, true);
    printf("recovered from %u deaths\n", deaths);
    CHECK(deaths > 20);
    free(mem);
}

int main(void)
{
    check_seed();
    test_table();
    test_top_of_u32();
    test_model(0, 1, 100);
    test_model(7, 64, 3000);
    test_model(UINT32_MAX - 199, 200, 5000);
    test_model(1000, 5000, 20000);
    test_corrupt();
    if (steps_possible())
        test_death();
    return 0;
}
