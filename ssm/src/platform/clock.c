/* SPDX-License-Identifier: Apache-2.0
 *
 * The machine's monotonic clock; see clock.h. */
#include "clock.h"

#include "atomic.h"
#include "eventcount.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct ssm_u64 offset_ns; /* of this process's time namespace, in two's complement */

/* /proc/self/timens_offsets has the offsets of the namespace that children get. After unshare(CLONE_NEWTIME) it differs
 * from this process's own namespace. */
static bool is_of_children_only(void)
{
    struct stat own, of_children;
    return stat("/proc/self/ns/time", &own) == 0 && stat("/proc/self/ns/time_for_children", &of_children) == 0 &&
           own.st_ino != of_children.st_ino;
}

/* Reads the next number and moves *text behind it; 0 if there is none. Not sscanf, which has thousands of instructions:
 * the crash harness kills an attaching process at each of them. */
static uint64_t next_number(const char **text)
{
    uint64_t number = 0;
    while (**text == ' ')
        ++*text;
    const bool negative = **text == '-';
    for (*text += negative; **text >= '0' && **text <= '9'; ++*text)
        number = number * 10 + (uint64_t)(**text - '0');
    return negative ? 0 - number : number;
}

/* Reads the line "monotonic   seconds   nanoseconds". 0 on a kernel without time namespaces, and without /proc. */
static uint64_t read_offset_ns(void)
{
    static const char key[] = "monotonic";
    char text[160] = "";
    int fd = open("/proc/self/timens_offsets", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t count = read(fd, text, sizeof text - 1);
    close(fd);
    const char *line = count > 0 ? strstr(text, key) : NULL;
    if (line == NULL)
        return 0;
    line += sizeof key - 1;
    uint64_t seconds = next_number(&line);
    return seconds * 1000000000u + next_number(&line);
}

void ssm_clock_refresh(void)
{
    if (!is_of_children_only())
        ssm_store_relaxed_u64(&offset_ns, read_offset_ns());
}

/* A stale offset does no harm: all threads that attach at the same time read one value. */
uint64_t ssm_clock_ns(void)
{
    return ssm_now_ns() - ssm_load_relaxed_u64(&offset_ns);
}
