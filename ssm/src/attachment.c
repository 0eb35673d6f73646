/* SPDX-License-Identifier: Apache-2.0
 *
 * Entering an attachment; see attachment.h. */
#include "attachment.h"

#include <errno.h>

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
        pthread_mutex_lock(&pool->mutex);
    int result = pool->status & SSM_STATUS_CLOSED ? -SSM_E_CLOSED : ssm_pool_is_whole(pool) ? 0 : -SSM_E_CORRUPT;
    if (result != 0)
        ssm_leave(pool);
    return result;
}
