/* SPDX-License-Identifier: Apache-2.0
 *
 * Death of the creator; see creation.h. Before it has a name nobody can reach the pool, and only system calls make a
 * difference; from then on each instruction is tried. There are two states that a death can leave, without the name and with it; the pool
 * that a dead creator left is used by another process each time, for it might be half a pool. */
#include "creation.h"

#include "layout.h"
#include "stepper.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define BLOCKS        8
#define CHECK_SECONDS 20

static struct creation {
    char name[64];
    struct ssm_u32 *created; /* shared: it was all done */
    char *complaint;         /* shared: of the checker */
    struct row *row;
    pid_t creator;
    uint8_t *is_first; /* by instruction: it may leave something else than the one before */
    uint32_t room;
} now;

static const struct ssm_pool_options pool_options = {
    .classes = {{64, BLOCKS}},
    .class_count = 1,
    .shards = 2,
    .holders = 64,
    .cache = 1,
    .metadata_bytes = 4096,
};

static void *shared_memory(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

static int make(const char *name, const char *who, struct ssm_pool **pool_out)
{
    int fd = ssm_object_new();
    int result = fd < 0 ? fd : ssm_pool_create(fd, &pool_options, &(struct ssm_attach_options){.name = who}, pool_out);
    if (result == 0)
        result = ssm_object_link(fd, name);
    close(fd);
    return result;
}

static void play_creator(void *context)
{
    struct ssm_pool *pool;
    (void)context;
    stepper_stop();
    if (make(now.name, "creator", &pool) == 0)
        ssm_store_release_u32(now.created, 1);
}

static pid_t start_creator(void)
{
    ssm_store_relaxed_u32(now.created, 0);
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

static const char *fault_of(void)
{
    struct ssm_pool *pool;
    int fd = ssm_object_open(now.name, 1);
    if (fd < 0 && (fd != -ENOENT || ssm_load_relaxed_u32(now.created)))
        return "the name that was given is not there";
    if (fd < 0)
        return make(now.name, "next", &pool) == 0 ? use(pool) : "the next create fails";
    if (make(now.name, "next", &pool) != -EEXIST)
        return "a finished pool was replaced";
    int result = ssm_pool_attach(fd, &(struct ssm_attach_options){.name = "attacher"}, &pool);
    return result == 0 ? use(pool) : "attach fails";
}

static void check(uint32_t n, uint64_t pc)
{
    int status;
    pid_t checker = _Fork();
    if (checker == 0) {
        alarm(CHECK_SECONDS);
        const char *fault = fault_of();
        if (fault != NULL)
            snprintf(now.complaint, 200, "%s", fault);
        _exit(fault != NULL);
    }
    waitpid(checker, &status, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return;
    now.row->violations++;
    printf("VIOLATION  create: killed before instruction %u, pc %#lx\n           %s\n", n, (unsigned long)pc,
           WIFEXITED(status) ? now.complaint : "the attacher hangs or crashed");
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
        check(n, n < trace->count ? trace->pcs[n] : 0);
    }
    shm_unlink(now.name);
}

static bool is_named(void)
{
    int fd = ssm_object_open(now.name, 0);
    if (fd >= 0)
        close(fd);
    return fd >= 0;
}

static void watch(void *context, uint32_t n)
{
    (void)context;
    if (n + 1 >= now.room) {
        now.room = n * 2 + 4096;
        uint8_t *is_first = realloc(now.is_first, now.room);
        if (is_first == NULL)
            abort();
        now.is_first = is_first;
    }
    const bool behind_a_call = n > 0 && now.is_first[n] != 0, at_a_call = stepper_is_at_a_call(now.creator);
    now.is_first[n] = n == 0 || behind_a_call || at_a_call || is_named();
    now.is_first[n + 1] = at_a_call;
}

static void kill_creators(const struct trace *trace, uint32_t points)
{
    for (uint32_t n = 0; n <= trace->count; n++)
        if (now.is_first[n] || n == trace->count || (points > 0 && n % (trace->count / (points + 1) + 1) == 0))
            kill_creator_at(trace, n);
}

void creation_run(uint32_t points, struct row *row)
{
    struct trace trace = {0};
    now = (struct creation){.row = row, .created = shared_memory(4096), .complaint = shared_memory(4096)};
    snprintf(now.name, sizeof now.name, "/ssm-killer-%ld", (long)getpid());
    row->states = 2;
    now.creator = start_creator();
    if (now.creator < 0 || !stepper_trace(now.creator, &trace, watch, NULL) || ssm_load_relaxed_u32(now.created) == 0) {
        printf("VIOLATION  create: it does not do what it should, undisturbed\n");
        row->violations++;
    }
    if (now.creator > 0)
        stepper_kill(now.creator);
    shm_unlink(now.name);
    row->instructions[0] = trace.count;
    if (row->violations == 0)
        kill_creators(&trace, points);
    stepper_trace_free(&trace);
    free(now.is_first);
}
