/* SPDX-License-Identifier: Apache-2.0
 *
 * How long do the allocators' cores take? Not a test: it checks no more than that calls succeed.
 *
 * Prints lines of "allocator TAB state TAB operation TAB nanoseconds", the best of several runs each. Which id, pid or
 * range an operation is about is random and decided before the clock starts; `loop` is what the loop alone takes and
 * is not subtracted.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "allocators.h"

#define RUNS 7
#define BATCH 1000u

static uint64_t random_state = 1;

/* splitmix64 (Steele, Lea, Flood 2014) */
static uint64_t below(uint64_t bound)
{
    uint64_t z = random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return (z ^ z >> 31) % bound;
}

static uint64_t now_ns(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void must(int rc, const char *what)
{
    if (rc != AL_OK) {
        fprintf(stderr, "%s: %d\n", what, rc);
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

static void keep_least(double *best, uint64_t start, uint64_t end, uint64_t count)
{
    double ns = (double)(end - start) / (double)count;

    if (*best == 0 || ns < *best)
        *best = ns;
}

static void show(const char *allocator, const char *state, const char *operation, double ns)
{
    printf("%s\t%s\t%s\t%.2f\n", allocator, state, operation, ns);
    fflush(stdout);
}

/* ---- ids ---- */

static void ids(uint32_t in_use, bool half_free)
{
    uint32_t     capacity = in_use * 2, id, *some = malloc(BATCH * sizeof *some);
    uint64_t     bytes = al_id_size_bytes(capacity);
    struct al_id a;
    double       alloc_ns = 0, free_ns = 0, pair_ns = 0;
    char         state[64];

    must(al_id_init(&a, memory(bytes), bytes, 0, capacity - 1, capacity), "init");
    for (uint32_t i = 0; i < (half_free ? capacity : in_use); i++)
        must(al_id_alloc(&a, &id), "alloc");
    while (al_id_used_count(&a) > in_use)
        (void)al_id_free(&a, (uint32_t)below(capacity));
    for (int run = 0; run < RUNS * 20; run++) {
        for (uint32_t i = 0; i < BATCH; i++) {
            do
                some[i] = (uint32_t)below(half_free ? capacity : in_use);
            while (!al_id_is_allocated(&a, some[i]));
            must(al_id_free(&a, some[i]), "free");
        }
        for (uint32_t i = 0; i < BATCH; i++)
            must(al_id_take(&a, some[i]), "take");
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            must(al_id_free(&a, some[i]), "free");
        uint64_t t1 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            must(al_id_alloc(&a, &id), "alloc");
        uint64_t t2 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            must(al_id_alloc(&a, &id), "alloc");
            must(al_id_free(&a, id), "free");
        }
        uint64_t t3 = now_ns();
        keep_least(&free_ns, t0, t1, BATCH);
        keep_least(&alloc_ns, t1, t2, BATCH);
        keep_least(&pair_ns, t2, t3, BATCH);
    }
    (void)snprintf(state, sizeof state, "%u in use%s", in_use, half_free ? ", as many freed" : "");
    show("ids", state, "free, a random one", free_ns);
    show("ids", state, "allocate", alloc_ns);
    show("ids", state, "allocate + free", pair_ns);
    free(a.head);
    free(some);
}

/* ---- pids ---- */

static void pids(uint32_t order, uint32_t percent)
{
    struct al_pid a;
    uint64_t      bytes = al_pid_size_bytes(order);
    uint32_t      pid, capacity = order * 64, target = capacity / 100 * percent + capacity % 100 * percent / 100;
    double        pair_ns = 0, random_ns = 0;
    char          state[64];

    must(al_pid_init(&a, memory(bytes), bytes, order), "init");
    while (al_pid_used_count(&a) < target)
        (void)al_pid_take(&a, (uint32_t)below(capacity));
    for (int run = 0; run < RUNS * 20; run++) {
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            must(al_pid_alloc(&a, &pid), "alloc");
            must(al_pid_free(&a, pid), "free");
        }
        uint64_t t1 = now_ns();
        keep_least(&pair_ns, t0, t1, BATCH);
        if (percent == 0)
            continue;
        uint32_t some[BATCH];
        for (uint32_t i = 0; i < BATCH; i++) /* one in use, now free; the allocation takes the lowest */
            some[i] = (uint32_t)below(capacity);
        uint64_t t2 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++)
            if (al_pid_free(&a, some[i]) == AL_OK)
                must(al_pid_alloc(&a, &pid), "alloc");
        keep_least(&random_ns, t2, now_ns(), BATCH);
    }
    (void)snprintf(state, sizeof state, "order %u, %u %% in use", order, percent);
    show("pids", state, "allocate + recycle", pair_ns);
    if (percent != 0)
        show("pids", state, "recycle a random one + allocate", random_ns);
    free(a.head);
}

