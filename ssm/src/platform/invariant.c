/* SPDX-License-Identifier: Apache-2.0
 *
 * Executable invariants; see invariant.h. */
#include "invariant.h"

#if SSM_ASSERTS

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

bool ssm_damage_is_expected;

void ssm_assert_failed(const char *condition, const char *file, int line, const char *function)
{
    fprintf(stderr, "%s:%d: %s(): does not hold in process %d: %s\n", file, line, function, (int)getpid(), condition);
    abort();
}

#endif
