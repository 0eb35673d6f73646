/* SPDX-License-Identifier: Apache-2.0
 *
 * Freeing references, blocks and chains that this process holds. The public calls are in ssm.h. */
#ifndef SSM_FREE_H
#define SSM_FREE_H

#include "claim.h"

/* Releases a block whose last reference is gone, and which still carries this process's bit. */
void ssm_block_release(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx);

/* Releases the segments behind a head: clears the links, and drops the reference of each segment. */
void ssm_chain_release(struct ssm_pool *pool, uint32_t head_idx);

/* Drops one reference, which is not pinned, and belongs to the delivery of that name, or to none. With `done` the
 * delivery ends even if it has other references. */
void ssm_reference_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done);

#endif
