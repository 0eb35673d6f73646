/* SPDX-License-Identifier: Apache-2.0
 *
 * The carver: divides the metadata area among rings and services, first fit, in whole cache line pairs, by the address
 * allocator.
 *
 * All calls need the registry locked. Each range names its owner, a ring or a service. If that does not exist, the
 * process that carved the range died before it stored the owner's kind, or the owner is gone. The next carving frees
 * such a range, before a new ring or service can take that owner's place. So a death during the creation of a ring or a
 * service, or at the end of a ring, leaves nothing behind.
 */
#ifndef SSM_CARVER_H
#define SSM_CARVER_H

#include "attachment.h"
#include "range_tree.h"

#define SSM_OWNER_SERVICE (UINT32_C(1) << 31) /* owner of a range: this + service index, or a ring's holder id */

/* Makes the whole area one free range. */
int ssm_carver_init(struct ssm_pool *pool);

/* -SSM_E_METADATA; -SSM_E_CORRUPT; -ENOSPC if there is no memory for the first `reserved` bytes, which are used at once
 * (the range stays a leftover). `start_out` is relative to the area. The range is not cleared. */
int ssm_carver_alloc(struct ssm_pool *pool, uint64_t bytes, uint64_t reserved, uint32_t owner, uint64_t *start_out);
/* Frees the ranges of rings and services that do not exist (any more). After a death they are leftovers, as above. */
void ssm_carver_collect(struct ssm_pool *pool);
void ssm_carver_free(struct ssm_pool *pool, uint64_t start, uint64_t bytes);

uint64_t ssm_carver_check(struct ssm_pool *pool, al_report_fn report, void *context);

#endif
