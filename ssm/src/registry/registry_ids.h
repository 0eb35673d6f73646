/* SPDX-License-Identifier: Apache-2.0
 *
 * The numbers of the registry: holder slots, ring ids, RMIDs. Their allocators are those that a pool hosts as services
 * (hosted.h), without owners: the holder table says which number is whose.
 *
 * The holder table is the truth. A number is in use exactly when a slot names it:
 *   a holder slot   by its own kind, when that is not NONE
 *   a ring's id     by ring_id, where the kind is RING or UNLINKED
 *   an RMID         by rmid, where the kind is PROCESS
 * The allocators are caches of this truth. A number is taken before a slot names it, and freed after no slot names it
 * any more, so a death in between leaves it taken and unnamed: a leftover. Leftovers are freed when numbers run short,
 * and by ssm_reap(). No death leaves a number named and free, or named twice: then the memory is damaged. In that case,
 * or if an allocator contradicts itself, it is laid out again from the table. A proposed number is compared with the
 * table before it is used, so no number is given twice, whatever the allocator contains.
 *
 * All calls need the registry locked. */
#ifndef SSM_REGISTRY_IDS_H
#define SSM_REGISTRY_IDS_H

#include "attachment.h"
#include "flat.h"

int ssm_registry_ids_init(struct ssm_pool *pool); /* of a new pool */

/* The next number; SSM_NIL if all are in use, or all free RMIDs rest. */
uint32_t ssm_registry_ids_peek(struct ssm_pool *pool, enum ssm_registry_ids which);
void ssm_registry_ids_take(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number);
uint32_t ssm_registry_ids_alloc(struct ssm_pool *pool, enum ssm_registry_ids which); /* peek and take */
void ssm_registry_ids_free(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number);

/* Makes the allocator agree with the holder table. */
void ssm_registry_ids_settle(struct ssm_pool *pool, enum ssm_registry_ids which);
/* Settles if a quick look finds that it is needed. It does not scan the queue of RMIDs, which has a thousand places; a
 * call that finds it broken settles. */
void ssm_registry_ids_audit(struct ssm_pool *pool, enum ssm_registry_ids which);

/* Counts contradictions, in the allocator and with the table. A leftover is none. */
uint64_t ssm_registry_ids_check(struct ssm_pool *pool, enum ssm_registry_ids which, al_report_fn report, void *context);

#endif
