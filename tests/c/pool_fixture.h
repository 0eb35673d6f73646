/* SPDX-License-Identifier: Apache-2.0
 *
 * A small pool for the C tests, and the processes that use it.
 *
 * The name is unlinked before the pool is made, so nothing stays in /dev/shm whatever becomes of the test. Children
 * die with the test, and each process ends itself after WATCHDOG_S seconds.
 */
#ifndef TESTS_POOL_FIXTURE_H
#define TESTS_POOL_FIXTURE_H

#include "block.h"
#include "cache.h"
#include "check.h"
#include "claim.h"
#include "free.h"
#include "liveness.h"
#include "recovery.h"
#include "registry.h"
#include "registry_ids.h"
#include "ring.h"
#include "shard.h"
#include "sleep.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define MS         UINT64_C(1000000) /* in nanoseconds */
#define WATCHDOG_S 60u
#define PROMPT_NS  (5000 * MS) /* what does not wait takes microseconds; on a busy machine longer */

/* The rest of a function writes over the pool on purpose: its invariants do not hold meanwhile (invariant.h). */
static inline void fixture_damage_ends(const int *unused)
{
    (void)unused;
    SSM_EXPECT_DAMAGE(false);
}
#define EXPECT_DAMAGE __attribute__((cleanup(fixture_damage_ends), unused)) int damage_ = (SSM_EXPECT_DAMAGE(true), 0)

/* Waits for what another process does; for ten seconds at most. */
#define AWAIT(condition)                                                      \
    do {                                                                      \
        uint64_t await_until_ns_ = ssm_now_ns() + 10000 * MS;                 \
        bool await_met_; /* asked once: it may be over by the next look */    \
        while (!(await_met_ = (condition)) && ssm_now_ns() < await_until_ns_) \
            ssm_nap_ns(100000);                                               \
        CHECK(await_met_ && #condition);                                      \
    } while (0)

/* ---- processes ---------------------------------------------------------------------------------------------- */

/* Words that parent and children share, beside any pool. */
struct board {
    struct ssm_u32 step[16];
    struct ssm_u64 value[64];
};

static inline struct board *board_new(void)
{
    void *board = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(board != MAP_FAILED);
    return board;
}

static inline void board_drop(struct board *board)
{
    munmap(board, sizeof *board);
}

static inline void board_set(struct board *board, int step, uint32_t value)
{
    ssm_store_release_u32(&board->step[step], value);
}

static inline uint32_t board_get(struct board *board, int step)
{
    return ssm_load_acquire_u32(&board->step[step]);
}

static inline pid_t child_start(void (*run)(void *context), void *context)
{
    fflush(NULL);
    pid_t parent = getpid(), pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    alarm(WATCHDOG_S);
    run(context);
    fflush(NULL);
    _exit(0);
}

static inline void child_finish(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFEXITED(status));
    CHECK_EQ(WEXITSTATUS(status), 0);
}

/* Somebody died or was stopped since the last pool was made: wake-ups may be late. */
static bool fixture_harmed;

