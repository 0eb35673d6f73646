/* SPDX-License-Identifier: Apache-2.0
 *
 * Reaping: what the dead held goes back. One reaper at a time (the registry's byte lock); the reaper may die too,
 * at any store: each step is idempotent, and a dead process keeps its slot until the last of them is done.
 *
 *   1  locks in the name of a dead process are taken over, which repairs what they guard
 *   2  what it took out of redelivering rings goes back to their front
 *   3  what it owns in services that reclaim is freed; where somebody who is stopped has a service's lock, those of the
 *      dead who may own something there go through 4 and 5 as well, and keep their slots for the next reaper
 *   4  its caches are sealed: no thief is at work in them
 *   5  its bit is cleared everywhere; every block that is empty and not listed is settled
 *   6  its slot becomes free
 */
#ifndef SSM_RECOVERY_H
#define SSM_RECOVERY_H

#include "attachment.h"

/* With the registry locked. Reaps all who are dead; with `audit` it settles every block, and the
 * numbers of the registry, even when nobody is. */
void ssm_recovery_reap_locked(struct ssm_pool *pool, bool audit, struct ssm_reaped *out);

/* With the registry locked, by a process that adopted a dead one's slot: gives back what is held in its name. False:
 * somebody who is stopped is in the way. */
bool ssm_recovery_reap_own_slot(struct ssm_pool *pool);

/* With the registry locked: gives back all that this process still has, its caches above all, and then its slot. False
 * as above: the slot stays, and is a dead process's once the liveness lock is dropped. */
bool ssm_recovery_leave_slot(struct ssm_pool *pool);

/* Reaps if nobody else is at it and anybody is dead, and has not looked for a millisecond. Never waits. True: blocks
 * may have come free. */
bool ssm_recovery_try(struct ssm_pool *pool);

#endif
