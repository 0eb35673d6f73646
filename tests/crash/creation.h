/* SPDX-License-Identifier: Apache-2.0
 *
 * The creator is killed at every instruction of what makes a pool and gives it its name. Then the pool is there, whole, or
 * nothing is; and the next create gets through. */
#ifndef CRASH_CREATION_H
#define CRASH_CREATION_H

#include "table.h"

/* Kills at system calls and where the pool has its name, and `points` more, evenly spread. Prints what went wrong;
 * row->violations counts it. */
void creation_run(uint32_t points, struct row *row);

#endif