/* The child calls this where it is to die, ... */
_Noreturn static inline void die_here(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* ... and the parent waits for it. */
static inline void child_died(pid_t pid)
{
    int status;
    CHECK(waitpid(pid, &status, 0) == pid);
    CHECK(WIFSIGNALED(status));
    CHECK_EQ(WTERMSIG(status), SIGKILL);
    fixture_harmed = true;
}

static inline void child_kill(pid_t pid)
{
    CHECK(kill(pid, SIGKILL) == 0);
    child_died(pid);
}

static inline void child_stop(pid_t pid)
{
    int status;
    CHECK(kill(pid, SIGSTOP) == 0);
    CHECK(waitpid(pid, &status, WUNTRACED) == pid);
    CHECK(WIFSTOPPED(status));
    fixture_harmed = true;
}

static inline void child_continue(pid_t pid)
{
    CHECK(kill(pid, SIGCONT) == 0);
}

/* ---- pools -------------------------------------------------------------------------------------------------- */

struct fixture {
    int              fd;
    struct ssm_pool *pool;
    struct board    *board;
    void            *more; /* what else a test's children want to know */
};

static inline int fixture_file(void)
{
    static unsigned serial;
    char name[64];
    snprintf(name, sizeof name, "/ssm-test-%ld-%u", (long)getpid(), serial++);
    int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    CHECK(fd >= 0);
    CHECK(shm_unlink(name) == 0);
    return fd;
}

/* Two classes, four shards, no caches, no headroom. */
static inline struct ssm_pool_options fixture_options(void)
{
    return (struct ssm_pool_options){
        .classes = {{256, 16}, {1024, 8}},
        .class_count = 2,
        .shards = 4,
        .holders = 64,
        .metadata_bytes = 65536,
    };
}

static inline struct fixture fixture_open(const struct ssm_pool_options *options)
{
    struct fixture f = {.fd = fixture_file(), .board = board_new()};
    fixture_harmed = false;
    CHECK_EQ(ssm_pool_create(f.fd, options, &(struct ssm_attach_options){.name = "test"}, &f.pool), 0);
    return f;
}

static inline struct ssm_pool *fixture_attach(int fd, uint32_t flags)
{
    struct ssm_pool *pool;
    CHECK_EQ(ssm_pool_attach(fd, &(struct ssm_attach_options){.name = "test", .flags = flags}, &pool), 0);
    return pool;
}

/* In a child: the attachment that it inherited, as a holder of its own. */
static inline struct ssm_pool *fixture_join(const struct fixture *f)
{
    CHECK_EQ(ssm_pool_enter(f->pool), 0);
    ssm_pool_leave(f->pool);
    return f->pool;
}

static inline void fixture_print(void *context, const char *sentence)
{
    (void)context;
    fprintf(stderr, "ssm_check: %s\n", sentence);
}

static inline void fixture_check(struct ssm_pool *pool)
{
    CHECK_EQ(ssm_check(pool, fixture_print, NULL), 0);
}

static inline void fixture_reap(struct ssm_pool *pool)
{
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_reap(pool, &reaped), 0);
}

static inline void pool_end(struct ssm_pool *pool)
{
    CHECK_EQ(ssm_pool_close(pool), 0);
    ssm_pool_destroy(pool);
}

/* Of all classes, the arena's included, and rings. */
static inline uint64_t late_wakes(struct ssm_pool *pool)
{
    uint64_t late = 0;
    struct ssm_ring_stats ring;
    for (uint32_t i = 0; i < pool->geometry.class_count; i++) {
        late += ssm_load_acquire_u32(&ssm_class_at(pool, i)->several.late);
        for (uint32_t k = 0; k < pool->geometry.shards; k++)
            late += ssm_load_acquire_u32(&ssm_shard_at(pool, i, k)->event.late);
    }
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        late += ssm_ring_stats(pool, id, &ring) == 0 ? ring.late_wakes : 0;
    return late;
}

static inline void fixture_close(struct fixture *f)
{
    fixture_check(f->pool);
    CHECK(fixture_harmed || late_wakes(f->pool) == 0);
    pool_end(f->pool);
    CHECK(close(f->fd) == 0);
    board_drop(f->board);
}

/* What a user can do who may only read the file. */
static inline int read_lock(int fd, uint64_t byte)
{
    struct flock range = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &range);
}

/* Kills the attachment alone: what becomes of it plays a dead process, or one that dies where it wants to, in any copy of
 * the segment. `fd` is where it looks for the living; whoever else uses that description counts as dead for it. */
static inline struct ssm_pool kill_attachment(struct ssm_pool *pool, int fd)
{
    struct ssm_pool dead = *pool;
    fixture_harmed = true;
    ssm_description_drop(&pool->alive, &pool->file);
    ssm_file_close(&pool->fd, &pool->file);
    dead.flags |= SSM_SERIAL;
    dead.fd = fd;
    dead.registry = dead.alive = SSM_NO_DESCRIPTION;
    return dead;
}

/* ---- death at every step of something that is written down by hand ------------------------------------------ */

enum { STEPS_LEFT = 15 }; /* of struct board's steps: before which one the child dies */

struct deaths {
    struct ssm_pool_options options;
    void (*prepare)(struct fixture *f); /* may be NULL */
    void (*run)(void *fixture);         /* in the child; calls step() before each of its steps */
    void (*after)(struct fixture *f);   /* in the parent, once the child is dead */
};

static inline void step(struct fixture *f)
{
    uint32_t left = board_get(f->board, STEPS_LEFT);
    if (left == 0)
        die_here();
    board_set(f->board, STEPS_LEFT, left - 1);
}

