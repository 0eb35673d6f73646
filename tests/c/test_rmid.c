/* SPDX-License-Identifier: Apache-2.0
 *
 * The RMID allocator: the boundary of the minimum free time, clocks that go back, first freed first reused, a model,
 * corrupt memory, death at every instruction. The same core in the kernel: tests/allocators/bpf.
 */
#include "steps.h" /* first: it wants _GNU_SOURCE */

#include "check.h"
#include "flat.h"
#include "rmid.h"

_Static_assert((int)AL_RMID_NONE_FREE == AL_NOT_AVAILABLE && (int)AL_RMID_OUT_OF_RANGE == AL_OUT_OF_RANGE &&
                   (int)AL_RMID_ALREADY_RELEASED == AL_ALREADY_RELEASED &&
                   (int)AL_RMID_NEVER_ALLOCATED == AL_NEVER_ALLOCATED && (int)AL_RMID_CORRUPT == AL_CORRUPT &&
                   (int)AL_RMID_RESTING == AL_RESTING,
               "two headers, one set of codes");

#define REST UINT64_C(2000000)

static void complain(void *context, const char *what, uint64_t where, uint64_t value)
{
    (void)context;
    fprintf(stderr, "%s: %llu %llu\n", what, (unsigned long long)where, (unsigned long long)value);
}

static struct al_rmid a;

static void test_init(void)
{
    uint32_t r;

    memset(&a, 0xa5, sizeof a);
    CHECK_EQ(al_rmid_attach(&a), AL_CORRUPT);
    CHECK_EQ(al_rmid_init(&a, 0, REST), AL_OUT_OF_RANGE);
    CHECK_EQ(al_rmid_init(&a, AL_RMID_MAX + 1, REST), AL_OUT_OF_RANGE);
    CHECK_EQ(al_rmid_attach(&a), AL_CORRUPT);
    CHECK_EQ(al_rmid_init(&a, AL_RMID_MAX, REST), AL_OK);
    for (uint32_t i = 1; i <= AL_RMID_MAX; i++) {
        CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_OK); /* the clock is below the minimum free time */
        CHECK_EQ(r, i);
    }
    CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_RMID_NONE_FREE);
    CHECK_EQ(al_rmid_check(&a, complain, NULL), 0);
    CHECK_EQ(al_rmid_init(&a, AL_RMID_MAX, REST), AL_OK); /* again: nothing stays allocated */
    CHECK_EQ(al_rmid_used_count(&a), 0);
    for (uint32_t i = 1; i <= AL_RMID_MAX; i++)
        CHECK(!al_rmid_is_allocated(&a, i));
    CHECK_EQ(al_rmid_attach(&a), AL_OK);
}

static void test_rest(void)
{
    uint32_t r;
    uint64_t t = 5000;

    CHECK_EQ(al_rmid_init(&a, 2, REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, t, &r), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, t, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 2, t), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 1, t + 10), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, t, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, t + REST - 1, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, t - 1, &r), AL_RMID_RESTING); /* another CPU's clock, behind */
    CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_peek(&a, t + REST, &r), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, t + REST, &r), AL_OK);
    CHECK_EQ(r, 2); /* first freed, first reused */
    CHECK_EQ(al_rmid_alloc(&a, t + REST, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, t + REST + 10, &r), AL_OK);
    CHECK_EQ(r, 1);
    CHECK_EQ(al_rmid_check(&a, complain, NULL), 0);
}

/* Two callers, one of them an hour behind: each RMID rests as long as it should for both, and no longer. */
static void test_clock_behind(void)
{
    const uint64_t hour = UINT64_C(3600000000000), ahead = hour + 1000;
    uint32_t r;

    CHECK_EQ(al_rmid_init(&a, 2, REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, ahead, &r), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, ahead, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 1, ahead), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, 1000, &r), AL_RMID_RESTING); /* the stamp is of the future: from now on, then */
    CHECK_EQ(al_rmid_alloc(&a, 1000 + REST - 1, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, ahead + REST - 1, &r), AL_RMID_RESTING); /* the clock ahead is not deceived by it */
    CHECK_EQ(al_rmid_alloc(&a, 900, &r), AL_RMID_RESTING);              /* further behind: once more from then */
    CHECK_EQ(al_rmid_alloc(&a, 900 + REST - 1, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, 900 + REST, &r), AL_OK);
    CHECK_EQ(r, 1);

    CHECK_EQ(al_rmid_init(&a, 2, REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, ahead, &r), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, ahead, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 2, 5), AL_OK); /* by the clock behind */
    CHECK_EQ(al_rmid_free(&a, 1, ahead + 10), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, ahead + REST - 1, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, ahead + REST, &r), AL_OK);
    CHECK_EQ(r, 2);
    CHECK_EQ(al_rmid_alloc(&a, ahead + REST + 9, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, ahead + REST + 10, &r), AL_OK);
    CHECK_EQ(al_rmid_check(&a, complain, NULL), 0);
}

