/* SPDX-License-Identifier: Apache-2.0
 *
 * Entering an attachment; see attachment.h. */
#include "attachment.h"

#include <errno.h>

#define REVIVE_NAP_NS UINT64_C(500000)
#define LOOKS         3 /* at a descriptor that the program may be closing or replacing */

/* Lets ssm_class_for() start at the right class instead of the smallest one. `class` is the first usable one. */
static void index_classes(struct ssm_pool *pool, const struct ssm_own_class *class)
{
    for (uint32_t bits = 0; bits <= 64; bits++) {
        uint64_t smallest = bits == 0 ? 0 : UINT64_C(1) << (bits - 1);
        while (smallest > class->size_max)
            class++;
        pool->class_from[bits] = (uint8_t)(class - pool->classes);
    }
}

static void prepare_classes(struct ssm_pool *pool)
{
    const struct ssm_geometry *g = &pool->geometry;
    const uint64_t overhead = (uint64_t)g->headroom + g->tailroom;
    uint32_t useless = 0; /* too small for the overhead alone */
    for (uint32_t i = 0; i < g->class_count; i++) {
        const bool is_arena = ssm_class_is_arena(pool, i);
        const struct ssm_class_geometry *c = &g->classes[i];
        useless += c->block_size < overhead;
        pool->classes[i] = (struct ssm_own_class){
            .size_max = c->block_size - overhead,
            .block_size = is_arena ? SSM_NO_BLOCK_SIZE : c->block_size,
            .shared = ssm_class_at(pool, i),
            .first_block = c->first_block,
            .block_count = c->block_count,
            .cache_blocks = c->cache_blocks,
            .class_idx = i,
        };
    }
    pool->classes[g->class_count] = (struct ssm_own_class){
        .size_max = UINT64_MAX,
        .block_size = SSM_NO_BLOCK_SIZE,
        .class_idx = g->class_count,
    };
    pool->last_size = UINT64_MAX;
    pool->last_class = &pool->classes[g->class_count];
    index_classes(pool, &pool->classes[useless]);
}

void ssm_pool_own_classes(struct ssm_pool *pool)
{
    SSM_ASSERT(pool->self < pool->geometry.holders);
    for (uint32_t i = 0; i < pool->geometry.class_count; i++)
        pool->classes[i].cache = ssm_cache_at(pool, pool->self, i);
}

void ssm_pool_set_base(struct ssm_pool *pool, uint8_t *base)
{
    SSM_ASSERT(base != NULL);
    pool->base = base;
    pool->blocks = base + pool->geometry.blocks_start;
    prepare_classes(pool);
    if (pool->self != SSM_NIL)
        ssm_pool_own_classes(pool);
}

void ssm_pool_set_status(struct ssm_pool *pool, uint32_t status)
{
    static const char never = 0, always = 1;
    const char *go = status != SSM_STATUS_OPEN || pool->no_membarrier ? &never
                   : pool->flags & SSM_SERIAL                         ? &always
                   : ssm_single_threaded_flag() != NULL               ? ssm_single_threaded_flag()
                                                                      : &never;
    pool->status = status;
    ssm_store_relaxed_u64(&pool->go, (uint64_t)(uintptr_t)go);
}

int ssm_pool_nap(struct ssm_pool *pool, uint64_t duration_ns)
{
    const uint32_t era = ssm_sleeper_begin(pool);
    void *state = pool->hooks.before != NULL ? pool->hooks.before() : NULL;
    ssm_nap_ns(duration_ns);
    int interrupted = pool->hooks.after != NULL ? pool->hooks.after(state) : 0;
    ssm_sleeper_end(pool, era);
    return interrupted ? -EINTR : 0;
}

int ssm_pool_nap_within(struct ssm_pool *pool, uint64_t *until_ns, uint64_t patience_ns, uint64_t nap_ns)
{
    const uint64_t now_ns = ssm_now_ns();
    if (*until_ns == 0)
        *until_ns = now_ns + patience_ns;
    return now_ns >= *until_ns ? -ETIMEDOUT : ssm_pool_nap(pool, nap_ns);
}

