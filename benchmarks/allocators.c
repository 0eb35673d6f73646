/* SPDX-License-Identifier: Apache-2.0
 *
 * How long do the allocators' cores take? Not a test: it checks no more than that calls succeed.
 *
 *   allocators_bench COUNT    the first COUNT (1 .. 3) sizes of each allocator
 *   allocators_bench about    the compiler
 *
 * Prints lines of "allocator TAB state TAB operation TAB nanoseconds", each the median of many short runs. Which id,
 * pid or range an operation is about is random and decided before the clock starts; the loop around the calls is part
 * of the figure. benchmarks/allocators.py does the same through Python; the names of states and operations are its
 * keys too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocators.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#define RUNS  31u
#define BATCH 1000u
#define SIZES 3u

static uint64_t random_state = 1;

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint32_t below(uint64_t bound)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((z ^ z >> 31) % bound);
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(int result, const char *what)
{
    if (result != AL_OK) {
        fprintf(stderr, "%s: %d\n", what, result);
        exit(1);
    }
}

static void *memory(uint64_t bytes)
{
    void *mem = aligned_alloc(64, (bytes + 63) / 64 * 64);

    if (mem == NULL)
        exit(1);
    memset(mem, 0, bytes);
    return mem;
}

/* Nanoseconds per operation of one case, run by run. */
struct times {
    double   ns[RUNS];
    uint32_t runs;
};

static void note(struct times *times, uint64_t start_ns, uint64_t end_ns, uint32_t operations)
{
    times->ns[times->runs++] = (double)(end_ns - start_ns) / operations;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void show(const char *allocator, const char *state, const char *operation, struct times *times)
{
    qsort(times->ns, times->runs, sizeof times->ns[0], compare);
    printf("%s\t%s\t%s\t%.2f\n", allocator, state, operation, times->ns[times->runs / 2]);
    fflush(stdout);
}

static uint32_t batch_of(uint32_t in_use)
{
    return in_use / 2 < BATCH ? in_use / 2 : BATCH;
}

/* A random sample in front, every time another one. */
static void sample(uint32_t *all, uint32_t count, uint32_t wanted)
{
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t j = i + below(count - i), taken = all[i];
        all[i] = all[j];
        all[j] = taken;
    }
}

/* ---- ids ---- */

/* `in_use` ids, the lowest; or, with `holes`, of twice as many that were allocated a random half. */
static uint32_t *ids_fill(struct al_id *a, uint32_t in_use, bool holes)
{
    uint32_t made = holes ? 2 * in_use : in_use, *live = malloc(made * sizeof *live);

    for (uint32_t i = 0; i < made; i++)
        must(al_id_alloc(a, &live[i]), "alloc");
    if (holes) {
        sample(live, made, made - 1);
        for (uint32_t i = in_use; i < made; i++)
            must(al_id_free(a, live[i]), "free");
    }
    return live;
}

static void ids(uint32_t in_use, bool holes)
{
    uint32_t capacity = 2 * in_use, batch = batch_of(in_use);
    uint64_t bytes = al_id_size_bytes(capacity);
    struct al_id a;
    struct times freeing = {.runs = 0}, allocating = {.runs = 0}, both = {.runs = 0};
    char state[64];

    must(al_id_init(&a, memory(bytes), bytes, 0, capacity - 1, capacity), "init");
    uint32_t *live = ids_fill(&a, in_use, holes);
    for (uint32_t run = 0; run < RUNS; run++) {
        sample(live, in_use, batch);
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < batch; i++)
            must(al_id_free(&a, live[i]), "free");
        uint64_t t1 = now_ns();
        for (uint32_t i = 0; i < batch; i++)
            must(al_id_alloc(&a, &live[i]), "alloc");
        uint64_t t2 = now_ns();
        sample(live, in_use, batch);
        uint64_t t3 = now_ns();
        for (uint32_t i = 0; i < batch; i++) {
            must(al_id_free(&a, live[i]), "free");
            must(al_id_alloc(&a, &live[i]), "alloc");
        }
        note(&both, t3, now_ns(), batch);
        note(&freeing, t0, t1, batch);
        note(&allocating, t1, t2, batch);
    }
    (void)snprintf(state, sizeof state, "%u in use%s", in_use, holes ? ", as many free below" : "");
    show("ids", state, "free, a random one", &freeing);
    show("ids", state, "allocate", &allocating);
    show("ids", state, "free a random one + allocate", &both);
    free(live);
    free(a.head);
}

/* ---- pids ---- */

