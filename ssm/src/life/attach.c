/* SPDX-License-Identifier: Apache-2.0
 *
 * Creating pools, and attaching to them. leave.c has leaving, fork.h what a fork does, retire.c the end of a pool.
 *
 * A file is filled before it has a name (object.h), so nobody sees a pool that is not ready. If a C program fills a
 * file that others can open already, they find no magic in it, which is stored last, and so it is no pool to them.
 * Several creators of one file take turns by the registry's byte lock: the first one fills it, the others find it
 * filled.
 */
#include "attach.h"

#include "arena.h"
#include "cache.h"
#include "carver.h"
#include "clock.h"
#include "fork.h"
#include "lock_file.h"
#include "options.h"
#include "recovery.h"
#include "redelivery.h"
#include "registry.h"
#include "registry_ids.h"
#include "ring_unlink.h"
#include "usage.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

/* ---- making and unmaking the private side ---------------------------------------------------------------- */

void ssm_attach_close_file(struct ssm_pool *pool)
{
    ssm_description_drop(&pool->alive, ssm_pool_lock_file(pool));
    ssm_description_drop(&pool->registry, ssm_pool_lock_file(pool));
    ssm_lock_file_close(pool);
    ssm_file_close(&pool->fd, &pool->file);
    free(pool->path);
    pool->path = NULL; /* it is not opened again */
}

void ssm_attach_dispose(struct ssm_pool *pool)
{
    size_t blocks = pool->geometry.block_total;
    ssm_fork_unlink(pool); /* first: a fork visits all linked attachments */
    ssm_private_unmap(pool->claims, blocks * sizeof *pool->claims);
    ssm_private_unmap(pool->scratch, blocks * sizeof *pool->scratch);
    free(pool->extents);
    ssm_segment_unmap(&pool->segment);
    ssm_redelivery_dispose(pool);
    ssm_attach_close_file(pool);
    free(pool);
}

/* The path by which the file can be opened again; it leads nowhere if the file has no name (yet). */
static char *path_of(int fd, const struct ssm_attach_options *options)
{
    char link[32], path[PATH_MAX];
    if (options->path != NULL)
        return strdup(options->path);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return NULL;
    path[length] = 0;
    return strdup(path);
}

static int open_file(struct ssm_pool *pool, int fd, const struct ssm_attach_options *options)
{
    const bool writable = !(options->flags & SSM_READONLY);
    ssm_fork_lock();
    int result = pool->fd = ssm_file_reopen(fd, writable);
    ssm_fork_unlock();
    if (result >= 0)
        result = ssm_file_identify(pool->fd, &pool->file);
    pool->path = path_of(fd, options);
    return result;
}

/* For tests of wake-ups: with a look only every few seconds, a forgotten wake-up is a wait that a test notices. */
static uint64_t recheck_ns(void)
{
    const char *text = getenv("SSM_RECHECK_MS");
    const unsigned long ms = text != NULL ? strtoul(text, NULL, 10) : 0;
    return ms > 0 && ms <= 60000 ? ms * UINT64_C(1000000) : SSM_RECHECK_NS;
}

static int prepare(int fd, const struct ssm_attach_options *options, struct ssm_pool **pool_out)
{
    const int known = ssm_options_check(options, sizeof *options);
    if (known != 0)
        return known;
    int64_t size = ssm_segment_file_size(fd); /* first: opening a FIFO anew might wait for ever */
    if (size < 0)
        return (int)size;
    struct ssm_pool *pool = aligned_alloc(SSM_CACHELINE, sizeof *pool);
    if (pool == NULL)
        return -ENOMEM;
    memset(pool, 0, sizeof *pool);
    pool->flags = options->flags;
    pool->hooks = options->hooks;
    pool->self = SSM_NIL;
    pool->quota_bytes = UINT64_MAX;
    pool->many_cpus = sysconf(_SC_NPROCESSORS_ONLN) > 1;
    pool->recheck_ns = recheck_ns();
    if (!(options->flags & SSM_READONLY)) /* without a lock: in a process with threads it may take seconds */
        pool->no_membarrier = !ssm_membarrier_register();
    ssm_pool_set_status(pool, SSM_STATUS_OPEN);
    ssm_store_relaxed_u32(&pool->linger_rest, 1);
    if (options->name != NULL)
        strncpy(pool->name, options->name, sizeof pool->name - 1);
    else
        prctl(PR_GET_NAME, pool->name);
    pool->fd = pool->locks.fd = -1;
    pool->registry = pool->alive = pool->shown = SSM_NO_DESCRIPTION;
    ssm_fork_link(pool); /* before it has anything that a forked child must not keep */
    int result = open_file(pool, fd, options);
    if (result != 0)
        ssm_attach_dispose(pool);
    else
        *pool_out = pool;
    return result;
}

