/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm_bench: how long the C core takes. Not a test: it checks no more than that calls succeed.
 *
 *   ssm_bench CASE COUNT [NAME=NUMBER...]   runs one case over COUNT packets, prints nanoseconds per packet
 *   ssm_bench about                         prints the compiler
 *
 * NAME is one of attached, blocks, shards, cache, rings, workers: see struct bench. Each run creates a pool of its own and
 * unlinks its name at once, so that nothing can be left behind. Every process has one thread; a forked one is a holder of
 * its own.
 */
#include "bench.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#define BLOCK_BYTES   2048
#define SMALL_BYTES   128 /* where blocks are many: as many as there are, touched in turn */
#define PAYLOAD_BYTES 1500
#define BLOCK_COUNT   4096
#define RING_PACKETS  1024
#define PATIENCE_S    100 /* far above what a run takes; the caller's is longer */

int must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "ssm_bench: %s: %s\n", what, ssm_strerror(result));
        exit(1);
    }
    return result;
}

uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void pause_briefly(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

uint64_t median_ns(uint64_t *times, uint64_t count)
{
    qsort(times, count, sizeof *times, compare);
    return times[count / 2];
}

void *shared_memory(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    must(memory == MAP_FAILED ? -errno : 0, "mmap");
    return memory;
}

/* ---- the pool ----------------------------------------------------------------------------------- */

static void open_rings(struct bench *bench, uint32_t flags)
{
    struct ssm_ring_options options = {.capacity = RING_PACKETS, .flags = flags};
    char name[SSM_NAME_SIZE];

    bench->rings = calloc(bench->ring_count, sizeof *bench->rings);
    must(bench->rings ? 0 : -ENOMEM, "calloc");
    for (uint32_t i = 0; i < bench->ring_count; i++) {
        snprintf(name, sizeof name, "bench-%u", i);
        must(ssm_ring_open(bench->pool, name, &options, &bench->rings[i]), "ssm_ring_open");
    }
}

static void bench_open(struct bench *bench, uint32_t ring_flags)
{
    struct ssm_attach_options attach = {.name = "bench"};
    struct ssm_pool_options options;
    char name[48];
    int fd;

    ssm_pool_options_default(&options);
    options.class_count = 1;
    options.classes[0] = (struct ssm_class_spec){.block_size = BLOCK_BYTES, .block_count = BLOCK_COUNT};
    if (bench->blocks) {
        options.classes[0] = (struct ssm_class_spec){.block_size = SMALL_BYTES, .block_count = bench->blocks};
        options.headroom = options.tailroom = 0;
        bench->bytes = SMALL_BYTES;
    }
    if (bench->shards)
        options.shards = bench->shards;
    if (bench->cache != UINT32_MAX)
        options.cache = bench->cache;
    const uint32_t holders = bench->attached + bench->workers + bench->ring_count + 1;
    if (holders > options.holders)
        options.holders = holders;
    options.metadata_bytes += (uint64_t)bench->ring_count * RING_PACKETS * 16;
    snprintf(name, sizeof name, "/ssm-bench-%ld", (long)getpid());
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    must(fd < 0 ? -errno : 0, "shm_open");
    shm_unlink(name);
    must(ssm_pool_create(fd, &options, &attach, &bench->pool), "ssm_pool_create");
    close(fd);
    open_rings(bench, ring_flags);
}

static void bench_close(struct bench *bench)
{
    if (!bench->pool) /* floor.c */
        return;
    for (uint32_t i = 0; i < bench->ring_count; i++)
        ssm_ring_close(bench->rings[i]);
    free(bench->rings);
    must(ssm_pool_close(bench->pool), "ssm_pool_close");
    ssm_pool_destroy(bench->pool);
}

/* ---- other processes ---------------------------------------------------------------------------- */

struct crew {
    uint32_t ready, started;
    uint64_t end_ns[]; /* 0: at work */
};

/* In a child: it goes with its parent, and when the parent went before, at once. */
static void follow(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
}

static pid_t fork_child(void)
{
    pid_t parent = getpid(), child = fork();

    must(child < 0 ? -errno : 0, "fork");
    if (child == 0)
        follow(parent);
    return child;
}

static void be_child(struct bench *bench, struct crew *crew, uint32_t which, bench_work *work)
{
    __atomic_add_fetch(&crew->ready, 1, __ATOMIC_RELEASE);
    while (!__atomic_load_n(&crew->started, __ATOMIC_ACQUIRE))
        pause_briefly();
    work(bench);
    crew->end_ns[which] = now_ns();
    bench_close(bench);
    _exit(0);
}

uint64_t bench_together(struct bench *bench, uint32_t children, bench_work *ours, bench_work *theirs)
{
    struct crew *crew = shared_memory(sizeof *crew + (children + 1) * sizeof crew->end_ns[0]);
    uint64_t start_ns, last_ns = 0;
    int status;

    for (uint32_t i = 0; i < children; i++)
        if (fork_child() == 0)
            be_child(bench, crew, i, theirs);
    while (__atomic_load_n(&crew->ready, __ATOMIC_ACQUIRE) < children)
        usleep(100);
    start_ns = now_ns();
    __atomic_store_n(&crew->started, 1, __ATOMIC_RELEASE);
    ours(bench);
    crew->end_ns[children] = now_ns();
    for (uint32_t i = 0; i < children; i++) {
        must(wait(&status) < 0 ? -errno : 0, "wait");
        must(status ? -ECHILD : 0, "another process");
    }
    for (uint32_t i = 0; i <= children; i++)
        last_ns = crew->end_ns[i] > last_ns ? crew->end_ns[i] : last_ns;
    return last_ns - start_ns;
}

/* A child that died would leave the parent in its loop until the alarm. */
static void on_child(int signal)
{
    static const char text[] = "ssm_bench: another process was killed\n";
    siginfo_t info = {0};

    (void)signal;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid == 0 ||
        (info.si_code == CLD_EXITED && info.si_status == 0))
        return;
    _exit(write(STDERR_FILENO, text, sizeof text - 1) < 0 ? 2 : 1);
}

