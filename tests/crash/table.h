/* SPDX-License-Identifier: Apache-2.0
 *
 * The table that the killer prints: a line for each operation, as text or as Markdown. */
#ifndef CRASH_TABLE_H
#define CRASH_TABLE_H

#include <stdbool.h>
#include <stdint.h>

struct row {
    const char *operation;
    uint32_t    instructions[2]; /* with holder sets of one word, of two; 0: not tried */
    uint32_t    points;          /* between stores of the operation, recorded */
    uint32_t    kills;           /* SIGKILL at an instruction */
    uint32_t    states;          /* different ones that were left, and checked */
    uint32_t    violations;
    uint32_t    rescuers; /* one each in one of these states */
    uint32_t    double_points, double_kills, double_states, double_violations;
    uint32_t    unforeseen; /* states that a kill left, and no recording had */
    uint32_t    stops, stop_violations;
};

void table_head(bool markdown);
void table_row(const struct row *row, bool markdown);
uint32_t table_violations(const struct row *row);
void table_sum(struct row *sum, const struct row *row);

#endif
