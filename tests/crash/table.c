/* SPDX-License-Identifier: Apache-2.0
 *
 * The killer's table; see table.h. */
#include "table.h"

#include <stdio.h>

void table_head(bool markdown)
{
    if (markdown)
        printf("| operation | instructions | kill points tried | violations | double faults tried | violations | "
               "stops | violations | states |\n"
               "|---|---:|---:|---:|---:|---:|---:|---:|---:|\n");
    else
        printf("%-40s %13s %9s %10s %9s %10s %9s %10s %9s\n", "operation", "instructions", "kills", "violations", "double",
               "violations", "stops", "violations", "states");
    fflush(stdout);
}

void table_row(const struct row *row, bool markdown)
{
    char instructions[32];
    const char *slash = row->instructions[0] != 0 && row->instructions[1] != 0 ? " / " : "";
    snprintf(instructions, sizeof instructions, "%.0u%s%.0u", row->instructions[0], slash, row->instructions[1]);
    printf(markdown ? "| %s | %s | %u | %u | %u | %u | %u | %u | %u |\n" : "%-40s %13s %9u %10u %9u %10u %9u %10u %9u\n",
           row->operation, instructions, row->kills, row->violations, row->double_kills, row->double_violations, row->stops,
           row->stop_violations, row->states);
    fflush(stdout);
}

uint32_t table_violations(const struct row *row)
{
    return row->violations + row->double_violations + row->stop_violations;
}

void table_sum(struct row *sum, const struct row *row)
{
    for (int i = 0; i < 2; i++)
        sum->instructions[i] += row->instructions[i];
    sum->kills += row->kills;
    sum->violations += row->violations;
    sum->double_kills += row->double_kills;
    sum->double_violations += row->double_violations;
    sum->stops += row->stops;
    sum->stop_violations += row->stop_violations;
    sum->states += row->states;
}
