/* SPDX-License-Identifier: Apache-2.0
 *
 * What a put does that finds its ring full: questions to the table of policies, which is in put.c. */
#ifndef SSM_OVERFLOW_H
#define SSM_OVERFLOW_H

#include <stdbool.h>
#include <stdint.h>

uint32_t ssm_overflow_flags(void);        /* those of all policies */
bool ssm_overflow_agrees(uint32_t flags); /* a ring can have these flags together */
bool ssm_overflow_waits(uint32_t flags);  /* a put waits for room */

#endif
