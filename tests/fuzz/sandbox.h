/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the fuzzed core runs. The linker puts what is here in place of the core's clock, naps and sleeps, and of its
 * mapping of the segment:
 *   - time is counted, not waited for: a nap of ten seconds costs a store, and is the same in every run
 *   - a wait that goes beyond SANDBOX_PATIENCE_NS of that time is a failure: somebody would wait for ever
 *   - the segment lies between pages that nobody may touch: an access beyond it is a SIGSEGV, not luck
 */
#ifndef TESTS_FUZZ_SANDBOX_H
#define TESTS_FUZZ_SANDBOX_H

#include <stdint.h>

#define SANDBOX_PATIENCE_NS                                                                            \
    UINT64_C(60000000000) /* of one call with a time-out of 0; the core's own limits add up to less */

/* A new run: the time is the same as at the begin of every other one. */
void sandbox_begin(void);
/* A new call: its waiting counts from here. */
void sandbox_call(void);

#endif
