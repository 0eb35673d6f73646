/* SPDX-License-Identifier: Apache-2.0
  * The end of a pool: does a process still use it, and may its name be unlinked? */
#include "attach.h"
#include "lock_file.h"

#include <errno.h>
#include <unistd.h>

#define NAP_NS             UINT64_C(1000000)
#define RETIRE_PATIENCE_NS UINT64_C(100000000)

/* Needs the registry locked. If no process is left, none can come either, since attaching needs the registry. */
static bool is_deserted(struct ssm_pool *pool, const struct ssm_pool *leaving)
{
    const int fd = pool->locks.path[0] != 0 ? pool->locks.fd : pool->fd;
    for (uint32_t slot = 0; slot < pool->geometry.holders; slot++)
        if ((leaving == NULL || slot != leaving->self) && ssm_byte_is_locked(fd, SSM_BYTE_HOLDER(slot)))
            return false;
    return true;
}

/* With the registry locked. */
static int poison(struct ssm_pool *pool)
{
    struct ssm_segment segment;
    int result = ssm_segment_map(pool->fd, sizeof(struct ssm_superblock), true, &segment);
    if (result != 0)
        return result;
    ssm_store_release_u32(&((struct ssm_superblock *)segment.base)->state, SSM_STATE_POISONED);
    ssm_segment_unmap(&segment);
    return 1;
}

/* The caller's description keeps the lock. A process that holds it for long lives, and uses the pool. */
static int lock_for_good(int fd)
{
    uint64_t until_ns = ssm_now_ns() + RETIRE_PATIENCE_NS;
    int result;
    while ((result = ssm_byte_try_lock(fd, SSM_BYTE_REGISTRY)) == -EAGAIN && ssm_now_ns() < until_ns)
        ssm_nap_ns(NAP_NS);
    return result;
}

/* Returns 1 if the pool is over, 0 if not, or an error. */
static int look_whether_over(struct ssm_pool *pool, const struct ssm_pool *leaving, bool locked)
{
    int result = ssm_attach_read_file(pool);
    if (result == -SSM_E_ABANDONED)
        return 1;
    if (result == 0 && pool->geometry.flags & SSM_LOCKS_APART && pool->locks.fd < 0 && ssm_lock_file_open(pool) != 0)
        return 0; /* there is no telling who uses it */
    if (result != 0 || !(pool->geometry.flags & SSM_EPHEMERAL) || !is_deserted(pool, leaving))
        return result;
    return locked ? poison(pool) : 1;
}

/* The byte of the pool's file keeps others from unlinking the name, the byte of its lock file keeps them from
 * attaching. A user with read access may hold a read lock on the first one, but cannot unlink. Returns 1; 0 if another
 * process is at it; or an error. */
static int lock_to_retire(const struct ssm_pool *pool)
{
    const bool apart = pool->locks.path[0] != 0;
    int result = lock_for_good(pool->fd);
    if (result == -EAGAIN && apart && !ssm_byte_is_locked(pool->fd, SSM_BYTE_REGISTRY))
        result = 0;
    if (result == 0 && apart)
        result = lock_for_good(pool->locks.fd);
    return result == 0 ? 1 : result == -EAGAIN ? 0 : result;
}

static int retire(int fd, const struct ssm_pool *leaving)
{
    struct ssm_pool pool = {.fd = fd, .self = SSM_NIL, .locks.fd = -1};
    int result = look_whether_over(&pool, leaving, false); /* without a lock: most pools are not over */
    if (result == 1)
        result = lock_to_retire(&pool);
    if (result == 1 && (result = look_whether_over(&pool, leaving, true)) != 1)
        ssm_byte_unlock(fd, SSM_BYTE_REGISTRY);
    if (pool.locks.fd >= 0)
        close(pool.locks.fd);
    return result;
}

uint64_t ssm_lock_file_named_by(int fd)
{
    struct ssm_pool pool = {.fd = fd, .self = SSM_NIL};
    int result = ssm_attach_read_file(&pool);
    return (result == 0 || result == -SSM_E_ABANDONED) && pool.geometry.flags & SSM_LOCKS_APART ? pool.generation : 0;
}

int ssm_pool_retire(int fd, const struct ssm_pool *leaving)
{
    return ssm_segment_is_mine(fd) ? retire(fd, leaving) : 0; /* nobody but the owner decides, not even root */
}

int ssm_pool_retire_made(int fd, uint64_t generation)
{
    struct ssm_superblock superblock = {0};
    int64_t got = ssm_segment_peek(fd, 0, &superblock, sizeof superblock);
    bool same = got == (int64_t)sizeof superblock && superblock.generation == generation;
    return same && (ssm_segment_is_mine(fd) || geteuid() == 0) ? retire(fd, NULL) : 0;
}