/* ---- ranges ---- */

#define HOLE_UNIT 16u
#define HOLE_UNITS 16u

struct space {
    struct al_tree       t;
    struct al_tree_node *live;
    uint32_t             count;
};

static uint64_t place(struct al_tree *t, uint64_t size, uint64_t align, uint32_t policy, uint64_t exact)
{
    struct al_tree_constraint c = {size, align, 0, UINT64_MAX, exact, policy};
    uint64_t                  start = 0;

    must(al_tree_alloc(t, &c, 0, &start), "alloc");
    return start;
}

/* `live` ranges of random lengths, with holes of random lengths between them; room at both ends. */
static struct space space_make(uint32_t live)
{
    struct space   s = {.live = malloc(live * sizeof *s.live), .count = live};
    uint32_t       capacity = live * 5 + 4 * BATCH, made = live * 2;
    uint64_t       bytes = al_tree_size_bytes(capacity), room = UINT64_C(1) << 40;
    uint64_t      *start = malloc(made * sizeof *start), *size = malloc(made * sizeof *size);

    must(al_tree_init(&s.t, memory(bytes), bytes, capacity), "init");
    must(al_tree_insert(&s.t, 0, room - 1, AL_TREE_FREE, 0, NULL), "insert");
    uint64_t at = room / 2;
    for (uint32_t i = 0; i < made; i++) {
        size[i] = (1 + below(HOLE_UNITS)) * HOLE_UNIT;
        start[i] = place(&s.t, size[i], 1, AL_TREE_EXACT, at);
        at += size[i];
    }
    for (uint32_t i = made - 1; i > 0; i--) { /* in random order, as a program would */
        uint32_t j = (uint32_t)below(i + 1);
        uint64_t a = start[i], b = size[i];
        start[i] = start[j], size[i] = size[j];
        start[j] = a, size[j] = b;
    }
    for (uint32_t i = live; i < made; i++)
        must(al_tree_free(&s.t, start[i], start[i] + size[i] - 1), "free");
    for (uint32_t i = 0; i < live; i++)
        s.live[i] = (struct al_tree_node){.start = start[i], .end = start[i] + size[i] - 1};
    free(start);
    free(size);
    return s;
}

/* Free random live ranges, take each back by its address. */
static void ranges_exact(struct space *s, double *exact_ns, double *free_ns)
{
    struct al_tree_node *some = malloc(BATCH * sizeof *some);
    uint32_t             batch = s->count / 2 < BATCH ? s->count / 2 : BATCH;

    for (uint32_t i = 0; i < batch; i++) { /* a random sample in front */
        uint32_t            j = i + (uint32_t)below(s->count - i);
        struct al_tree_node n = s->live[i];
        s->live[i] = s->live[j];
        s->live[j] = n;
    }
    uint64_t t0 = now_ns();
    for (uint32_t i = 0; i < batch; i++)
        must(al_tree_free(&s->t, s->live[i].start, s->live[i].end), "free");
    uint64_t t1 = now_ns();
    for (uint32_t i = 0; i < batch; i++)
        (void)place(&s->t, s->live[i].end - s->live[i].start + 1, 1, AL_TREE_EXACT, s->live[i].start);
    uint64_t t2 = now_ns();
    keep_least(free_ns, t0, t1, batch);
    keep_least(exact_ns, t1, t2, batch);
    free(some);
}

/* Allocate by policy, free again in random order. */
static void ranges_policy(struct space *s, uint32_t policy, uint64_t units, uint64_t align, double *alloc_ns,
                          double *free_ns)
{
    uint64_t start[BATCH], size[BATCH];
    uint32_t batch = s->count / 2 < BATCH ? s->count / 2 : BATCH;

    for (uint32_t i = 0; i < batch; i++)
        size[i] = (units ? units : 1 + below(HOLE_UNITS)) * HOLE_UNIT;
    uint64_t t0 = now_ns();
    for (uint32_t i = 0; i < batch; i++)
        start[i] = place(&s->t, size[i], align, policy, 0);
    uint64_t t1 = now_ns();
    for (uint32_t i = batch - 1; i > 0; i--) {
        uint32_t j = (uint32_t)below(i + 1);
        uint64_t a = start[i], b = size[i];
        start[i] = start[j], size[i] = size[j];
        start[j] = a, size[j] = b;
    }
    uint64_t t2 = now_ns();
    for (uint32_t i = 0; i < batch; i++)
        must(al_tree_free(&s->t, start[i], start[i] + size[i] - 1), "free");
    uint64_t t3 = now_ns();
    keep_least(alloc_ns, t0, t1, batch);
    keep_least(free_ns, t2, t3, batch);
}

