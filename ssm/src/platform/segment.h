/* SPDX-License-Identifier: Apache-2.0
 *
 * The segment's file and its mapping. The only user of mmap and its relatives; knows no structure inside. */
#ifndef SSM_SEGMENT_H
#define SSM_SEGMENT_H

#include "ssm.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ssm_segment {
    uint8_t *base;
    uint64_t size;
    uint64_t reserved; /* from its start on; what lies behind it may have no memory, and is not touched in here */
    bool     writable;
};

/* Reserves the memory of `bytes` bytes of the file from `start` on, so that a full file system is -ENOSPC here and not
 * SIGBUS at the first touch; a shorter file grows. If the memory cgroup is smaller than that, the kernel kills the
 * caller. Works in pieces and runs the hooks, if any, in between; -EINTR if a hook gives up. What is reserved already
 * stays as it is. `done_out`, unless NULL: how many bytes are reserved now, whatever the result. */
int ssm_segment_reserve(int fd, uint64_t start, uint64_t bytes, const struct ssm_sleep_hooks *hooks,
                        uint64_t *done_out);
/* Gives the memory of these bytes back: from then on they are a hole, in every mapping. 0, or -errno. */
int ssm_segment_punch(int fd, uint64_t start, uint64_t bytes);
/* Gives the file that size, without memory for what it grows by. 0, or -errno: -EFBIG beyond RLIMIT_FSIZE. */
int ssm_segment_stretch(int fd, uint64_t size);
/* How much memory its file system could still reserve; UINT64_MAX if it has no limit, or does not say. */
uint64_t ssm_segment_free_bytes(int fd);
/* How much memory the file has. Only tmpfs can tell; on other file systems the answer is UINT64_MAX. */
uint64_t ssm_segment_reserved_bytes(int fd);
/* Truncates the file to 0 bytes. */
void ssm_segment_empty(int fd);
/* Size of the file, or -errno; -SSM_E_LAYOUT if it is not a regular file. */
int64_t ssm_segment_file_size(int fd);
/* Owner and permission bits of the file. 0 or -errno. */
int ssm_segment_access(int fd, uint32_t *uid_out, uint32_t *mode_out);
/* Does the file belong to this process's user? */
bool ssm_segment_is_mine(int fd);
/* Do both descriptors lead to one file? */
bool ssm_segment_is_same(int fd, int other);
/* Reads bytes without mapping them, so that a short file is no SIGBUS, and a hole stays one. Returns the bytes read, or
 * -errno. */
int64_t ssm_segment_peek(int fd, uint64_t start, void *buffer, size_t bytes);

int ssm_segment_map(int fd, uint64_t size, bool writable, struct ssm_segment *segment_out);
/* Only the first `reserved` bytes are known to have memory. A core dump has no others. */
void ssm_segment_set_reserved(struct ssm_segment *segment, uint64_t reserved);
void ssm_segment_unmap(struct ssm_segment *segment);

enum ssm_segment_advice { SSM_ADVICE_HUGEPAGES = 1, SSM_ADVICE_PREFAULT = 2, SSM_ADVICE_MLOCK = 4 };
/* Works in pieces, as above. After -SSM_E_MEMLOCK, unmapping unlocks the locked pieces. What is not reserved is locked
 * page by page, when it is touched. */
int ssm_segment_prepare(const struct ssm_segment *segment, unsigned advice, const struct ssm_sleep_hooks *hooks);

/* Maps a page of the file without access, so that the open file description lives as long as this process's memory.
 * Forked children do not inherit the page. 0 or -errno. */
int ssm_page_keep(int fd, void **page_out);
void ssm_page_drop(void *page);

/* Zeroed private memory; pages are allocated at the first touch. NULL if there is none. */
void *ssm_private_map(size_t bytes);
void ssm_private_unmap(void *memory, size_t bytes);
void ssm_private_clear(void *memory, size_t bytes); /* zeroes it and returns its pages; allowed after fork */

uint64_t ssm_random_u64(void);

#endif
