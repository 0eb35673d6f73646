/* SPDX-License-Identifier: Apache-2.0
 *
 * The segment's file and its mapping; see segment.h. */
#include "segment.h"

#include "ssm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

int ssm_segment_reserve(int fd, uint64_t size)
{
    int error;
    do
        error = posix_fallocate(fd, 0, (off_t)size);
    while (error == EINTR);
    return -error;
}

int64_t ssm_segment_file_size(int fd)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    return S_ISREG(st.st_mode) ? (int64_t)st.st_size : -SSM_E_LAYOUT;
}

int ssm_segment_access(int fd, uint32_t *uid_out, uint32_t *mode_out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *uid_out = st.st_uid;
    *mode_out = st.st_mode & 07777u;
    return 0;
}

bool ssm_segment_is_mine(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && st.st_uid == geteuid();
}

bool ssm_segment_is_reserved(int fd)
{
    struct statfs fs;
    struct stat st;
    if (fstatfs(fd, &fs) != 0 || (uint64_t)fs.f_type != TMPFS_MAGIC || fstat(fd, &st) != 0)
        return true;
    return (uint64_t)st.st_blocks * 512 >= (uint64_t)st.st_size;
}

int64_t ssm_segment_peek(int fd, void *buffer, size_t bytes)
{
    ssize_t got = pread(fd, buffer, bytes, 0);
    return got >= 0 ? got : -errno;
}

int ssm_segment_mark(int fd, const void *bytes, size_t count)
{
    ssize_t written = pwrite(fd, bytes, count, 0);
    return written == (ssize_t)count ? 0 : written < 0 ? -errno : -ENOSPC;
}

int ssm_segment_map(int fd, uint64_t size, bool writable, unsigned advice, struct ssm_segment *segment_out)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    int flags = MAP_SHARED | (advice & SSM_ADVICE_PREFAULT ? MAP_POPULATE : 0);
    void *base = mmap(NULL, (size_t)size, protection, flags, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    if (advice & SSM_ADVICE_HUGEPAGES)
        madvise(base, (size_t)size, MADV_HUGEPAGE); /* advice: where huge pages are off, small ones do */
    if (advice & SSM_ADVICE_MLOCK && mlock(base, (size_t)size) != 0) {
        int error = errno;
        munmap(base, (size_t)size);
        return -error;
    }
    *segment_out = (struct ssm_segment){.base = base, .size = size, .writable = writable};
    return 0;
}

void ssm_segment_unmap(struct ssm_segment *segment)
{
    if (segment->base != NULL)
        munmap(segment->base, (size_t)segment->size);
    segment->base = NULL;
}

int ssm_page_keep(int fd, void **page_out)
{
    size_t bytes = (size_t)sysconf(_SC_PAGESIZE);
    void *page = mmap(NULL, bytes, PROT_NONE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED)
        return -errno;
    if (madvise(page, bytes, MADV_DONTFORK) != 0) {
        int error = errno;
        munmap(page, bytes);
        return -error;
    }
    *page_out = page;
    return 0;
}

void ssm_page_drop(void *page)
{
    if (page != NULL)
        munmap(page, (size_t)sysconf(_SC_PAGESIZE));
}

void *ssm_private_map(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

void ssm_private_unmap(void *memory, size_t bytes)
{
    if (memory != NULL)
        munmap(memory, bytes);
}

void ssm_private_clear(void *memory, size_t bytes)
{
    if (madvise(memory, bytes, MADV_DONTNEED) == 0)
        return;
    for (size_t i = 0; i < bytes; i++) /* locked pages cannot be given back */
        ((volatile uint8_t *)memory)[i] = 0;
}

uint64_t ssm_random_u64(void)
{
    uint64_t value = 0;
    if (getrandom(&value, sizeof value, GRND_NONBLOCK) != (ssize_t)sizeof value) {
        struct timespec t; /* no entropy yet, early at boot: distinct is enough */
        clock_gettime(CLOCK_REALTIME, &t);
        value = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    return value != 0 ? value : 1;
}
