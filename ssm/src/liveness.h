/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness: locks on single bytes of the segment's file that the kernel drops when their owner is gone. The
 * only user of fcntl.
 *
 * They are open-file-description locks (F_OFD_SETLK): held by a description, not by a process id, so they work
 * across PID namespaces and pid reuse, and go only when the whole process has let go of its files: after that no
 * thread of it can write to the segment any more. The descriptor is opened anew for each attachment, is closed
 * on exec, is never mapped (a mapping keeps it alive), and a forked child closes its copy at once. A lock never conflicts with one's own: the caller
 * remembers what it holds.
 *
 * Bytes: 0 serialises attaching, reaping and the creation of rings; 1 + i is the liveness lock of holder slot i.
 */
#ifndef SSM_LIVENESS_H
#define SSM_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#define SSM_BYTE_REGISTRY      UINT64_C(0)
#define SSM_BYTE_HOLDER(slot)  (UINT64_C(1) + (slot))

/* A new open file description of the same file: private, closed on exec. A descriptor, or -errno. */
int ssm_file_reopen(int fd, bool writable);

int  ssm_byte_try_lock(int fd, uint64_t byte); /* 0, -EAGAIN: somebody else holds it, or another -errno */
void ssm_byte_unlock(int fd, uint64_t byte);
bool ssm_byte_is_locked(int fd, uint64_t byte); /* by another description than this one */

#endif
