/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock file of a pool that others may read and not write: an empty file beside it, which only those may open who may
 * write to the pool. Whoever may read a file can hold read locks on it, all of its bytes at once, and keep everybody from
 * write locks; so the registry's byte and the liveness locks of such a pool are bytes of this file. Other pools have none:
 * their locks are on their own file, for who may open that may write anyway.
 *
 * It is found by the pool's generation (its name is not the pool's: a new pool of that name has another one). Those who only
 * look may not open it: for them each process holds its slot's byte of the pool's file as well, where it can be had, and
 * nobody else relies on that.
 *
 * Death:  making it      it gets its name after its maker holds a lock on it; its pool, which has no name yet, is gone
 *         unlinking      the pool's name goes first
 * Either leaves a lock file that belongs to no pool and on which nobody has a lock: ssm_lock_file_sweep() removes it. */
#ifndef SSM_LOCK_FILE_H
#define SSM_LOCK_FILE_H

#include "attachment.h"

/* Of a pool that is being made, whose file nobody else can open yet: its locks move there. With the registry locked. */
int  ssm_lock_file_make(struct ssm_pool *pool, uint32_t mode);
int  ssm_lock_file_open(struct ssm_pool *pool); /* by pool->generation; -SSM_E_LOCKS_GONE */
void ssm_lock_file_close(struct ssm_pool *pool);

/* So that those who only look see that this process lives, as far as they let it. With its slot taken. */
void ssm_lock_file_show(struct ssm_pool *pool);

#endif
