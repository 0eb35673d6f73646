/* SPDX-License-Identifier: Apache-2.0
 *
 * The life of an attachment: create, attach, fork, close; the end of a pool. */
#include "pool_fixture.h"

#include <linux/filter.h>
#include <linux/membarrier.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>

#define BLOCKS 16

enum { READY, GO, SELF }; /* steps of the board */

static const struct ssm_attach_options plain;

static int try_attach(int fd, uint32_t flags)
{
    struct ssm_pool *pool;
    int result = ssm_pool_attach(fd, &(struct ssm_attach_options){.flags = flags}, &pool);
    if (result == 0)
        pool_end(pool);
    return result;
}

static int try_create(int fd, const struct ssm_pool_options *options, uint32_t flags)
{
    struct ssm_pool *pool;
    int result = ssm_pool_create(fd, options, &(struct ssm_attach_options){.flags = flags}, &pool);
    if (result == 0)
        pool_end(pool);
    return result;
}

/* ---- create ------------------------------------------------------------------------------------------------- */

static void test_create(void)
{
    struct ssm_pool_options options = fixture_options();
    int fd = fixture_file();
    CHECK_EQ(try_create(-1, &options, 0), -EBADF);
    CHECK_EQ(try_create(fd, &options, SSM_READONLY), -EINVAL);
    options.shards = 0;
    CHECK_EQ(try_create(fd, &options, 0), -EINVAL);
    options.shards = 4;
    CHECK_EQ(ssm_segment_file_size(fd), 0); /* a refusal leaves nothing behind */
    CHECK_EQ(try_create(fd, &options, SSM_PREFAULT | SSM_HUGEPAGES | SSM_SERIAL), 0);
    CHECK_EQ(try_create(fd, &options, 0), -EEXIST);
    CHECK_EQ(try_attach(fd, SSM_PREFAULT | SSM_HUGEPAGES | SSM_MLOCK), 0);
    CHECK(fcntl(fd, F_GETFD) >= 0); /* the caller's, and stays so */
    close(fd);
}

static void test_create_without_memory(void)
{
    struct ssm_pool_options options = fixture_options();
    struct statvfs fs;
    int fd = fixture_file();
    CHECK(fstatvfs(fd, &fs) == 0);
    options.classes[1] = (struct ssm_class_spec){UINT64_C(1) << 50, 1};
    int result = try_create(fd, &options, 0);
    CHECK(result < 0);
    if (fs.f_blocks != 0)
        CHECK_EQ(result, -ENOSPC);
    close(fd);
}

static void test_info(void)
{
    struct ssm_pool_options options = fixture_options();
    options.headroom = 5;
    options.holders = 65;
    options.flags = SSM_EPHEMERAL;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    struct ssm_pool_info info, seen;
    CHECK_EQ(ssm_pool_info(f.pool, &info), 0);
    CHECK_EQ(ssm_pool_info(reader, &seen), 0);
    CHECK_EQ(info.size_bytes, ssm_segment_file_size(f.fd));
    CHECK(info.generation != 0 && info.generation == seen.generation);
    CHECK(info.class_count == 2 && info.shards == 4 && info.headroom == 5 && info.tailroom == 0 && info.cache == 0);
    CHECK(info.holders == 128 && info.flags == SSM_EPHEMERAL);
    CHECK(info.classes[1].block_size == 1024 && info.classes[1].block_count == 8);
    CHECK(info.self == 0 && seen.self == UINT32_MAX);
    pool_end(reader);
    fixture_close(&f);
}

/* ---- attach ------------------------------------------------------------------------------------------------- */

static void test_not_a_pool(void)
{
    int fd = fixture_file();
    uint8_t bytes[8192];
    memset(bytes, 'x', sizeof bytes);
    CHECK(pwrite(fd, bytes, 100, 0) == 100);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_LAYOUT); /* too short */
    CHECK_EQ(ssm_pool_retire(fd, NULL), -SSM_E_LAYOUT);
    CHECK(pwrite(fd, bytes, sizeof bytes, 0) == sizeof bytes);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_LAYOUT);
    CHECK_EQ(try_attach(fd, SSM_READONLY), -SSM_E_LAYOUT);
    CHECK_EQ(ssm_pool_retire(fd, NULL), -SSM_E_LAYOUT);
    close(fd);
}

