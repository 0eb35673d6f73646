/* SPDX-License-Identifier: Apache-2.0
 *
 * What leaving and retiring a pool share with creating and attaching. */
#ifndef SSM_ATTACH_H
#define SSM_ATTACH_H

#include "attachment.h"

/* Reads the superblock from the file: 0, it is a pool and pool->geometry is known; or an error. */
int ssm_attach_read_file(struct ssm_pool *pool);

/* Closes the file's descriptors and drops its descriptions, and with them this process's locks. */
void ssm_attach_close_file(struct ssm_pool *pool);

/* Frees the attachment and all of its private memory. */
void ssm_attach_dispose(struct ssm_pool *pool);

#endif
