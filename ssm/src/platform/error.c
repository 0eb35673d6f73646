/* SPDX-License-Identifier: Apache-2.0
 *
 * Error codes as sentences; the version. */
#include "ssm.h"

#include <limits.h>
#include <string.h>

const char *ssm_strerror(int error)
{
    static const char *const sentences[] = {
        [SSM_E_EXHAUSTED - SSM_E_EXHAUSTED] = "no block of that size class is free",
        [SSM_E_TOO_LARGE - SSM_E_EXHAUSTED] = "no size class is large enough",
        [SSM_E_STALE - SSM_E_EXHAUSTED] = "this process does not hold that packet",
        [SSM_E_FULL - SSM_E_EXHAUSTED] = "the ring is full",
        [SSM_E_EMPTY - SSM_E_EXHAUSTED] = "the ring is empty",
        [SSM_E_SHUTDOWN - SSM_E_EXHAUSTED] = "the ring is shut down",
        [SSM_E_BUSY - SSM_E_EXHAUSTED] = "that side of the ring belongs to another live process",
        [SSM_E_RDONLY - SSM_E_EXHAUSTED] = "the ring is read-only",
        [SSM_E_QUEUED - SSM_E_EXHAUSTED] = "the packet is queued in that ring already",
        [SSM_E_HOLDERS - SSM_E_EXHAUSTED] = "every holder slot of the pool is taken",
        [SSM_E_LAYOUT - SSM_E_EXHAUSTED] = "not an ssm pool, or one of another layout version",
        [SSM_E_CORRUPT - SSM_E_EXHAUSTED] = "the pool contradicts itself",
        [SSM_E_ABANDONED - SSM_E_EXHAUSTED] = "the pool is over",
        [SSM_E_MISMATCH - SSM_E_EXHAUSTED] = "it exists with other parameters",
        [SSM_E_ROOM - SSM_E_EXHAUSTED] = "not enough room in the block, or in the data",
        [SSM_E_METADATA - SSM_E_EXHAUSTED] = "the pool's metadata area is used up",
        [SSM_E_CLOSED - SSM_E_EXHAUSTED] = "the attachment is closed",
        [SSM_E_UNAVAILABLE - SSM_E_EXHAUSTED] = "nothing that fits is free, or there is no such range",
        [SSM_E_OVERFLOW - SSM_E_EXHAUSTED] = "the largest id there is has been handed out",
        [SSM_E_UNMANAGED - SSM_E_EXHAUSTED] = "the service has no such value",
        [SSM_E_RELEASED - SSM_E_EXHAUSTED] = "it is free already",
        [SSM_E_NEVER - SSM_E_EXHAUSTED] = "it was never handed out",
        [SSM_E_RESTING - SSM_E_EXHAUSTED] = "what is free has not rested long enough",
        [SSM_E_CROWDED - SSM_E_EXHAUSTED] = "the service has room for no more ranges",
        [SSM_E_QUOTA - SSM_E_EXHAUSTED] = "the process would hold more than its quota",
        [SSM_E_SEGMENT - SSM_E_EXHAUSTED] = "the packet is a segment of a chain",
        [SSM_E_CHAIN - SSM_E_EXHAUSTED] = "a chain cannot be kept, nor come out of a ring that redelivers",
        [SSM_E_SHARED - SSM_E_EXHAUSTED] = "the packet is held elsewhere as well, or twice by this process",
        [SSM_E_PINNED - SSM_E_EXHAUSTED] = "there are views of the packet",
        [SSM_E_NO_SHM - SSM_E_EXHAUSTED] = "there is no directory /dev/shm",
        [SSM_E_NO_PROC - SSM_E_EXHAUSTED] = "/proc is not mounted, or shows another PID namespace",
        [SSM_E_NO_LOCKS - SSM_E_EXHAUSTED] = "the kernel has no open-file-description locks",
        [SSM_E_LOCKS_GONE - SSM_E_EXHAUSTED] = "the pool's lock file has lost its name",
        [SSM_E_MEMLOCK - SSM_E_EXHAUSTED] = "the process may not lock so much memory",
        [SSM_E_ORPHANED - SSM_E_EXHAUSTED] = "the other side of the ring has died or closed it",
        [SSM_E_RINGS - SSM_E_EXHAUSTED] = "the pool has as many rings as it may have",
        [SSM_E_UNLINKED - SSM_E_EXHAUSTED] = "the ring was unlinked, and is gone",
        [SSM_E_DONE - SSM_E_EXHAUSTED] = "it is no open delivery of this process, or stands in the call twice",
    };
    if (error < 0 && error > INT_MIN)
        error = -error;
    const int row = error >= SSM_E_EXHAUSTED ? error - SSM_E_EXHAUSTED : -1;
    return row >= 0 && row < (int)(sizeof sentences / sizeof *sentences) ? sentences[row] : strerror(error);
}

int ssm_version(void)
{
    return SSM_VERSION;
}
