/* SPDX-License-Identifier: Apache-2.0
 *
 * The lock file of a pool that other users may read but not write: an empty file beside it, which only users that may
 * write to the pool can open. A user who may read a file can take read locks on all its bytes, and so prevent write
 * locks. So the registry's byte and the liveness locks of such a pool are bytes of this file. Other pools have no lock
 * file: users that may open them may write anyway.
 *
 * Its name contains the pool's generation, not its name: a new pool of the same name has another lock file. Read-only
 * attachments cannot open it. For them, each process also locks its slot's byte of the pool's file where it can; no
 * other process relies on that lock.
 *
 * Death:  while it is made   it gets its name after its maker has locked it; its pool has no name yet and is gone
 *         while unlinking    the pool's name goes first
 * Both leave a lock file without a pool and without a lock: ssm_lock_file_sweep() removes it. */
#ifndef SSM_LOCK_FILE_H
#define SSM_LOCK_FILE_H

#include "attachment.h"

/* Makes the lock file of a new pool, whose file no other process can open yet, and moves its locks there. Needs the
 * registry locked. */
int ssm_lock_file_make(struct ssm_pool *pool, uint32_t mode);
int ssm_lock_file_open(struct ssm_pool *pool); /* by pool->generation; -SSM_E_LOCKS_GONE */
void ssm_lock_file_close(struct ssm_pool *pool);

/* Locks this process's byte of the pool's own file, for read-only attachments, if it can. Needs its slot taken. */
void ssm_lock_file_show(struct ssm_pool *pool);

#endif