/* One time that is centuries ahead costs one rest, not all that follow. */
static void test_one_wrong_time(void)
{
    uint32_t r;

    CHECK_EQ(al_rmid_init(&a, 1, REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, UINT64_MAX, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 1, 10), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, 20 + REST, &r), AL_RMID_RESTING);
    CHECK_EQ(al_rmid_alloc(&a, 20 + 2 * REST, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 1, 30 + 2 * REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, 30 + 3 * REST, &r), AL_OK); /* at once, and by its own clock */
}

static void test_invalid(void)
{
    struct al_rmid before;
    uint32_t r;

    CHECK_EQ(al_rmid_init(&a, 4, REST), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_OK);
    CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_OK);
    CHECK_EQ(al_rmid_free(&a, 2, 0), AL_OK);
    before = a;
    CHECK_EQ(al_rmid_free(&a, 0, 1), AL_OUT_OF_RANGE);
    CHECK_EQ(al_rmid_free(&a, 5, 1), AL_OUT_OF_RANGE);
    CHECK_EQ(al_rmid_free(&a, UINT32_MAX, 1), AL_OUT_OF_RANGE);
    CHECK_EQ(al_rmid_free(&a, 3, 1), AL_NEVER_ALLOCATED);
    CHECK_EQ(al_rmid_free(&a, 2, 1), AL_ALREADY_RELEASED);
    CHECK_EQ(al_rmid_take(&a, 4), AL_RMID_NONE_FREE); /* not the one at the head */
    CHECK_EQ(al_rmid_take(&a, 0), AL_OUT_OF_RANGE);
    CHECK(!al_rmid_is_allocated(&a, 0) && !al_rmid_is_allocated(&a, 5) && al_rmid_is_allocated(&a, 1));
    CHECK(memcmp(&before, &a, sizeof a) == 0); /* nothing was changed */
    CHECK_EQ(al_rmid_take(&a, 3), AL_OK);
    CHECK_EQ(al_rmid_used_count(&a), 2);
}

static void test_model(uint32_t max_rmid, unsigned rounds)
{
    uint32_t queue[AL_RMID_MAX];
    uint64_t freed[AL_RMID_MAX + 1] = {0}, now = 0;
    uint8_t used[AL_RMID_MAX + 1] = {0}, fresh[AL_RMID_MAX + 1];
    uint64_t latest = 0, behind = UINT64_MAX; /* nobody was behind the stamp at the head */
    uint32_t queued = max_rmid, r;

    memset(fresh, 1, sizeof fresh);
    for (uint32_t i = 0; i < max_rmid; i++)
        queue[i] = i + 1;
    CHECK_EQ(al_rmid_init(&a, max_rmid, 100), AL_OK);
    for (unsigned i = 0; i < rounds; i++) {
        now += check_below(40);
        uint64_t clock = check_below(10) ? now : now - check_below(now + 1);
        if (check_below(100) < (i / 1000 % 2 ? 40u : 60u)) {
            int want = AL_OK;
            if (queued == 0)
                want = AL_RMID_NONE_FREE;
            else if (!fresh[queue[0]] && clock >= freed[queue[0]])
                want = clock - freed[queue[0]] < 100 ? (int)AL_RMID_RESTING : (int)AL_OK;
            else if (!fresh[queue[0]]) {
                behind = clock < behind ? clock : behind;
                want = clock - behind < 100 ? (int)AL_RMID_RESTING : (int)AL_OK;
                latest = want == AL_OK ? clock : latest;
            }
            latest = want == AL_OK && clock > latest ? clock : latest;
            CHECK_EQ(al_rmid_alloc(&a, clock, &r), want);
            if (want == AL_OK) {
                CHECK_EQ(r, queue[0]);
                used[r] = 1;
                behind = UINT64_MAX;
                memmove(queue, queue + 1, --queued * sizeof *queue);
            }
        } else {
            r = 1 + (uint32_t)check_below(max_rmid);
            int want = used[r] ? AL_OK : fresh[r] ? AL_NEVER_ALLOCATED : AL_ALREADY_RELEASED;
            CHECK_EQ(al_rmid_free(&a, r, clock), want);
            if (want == AL_OK) {
                used[r] = fresh[r] = 0;
                freed[r] = latest = clock > latest ? clock : latest;
                queue[queued++] = r;
            }
        }
        if (i % 16 == 0)
            CHECK_EQ(al_rmid_check(&a, complain, NULL), 0);
    }
    for (r = 1; r <= max_rmid; r++)
        CHECK_EQ(al_rmid_is_allocated(&a, r), used[r]);
}

