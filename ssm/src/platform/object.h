/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects: files in the directory that shm_open(3) uses. An object is made without a name and gets its
 * name when it is complete. The functions are declared in ssm.h; this module does not know what the objects contain.
 *
 * ssm_object_new() opens a file without a name (O_TMPFILE), which the kernel removes when its process dies. On a file
 * system without such files it makes one under a temporary name, and locks a byte of it (SSM_BYTE_BIRTH) until its
 * descriptor is closed. A process that gets that lock knows that the maker is gone, and may remove the temporary name:
 *
 *   maker, with a temporary name                         sweeper, for each temporary name of this user
 *   1 create it                                          1 open it
 *   2 take the lock; if it is taken, start again         2 take the lock; if it is taken, leave the name
 *   3 does the file still have a name? else start again  3 does the name still lead to this file? else leave it
 *   4 fill it; link its name; unlink the temporary one   4 unlink the name
 *
 * A death of the maker leaves an empty file (after step 1 or 2), a part of a pool (before the link), or a second name
 * of a complete pool (after the link). In each case its lock is free, and the sweeper removes the temporary name only.
 * A sweeper between the maker's steps 1 and 2 has the lock (the maker starts again) or has had it (the maker's step 3
 * finds no name). A death of the sweeper before its step 4 leaves the name to the next sweeper. */
#ifndef SSM_OBJECT_H
#define SSM_OBJECT_H

#include "ssm.h"

#define SSM_OBJECT_PATH_BYTES 272 /* the directory, a name of 255 bytes, the final NUL */

/* The path of an object's name, which may begin with a slash. -EINVAL: no object can have it. */
int ssm_object_path(const char *name, char path_out[SSM_OBJECT_PATH_BYTES]);

#endif
