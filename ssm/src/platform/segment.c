/* SPDX-License-Identifier: Apache-2.0
 *
 * The segment's file and its mapping; see segment.h. */
#include "segment.h"

#include "invariant.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

/* The kernel does not interrupt such a call; before 6.11 it undoes a reservation at any signal. So work is done in
 * pieces. */
#define PIECE     (UINT64_C(16) << 20) /* some 6 ms */
#define PIECE_MIN (UINT64_C(64) << 10)
#define ANSWER    (4 * PIECE) /* taking the GIL again may last as long as a piece */

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* since 5.14 */
#endif

static int answer_signals(const struct ssm_sleep_hooks *hooks)
{
    void *state = hooks->before != NULL ? hooks->before() : NULL;
    return hooks->after != NULL && hooks->after(state) ? -EINTR : 0;
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t ssm_segment_free_bytes(int fd)
{
    struct statfs fs;
    if (fstatfs(fd, &fs) != 0 || fs.f_blocks == 0)
        return UINT64_MAX;
    return (uint64_t)fs.f_bavail * (uint64_t)fs.f_bsize;
}

/* A piece that a signal cut short is halved and tried again, until one is finished before the next signal. */
static int reserve(int fd, uint64_t start, uint64_t size, const struct ssm_sleep_hooks *hooks, uint64_t *done)
{
    uint64_t piece = PIECE, answered = 0;
    while (*done < size) {
        uint64_t bytes = smaller(piece, size - *done);
        int error = posix_fallocate(fd, (off_t)(start + *done), (off_t)bytes);
        if (error != 0 && error != EINTR)
            return -error;
        piece = error == 0 ? smaller(piece * 2, PIECE) : piece / 2 > PIECE_MIN ? piece / 2 : PIECE_MIN;
        *done += error == 0 ? bytes : 0;
        SSM_ASSERT(*done <= size);
        if (hooks == NULL || (error == 0 && *done - answered < ANSWER))
            continue;
        answered = *done;
        if (answer_signals(hooks) != 0)
            return -EINTR;
    }
    return 0;
}

/* Asks first whether the file system has so much. To fill it up in vain would hurt all its users. */
int ssm_segment_reserve(int fd, uint64_t start, uint64_t bytes, const struct ssm_sleep_hooks *hooks, uint64_t *done_out)
{
    uint64_t done = 0;
    int result = bytes <= ssm_segment_free_bytes(fd) ? reserve(fd, start, bytes, hooks, &done) : -ENOSPC;
    if (done_out != NULL)
        *done_out = done;
    return result;
}

int ssm_segment_punch(int fd, uint64_t start, uint64_t bytes)
{
    return fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)start, (off_t)bytes) == 0 ? 0 : -errno;
}

int ssm_segment_stretch(int fd, uint64_t size)
{
    return ftruncate(fd, (off_t)size) == 0 ? 0 : -errno;
}

void ssm_segment_empty(int fd)
{
    if (ftruncate(fd, 0) != 0) {
        /* harmless: an unnamed file goes with its last descriptor, and a named one without its magic is no pool */
    }
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

bool ssm_segment_is_same(int fd, int other)
{
    struct stat one, two;
    return fstat(fd, &one) == 0 && fstat(other, &two) == 0 && one.st_dev == two.st_dev && one.st_ino == two.st_ino;
}

uint64_t ssm_segment_reserved_bytes(int fd)
{
    struct statfs fs;
    struct stat st;
    if (fstatfs(fd, &fs) != 0 || (uint64_t)fs.f_type != TMPFS_MAGIC || fstat(fd, &st) != 0)
        return UINT64_MAX;
    return (uint64_t)st.st_blocks * 512;
}

int64_t ssm_segment_peek(int fd, uint64_t start, void *buffer, size_t bytes)
{
    ssize_t got = pread(fd, buffer, bytes, (off_t)start);
    return got >= 0 ? got : -errno;
}

int ssm_segment_map(int fd, uint64_t size, bool writable, struct ssm_segment *segment_out)
{
    int protection = writable ? PROT_READ | PROT_WRITE : PROT_READ;
    void *base = mmap(NULL, (size_t)size, protection, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED)
        return -errno;
    *segment_out = (struct ssm_segment){.base = base, .size = size, .reserved = size, .writable = writable};
    return 0;
}

void ssm_segment_set_reserved(struct ssm_segment *segment, uint64_t reserved)
{
    SSM_ASSERT(reserved <= segment->size);
    segment->reserved = reserved;
    if (reserved < segment->size) /* a core dump would read these pages, and so allocate them */
        madvise(segment->base + reserved, (size_t)(segment->size - reserved), MADV_DONTDUMP);
}

static int touch(uint8_t *bytes, size_t count)
{
    if (madvise(bytes, count, MADV_POPULATE_READ) == 0)
        return 0;
    if (errno != EINVAL)
        return errno == EFAULT ? -SSM_E_CORRUPT : -errno; /* the file was cut */
    for (size_t i = 0; i < count; i += 4096)
        (void)((volatile uint8_t *)bytes)[i];
    return 0;
}

static int lock_result(int result)
{
    return result == 0 ? 0 : errno == ENOMEM || errno == EPERM ? -SSM_E_MEMLOCK : -errno;
}

static int lock(uint8_t *bytes, size_t count)
{
    return lock_result(mlock(bytes, count));
}

/* For the pages that are not reserved: mlock() would allocate them all. */
static int lock_as_touched(const struct ssm_segment *segment)
{
    if (segment->reserved == segment->size)
        return 0;
    return lock_result((int)syscall(SYS_mlock2, segment->base + segment->reserved,
                                    (size_t)(segment->size - segment->reserved), MLOCK_ONFAULT));
}

static int in_pieces(const struct ssm_segment *segment, int (*each)(uint8_t *bytes, size_t count),
                     const struct ssm_sleep_hooks *hooks)
{
    int result = 0;
    for (uint64_t done = 0; done < segment->reserved && result == 0; done += PIECE) {
        result = each(segment->base + done, (size_t)smaller(PIECE, segment->reserved - done));
        if (result == 0 && done % ANSWER == 0)
            result = answer_signals(hooks);
    }
    return result;
}

int ssm_segment_prepare(const struct ssm_segment *segment, unsigned advice, const struct ssm_sleep_hooks *hooks)
{
    int result = 0;
    if (advice & SSM_ADVICE_HUGEPAGES)
        madvise(segment->base, (size_t)segment->size, MADV_HUGEPAGE); /* advice only: small pages do as well */
    if (advice & SSM_ADVICE_PREFAULT)
        result = in_pieces(segment, touch, hooks);
    if (result == 0 && advice & SSM_ADVICE_MLOCK)
        result = in_pieces(segment, lock, hooks);
    if (result == 0 && advice & SSM_ADVICE_MLOCK)
        result = lock_as_touched(segment);
    return result;
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
    if (syscall(SYS_getrandom, &value, sizeof value, GRND_NONBLOCK) != (long)sizeof value) {
        struct timespec t; /* no entropy yet, early at boot; it only has to be distinct */
        clock_gettime(CLOCK_REALTIME, &t);
        value = (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
    }
    return value != 0 ? value : 1;
}
