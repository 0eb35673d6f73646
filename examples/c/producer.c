/* SPDX-License-Identifier: Apache-2.0
 *
 * A producer in C for a consumer in any language: attaches to a pool by its name and puts COUNT packets into the
 * ring "frames", then shuts the ring down. In Python:
 *
 *     pool = ssm.Pool.create("lab")
 *     subprocess.Popen(["producer", "lab", "1000"])
 *     for pkt in pool.ring("frames"):
 *         body, checksum = pkt[:-4], int.from_bytes(pkt[-4:], "little")
 *         assert zlib.adler32(body) == checksum and pkt.tag == int.from_bytes(body[:8], "little")
 *
 * Each packet is a number (64 bits, little-endian; in the tag as well), filling, and the Adler-32 of both. */
#include <ssm.h>

#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 32, SMALLEST = 64, LARGEST = 1500 };

static uint32_t adler32(const uint8_t *bytes, uint64_t count)
{
    uint32_t a = 1, b = 0;
    for (uint64_t i = 0; i < count; i++) {
        a = (a + bytes[i]) % 65521;
        b = (b + a) % 65521;
    }
    return b << 16 | a;
}

static void store_le(uint8_t *to, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static int fill(struct ssm_pool *pool, uint64_t handle, uint64_t number)
{
    struct ssm_packet packet;
    int error = ssm_packet_view(pool, handle, &packet);
    if (error < 0)
        return error;
    uint64_t body = packet.length - 4;
    store_le(packet.data, number, 8);
    for (uint64_t i = 8; i < body; i++)
        packet.data[i] = (uint8_t)(number + i);
    store_le(packet.data + body, adler32(packet.data, body), 4);
    return ssm_packet_set_tag(pool, handle, number);
}

/* One batch: a single allocation and a single put for up to BATCH packets of one size. */
static int produce(struct ssm_pool *pool, struct ssm_ring *ring, uint64_t first, uint32_t count)
{
    uint64_t handles[BATCH];
    uint64_t size = SMALLEST + first * 7 % (LARGEST - SMALLEST);
    int error = ssm_alloc_many(pool, size, count, SSM_FOREVER, handles);
    if (error < 0)
        return error;
    for (uint32_t i = 0; i < count && error >= 0; i++)
        error = fill(pool, handles[i], first + i);
    if (error >= 0)
        error = ssm_ring_put(ring, handles, count, 0, SSM_FOREVER);
    if (error < 0)
        ssm_free_many(pool, handles, count);
    return error;
}

static int run(const char *name, uint64_t total)
{
    struct ssm_attach_options options = {.size = sizeof options, .name = "producer"};
    struct ssm_ring_options as_it_is = {.size = sizeof as_it_is};
    struct ssm_pool *pool;
    struct ssm_ring *ring;
    int error = ssm_attach_name(name, &options, 0, &pool);
    if (error < 0)
        return error;
    error = ssm_ring_open(pool, "frames", &as_it_is, &ring);
    if (error < 0)
        goto close_pool;
    for (uint64_t sent = 0; sent < total && error >= 0; sent += BATCH)
        error = produce(pool, ring, sent, total - sent < BATCH ? (uint32_t)(total - sent) : BATCH);
    if (error >= 0)
        error = ssm_ring_shutdown(ring, 0);
    ssm_ring_close(ring);
close_pool:
    ssm_close_name(name, pool);
    return error;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s POOL COUNT\n", argv[0]);
        return 2;
    }
    int error = run(argv[1], strtoull(argv[2], NULL, 10));
    if (error < 0) {
        fprintf(stderr, "%s: %s\n", argv[1], ssm_strerror(error));
        return 1;
    }
    return 0;
}
