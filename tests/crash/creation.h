/* SPDX-License-Identifier: Apache-2.0
 *
 * The creator is killed at every instruction of create. Then an attach gets through, or says that the pool was
 * abandoned, within ABANDONED_MAX_NS; what was abandoned can be retired, and the next create gets through. */
#ifndef CRASH_CREATION_H
#define CRASH_CREATION_H

#include "table.h"

/* At most about `points` kills, evenly spread. Prints what went wrong; row->violations counts it. */
void creation_run(uint32_t points, struct row *row);

#endif