/* Processes that attach, take a packet and give it back, and then wait until this one ends. */
static void attach_idle(struct bench *bench)
{
    struct crew *crew = shared_memory(sizeof *crew);
    uint64_t handle;

    for (uint32_t i = 0; i < bench->attached; i++)
        if (fork_child() == 0) {
            must(ssm_alloc(bench->pool, 1, SSM_FOREVER, &handle), "ssm_alloc");
            must(ssm_free(bench->pool, handle), "ssm_free");
            __atomic_add_fetch(&crew->ready, 1, __ATOMIC_RELEASE);
            for (;;)
                pause();
        }
    while (__atomic_load_n(&crew->ready, __ATOMIC_ACQUIRE) < bench->attached)
        usleep(100);
}

/* ---- one process -------------------------------------------------------------------------------- */

static void alloc_free_loop(struct bench *bench)
{
    uint64_t handle;

    for (uint64_t i = 0; i < bench->count; i++) {
        must(ssm_alloc(bench->pool, bench->bytes, 0, &handle), "ssm_alloc");
        must(ssm_free(bench->pool, handle), "ssm_free");
    }
}

static uint64_t alloc_free(struct bench *bench)
{
    uint64_t start = now_ns();

    alloc_free_loop(bench);
    return now_ns() - start;
}

static uint64_t alloc_free_batch(struct bench *bench)
{
    uint64_t start = now_ns(), handles[BATCH_MAX];

    for (uint64_t i = 0; i < bench->count; i += bench->batch) {
        must(ssm_alloc_many(bench->pool, bench->bytes, bench->batch, 0, handles), "ssm_alloc_many");
        must(ssm_free_many(bench->pool, handles, bench->batch), "ssm_free_many");
    }
    return now_ns() - start;
}

/* Half of all blocks are out, and each that comes is freed last: every descriptor is touched in turn. */
static uint64_t churn(struct bench *bench)
{
    uint32_t out = (bench->blocks ? bench->blocks : BLOCK_COUNT) / 2, k = 0;
    uint64_t *handles = malloc(out * sizeof *handles), start;

    must(handles ? 0 : -ENOMEM, "malloc");
    for (uint32_t i = 0; i < out; i++)
        must(ssm_alloc(bench->pool, bench->bytes, 0, &handles[i]), "ssm_alloc");
    start = now_ns();
    for (uint64_t i = 0; i < bench->count; i++) {
        must(ssm_free(bench->pool, handles[k]), "ssm_free");
        must(ssm_alloc(bench->pool, bench->bytes, 0, &handles[k]), "ssm_alloc");
        k = k + 1 == out ? 0 : k + 1;
    }
    start = now_ns() - start;
    free(handles);
    return start;
}

static uint64_t put_get(struct bench *bench)
{
    uint64_t start, handles[BATCH_MAX];
    uint32_t k = 0;

    must(ssm_alloc_many(bench->pool, bench->bytes, bench->batch, 0, handles), "ssm_alloc_many");
    start = now_ns();
    for (uint64_t i = 0; i < bench->count; i += bench->batch) {
        must(ssm_ring_put(bench->rings[k], handles, bench->batch, 0, 0), "ssm_ring_put");
        must(ssm_ring_get(bench->rings[k], handles, bench->batch, 0), "ssm_ring_get");
        k = k + 1 == bench->ring_count ? 0 : k + 1;
    }
    return now_ns() - start;
}

/* Each of them as many pairs as there are packets. */
static uint64_t alloc_free_workers(struct bench *bench)
{
    return bench_together(bench, bench->workers - 1, alloc_free_loop, alloc_free_loop);
}

/* ---- */