/* The first call of a forked child takes a slot, and may have to wait for the registry. */
int ssm_pool_enter_slowly(struct ssm_pool *pool)
{
    for (uint64_t until_ns = 0;;) {
        int result = pool->status & SSM_STATUS_CLOSED   ? -SSM_E_CLOSED
                   : pool->status & SSM_STATUS_READONLY ? -EACCES
                   : pool->status & SSM_STATUS_FORKED   ? pool->revive(pool)
                                                        : 0;
        SSM_ASSERT(result != 0 || (pool->status == SSM_STATUS_OPEN && pool->self != SSM_NIL));
        if (result == 0)
            return 0;
        ssm_pool_leave(pool);
        if (result != -EAGAIN ||
            (result = ssm_pool_nap_within(pool, &until_ns, SSM_POOL_PATIENCE_NS, REVIVE_NAP_NS)) != 0)
            return result;
        if (!(pool->flags & SSM_SERIAL))
            ssm_thread_lock_take(&pool->thread_lock);
    }
}

/* Opens the file anew, through a descriptor that is left or by its name. */
static int open_anew(const struct ssm_pool *pool, const struct ssm_file *file, const char *path)
{
    const bool writable = !(pool->flags & SSM_READONLY);
    const int others[] = {pool->registry.fd, pool->alive.fd};
    for (int i = 0; i < 2; i++)
        if (ssm_file_is(others[i], file, NULL))
            return ssm_file_reopen(others[i], writable);
    return path != NULL ? ssm_file_open(path, writable, file) : -EBADF;
}

/* Returns a descriptor that is surely the file's, and the size of the file. */
static int look_for_fd(const struct ssm_pool *pool, int64_t *size_out)
{
    if (ssm_file_is(pool->fd, &pool->file, size_out))
        return pool->fd;
    int fd = open_anew(pool, &pool->file, pool->path);
    if (fd < 0)
        return fd;
    ((struct ssm_pool *)pool)->fd = fd; /* callers see no difference, so the pool stays const for them */
    *size_out = ssm_segment_file_size(fd);
    return fd;
}

int ssm_pool_fd(const struct ssm_pool *pool)
{
    int64_t size;
    return look_for_fd(pool, &size);
}

int ssm_pool_lock_fd(const struct ssm_pool *pool)
{
    if (pool->locks.path[0] == 0)
        return ssm_pool_fd(pool);
    if (ssm_file_is(pool->locks.fd, &pool->locks.file, NULL))
        return pool->locks.fd;
    int fd = open_anew(pool, &pool->locks.file, pool->locks.path);
    if (fd >= 0)
        ((struct ssm_pool *)pool)->locks.fd = fd; /* as above */
    return fd;
}

bool ssm_holder_is_alive(const struct ssm_pool *pool, uint32_t slot)
{
    for (int look = 0; look < LOOKS; look++) {
        const int fd = pool->locks.path[0] != 0 ? pool->locks.fd : pool->fd;
        int result = ssm_byte_test(fd, SSM_BYTE_HOLDER(slot));
        if (result > 0)
            return true;
        if (result == 0 && ssm_file_is(fd, ssm_pool_lock_file(pool), NULL))
            return false; /* the descriptor that was tested is still the lock file's */
        if (ssm_pool_lock_fd(pool) < 0)
            return true;
    }
    return true;
}

bool ssm_pool_is_whole(const struct ssm_pool *pool)
{
    int64_t size;
    /* Without a descriptor there is nobody to ask: the file counts as whole. */
    return look_for_fd(pool, &size) < 0 || size < 0 || (uint64_t)size >= pool->geometry.size_bytes;
}

int ssm_pool_enter_reader(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        ssm_thread_lock_take(&pool->thread_lock);
    int result = pool->status & SSM_STATUS_CLOSED ? -SSM_E_CLOSED : ssm_pool_is_whole(pool) ? 0 : -SSM_E_CORRUPT;
    if (result != 0)
        ssm_pool_leave(pool);
    return result;
}

int ssm_pool_recheck(struct ssm_pool *pool)
{
    int result = ssm_pool_enter_reader(pool);
    if (result == 0)
        ssm_pool_leave(pool);
    return result;
}
