/* SPDX-License-Identifier: Apache-2.0
 *
 * Numbers that the registry hands out: holder slots, ids of rings, RMIDs. The allocators are those that a pool hosts as
 * services (hosted.h), without owners: who has a number stands in the holder table.
 *
 * The holder table is the truth. A number is in use exactly when a slot names it:
 *   a holder slot   by its own kind, when that is not NONE
 *   a ring's id     by ring_id, where the kind is RING
 *   an RMID         by rmid, where the kind is PROCESS
 * The allocators are caches of that. A number is taken before a slot names it and freed after none does any more, so
 * that a death in between leaves it taken and unnamed: a leftover. Leftovers are freed when numbers run short, and by
 * ssm_reap(). No death leaves a number named and yet free, or named twice: where that is so, somebody scribbled. Then,
 * or when an allocator contradicts itself, it is laid out anew from the table. What it proposes is compared with the
 * table before it is believed, so no number is given twice, whatever stands there.
 *
 * All with the registry locked. */
#ifndef SSM_REGISTRY_IDS_H
#define SSM_REGISTRY_IDS_H

#include "attachment.h"
#include "flat.h"

int ssm_registry_ids_init(struct ssm_pool *pool); /* of a pool that is being made */

/* The number that would be given now; SSM_NIL: every one is in use, or (RMIDs) the free ones rest. */
uint32_t ssm_registry_ids_peek(struct ssm_pool *pool, enum ssm_registry_ids which);
void     ssm_registry_ids_take(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number);
uint32_t ssm_registry_ids_alloc(struct ssm_pool *pool, enum ssm_registry_ids which); /* both at once */
void     ssm_registry_ids_free(struct ssm_pool *pool, enum ssm_registry_ids which, uint32_t number);

/* Makes the allocator what the holder table says. */
void ssm_registry_ids_settle(struct ssm_pool *pool, enum ssm_registry_ids which);
/* The same where it is needed, as far as a quick look tells: it does not go through the queue of RMIDs, a thousand places.
 * Whoever comes upon a broken one settles. */
void ssm_registry_ids_audit(struct ssm_pool *pool, enum ssm_registry_ids which);

/* How many contradictions there are, in the allocator and with the table. Leftovers are none. */
uint64_t ssm_registry_ids_check(struct ssm_pool *pool, enum ssm_registry_ids which, al_report_fn report, void *context);

#endif
