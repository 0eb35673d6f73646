/* SPDX-License-Identifier: Apache-2.0
 *
 * A set of holders in private memory: one bit for each holder slot. Also a set of any other numbers below
 * SSM_HOLDER_MAX. */
#ifndef SSM_HOLDER_SET_H
#define SSM_HOLDER_SET_H

#include "invariant.h"
#include "ssm.h"

#include <stdbool.h>
#include <stdint.h>

#define SSM_HOLDER_WORDS (SSM_HOLDER_MAX / 64)

struct ssm_holder_set { uint64_t words[SSM_HOLDER_WORDS]; };

static inline bool ssm_holder_set_has(const struct ssm_holder_set *set, uint32_t holder)
{
    SSM_ASSERT(holder < SSM_HOLDER_MAX);
    return set->words[holder / 64] >> holder % 64 & 1;
}

static inline void ssm_holder_set_add(struct ssm_holder_set *set, uint32_t holder)
{
    SSM_ASSERT(holder < SSM_HOLDER_MAX);
    set->words[holder / 64] |= UINT64_C(1) << holder % 64;
}

static inline void ssm_holder_set_remove(struct ssm_holder_set *set, uint32_t holder)
{
    SSM_ASSERT(holder < SSM_HOLDER_MAX);
    set->words[holder / 64] &= ~(UINT64_C(1) << holder % 64);
}

static inline void ssm_holder_set_add_all(struct ssm_holder_set *set, const struct ssm_holder_set *others)
{
    for (uint32_t w = 0; w < SSM_HOLDER_WORDS; w++)
        set->words[w] |= others->words[w];
}

static inline uint32_t ssm_holder_set_count(const struct ssm_holder_set *set)
{
    uint32_t count = 0;
    for (uint32_t w = 0; w < SSM_HOLDER_WORDS; w++)
        count += (uint32_t)__builtin_popcountll(set->words[w]);
    return count;
}

#endif
