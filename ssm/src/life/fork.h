/* SPDX-License-Identifier: Apache-2.0
 *
 * This process's attachments, as fork handlers go through them.
 *
 * Fork: the child has no part in the descriptions that hold locks (liveness.h), but for a descriptor, which its handler
 * closes. It opens new ones, and where there is no room for them, does so later; forgets the parent's claims; and at its
 * first call takes a slot of its own.
 */
#ifndef SSM_FORK_H
#define SSM_FORK_H

#include "attachment.h"

/* Before the attachment has anything that a forked child must not keep, and after it has nothing of that left. */
void ssm_fork_link(struct ssm_pool *pool);
void ssm_fork_unlink(struct ssm_pool *pool);

/* Opens the descriptions that hold locks, unless they are open. 0 or -errno. */
int ssm_fork_open_descriptions(struct ssm_pool *pool);

#endif
