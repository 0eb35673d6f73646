/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors as sentences. */
#include "check.h"
#include "ssm.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

/* Programs that were compiled with another release know these numbers: each stands, and new ones follow. */
static const int numbers[] = {
    SSM_E_EXHAUSTED, SSM_E_TOO_LARGE, SSM_E_STALE,      SSM_E_FULL,     SSM_E_EMPTY,    SSM_E_SHUTDOWN,
    SSM_E_BUSY,      SSM_E_RDONLY,    SSM_E_QUEUED,     SSM_E_HOLDERS,  SSM_E_LAYOUT,   SSM_E_CORRUPT,
    SSM_E_ABANDONED, SSM_E_MISMATCH,  SSM_E_ROOM,       SSM_E_METADATA, SSM_E_CLOSED,   SSM_E_UNAVAILABLE,
    SSM_E_OVERFLOW,  SSM_E_UNMANAGED, SSM_E_RELEASED,   SSM_E_NEVER,    SSM_E_RESTING,  SSM_E_CROWDED,
    SSM_E_QUOTA,     SSM_E_SEGMENT,   SSM_E_CHAIN,      SSM_E_SHARED,   SSM_E_PINNED,   SSM_E_NO_SHM,
    SSM_E_NO_PROC,   SSM_E_NO_LOCKS,  SSM_E_LOCKS_GONE, SSM_E_MEMLOCK,  SSM_E_ORPHANED, SSM_E_RINGS,
    SSM_E_UNLINKED,  SSM_E_DONE,
};
#define LAST (4097 + (int)(sizeof numbers / sizeof *numbers) - 1)

int main(void)
{
    CHECK_EQ(ssm_version(), SSM_VERSION);
    for (int error = 4097; error <= LAST; error++) {
        CHECK_EQ(numbers[error - 4097], error);
        const char *sentence = ssm_strerror(error);
        CHECK(sentence != NULL && strlen(sentence) > 8);
        CHECK(ssm_strerror(-error) == sentence);
        for (int other = 4097; other < error; other++)
            CHECK(strcmp(sentence, ssm_strerror(other)) != 0);
    }
    CHECK(strcmp(ssm_strerror(-ENOSPC), strerror(ENOSPC)) == 0);
    CHECK(strcmp(ssm_strerror(ENOSPC), strerror(ENOSPC)) == 0);
    for (int error = 4096; error <= LAST + 1; error += LAST + 1 - 4096) { /* none of ours, nor of the C library's */
        char sentence[64];
        snprintf(sentence, sizeof sentence, "%s", ssm_strerror(error)); /* its next call frees it */
        CHECK(strcmp(sentence, strerror(error)) == 0);
    }
    CHECK(ssm_strerror(INT_MAX) != NULL);
    CHECK(ssm_strerror(INT_MIN) != NULL);
    return 0;
}
