/* SPDX-License-Identifier: Apache-2.0
 *
 * The holder table: which processes are attached, and which of them are dead.
 *
 * A byte lock, which the kernel drops when its owner dies, serialises taking and freeing slots, reaping, and creating
 * rings. Its next owner finds each slot either taken (kind != NONE) or free; a taken slot whose liveness lock is free
 * belongs to a dead process. A death between two stores of ssm_registry_take() leaves
 *   liveness lock taken, kind still NONE   nothing: the kernel drops the lock with the process
 *   kind == PROCESS                        a holder that is dead, and is reaped like any other
 * Holder slots, ring ids and RMIDs come from allocators that follow this table: registry_ids.h. */
#ifndef SSM_REGISTRY_H
#define SSM_REGISTRY_H

#include "attachment.h"

/* 0, -ETIMEDOUT, or -errno if no descriptor is left. Not recursive. With timeout_ns == 0 it tries once. Otherwise it
 * naps and runs the hooks (-EINTR), so the attachment must not be entered. */
int ssm_registry_lock(struct ssm_pool *pool, uint64_t timeout_ns);
void ssm_registry_unlock(struct ssm_pool *pool);
/* ssm_pool_enter() and the lock; waits outside of the attachment. On success the caller ends both by
 * ssm_registry_end(). */
int ssm_registry_begin(struct ssm_pool *pool, uint64_t patience_ns);
void ssm_registry_end(struct ssm_pool *pool);

/* With the registry locked: */
/* Makes this process a holder. -SSM_E_HOLDERS if there is no slot; -EAGAIN, unless `at_once`, if all RMIDs rest: try
 * again SSM_RMID_REST_NS later. If no slot is free, it adopts the slot of a dead process, whose bits are still set:
 * then the caller first has to give back what is held in that name. */
int ssm_registry_take(struct ssm_pool *pool, bool at_once, bool *adopted_out);
void ssm_registry_leave(struct ssm_pool *pool); /* this process holds nothing any more; frees its slot */
void ssm_registry_release(struct ssm_pool *pool, uint32_t slot); /* of a process that holds nothing */
void ssm_registry_abandon(struct ssm_pool *pool);       /* drops the liveness lock: the slot is a dead process's */
uint32_t ssm_registry_find_free(struct ssm_pool *pool); /* a slot, or SSM_NIL */
void ssm_registry_mark_used(struct ssm_pool *pool, uint32_t slot); /* before its kind is set */

/* Is the process dead that had this slot in this incarnation? Never true of the caller itself. */
bool ssm_holder_is_dead(const struct ssm_pool *pool, uint32_t slot, uint32_t incarnation);
/* Is the process dead that has this slot now? False for a slot without a process. */
bool ssm_holder_slot_is_dead(const struct ssm_pool *pool, uint32_t slot);

#endif
