/* SPDX-License-Identifier: Apache-2.0
 *
 * Reaping: everything that dead processes held is given back. There is one reaper at a time (the registry's byte lock).
 * The reaper may die, too, at any store: each step is idempotent, and a dead process keeps its slot until the last step
 * is done.
 *
 *   1  locks in the name of a dead process are taken over, which repairs what they guard
 *   2  packets that it took out of redelivering rings go back to their front
 *   3  values that it owns in services that reclaim are freed; if a stopped process has a service's lock, dead
 *      processes that may own values there go through 4 and 5, and keep their slots for the next reaper
 *   4  its caches are sealed, so that no thief is active in them
 *   5  its bit is cleared everywhere; every free block that is not listed is settled
 *   6  it has no ring open any more; rings without a name that nobody has open are freed
 *   7  its slot becomes free
 */
#ifndef SSM_RECOVERY_H
#define SSM_RECOVERY_H

#include "attachment.h"

/* Reaps all dead processes. With `audit` it settles every block, and the registry's numbers, even if no process is
 * dead. Needs the registry locked. */
void ssm_recovery_reap_locked(struct ssm_pool *pool, bool audit, struct ssm_reaped *out);

/* Gives back what is held in the name of this process, which adopted the slot of a dead one. False if a stopped process
 * is in the way. Needs the registry locked. */
bool ssm_recovery_reap_own_slot(struct ssm_pool *pool);

/* Gives back all that this process still has, above all its caches, and then its slot. False as above: then the slot
 * stays, and is a dead process's when the liveness lock is dropped. Needs the registry locked. */
bool ssm_recovery_leave_slot(struct ssm_pool *pool);

/* Reaps if a process is dead, no other process is reaping, and the last look was a millisecond ago. Never waits. True
 * if blocks may have come free. */
bool ssm_recovery_try(struct ssm_pool *pool);

#endif