static const struct {
    const char *name;
    bench_run *run;
    uint32_t batch, bytes, rings, one; /* one: both sides of the rings are exclusive; rings 0: needs no pool */
} cases[] = {
    {"alloc_free", alloc_free, 1, PAYLOAD_BYTES, 1, 0},
    {"alloc_free_batch", alloc_free_batch, BATCH_MAX, PAYLOAD_BYTES, 1, 0},
    {"churn", churn, 1, PAYLOAD_BYTES, 1, 0},
    {"put_get", put_get, 1, PAYLOAD_BYTES, 1, 0},
    {"put_get_batch", put_get, BATCH_MAX, PAYLOAD_BYTES, 1, 0},
    {"put_get_one", put_get, 1, PAYLOAD_BYTES, 1, 1},
    {"alloc_free_workers", alloc_free_workers, 1, PAYLOAD_BYTES, 1, 0},
    {"stream", bench_stream, 1, PAYLOAD_BYTES, 1, 0},
    {"stream_batch", bench_stream, BATCH_MAX, PAYLOAD_BYTES, 1, 0},
    {"hand_over", bench_hand_over, 1, 8, 1, 1},
    {"hand_over_batch", bench_hand_over, BATCH_MAX, 8, 1, 1},
    {"hand_over_1500", bench_hand_over, 1, PAYLOAD_BYTES, 1, 1},
    {"hand_over_1500_batch", bench_hand_over, BATCH_MAX, PAYLOAD_BYTES, 1, 1},
    {"ring_one", bench_ring, 1, 8, 2, 1},
    {"ring_one_batch", bench_ring, BATCH_MAX, 8, 2, 1},
    {"ring_many", bench_ring, 1, 8, 2, 0},
    {"ring_many_batch", bench_ring, BATCH_MAX, 8, 2, 0},
    {"round_trip_spin", bench_round_trip_spin, 1, 8, 2, 1},
    {"round_trip_block", bench_round_trip_block, 1, 8, 2, 1},
    {"round_trip_asleep", bench_round_trip_asleep, 1, 8, 2, 1},
    {"floor_loop", floor_loop, 1, 0, 0, 0},
    {"floor_malloc", floor_malloc, 1, 0, 0, 0},
    {"floor_malloc_batch", floor_malloc, BATCH_MAX, 0, 0, 0},
    {"floor_ring", floor_ring, 1, 0, 0, 0},
    {"floor_round_trip_spin", floor_round_trip_spin, 1, 0, 0, 0},
    {"floor_round_trip_futex", floor_round_trip_futex, 1, 0, 0, 0},
    {"floor_round_trip_futex_asleep", floor_round_trip_futex_asleep, 1, 0, 0, 0},
};
#define CASE_COUNT (sizeof cases / sizeof cases[0])

static int usage(void)
{
    fprintf(stderr, "usage: ssm_bench CASE COUNT [NAME=NUMBER...], COUNT at least %d; the cases are:", BATCH_MAX);
    for (size_t i = 0; i < CASE_COUNT; i++)
        fprintf(stderr, " %s", cases[i].name);
    fputc('\n', stderr);
    return 2;
}

static bool take_option(struct bench *bench, const char *argument)
{
    const struct {
        const char *name;
        uint32_t *value;
    } options[] = {
        {"attached=", &bench->attached}, {"blocks=", &bench->blocks},    {"shards=", &bench->shards},
        {"cache=", &bench->cache},       {"rings=", &bench->ring_count}, {"workers=", &bench->workers},
    };

    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
        if (!strncmp(argument, options[i].name, strlen(options[i].name))) {
            *options[i].value = (uint32_t)strtoul(argument + strlen(options[i].name), NULL, 10);
            return true;
        }
    return false;
}

int main(int argc, char **argv)
{
    struct bench bench = {.cache = UINT32_MAX, .workers = 1};
    size_t which = 0;

    if (argc == 2 && !strcmp(argv[1], "about")) {
        puts(COMPILER);
        return 0;
    }
    while (which < CASE_COUNT && (argc < 3 || strcmp(argv[1], cases[which].name)))
        which++;
    bench.count = argc >= 3 ? strtoull(argv[2], NULL, 10) / BATCH_MAX * BATCH_MAX : 0;
    if (which == CASE_COUNT || !bench.count)
        return usage();
    bench.batch = cases[which].batch;
    bench.bytes = cases[which].bytes;
    bench.ring_count = cases[which].rings;
    for (int i = 3; i < argc; i++)
        if (!take_option(&bench, argv[i]))
            return usage();
    signal(SIGCHLD, on_child);
    alarm(PATIENCE_S);
    if (cases[which].rings) {
        bench_open(&bench, cases[which].one ? SSM_ONE_PRODUCER | SSM_ONE_CONSUMER : 0);
        attach_idle(&bench);
    }
    printf("%.3f\n", (double)cases[which].run(&bench) / (double)bench.count);
    bench_close(&bench);
    return 0;
}
