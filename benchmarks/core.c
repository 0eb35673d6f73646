/* SPDX-License-Identifier: Apache-2.0
 *
 * ssm_bench: how long the C core takes. Not a test: it checks no more than that calls succeed.
 *
 *   ssm_bench CASE COUNT   runs one case over COUNT packets, prints nanoseconds per packet
 *   ssm_bench about        prints the compiler
 *
 * Each run creates a pool of its own and unlinks its name at once, so that nothing can be left behind.
 * Single-threaded; the cases with two processes fork a consumer, which is a holder of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "ssm.h"

#ifdef __clang__
#define COMPILER "clang " __clang_version__
#else
#define COMPILER "gcc " __VERSION__
#endif

#define BLOCK_BYTES   2048
#define BLOCK_COUNT   4096
#define PAYLOAD_BYTES 1500
#define RING_PACKETS  1024
#define BATCH         64

struct bench {
    struct ssm_pool *pool;
    struct ssm_ring *ring;
    uint64_t         count; /* packets of the run */
};

/* Returns `result`, or ends the program when it is an error. */
static int must(int result, const char *what)
{
    if (result < 0) {
        fprintf(stderr, "ssm_bench: %s: %s\n", what, ssm_strerror(result));
        exit(1);
    }
    return result;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void bench_open(struct bench *bench)
{
    struct ssm_pool_options options;
    struct ssm_attach_options attach = {.name = "bench"};
    struct ssm_ring_options ring = {.capacity = RING_PACKETS};
    char name[48];
    int fd;

    ssm_pool_options_default(&options);
    options.class_count = 1;
    options.classes[0] = (struct ssm_class_spec){.block_size = BLOCK_BYTES, .block_count = BLOCK_COUNT};
    snprintf(name, sizeof name, "/ssm-bench-%ld", (long)getpid());
    fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    must(fd < 0 ? -errno : 0, "shm_open");
    shm_unlink(name);
    must(ssm_pool_create(fd, &options, &attach, &bench->pool), "ssm_pool_create");
    must(ssm_ring_open(bench->pool, "bench", &ring, &bench->ring), "ssm_ring_open");
    close(fd);
}

static void bench_close(struct bench *bench)
{
    ssm_ring_close(bench->ring);
    must(ssm_pool_close(bench->pool), "ssm_pool_close");
    ssm_pool_destroy(bench->pool);
}

/* ---- one process -------------------------------------------------------------------------------- */

static uint64_t alloc_free(struct bench *bench)
{
    uint64_t start = now_ns(), handle;

    for (uint64_t i = 0; i < bench->count; i++) {
        must(ssm_alloc(bench->pool, PAYLOAD_BYTES, 0, &handle), "ssm_alloc");
        must(ssm_free(bench->pool, handle), "ssm_free");
    }
    return now_ns() - start;
}

static uint64_t alloc_free_batch(struct bench *bench)
{
    uint64_t start = now_ns(), handles[BATCH];

    for (uint64_t i = 0; i < bench->count; i += BATCH) {
        must(ssm_alloc_many(bench->pool, PAYLOAD_BYTES, BATCH, 0, handles), "ssm_alloc_many");
        must(ssm_free_many(bench->pool, handles, BATCH), "ssm_free_many");
    }
    return now_ns() - start;
}

static uint64_t put_get(struct bench *bench)
{
    uint64_t start, handle;

    must(ssm_alloc(bench->pool, PAYLOAD_BYTES, 0, &handle), "ssm_alloc");
    start = now_ns();
    for (uint64_t i = 0; i < bench->count; i++) {
        must(ssm_ring_put(bench->ring, &handle, 1, 0, 0), "ssm_ring_put");
        must(ssm_ring_get(bench->ring, &handle, 1, 0), "ssm_ring_get");
    }
    return now_ns() - start;
}

static uint64_t put_get_batch(struct bench *bench)
{
    uint64_t start, handles[BATCH];

    must(ssm_alloc_many(bench->pool, PAYLOAD_BYTES, BATCH, 0, handles), "ssm_alloc_many");
    start = now_ns();
    for (uint64_t i = 0; i < bench->count; i += BATCH) {
        must(ssm_ring_put(bench->ring, handles, BATCH, 0, 0), "ssm_ring_put");
        must(ssm_ring_get(bench->ring, handles, BATCH, 0), "ssm_ring_get");
    }
    return now_ns() - start;
}

/* ---- two processes ------------------------------------------------------------------------------ */

static void produce(struct bench *bench, uint32_t batch)
{
    uint64_t handles[BATCH];

    for (uint64_t i = 0; i < bench->count; i += batch) {
        must(ssm_alloc_many(bench->pool, PAYLOAD_BYTES, batch, SSM_FOREVER, handles), "ssm_alloc_many");
        must(ssm_ring_put(bench->ring, handles, batch, 0, SSM_FOREVER), "ssm_ring_put");
    }
}

static void consume(struct bench *bench, uint32_t batch)
{
    uint64_t handles[BATCH];

    for (uint64_t i = 0; i < bench->count;) {
        int got = must(ssm_ring_get(bench->ring, handles, batch, SSM_FOREVER), "ssm_ring_get");

        must(ssm_free_many(bench->pool, handles, (uint32_t)got), "ssm_free_many");
        i += (uint64_t)got;
    }
}

/* From the first alloc here to the last free there. */
static uint64_t two_processes(struct bench *bench, uint32_t batch)
{
    int pipe_fds[2], status;
    uint64_t start, end = 0;
    pid_t child;

    must(pipe(pipe_fds) ? -errno : 0, "pipe");
    child = fork();
    must(child < 0 ? -errno : 0, "fork");
    if (child == 0) {
        must(write(pipe_fds[1], &end, sizeof end) < 0 ? -errno : 0, "write"); /* ready */
        consume(bench, batch);
        end = now_ns();
        must(write(pipe_fds[1], &end, sizeof end) < 0 ? -errno : 0, "write");
        bench_close(bench);
        _exit(0);
    }
    close(pipe_fds[1]);
    must(read(pipe_fds[0], &end, sizeof end) == sizeof end ? 0 : -EPIPE, "the consumer");
    start = now_ns();
    produce(bench, batch);
    must(read(pipe_fds[0], &end, sizeof end) == sizeof end ? 0 : -EPIPE, "the consumer");
    waitpid(child, &status, 0);
    close(pipe_fds[0]);
    return end - start;
}

static uint64_t stream(struct bench *bench) { return two_processes(bench, 1); }
static uint64_t stream_batch(struct bench *bench) { return two_processes(bench, BATCH); }

/* ---- */

static const struct {
    const char *name;
    uint64_t (*run)(struct bench *bench); /* returns nanoseconds for all packets */
} cases[] = {
    {"alloc_free", alloc_free}, {"alloc_free_batch", alloc_free_batch},
    {"put_get", put_get},       {"put_get_batch", put_get_batch},
    {"stream", stream},         {"stream_batch", stream_batch},
};
#define CASE_COUNT (sizeof cases / sizeof cases[0])

int main(int argc, char **argv)
{
    struct bench bench = {0};

    if (argc == 2 && !strcmp(argv[1], "about")) {
        puts(COMPILER);
        return 0;
    }
    bench.count = argc == 3 ? strtoull(argv[2], NULL, 10) / BATCH * BATCH : 0;
    for (size_t i = 0; i < CASE_COUNT && bench.count; i++)
        if (!strcmp(argv[1], cases[i].name)) {
            bench_open(&bench);
            printf("%.3f\n", (double)cases[i].run(&bench) / (double)bench.count);
            bench_close(&bench);
            return 0;
        }
    fprintf(stderr, "usage: ssm_bench CASE COUNT, COUNT at least %d; the cases are:", BATCH);
    for (size_t i = 0; i < CASE_COUNT; i++)
        fprintf(stderr, " %s", cases[i].name);
    fputc('\n', stderr);
    return 2;
}
