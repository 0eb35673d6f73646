/* SPDX-License-Identifier: Apache-2.0
 *
 * The table that the killer prints: a line for each operation. */
#ifndef CRASH_TABLE_H
#define CRASH_TABLE_H

#include <stdint.h>

struct row {
    const char *operation, *sets; /* narrow: holder sets of one word; wide: of two */
    uint32_t instructions, kills, states, double_kills, violations;
};

void table_head(void);
void table_row(const struct row *row);

#endif
