/* SPDX-License-Identifier: Apache-2.0
 *
 * Shared memory objects; see object.h. */
#include "object.h"

#include "liveness.h"
#include "segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define DIRECTORY "/dev/shm" /* where shm_open(3) puts objects, in every C library of Linux */
#define TEMPORARY ".ssm-new-"
#define ATTEMPTS  64 /* a sweeper may take a temporary name away, but never so often in a row */

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

int ssm_object_path(const char *name, char path_out[SSM_OBJECT_PATH_BYTES])
{
    name += *name == '/';
    size_t length = strlen(name);
    if (length == 0 || length > NAME_MAX || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
        strcmp(name, "..") == 0 || begins(name, TEMPORARY))
        return -EINVAL;
    snprintf(path_out, SSM_OBJECT_PATH_BYTES, DIRECTORY "/%s", name);
    return 0;
}

/* Is it a name that new_named() makes? */
static bool is_temporary(const char *name)
{
    return begins(name, TEMPORARY) && strspn(name + strlen(TEMPORARY), "0123456789abcdef") == 16 &&
           strlen(name) == strlen(TEMPORARY) + 16;
}

/* Why the directory cannot be used: it is missing, or else `error`. */
static int blame(int error)
{
    struct stat st;
    if ((error == -ENOENT || error == -ENOTDIR) && (stat(DIRECTORY, &st) != 0 || !S_ISDIR(st.st_mode)))
        return -SSM_E_NO_SHM;
    return error;
}

static bool leads_to(const char *path, const struct stat *object)
{
    struct stat st;
    return lstat(path, &st) == 0 && st.st_dev == object->st_dev && st.st_ino == object->st_ino;
}

/* ---- temporary names -------------------------------------------------------------------------------------------- */

/* The maker's steps 1 to 3 (object.h). Returns a descriptor; -EAGAIN if a sweeper came in between; or another
 * -errno. */
static int new_named(void)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    snprintf(path, sizeof path, DIRECTORY "/" TEMPORARY "%016" PRIx64, ssm_random_u64());
    int fd = ssm_descriptor_open(path, O_CREAT | O_EXCL | O_RDWR | O_NOFOLLOW);
    if (fd < 0)
        return fd == -EEXIST ? -EAGAIN : blame(fd);
    int result = ssm_byte_try_lock(fd, SSM_BYTE_BIRTH);
    if (result == 0 && fstat(fd, &st) == 0 && st.st_nlink > 0)
        return fd;
    if (result != 0 && result != -EAGAIN)
        unlink(path); /* the file system has no locks: nobody could tell whether the maker lives */
    close(fd);
    return result != 0 ? result : -EAGAIN;
}

/* The sweeper's steps (object.h). */
static void sweep(const char *path)
{
    struct stat st;
    int fd = ssm_descriptor_open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
        ssm_byte_try_lock(fd, SSM_BYTE_BIRTH) == 0 && leads_to(path, &st))
        unlink(path);
    close(fd);
}

void ssm_object_sweep(void)
{
    char path[SSM_OBJECT_PATH_BYTES];
    DIR *directory = opendir(DIRECTORY);
    if (directory == NULL)
        return;
    for (const struct dirent *entry; (entry = readdir(directory)) != NULL;) { /* as long as the directory */
        snprintf(path, sizeof path, DIRECTORY "/%s", entry->d_name);
        if (is_temporary(entry->d_name))
            sweep(path);
    }
    closedir(directory);
}

/* ---- the life of an object -------------------------------------------------------------------------------------- */

int ssm_object_new(void)
{
    int fd = ssm_descriptor_open(DIRECTORY, O_TMPFILE | O_RDWR);
    if (fd != -EOPNOTSUPP && fd != -EISDIR && fd != -EINVAL)
        return fd >= 0 ? fd : blame(fd);
    ssm_object_sweep();
    for (int i = 0; i < ATTEMPTS; i++)
        if ((fd = new_named()) != -EAGAIN)
            return fd;
    return -EAGAIN;
}

int ssm_object_new_apart(void)
{
    const int fd = (int)syscall(SYS_memfd_create, "ssm", MFD_CLOEXEC);
    return fd >= 0 ? ssm_descriptor_lift(fd) : -errno;
}

int ssm_object_link(int fd, const char *name)
{
    char link_path[32], from[SSM_OBJECT_PATH_BYTES] = "", to[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    int result = ssm_object_path(name, to);
    if (result != 0)
        return result;
    if (fstat(fd, &st) != 0)
        return -errno;
    snprintf(link_path, sizeof link_path, "/proc/self/fd/%d", fd);
    if (readlink(link_path, from, sizeof from - 1) < 0)
        return errno == ENOENT ? -SSM_E_NO_PROC : -errno;
    if (!begins(from, DIRECTORY "/" TEMPORARY))
        return linkat(AT_FDCWD, link_path, AT_FDCWD, to, AT_SYMLINK_FOLLOW) == 0 ? 0 : -errno;
    if (link(from, to) != 0)
        return -errno;
    unlink(from); /* object.h says what a death before it leaves */
    return 0;
}

/* The error for a name that cannot be opened as a file. */
static int refuse(int error)
{
    bool no_file = error == -ELOOP || error == -EISDIR || error == -ENXIO || error == -ENODEV;
    return no_file ? -SSM_E_LAYOUT : blame(error);
}

int ssm_object_open(const char *name, int writable)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    int result = ssm_object_path(name, path);
    if (result != 0)
        return result;
    int fd = ssm_descriptor_open(path, (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return refuse(fd);
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
        return fd;
    close(fd);
    return -SSM_E_LAYOUT;
}

int ssm_object_unlink(int fd, const char *name)
{
    char path[SSM_OBJECT_PATH_BYTES];
    struct stat st;
    int result = ssm_object_path(name, path);
    if (result != 0)
        return result;
    if (fstat(fd, &st) != 0)
        return -errno;
    if (!leads_to(path, &st))
        return 0;
    return unlink(path) == 0 ? 1 : errno == ENOENT ? 0 : -errno;
}