/* Nor is what is no plain file; nobody waits for a FIFO's other end. */
static void test_not_a_file(void)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    for (int i = 0; i < 2; i++) {
        struct ssm_pool_options options = fixture_options();
        struct ssm_pool *pool;
        CHECK_EQ(try_attach(ends[i], 0), -SSM_E_LAYOUT);
        CHECK_EQ(try_attach(ends[i], SSM_READONLY), -SSM_E_LAYOUT);
        CHECK_EQ(ssm_pool_retire(ends[i], NULL), -SSM_E_LAYOUT);
        CHECK_EQ(ssm_pool_create(ends[i], &options, NULL, &pool), -SSM_E_LAYOUT);
        close(ends[i]);
    }
}

static void scribble(int fd, size_t offset, uint32_t word)
{
    CHECK(pwrite(fd, &word, sizeof word, (off_t)offset) == sizeof word);
}

static void test_damaged_pool(void)
{
    struct ssm_pool_options options = fixture_options();
    int fd = fixture_file();
    CHECK_EQ(try_create(fd, &options, 0), 0);
    int64_t size = ssm_segment_file_size(fd);
    scribble(fd, offsetof(struct ssm_superblock, state), 12345);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_CORRUPT);
    scribble(fd, offsetof(struct ssm_superblock, state), SSM_STATE_POISONED);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_ABANDONED);
    scribble(fd, offsetof(struct ssm_superblock, state), SSM_STATE_READY);
    CHECK_EQ(try_attach(fd, 0), 0);
    CHECK(ftruncate(fd, size - 1) == 0);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_CORRUPT);
    CHECK(ftruncate(fd, size) == 0);
    scribble(fd, offsetof(struct ssm_superblock, shards), 5);
    CHECK_EQ(try_attach(fd, 0), -SSM_E_CORRUPT);
    close(fd);
}

/* What is not finished is no pool: neither an empty file, nor one that lacks the magic alone. It is nobody's to retire. */
static void test_unfinished(void)
{
    struct ssm_pool_options options = fixture_options();
    int fd = fixture_file();
    for (int finished = 0; finished < 2; finished++) {
        CHECK_EQ(try_attach(fd, 0), -SSM_E_LAYOUT);
        CHECK_EQ(try_attach(fd, SSM_READONLY), -SSM_E_LAYOUT);
        CHECK_EQ(ssm_pool_retire(fd, NULL), -SSM_E_LAYOUT);
        CHECK_EQ(try_create(fd, &options, 0), finished ? -EEXIST : 0);
        scribble(fd, offsetof(struct ssm_superblock, magic), 0);
    }
    close(fd);
}

/* The hooks of a creator that gives up, or a lack of memory to lock: the file is as it was. */
static int give_up(void *state)
{
    (void)state;
    return 1;
}

static void test_create_gives_up(void)
{
    struct ssm_pool_options options = fixture_options();
    struct ssm_pool *pool;
    int fd = fixture_file();
    options.classes[1] = (struct ssm_class_spec){1 << 20, 100};
    CHECK_EQ(ssm_pool_create(fd, &options, &(struct ssm_attach_options){.hooks = {.after = give_up}}, &pool), -EINTR);
    CHECK_EQ(ssm_segment_file_size(fd), 0);
    CHECK_EQ(try_create(fd, &options, 0), 0);
    close(fd);
}

static void race(void *context)
{
    struct fixture *f = context;
    struct ssm_pool_options options = fixture_options();
    AWAIT(board_get(f->board, GO) == 1);
    int result = ssm_pool_create(f->fd, &options, &plain, &f->pool);
    CHECK(result == 0 || result == -EEXIST);
    ssm_add_acqrel_u32(&f->board->step[READY], result == 0);
    if (result != 0)
        f->pool = fixture_attach(f->fd, 0);
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f->pool, 256, 0, &handle), 0);
    CHECK_EQ(ssm_free(f->pool, handle), 0);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
}

static void test_one_creator_wins(void)
{
    for (int round = 0; round < 10; round++) {
        struct fixture f = {.fd = fixture_file(), .board = board_new()};
        pid_t children[3];
        for (int i = 0; i < 3; i++)
            children[i] = child_start(race, &f);
        board_set(f.board, GO, 1);
        for (int i = 0; i < 3; i++)
            child_finish(children[i]);
        CHECK_EQ(board_get(f.board, READY), 1);
        f.pool = fixture_attach(f.fd, 0);
        check_all_there(f.pool, 0);
        fixture_close(&f);
    }
}

