/* SPDX-License-Identifier: Apache-2.0
 *
 * The eventcount: what its word says, and that no wake-up is lost, between processes that live and that are killed. */
#include "pool_fixture.h"

#include <dlfcn.h>
#include <linux/futex.h>
#include <stdarg.h>
#include <sys/syscall.h>

#define ROUNDS 4000

static void test_word(void)
{
    struct ssm_event event = {0};
    CHECK_EQ(ssm_event_signal(&event, 1, true), 0);
    CHECK_EQ(ssm_load_relaxed_u32(&event.word), 0); /* nobody there: nothing written */
    uint32_t seen = ssm_event_announce(&event);
    CHECK(seen & 1);
    CHECK_EQ(ssm_load_relaxed_u32(&event.word), seen);
    CHECK_EQ(ssm_event_signal(&event, 1, true), 0);
    CHECK(ssm_load_relaxed_u32(&event.word) >> 1 != seen >> 1); /* nobody falls asleep on `seen` any more */
    CHECK_EQ(ssm_load_relaxed_u32(&event.word) & 1, 0);         /* nobody slept: the bit is gone */
    uint32_t word = ssm_load_relaxed_u32(&event.word);
    CHECK_EQ(ssm_event_signal(&event, 1, true), 0);
    CHECK_EQ(ssm_load_relaxed_u32(&event.word), word);
    CHECK(ssm_event_announce(&event) & 1);
}

/* ---- late waits ---------------------------------------------------------------------------------------------- */

static uint32_t late(const struct ssm_event *event)
{
    return ssm_load_relaxed_u32(&event->late);
}

static void test_late_waits_are_counted(void)
{
    struct ssm_event event = {0};
    uint32_t seen = ssm_event_announce(&event);
    ssm_event_count_late(&event, seen, true);
    CHECK_EQ(late(&event), 1);
    ssm_event_signal(&event, 1, true); /* it had only not come yet */
    CHECK_EQ(late(&event), 0);
    ssm_event_count_late(&event, seen, true); /* signalled since */
    CHECK_EQ(late(&event), 0);
    seen = ssm_event_announce(&event);
    ssm_event_count_late(&event, seen, true);
    ssm_event_announce(&event); /* of the next wait: the signal may still be on its way */
    ssm_event_signal(&event, 1, true);
    ssm_event_signal(&event, 1, true);
    CHECK_EQ(late(&event), 0);
    seen = ssm_event_announce(&event);
    ssm_event_count_late(&event, seen, false);
    ssm_event_signal(&event, 1, true);
    CHECK_EQ(late(&event), 1);
    ssm_event_count_late(&event, seen, false); /* signalled since: not late, whatever it may be excused by */
    CHECK_EQ(late(&event), 1);
}

static void test_an_old_doubt_stands(void)
{
    struct ssm_event event = {0};
    ssm_event_count_late(&event, ssm_event_announce(&event), true);
    ssm_store_relaxed_u64(&event.doubt_ns, ssm_now_ns() - SSM_EXCUSED_NS);
    ssm_event_signal(&event, 1, true);
    CHECK_EQ(late(&event), 1);
    ssm_event_count_late(&event, ssm_event_announce(&event), true);
    ssm_event_signal(&event, 1, true);
    CHECK_EQ(late(&event), 1);
}

/* ---- a waiter that comes while nobody is being woken ---------------------------------------------------------- */

static struct ssm_event *to_announce; /* in the next wake-up, behind the system call */

/* Takes the place of the C library's. */
long syscall(long number, ...)
{
    static long (*real)(long number, ...);
    long a[6];
    va_list list;
    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (real == NULL)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long result = real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
    if (number == SYS_futex && a[1] == FUTEX_WAKE && to_announce != NULL) {
        struct ssm_event *event = to_announce;
        to_announce = NULL;
        ssm_event_announce(event);
    }
    return result;
}

static void test_announced_while_nobody_is_woken(void)
{
    struct ssm_event event = {0};
    ssm_event_announce(&event);
    to_announce = &event;
    CHECK_EQ(ssm_event_signal(&event, 1, true), 0);
    CHECK(to_announce == NULL);
    CHECK(ssm_load_relaxed_u32(&event.word) & SSM_EVENT_WAITERS); /* the newcomer's */
}

static void test_sleep_ends(void)
{
    struct ssm_event event = {0};
    uint32_t seen = ssm_event_announce(&event);
    uint64_t start_ns = ssm_now_ns();
    CHECK_EQ(ssm_event_sleep(&event, seen, start_ns + 30 * MS), 0);
    CHECK(ssm_now_ns() >= start_ns + 30 * MS);
    ssm_event_signal(&event, 1, true);
    start_ns = ssm_now_ns();
    CHECK_EQ(ssm_event_sleep(&event, seen, start_ns + 5000 * MS), 0); /* signalled since: does not fall asleep */
    CHECK(ssm_now_ns() < start_ns + 4000 * MS);
}

