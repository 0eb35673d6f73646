/* SPDX-License-Identifier: Apache-2.0
 *
 * What recovery and introspection need of services; the rest is public (ssm.h).
 *
 * The directory has SSM_SERVICE_MAX entries. One is made under the registry's byte lock; its last store is `kind`, so a
 * death before it leaves nothing behind (carver.h gives the memory back). Entries stay as long as the pool.
 *
 * Each service has a robust lock, taken for one operation; whoever takes it over from a dead process first lets the
 * allocator finish or undo what that one was at (al_*_recover), then goes on. Nothing else is locked under it.
 */
#ifndef SSM_SERVICE_H
#define SSM_SERVICE_H

#include "attachment.h"
#include "holder_set.h"

/* Takes the lock over where a dead process has it, and repairs. */
void ssm_service_scrub(struct ssm_pool *pool, uint32_t service_idx);

/* Of a service with SSM_RECLAIM: frees what the holder slots of the set own; nothing of other
 * services. False: somebody who is stopped has the lock. */
bool ssm_service_reclaim(struct ssm_pool *pool, uint32_t service_idx, const struct ssm_holder_set *slots);

/* Calls `report` with what, and two numbers that say where; how many times. */
uint64_t ssm_service_check(struct ssm_pool *pool, uint32_t service_idx,
                           void (*report)(void *context, const char *what, uint64_t where, uint64_t value), void *context);
/* Of a sound service: its values that nobody would ever give back; now, for a process may be about to join or leave. */
uint64_t ssm_service_orphans(struct ssm_pool *pool, uint32_t service_idx);

#endif
