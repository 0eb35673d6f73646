/* SPDX-License-Identifier: Apache-2.0
 *
 * Fork handlers; see fork.h. */
#include "fork.h"

#include "redelivery.h"
#include "usage.h"

#include <pthread.h>

static pthread_mutex_t list_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct ssm_pool *list_first;

static void before_fork(void)
{
    pthread_mutex_lock(&list_mutex);
    for (struct ssm_pool *pool = list_first; pool != NULL; pool = pool->next)
        if (!(pool->flags & SSM_SERIAL))
            ssm_thread_lock_take(&pool->thread_lock);
    ssm_fork_lock(); /* last: calls with a thread lock take it */
}

static void unlock_all(void)
{
    ssm_fork_unlock();
    for (struct ssm_pool *pool = list_first; pool != NULL; pool = pool->next)
        if (!(pool->flags & SSM_SERIAL))
            ssm_thread_lock_release(&pool->thread_lock);
    pthread_mutex_unlock(&list_mutex);
}

int ssm_fork_open_descriptions(struct ssm_pool *pool)
{
    int fd = ssm_pool_lock_fd(pool), result = fd < 0 ? fd : 0;
    if (result == 0 && pool->registry.page == NULL)
        result = ssm_description_open(fd, &pool->registry);
    if (result == 0 && pool->alive.page == NULL)
        result = ssm_description_open(fd, &pool->alive);
    return result;
}

static void become_child(struct ssm_pool *pool)
{
    pool->era++;
    if (pool->flags & SSM_READONLY)
        return;
    ssm_description_disown(&pool->registry, ssm_pool_lock_file(pool));
    ssm_description_disown(&pool->alive, ssm_pool_lock_file(pool));
    ssm_description_disown(&pool->shown, &pool->file);
    pool->no_membarrier = !ssm_membarrier_register(); /* at once, since the child has one thread */
    pool->self = SSM_NIL;
    pool->pinned = 0;
    pool->left_bytes = 0;
    pool->unchecked_bytes_max = pool->peak_bytes = 0;
    ssm_store_relaxed_u32(&pool->sleepers, 0); /* the sleeping threads are the parent's */
    if (pool->claims != NULL)                  /* NULL if another thread of the parent was making it */
        ssm_private_clear(pool->claims, pool->geometry.block_total * sizeof *pool->claims);
    ssm_redelivery_forget(pool);
    ssm_pool_set_status(pool, (pool->status & SSM_STATUS_CLOSED) | SSM_STATUS_FORKED);
}

static void in_child(void)
{
    for (struct ssm_pool *pool = list_first; pool != NULL; pool = pool->next)
        become_child(pool);
    unlock_all();
    for (struct ssm_pool *pool = list_first; pool != NULL; pool = pool->next)
        if (!(pool->flags & SSM_READONLY) && !(pool->status & SSM_STATUS_CLOSED))
            (void)ssm_fork_open_descriptions(pool); /* now, since it may run as another user by its first call */
}

/* Registered when the library is loaded, so that no fork comes while the first attachment does it. */
__attribute__((constructor)) static void watch_forks(void)
{
    pthread_atfork(before_fork, unlock_all, in_child);
}

void ssm_fork_link(struct ssm_pool *pool)
{
    pthread_mutex_lock(&list_mutex);
    SSM_ASSERT(pool->link == NULL);
    pool->next = list_first;
    pool->link = &list_first;
    if (list_first != NULL)
        list_first->link = &pool->next;
    list_first = pool;
    pthread_mutex_unlock(&list_mutex);
}

void ssm_fork_unlink(struct ssm_pool *pool)
{
    pthread_mutex_lock(&list_mutex);
    SSM_ASSERT(pool->link != NULL); /* with the lock: its neighbours write it */
    *pool->link = pool->next;
    if (pool->next != NULL)
        pool->next->link = pool->link;
    pool->link = NULL;
    pthread_mutex_unlock(&list_mutex);
}

uint64_t ssm_pool_held_here(struct ssm_pool *pool)
{
    uint64_t held_bytes = 0;
    pthread_mutex_lock(&list_mutex);
    for (struct ssm_pool *each = list_first; each != NULL; each = each->next) {
        if (each->generation != pool->generation)
            continue;
        if (!(each->flags & SSM_SERIAL))
            ssm_thread_lock_take(&each->thread_lock);
        held_bytes += ssm_usage_held(each);
        if (!(each->flags & SSM_SERIAL))
            ssm_thread_lock_release(&each->thread_lock);
    }
    pthread_mutex_unlock(&list_mutex);
    return held_bytes;
}
