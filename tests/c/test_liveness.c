/* SPDX-License-Identifier: Apache-2.0
 *
 * Byte locks: who has one, who sees it, and that only death, exec or closing the last descriptor ends it. */
#include "pool_fixture.h"

static void test_reopen(void)
{
    int fd = fixture_file(), again = ssm_file_reopen(fd, true), reader = ssm_file_reopen(fd, false);
    CHECK(again >= 0 && reader >= 0);
    CHECK(fcntl(again, F_GETFD) & FD_CLOEXEC);
    CHECK_EQ(fcntl(reader, F_GETFL) & O_ACCMODE, O_RDONLY);
    CHECK(ftruncate(again, 5) == 0);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 5);            /* the same file ... */
    CHECK_EQ(lseek(again, 0, SEEK_CUR), INT64_MAX); /* ... by another description, */
    CHECK_EQ(write(again, "x", 1), -1);             /* where nobody writes by mistake */
    CHECK(ssm_byte_try_lock(reader, 0) < 0);
    CHECK(ssm_file_reopen(-1, true) < 0);
    close(again);
    close(reader);
    close(fd);
}

static void test_bytes(void)
{
    int one = fixture_file(), two = ssm_file_reopen(one, true), reader = ssm_file_reopen(one, false);
    CHECK_EQ(ssm_byte_try_lock(one, SSM_BYTE_REGISTRY), 0);
    CHECK_EQ(ssm_byte_try_lock(one, SSM_BYTE_REGISTRY), 0); /* never in conflict with one's own */
    CHECK(!ssm_byte_is_locked(one, SSM_BYTE_REGISTRY));
    CHECK(ssm_byte_is_locked(two, SSM_BYTE_REGISTRY));
    CHECK(ssm_byte_is_locked(reader, SSM_BYTE_REGISTRY));
    CHECK_EQ(ssm_byte_try_lock(two, SSM_BYTE_REGISTRY), -EAGAIN);
    CHECK_EQ(ssm_byte_try_lock(two, SSM_BYTE_HOLDER(0)), 0);
    CHECK_EQ(ssm_byte_try_lock(two, SSM_BYTE_HOLDER(4095)), 0);
    CHECK(!ssm_byte_is_locked(one, SSM_BYTE_HOLDER(1)));
    ssm_byte_unlock(two, SSM_BYTE_REGISTRY); /* not its own: no effect */
    CHECK(ssm_byte_is_locked(two, SSM_BYTE_REGISTRY));
    ssm_byte_unlock(one, SSM_BYTE_REGISTRY);
    CHECK(!ssm_byte_is_locked(two, SSM_BYTE_REGISTRY));
    close(two);
    CHECK(!ssm_byte_is_locked(one, SSM_BYTE_HOLDER(4095)));
    CHECK(ssm_byte_is_locked(two, 0)); /* cannot be told: counts as alive */
    close(reader);
    close(one);
}

/* Somebody who may only read can have a read lock; it stands for nobody. */
static void test_reader(void)
{
    int fd = fixture_file(), owner = ssm_file_reopen(fd, true), reader = ssm_file_reopen(fd, false);
    CHECK_EQ(read_lock(reader, SSM_BYTE_HOLDER(3)), 0);
    CHECK_EQ(ssm_byte_test(fd, SSM_BYTE_HOLDER(3)), 0);
    CHECK_EQ(ssm_byte_try_lock(owner, SSM_BYTE_HOLDER(3)), -EAGAIN);
    CHECK_EQ(ssm_byte_try_lock(owner, SSM_BYTE_HOLDER(4)), 0);
    CHECK(read_lock(reader, SSM_BYTE_HOLDER(4)) != 0);
    CHECK_EQ(ssm_byte_test(fd, SSM_BYTE_HOLDER(4)), 1);
    CHECK_EQ(ssm_byte_test(-1, SSM_BYTE_HOLDER(4)), -EBADF);
    close(reader);
    close(owner);
    close(fd);
}

/* A kept description outlives its descriptor, and goes with its page. */
static void test_kept(void)
{
    struct ssm_file file;
    struct ssm_description kept;
    int fd = fixture_file(), own = ssm_file_reopen(fd, true);
    CHECK_EQ(ssm_file_identify(own, &file), 0);
    CHECK_EQ(ssm_description_open(own, &kept), 0);
    CHECK_EQ(ssm_byte_try_lock(kept.fd, SSM_BYTE_HOLDER(0)), 0);
    int number = kept.fd;
    close(number);
    CHECK(!ssm_file_is(number, &file, NULL));
    CHECK(ssm_byte_is_locked(fd, SSM_BYTE_HOLDER(0)));
    CHECK(!ssm_file_is(fd, &file, NULL)); /* the same file, but not by a description that was made there */
    CHECK(dup2(fd, number) == number);
    ssm_description_drop(&kept, &file);
    CHECK(!ssm_byte_is_locked(fd, SSM_BYTE_HOLDER(0)));
    CHECK(fcntl(number, F_GETFD) >= 0); /* it is somebody else's by now */
    CHECK_EQ(kept.fd, -1);
    close(number);
    close(own);
    close(fd);
}

