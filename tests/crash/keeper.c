/* SPDX-License-Identifier: Apache-2.0
 *
 * A process that has things and keeps them, for tests that stop it, kill it, or let it die of itself.
 *
 *     ssm_keeper [--namespace] [--end=WAY] NAME THING... [-- THING...]...
 *
 * Attaches to the pool NAME, takes each THING, and says one line: its pid as the test sees it, its pid as it sees it
 * itself, its holder slot. Behind `--` stand the things of a forked child, who goes on with what it inherited.
 *
 *     packets:SIZE:N      so many packets                 shard:CLASS:SHARD   the shard's lock
 *     cache:SIZE:N        so many in the private cache    producer:RING, consumer:RING   the side's lock
 *     put:RING, get:RING  one packet through it           service:NAME        the service's lock
 *     id:NAME             a value of the service         registry:byte, arena:lock   those
 *     caches:busy         inside its own private caches
 *
 * Then it waits for SIGUSR1: it gives up its locks, says so, and waits again; or for SIGUSR2: it dies, as --end says
 * (segv, bus, abort or exit, without a word to anybody). --namespace: it is pid 1 of a PID namespace of its own; where
 * that is not permitted it says why, and exits with 77.
 */
#include "arena.h"
#include "attachment.h"
#include "cache.h"
#include "lock.h"
#include "registry.h"
#include "ring.h"
#include "service.h"
#include "shard.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define CANNOT_RUN 77
#define WATCHDOG_S 120
#define LOCKS_MAX  16
#define COUNT_MAX  1024

static struct ssm_pool *pool;
static struct ssm_lock *locks[LOCKS_MAX]; /* this process has them */
static uint32_t lock_count;

static void need(bool it_is_so, const char *thing, int result)
{
    if (it_is_so)
        return;
    fprintf(stderr, "ssm_keeper: %s: %s\n", thing, result < 0 ? ssm_strerror(result) : "cannot be had");
    exit(1);
}

/* ---- taking ------------------------------------------------------------------------------------------------------ */

static int nothing_to_repair(struct ssm_pool *of, void *context)
{
    (void)of, (void)context;
    return -EOWNERDEAD; /* what the dead left is not the keeper's business: it keeps what is whole */
}

static void take_lock(struct ssm_lock *lock, const char *thing)
{
    int result = ssm_lock_take(pool, lock, UINT64_C(1000000000), nothing_to_repair, NULL);
    need(result == 0 && lock_count < LOCKS_MAX, thing, result);
    locks[lock_count++] = lock;
}

static struct ssm_ring_shared *find_ring(const char *name, const char *thing)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (ssm_load_acquire_u32(&ssm_holder_at(pool, id)->kind) == SSM_HOLDER_RING &&
            strcmp(ssm_holder_at(pool, id)->name, name) == 0)
            return ssm_ring_shared_at(pool, id);
    need(false, thing, 0);
    return NULL;
}

static struct ssm_service_stats find_service(const char *name, const char *thing, uint32_t *service_idx_out)
{
    struct ssm_service_stats stats = {0};
    for (uint32_t i = 0; i < SSM_SERVICE_MAX; i++)
        if (ssm_service_stats(pool, i, &stats) == 0 && strcmp(stats.name, name) == 0) {
            *service_idx_out = i;
            return stats;
        }
    need(false, thing, 0);
    return stats;
}

static void take_packets(uint64_t size, uint32_t count, bool free_them, const char *thing)
{
    uint64_t handles[COUNT_MAX];
    need(count <= COUNT_MAX, thing, 0);
    int result = ssm_alloc_many(pool, size, count, 0, handles);
    if (result == 0 && free_them)
        result = ssm_free_many(pool, handles, count);
    need(result == 0, thing, result);
}

static void pass_packet(const char *name, bool put, const char *thing)
{
    const struct ssm_ring_options options = {.flags = find_ring(name, thing)->flags};
    struct ssm_ring *ring;
    uint64_t handle;
    int result = ssm_ring_open(pool, name, &options, &ring);
    if (result == 0 && put && (result = ssm_alloc(pool, 1, 0, &handle)) == 0)
        result = ssm_ring_put(ring, &handle, 1, 0, 0);
    else if (result == 0 && !put)
        result = ssm_ring_get(ring, &handle, 1, 0);
    need(result >= 0, thing, result);
}

static void take_value(const char *name, const char *thing)
{
    uint32_t service_idx, number;
    struct ssm_service_stats stats = find_service(name, thing, &service_idx);
    struct ssm_service *service;
    const struct ssm_service_options options = {
        .kind = stats.kind,
        .flags = stats.flags,
        .first = stats.first,
        .last = stats.last,
        .ranges = stats.ranges,
    };
    int result = ssm_service_open(pool, name, &options, &service);
    if (result == 0)
        result = ssm_number_alloc(service, ssm_now_ns(), &number);
    need(result == 0, thing, result);
}

