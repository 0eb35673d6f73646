# SPDX-License-Identifier: Apache-2.0
"""What goes to a screen: texts that others wrote, with nothing in them that a terminal would obey.

Names of pools, rings, services and processes, and the errors that quote them, may hold anything: escape sequences,
line ends, marks that turn the direction of writing. All output for people goes through `plain`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def plain(text: object) -> str:
    """Return the text on one line, as it can be shown: what is not printable is escaped as `repr` does it."""
    shown = str(text)
    if shown.isprintable():
        return shown
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode() for c in shown
    )


def say(line: object = "", *, error: bool = False) -> None:
    """Print one line for people, to standard output or to standard error.

    What the output's encoding does not have is escaped, too.
    """
    file = sys.stderr if error else sys.stdout
    encoding = getattr(file, "encoding", None) or "utf-8"
    print(plain(line).encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the lines of a table; numbers stand to the right, with commas.

    Parameters
    ----------
    columns : sequence of str
        The head of each column.
    rows : iterable of sequences
        What stands below, as long as `columns` each.
    """
    kept = list(rows)
    lines = [[f"{cell:,}" if type(cell) is int else plain(cell) for cell in row] for row in kept]
    numeric = [bool(kept) and all(type(row[i]) is int for row in kept) for i in range(len(columns))]
    widths = [max(len(line[i]) for line in [list(columns), *lines]) for i in range(len(columns))]
    for line in [list(columns), *lines]:
        cells = (
            f"{cell:>{width}}" if right else f"{cell:<{width}}"
            for cell, width, right in zip(line, widths, numeric, strict=True)
        )
        yield "  ".join(cells).rstrip()
