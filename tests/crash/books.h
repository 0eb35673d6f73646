/* SPDX-License-Identifier: Apache-2.0
 *
 * The books of a service: what is allocated from it, by whom, and what may be after a death.
 *
 *   B1  an operation that was killed has happened, or it has not; one that had returned has
 *   B2  nobody gets what somebody has; everything else can be had, once
 *   B3  what a dead process had is still allocated; with SSM_RECLAIM it is free after a reap
 *   B4  a service is made whole or not at all, and whoever opens it next goes on; its memory is not lost
 *
 * Each function returns NULL, or a sentence that says what is wrong. */
#ifndef CRASH_BOOKS_H
#define CRASH_BOOKS_H

#include "world.h"

/* One of the living allocates, and frees. */
const char *books_go_on(const struct world *world, struct ssm_service *service);
/* After a reap: B1, B3; then B2. */
const char *books_verify(const struct world *world, struct ssm_service *service);
/* Frees what is allocated, then B2; then B4. */
const char *books_as_good_as_new(const struct world *world, struct ssm_pool *self, struct ssm_service *service);

#endif