static unsigned advice_of(const struct ssm_pool *pool)
{
    return (pool->flags & SSM_HUGEPAGES ? SSM_ADVICE_HUGEPAGES : 0u) |
           (pool->flags & SSM_PREFAULT ? SSM_ADVICE_PREFAULT : 0u) | (pool->flags & SSM_MLOCK ? SSM_ADVICE_MLOCK : 0u);
}

static uint64_t arena_start(const struct ssm_pool *pool)
{
    return pool->geometry.classes[pool->geometry.fixed_count].payload_start;
}

/* Reserves the fixed part of a new pool, and what a growing arena begins with. */
static int prepare_memory(const struct ssm_pool *pool, const struct ssm_segment *segment,
                          const struct ssm_sleep_hooks *hooks)
{
    const uint64_t bytes = pool->geometry.arena_units > 0 ? pool->geometry.arena_reserved : 0;
    const struct ssm_segment arena = {.base = segment->base + arena_start(pool), .size = bytes, .reserved = bytes};
    const int result = ssm_segment_prepare(segment, advice_of(pool), hooks);
    return result == 0 && bytes > 0 ? ssm_segment_prepare(&arena, advice_of(pool), hooks) : result;
}

static int map(struct ssm_pool *pool)
{
    bool writable = !(pool->flags & SSM_READONLY);
    /* A mapping keeps its description open, also in a forked child. So this description holds no locks. */
    int fd = ssm_pool_fd(pool);
    int result = fd < 0 ? fd : ssm_segment_map(fd, pool->geometry.size_bytes, writable, &pool->segment);
    if (result != 0)
        return result;
    ssm_segment_set_reserved(&pool->segment, pool->geometry.reserved_bytes);
    result = prepare_memory(pool, &pool->segment, &pool->hooks);
    if (result != 0)
        return result;
    ssm_pool_set_base(pool, pool->segment.base);
    size_t blocks = pool->geometry.block_total;
    pool->claims = ssm_private_map(blocks * sizeof *pool->claims);
    pool->scratch = ssm_private_map(blocks * sizeof *pool->scratch);
    pool->extents = calloc(pool->geometry.arena_packets + 1, sizeof *pool->extents);
    return pool->claims != NULL && pool->scratch != NULL && pool->extents != NULL ? 0 : -ENOMEM;
}

/* Takes a slot, and reaps. Needs the registry locked. */
static int become_holder(struct ssm_pool *pool, bool at_once)
{
    struct ssm_reaped reaped;
    bool adopted;
    ssm_clock_refresh(); /* before times are written into the pool, the first one with its RMID */
    if (ssm_load_acquire_u32(&ssm_superblock_of(pool)->state) != SSM_STATE_READY)
        return -SSM_E_ABANDONED;
    int result = ssm_registry_take(pool, at_once, &adopted);
    if (result != 0)
        return result;
    if (adopted && !ssm_recovery_reap_own_slot(pool)) {
        ssm_registry_abandon(pool);
        return -SSM_E_HOLDERS;
    }
    SSM_ASSERT(ssm_usage_held(pool) == 0 && pool->pinned == 0 && pool->self != SSM_NIL);
    ssm_cache_reset(pool);
    ssm_recovery_reap_locked(pool, false, &reaped);
    return 0;
}

static int revive(struct ssm_pool *pool)
{
    if (!ssm_pool_is_whole(pool))
        return -SSM_E_CORRUPT;
    int result = ssm_registry_lock(pool, 0);
    if (result != 0)
        return result == -ETIMEDOUT ? -EAGAIN : result;
    result = become_holder(pool, pool->rested);
    pool->rested = result == -EAGAIN;
    if (result == 0)
        ssm_rings_renew(pool);
    ssm_registry_unlock(pool);
    if (result == 0)
        ssm_pool_set_status(pool, pool->status & ~(uint32_t)SSM_STATUS_FORKED);
    return result;
}

/* For an attachment that is being made, which no other thread can enter. */
static int join(struct ssm_pool *pool, uint64_t registry_patience_ns)
{
    int result = -EAGAIN;
    for (int look = 0; result == -EAGAIN && look < 2; look++) {
        if (look > 0 && ssm_pool_nap(pool, SSM_RMID_REST_NS) != 0)
            return -EINTR;
        result = ssm_registry_lock(pool, registry_patience_ns);
        if (result != 0)
            return result;
        result = become_holder(pool, look > 0);
        ssm_registry_unlock(pool);
    }
    return result;
}

static int go(struct ssm_pool *pool, int result, struct ssm_pool **pool_out)
{
    if (result != 0) {
        ssm_attach_dispose(pool);
        return result;
    }
    SSM_ASSERT(pool->base != NULL && (pool->self != SSM_NIL || pool->flags & SSM_READONLY));
    pool->revive = revive;
    pool->on_stall = ssm_recovery_try;
    pool->on_deliveries_done = ssm_ring_deliveries_done;
    *pool_out = pool;
    return 0;
}

