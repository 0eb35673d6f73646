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
    bool     writable;
};

/* Gives the empty file `size` bytes and reserves the memory now: a full file system is -ENOSPC here and not SIGBUS at
 * the first touch. In a memory cgroup smaller than that, the kernel kills the caller instead. Works piece by piece, with the
 * hooks in between; -EINTR: they gave up. */
int ssm_segment_reserve(int fd, uint64_t size, const struct ssm_sleep_hooks *hooks);
/* Takes them away again. */
void ssm_segment_empty(int fd);
/* Size of the file, or -errno; -SSM_E_LAYOUT: a FIFO, a directory or the like, which no pool ever is. */
int64_t ssm_segment_file_size(int fd);
/* Has it memory for all its bytes? A file that was cut and grew again has a hole: SIGBUS at the first touch when memory
 * is short. Only tmpfs can tell; elsewhere the answer is true. */
bool ssm_segment_is_reserved(int fd);
/* The user that the file belongs to, and its permission bits. 0, or -errno. */
int ssm_segment_access(int fd, uint32_t *uid_out, uint32_t *mode_out);
/* It belongs to this process's user. */
bool ssm_segment_is_mine(int fd);
/* Both descriptors are of one file. */
bool ssm_segment_is_same(int fd, int other);
/* Reads the first bytes without mapping them: a file that is too short is no SIGBUS. Bytes read, or -errno. */
int64_t ssm_segment_peek(int fd, void *buffer, size_t bytes);

int  ssm_segment_map(int fd, uint64_t size, bool writable, struct ssm_segment *segment_out);
void ssm_segment_unmap(struct ssm_segment *segment);

enum ssm_segment_advice { SSM_ADVICE_HUGEPAGES = 1, SSM_ADVICE_PREFAULT = 2, SSM_ADVICE_MLOCK = 4 };
/* Piece by piece, as above. -SSM_E_MEMLOCK; what is locked then goes with the mapping. */
int ssm_segment_prepare(const struct ssm_segment *segment, unsigned advice, const struct ssm_sleep_hooks *hooks);

/* Maps a page of the file without access, so that its open file description lives as long as this process's memory; forked
 * children have no part in it. 0 or -errno. */
int  ssm_page_keep(int fd, void **page_out);
void ssm_page_drop(void *page);

/* Zeroed memory that only this process sees, backed by pages as they are touched. NULL without memory. */
void *ssm_private_map(size_t bytes);
void  ssm_private_unmap(void *memory, size_t bytes);
void  ssm_private_clear(void *memory, size_t bytes); /* zeroes it again, pages given back; allowed after fork */

uint64_t ssm_random_u64(void);

#endif