/* What al_rmid_free() does not look at, the next al_rmid_alloc() finds, and al_rmid_check() names. */
static void test_queue_too_long(void)
{
    uint32_t r;
    for (int way = 0; way < 3; way++) {
        CHECK_EQ(al_rmid_init(&a, 4, 0), AL_OK);
        CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_OK);
        if (way == 0)
            a.tail += 4;
        else if (way == 1)
            a.head -= 4;
        else
            a.tail = 0;
        CHECK(al_rmid_check(&a, NULL, NULL) > 0);
        CHECK_EQ(al_rmid_free(&a, r, 0), AL_OK);
        CHECK(al_rmid_alloc(&a, 0, &r) != AL_OK);
        CHECK(al_rmid_check(&a, NULL, NULL) > 0);
    }
}

static void test_corrupt(void)
{
    for (unsigned round = 0; round < 3000; round++) {
        uint32_t r;
        CHECK_EQ(al_rmid_init(&a, 300, 0), AL_OK);
        for (unsigned i = 0; i < 100; i++)
            CHECK_EQ(al_rmid_alloc(&a, 0, &r), AL_OK);
        for (unsigned i = 0; i < 1 + round % 10; i++)
            ((uint8_t *)&a)[check_below(check_below(2) ? 40 : sizeof a)] = (uint8_t)check_random();
        (void)al_rmid_check(&a, NULL, NULL);
        for (unsigned i = 0; i < 20; i++) {
            if (al_rmid_alloc(&a, check_random(), &r) == AL_OK)
                CHECK(r >= 1 && r <= AL_RMID_SLOTS); /* the caller may have an array of so many */
            (void)al_rmid_free(&a, (uint32_t)check_below(1200), 0);
            (void)al_rmid_is_allocated(&a, (uint32_t)check_random());
            al_rmid_recover(&a);
        }
    }
}

static void steps_operate(void *mem, const void *argument)
{
    uint32_t r, which = *(const uint32_t *)argument;
    int result = which == 0 ? al_rmid_alloc(mem, 1000, &r) : al_rmid_free(mem, which, 500);
    if (result != AL_OK)
        _exit(1);
}

static void steps_recovery(void *mem)
{
    al_rmid_recover(mem);
}

static uint64_t steps_digest(void *mem)
{
    struct al_rmid *s = mem;
    uint64_t hash = s->head;

    CHECK_EQ(al_rmid_check(s, complain, NULL), 0);
    for (uint64_t t = s->head; t < s->tail; t++) {
        uint32_t r = s->ring[t % AL_RMID_SLOTS];
        hash = steps_mix(steps_mix(hash, r), s->freed_ns[al_rmid_slot(r)]);
    }
    return hash;
}

static void test_death(void)
{
    struct steps s = {sizeof a, steps_operate, steps_recovery, steps_digest};
    uint32_t sequence[] = {0, 0, 1, 0, 0, 3, 2, 0, 0, 0, 4, 1, 0}; /* 0: alloc, else free this one */
    unsigned deaths = 0;

    CHECK_EQ(al_rmid_init(&a, 4, 0), AL_OK);
    for (unsigned i = 0; i < sizeof sequence / sizeof *sequence; i++)
        deaths += steps_run(&s, &a, &sequence[i], true);
    printf("recovered from %u deaths\n", deaths);
    CHECK(deaths > 20);
}

int main(void)
{
    check_seed();
    test_init();
    test_rest();
    test_clock_behind();
    test_one_wrong_time();
    test_invalid();
    test_model(1, 2000);
    test_model(4, 20000);
    test_model(AL_RMID_MAX, 60000);
    test_queue_too_long();
    test_corrupt();
    if (steps_possible())
        test_death();
    return 0;
}
