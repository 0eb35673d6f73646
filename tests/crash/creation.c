/* SPDX-License-Identifier: Apache-2.0
 *
 * Death of the creator; see creation.h. Each try has a file of its own. An attacher gives an unfinished pool half a
 * second before it calls it abandoned, so the checks of many files run at the same time. */
#include "creation.h"

#include "layout.h"
#include "liveness.h"
#include "segment.h"
#include "stepper.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS           8
#define ABANDONED_MAX_NS UINT64_C(3000000000)
#define STATES_MAX       4096
#define AT_ONCE          48
#define CHECK_SECONDS    20

struct checker {
    pid_t    pid;
    uint32_t n;
    uint64_t pc;
};

static struct creation {
    int            fd;       /* of the try */
    struct ssm_u32 *created; /* shared: create returned */
    char         (*complaints)[200]; /* shared: one for each checker */
    struct checker checkers[AT_ONCE];
    uint64_t       hashes[STATES_MAX];
    struct row    *row;
} now;

static const struct ssm_pool_options pool_options = {
    .classes = {{64, BLOCKS}}, .class_count = 1, .shards = 2, .holders = 64, .cache = 1, .metadata_bytes = 4096,
};

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

static void play_creator(void *context)
{
    const struct ssm_attach_options options = {.name = "creator"};
    struct ssm_pool *pool;
    (void)context;
    stepper_stop();
    if (ssm_pool_create(now.fd, &pool_options, &options, &pool) == 0)
        ssm_store_release_u32(now.created, 1);
}

static pid_t start_creator(void)
{
    ssm_store_relaxed_u32(now.created, 0);
    now.fd = memfd_create("ssm-crash", MFD_CLOEXEC);
    return stepper_start(play_creator, NULL);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

/* NULL, or what is wrong with a pool that can be attached to. */
static const char *use(struct ssm_pool *pool)
{
    uint64_t handles[BLOCKS], got[BLOCKS];
    struct ssm_ring *ring;
    struct ssm_ring_options options = {.capacity = BLOCKS};
    if (ssm_alloc_many(pool, 1, BLOCKS, 0, handles) != 0 || ssm_alloc(pool, 1, 0, got) != -SSM_E_EXHAUSTED)
        return "not every block can be allocated once";
    if (ssm_ring_open(pool, "ring", &options, &ring) != 0 || ssm_ring_put(ring, handles, BLOCKS, 0, 0) != 0 ||
        ssm_ring_get(ring, got, BLOCKS, 0) != BLOCKS || ssm_free_many(pool, got, BLOCKS) != 0)
        return "a ring does not pass the packets";
    return ssm_check(pool, NULL, NULL) != 0 ? "ssm_check() finds contradictions" : NULL;
}

static const char *make_another(void)
{
    const struct ssm_attach_options options = {.name = "next"};
    struct ssm_pool *pool;
    int fd = memfd_create("ssm-crash", MFD_CLOEXEC);
    return ssm_pool_create(fd, &pool_options, &options, &pool) != 0 ? "the next create fails" : use(pool);
}

static const char *fault_of(int fd, bool created)
{
    struct ssm_attach_options options = {.name = "attacher", .timeout_ns = INT64_C(8000000000)};
    struct ssm_pool *pool;
    uint64_t since_ns = ssm_now_ns();
    int result = ssm_pool_attach(fd, &options, &pool);
    if (ssm_now_ns() - since_ns > ABANDONED_MAX_NS)
        return "attach took too long";
    if (result == 0)
        return use(pool);
    if (result != -SSM_E_ABANDONED || created)
        return "attach fails";
    if (ssm_pool_retire(ssm_file_reopen(fd, true), NULL) != 1)
        return "what was abandoned cannot be retired";
    return make_another();
}

static void collect(uint32_t i)
{
    struct checker *checker = &now.checkers[i];
    int status;
    if (checker->pid == 0)
        return;
    waitpid(checker->pid, &status, 0);
    checker->pid = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    now.row->violations++;
    printf("VIOLATION  create: killed before instruction %u, pc %#lx\n           %s\n", checker->n,
           (unsigned long)checker->pc, WIFEXITED(status) ? now.complaints[i] : "the attacher hangs or crashed");
}

static void start_checker(uint32_t n, uint64_t pc)
{
    static uint32_t turn;
    uint32_t i = turn++ % AT_ONCE;
    collect(i);
    now.checkers[i] = (struct checker){.pid = _Fork(), .n = n, .pc = pc};
    if (now.checkers[i].pid != 0)
        return;
    alarm(CHECK_SECONDS);
    const char *fault = fault_of(now.fd, ssm_load_relaxed_u32(now.created));
    if (fault != NULL)
        snprintf(now.complaints[i], sizeof now.complaints[i], "%s", fault);
    _exit(fault != NULL);
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

/* Of the file, but for what is different each time: random numbers and pids. */
static uint64_t hash_of_file(void)
{
    int64_t size = ssm_segment_file_size(now.fd);
    uint64_t hash = (uint64_t)size + ssm_load_relaxed_u32(now.created);
    if (size < (int64_t)sizeof(struct ssm_superblock))
        return hash;
    uint8_t *copy = malloc((size_t)size);
    struct ssm_geometry geometry;
    if (copy == NULL || pread(now.fd, copy, (size_t)size, 0) != size)
        abort();
    ssm_layout_compute(&pool_options, &geometry);
    struct ssm_superblock *superblock = (struct ssm_superblock *)copy;
    superblock->generation = superblock->generation != 0;
    superblock->params_hash = superblock->params_hash != 0;
    for (uint32_t i = 0; i < geometry.holders; i++)
        ((struct ssm_holder *)(copy + geometry.holders_start))[i].pid.word = 0;
    for (int64_t i = 0; i < size / 8; i++)
        hash = (hash ^ ((uint64_t *)copy)[i]) * UINT64_C(0x9e3779b97f4a7c15), hash ^= hash >> 29;
    free(copy);
    return hash;
}

static bool is_new_state(void)
{
    uint64_t hash = hash_of_file();
    for (uint32_t i = 0; i < now.row->states; i++)
        if (now.hashes[i] == hash)
            return false;
    if (now.row->states < STATES_MAX)
        now.hashes[now.row->states++] = hash;
    return true;
}

/* ---- the whole --------------------------------------------------------------------------------------------------- */

static void kill_creator_at(const struct trace *trace, uint32_t n)
{
    pid_t creator = start_creator();
    bool there = creator > 0 && stepper_run_to(creator, trace, n);
    if (creator > 0)
        stepper_kill(creator);
    if (there) {
        now.row->kills++;
        if (is_new_state())
            start_checker(n, n < trace->count ? trace->pcs[n] : 0);
    }
    close(now.fd);
}

void creation_run(uint32_t points, struct row *row)
{
    struct trace trace = {0};
    now = (struct creation){.row = row, .created = shared_memory(4096), .complaints = shared_memory(AT_ONCE * 200)};
    pid_t creator = start_creator();
    if (creator < 0 || !stepper_trace(creator, &trace, NULL, NULL) || ssm_load_relaxed_u32(now.created) == 0) {
        printf("VIOLATION  create: it does not do what it should, undisturbed\n");
        row->violations++;
    }
    if (creator > 0)
        stepper_kill(creator);
    close(now.fd);
    row->instructions[0] = trace.count;
    for (uint32_t n = 0; row->violations == 0 && n <= trace.count; n += trace.count / points + 1)
        kill_creator_at(&trace, n);
    for (uint32_t i = 0; i < AT_ONCE; i++)
        collect(i);
    stepper_trace_free(&trace);
}
