/* SPDX-License-Identifier: Apache-2.0
 *
 * What trial.c (whose operation is killed) and rescue.c (whose recovery is) share: one scenario under test, the states that
 * it has been found in, and the checks of each.
 *
 * A state is the segment and the note of how far the operation came. What a death leaves is a function of these alone:
 * the kernel has dropped the locks of the dead, and nobody sleeps. So each is checked once, in every manner, however many
 * instructions lead to it. */
#ifndef CRASH_TEST_H
#define CRASH_TEST_H

#include "checker.h"
#include "trial.h"

#include <sys/types.h>

#define STATES_MAX    4096
#define CHECK_SECONDS 60 /* a process that is not done by then hangs; on a busy machine it takes long */

enum fault { KILL, DOUBLE_KILL, STOP };

struct state {
    uint8_t    *image; /* of the segment */
    struct note note;
};

/* Where it was found, for who reads of a violation. */
struct place {
    uint32_t    n;
    uint64_t    pc;
    const char *when;
};

struct test {
    const struct scenario *scenario;
    const struct effort   *effort;
    struct row            *row;
    struct world           world;
    enum fault             fault;            /* what is done just now */
    bool                   is_recorded;      /* by the recorder; else stepped */
    bool                   is_foreseen;      /* a recording came before, and had every state that there is */
    struct state           left[STATES_MAX]; /* by the victim's death */
    uint32_t               left_count;
    uint64_t              *hashes; /* of all states found: an open table; 0: free */
    uint32_t               hash_count, hash_room;
};

bool test_is_over(const struct test *test);
/* Called by a process under test, where its instructions begin to count. */
void test_begin(const struct test *test);
void test_set(struct test *test, const struct state *state);
/* As it is now. The image is to be freed. */
struct state test_now(const struct test *test);
void test_describe(struct test *test, const struct place *place, enum manner manner, const char *what);

pid_t test_start_checker(struct test *test, enum manner manner);
void test_finish_checker(struct test *test, pid_t pid, const struct place *place, enum manner manner);
/* Checks it, if it is a new one: `image_hash` is world_hash() of it. True: it was one. */
bool test_check(struct test *test, const struct state *state, uint64_t image_hash, const struct place *place);
/* Records child(test), from `start` on, and checks what is between its stores. False: it crashed. */
bool test_record(struct test *test, const struct state *start, enum actor actor, void (*child)(void *context),
                 void *context, const char *when);

#endif
