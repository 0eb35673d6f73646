/* SPDX-License-Identifier: Apache-2.0
 *
 * Executable invariants. In a build with SSM_ASSERTS (all presets but release) the process ends with abort() where one
 * does not hold. In any other build they are compiled and never evaluated: the code is the same as without them.
 *
 * They say what only a bug in this library can break. A value that another process wrote is checked by the code, and
 * damage is an error (-SSM_E_CORRUPT); an assertion never takes the place of that check.
 *
 *   SSM_ASSERT(condition)         private memory, arguments, and values that were checked
 *   SSM_ASSERT_SHARED(condition)  a few words of shared memory
 *   SSM_EXPENSIVE(condition)      a whole structure in shared memory, by its ssm_<noun>_is_valid
 *
 * The last two hold where the process has the lock of the words, or the right to them, whatever other processes do
 * meanwhile and wherever one of them died before. They do not hold in a pool that somebody wrote over. A test or fuzzer
 * that does so says it with SSM_EXPECT_DAMAGE(true): from then on they are not evaluated in this process and its
 * children. SSM_ASSERT always is.
 *
 * This file must not have the name of the C library's header, which would then be this one in this include path. */
#ifndef SSM_INVARIANT_H
#define SSM_INVARIANT_H

#include "atomic.h"

#ifndef SSM_ASSERTS
#define SSM_ASSERTS 0
#endif

#if SSM_ASSERTS

__attribute__((cold, noreturn)) void ssm_assert_failed(const char *condition, const char *file, int line,
                                                       const char *function);

extern bool ssm_damage_is_expected;

#define SSM_ASSERT(condition)                                                                       \
    (SSM_LIKELY(condition) ? (void)0 : ssm_assert_failed(#condition, __FILE__, __LINE__, __func__))
#define SSM_ASSERT_SHARED(condition) SSM_ASSERT(ssm_damage_is_expected || (condition))
#define SSM_EXPENSIVE(condition)     SSM_ASSERT(ssm_damage_is_expected || (condition))
#define SSM_EXPECT_DAMAGE(expected)  ((void)(ssm_damage_is_expected = (expected)))

#else

#define SSM_ASSERT(condition)        ((void)sizeof((condition) ? 1 : 0)) /* compiled, not evaluated */
#define SSM_ASSERT_SHARED(condition) SSM_ASSERT(condition)
#define SSM_EXPENSIVE(condition)     ((void)0)
#define SSM_EXPECT_DAMAGE(expected)  ((void)(expected))

#endif

#endif
