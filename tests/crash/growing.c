/* SPDX-License-Identifier: Apache-2.0
 *
 * The growing pool of the soak; see soak.c. An arena grows in its first moments only, so this pool is made anew for each
 * round: workers are killed while it grows. They take packets of many sizes from it, pass them to each other, and look
 * whether what they get is what was put. */
#include "soak.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#define GROW_BYTES   (32 * UINT64_C(65536))
#define GROW_PACKETS 40
#define PASSED       8

static int fd = -1;
static struct ssm_pool *pool; /* the driver's */

void growing_renew(void)
{
    const struct ssm_pool_options options = {
        .classes = {{64, 16}},
        .class_count = 1,
        .shards = 2,
        .cache = 2,
        .holders = 64,
        .metadata_bytes = 16384,
        .grow_bytes = GROW_BYTES,
        .arena_packets = GROW_PACKETS,
    };
    fd = memfd_create("ssm-soak-growing", MFD_CLOEXEC);
    int result = ssm_pool_create(fd, &options, &(struct ssm_attach_options){.name = "driver"}, &pool);
    if (result != 0)
        fault("creating the pool that grows", result);
}

int growing_come(struct hands *hands)
{
    int result = ssm_pool_attach(fd, &(struct ssm_attach_options){.name = "worker"}, &hands->growing);
    if (result == 0)
        result = ssm_ring_open(hands->growing, "passing", &(struct ssm_ring_options){.capacity = PASSED},
                               &hands->passing);
    return result;
}

void growing_leave(struct hands *hands)
{
    ssm_ring_close(hands->passing);
    ssm_pool_destroy(hands->growing);
}

static void put_one(struct hands *hands)
{
    uint64_t handle;
    struct ssm_packet packet;
    const uint64_t bytes = UINT64_C(4096) * (1 + below(&hands->random, 24)) - 8 * below(&hands->random, 100);
    int result = ssm_alloc(hands->growing, bytes, patience(hands), &handle);
    if (result == -SSM_E_EXHAUSTED)
        return;
    if (result != 0 || (result = ssm_packet_view(hands->growing, handle, &packet)) != 0) {
        fault("alloc where the arena grows", result);
        return;
    }
    stamp(&packet, below(&hands->random, SERIALS));
    result = below(&hands->random, 4) == 0 ? -SSM_E_FULL : ssm_ring_put(hands->passing, &handle, 1, 0, patience(hands));
    if (result == 0)
        return;
    read_stamp(hands->growing, handle);
    if (result != -SSM_E_FULL)
        fault("put where the arena grows", result);
    if ((result = ssm_free(hands->growing, handle)) != 0)
        fault("free where the arena grows", result);
}

void growing_use(struct hands *hands)
{
    uint64_t handle;
    if (below(&hands->random, 2) == 0) {
        put_one(hands);
        return;
    }
    int result = ssm_ring_get(hands->passing, &handle, 1, patience(hands));
    if (result == 1) {
        read_stamp(hands->growing, handle);
        result = ssm_free(hands->growing, handle);
    }
    if (result != 0 && result != -SSM_E_EMPTY)
        fault("get where the arena grows", result);
}

uint64_t growing_late_wakes(void)
{
    struct ssm_ring_stats ring;
    struct ssm_arena_stats arena = {0};
    uint64_t late = ssm_arena_stats(pool, &arena) == 0 ? arena.late_wakes : 0;
    for (uint32_t holder = 0; holder < 64; holder++)
        if (ssm_ring_stats(pool, holder, &ring) == 0)
            late += ring.late_wakes;
    return late;
}

static void report(void *context, const char *sentence)
{
    (void)context;
    printf("the pool that grows: %s\n", sentence);
}

void growing_balance(void)
{
    struct hands hands = {0};
    struct ssm_reaped reaped;
    struct ssm_arena_stats stats;
    uint64_t handle;
    ssm_reap(pool, &reaped);
    int result = growing_come(&hands);
    if (result != 0) {
        fault("attach where the arena grows", result);
    } else {
        while (ssm_ring_get(hands.passing, &handle, 1, 0) == 1) {
            read_stamp(hands.growing, handle);
            ssm_free(hands.growing, handle);
        }
        growing_leave(&hands);
    }
    if (ssm_check(pool, report, NULL) != 0)
        fault("check where the arena grows", -SSM_E_CORRUPT);
    if (ssm_arena_stats(pool, &stats) != 0 || stats.used != 0 || stats.largest != GROW_BYTES ||
        stats.free != GROW_PACKETS)
        fault("the arena that grows is not one free range", -SSM_E_CORRUPT);
    ssm_pool_destroy(pool);
    close(fd);
}
