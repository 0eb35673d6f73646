# SPDX-License-Identifier: Apache-2.0
"""What the commands share: the arguments that most of them have, tables for people, JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ssm.commands.completion import completed_by, pool_names
from ssm.terminal import plain, say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Sequence


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Declare the pool's name as an argument."""
    completed_by(pool_names, parser.add_argument("pool", metavar="POOL", help="the pool's name"))


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(value: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(value, indent=2))


def print_json_line(value: Any) -> None:
    """Print one JSON document of several, each on a line."""
    print(json.dumps(value), flush=True)


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


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    for line in table(columns, rows):
        say(line)
