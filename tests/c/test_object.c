/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects: made without a name, named when ready; temporary names, and who removes them. */
#include "object.h"
#include "pool_fixture.h"

#include <inttypes.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DIRECTORY "/dev/shm"
#define TEMPORARY ".ssm-new-"

static char name[64], path[96];

static void new_name(void)
{
    static unsigned serial;
    snprintf(name, sizeof name, "/ssm-test-object-%ld-%u", (long)getpid(), serial++);
    snprintf(path, sizeof path, DIRECTORY "%s", name);
}

static bool exists(void)
{
    return access(path, F_OK) == 0;
}

/* From here on this process's kernel has no unnamed files. */
static void forbid_unnamed_files(void)
{
#ifdef SYS_open
    const uint32_t older = SYS_open; /* musl's open() */
#else
    const uint32_t older = SYS_openat;
#endif
    const struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, older, 3, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_STMT(BPF_JMP | BPF_JA, 1),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_STMT(BPF_ALU | BPF_AND | BPF_K, O_TMPFILE),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, O_TMPFILE, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EOPNOTSUPP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const struct sock_fprog program = {sizeof filter / sizeof filter[0], (struct sock_filter *)filter};
    CHECK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    CHECK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static void temporary_of(int fd, char temporary_out[96])
{
    char link_path[32];
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    memset(temporary_out, 0, 96);
    CHECK(readlink(link_path, temporary_out, 95) > 0);
    CHECK(strncmp(temporary_out, DIRECTORY "/" TEMPORARY, strlen(DIRECTORY "/" TEMPORARY)) == 0);
    CHECK(access(temporary_out, F_OK) == 0);
}

/* ---- one process ------------------------------------------------------------------------------------------------ */

static void test_life(bool named)
{
    struct stat st;
    new_name();
    int fd = ssm_object_new();
    CHECK(fd >= 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == named && st.st_size == 0 && (st.st_mode & 0777) == 0600);
    CHECK_EQ(ssm_object_open(name, 0), -ENOENT);
    CHECK_EQ(ssm_object_unlink(fd, name), 0);
    CHECK(write(fd, "ready", 5) == 5 && fchmod(fd, 0640) == 0);
    CHECK_EQ(ssm_object_link(fd, name), 0);
    CHECK(fstat(fd, &st) == 0 && st.st_nlink == 1 && (st.st_mode & 0777) == 0640);

    int same = ssm_object_open(name, 0), other = ssm_object_new();
    CHECK(fstat(same, &st) == 0 && st.st_size == 5 && write(same, "x", 1) == -1);
    CHECK_EQ(ssm_object_link(other, name), -EEXIST);
    CHECK_EQ(ssm_object_unlink(other, name), 0); /* another object's */
    CHECK(exists());
    CHECK_EQ(ssm_object_unlink(same, name), 1);
    CHECK(!exists());
    CHECK_EQ(ssm_object_link(other, name), 0); /* a refusal has taken nothing */
    CHECK_EQ(ssm_object_unlink(other, name), 1);
    close(fd);
    close(same);
    close(other);
}

static void test_names(void)
{
    int fd = ssm_object_new();
    char longest[300];
    memset(longest, 'x', sizeof longest);
    longest[256] = '\0';
    static const char *const bad[] = {"", "/", ".", "/..", "a/b", "//a", (TEMPORARY "0123456789abcdef")};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_EQ(ssm_object_link(fd, bad[i]), -EINVAL);
        CHECK_EQ(ssm_object_open(bad[i], 0), -EINVAL);
        CHECK_EQ(ssm_object_unlink(fd, bad[i]), -EINVAL);
    }
    CHECK_EQ(ssm_object_link(fd, longest), -EINVAL);
    CHECK_EQ(ssm_object_link(-1, "ssm-test-object-never"), -EBADF);
    close(fd);
}

