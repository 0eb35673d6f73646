/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock file; see lock_file.h. */
#include "lock_file.h"

#include "object.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PREFIX "/.ssm-locks-"

/* ---- names ------------------------------------------------------------------------------------------------------ */

struct name { char text[40]; };

static struct name name_of(uint64_t generation)
{
    struct name name;
    snprintf(name.text, sizeof name.text, PREFIX "%016" PRIx64, generation);
    return name;
}

void ssm_lock_file_unlink(uint64_t generation)
{
    const struct name name = name_of(generation);
    int fd = ssm_object_open(name.text, 1);
    if (fd < 0)
        return;
    ssm_object_unlink(fd, name.text);
    close(fd);
}

int ssm_lock_file_sweep(uint64_t generation)
{
    const struct name name = name_of(generation);
    int fd = ssm_object_open(name.text, 1), result = 0;
    if (fd < 0)
        return 0;
    /* If all its bytes can be locked, no living process uses it, or is about to make a pool for it. */
    if (ssm_segment_is_mine(fd) && ssm_bytes_try_lock(fd) == 0)
        result = ssm_object_unlink(fd, name.text);
    close(fd);
    return result > 0;
}

/* ---- of an attachment ------------------------------------------------------------------------------------------- */

/* From here on the pool uses the locks of that file. */
static int adopt(struct ssm_pool *pool, int fd)
{
    ssm_fork_lock();
    int result = pool->locks.fd = ssm_file_reopen(fd, true);
    ssm_fork_unlock();
    if (result >= 0)
        result = ssm_file_identify(pool->locks.fd, &pool->locks.file);
    if (result < 0)
        return result;
    snprintf(pool->locks.path, sizeof pool->locks.path, "/dev/shm%s", name_of(pool->generation).text);
    return 0;
}

static int move_locks(struct ssm_pool *pool, int fd)
{
    ssm_description_drop(&pool->registry, &pool->file);
    ssm_description_drop(&pool->alive, &pool->file);
    int result = adopt(pool, fd);
    if (result == 0)
        result = ssm_description_open(pool->locks.fd, &pool->registry);
    if (result == 0)
        result = ssm_description_open(pool->locks.fd, &pool->alive);
    return result == 0 ? ssm_byte_try_lock(pool->registry.fd, SSM_BYTE_REGISTRY) : result;
}

int ssm_lock_file_make(struct ssm_pool *pool, uint32_t mode)
{
    int fd = ssm_object_new();
    if (fd < 0)
        return fd;
    int result = fchmod(fd, mode) == 0 ? move_locks(pool, fd) : -errno;
    if (result == 0)
        result = ssm_object_link(fd, name_of(pool->generation).text); /* its bytes are locked, so no sweeper takes it */
    close(fd);
    return result;
}

int ssm_lock_file_open(struct ssm_pool *pool)
{
    int fd = ssm_object_open(name_of(pool->generation).text, 1);
    if (fd < 0)
        return fd == -ENOENT ? -SSM_E_LOCKS_GONE : fd;
    int result = adopt(pool, fd);
    close(fd);
    return result;
}

int ssm_lock_file_give(struct ssm_pool *pool, uint32_t uid, uint32_t gid)
{
    struct stat st;
    int fd = pool->locks.path[0] != 0 ? ssm_pool_lock_fd(pool) : -ENOENT;
    if (fd < 0)
        return fd == -ENOENT ? 0 : fd;
    if (fstat(fd, &st) != 0 || fchown(fd, uid, gid) != 0 || fchmod(fd, st.st_mode & 0777) != 0)
        return -errno;
    return 0;
}

void ssm_lock_file_close(struct ssm_pool *pool)
{
    ssm_description_drop(&pool->shown, &pool->file);
    ssm_file_close(&pool->locks.fd, &pool->locks.file);
}

void ssm_lock_file_show(struct ssm_pool *pool)
{
    int fd = ssm_pool_fd(pool);
    ssm_description_drop(&pool->shown, &pool->file);
    if (fd < 0 || ssm_description_open(fd, &pool->shown) != 0)
        return;
    (void)ssm_byte_try_lock(pool->shown.fd, SSM_BYTE_HOLDER(pool->self));
    ssm_file_close(&pool->shown.fd, &pool->file);
}
