/* SPDX-License-Identifier: Apache-2.0
 *
 * Errors as sentences. */
#include "check.h"
#include "ssm.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

int main(void)
{
    for (int error = SSM_E_EXHAUSTED; error <= SSM_E_PINNED; error++) {
        const char *sentence = ssm_strerror(error);
        CHECK(sentence != NULL && strlen(sentence) > 8);
        CHECK(ssm_strerror(-error) == sentence);
        for (int other = SSM_E_EXHAUSTED; other < error; other++)
            CHECK(strcmp(sentence, ssm_strerror(other)) != 0);
    }
    CHECK(strcmp(ssm_strerror(-ENOSPC), strerror(ENOSPC)) == 0);
    CHECK(strcmp(ssm_strerror(ENOSPC), strerror(ENOSPC)) == 0);
    CHECK(ssm_strerror(SSM_E_EXHAUSTED - 1) != NULL);
    CHECK(ssm_strerror(SSM_E_PINNED + 1) != NULL);
    CHECK(ssm_strerror(INT_MAX) != NULL);
    CHECK(ssm_strerror(INT_MIN) != NULL);
    return 0;
}