static void on_signal(int number)
{
    (void)number;
}

static void test_signal_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_signal}, old;
    CHECK(sigaction(SIGALRM, &action, &old) == 0);
    struct ssm_event event = {0};
    uint32_t seen = ssm_event_announce(&event);
    ualarm(20000, 0);
    CHECK_EQ(ssm_event_sleep(&event, seen, ssm_now_ns() + 5000 * MS), -EINTR);
    CHECK(sigaction(SIGALRM, &old, NULL) == 0);
    alarm(WATCHDOG_S);
}

/* As above, on several words at once; where the kernel cannot do so, it sleeps on the first one, and for a millisecond. */
static void test_sleep_on_several(void)
{
    struct sigaction action = {.sa_handler = on_signal}, old;
    struct ssm_event events[3] = {0};
    struct ssm_watched watched[3];
    for (int i = 0; i < 3; i++)
        watched[i] = (struct ssm_watched){&events[i], ssm_event_announce(&events[i])};
    uint64_t start_ns = ssm_now_ns();
    CHECK_EQ(ssm_events_sleep(watched, 3, start_ns + 30 * MS), 0);
    CHECK(ssm_now_ns() >= start_ns + MS && ssm_now_ns() < start_ns + 4000 * MS);
    CHECK(sigaction(SIGALRM, &action, &old) == 0);
    ualarm(20000, 0);
    int result = 0;
    for (uint64_t until_ns = ssm_now_ns() + 5000 * MS; result == 0 && ssm_now_ns() < until_ns;)
        result = ssm_events_sleep(watched, 3, until_ns);
    CHECK_EQ(result, -EINTR);
    CHECK(sigaction(SIGALRM, &old, NULL) == 0);
    alarm(WATCHDOG_S);
    ssm_event_signal(&events[2], 1, true);
    start_ns = ssm_now_ns();
    CHECK_EQ(ssm_events_sleep(watched, 3, start_ns + 5000 * MS), 0);
    CHECK(ssm_now_ns() < start_ns + 4000 * MS);
}

/* ---- ping-pong: sleeps are long here, so that a lost wake-up shows ------------------------------------------ */

struct table {
    struct ssm_event ping_event, pong_event;
    struct ssm_u32   ping, pong, stop;
    struct ssm_u32   tokens, taken; /* of test_killed_waiters() */
};

static void await_value(struct ssm_event *event, const struct ssm_u32 *word, uint32_t value)
{
    while (ssm_load_acquire_u32(word) != value) {
        uint32_t seen = ssm_event_announce(event);
        if (ssm_load_acquire_u32(word) == value)
            return;
        uint64_t until_ns = ssm_now_ns() + 2000 * MS;
        ssm_event_sleep(event, seen, until_ns);
        CHECK(ssm_now_ns() < until_ns); /* otherwise a wake-up was lost */
    }
}

static void answer(void *context)
{
    struct table *t = context;
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        await_value(&t->ping_event, &t->ping, i);
        ssm_store_release_u32(&t->pong, i);
        ssm_event_signal(&t->pong_event, 1, true);
    }
}

