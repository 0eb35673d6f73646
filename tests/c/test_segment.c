/* SPDX-License-Identifier: Apache-2.0
 *
 * The segment's file and its mapping; private memory. */
#include "pool_fixture.h"

#include <sys/statvfs.h>

static void test_reserve(void)
{
    int fd = fixture_file();
    struct statvfs fs;
    CHECK_EQ(ssm_segment_file_size(fd), 0);
    CHECK_EQ(ssm_segment_reserve(fd, 10 * 4096), 0);
    CHECK_EQ(ssm_segment_file_size(fd), 10 * 4096);
    CHECK(fstatvfs(fd, &fs) == 0);
    if (fs.f_blocks != 0) /* a file system with a limit */
        CHECK_EQ(ssm_segment_reserve(fd, (uint64_t)fs.f_blocks * fs.f_frsize + 4096), -ENOSPC);
    CHECK(ssm_segment_reserve(fd, UINT64_C(1) << 62) < 0);
    close(fd);
    CHECK_EQ(ssm_segment_file_size(fd), -EBADF);
}

static void test_peek(void)
{
    int fd = fixture_file();
    char buffer[8] = "-------";
    CHECK_EQ(ssm_segment_peek(fd, buffer, sizeof buffer), 0);
    CHECK(write(fd, "abc", 3) == 3);
    CHECK_EQ(ssm_segment_peek(fd, buffer, sizeof buffer), 3); /* too short for a map: no SIGBUS */
    CHECK(memcmp(buffer, "abc----", 7) == 0);
    close(fd);
    CHECK_EQ(ssm_segment_peek(fd, buffer, sizeof buffer), -EBADF);
}

static void test_map(void)
{
    int fd = fixture_file();
    struct ssm_segment writer, reader, advised, none;
    CHECK_EQ(ssm_segment_reserve(fd, 8192), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, true, 0, &writer), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, false, SSM_ADVICE_PREFAULT, &reader), 0);
    CHECK_EQ(ssm_segment_map(fd, 8192, true, SSM_ADVICE_HUGEPAGES | SSM_ADVICE_MLOCK, &advised), 0);
    CHECK_EQ(ssm_segment_map(fd, 0, true, 0, &none), -EINVAL);
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
    test_peek();
    test_map();
    test_private();
    test_random();
    return 0;
}
