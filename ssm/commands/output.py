# SPDX-License-Identifier: Apache-2.0
"""What the commands share: the arguments that most of them have, tables for people, JSON for programs."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from ssm.commands.completion import completed_by, pool_names
from ssm.terminal import say, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


def add_pool(parser: argparse.ArgumentParser) -> None:
    """Declare the pool's name as an argument."""
    completed_by(pool_names, parser.add_argument("pool", metavar="POOL", help="the pool's name"))


def add_json(parser: argparse.ArgumentParser) -> None:
    """Declare ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def print_json(value: Any, default: Callable[[Any], str] | None = None) -> None:
    """Print one JSON document; `default` makes a text of what JSON does not know."""
    print(json.dumps(value, indent=2, default=default))


def print_json_line(value: Any) -> None:
    """Print one JSON document of several, each on a line."""
    print(json.dumps(value), flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    for line in table(columns, rows):
        say(line)


def interval_s(text: str) -> float:
    """Return an interval that was typed, in seconds. ArgumentTypeError: it is none."""
    seconds = float(text)
    if not 0.01 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no interval: 0.01 seconds at least")
    return seconds
