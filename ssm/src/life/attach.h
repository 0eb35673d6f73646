/* SPDX-License-Identifier: Apache-2.0
 *
 * Attachments, as leaving and retiring a pool need them. The public calls are in ssm.h. */
#ifndef SSM_ATTACH_H
#define SSM_ATTACH_H

#include "attachment.h"

/* Reads and checks the superblock from the file, and computes pool->geometry. 0 or an error. */
int ssm_attach_read_file(struct ssm_pool *pool);

/* Closes the file's descriptors and drops its descriptions, and with them this process's locks. */
void ssm_attach_close_file(struct ssm_pool *pool);

/* Frees the attachment and all of its private memory. */
void ssm_attach_dispose(struct ssm_pool *pool);

#endif
