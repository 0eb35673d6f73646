/* SPDX-License-Identifier: Apache-2.0
 *
 * Entering an attachment; see attachment.h. */
#include "attachment.h"

#include <errno.h>

/* So that the class of a size is found without a look at all smaller ones. `class`: the first one that is of any use. */
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
        const struct ssm_claim fresh = {.references = 1, .class_idx = (uint8_t)i};
        useless += c->block_size < overhead;
        pool->classes[i] = (struct ssm_own_class){
            .size_max = c->block_size - overhead, .block_size = is_arena ? SSM_ARENA_BLOCK_SIZE : c->block_size,
            .shared = ssm_class_at(pool, i), .first_block = c->first_block, .block_count = c->block_count,
            .cache_blocks = c->cache_blocks, .class_idx = i,
            .fresh = is_arena ? SSM_ARENA_FRESH : ssm_claim_as_number(&fresh),
        };
    }
    pool->classes[g->class_count] = (struct ssm_own_class){.size_max = UINT64_MAX, .class_idx = g->class_count};
    index_classes(pool, &pool->classes[useless]);
}

void ssm_classes_own(struct ssm_pool *pool)
{
    for (uint32_t i = 0; i < pool->geometry.class_count; i++)
        pool->classes[i].cache = ssm_cache_at(pool, pool->self, i);
}

void ssm_pool_set_base(struct ssm_pool *pool, uint8_t *base)
{
    pool->base = base;
    pool->blocks = base + pool->geometry.blocks_start;
    prepare_classes(pool);
    if (pool->self != SSM_NIL)
        ssm_classes_own(pool);
}

int ssm_enter_slowly(struct ssm_pool *pool)
{
    int result = pool->status & SSM_STATUS_CLOSED   ? -SSM_E_CLOSED
               : pool->status & SSM_STATUS_READONLY ? -EACCES
                                                    : pool->revive(pool);
    if (result != 0)
        ssm_leave(pool);
    return result;
}

bool ssm_pool_is_whole(const struct ssm_pool *pool)
{
    int64_t size = ssm_segment_file_size(pool->fd);
    return size < 0 || (uint64_t)size >= pool->geometry.size_bytes; /* a file that cannot be asked passes */
}

int ssm_enter_reader(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        ssm_guard_take(&pool->guard);
    int result = pool->status & SSM_STATUS_CLOSED ? -SSM_E_CLOSED : ssm_pool_is_whole(pool) ? 0 : -SSM_E_CORRUPT;
    if (result != 0)
        ssm_leave(pool);
    return result;
}

int ssm_look(struct ssm_pool *pool)
{
    int result = ssm_enter_reader(pool);
    if (result == 0)
        ssm_leave(pool);
    return result;
}
