/* SPDX-License-Identifier: Apache-2.0
 *
 * The checker: goes on where a process was killed, and verifies the promise from outside.
 *
 *   1  nobody hangs: each call of the living ends within CALL_MAX_NS
 *   2  no block is lost: after a reap each is on exactly one list, or in one cache, or held by the living, or queued
 *   3  no block has two owners: what can be allocated is allocated and scribbled over; held and queued packets are
 *      whole all the same; nothing is delivered twice
 *   4  what a put that had returned put is delivered; what another put, whole or not at all; in order
 *   5  the pool is as good as new: every block can be allocated once, rings pass as many packets as they hold
 *   B  the same of a service: books.h
 *
 * It reads descriptors, lists, caches and slots itself; ssm_check() has to agree. It runs in a process of its own, as
 * the survivor, that ends with the first contradiction.
 */
#ifndef CRASH_CHECKER_H
#define CRASH_CHECKER_H

#include "scenarios.h"

enum manner {
    GO_ON,    /* the survivor goes on with what it does, then reaps */
    REAP,     /* it reaps first */
    NEWCOMER, /* somebody attaches, which reaps, and goes on */
    LOOK, /* it asks ssm_check() and does nothing else: what a process was stopped or killed at is no contradiction */
    BLOCKED, /* the survivor waits in a call that has to come to an end; then it reaps */
    MANNERS
};
extern const char *const manner_names[MANNERS];

/* Returns when all is well; else it has ended the process, and the note has the complaint. */
void checker_run(struct world *world, const struct scenario *scenario, enum manner manner);

/* For a survivor who is blocked on a ring, and whom the dead one cannot help any more: the peer does. */
void checker_relieve(struct world *world, const struct scenario *scenario);

/* One of the living uses the rings and the pool: what a recoverer does who knows nothing of a death. */
void checker_visit(struct world *world, enum actor actor);

#endif
