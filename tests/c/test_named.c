/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools by name: created, found, opened by several processes at once, ended, unlinked. */
#include "pool_fixture.h"

#include "object.h"

#include <stdio.h>
#include <sys/stat.h>

enum { CREATORS = 6 };

/* Without a slash, and of this test alone. */
static const char *name_here(void)
{
    static char name[64];
    snprintf(name, sizeof name, "ssm-c-named-%d", (int)getpid());
    return name;
}

static bool is_there(const char *name)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    CHECK_EQ(ssm_object_path(name, path), 0);
    return lstat(path, &st) == 0;
}

static struct stat status_of(const char *name)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    CHECK_EQ(ssm_object_path(name, path), 0);
    CHECK_EQ(stat(path, &st), 0);
    return st;
}

static uint64_t generation_of(struct ssm_pool *pool)
{
    struct ssm_pool_info info;
    CHECK_EQ(ssm_pool_info(pool, &info), 0);
    return info.generation;
}

static void test_create(void)
{
    const char *name = name_here();
    struct ssm_pool_options small = fixture_options();
    struct ssm_name_options options = {.size = sizeof options, .pool = &small, .mode = 0660};
    struct ssm_pool *pool, *again;
    char slashed[80];
    snprintf(slashed, sizeof slashed, "/%s", name);
    CHECK_EQ(ssm_attach_name(name, NULL, 0, &pool), -ENOENT);
    const mode_t umask_was = umask(077);
    CHECK_EQ(ssm_create_name(name, &options, &pool), 0);
    umask(umask_was);
    CHECK_EQ(status_of(name).st_mode & 0777, 0660);
    CHECK_EQ(ssm_create_name(slashed, &options, &again), -EEXIST);
    CHECK_EQ(ssm_attach_name(slashed, NULL, 0, &again), 0);
    CHECK(generation_of(again) == generation_of(pool));
    CHECK_EQ(ssm_close_name(name, again), 0);
    CHECK(is_there(name)); /* it is meant to stay */
    CHECK_EQ(ssm_open_name(name, NULL, &again), 0);
    CHECK(generation_of(again) == generation_of(pool));
    CHECK_EQ(ssm_close_name(name, again), 0);
    CHECK_EQ(ssm_unlink_name(name), 0);
    CHECK(!is_there(name));
    CHECK_EQ(ssm_unlink_name(name), -ENOENT);
    CHECK_EQ(ssm_close_name(name, pool), 0);
}

static void test_refusals(void)
{
    struct ssm_pool_options none = {.size = sizeof none}; /* no classes */
    struct ssm_name_options options = {.pool = &none}, short_one = {.size = 8};
    struct ssm_pool *pool;
    CHECK_EQ(ssm_create_name("a/b", NULL, &pool), -EINVAL);
    CHECK_EQ(ssm_open_name("", NULL, &pool), -EINVAL);
    CHECK_EQ(ssm_attach_name("..", NULL, 0, &pool), -EINVAL);
    CHECK_EQ(ssm_unlink_name("/"), -EINVAL);
    CHECK_EQ(ssm_create_name(name_here(), &options, &pool), -EINVAL);
    CHECK_EQ(ssm_open_name(name_here(), &short_one, &pool), -EINVAL);
    CHECK(!is_there(name_here()));
}

/* Others may read it: it has a lock file, which goes with the name. */
static void test_lock_file(void)
{
    struct ssm_pool_options small = fixture_options();
    struct ssm_name_options options = {.pool = &small, .mode = 0644};
    struct ssm_pool *pool;
    char locks[64];
    CHECK_EQ(ssm_locks_mode(0644), 0600);
    CHECK_EQ(ssm_locks_mode(0664), 0660);
    CHECK_EQ(ssm_locks_mode(0600), 0);
    CHECK_EQ(ssm_locks_mode(0666), 0);
    CHECK_EQ(ssm_create_name(name_here(), &options, &pool), 0);
    snprintf(locks, sizeof locks, ".ssm-locks-%016llx", (unsigned long long)generation_of(pool));
    CHECK(is_there(locks));
    CHECK_EQ(status_of(name_here()).st_mode & 0777, 0644);
    CHECK_EQ(ssm_unlink_name(name_here()), 0);
    CHECK(!is_there(locks));
    CHECK_EQ(ssm_close_name(name_here(), pool), 0);
}