static void take(const char *thing)
{
    char what[16], name[64];
    unsigned first, second;
    uint32_t service_idx;
    if (sscanf(thing, "%15[a-z]:%u:%u", what, &first, &second) == 3) {
        if (strcmp(what, "shard") == 0 && first < pool->geometry.class_count && second < pool->geometry.shards)
            take_lock(&ssm_shard_at(pool, first, second)->lock, thing);
        else
            take_packets(first, second, strcmp(what, "cache") == 0, thing);
        return;
    }
    need(sscanf(thing, "%15[a-z]:%63s", what, name) == 2, thing, 0);
    if (strcmp(what, "producer") == 0)
        take_lock(&find_ring(name, thing)->producer.lock, thing);
    else if (strcmp(what, "consumer") == 0)
        take_lock(&find_ring(name, thing)->consumer.lock, thing);
    else if (strcmp(what, "service") == 0)
        (void)find_service(name, thing, &service_idx), take_lock(&ssm_service_at(pool, service_idx)->lock, thing);
    else if (strcmp(what, "id") == 0)
        take_value(name, thing);
    else if (strcmp(what, "registry") == 0)
        need(ssm_registry_lock(pool, UINT64_C(1000000000)) == 0, thing, 0);
    else if (strcmp(what, "arena") == 0)
        take_lock(&ssm_arena_of(pool)->lock, thing);
    else if (strcmp(what, "caches") == 0)
        for (uint32_t i = 0; i < pool->geometry.class_count; i++)
            need(ssm_cache_enter(pool, i), thing, 0);
    else
        pass_packet(name, strcmp(what, "put") == 0, thing);
}

/* ---- being ------------------------------------------------------------------------------------------------------- */

static void out_of_time(int number)
{
    (void)number;
    _exit(2);
}

static void watch(void)
{
    signal(SIGALRM, out_of_time); /* pid 1 of a namespace ignores what it does not handle */
    alarm(WATCHDOG_S);
}

_Noreturn static void end(const char *way)
{
    if (strcmp(way, "segv") == 0)
        *(volatile int *)NULL = 1;
    if (strcmp(way, "bus") == 0) {
        int fd = memfd_create("empty", MFD_CLOEXEC);
        volatile char *behind = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        (void)*behind;
    }
    if (strcmp(way, "abort") == 0)
        abort();
    _exit(0);
}

/* For ever; the test says when. */
_Noreturn static void stay(const char *way)
{
    sigset_t orders;
    sigemptyset(&orders);
    sigaddset(&orders, SIGUSR1);
    sigaddset(&orders, SIGUSR2);
    for (int order;;) {
        if (sigwait(&orders, &order) == 0 && order == SIGUSR2)
            end(way);
        while (lock_count > 0)
            ssm_lock_release(locks[--lock_count]);
        puts("released");
        fflush(stdout);
    }
}

static void say_who(void)
{
    char seen[16] = {0}; /* /proc is the test's, and knows this process by the test's number */
    need(readlink("/proc/self", seen, sizeof seen - 1) > 0, "/proc/self", 0);
    printf("%s %d %u\n", seen, getpid(), pool->self);
    fflush(stdout);
}

/* From here on in a process that is pid 1; the other one waits for it, and ends as it does. */
static void enter_namespace(void)
{
    if (unshare(CLONE_NEWPID) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) != 0) {
        printf("PID namespaces are not permitted here: %s\n", strerror(errno));
        exit(CANNOT_RUN);
    }
    pid_t child = fork();
    need(child >= 0, "fork", 0);
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        return;
    }
    int status;
    waitpid(child, &status, 0);
    _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(int argc, char **argv)
{
    const char *way = "exit";
    int i = 1;
    sigset_t orders;
    sigemptyset(&orders);
    sigaddset(&orders, SIGUSR1);
    sigaddset(&orders, SIGUSR2);
    sigprocmask(SIG_BLOCK, &orders, NULL);
    signal(SIGINT, SIG_DFL); /* a shell's background jobs inherit them ignored */
    signal(SIGQUIT, SIG_DFL);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (; i < argc && strncmp(argv[i], "--", 2) == 0; i++)
        if (strcmp(argv[i], "--namespace") == 0)
            enter_namespace();
        else if (strncmp(argv[i], "--end=", 6) == 0)
            way = argv[i] + 6;
    watch();
    need(i < argc, "a pool's name", 0);
    int fd = shm_open(argv[i], O_RDWR | O_CLOEXEC, 0);
    need(fd >= 0, argv[i], -errno);
    int result = ssm_pool_attach(fd, NULL, &pool);
    need(result == 0, argv[i], result);
    while (++i < argc) {
        if (strcmp(argv[i], "--") != 0) {
            take(argv[i]);
            continue;
        }
        say_who();
        pid_t child = fork();
        need(child >= 0, "fork", 0);
        if (child != 0)
            stay(way);
        lock_count = 0;
        watch();
    }
    say_who();
    stay(way);
}
