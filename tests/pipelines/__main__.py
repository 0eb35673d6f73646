# SPDX-License-Identifier: Apache-2.0
"""Pipelines that are killed and interrupted at random moments, with books of their own.

usage: python -m tests.pipelines [--seconds 600] [--interrupts 50] [--seed N] [--start forkserver] [--only COLUMN]

First the table: for each column a pipeline whose source and stages are killed (kill.py). Then Ctrl-C, again and again,
at a moment between start-up and the end (interrupt.py). Prints markdown; the seed repeats the choices, not the times.
The exit status is 1 if there was a fault.
"""

from __future__ import annotations

import argparse
import faulthandler
import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from tests.pipelines import interrupt, kill
from tests.pipelines.columns import COLUMNS

if TYPE_CHECKING:
    from tests.pipelines.interrupt import Interrupts
    from tests.pipelines.kill import Trial

HANG_S = 300.0  # longer than the seconds of a column: something hangs
HEADER = (
    "| column | seconds | packets | sources killed | stages killed | delivered again | lost | twice | torn | faults |\n"
    "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
)


def row(trial: Trial) -> str:
    repeated = ", ".join(COLUMNS[trial.column].repeated)
    twice = f"{trial.count('twice'):,}" + (f" ({repeated})" if trial.count("twice") and repeated else "")
    cells = (
        f"{trial.seconds:,.0f} | {trial.sent:,} | {trial.kills['source']:,} | {trial.stages_killed:,} | "
        f"{trial.redelivered:,} | {trial.count('lost'):,} | {twice} | {trial.count('torn'):,} | {len(trial.faults)}"
    )
    return f"| {trial.column} | {cells} |"


def sentence(result: Interrupts) -> str:
    outcomes = ", ".join(f"{count} {what}" for what, count in sorted(result.outcomes.items()))
    return (
        f"Ctrl-C: {result.hits} times while a pipeline ran ({outcomes}), {result.sent:,} packets, "
        f"{len(result.faults)} faults"
    )


def where() -> str:
    """Return date and commit."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=7"]
    commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown"
    return f"{commit} on {datetime.now(UTC):%Y-%m-%d}"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.pipelines", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="for each column (%(default)g)")
    parser.add_argument("--interrupts", type=int, default=50, help="runs that get Ctrl-C (%(default)s)")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    parser.add_argument("--start", choices=["forkserver", "spawn", "fork"], default="forkserver")
    parser.add_argument("--only", choices=COLUMNS, action="append", help="this column; may be repeated")
    args = parser.parse_args(argv)
    print(f"{where()}, seed {args.seed}, {args.start}\n\n{HEADER}", flush=True)
    faults: list[str] = []
    for column in (args.only or COLUMNS) if args.seconds else ():
        faulthandler.dump_traceback_later(args.seconds + HANG_S, exit=True)
        trial = kill.trial(column, args.seconds, args.seed, args.start)
        faulthandler.cancel_dump_traceback_later()
        print(row(trial), flush=True)
        faults += [f"{column}: {fault}" for fault in trial.faults]
    if args.interrupts:
        result = interrupt.trials(args.interrupts, args.seed, args.start)
        print(f"\n{sentence(result)}")
        faults += result.faults
    for fault in faults:
        print(f"\nFAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
