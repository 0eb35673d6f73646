/* SPDX-License-Identifier: Apache-2.0
 *
 * One scenario under test. For each instruction n of its operation a fresh victim runs up to n and gets a SIGKILL; the
 * checker looks at what is left. Then, for some of these states, a rescuer runs into it, and is killed at each of its
 * instructions as well. Last, a victim is stopped behind each instruction that changed the segment. */
#ifndef CRASH_TRIAL_H
#define CRASH_TRIAL_H

#include "scenarios.h"
#include "table.h"

struct effort {
    uint32_t points;  /* UINT32_MAX: every instruction; else after changes, at system calls, and so many of the rest */
    uint32_t doubles; /* states that rescuers are sent into */
    uint32_t turn;    /* varies what is sampled */
    bool     stop_at_first; /* violation */
};

/* Adds to the row; describes violations. `wide`: holder sets of two words. */
void trial_run(const struct scenario *scenario, bool wide, const struct effort *effort, struct row *row);

#endif
