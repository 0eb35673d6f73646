/* SPDX-License-Identifier: Apache-2.0
 *
 * CHECK for the C tests: says where and what, then ends the program with 1. A random test prints its seed; the
 * environment variable SEED replays one.
 */
#ifndef TESTS_CHECK_H
#define TESTS_CHECK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHECK(condition)                                                                             \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fprintf(stderr, "%s:%d: %s(): %s is false\n", __FILE__, __LINE__, __func__, #condition); \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

/* Both are integers; shown when they differ. */
#define CHECK_EQ(a, b)                                                                                              \
    do {                                                                                                            \
        long long check_a_ = (long long)(a), check_b_ = (long long)(b);                                             \
        if (check_a_ != check_b_) {                                                                                 \
            fprintf(stderr, "%s:%d: %s(): %s is %lld, not %s = %lld\n", __FILE__, __LINE__, __func__, #a, check_a_, \
                    #b, check_b_);                                                                                  \
            exit(1);                                                                                                \
        }                                                                                                           \
    } while (0)

/* Whether a test that takes long does all of it, as `make test-all` says; see tests/effort.py. */
static inline bool check_all(void)
{
    const char *all = getenv("SSM_TEST_ALL");

    return all != NULL && strcmp(all, "1") == 0;
}

/* Deterministic from one seed (splitmix64, Steele, Lea, Flood 2014). */
static uint64_t check_random_state;

static inline uint64_t check_random(void)
{
    uint64_t z = check_random_state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static inline uint64_t check_below(uint64_t bound)
{
    return check_random() % bound;
}

static inline void check_seed(void)
{
    const char *seed = getenv("SEED");

    check_random_state = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);
    printf("SEED=%llu\n", (unsigned long long)check_random_state);
    fflush(stdout);
}

#endif
