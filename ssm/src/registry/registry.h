/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder table: who is attached, and who of them is dead.
 *
 * Taking and freeing slots, reaping, and creating a ring are serialised by a byte lock that the kernel drops when
 * its owner dies; whoever gets it next finds each slot either taken (kind != NONE) or not, and a taken one whose
 * liveness lock is free belongs to a dead process. Between any two stores of ssm_registry_take():
 *   liveness lock taken, kind still NONE   the kernel drops the lock with the process: as if nothing had happened
 *   kind == PROCESS                        a holder; dead when the lock is free; reaped like any other
 * The numbers that this takes, slots, ids of rings and RMIDs, come from allocators that follow the table: registry_ids.h. */
#ifndef SSM_REGISTRY_H
#define SSM_REGISTRY_H

#include "attachment.h"

/* 0, -ETIMEDOUT, or -errno: no descriptor is left; with timeout_ns == 0 it tries once. Not recursive. Otherwise it naps
 * between the hooks: -EINTR, and not where the attachment has been entered. */
int  ssm_registry_lock(struct ssm_pool *pool, uint64_t timeout_ns);
void ssm_registry_unlock(struct ssm_pool *pool);
/* ssm_pool_enter() and the lock: on success both are to be given up, ssm_registry_end(). It waits outside of the attachment. */
int  ssm_registry_begin(struct ssm_pool *pool, uint64_t patience_ns);
void ssm_registry_end(struct ssm_pool *pool);

/* With the registry locked: */
/* This process becomes a holder; -SSM_E_HOLDERS; or -EAGAIN, unless `at_once`: all RMIDs rest, try again SSM_RMID_REST_NS
 * later. Where no slot is free it adopts a dead process's: then the bits of
 * that one are still set, and what is held in its name has to be given back first. */
int      ssm_registry_take(struct ssm_pool *pool, bool at_once, bool *adopted_out);
void     ssm_registry_leave(struct ssm_pool *pool); /* it holds nothing any more; its slot is free */
void     ssm_registry_release(struct ssm_pool *pool, uint32_t slot); /* a slot whose process holds nothing any more */
void     ssm_registry_abandon(struct ssm_pool *pool); /* its slot is a dead process's (again); the liveness lock goes */
uint32_t ssm_registry_find_free(struct ssm_pool *pool); /* a slot, or SSM_NIL */
void     ssm_registry_mark_used(struct ssm_pool *pool, uint32_t slot); /* before its kind is set */

/* Is the process gone that had this slot in this incarnation? Never true of the caller itself. */
bool ssm_holder_is_dead(const struct ssm_pool *pool, uint32_t slot, uint32_t incarnation);
/* The same for a slot as it is now; false for a slot without a process. */
bool ssm_holder_slot_is_dead(const struct ssm_pool *pool, uint32_t slot);

#endif
