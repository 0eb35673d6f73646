/* SPDX-License-Identifier: Apache-2.0
 *
 * The floor: what this machine takes for as much with nothing of ours in between. Measured in the same run as the cases,
 * so that a ratio means the same on a slow day; benchmarks/check.py compares such ratios.
 */
#include "bench.h"

#include <errno.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LINE       64
#define SLOTS      1024
#define TRIPS_MAX  20000
#define ASLEEP_MAX 500
#define QUIET_NS   UINT64_C(1000000) /* as in pairs.c */

struct line {
    uint64_t value;
    char     rest[LINE - sizeof(uint64_t)];
};

/* Eight lines' worth of loads, stores and one read-modify-write that depend on each other: the stuff of a fast path. */
uint64_t floor_loop(struct bench *bench)
{
    static struct line lines[8];
    uint64_t start = now_ns(), value = 0;

    for (uint64_t i = 0; i < bench->count; i++) {
        for (uint32_t j = 0; j < 8; j++) {
            value += __atomic_load_n(&lines[(value + j) & 7].value, __ATOMIC_ACQUIRE);
            __atomic_store_n(&lines[j].value, value ^ i, __ATOMIC_RELEASE);
        }
        value += __atomic_fetch_or(&lines[value & 7].value, 1, __ATOMIC_ACQ_REL);
    }
    return now_ns() - start;
}

/* The C library's own, of a size that it keeps in a list per thread; `batch` of them at a time. */
uint64_t floor_malloc(struct bench *bench)
{
    uint64_t start = now_ns();
    void *memory[BATCH_MAX];

    for (uint64_t i = 0; i < bench->count; i += bench->batch) {
        for (uint32_t j = 0; j < bench->batch; j++) {
            memory[j] = malloc(LINE);
            __asm__ volatile("" : "+r"(memory[j]) : : "memory"); /* it is wanted */
        }
        for (uint32_t j = 0; j < bench->batch; j++)
            free(memory[j]);
    }
    return now_ns() - start;
}

/* ---- a bare ring of words between two processes, each side with the other's index cached ----------- */

static struct bare_ring {
    struct line head, tail;
    uint64_t slots[SLOTS];
} *bare;

static void fill(struct bench *bench)
{
    uint64_t tail = 0;

    for (uint64_t i = 0; i < bench->count; i++) {
        while (i - tail == SLOTS)
            tail = __atomic_load_n(&bare->tail.value, __ATOMIC_ACQUIRE);
        bare->slots[i % SLOTS] = i;
        __atomic_store_n(&bare->head.value, i + 1, __ATOMIC_RELEASE);
    }
}

static void drain(struct bench *bench)
{
    uint64_t head = 0, sum = 0;

    for (uint64_t i = 0; i < bench->count; i++) {
        while (i == head)
            head = __atomic_load_n(&bare->head.value, __ATOMIC_ACQUIRE);
        sum += bare->slots[i % SLOTS];
        __atomic_store_n(&bare->tail.value, i + 1, __ATOMIC_RELEASE);
    }
    __asm__ volatile("" : : "r"(sum));
}

uint64_t floor_ring(struct bench *bench)
{
    bare = shared_memory(sizeof *bare);
    return bench_together(bench, 1, fill, drain);
}

/* ---- round trips: a number goes up here and there in turn ------------------------------------------ */

static struct words {
    struct line there, back;
    uint64_t sent_ns, way_ns;
} *words;
static uint64_t *times_ns;

static uint64_t trips(const struct bench *bench, uint64_t most)
{
    return bench->count < most ? bench->count : most;
}

static void spin_until(struct line *line, uint32_t value)
{
    while (__atomic_load_n((uint32_t *)&line->value, __ATOMIC_ACQUIRE) != value)
        pause_briefly();
}

static void sleep_until(struct line *line, uint32_t value)
{
    uint32_t *word = (uint32_t *)&line->value, seen;

    while ((seen = __atomic_load_n(word, __ATOMIC_ACQUIRE)) != value)
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
}

static void publish(struct line *line, uint32_t value)
{
    __atomic_store_n((uint32_t *)&line->value, value, __ATOMIC_RELEASE);
}

static void publish_and_wake(struct line *line, uint32_t value)
{
    publish(line, value);
    syscall(SYS_futex, &line->value, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void trade(struct bench *bench, bool first, bool sleeps)
{
    void (*wait)(struct line *, uint32_t) = sleeps ? sleep_until : spin_until;
    void (*tell)(struct line *, uint32_t) = sleeps ? publish_and_wake : publish;

    for (uint32_t i = 0; i < trips(bench, TRIPS_MAX); i++) {
        uint64_t start = now_ns();

        if (first)
            tell(&words->there, i + 1);
        wait(first ? &words->back : &words->there, i + 1);
        if (first)
            times_ns[i] = now_ns() - start;
        else
            tell(&words->back, i + 1);
    }
}

/* clang-format off */
static void spin_here(struct bench *bench) { trade(bench, true, false); }
static void spin_there(struct bench *bench) { trade(bench, false, false); }
static void sleep_here(struct bench *bench) { trade(bench, true, true); }
static void sleep_there(struct bench *bench) { trade(bench, false, true); }
/* clang-format on */

/* One way, to somebody who has been asleep for long: see pairs.c. */
static void publish_later(struct line *line, uint32_t value)
{
    uint64_t start = now_ns();

    while (now_ns() - start < QUIET_NS)
        pause_briefly();
    words->sent_ns = now_ns();
    publish_and_wake(line, value);
}

static void quiet_here(struct bench *bench)
{
    for (uint32_t i = 0; i < trips(bench, ASLEEP_MAX); i++) {
        publish_later(&words->there, i + 1);
        sleep_until(&words->back, i + 1);
        times_ns[i] = now_ns() - words->sent_ns + words->way_ns;
    }
}

static void quiet_there(struct bench *bench)
{
    for (uint32_t i = 0; i < trips(bench, ASLEEP_MAX); i++) {
        sleep_until(&words->there, i + 1);
        words->way_ns = now_ns() - words->sent_ns;
        publish_later(&words->back, i + 1);
    }
}

static uint64_t round_trips(struct bench *bench, uint64_t count, bench_work *ours, bench_work *theirs)
{
    words = shared_memory(sizeof *words);
    times_ns = calloc(count, sizeof *times_ns);
    must(times_ns ? 0 : -ENOMEM, "calloc");
    bench_together(bench, 1, ours, theirs);
    return median_ns(times_ns, count) * bench->count;
}

uint64_t floor_round_trip_spin(struct bench *bench)
{
    return round_trips(bench, trips(bench, TRIPS_MAX), spin_here, spin_there);
}
uint64_t floor_round_trip_futex(struct bench *bench)
{
    return round_trips(bench, trips(bench, TRIPS_MAX), sleep_here, sleep_there);
}

uint64_t floor_round_trip_futex_asleep(struct bench *bench)
{
    return round_trips(bench, trips(bench, ASLEEP_MAX), quiet_here, quiet_there);
}
