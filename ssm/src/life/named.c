/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools by their names: created, found, opened, unlinked. What a program in any language does with a name is here once.
 *
 * A pool is made without a name and gets its name when it is ready: a death before that leaves nothing, and a process
 * that finds the name finds a pool. Where the name leads to an ephemeral pool that no process uses any more, that pool
 * is retired first. Others may create, end and unlink pools of that name meanwhile: then the look is repeated. */
#include "attach.h"
#include "lock_file.h"
#include "object.h"
#include "options.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define COMING_AND_GOING_NS UINT64_C(10000000000) /* so long a name may come and go between two looks */
#define CROWDED_NS UINT64_C(100000000) /* for others to name their pool, where there is no memory for a second one */
#define LOOK_NS    UINT64_C(10000000)  /* between two looks for a name that is not there yet */

static const struct ssm_attach_options plain_attach;
static const struct ssm_name_options plain;

/* ---- whose it is, and its end ------------------------------------------------------------------------------------ */

uint32_t ssm_locks_mode(uint32_t mode)
{
    bool only_readers = false; /* the group, or all others, may read and not write */
    for (int shift = 0; shift <= 3; shift += 3)
        only_readers |= (mode >> shift & 6) == 4;
    return only_readers ? (mode & 0222) | (mode & 0222) << 1 | 0600 : 0;
}

int ssm_pool_publish(struct ssm_pool *pool, int fd, const char *name, const struct ssm_name_options *options)
{
    options = options != NULL ? options : &plain;
    const uint32_t nobody = UINT32_MAX; /* as chown(2) has it: leave it as it is */
    const uint32_t uid = options->flags & SSM_GIVE_USER ? options->uid : nobody,
                   gid = options->flags & SSM_GIVE_GROUP ? options->gid : nobody;
    int result = ssm_options_check(options, sizeof *options);
    if (result == 0 && (uid != nobody || gid != nobody))
        result = fchown(fd, uid, gid) != 0 ? -errno : ssm_lock_file_give(pool, uid, gid);
    const uint32_t mode = options->mode != 0 || options->flags & SSM_MODE_ZERO ? options->mode : 0600;
    if (result == 0 && fchmod(fd, mode) != 0) /* fchown takes bits away */
        result = -errno;
    if (result != 0 || name == NULL)
        return result;
    result = ssm_object_link(fd, name);
    const int named = result == 0 ? ssm_object_open(name, 1) : -1;
    if (named >= 0) {
        ssm_pool_remap(pool, named);
        close(named);
    }
    return result;
}

int ssm_pool_retire_name(int fd, const char *name, const struct ssm_pool *leaving, uint64_t made)
{
    int result = made != 0 ? ssm_pool_retire_made(fd, made) : ssm_pool_retire(fd, leaving);
    if (result != 1)
        return result;
    const uint64_t generation = ssm_lock_file_named_by(fd);
    if (ssm_object_unlink(fd, name) < 0)
        return 0; /* its user removes it */
    if (generation != 0)
        ssm_lock_file_unlink(generation);
    return 1;
}

/* Is the name free now? */
static bool retire(const char *name)
{
    const int fd = ssm_object_open(name, 1);
    const bool is_free = fd == -ENOENT || (fd >= 0 && ssm_pool_retire_name(fd, name, NULL, 0) == 1);
    if (fd >= 0)
        close(fd);
    return is_free;
}

int ssm_unlink_name(const char *name)
{
    char path[SSM_OBJECT_PATH_BYTES];
    int result = ssm_object_path(name, path);
    if (result != 0)
        return result;
    const int fd = ssm_object_open(name, 0);
    const uint64_t generation = fd >= 0 ? ssm_lock_file_named_by(fd) : 0;
    if (fd >= 0)
        close(fd);
    if (unlink(path) != 0)
        return fd == -SSM_E_NO_SHM ? fd : -errno;
    if (generation != 0)
        ssm_lock_file_unlink(generation);
    return 0;
}

int ssm_close_name(const char *name, struct ssm_pool *pool)
{
    struct ssm_pool_info info = {.flags = 0};
    const bool leaves = ssm_pool_info(pool, &info) == 0 && info.flags & SSM_EPHEMERAL && info.self != UINT32_MAX;
    const int left = ssm_pool_close(pool);
    if (left != 0)
        return left;
    ssm_pool_destroy(pool);
    if (leaves)
        retire(name);
    return 0;
}

/* ---- one look ---------------------------------------------------------------------------------------------------- */

/* A symbolic link, or what this user may not open, has the name as well. */
static bool exists(const char *name)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    return ssm_object_path(name, path) == 0 && lstat(path, &st) == 0;
}

