/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine's monotonic clock: CLOCK_MONOTONIC as in the initial time namespace. Times in shared memory are of this
 * clock: ssm_clock_ns(), which ssm.h declares.
 *
 * A time namespace (time_namespaces(7)) adds an offset to CLOCK_MONOTONIC. This module reads the offset from /proc
 * whenever the process takes a holder slot, also in a forked child, and subtracts it. Without /proc the offset counts
 * as 0. A process that enters another time namespace by setns while it has a pool keeps its first offset.
 */
#ifndef SSM_CLOCK_H
#define SSM_CLOCK_H

#include "ssm.h"

void ssm_clock_refresh(void); /* reads the offset */

#endif