static void pids(uint32_t order, uint32_t percent, const char *how_full)
{
    struct al_pid a;
    uint64_t bytes = al_pid_size_bytes(order);
    uint32_t pid, capacity = order * 64, in_use = (uint32_t)((uint64_t)capacity * percent / 100);
    uint32_t *live = malloc(capacity * sizeof *live), batch = batch_of(in_use);
    struct times lowest = {.runs = 0}, random = {.runs = 0};
    char state[64];

    must(al_pid_init(&a, memory(bytes), bytes, order), "init");
    for (uint32_t i = 0; i < capacity; i++)
        live[i] = i;
    sample(live, capacity, capacity - 1);
    for (uint32_t i = 0; i < in_use; i++)
        must(al_pid_take(&a, live[i]), "take");
    for (uint32_t run = 0; run < RUNS; run++) {
        sample(live, in_use, batch);
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            must(al_pid_alloc(&a, &pid), "alloc");
            must(al_pid_free(&a, pid), "free");
        }
        uint64_t t1 = now_ns();
        for (uint32_t i = 0; i < batch; i++) {
            must(al_pid_free(&a, live[i]), "free");
            must(al_pid_alloc(&a, &live[i]), "alloc");
        }
        uint64_t t2 = now_ns();
        note(&lowest, t0, t1, BATCH);
        if (batch > 0)
            note(&random, t1, t2, batch);
    }
    (void)snprintf(state, sizeof state, "order %u, %s", order, how_full);
    show("pids", state, "allocate + recycle", &lowest);
    if (batch > 0)
        show("pids", state, "recycle a random one + allocate", &random);
    free(live);
    free(a.head);
}

/* ---- ranges ---- */

#define UNIT      16u
#define UNITS     16u /* of the longest range */
#define ROOM      (UINT64_C(1) << 40)
#define NONE_FITS (8u * UNITS * UNIT) /* longer than any hole: neighbouring holes have merged */

struct range { uint64_t start, size; };

struct space {
    struct al_tree t;
    struct range  *live;
    uint32_t       count;
    struct range   head, tail; /* free, on both sides of all the live ranges */
};

static uint64_t place(struct al_tree *t, uint64_t size, uint64_t align, uint32_t policy, uint64_t exact)
{
    struct al_tree_constraint c = {size, align, 0, UINT64_MAX, exact, policy};
    uint64_t start = 0;

    must(al_tree_alloc(t, &c, 0, &start), "alloc");
    return start;
}

static void take(struct al_tree *t, struct range r)
{
    (void)place(t, r.size, 1, AL_TREE_EXACT, r.start);
}
static void give(struct al_tree *t, struct range r)
{
    must(al_tree_free(t, r.start, r.start + r.size - 1), "free");
}

static void shuffle(struct range *r, uint32_t count, uint32_t wanted)
{
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t j = i + below(count - i);
        struct range taken = r[i];
        r[i] = r[j];
        r[j] = taken;
    }
}

static uint64_t random_size(void)
{
    return (1 + below(UNITS)) * UNIT;
}

static void space_init(struct space *s, uint32_t live, uint32_t made)
{
    uint32_t capacity = 2 * (made + BATCH) + 3;
    uint64_t bytes = al_tree_size_bytes(capacity);

    must(al_tree_init(&s->t, memory(bytes), bytes, capacity), "init");
    must(al_tree_insert(&s->t, 0, ROOM - 1, AL_TREE_FREE, 0, NULL), "insert");
    s->live = malloc(made * sizeof *s->live);
    s->count = live;
}

/* `live` ranges of random lengths: a random half of twice as many, made side by side and freed in random order. */
static void space_holes(struct space *s, uint32_t live)
{
    uint32_t made = 2 * live;
    uint64_t at = ROOM / 2;

    space_init(s, live, made);
    for (uint32_t i = 0; i < made; i++) {
        s->live[i] = (struct range){at, random_size()};
        take(&s->t, s->live[i]);
        at += s->live[i].size;
    }
    shuffle(s->live, made, made - 1);
    for (uint32_t i = live; i < made; i++)
        give(&s->t, s->live[i]);
    uint64_t first = ROOM, last = 0;
    for (uint32_t i = 0; i < live; i++) {
        first = s->live[i].start < first ? s->live[i].start : first;
        last = s->live[i].start > last ? s->live[i].start + s->live[i].size - 1 : last;
    }
    s->head = (struct range){0, first};
    s->tail = (struct range){last + 1, ROOM - 1 - last};
}

/* Holes of 32, each long enough for 32 aligned to 32, none with room for it. */
static void space_misaligned(struct space *s, uint32_t live)
{
    space_init(s, live, live + 1);
    for (uint32_t i = 0; i <= live; i++)
        take(&s->t, i == 0 ? (struct range){0, 16} : (struct range){(uint64_t)64 * i - 16, 32});
}

static void space_end(struct space *s)
{
    free(s->t.head);
    free(s->live);
}

