/* SPDX-License-Identifier: Apache-2.0
 *
 * Double faults: somebody runs into what the victim's death left, and dies as well. */
#ifndef CRASH_RESCUE_H
#define CRASH_RESCUE_H

#include "test.h"

/* Rescuers of every kind, in as many of the states that were left as the effort allows. */
void rescue_run(struct test *test);

#endif