/* ---- create and attach ------------------------------------------------------------------------------------ */

static const struct ssm_attach_options plain;

static uint64_t patience_ns(const struct ssm_attach_options *options)
{
    return options->timeout_ns > 0 ? (uint64_t)options->timeout_ns : SSM_POOL_PATIENCE_NS;
}

/* Puts all blocks on the list of shard 0, the lowest one on top. Everything else in the new file is zero already. */
static void fill_lists(struct ssm_pool *pool)
{
    for (uint32_t class_idx = 0; class_idx < pool->geometry.class_count; class_idx++) {
        const struct ssm_class_geometry *c = &pool->geometry.classes[class_idx];
        struct ssm_u32 *list = ssm_list_at(pool, class_idx, 0);
        const uint32_t blocks = ssm_class_is_arena(pool, class_idx) && pool->geometry.arena_units > 0 ? 0
                                                                                                      : c->block_count;
        for (uint32_t i = 0; i < blocks; i++) {
            uint32_t block_idx = c->first_block + blocks - 1 - i;
            ssm_store_relaxed_u32(&list[i], block_idx);
            ssm_store_relaxed_u32(&ssm_block_at(pool, block_idx)->listed, 1);
        }
        ssm_store_relaxed_u32(&ssm_shard_at(pool, class_idx, 0)->free_count, blocks);
    }
}

static int build(struct ssm_pool *pool, uint32_t locks_mode)
{
    int64_t size = ssm_segment_file_size(pool->fd);
    if (size != 0)
        return size < 0 ? (int)size : -EEXIST;
    int result = ssm_segment_reserve(pool->fd, 0, pool->geometry.reserved_bytes, &pool->hooks, NULL);
    if (result == 0 && pool->geometry.reserved_bytes < pool->geometry.size_bytes)
        result = ssm_segment_stretch(pool->fd, pool->geometry.size_bytes);
    if (result == 0 && pool->geometry.arena_units > 0)
        result = ssm_segment_reserve(pool->fd, arena_start(pool), pool->geometry.arena_reserved, &pool->hooks, NULL);
    if (result == 0)
        result = map(pool);
    if (result != 0)
        return result;
    ssm_superblock_write(ssm_superblock_of(pool), &pool->geometry);
    pool->generation = ssm_superblock_of(pool)->generation;
    fill_lists(pool);
    result = locks_mode != 0 ? ssm_lock_file_make(pool, locks_mode) : 0;
    if (result == 0)
        result = ssm_carver_init(pool);
    if (result == 0)
        result = ssm_arena_init(pool);
    if (result == 0)
        result = ssm_registry_ids_init(pool);
    if (result != 0)
        return result;
    ssm_store_release_u32(&ssm_superblock_of(pool)->state, SSM_STATE_READY);
    result = become_holder(pool, true);
    if (result == 0)
        ssm_superblock_publish(ssm_superblock_of(pool));
    return result;
}

int ssm_pool_create(int fd, const struct ssm_pool_options *options, const struct ssm_attach_options *attach,
                    struct ssm_pool **pool_out)
{
    struct ssm_pool *pool;
    attach = attach != NULL ? attach : &plain;
    if (attach->flags & SSM_READONLY)
        return -EINVAL;
    int result = ssm_options_check(options, sizeof *options);
    if (result == 0)
        result = prepare(fd, attach, &pool);
    if (result != 0)
        return result;
    struct ssm_pool_options wanted = *options;
    wanted.flags |= options->locks_mode != 0 ? SSM_LOCKS_APART : 0;
    result = ssm_layout_compute(&wanted, &pool->geometry);
    if (result == 0)
        result = ssm_fork_open_descriptions(pool);
    if (result == 0)
        result = ssm_registry_lock(pool, patience_ns(attach));
    if (result == 0) {
        result = build(pool, options->locks_mode);
        if (result != 0 && result != -EEXIST) {
            ssm_segment_empty(pool->fd); /* as the caller's file was before */
            if (pool->locks.path[0] != 0)
                ssm_lock_file_unlink(pool->generation);
        }
        ssm_registry_unlock(pool);
    }
    return go(pool, result, pool_out);
}

void ssm_pool_remap(struct ssm_pool *pool, int fd)
{
    struct ssm_segment again;
    if (pool->flags & (SSM_PREFAULT | SSM_MLOCK) || !ssm_segment_is_same(fd, pool->fd) || ssm_pool_enter(pool) != 0)
        return;
    if (ssm_segment_map(fd, pool->segment.size, true, &again) == 0) {
        ssm_segment_set_reserved(&again, pool->segment.reserved);
        prepare_memory(pool, &again, &plain.hooks);
        ssm_segment_unmap(&pool->segment);
        pool->segment = again;
        ssm_pool_set_base(pool, again.base);
    }
    ssm_pool_leave(pool);
}

