/* SPDX-License-Identifier: Apache-2.0
 *
 * The metadata area: carved by the address allocator for rings and services, first fit, in whole cache line pairs.
 *
 * With the registry locked. A range of the carver belongs to the ring or the service that it names. Where there is no
 * such one, it was carved by a process that died before it stored its owner's kind: it is given back at the next
 * carving, before anything can be made in that owner's place. So a death anywhere in the creation of a ring or a
 * service leaves nothing behind.
 */
#ifndef SSM_CARVER_H
#define SSM_CARVER_H

#include "attachment.h"
#include "range_tree.h"

#define SSM_OWNER_SERVICE (UINT32_C(1) << 31) /* owner of a range: this + service index, or a ring's holder id */

/* The whole area as one free range. */
int ssm_carver_init(struct ssm_pool *pool);

/* -SSM_E_METADATA, -SSM_E_CORRUPT. `start_out` is relative to the area; contents are anything. */
int  ssm_carver_alloc(struct ssm_pool *pool, uint64_t bytes, uint32_t owner, uint64_t *start_out);
void ssm_carver_free(struct ssm_pool *pool, uint64_t start, uint64_t bytes);

uint64_t ssm_carver_check(struct ssm_pool *pool, al_report_fn report, void *context);

#endif