/* In a fresh pool each: dies before the first step, before the second, ..., behind the last. How often. */
static inline uint32_t die_everywhere(const struct deaths *d)
{
    uint32_t count = 0;
    for (bool finished = false; !finished && count < 100; count++) {
        int status;
        struct fixture f = fixture_open(&d->options);
        if (d->prepare != NULL)
            d->prepare(&f);
        board_set(f.board, STEPS_LEFT, count);
        pid_t child = child_start(d->run, &f);
        CHECK(waitpid(child, &status, 0) == child);
        finished = WIFEXITED(status) && WEXITSTATUS(status) == 0;
        CHECK(finished || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL));
        d->after(&f);
        fixture_close(&f);
    }
    return count;
}

/* ---- looking at a pool -------------------------------------------------------------------------------------- */

/* By the truth. */
static inline uint32_t free_blocks(const struct ssm_pool *pool, uint32_t class_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->block_count; i++)
        count += ssm_block_is_free(pool, ssm_block_at(pool, c->first_block + i));
    return count;
}

static inline uint32_t held_by(const struct ssm_pool *pool, uint32_t class_idx, uint32_t holder)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    uint32_t count = 0;
    for (uint32_t i = 0; i < c->block_count; i++)
        count += ssm_block_has(ssm_block_at(pool, c->first_block + i), holder);
    return count;
}

/* By the lists. */
static inline uint32_t shard_free(const struct ssm_pool *pool, uint32_t class_idx, uint32_t shard_idx)
{
    return ssm_load_acquire_u32(&ssm_shard_at(pool, class_idx, shard_idx)->free_count);
}

static inline uint32_t listed_blocks(const struct ssm_pool *pool, uint32_t class_idx)
{
    uint32_t count = 0;
    for (uint32_t shard_idx = 0; shard_idx < pool->geometry.shards; shard_idx++)
        count += shard_free(pool, class_idx, shard_idx);
    return count;
}

static inline uint32_t cached_blocks(const struct ssm_pool *pool, uint32_t class_idx)
{
    return ssm_load_acquire_u32(&ssm_cache_at(pool, pool->self, class_idx)->count);
}

static inline uint32_t block_of(uint64_t handle)
{
    return (uint32_t)handle;
}

/* Takes every block there is, each once, and gives them back: nothing is lost, nothing doubled. */
static inline void check_all_there(struct ssm_pool *pool, uint32_t class_idx)
{
    const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
    uint64_t *handles = calloc(c->block_count, sizeof *handles), more;
    uint64_t size = c->block_size - pool->geometry.headroom - pool->geometry.tailroom;
    CHECK(handles != NULL);
    CHECK_EQ(ssm_alloc_many(pool, size, c->block_count, 0, handles), 0);
    CHECK_EQ(ssm_alloc(pool, size, 0, &more), -SSM_E_EXHAUSTED);
    CHECK_EQ(held_by(pool, class_idx, pool->self), c->block_count);
    for (uint32_t i = 0; i < c->block_count; i++)
        for (uint32_t k = 0; k < i; k++)
            CHECK(block_of(handles[i]) != block_of(handles[k]));
    CHECK_EQ(ssm_free_many(pool, handles, c->block_count), 0);
    free(handles);
}

static inline struct ssm_ring *ring_open(struct ssm_pool *pool, const char *name, uint32_t capacity, uint32_t flags)
{
    struct ssm_ring *ring;
    CHECK_EQ(ssm_ring_open(pool, name, &(struct ssm_ring_options){.capacity = capacity, .flags = flags}, &ring), 0);
    return ring;
}

/* The holder id of the only ring of that name. */
static inline uint32_t ring_id(const struct ssm_pool *pool, const char *name)
{
    for (uint32_t id = 0; id < ssm_holder_high(pool); id++)
        if (ssm_load_acquire_u32(&ssm_holder_at(pool, id)->kind) == SSM_HOLDER_RING &&
            strcmp(ssm_holder_at(pool, id)->name, name) == 0)
            return id;
    fprintf(stderr, "there is no ring \"%s\"\n", name);
    exit(1);
}

/* ---- packets ------------------------------------------------------------------------------------------------- */

static inline uint64_t fixture_alloc(struct ssm_pool *pool, uint64_t size)
{
    uint64_t handle;
    CHECK_EQ(ssm_alloc(pool, size, 0, &handle), 0);
    return handle;
}

static inline struct ssm_packet fixture_view(struct ssm_pool *pool, uint64_t handle)
{
    struct ssm_packet packet;
    CHECK_EQ(ssm_packet_view(pool, handle, &packet), 0);
    CHECK_EQ(packet.headroom + packet.length + packet.tailroom, packet.block_size);
    return packet;
}

#endif