/* Free random live ranges, take each back by its address. */
static void ranges_exact(struct space *s, const char *state)
{
    uint32_t batch = batch_of(s->count);
    struct times taking = {.runs = 0}, freeing = {.runs = 0};

    for (uint32_t run = 0; run < RUNS; run++) {
        shuffle(s->live, s->count, batch);
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < batch; i++)
            give(&s->t, s->live[i]);
        uint64_t t1 = now_ns();
        for (uint32_t i = 0; i < batch; i++)
            take(&s->t, s->live[i]);
        uint64_t t2 = now_ns();
        note(&freeing, t0, t1, batch);
        note(&taking, t1, t2, batch);
    }
    show("ranges", state, "free, a random one", &freeing);
    show("ranges", state, "ExactMatch, a random hole", &taking);
}

/* Allocate by policy; free again, not timed. A size of 0: random ones. */
static void ranges_policy(struct space *s, const char *state, const char *operation, uint32_t policy, uint64_t size,
                          uint64_t align, uint32_t batch)
{
    struct range taken[BATCH];
    struct times times = {.runs = 0};

    for (uint32_t run = 0; run < RUNS; run++) {
        for (uint32_t i = 0; i < batch; i++)
            taken[i].size = size != 0 ? size : random_size();
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < batch; i++)
            taken[i].start = place(&s->t, taken[i].size, align, policy, 0);
        uint64_t t1 = now_ns();
        shuffle(taken, batch, batch - 1);
        for (uint32_t i = 0; i < batch; i++)
            give(&s->t, taken[i]);
        note(&times, t0, t1, batch);
    }
    show("ranges", state, operation, &times);
}

static void ranges(uint32_t live)
{
    struct space s;
    uint32_t batch = batch_of(live);
    char state[64];

    (void)snprintf(state, sizeof state, "%u live, random holes", live);
    space_holes(&s, live);
    ranges_exact(&s, state);
    take(&s.t, s.head); /* else there is room for everything at once */
    ranges_policy(&s, state, "FirstMatch, into holes", AL_TREE_FIRST, 0, 1, batch);
    ranges_policy(&s, state, "FirstMatch, only the tail fits", AL_TREE_FIRST, NONE_FITS, 1, batch);
    ranges_policy(&s, state, "FirstMatch, alignment 4096", AL_TREE_FIRST, UNIT, 4096, batch);
    give(&s.t, s.head);
    take(&s.t, s.tail);
    ranges_policy(&s, state, "LastMatch, into holes", AL_TREE_LAST, 0, 1, batch);
    ranges_policy(&s, state, "LastMatch, only the head fits", AL_TREE_LAST, NONE_FITS, 1, batch);
    space_end(&s);

    (void)snprintf(state, sizeof state, "%u live, misaligned holes", live);
    space_misaligned(&s, live);
    ranges_policy(&s, state, "FirstMatch, alignment 32", AL_TREE_FIRST, 32, 32, 4);
    space_end(&s);
}

/* ---- RMIDs ---- */

static void rmids(uint32_t max_rmid)
{
    struct al_rmid *a = memory(sizeof *a);
    struct times times = {.runs = 0};
    uint64_t now = 0;
    al_rmid_u32 rmid;
    char state[64];

    must(al_rmid_init(a, max_rmid, 100), "init");
    for (uint32_t run = 0; run < RUNS; run++) {
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++, now += 1000) {
            must(al_rmid_alloc(a, now, &rmid), "alloc");
            must(al_rmid_free(a, rmid, now), "free");
        }
        note(&times, t0, now_ns(), BATCH);
    }
    (void)snprintf(state, sizeof state, "of %u", max_rmid);
    show("rmids", state, "alloc + free", &times);
    free(a);
}

int main(int argc, char **argv)
{
    static const uint32_t id_counts[SIZES] = {1000, 100000, 1000000}, range_counts[SIZES] = {100, 10000, 100000};
    static const uint32_t orders[SIZES] = {8, 64, 4096}, rmid_counts[SIZES] = {4, 64, 1024};
    uint32_t sizes = argc == 2 ? (uint32_t)strtoul(argv[1], NULL, 10) : 0;

    if (argc == 2 && strcmp(argv[1], "about") == 0) {
        puts(COMPILER);
        return 0;
    }
    if (sizes < 1 || sizes > SIZES) {
        fprintf(stderr, "usage: allocators_bench COUNT, 1 .. %u sizes of each allocator\n", SIZES);
        return 2;
    }
    for (uint32_t i = 0; i < sizes; i++) {
        ids(id_counts[i], false);
        ids(id_counts[i], true);
    }
    for (uint32_t i = 0; i < sizes; i++) {
        pids(orders[i], 0, "empty");
        pids(orders[i], 50, "half full");
        pids(orders[i], 99, "nearly full");
    }
    for (uint32_t i = 0; i < sizes; i++)
        ranges(range_counts[i]);
    for (uint32_t i = 0; i < sizes; i++)
        rmids(rmid_counts[i]);
    return 0;
}
