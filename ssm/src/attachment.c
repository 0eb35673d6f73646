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

int ssm_enter_reader(struct ssm_pool *pool)
{
    if (!(pool->flags & SSM_SERIAL))
        pthread_mutex_lock(&pool->mutex);
    if (!(pool->status & SSM_STATUS_CLOSED))
        return 0;
    ssm_leave(pool);
    return -SSM_E_CLOSED;
}