static struct table *table_new(void)
{
    void *table = mmap(NULL, sizeof(struct table), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(table != MAP_FAILED);
    return table;
}

static void test_no_wake_up_is_lost(void)
{
    struct table *t = table_new();
    pid_t child = child_start(answer, t);
    for (uint32_t i = 1; i <= ROUNDS; i++) {
        ssm_store_release_u32(&t->ping, i);
        ssm_event_signal(&t->ping_event, 1, true);
        await_value(&t->pong_event, &t->pong, i);
    }
    child_finish(child);
    munmap(t, sizeof *t);
}

/* ---- the sticky bit ----------------------------------------------------------------------------------------- */

static void sleep_for_long(void *context)
{
    struct table *t = context;
    uint32_t seen = ssm_event_announce(&t->ping_event);
    ssm_store_release_u32(&t->ping, 1);
    CHECK_EQ(ssm_event_sleep(&t->ping_event, seen, ssm_now_ns() + 2000 * MS), 0);
    ssm_store_release_u32(&t->pong, 1);
}

/* A signaller that woke nobody takes the bit away, unless somebody announced meanwhile: that one may be asleep by
 * then, and without the bit the next signal would pass it by. The signaller's steps are written down here, because
 * the waiter has to come in between. */
static void test_announced_before_the_bit_is_taken(void)
{
    struct table *t = table_new();
    uint32_t signalled = ssm_event_announce(&t->ping_event) + 2; /* the next in sequence; it woke nobody */
    ssm_store_release_u32(&t->ping_event.word, signalled);
    pid_t child = child_start(sleep_for_long, t);
    AWAIT(ssm_load_acquire_u32(&t->ping) == 1);
    ssm_nap_ns(20 * MS); /* asleep */
    ssm_cas_acqrel_u32(&t->ping_event.word, &signalled, signalled & ~UINT32_C(1));
    CHECK_EQ(ssm_event_signal(&t->ping_event, 1, true), 1);
    child_finish(child);
    munmap(t, sizeof *t);
}

static void announce_and_sleep(void *context)
{
    struct table *t = context;
    uint32_t seen = ssm_event_announce(&t->ping_event);
    ssm_add_acqrel_u32(&t->ping, 1);
    ssm_event_sleep(&t->ping_event, seen, ssm_now_ns() + 20000 * MS);
}

static bool is_asleep(pid_t pid)
{
    char path[32], state = 0;
    snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
    FILE *file = fopen(path, "r");
    CHECK(file != NULL && fscanf(file, "%*d (%*[^)]) %c", &state) == 1);
    fclose(file);
    return state == 'S';
}

/* As many as it was told to, and no more. */
static void test_wakes_so_many(void)
{
    struct table *t = table_new();
    pid_t children[3];
    for (uint32_t i = 0; i < 3; i++) {
        children[i] = child_start(announce_and_sleep, t);
        AWAIT(ssm_load_acquire_u32(&t->ping) == i + 1 && is_asleep(children[i]));
    }
    CHECK_EQ(ssm_event_signal(&t->ping_event, 2, true), 2);
    CHECK_EQ(ssm_event_signal(&t->ping_event, UINT32_MAX, true), 1);
    for (int i = 0; i < 3; i++)
        child_finish(children[i]);
    munmap(t, sizeof *t);
}

/* ---- killed waiters: nobody hangs, and all that is published is consumed ------------------------------------ */

static void consume(void *context)
{
    struct table *t = context;
    while (!ssm_load_acquire_u32(&t->stop)) {
        uint32_t seen = ssm_event_announce(&t->ping_event);
        uint32_t tokens = ssm_load_acquire_u32(&t->tokens);
        if (tokens == 0)
            ssm_event_sleep(&t->ping_event, seen, ssm_now_ns() + SSM_RECHECK_NS);
        else
            ssm_cas_acqrel_u32(&t->tokens, &tokens, tokens - 1);
    }
}

static void test_killed_waiters(void)
{
    enum { WAITERS = 3, KILLS = 60 };
    struct table *t = table_new();
    pid_t waiters[WAITERS];
    for (int i = 0; i < WAITERS; i++)
        waiters[i] = child_start(consume, t);
    for (int i = 0; i < KILLS; i++) {
        for (int k = 0; k < 20; k++) {
            ssm_add_acqrel_u32(&t->tokens, 1);
            ssm_event_signal(&t->ping_event, 1, true);
        }
        child_kill(waiters[i % WAITERS]); /* asleep, just woken, or at work */
        waiters[i % WAITERS] = child_start(consume, t);
        AWAIT(ssm_load_acquire_u32(&t->tokens) == 0);
    }
    ssm_store_release_u32(&t->stop, 1);
    ssm_event_signal(&t->ping_event, UINT32_MAX, true);
    for (int i = 0; i < WAITERS; i++)
        child_finish(waiters[i]);
    munmap(t, sizeof *t);
}

static void sleep_on_word(void *context)
{
    struct ssm_u64 *word = context;
    uint64_t start_ns = ssm_now_ns();
    while (ssm_load_acquire_u64(word) == UINT64_C(0x500000007))
        ssm_word_sleep(word, 7, 5000 * MS);
    CHECK(ssm_now_ns() - start_ns < 4000 * MS);
}

static void test_lock_word(void)
{
    struct board *board = board_new();
    struct ssm_u64 *word = &board->value[0];
    ssm_store_release_u64(word, UINT64_C(0x500000007));
    pid_t child = child_start(sleep_on_word, word);
    ssm_nap_ns(20 * MS);
    ssm_store_release_u64(word, UINT64_C(0x500000008)); /* the low half is what is slept on */
    ssm_word_wake(word);
    child_finish(child);
    uint64_t start_ns = ssm_now_ns();
    ssm_word_sleep(word, 8, 20 * MS); /* bounded */
    CHECK(ssm_now_ns() - start_ns >= 20 * MS);
    board_drop(board);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_word();
    test_late_waits_are_counted();
    test_an_old_doubt_stands();
    test_announced_while_nobody_is_woken();
    test_sleep_ends();
    test_signal_interrupts();
    test_sleep_on_several();
    test_wakes_so_many();
    test_killed_waiters();
    test_lock_word();
    test_announced_before_the_bit_is_taken();
    test_no_wake_up_is_lost();
    return 0;
}
