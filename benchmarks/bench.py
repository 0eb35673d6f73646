# SPDX-License-Identifier: Apache-2.0
"""How long do the calls take, in Python and in C, and how fast do packets pass from one process to another?

Each case runs several times, the cases in turn, so that a slow minute of the machine falls on all of them; the table
shows the median and the range of those runs. What each does: benchmarks/cases.py, floor.py, core.c, pairs.c, floor.c.
What disturbed a run, and is therefore thrown away: benchmarks/reference.py.

    python -m benchmarks [--quick] [--rounds N] [--packets N] [--record | --output FILE] [--python-only]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import cases, floor
from benchmarks.cases import BATCH, PATIENCE_S, PAYLOAD
from benchmarks.reference import TRIES, Runs, interpreter_build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cases import Loop

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
RESULTS = HERE / "results"  # committed; the documentation shows these
MEASURED = HERE.parent / "build" / "results"  # of this machine
NS = 1e9


@dataclass
class Case:
    """One line of the table."""

    name: str
    what: str
    language: str
    run: Callable[[int], float]  # packets -> nanoseconds per packet
    runs: list[float] = field(default_factory=list)  # of check.py
    steady: Runs = field(default_factory=Runs)  # beside the reference loop


# ---- C -----------------------------------------------------------------------------------------------


def build_core(target: str = "ssm_bench") -> Path | None:
    """Return a benchmark of the C cores, built anew where it must be."""
    cmake = shutil.which("cmake")
    if cmake is None:
        print("No cmake: the C core is not measured.", file=sys.stderr)
        return None
    generator = ["-G", "Ninja"] if shutil.which("ninja") else []
    commands = (
        [cmake, "-S", HERE, "-B", BUILD, *generator, "-DCMAKE_BUILD_TYPE=Release"],
        [cmake, "--build", BUILD, "--target", target],
    )
    for command in commands:
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"The C benchmark does not build:\n{done.stdout}{done.stderr}")
    return BUILD / target


def run_core(core: Path, case: str, packets: int, *options: str) -> float:
    name, *more = OPTIONS.get(case, (case,))
    command = [core, name, str(packets), *more, *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return float(done.stdout)


# ---- the table ---------------------------------------------------------------------------------------

PYTHON: tuple[tuple[Loop, str], ...] = (
    (cases.alloc_drop, "alloc, drop"),
    (cases.alloc_free, "alloc, free"),
    (cases.alloc_free_batch, f"alloc, free, by {BATCH}"),
    (cases.put_get, "put, get"),
    (cases.put_get_batch, f"put, get, by {BATCH}"),
    (cases.write_slice, "pkt[:8] = eight bytes"),
    (cases.exhausted, "alloc when exhausted"),
    (cases.send_get, "send, receive, release"),
    (cases.stream, "process to process"),
    (cases.stream_batch, f"process to process, by {BATCH}"),
    (cases.stream_written, "process to process, written"),
    (cases.stream_large, "the same, 1 MiB each"),
    (cases.round_trip_polling, "round trip, polling"),
    (cases.round_trip_blocking, "round trip, blocking"),
    (cases.round_trip_asleep, "round trip, both asleep"),
    (cases.reference, "reference loop"),
    (floor.floor_alloc_drop, "CPython: object made, dropped"),
    (floor.floor_alloc_free, "CPython: the same, one call"),
    (floor.floor_put_get, "CPython: deque"),
    (floor.floor_write_slice, "CPython: bytearray[:8] ="),
    (floor.floor_exhausted, "CPython: exception caught"),
)
C = {
    "alloc_free": "alloc, free",
    "alloc_free_batch": "alloc, free, by 32",
    "alloc_free_two": "alloc, free, 2 processes",
    "put_get": "put, get",
    "put_get_batch": "put, get, by 32",
    "hand_over": "hand over 8 B",
    "hand_over_batch": "hand over 8 B, by 32",
    "hand_over_1500": "hand over 1,500 B",
    "hand_over_1500_batch": "hand over 1,500 B, by 32",
    "ring_one": "ring, one to one",
    "ring_one_batch": "ring, one to one, by 32",
    "ring_many": "ring, many to many",
    "ring_many_batch": "ring, many to many, by 32",
    "stream": "process to process",
    "stream_batch": "process to process, by 32",
    "round_trip_spin": "round trip, polling",
    "round_trip_block": "round trip, blocking",
    "round_trip_asleep": "round trip, both asleep",
    "floor_loop": "reference loop",
    "floor_malloc": "malloc, free",
    "floor_malloc_batch": "malloc, free, by 32",
    "floor_ring": "bare ring",
    "floor_round_trip_spin": "bare words, polling",
    "floor_round_trip_futex": "bare futex",
    "floor_round_trip_futex_asleep": "bare futex, both asleep",
}
OPTIONS = {"alloc_free_two": ("alloc_free_workers", "workers=2", "shards=1")}


def all_cases(core: Path | None) -> list[Case]:
    table = [Case(loop.__name__, what, "Python", partial(cases.timed, loop)) for loop, what in PYTHON]
    if core is not None:
        table += [Case(name, what, "C", partial(run_core, core, name)) for name, what in C.items()]
    return table


def note(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def print_table(table: list[Case]) -> None:
    print(f"{'':<37} {'ns per packet':>13}  {'from':>8} {'to':>8}  {'packets/s':>12}")
    for case in table:
        values = case.steady.values
        median, low, high = statistics.median(values), min(values), max(values)
        label = f"{case.what:<30} {case.language:<6}"
        print(f"{label} {median:>13,.1f}  {low:>8,.1f} {high:>8,.1f}  {NS / median:>12,.0f}")


def machine(core: Path | None) -> dict[str, str | float]:
    """Return what the numbers depend on."""
    cpuinfo = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    model = re.search(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    compiler = "not measured"
    if core is not None:
        compiler = subprocess.run([core, "about"], check=True, capture_output=True, text=True).stdout.strip()
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 1),  # before the first run: what else the machine was doing
        "kernel": platform.release(),
        "libc": "-".join(platform.libc_ver()),
        "compiler": compiler,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "python_build": interpreter_build(),
    }


def as_document(table: list[Case], about: dict[str, str | float], packets: int) -> dict[str, object]:
    results = []
    for case in table:
        about_case = {
            "name": case.name,
            "what": case.what,
            "language": case.language,
            "unit": "ns per packet",
        }
        results.append(about_case | case.steady.as_fields())
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"when": when, "machine": about, "packets": packets, "payload": PAYLOAD, "results": results}


def measured_on(document: dict[str, Any], command: str) -> str:
    """Return the line above a table: what its figures depend on, and what measures them."""
    about = document["machine"]
    return (
        f"Measured {document['when'][:16]} on {about['cpu']}, {about['cores']} cores, load {about['load']}, Linux "
        f"{about['kernel']}, {about['python']} ({about['python_build']}): `{command}`."
    )


def rounds_within(rounds: int, limit_s: float) -> Iterator[int]:
    """Count rounds, as many as there is time for, but one at least."""
    began, longest_s = time.monotonic(), 0.0
    for turn in range(rounds):
        start = time.monotonic()
        if turn and start - began + longest_s > limit_s:
            return
        yield turn
        longest_s = max(longest_s, time.monotonic() - start)


def results_file(folder: Path, about: dict[str, str | float]) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", str(about["cpu"]).lower()).strip("-")
    return folder / f"{datetime.now(UTC):%Y-%m-%d}-{slug}.json"


def add_output(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--output", type=Path, help="where the JSON goes (a new file under build/results)")
    where.add_argument(
        "--record", action="store_true", help="into benchmarks/results, which is committed, not build/results"
    )


def save(document: dict[str, Any], args: argparse.Namespace, question: str = "") -> None:
    """Write the JSON where `args` say; not among the committed results, which the docs show, unless asked to."""
    folder = (RESULTS if args.record else MEASURED) / question
    write(document, args.output or results_file(folder, document["machine"]))


def write(document: dict[str, Any], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"written to {os.path.relpath(output)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case (%(default)s)")
    parser.add_argument("--packets", type=int, default=500_000, help="packets per run (%(default)s)")
    parser.add_argument("--python-only", action="store_true", help="do not build and measure the C core")
    parser.add_argument(
        "--quick", action="store_true", help="does it run? One short run of each, none repeated"
    )
    add_output(parser)
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds, args.packets = 1, BATCH
    core = None if args.python_only else build_core()
    about = machine(core)
    packets = max(args.packets // BATCH, 1) * BATCH
    table = all_cases(core)
    for turn in range(args.rounds):
        for case in table:
            note(f"round {turn + 1} of {args.rounds}: {case.language} {case.what}")
            case.steady.add(partial(case.run, packets), tries=1 if args.quick else TRIES)
    note("")

    print(" | ".join(f"{key} {value}" for key, value in about.items()))
    print_table(table)
    save(as_document(table, about, packets), args)
    return 0


if __name__ == "__main__":
    sys.exit(main())
