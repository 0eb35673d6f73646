/* SPDX-License-Identifier: Apache-2.0
 *
 * Time, for a process while all others stand still. Nothing comes of waiting then, so a nap or a sleep ends at once, and the
 * clock is put forward by as much. A call that waits for ten seconds does all that it would do in them, in microseconds, and
 * does the same each time. */
#ifndef CRASH_STILL_H
#define CRASH_STILL_H

#include <stdint.h>

/* From now on, in this process. The clock stands where it is, or so much later: past all that others, whose time stood still,
 * may have written down. */
void still_begin(uint64_t later_ns);

#endif
