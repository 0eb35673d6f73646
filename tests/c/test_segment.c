/* SPDX-License-Identifier: Apache-2.0
 *
 * The segment's file and its mapping; private memory. */
#include "pool_fixture.h"

#include <grp.h>
#include <limits.h>
#include <sys/resource.h>
#include <sys/statvfs.h>

static const struct ssm_sleep_hooks no_hooks;

static void test_reserve(void)
{
    int fd = fixture_file();
    struct statvfs fs;
    CHECK_EQ(ssm_segment_file_size(fd), 0);
    CHECK_EQ(ssm_segment_reserve(fd, 0, 10 * 4096, &no_hooks, NULL), 0);
    CHECK_EQ(ssm_segment_file_size(fd), 10 * 4096);
    CHECK_EQ(ssm_segment_reserved_bytes(fd), 10 * 4096);
    ssm_segment_empty(fd);
    CHECK(fstatvfs(fd, &fs) == 0);
    if (fs.f_blocks != 0) { /* a file system with a limit: it is not filled up to find that out */
        CHECK_EQ(ssm_segment_reserve(fd, 0, (uint64_t)fs.f_blocks * fs.f_frsize + 4096, &no_hooks, NULL), -ENOSPC);
        CHECK_EQ(ssm_segment_reserve(fd, 0, UINT64_C(1) << 62, &no_hooks, NULL), -ENOSPC);
        CHECK_EQ(ssm_segment_file_size(fd), 0);
    }
    close(fd);
    CHECK_EQ(ssm_segment_file_size(fd), -EBADF);
}

/* What works for long asks in between whether it is to go on. */
static int asked, patience;

static void *ask(void)
{
    asked++;
    return &asked;
}

static int is_enough(void *state)
{
    CHECK(state == &asked);
    return asked > patience;
}

static int build(unsigned advice, int ask_at_most)
{
    static const struct ssm_sleep_hooks hooks = {.before = ask, .after = is_enough};
    const uint64_t size = UINT64_C(130) << 20;
    struct ssm_segment segment = {0};
    int fd = fixture_file();
    asked = 0;
    patience = ask_at_most;
    int result = ssm_segment_reserve(fd, 0, size, &hooks, NULL);
    if (result == 0)
        result = ssm_segment_map(fd, size, true, &segment);
    if (result == 0)
        result = ssm_segment_prepare(&segment, advice, &hooks);
    ssm_segment_unmap(&segment);
    close(fd);
    return result;
}

static void test_hooks(void)
{
    static const unsigned advice[] = {0, SSM_ADVICE_PREFAULT, SSM_ADVICE_MLOCK};
    for (unsigned i = 0; i < (geteuid() == 0 ? 3 : 2); i++) { /* only root may lock as much as it likes */
        CHECK_EQ(build(advice[i], INT_MAX), 0);
        int in_all = asked; /* once for each 64 MiB, and for each thing that is done with them */
        CHECK(in_all >= (advice[i] != 0 ? 4 : 2));
        for (int n = 0; n < in_all; n++) {
            CHECK_EQ(build(advice[i], n), -EINTR);
            CHECK_EQ(asked, n + 1);
        }
    }
}

/* More than this process may lock: said as such, and nothing stays locked. */
static __attribute__((unused)) void lock_too_much(void *unused)
{
    (void)unused;
    const uint64_t size = UINT64_C(3) << 20;
    struct rlimit limit = {UINT64_C(2) << 20, UINT64_C(2) << 20};
    struct ssm_segment segment;
    int fd = fixture_file();
    CHECK(setrlimit(RLIMIT_MEMLOCK, &limit) == 0);
    CHECK(setgroups(0, NULL) == 0 && setgid(54321) == 0 && setuid(54321) == 0); /* root is not limited */
    CHECK_EQ(ssm_segment_reserve(fd, 0, size, &no_hooks, NULL), 0);
    CHECK_EQ(ssm_segment_map(fd, size, true, &segment), 0);
    CHECK_EQ(ssm_segment_prepare(&segment, SSM_ADVICE_MLOCK, &no_hooks), -SSM_E_MEMLOCK);
    ssm_segment_unmap(&segment);
    CHECK_EQ(ssm_segment_map(fd, UINT64_C(1) << 20, true, &segment), 0);
    CHECK_EQ(ssm_segment_prepare(&segment, SSM_ADVICE_MLOCK, &no_hooks), 0); /* there is room for it */
    ssm_segment_unmap(&segment);
}