static void test_readonly(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    int fd = ssm_file_reopen(f.fd, false);
    struct ssm_pool *reader;
    CHECK_EQ(ssm_pool_attach(fd, &(struct ssm_attach_options){.flags = SSM_READONLY}, &reader), 0);
    CHECK_EQ(ssm_holder_high(f.pool), 1); /* took no slot */
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    CHECK(ssm_block_is_exactly(reader, ssm_block_at(reader, block_of(handle)), 0)); /* sees what is going on */
    CHECK_EQ(pread(f.fd, reader->base, 1, 0), -1);                                  /* cannot write: EFAULT */
    CHECK_EQ(errno, EFAULT);
    fixture_check(reader);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    pool_end(reader);
    close(fd);
    fixture_close(&f);
}

/* ---- close, pins -------------------------------------------------------------------------------------------- */

static void test_close(void)
{
    struct ssm_pool_options options = fixture_options();
    options.cache = 2;
    struct fixture f = fixture_open(&options);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint64_t handles[4];
    CHECK_EQ(ssm_alloc_many(other, 256, 4, 0, handles), 0);
    CHECK_EQ(ssm_free(other, handles[3]), 0);
    CHECK_EQ(ssm_packet_pin(other, handles[0]), 0);
    CHECK_EQ(ssm_packet_hold(other, handles[0]), 0); /* two references, one of them pinned */
    CHECK_EQ(ssm_packet_pin(other, handles[1]), 0);
    uint32_t slot = other->self;
    CHECK_EQ(ssm_pool_close(other), 2); /* two blocks stay */
    CHECK_EQ(ssm_pool_close(other), 2);
    CHECK_EQ(held_by(f.pool, 0, slot) - ssm_load_relaxed_u32(&ssm_cache_at(f.pool, slot, 0)->count), 2);
    CHECK(!ssm_holder_slot_is_dead(f.pool, slot));
    CHECK_EQ(ssm_free(other, handles[0]), -SSM_E_CLOSED);
    CHECK_EQ(ssm_packet_unpin(other, handles[2], 1), -SSM_E_STALE);
    CHECK_EQ(ssm_packet_unpin(other, handles[0], 0), 0);
    CHECK_EQ(ssm_pool_close(other), 1);
    CHECK_EQ(ssm_packet_unpin(other, handles[1], 0), 0); /* the last one finishes the close */
    CHECK_EQ(ssm_load_relaxed_u32(&ssm_holder_at(f.pool, slot)->kind), SSM_HOLDER_NONE);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    CHECK_EQ(ssm_pool_close(other), 0);
    ssm_pool_destroy(other);
    ssm_pool_destroy(NULL);
    fixture_close(&f);
}

/* Destroyed with pins left: the rest is a dead process's. */
static void test_destroy_with_pins(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    uint64_t handle;
    CHECK_EQ(ssm_alloc(other, 256, 0, &handle), 0);
    CHECK_EQ(ssm_packet_pin(other, handle), 0);
    ssm_pool_destroy(other);
    check_all_there(f.pool, 0);
    fixture_close(&f);
}

/* ---- fork --------------------------------------------------------------------------------------------------- */

static void be_a_child(void *context)
{
    struct fixture *f = context;
    const uint64_t handle = *(const uint64_t *)f->more;
    uint64_t own;
    struct ssm_pool_info info;
    CHECK_EQ(*ssm_pool_era(f->pool), board_get(f->board, GO) + 1);
    CHECK_EQ(ssm_pool_info(f->pool, &info), 0); /* looking does not make it a holder */
    CHECK_EQ(info.self, UINT32_MAX);
    CHECK_EQ(ssm_packet_unpin(f->pool, handle, 1), -SSM_E_STALE);
    CHECK_EQ(ssm_free(f->pool, handle), -SSM_E_STALE); /* it holds nothing that its parent held */
    CHECK_EQ(ssm_pool_info(f->pool, &info), 0);
    board_set(f->board, SELF, info.self);
    CHECK_EQ(ssm_alloc(f->pool, 256, 0, &own), 0);
    CHECK(block_of(own) != block_of(handle));
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, READY) == 2);
    CHECK_EQ(ssm_free(f->pool, own), 0);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
    ssm_pool_destroy(f->pool);
}

static void have_a_child(void *context)
{
    struct fixture *f = context;
    board_set(f->board, GO, 1);
    child_finish(child_start(be_a_child, f));
}

static void check_fork(void (*run)(void *))
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    CHECK_EQ(ssm_packet_pin(f.pool, handle), 0);
    f.more = &handle;
    pid_t child = child_start(run, &f);
    AWAIT(board_get(f.board, READY) == 1);
    CHECK(board_get(f.board, SELF) != f.pool->self);
    CHECK_EQ(*ssm_pool_era(f.pool), 0);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 2);
    board_set(f.board, READY, 2);
    child_finish(child);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    struct ssm_packet packet;
    CHECK_EQ(ssm_packet_view(f.pool, handle, &packet), 0); /* the child's end is not the parent's */
    CHECK_EQ(ssm_packet_unpin(f.pool, handle, 1), 0);
    fixture_close(&f);
}

