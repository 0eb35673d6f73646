/* SPDX-License-Identifier: Apache-2.0
 *
 * One scenario under test. Its operation is stepped through, and stands still behind each instruction that changed something,
 * while somebody looks. It is recorded (recorder.h), and what is between any two of its stores is checked as if it had died
 * there; then fresh victims run up to instructions of it and get a SIGKILL. At last rescuers run into what is left, and die
 * as well. */
#ifndef CRASH_TRIAL_H
#define CRASH_TRIAL_H

#include "scenarios.h"
#include "table.h"

struct effort {
    uint32_t points;        /* kills at so many instructions that change nothing, besides those at all others */
    uint32_t rescued;       /* states that rescuers are recorded in */
    uint32_t doubles;       /* states that rescuers are killed in */
    bool     stop_at_first; /* violation */
};

/* Adds to the row; describes violations. `wide`: holder sets of two words. */
void trial_run(const struct scenario *scenario, bool wide, const struct effort *effort, struct row *row);

#endif