static void test_memlock(void)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    puts("note: a sanitizer's mlock does nothing, RLIMIT_MEMLOCK is not tested");
#else
    if (geteuid() != 0)
        puts("note: only root can become a user with less rights, RLIMIT_MEMLOCK is not tested");
    else
        child_finish(child_start(lock_too_much, NULL));
#endif
}

static void test_peek(void)
{
    int fd = fixture_file();
    char buffer[8] = "-------";
    CHECK_EQ(ssm_segment_peek(fd, 0, buffer, sizeof buffer), 0);
    CHECK(write(fd, "abc", 3) == 3);
    CHECK_EQ(ssm_segment_peek(fd, 0, buffer, sizeof buffer), 3); /* too short for a map: no SIGBUS */
    CHECK(memcmp(buffer, "abc----", 7) == 0);
    close(fd);
    CHECK_EQ(ssm_segment_peek(fd, 0, buffer, sizeof buffer), -EBADF);
}

static void test_map(void)
{
    int fd = fixture_file();
    struct ssm_segment writer, reader, advised, none;
    CHECK_EQ(ssm_segment_reserve(fd, 0, 8192, &no_hooks, NULL), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, true, &writer), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, false, &reader), 0);
    CHECK_EQ(ssm_segment_prepare(&reader, SSM_ADVICE_PREFAULT, &no_hooks), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, true, &advised), 0);
    CHECK_EQ(ssm_segment_prepare(&advised, SSM_ADVICE_HUGEPAGES | SSM_ADVICE_MLOCK, &no_hooks), 0);
    CHECK_EQ(ssm_segment_map(fd, 0, true, &none), -EINVAL);
    writer.base[8191] = 42;
    CHECK_EQ(reader.base[8191], 42);
    CHECK_EQ(advised.base[8191], 42);
    CHECK(!reader.writable && writer.writable && writer.size == 8192);
    CHECK(pread(fd, writer.base, 1, 8191) == 1);
    CHECK(pread(fd, reader.base, 1, 8191) == -1 && errno == EFAULT); /* not writable, by the kernel's word */
    ssm_segment_unmap(&writer);
    CHECK(writer.base == NULL);
    ssm_segment_unmap(&writer); /* twice does no harm */
    ssm_segment_unmap(&reader);
    ssm_segment_unmap(&advised);
    close(fd);
}

static void check_zero(const uint8_t *memory, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        CHECK_EQ(memory[i], 0);
}

static void test_private(void)
{
    const size_t bytes = 3 * 4096 + 100;
    uint8_t *memory = ssm_private_map(bytes);
    CHECK(memory != NULL);
    check_zero(memory, bytes);
    memset(memory, 1, bytes);
    ssm_private_clear(memory, bytes);
    check_zero(memory, bytes);
    memset(memory, 2, bytes);
    CHECK(mlock(memory, bytes) == 0); /* then pages cannot be given back */
    ssm_private_clear(memory, bytes);
    check_zero(memory, bytes);
    ssm_private_unmap(memory, bytes);
    ssm_private_unmap(NULL, bytes);
    CHECK(ssm_private_map(SIZE_MAX / 2) == NULL);
}

static void test_random(void)
{
    uint64_t one = ssm_random_u64(), two = ssm_random_u64();
    CHECK(one != 0 && two != 0 && one != two);
}

int main(void)
{
    alarm(WATCHDOG_S);
    test_reserve();
    test_hooks();
    test_memlock();
    test_peek();
    test_map();
    test_private();
    test_random();
    return 0;
}