static void close_and_destroy(void *context)
{
    struct fixture *f = context;
    CHECK_EQ(ssm_pool_close(f->pool), 0); /* before it was a holder */
    CHECK_EQ(ssm_free(f->pool, 0), -SSM_E_CLOSED);
    ssm_pool_destroy(f->pool);
}

static void do_nothing(void *context)
{
    (void)context;
}

/* A child that does not touch the pool, and one that closes it, take nothing from the parent. */
static void test_fork_without_use(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    uint64_t handle;
    CHECK_EQ(ssm_alloc(f.pool, 256, 0, &handle), 0);
    child_finish(child_start(do_nothing, &f));
    child_finish(child_start(close_and_destroy, &f));
    CHECK_EQ(ssm_holder_high(f.pool), 1);
    struct ssm_pool *other = fixture_attach(f.fd, 0);
    CHECK(!ssm_holder_slot_is_dead(other, f.pool->self));
    fixture_reap(other);
    CHECK_EQ(ssm_free(f.pool, handle), 0);
    pool_end(other);
    pool_end(reader);
    fixture_close(&f);
}

/* The parent dies first: the child does not keep it alive, and goes on. */
static void fork_and_die(void *context)
{
    struct fixture *f = context;
    uint64_t handle;
    CHECK_EQ(ssm_alloc(fixture_join(f), 256, 0, &handle), 0);
    board_set(f->board, SELF, f->pool->self);
    fflush(NULL);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid != 0)
        die_here();
    alarm(10);
    AWAIT(board_get(f->board, GO) == 1);
    CHECK_EQ(ssm_alloc(f->pool, 256, 0, &handle), 0);
    board_set(f->board, READY, 1);
    AWAIT(board_get(f->board, GO) == 2);
    CHECK_EQ(ssm_pool_close(f->pool), 0);
    board_set(f->board, READY, 2);
    _exit(0);
}

static void test_parent_dies_first(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    child_died(child_start(fork_and_die, &f));
    AWAIT(ssm_holder_slot_is_dead(f.pool, board_get(f.board, SELF))); /* with its child alive */
    struct ssm_reaped reaped;
    CHECK_EQ(ssm_reap(f.pool, &reaped), 0);
    CHECK(reaped.processes == 1 && reaped.blocks == 1);
    board_set(f.board, GO, 1);
    AWAIT(board_get(f.board, READY) == 1);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS - 1);
    board_set(f.board, GO, 2);
    AWAIT(board_get(f.board, READY) == 2);
    CHECK_EQ(free_blocks(f.pool, 0), BLOCKS);
    fixture_close(&f);
}

/* ---- the end of a pool -------------------------------------------------------------------------------------- */

static int retire(int fd)
{
    int own = ssm_file_reopen(fd, true);
    CHECK(own >= 0);
    int result = ssm_pool_retire(own, NULL);
    close(own);
    return result;
}

static void test_retire(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    CHECK_EQ(retire(f.fd), 0);
    pool_end(f.pool);
    CHECK_EQ(retire(f.fd), 0); /* meant to stay */
    f.pool = fixture_attach(f.fd, 0);
    fixture_close(&f);

    options.flags = SSM_EPHEMERAL;
    f = fixture_open(&options);
    struct ssm_pool *reader = fixture_attach(f.fd, SSM_READONLY);
    CHECK_EQ(retire(f.fd), 0); /* somebody lives */
    pool_end(f.pool);
    CHECK_EQ(retire(f.fd), 1);
    CHECK_EQ(try_attach(f.fd, 0), -SSM_E_ABANDONED);
    CHECK_EQ(try_attach(f.fd, SSM_READONLY), -SSM_E_ABANDONED);
    CHECK_EQ(retire(f.fd), 1); /* whoever asks next may unlink it, too */
    pool_end(reader);
    close(f.fd);
    board_drop(f.board);
}