/* A child has no part in it, whether a fork handler runs or not. */
static void hold_nothing(void *context)
{
    struct fixture *f = context;
    board_set(f->board, 0, 1);
    AWAIT(board_get(f->board, 0) == 2);
}

static void test_kept_in_a_fork(void)
{
    struct fixture f = {.fd = fixture_file(), .board = board_new()};
    struct ssm_description kept;
    struct ssm_file file = {0};
    CHECK_EQ(ssm_description_open(f.fd, &kept), 0);
    CHECK_EQ(ssm_byte_try_lock(kept.fd, SSM_BYTE_HOLDER(0)), 0);
    close(kept.fd);
    pid_t child = child_start(hold_nothing, &f);
    AWAIT(board_get(f.board, 0) == 1);
    CHECK(ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(0)));
    ssm_description_drop(&kept, &file);
    CHECK(!ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(0)));
    board_set(f.board, 0, 2);
    child_finish(child);
    board_drop(f.board);
    close(f.fd);
}

static void without_standard(void *context)
{
    struct fixture *f = context;
    for (int fd = 0; fd < 3; fd++)
        close(fd);
    int fd = ssm_file_reopen(f->fd, true);
    bool above = fd > 2, closed = true;
    for (int low = 0; low < 3; low++)
        closed = closed && fcntl(low, F_GETFD) < 0;
    _exit(above && closed ? 0 : 1);
}

static void test_standard(void)
{
    struct fixture f = {.fd = fixture_file()};
    child_finish(child_start(without_standard, &f));
    close(f.fd);
}

static void hold_and_wait(void *context)
{
    struct fixture *f = context;
    int own = ssm_file_reopen(f->fd, true);
    CHECK_EQ(ssm_byte_try_lock(own, SSM_BYTE_HOLDER(7)), 0);
    board_set(f->board, 0, 1);
    for (;;)
        pause();
}

static void test_kill(void)
{
    struct fixture f = {.fd = fixture_file(), .board = board_new()};
    pid_t child = child_start(hold_and_wait, &f);
    AWAIT(board_get(f.board, 0) == 1);
    CHECK(ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(7)));
    child_stop(child);
    CHECK(ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(7))); /* stopped is not dead */
    CHECK(kill(child, SIGKILL) == 0);
    siginfo_t info;
    CHECK(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    CHECK(!ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(7))); /* a zombie is */
    child_died(child);
    board_drop(f.board);
    close(f.fd);
}

/* A child that keeps its parent's description keeps the parent's locks: the reason why the fork handler closes it. */
static void keep_inherited(void *context)
{
    struct fixture *f = context;
    AWAIT(board_get(f->board, 0) == 1);
    close(*(int *)f->more);
    board_set(f->board, 0, 2);
    AWAIT(board_get(f->board, 0) == 3);
}

static void test_fork(void)
{
    struct fixture f = {.fd = fixture_file(), .board = board_new()};
    int own = ssm_file_reopen(f.fd, true);
    f.more = &own;
    CHECK_EQ(ssm_byte_try_lock(own, SSM_BYTE_HOLDER(0)), 0);
    pid_t child = child_start(keep_inherited, &f);
    close(own);
    CHECK(ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(0)));
    board_set(f.board, 0, 1);
    AWAIT(board_get(f.board, 0) == 2);
    CHECK(!ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(0)));
    board_set(f.board, 0, 3);
    child_finish(child);
    board_drop(f.board);
    close(f.fd);
}

static void exec_sleep(void *context)
{
    struct fixture *f = context;
    int own = ssm_file_reopen(f->fd, true);
    CHECK_EQ(ssm_byte_try_lock(own, SSM_BYTE_HOLDER(1)), 0);
    board_set(f->board, 0, 1);
    execl("/bin/sleep", "sleep", "50", (char *)NULL);
    die_here();
}

static void test_exec(void)
{
    struct fixture f = {.fd = fixture_file(), .board = board_new()};
    pid_t child = child_start(exec_sleep, &f);
    AWAIT(board_get(f.board, 0) == 1);
    AWAIT(!ssm_byte_is_locked(f.fd, SSM_BYTE_HOLDER(1)));
    CHECK(kill(child, 0) == 0);
    CHECK(waitpid(child, NULL, WNOHANG) == 0); /* it goes on, as something else */
    child_kill(child);
    board_drop(f.board);
    close(f.fd);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_reopen();
    test_bytes();
    test_reader();
    test_kept();
    test_kept_in_a_fork();
    test_standard();
    test_kill();
    test_fork();
    test_exec();
    return 0;
}
