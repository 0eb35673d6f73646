/* SPDX-License-Identifier: Apache-2.0
 *
 * Fork handlers, and the list of this process's attachments that they walk.
 *
 * The child has no part in the descriptions that hold locks (liveness.h), except an inherited descriptor, which its
 * handler closes. The handler opens new descriptions; if there is no room for them, the child does so later. It forgets
 * the parent's claims. At its first call the child takes a holder slot of its own.
 */
#ifndef SSM_FORK_H
#define SSM_FORK_H

#include "attachment.h"

/* Link before the attachment has anything that a forked child must not keep; unlink when it has nothing of that kind
 * left. */
void ssm_fork_link(struct ssm_pool *pool);
void ssm_fork_unlink(struct ssm_pool *pool);

/* Opens the descriptions that hold locks, unless they are open. 0 or -errno. */
int ssm_fork_open_descriptions(struct ssm_pool *pool);

#endif
