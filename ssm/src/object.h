/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects: files in the directory that shm_open(3) uses. How one is made without a name and gets its name
 * when it is ready; the functions are in ssm.h. Knows nothing of what is in them.
 *
 * ssm_object_new() opens a file that has no name (O_TMPFILE): when its process dies, the kernel removes it. Where the file
 * system has no such files, it makes one under a temporary name, and holds a lock on a byte of it (SSM_BYTE_BIRTH) until its
 * descriptor is closed. Whoever gets that lock knows that the maker is gone, and may remove the temporary name:
 *
 *   maker, with a temporary name                     sweeper, for each temporary name of this user
 *   N1 create it                                     W1 open it
 *   N2 take the lock; if it is taken, begin anew     W2 take the lock; if it is taken, leave it
 *   N3 the file still has a name? else begin anew    W3 does the name still lead to this file? else leave it
 *   N4 fill it; link its name; unlink the temporary  W4 unlink it
 *
 * A death of the maker leaves: after N1 or N2 an empty file, before the link a part of a pool, after it a second name of a
 * finished pool; its lock is free, and W4 removes the temporary name alone. A sweeper between N1 and N2 has the lock (the
 * maker begins anew) or has had it (N3 finds no name). A death of the sweeper before W4 leaves the name to the next one. */
#ifndef SSM_OBJECT_H
#define SSM_OBJECT_H

#include "ssm.h"

#endif