/* -ENOENT: nothing has the name, or had it when it could be removed. */
static int find(const char *name, const struct ssm_attach_options *attach, struct ssm_pool **pool_out)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct ssm_attach_options options = attach != NULL ? *attach : plain_attach;
    const bool writable = !(options.flags & SSM_READONLY);
    int result = ssm_object_path(name, path);
    if (result == 0 && writable && retire(name))
        return ssm_object_open(name, 0) == -SSM_E_NO_SHM ? -SSM_E_NO_SHM : -ENOENT;
    const int fd = result == 0 ? ssm_object_open(name, writable) : result;
    if (fd < 0)
        return fd;
    if (options.path == NULL)
        options.path = path;
    result = ssm_pool_attach(fd, &options, pool_out);
    if (result == -SSM_E_ABANDONED && ssm_segment_is_mine(fd))
        result = -ENOENT; /* it ended between the two looks */
    close(fd);
    return result;
}

static int make(const char *name, const struct ssm_name_options *options, struct ssm_pool **pool_out)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct ssm_pool_options pool;
    struct ssm_attach_options attach = options->attach != NULL ? *options->attach : plain_attach;
    int result = ssm_object_path(name, path);
    if (result != 0)
        return result;
    if (exists(name))
        return -EEXIST;
    if (options->pool != NULL)
        pool = *options->pool;
    else
        ssm_pool_options_default(&pool);
    pool.locks_mode = ssm_locks_mode(options->mode);
    attach.path = path; /* where it will be */
    const int fd = ssm_object_new();
    if (fd < 0)
        return fd;
    result = ssm_pool_create(fd, &pool, &attach, pool_out);
    if (result == 0 && (result = ssm_pool_publish(*pool_out, fd, name, options)) != 0) {
        const uint64_t generation = pool.locks_mode != 0 ? ssm_lock_file_named_by(fd) : 0;
        ssm_pool_close(*pool_out);
        ssm_pool_destroy(*pool_out);
        if (generation != 0)
            ssm_lock_file_unlink(generation);
    }
    close(fd);
    return result;
}

/* Where there was no memory for a pool: do others make it, and has one of them got through? */
static bool came_meanwhile(const char *name)
{
    const uint64_t until_ns = ssm_now_ns() + CROWDED_NS;
    while (!exists(name) && ssm_now_ns() < until_ns)
        ssm_nap_ns(LOOK_NS);
    return exists(name);
}

/* The caller's structs are copied: they are checked before. */
static int check(const struct ssm_name_options *options, const struct ssm_attach_options *attach)
{
    int result = options != NULL ? ssm_options_check(options, sizeof *options) : 0;
    if (result == 0 && options != NULL && options->pool != NULL)
        result = ssm_options_check(options->pool, sizeof *options->pool);
    if (result == 0 && attach != NULL)
        result = ssm_options_check(attach, sizeof *attach);
    return result;
}

/* ---- calls ------------------------------------------------------------------------------------------------------- */

int ssm_create_name(const char *name, const struct ssm_name_options *options, struct ssm_pool **pool_out)
{
    options = options != NULL ? options : &plain;
    const uint64_t until_ns = ssm_now_ns() + COMING_AND_GOING_NS;
    int result = check(options, options->attach);
    if (result != 0)
        return result;
    while ((result = make(name, options, pool_out)) == -EEXIST && retire(name))
        if (ssm_now_ns() > until_ns)
            return -ETIMEDOUT;
    return result;
}

int ssm_open_name(const char *name, const struct ssm_name_options *options, struct ssm_pool **pool_out)
{
    options = options != NULL ? options : &plain;
    const uint64_t until_ns = ssm_now_ns() + COMING_AND_GOING_NS;
    int result = check(options, options->attach);
    if (result != 0)
        return result;
    while (ssm_now_ns() < until_ns) {
        if ((result = find(name, options->attach, pool_out)) != -ENOENT)
            return result;
        result = make(name, options, pool_out);
        if (result == -ENOSPC && came_meanwhile(name))
            result = -EEXIST;
        if (result != -EEXIST)
            return result;
    }
    return -ETIMEDOUT;
}

int ssm_attach_name(const char *name, const struct ssm_attach_options *attach, int64_t timeout_ns,
                    struct ssm_pool **pool_out)
{
    attach = attach != NULL ? attach : &plain_attach;
    const struct ssm_sleep_hooks *hooks = &attach->hooks;
    const uint64_t began_ns = ssm_now_ns();
    int result = check(NULL, attach);
    if (result != 0)
        return result;
    while ((result = find(name, attach, pool_out)) == -ENOENT) {
        if (timeout_ns >= 0 && ssm_now_ns() - began_ns >= (uint64_t)timeout_ns)
            break;
        void *state = hooks->before != NULL ? hooks->before() : NULL;
        ssm_nap_ns(LOOK_NS);
        if (hooks->after != NULL && hooks->after(state) != 0)
            return -EINTR;
    }
    return result;
}
