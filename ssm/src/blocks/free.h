/* SPDX-License-Identifier: Apache-2.0
 *
 * Giving back references, blocks and chains that this process has. The public calls are in ssm.h. */
#ifndef SSM_FREE_H
#define SSM_FREE_H

#include "claim.h"

/* Gives back a block whose bit of this process is set and whose references are 0 since just now. */
void ssm_block_release(struct ssm_pool *pool, uint32_t class_idx, uint32_t block_idx);

/* Gives back the segments of a head: the links go, and the reference of each. */
void ssm_chain_release(struct ssm_pool *pool, uint32_t head_idx);

/* Gives back one reference of this process, which is not pinned, and belongs to the delivery of that name, or to none.
 * `done`: the delivery ends, whatever other references of it there are. */
void ssm_reference_drop(struct ssm_pool *pool, uint32_t block_idx, uint64_t delivery, bool done);

#endif
