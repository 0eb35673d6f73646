/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness: locks on single bytes of the segment's file, which the kernel drops when their owner is gone. The only user
 * of fcntl, and of the descriptors of the pool's file.
 *
 * The locks are open-file-description locks (F_OFD_SETLK). A description holds them, not a process id, so they work
 * across PID namespaces and pid reuse. A lock never conflicts with another lock of the same description, so the caller
 * has to remember what it holds. Tests count write locks only, which need a file that is open for writing: a read lock
 * of a user who may only read means nothing.
 *
 * A description lives as long as a descriptor or a mapping of it. A description that holds a lock is *kept*: one page
 * of it is mapped, without access, and not in forked children (MADV_DONTFORK). So the program may close every
 * descriptor or reuse their numbers: the locks stay until the memory of the process is gone, and with it each thread
 * that could write to the segment. A forked child inherits only the descriptor, which its fork handler closes.
 *
 * Descriptors are numbers that the whole program shares. Before one is used or closed, ssm_file_is() checks that it
 * still leads to the pool's file, by a description that was made here. The mark of these is their file offset, the
 * largest there is: nothing here reads or writes at the offset, and a write to such a descriptor by mistake fails.
 * Descriptors 0, 1 and 2 are never used.
 *
 * Bytes: 0 serialises attaching, reaping and the creation of rings; 1 + i is the liveness lock of holder slot i; one
 * byte far behind them is locked by the creator of an object that has a temporary name (object.h).
 */
#ifndef SSM_LIVENESS_H
#define SSM_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#define SSM_BYTE_REGISTRY     UINT64_C(0)
#define SSM_BYTE_HOLDER(slot) (UINT64_C(1) + (slot))
#define SSM_BYTE_BIRTH        (UINT64_C(1) << 40)

/* open(2) with mode 0600, closed on exec: a descriptor above 2, or -errno. */
int ssm_descriptor_open(const char *path, int flags);
/* The same descriptor, if it is above 2; or else another one that is, and that one is closed. Or -errno. */
int ssm_descriptor_lift(int fd);

/* What a descriptor leads to, if it is one of ours. `mark`: the file offset of each. */
struct ssm_file {
    uint64_t device, inode;
    int64_t  mark;
};

/* Identifies the file of a description that was made here. 0 or -errno. */
int ssm_file_identify(int fd, struct ssm_file *file_out);
/* A new open file description of the same file: private, marked, closed on exec. A descriptor above 2, -SSM_E_NO_PROC
 * or -errno. */
int ssm_file_reopen(int fd, bool writable);
/* Opens the file by its name; -ESTALE if another file has the name by now. */
int ssm_file_open(const char *path, bool writable, const struct ssm_file *file);
/* Does the descriptor lead to that file, by a description that was made here? Also returns its size; size_out may be
 * NULL. */
bool ssm_file_is(int fd, const struct ssm_file *file, int64_t *size_out);
/* Closes the descriptor if ssm_file_is() is true of it. Leaves -1. */
void ssm_file_close(int *fd, const struct ssm_file *file);

/* A kept description; {-1, NULL} if there is none. */
struct ssm_description {
    int   fd;
    void *page;
};
#define SSM_NO_DESCRIPTION ((struct ssm_description){-1, NULL})

/* Makes a kept description of the file behind `fd`; 0 or -errno. No fork can happen in the middle, see
 * ssm_fork_lock(). */
int ssm_description_open(int fd, struct ssm_description *out);
/* Drops a description and its locks, whether it still has a descriptor or not. */
void ssm_description_drop(struct ssm_description *description, const struct ssm_file *file);
/* In a forked child, which has the descriptor but not the page. */
void ssm_description_disown(struct ssm_description *description, const struct ssm_file *file);

/* Called by the fork handlers, so that a description is either complete in its pool or not there. */
void ssm_fork_lock(void);
void ssm_fork_unlock(void);

int ssm_byte_try_lock(int fd, uint64_t byte); /* 0; -EAGAIN: another description holds it; -SSM_E_NO_LOCKS or -errno */
void ssm_byte_unlock(int fd, uint64_t byte);
int ssm_bytes_try_lock(int fd); /* all bytes; results as above */
/* 1 if another description holds a write lock on the byte, 0 if not, -errno if that cannot be found out. */
int ssm_byte_test(int fd, uint64_t byte);
bool ssm_byte_is_locked(int fd, uint64_t byte); /* a failed test counts as locked */

#endif
