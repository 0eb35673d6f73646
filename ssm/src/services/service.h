/* SPDX-License-Identifier: Apache-2.0
 *
 * The part of services that recovery and introspection use. The public calls are in ssm.h.
 *
 * The directory has SSM_SERVICE_MAX entries. An entry is made under the registry's byte lock. Its last store is `kind`,
 * so a death before it leaves nothing behind (carver.h gives the memory back). Entries stay as long as the pool.
 *
 * Each service has a robust lock, which is taken for one operation. A process that takes it over from a dead owner
 * first lets the allocator finish or undo the interrupted operation (al_*_recover). No other lock is taken under it.
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
    const uint8_t             *core; /* the allocator's memory, without the owners */
    uint64_t                   core_bytes;
    uint32_t                   flags;
    uint32_t                   service_idx;
    struct ssm_u32             last; /* semaphore: the permit taken last; a guess where the next one is */
};

/* If a dead process has the lock: takes it over, repairs the service, and releases it. */
void ssm_service_scrub(struct ssm_pool *pool, uint32_t service_idx);

/* Frees the values that the holder slots of the set own, if the service has SSM_RECLAIM. False if the lock stays taken,
 * by a process that is stopped. */
bool ssm_service_reclaim(struct ssm_pool *pool, uint32_t service_idx, const struct ssm_holder_set *slots);

#if SSM_ASSERTS
/* Needs the service's lock. The allocator does not contradict itself, and `used` is its count. */
bool ssm_service_is_valid(const struct ssm_service *service);
#endif

/* Calls `report` for each broken invariant, with a text and two numbers that say where. Returns how many. */
uint64_t ssm_service_check(struct ssm_pool *pool, uint32_t service_idx,
                           void (*report)(void *context, const char *what, uint64_t where, uint64_t value),
                           void *context);
/* Counts the values that nobody would ever give back. Only a hint: a process may be about to join or leave. */
uint64_t ssm_service_orphans(struct ssm_pool *pool, uint32_t service_idx);

/* ---- for the operations of the kinds ------------------------------------------------------------------- */

/* Enters the attachment and takes the lock. -ETIMEDOUT: a live process keeps it for ten seconds. */
int ssm_service_enter(struct ssm_service *service);
int ssm_service_enter_as_owner(struct ssm_service *service); /* before the caller owns a value */
/* -ETIMEDOUT at once if a live process has the lock. */
int ssm_service_try_enter_as_owner(struct ssm_service *service);
void ssm_service_leave(struct ssm_service *service);
/* Counts an operation, leaves, and translates its enum al_result. */
int ssm_service_finish(struct ssm_service *service, int result, bool allocates);

#endif
