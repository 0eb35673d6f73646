/* SPDX-License-Identifier: Apache-2.0
 *
 * The killer's table; see table.h. */
#include "table.h"

#include <stdio.h>

void table_head(void)
{
    printf("%-38s %-6s %12s %8s %7s %8s %10s\n", "operation", "sets", "instructions", "kills", "states", "double",
           "violations");
    fflush(stdout);
}

void table_row(const struct row *row)
{
    printf("%-38s %-6s %12u %8u %7u %8u %10u\n", row->operation, row->sets, row->instructions, row->kills, row->states,
           row->double_kills, row->violations);
    fflush(stdout);
}