static void test_what_is_no_file(void)
{
    for (int writable = 0; writable < 2; writable++) {
        new_name();
        CHECK(mkdir(path, 0700) == 0);
        CHECK_EQ(ssm_object_open(name, writable), -SSM_E_LAYOUT);
        CHECK(rmdir(path) == 0 && mkfifo(path, 0600) == 0);
        CHECK_EQ(ssm_object_open(name, writable), -SSM_E_LAYOUT);
        CHECK(unlink(path) == 0 && symlink("/dev/zero", path) == 0);
        CHECK_EQ(ssm_object_open(name, writable), -SSM_E_LAYOUT);
        CHECK(unlink(path) == 0);
    }
}

/* ---- temporary names -------------------------------------------------------------------------------------------- */

struct shared {
    struct board *board;
    char         *temporary;
};

static void make_and_die(void *context)
{
    struct shared *shared = context;
    int fd = ssm_object_new();
    CHECK(fd >= 0);
    temporary_of(fd, shared->temporary);
    board_set(shared->board, 0, 1);
    AWAIT(board_get(shared->board, 0) == 2);
    die_here();
}

/* A living maker's file stays, a dead one's goes: with a sweep, and with the next that is made. */
static void test_sweep(bool by_making)
{
    struct shared shared = {board_new(), mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0)};
    pid_t child = child_start(make_and_die, &shared);
    AWAIT(board_get(shared.board, 0) == 1);
    ssm_object_sweep();
    CHECK(access(shared.temporary, F_OK) == 0);
    board_set(shared.board, 0, 2);
    child_died(child);
    if (by_making)
        close(ssm_object_new());
    else
        ssm_object_sweep();
    CHECK(access(shared.temporary, F_OK) != 0);
    munmap(shared.temporary, 4096);
    board_drop(shared.board);
}

/* A finished object whose maker died before it removed the temporary name keeps its own. */
static void test_sweep_second_name(void)
{
    char temporary[96];
    new_name();
    int fd = ssm_object_new();
    temporary_of(fd, temporary);
    CHECK(link(temporary, path) == 0);
    close(fd);
    ssm_object_sweep();
    CHECK(access(temporary, F_OK) != 0);
    CHECK(exists());
    CHECK(unlink(path) == 0);
}

/* What only looks like one of them, and what is another user's. */
static void test_sweep_spares(void)
{
    static const char *const forms[] = {"%015" PRIx64, "%016" PRIx64 "0", "%015" PRIx64 "g", "%016" PRIx64};
    for (int i = 0; i < 4; i++) {
        char other[96] = DIRECTORY "/" TEMPORARY;
        snprintf(other + strlen(other), 64, forms[i], ssm_random_u64() >> (i % 2 == 0 ? 4 : 0) | UINT64_C(1) << 56);
        new_name();
        int fd = open(path, O_CREAT | O_EXCL | O_RDWR, 0600);
        CHECK(fd >= 0);
        CHECK(i < 3 || geteuid() != 0 || fchown(fd, 54321, 54321) == 0);
        CHECK(rename(path, other) == 0);
        close(fd);
        ssm_object_sweep();
        bool spared = unlink(other) == 0;
        CHECK(spared == (i < 3 || geteuid() == 0));
    }
}

static void make_often(void *board)
{
    while (board_get(board, 0) == 0) {
        int fd = ssm_object_new();
        struct stat st;
        CHECK(fd >= 0);
        CHECK(fstat(fd, &st) == 0 && st.st_nlink == 1); /* nobody takes it away any more */
        close(fd);
    }
}

static void test_sweep_races_with_new(void)
{
    struct board *board = board_new();
    pid_t child = child_start(make_often, board);
    for (uint64_t until_ns = ssm_now_ns() + 300 * MS; ssm_now_ns() < until_ns;)
        ssm_object_sweep();
    board_set(board, 0, 1);
    child_finish(child);
    ssm_object_sweep();
    board_drop(board);
}

static void without_unnamed_files(void *unused)
{
    (void)unused;
    forbid_unnamed_files();
    test_life(true);
    test_sweep(false);
    test_sweep(true);
    test_sweep_second_name();
    test_sweep_spares();
    test_sweep_races_with_new();
    ssm_object_sweep();
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_life(false);
    test_names();
    test_what_is_no_file();
    child_finish(child_start(without_unnamed_files, NULL));
    return 0;
}
