/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness; see liveness.h. */
#include "liveness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/types.h>

static struct flock byte_range(short type, uint64_t byte)
{
    struct flock range;
    memset(&range, 0, sizeof range); /* l_pid must be 0 */
    range.l_type = type;
    range.l_whence = SEEK_SET;
    range.l_start = (off_t)byte;
    range.l_len = 1;
    return range;
}

int ssm_file_reopen(int fd, bool writable)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    return again >= 0 ? again : -errno;
}

int ssm_byte_try_lock(int fd, uint64_t byte)
{
    struct flock range = byte_range(F_WRLCK, byte);
    int result;
    do
        result = fcntl(fd, F_OFD_SETLK, &range);
    while (result != 0 && errno == EINTR);
    if (result == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

void ssm_byte_unlock(int fd, uint64_t byte)
{
    struct flock range = byte_range(F_UNLCK, byte);
    fcntl(fd, F_OFD_SETLK, &range);
}

bool ssm_byte_is_locked(int fd, uint64_t byte)
{
    struct flock range = byte_range(F_WRLCK, byte);
    /* A failed test counts as locked: calling the living dead would cost a torn pool, the other way a wait. */
    return fcntl(fd, F_OFD_GETLK, &range) != 0 || range.l_type != F_UNLCK;
}
