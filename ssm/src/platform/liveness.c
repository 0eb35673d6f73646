/* SPDX-License-Identifier: Apache-2.0
 *
 * Liveness; see liveness.h. */
#include "liveness.h"

#include "segment.h"
#include "ssm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define STANDARD 3 /* descriptors 0, 1 and 2: any library may write to them */
#define MARK     INT64_MAX
#define ATTEMPTS 16 /* no local file system lets a signal end a lock that does not wait */

/* ---- descriptors --------------------------------------------------------------------------------------------- */

/* Occupies those of 0, 1 and 2 that are closed, so that the next file to be opened is never one of them. Nobody can
 * write to a descriptor with O_PATH. Returns how many. */
static int take_standard(int taken[STANDARD])
{
    int count = 0;
    for (int fd = 0; fd < STANDARD; fd++)
        if (fcntl(fd, F_GETFD) < 0) {
            int path = open("/", O_PATH | O_CLOEXEC);
            if (path >= 0 && path < STANDARD)
                taken[count++] = path;
            else if (path >= 0)
                close(path);
        }
    return count;
}

static void give_standard_back(const int *taken, int count)
{
    for (int i = 0; i < count; i++)
        if (fcntl(taken[i], F_GETFL) & O_PATH) /* not if another thread has put a file there */
            close(taken[i]);
}

int ssm_descriptor_lift(int fd)
{
    if (fd >= STANDARD)
        return fd;
    int above = fcntl(fd, F_DUPFD_CLOEXEC, STANDARD), result = above >= 0 ? above : -errno;
    close(fd);
    return result;
}

int ssm_descriptor_open(const char *path, int flags)
{
    int taken[STANDARD], count = take_standard(taken);
    int fd = open(path, flags | O_CLOEXEC, 0600), result = fd >= 0 ? fd : -errno;
    give_standard_back(taken, count);
    return fd >= 0 ? ssm_descriptor_lift(fd) : result; /* another thread may have closed a low one meanwhile */
}

static int open_marked(const char *path, bool writable)
{
    int fd = ssm_descriptor_open(path, writable ? O_RDWR : O_RDONLY);
    if (fd >= 0)
        (void)lseek(fd, MARK, SEEK_SET); /* if the file system refuses, the offset stays 0, a weaker mark */
    return fd;
}

int ssm_file_identify(int fd, struct ssm_file *file_out)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return -errno;
    *file_out = (struct ssm_file){.device = st.st_dev, .inode = st.st_ino, .mark = lseek(fd, 0, SEEK_CUR)};
    return 0;
}

int ssm_file_reopen(int fd, bool writable)
{
    char path[32];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int again = open_marked(path, writable);
    return (again == -ENOENT || again == -ENOTDIR) && fcntl(fd, F_GETFD) >= 0 ? -SSM_E_NO_PROC : again;
}

int ssm_file_open(const char *path, bool writable, const struct ssm_file *file)
{
    struct ssm_file found;
    int fd = open_marked(path, writable);
    if (fd < 0 || (ssm_file_identify(fd, &found) == 0 && found.device == file->device && found.inode == file->inode))
        return fd;
    close(fd);
    return -ESTALE;
}

bool ssm_file_is(int fd, const struct ssm_file *file, int64_t *size_out)
{
    struct stat st;
    if (fd < STANDARD || fstat(fd, &st) != 0 || st.st_dev != file->device || st.st_ino != file->inode)
        return false;
    if (size_out != NULL)
        *size_out = st.st_size;
    return lseek(fd, 0, SEEK_CUR) == file->mark;
}

void ssm_file_close(int *fd, const struct ssm_file *file)
{
    if (ssm_file_is(*fd, file, NULL))
        close(*fd);
    *fd = -1;
}

/* ---- descriptions -------------------------------------------------------------------------------------------- */

static pthread_mutex_t fork_mutex = PTHREAD_MUTEX_INITIALIZER;

void ssm_fork_lock(void)
{
    pthread_mutex_lock(&fork_mutex);
}

void ssm_fork_unlock(void)
{
    pthread_mutex_unlock(&fork_mutex);
}

int ssm_description_open(int fd, struct ssm_description *out)
{
    struct ssm_description made = SSM_NO_DESCRIPTION;
    ssm_fork_lock();
    int result = made.fd = ssm_file_reopen(fd, true);
    if (result >= 0)
        result = ssm_page_keep(made.fd, &made.page);
    if (result == 0)
        *out = made;
    else if (made.fd >= 0)
        close(made.fd);
    ssm_fork_unlock();
    return result;
}

void ssm_description_drop(struct ssm_description *description, const struct ssm_file *file)
{
    ssm_file_close(&description->fd, file);
    ssm_page_drop(description->page);
    description->page = NULL;
}

void ssm_description_disown(struct ssm_description *description, const struct ssm_file *file)
{
    ssm_file_close(&description->fd, file);
    description->page = NULL;
}

/* ---- bytes --------------------------------------------------------------------------------------------------- */

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

static int try_lock(int fd, struct flock range)
{
    int result = -1;
    for (int i = 0; result != 0 && i < ATTEMPTS && (i == 0 || errno == EINTR); i++)
        result = fcntl(fd, F_OFD_SETLK, &range);
    if (result == 0)
        return 0;
    return errno == EACCES ? -EAGAIN : errno == EINVAL ? -SSM_E_NO_LOCKS : -errno;
}

int ssm_byte_try_lock(int fd, uint64_t byte)
{
    return try_lock(fd, byte_range(F_WRLCK, byte));
}

int ssm_bytes_try_lock(int fd)
{
    struct flock range = byte_range(F_WRLCK, 0);
    range.l_len = 0; /* up to the highest offset */
    return try_lock(fd, range);
}

void ssm_byte_unlock(int fd, uint64_t byte)
{
    struct flock range = byte_range(F_UNLCK, byte);
    fcntl(fd, F_OFD_SETLK, &range);
}

int ssm_byte_test(int fd, uint64_t byte)
{
    struct flock range = byte_range(F_RDLCK, byte);
    return fcntl(fd, F_OFD_GETLK, &range) != 0 ? -errno : range.l_type != F_UNLCK;
}

bool ssm_byte_is_locked(int fd, uint64_t byte)
{
    /* A failed test counts as locked. To take a living process for dead would tear the pool; the other mistake costs a
     * wait. */
    return ssm_byte_test(fd, byte) != 0;
}
