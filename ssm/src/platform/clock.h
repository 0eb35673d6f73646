/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine's monotonic clock: CLOCK_MONOTONIC as the initial time namespace has it. Times that processes write down
 * for each other are of this clock: ssm_clock_ns(), which ssm.h declares.
 *
 * A time namespace (time_namespaces(7)) adds an offset to CLOCK_MONOTONIC. The offset is read from /proc whenever the
 * process takes a holder slot, so also in a forked child, and is taken off. Where /proc is missing it counts as 0. A
 * process that enters another time namespace by setns while it has a pool keeps the offset it had.
 */
#ifndef SSM_CLOCK_H
#define SSM_CLOCK_H

#include "ssm.h"

void ssm_clock_refresh(void); /* reads the offset */

#endif