/* Another user's pool is not this one's to end, not even for root. */
static void test_retire_of_another_user(void)
{
    struct ssm_pool_options options = fixture_options();
    options.flags = SSM_EPHEMERAL;
    struct fixture f = fixture_open(&options);
    pool_end(f.pool);
    if (geteuid() != 0) {
        puts("note: only root can give a file away, retiring another user's is not tested");
    } else {
        CHECK(fchown(f.fd, 54321, 54321) == 0);
        CHECK_EQ(retire(f.fd), 0);
        CHECK(fchown(f.fd, 0, 0) == 0);
    }
    CHECK_EQ(retire(f.fd), 1);
    close(f.fd);
    board_drop(f.board);
}

static void attach_and_die(void *context)
{
    struct fixture *f = context;
    fixture_attach(f->fd, 0);
    die_here();
}

static void test_retire_after_a_crash(void)
{
    struct ssm_pool_options options = fixture_options();
    options.flags = SSM_EPHEMERAL;
    struct fixture f = fixture_open(&options);
    child_died(child_start(attach_and_die, &f));
    CHECK_EQ(retire(f.fd), 0);
    pool_end(f.pool);
    CHECK_EQ(retire(f.fd), 1); /* the dead do not count */
    close(f.fd);
    board_drop(f.board);
}

/* Retiring and attaching at the same time: never both. */
static void attach_often(void *context)
{
    struct fixture *f = context;
    int result = 0;
    while (result == 0) {
        struct ssm_pool *pool;
        result = ssm_pool_attach(f->fd, &plain, &pool);
        if (result != 0)
            break;
        uint64_t handle;
        CHECK_EQ(ssm_alloc(pool, 256, 0, &handle), 0);
        CHECK_EQ(ssm_load_acquire_u32(&ssm_superblock_of(pool)->state), SSM_STATE_READY);
        CHECK_EQ(ssm_pool_close(pool), 0);
        ssm_pool_destroy(pool);
    }
    CHECK_EQ(result, -SSM_E_ABANDONED);
}

static void test_retire_races_with_attach(void)
{
    struct ssm_pool_options options = fixture_options();
    options.flags = SSM_EPHEMERAL;
    for (int round = 0; round < 5; round++) {
        struct fixture f = fixture_open(&options);
        pid_t child = child_start(attach_often, &f);
        pool_end(f.pool);
        AWAIT(retire(f.fd) == 1);
        child_finish(child);
        close(f.fd);
        board_drop(f.board);
    }
}

/* ---- what takes long is done without the registry ------------------------------------------------------------- */

static int registry_fd;               /* a description of its own, which the lock of this process conflicts with */
static volatile int registrations[2]; /* for membarrier: without the lock, and with it */

static void on_registration(int signal_number)
{
    (void)signal_number;
    registrations[ssm_byte_is_locked(registry_fd, SSM_BYTE_REGISTRY)]++;
}

/* The kernel asks on_registration() instead of registering the process for membarrier. */
static void watch_registrations(void)
{
    const struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], (struct sock_filter *)filter};
    const struct sigaction action = {.sa_handler = on_registration};
    CHECK(sigaction(SIGSYS, &action, NULL) == 0);
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void use_in_a_child(void *context)
{
    struct ssm_pool *pool = context;
    const uint64_t handle = fixture_alloc(pool, 256);
    CHECK(registrations[0] > 1 && registrations[1] == 0);
    CHECK_EQ(ssm_free(pool, handle), 0);
    pool_end(pool);
}

static void attach_and_fork(void *context)
{
    const struct fixture *f = context;
    registry_fd = ssm_file_reopen(f->fd, true);
    CHECK(registry_fd >= 0);
    watch_registrations();
    struct ssm_pool *pool = fixture_attach(f->fd, 0);
    CHECK(registrations[0] == 1 && registrations[1] == 0);
    child_finish(child_start(use_in_a_child, pool));
    pool_end(pool);
}

/* In a process with threads the kernel registers it after an RCU grace period, which may take seconds. */
static void test_membarrier_is_registered_without_the_lock(void)
{
    struct ssm_pool_options options = fixture_options();
    struct fixture f = fixture_open(&options);
    child_finish(child_start(attach_and_fork, &f));
    fixture_close(&f);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_membarrier_is_registered_without_the_lock();
    test_create();
    test_create_without_memory();
    test_info();
    test_not_a_pool();
    test_not_a_file();
    test_damaged_pool();
    test_unfinished();
    test_create_gives_up();
    test_one_creator_wins();
    test_readonly();
    test_close();
    test_destroy_with_pins();
    check_fork(be_a_child);
    check_fork(have_a_child);
    test_fork_without_use();
    test_parent_dies_first();
    test_retire();
    test_retire_of_another_user();
    test_retire_after_a_crash();
    test_retire_races_with_attach();
    return 0;
}
