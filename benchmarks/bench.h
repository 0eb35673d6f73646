/* SPDX-License-Identifier: Apache-2.0
 *
 * What the cases of ssm_bench share: the pool they run on, the clock, and a crew of processes.
 */
#ifndef SSM_BENCH_H
#define SSM_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "ssm.h"

#define BATCH_MAX 32

struct bench {
    struct ssm_pool  *pool;
    struct ssm_ring **rings; /* `ring_count` of them */
    uint64_t          count; /* packets of the run, a multiple of `batch` */
    uint32_t          batch; /* packets per call */
    uint32_t          bytes; /* payload that is written here and read there */
    /* What grows in benchmarks/growth.py. */
    uint32_t attached; /* idle processes beside */
    uint32_t blocks, shards, cache, ring_count, workers;
};

/* Returns `result`, or ends the program when it is an error. */
int must(int result, const char *what);
uint64_t now_ns(void);
uint64_t median_ns(uint64_t *times, uint64_t count);
void *shared_memory(uint64_t bytes); /* zeroed, between this process and those it forks later */
void pause_briefly(void);            /* what a loop that looks does in between */

/* Runs `ours` here and `theirs` in so many forked processes, at once: nanoseconds from the start until the last is done.
 * Both may be the same. A child ends with its parent, and the parent's alarm ends the run. */
typedef void bench_work(struct bench *bench);
uint64_t bench_together(struct bench *bench, uint32_t children, bench_work *ours, bench_work *theirs);

/* Each returns nanoseconds for `count` packets or round trips. */
typedef uint64_t bench_run(struct bench *bench);

/* pairs.c: one process hands packets to another. */
bench_run bench_stream, bench_hand_over, bench_ring, bench_round_trip_spin, bench_round_trip_block,
    bench_round_trip_asleep;

/* floor.c: what the machine takes for as much without any of ours. */
bench_run floor_loop, floor_malloc, floor_ring, floor_round_trip_spin, floor_round_trip_futex,
    floor_round_trip_futex_asleep;

#endif