static void die_with_it(void *context)
{
    const struct fixture *f = context;
    struct ssm_pool *pool;
    CHECK_EQ(ssm_open_name(f->more, NULL, &pool), 0);
    raise(SIGKILL);
}

/* The last process removes the name; if it dies, the next one that comes. */
static void test_ephemeral(void)
{
    const char *name = name_here();
    struct ssm_pool_options small = fixture_options();
    small.flags = SSM_EPHEMERAL;
    struct ssm_name_options options = {.pool = &small};
    struct ssm_pool *pool, *second;
    struct fixture f = {.more = (void *)(uintptr_t)name};
    int status;
    CHECK_EQ(ssm_create_name(name, &options, &pool), 0);
    CHECK_EQ(ssm_open_name(name, NULL, &second), 0);
    CHECK_EQ(ssm_close_name(name, pool), 0);
    CHECK(is_there(name));
    CHECK_EQ(ssm_close_name(name, second), 0);
    CHECK(!is_there(name));

    CHECK_EQ(ssm_create_name(name, &options, &pool), 0);
    const uint64_t generation = generation_of(pool);
    pid_t child = child_start(die_with_it, &f);
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    pool_end(pool); /* which leaves the name: as if this process had died as well */
    CHECK(is_there(name));
    CHECK_EQ(ssm_attach_name(name, NULL, 0, &second), -ENOENT);
    CHECK(!is_there(name));
    CHECK_EQ(ssm_create_name(name, &options, &pool), 0);
    CHECK(generation_of(pool) != generation);
    CHECK_EQ(ssm_close_name(name, pool), 0);
}

static void open_at_once(void *context)
{
    const struct fixture *f = context;
    struct ssm_pool_options small = fixture_options();
    struct ssm_name_options options = {.pool = &small};
    struct ssm_pool *pool;
    AWAIT(board_get(f->board, 0) == 1);
    CHECK_EQ(ssm_open_name(f->more, &options, &pool), 0);
    const uint64_t place = ssm_add_acqrel_u32(&f->board->step[1], 1);
    ssm_store_release_u64(&f->board->value[place % CREATORS], generation_of(pool));
    pool_end(pool);
}

/* One of them creates it, all others attach to that one. */
static void test_race(void)
{
    struct fixture f = {.board = board_new(), .more = (void *)(uintptr_t)name_here()};
    pid_t children[CREATORS];
    int status;
    for (int i = 0; i < CREATORS; i++)
        children[i] = child_start(open_at_once, &f);
    board_set(f.board, 0, 1);
    for (int i = 0; i < CREATORS; i++) {
        CHECK(waitpid(children[i], &status, 0) == children[i]);
        CHECK_EQ(status, 0);
    }
    for (int i = 1; i < CREATORS; i++)
        CHECK(ssm_load_acquire_u64(&f.board->value[i]) == ssm_load_acquire_u64(&f.board->value[0]));
    CHECK_EQ(ssm_unlink_name(f.more), 0);
    board_drop(f.board);
}

static void create_late(void *context)
{
    const struct fixture *f = context;
    struct ssm_pool_options small = fixture_options();
    struct ssm_name_options options = {.pool = &small};
    struct ssm_pool *pool;
    ssm_nap_ns(30 * MS);
    CHECK_EQ(ssm_create_name(f->more, &options, &pool), 0);
    pool_end(pool);
}

static int give_up(void *state)
{
    (void)state;
    return 1;
}

static void test_waiting(void)
{
    struct fixture f = {.more = (void *)(uintptr_t)name_here()};
    struct ssm_attach_options impatient = {.hooks.after = give_up};
    struct ssm_pool *pool;
    int status;
    CHECK_EQ(ssm_attach_name(f.more, NULL, (int64_t)(20 * MS), &pool), -ENOENT);
    CHECK_EQ(ssm_attach_name(f.more, &impatient, SSM_FOREVER, &pool), -EINTR);
    pid_t child = child_start(create_late, &f);
    CHECK_EQ(ssm_attach_name(f.more, NULL, SSM_FOREVER, &pool), 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK_EQ(status, 0);
    CHECK_EQ(ssm_unlink_name(f.more), 0);
    CHECK_EQ(ssm_close_name(f.more, pool), 0);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_create();
    test_refusals();
    test_lock_file();
    test_ephemeral();
    test_race();
    test_waiting();
    return 0;
}
