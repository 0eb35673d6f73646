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
#include "hosted.h"

/* One process's view of a service: private memory. */
struct ssm_service {
    struct ssm_pool           *pool;
    struct ssm_service_shared *shared;
    struct ssm_hosted          hosted;
    const uint8_t             *core; /* of the allocator itself, without owners */
    uint64_t                   core_bytes;
    uint32_t                   flags;
    uint32_t                   service_idx;
    struct ssm_u32             last; /* semaphore: the permit that was taken last, where to look for the next; a guess */
};

/* Takes the lock over where a dead process has it, and repairs. */
void ssm_service_scrub(struct ssm_pool *pool, uint32_t service_idx);

/* Of a service with SSM_RECLAIM: frees what the holder slots of the set own; nothing of other
 * services. False: somebody who is stopped has the lock. */
bool ssm_service_reclaim(struct ssm_pool *pool, uint32_t service_idx, const struct ssm_holder_set *slots);

#if SSM_ASSERTS
/* With the service's lock held: its allocator does not contradict itself, and `used` is what it says. */
bool ssm_service_is_valid(const struct ssm_service *service);
#endif

/* Calls `report` with what, and two numbers that say where; how many times. */
uint64_t ssm_service_check(struct ssm_pool *pool, uint32_t service_idx,
                           void (*report)(void *context, const char *what, uint64_t where, uint64_t value), void *context);
/* Of a sound service: its values that nobody would ever give back; now, for a process may be about to join or leave. */
uint64_t ssm_service_orphans(struct ssm_pool *pool, uint32_t service_idx);

/* ---- for the operations of the kinds ------------------------------------------------------------------- */

/* Enters the attachment and takes the lock. -ETIMEDOUT: a live process keeps it for ten seconds. */
int ssm_service_enter(struct ssm_service *service);
int ssm_service_enter_as_owner(struct ssm_service *service); /* the caller may own something then */
int ssm_service_try_enter_as_owner(struct ssm_service *service); /* -ETIMEDOUT at once, where a live process keeps the lock */
void ssm_service_leave(struct ssm_service *service);
/* Leaves after an operation, counts it, and translates its enum al_result. */
int ssm_service_finish(struct ssm_service *service, int result, bool allocates);

#endif