int ssm_attach_read_file(struct ssm_pool *pool)
{
    struct ssm_superblock superblock = {0};
    int64_t size = ssm_segment_file_size(pool->fd);
    int64_t got = size < 0 ? size : ssm_segment_peek(pool->fd, 0, &superblock, sizeof superblock);
    if (got < 0)
        return (int)got;
    if (got < (int64_t)sizeof superblock)
        return -SSM_E_LAYOUT;
    int result = ssm_superblock_read(&superblock, (uint64_t)size, &pool->geometry);
    if (result != 0)
        return result;
    pool->generation = superblock.generation;
    if (ssm_segment_reserved_bytes(pool->fd) < pool->geometry.reserved_bytes)
        return -SSM_E_CORRUPT; /* it was cut, and has grown again: touching a hole may be SIGBUS */
    uint32_t state = ssm_load_relaxed_u32(&superblock.state); /* a copy; read again with the registry locked */
    return state == SSM_STATE_READY ? 0 : state == SSM_STATE_POISONED ? -SSM_E_ABANDONED : -SSM_E_CORRUPT;
}

int ssm_pool_attach(int fd, const struct ssm_attach_options *options, struct ssm_pool **pool_out)
{
    struct ssm_pool *pool;
    options = options != NULL ? options : &plain;
    int result = prepare(fd, options, &pool);
    if (result != 0)
        return result;
    result = ssm_attach_read_file(pool);
    if (result == 0 && !(options->flags & SSM_READONLY))
        result = pool->geometry.flags & SSM_LOCKS_APART ? ssm_lock_file_open(pool) : 0;
    if (result == 0 && !(options->flags & SSM_READONLY))
        result = ssm_fork_open_descriptions(pool);
    if (result == 0)
        result = map(pool);
    if (result == 0 && !ssm_arena_is_backed(pool))
        result = -SSM_E_CORRUPT;
    if (result == 0 && options->flags & SSM_READONLY) {
        ssm_pool_set_status(pool, SSM_STATUS_READONLY);
    } else if (result == 0) {
        result = join(pool, patience_ns(options));
    }
    return go(pool, result, pool_out);
}

/* A process that reads the name meanwhile, or after a death in here, may read a mixture of two. */
int ssm_pool_set_name(struct ssm_pool *pool, const char *name)
{
    SSM_POOL_READ(pool);
    strncpy(pool->name, name, sizeof pool->name - 1);
    if (pool->self != SSM_NIL)
        memcpy(ssm_holder_at(pool, pool->self)->name, pool->name, sizeof pool->name);
    return 0;
}

int ssm_pool_set_quota(struct ssm_pool *pool, uint64_t bytes)
{
    SSM_POOL_READ(pool);
    ssm_usage_set_limits(pool, bytes, pool->peak_bytes);
    return 0;
}

int64_t ssm_pool_bytes(const struct ssm_pool_options *options)
{
    struct ssm_geometry geometry;
    int result = ssm_options_check(options, sizeof *options);
    if (result == 0)
        result = ssm_layout_compute(options, &geometry);
    return result == 0 ? (int64_t)geometry.size_bytes : result;
}

/* ---- what an attachment is ------------------------------------------------------------------------------------ */

const uint32_t *ssm_pool_era(const struct ssm_pool *pool)
{
    return &pool->era;
}

int ssm_pool_info(struct ssm_pool *pool, struct ssm_pool_info *info_out)
{
    const struct ssm_geometry *g = &pool->geometry;
    SSM_POOL_READ(pool);
    *info_out = (struct ssm_pool_info){
        .size_bytes = g->size_bytes,
        .generation = ssm_superblock_of(pool)->generation,
        .class_count = g->fixed_count,
        .shards = g->shards,
        .headroom = g->headroom,
        .tailroom = g->tailroom,
        .cache = g->cache,
        .holders = g->holders,
        .flags = g->flags & SSM_EPHEMERAL,
        .locks_apart = (g->flags & SSM_LOCKS_APART) != 0,
        .self = pool->self,
        .arena_packets = g->arena_packets,
        .rings_max = ssm_rings_max(g->holders),
        .arena_bytes = g->arena_bytes,
        .arena_reserved = g->arena_reserved,
    };
    for (uint32_t i = 0; i < g->fixed_count; i++)
        info_out->classes[i] = (struct ssm_class_spec){g->classes[i].block_size, g->classes[i].block_count};
    return 0;
}

int ssm_pool_access(struct ssm_pool *pool, uint32_t *uid_out, uint32_t *mode_out)
{
    SSM_POOL_READ(pool);
    return ssm_segment_access(pool->fd, uid_out, mode_out);
}
