/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects: files in the directory that shm_open(3) uses. How one is made without a name and gets its name
 * when it is ready; the functions are in ssm.h. Knows nothing of what is in them.
 *
 * ssm_object_new() opens a file that has no name (O_TMPFILE): when its process dies, the kernel removes it. Where the file
 * system has no such files, it makes one under a temporary name, and holds a lock on a byte of it (SSM_BYTE_BIRTH) until its
 * descriptor is closed. Whoever gets that lock knows that the maker is gone, and may remove the temporary name:
 *
 *   maker, with a temporary name                    sweeper, for each temporary name of this user
 *   1 create it                                     1 open it
 *   2 take the lock; if it is taken, begin anew     2 take the lock; if it is taken, leave it
 *   3 the file still has a name? else begin anew    3 does the name still lead to this file? else leave it
 *   4 fill it; link its name; unlink the temporary  4 unlink it
 *
 * A death of the maker leaves: after its step 1 or 2 an empty file, before the link a part of a pool, after it a second name
 * of a finished pool; its lock is free, and the sweeper removes the temporary name alone. A sweeper that comes between the
 * maker's steps 1 and 2 has the lock (the maker begins anew) or has had it (the maker's step 3 finds no name). A death of the
 * sweeper before its step 4 leaves the name to the next one. */
#ifndef SSM_OBJECT_H
#define SSM_OBJECT_H

#include "ssm.h"

#endif
