/* SPDX-License-Identifier: Apache-2.0
 *
 * The killer's table; see table.h. */
#include "table.h"

#include <stddef.h>
#include <stdio.h>

static const struct column {
    const char *title, *words; /* short, and in Markdown */
    size_t at;                 /* offset in a row */
} columns[] = {
    {"points", "between stores", offsetof(struct row, points)},
    {"kills", "kills", offsetof(struct row, kills)},
    {"states", "states", offsetof(struct row, states)},
    {"violations", "violations", offsetof(struct row, violations)},
    {"rescuers", "rescuers", offsetof(struct row, rescuers)},
    {"points", "between their stores", offsetof(struct row, double_points)},
    {"kills", "kills", offsetof(struct row, double_kills)},
    {"states", "states", offsetof(struct row, double_states)},
    {"violations", "violations", offsetof(struct row, double_violations)},
    {"unforeseen", "unforeseen", offsetof(struct row, unforeseen)},
    {"stops", "stops", offsetof(struct row, stops)},
    {"violations", "violations", offsetof(struct row, stop_violations)},
};
#define COLUMNS (sizeof columns / sizeof *columns)

static uint32_t *figure(struct row *row, size_t column)
{
    return (uint32_t *)(void *)((char *)row + columns[column].at);
}

void table_head(bool markdown)
{
    printf(markdown ? "| %s | %s |" : "%-52s %15s", "operation", "instructions");
    for (size_t i = 0; i < COLUMNS; i++)
        printf(markdown ? " %s |" : " %10s", markdown ? columns[i].words : columns[i].title);
    printf("\n%s", markdown ? "|---|---:|" : "");
    for (size_t i = 0; markdown && i < COLUMNS; i++)
        printf("---:|%s", i + 1 == COLUMNS ? "\n" : "");
    fflush(stdout);
}

void table_row(const struct row *row, bool markdown)
{
    char instructions[32];
    struct row copy = *row;
    const char *slash = row->instructions[0] != 0 && row->instructions[1] != 0 ? " / " : "";
    snprintf(instructions, sizeof instructions, "%.0u%s%.0u", row->instructions[0], slash, row->instructions[1]);
    printf(markdown ? "| %s | %s |" : "%-52s %15s", row->operation, instructions);
    for (size_t i = 0; i < COLUMNS; i++)
        printf(markdown ? " %u |" : " %10u", *figure(&copy, i));
    printf("\n");
    fflush(stdout);
}

uint32_t table_violations(const struct row *row)
{
    return row->violations + row->double_violations + row->stop_violations;
}

void table_sum(struct row *sum, const struct row *row)
{
    struct row copy = *row;
    for (int i = 0; i < 2; i++)
        sum->instructions[i] += row->instructions[i];
    for (size_t i = 0; i < COLUMNS; i++)
        *figure(sum, i) += *figure(&copy, i);
}