static void ranges(uint32_t live)
{
    struct space s = space_make(live);
    char         state[64];
    double       exact_ns = 0, free_ns = 0, ignored = 0;

    (void)snprintf(state, sizeof state, "%u live ranges, holes", live);
    for (int run = 0; run < RUNS * 10; run++)
        ranges_exact(&s, &exact_ns, &free_ns);
    show("ranges", state, "ExactMatch, a random hole", exact_ns);
    show("ranges", state, "free, a random range", free_ns);

    static const struct {
        const char *name;
        uint32_t    policy;
        uint64_t    units, align;
    } cases[] = {
        {"FirstMatch, into holes", AL_TREE_FIRST, 0, 1},
        {"LastMatch, into holes", AL_TREE_LAST, 0, 1},
        {"FirstMatch, no hole is large enough", AL_TREE_FIRST, 8 * HOLE_UNITS, 1},
        {"LastMatch, no hole is large enough", AL_TREE_LAST, 8 * HOLE_UNITS, 1},
        {"FirstMatch, alignment 16", AL_TREE_FIRST, 0, 16},
        {"FirstMatch, alignment 4096", AL_TREE_FIRST, 1, 4096},
        {"LastMatch, alignment 4096", AL_TREE_LAST, 1, 4096},
    };
    /* Fill the room at the ends but for a hole each, so that holes in the middle are what is found first. */
    uint64_t room = UINT64_C(1) << 40, left = s.live[0].start, right = s.live[0].end;
    for (uint32_t i = 0; i < live; i++) {
        left = s.live[i].start < left ? s.live[i].start : left;
        right = s.live[i].end > right ? s.live[i].end : right;
    }
    for (unsigned i = 0; i < sizeof cases / sizeof *cases; i++) {
        double   alloc_ns = 0;
        bool     from_left = cases[i].policy == AL_TREE_FIRST;
        uint64_t from = from_left ? 0 : right + 1, to = from_left ? left - 1 : room - 1;
        struct al_tree_iter it;
        struct al_tree_node n;
        /* Block the roomy end the search would take at once: it must pass all holes and take the other end. */
        (void)al_tree_iterate(&s.t, from, to, &it);
        must(al_tree_next(&s.t, &it, &n), "next");
        (void)place(&s.t, n.end - n.start + 1, 1, AL_TREE_EXACT, n.start);
        for (int run = 0; run < RUNS * 10; run++)
            ranges_policy(&s, cases[i].policy, cases[i].units, cases[i].align, &alloc_ns, &ignored);
        must(al_tree_free(&s.t, n.start, n.end), "free");
        show("ranges", state, cases[i].name, alloc_ns);
    }
    printf("# height %u, %llu bytes of memory\n", al_tree_height(&s.t),
           (unsigned long long)al_tree_size_bytes(s.t.capacity));
    free(s.t.head);
    free(s.live);
}

/* ---- RMIDs ---- */

static void rmids(uint32_t max_rmid)
{
    struct al_rmid *a = memory(sizeof *a);
    double          ns = 0;
    char            state[64];
    al_rmid_u32     rmid;

    must(al_rmid_init(a, max_rmid, 100), "init");
    for (int run = 0; run < RUNS * 20; run++) {
        uint64_t t0 = now_ns();
        for (uint32_t i = 0; i < BATCH; i++) {
            uint64_t now = (uint64_t)run * BATCH * 1000 + i * 1000;
            must(al_rmid_alloc(a, now, &rmid), "alloc");
            must(al_rmid_free(a, rmid, now), "free");
        }
        keep_least(&ns, t0, now_ns(), BATCH);
    }
    (void)snprintf(state, sizeof state, "of %u", max_rmid);
    show("rmids", state, "alloc + free", ns);
    free(a);
}

int main(void)
{
    static const uint32_t id_counts[] = {1000, 100000, 1000000}, range_counts[] = {100, 10000, 100000};
    static const uint32_t orders[] = {8, 64, 4096}, percents[] = {0, 50, 99};

    for (unsigned i = 0; i < 3; i++) {
        ids(id_counts[i], false);
        ids(id_counts[i], true);
    }
    for (unsigned i = 0; i < 3; i++)
        for (unsigned j = 0; j < 3; j++)
            pids(orders[i], percents[j]);
    for (unsigned i = 0; i < 3; i++)
        ranges(range_counts[i]);
    rmids(4);
    rmids(1024);
    return 0;
}
