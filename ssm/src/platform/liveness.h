/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness: locks on single bytes of the segment's file that the kernel drops when their owner is gone. The
 * only user of fcntl, and of the descriptors of the pool's file.
 *
 * They are open-file-description locks (F_OFD_SETLK): held by a description, not by a process id, so they work
 * across PID namespaces and pid reuse. A lock never conflicts with one's own: the caller remembers what it holds.
 * Whoever asks for a lock counts write locks only: they need a file that is open for writing. A read lock of a user
 * who may only read stands for nobody.
 *
 * A description lives as long as a descriptor or a mapping of it. One that holds a lock is *kept*: a page of it is mapped,
 * without access, and not in forked children (MADV_DONTFORK). So a program may close every descriptor, or put another
 * file in their place: its locks stay until the memory of the process is gone, and with it each thread that could write to
 * the segment. A forked child has no part in them, but for the descriptor, which its fork handler closes.
 *
 * The numbers are the program's: before one is used or closed, it is looked at whether it still leads to the pool's file,
 * by a description that was made here. Those have the largest file offset there is: nothing in here reads or writes at the
 * offset, and whoever writes to such a descriptor by mistake gets an error. The numbers 0, 1 and 2 are never used.
 *
 * Bytes: 0 serialises attaching, reaping and the creation of rings; 1 + i is the liveness lock of holder slot i; one far
 * behind them is locked by the maker of an object that has a temporary name (object.h).
 */
#ifndef SSM_LIVENESS_H
#define SSM_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#define SSM_BYTE_REGISTRY      UINT64_C(0)
#define SSM_BYTE_HOLDER(slot)  (UINT64_C(1) + (slot))
#define SSM_BYTE_BIRTH         (UINT64_C(1) << 40)

/* open(2) with mode 0600, closed on exec: a descriptor above 2, or -errno. */
int ssm_descriptor_open(const char *path, int flags);

/* What a descriptor leads to, if it is one of ours. `mark`: the file offset of each. */
struct ssm_file { uint64_t device, inode; int64_t mark; };

/* Of a description that was made here; or -errno. */
int ssm_file_identify(int fd, struct ssm_file *file_out);
/* A new open file description of the same file: private, marked, closed on exec. A descriptor above 2, -SSM_E_NO_PROC
 * or -errno. */
int ssm_file_reopen(int fd, bool writable);
/* The same by a name; -ESTALE: another file has it by now. */
int ssm_file_open(const char *path, bool writable, const struct ssm_file *file);
/* Does the descriptor lead to that file, by a description that was made here? With its size, which may be NULL. */
bool ssm_file_is(int fd, const struct ssm_file *file, int64_t *size_out);
/* Closes it, if it does. Leaves -1. */
void ssm_file_close(int *fd, const struct ssm_file *file);

/* A description that is kept. {-1, NULL}: none. */
struct ssm_description { int fd; void *page; };
#define SSM_NO_DESCRIPTION ((struct ssm_description){-1, NULL})

/* A new one of the file behind `fd`; 0 or -errno. No fork comes between its parts, see ssm_fork_lock(). */
int ssm_description_open(int fd, struct ssm_description *out);
/* Drops it with its locks, descriptor or not. */
void ssm_description_drop(struct ssm_description *description, const struct ssm_file *file);
/* In a forked child: the mapping is not here, the descriptor is. */
void ssm_description_disown(struct ssm_description *description, const struct ssm_file *file);

/* Around a fork, by the handlers: a description that is being made is whole in its pool, or not there. */
void ssm_fork_lock(void);
void ssm_fork_unlock(void);

int  ssm_byte_try_lock(int fd, uint64_t byte); /* 0, -EAGAIN: somebody else holds it, -SSM_E_NO_LOCKS or -errno */
void ssm_byte_unlock(int fd, uint64_t byte);
int  ssm_bytes_try_lock(int fd); /* likewise, all of them */
/* 1: another description than this one holds it, for writing; 0; or -errno: it cannot be told. */
int  ssm_byte_test(int fd, uint64_t byte);
bool ssm_byte_is_locked(int fd, uint64_t byte); /* what cannot be told counts as locked */

#endif
