# SPDX-License-Identifier: Apache-2.0
"""Did anything become slower than the committed results say?

    python -m benchmarks.check [--rounds N] [--packets N] [--against FILE]

Compares no times but ratios: of a case to a reference that the same run measures and that none of our code is in,
here and in the results. Best run to best run; but of a reference in which two processes meet the middle one, since
its best one is luck. A case that seems to have lost over 15 % is measured again, twice as long, before it counts as
lost. Results of another processor, compiler or Python say little about this one: then the ratios are printed and
nothing fails. Not part of `make test`: a busy machine is not the code's fault.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.bench import RESULTS, Case, all_cases, build_core, machine, note

TOLERANCE = 0.15
TRIES = 3
# Reference -> the cases that are compared with it.
REFERENCES = {
    ("Python", "reference"): ("alloc_drop", "alloc_free", "alloc_free_batch", "put_get", "put_get_batch", "write_slice",
                              "exhausted", "send_get"),
    ("C", "floor_loop"): ("alloc_free", "alloc_free_batch", "put_get", "put_get_batch"),
    ("C", "floor_round_trip_spin"): ("hand_over", "hand_over_batch", "ring_one", "ring_one_batch", "ring_many_batch",
                                     "round_trip_spin"),
    ("C", "floor_round_trip_futex"): ("round_trip_block",),
}  # fmt: skip
MEETING = {("C", "floor_round_trip_spin"), ("C", "floor_round_trip_futex")}
SAME = ("cpu", "compiler", "python")

Key = tuple[str, str]  # language, name


def newest(about: dict[str, Any], folder: Path = RESULTS) -> Path | None:
    """Return the latest results, of this processor if there are any."""
    files = sorted(folder.glob("*.json"))
    same = [f for f in files if json.loads(f.read_text(encoding="utf-8"))["machine"]["cpu"] == about["cpu"]]
    return (same or files or [None])[-1]


def ratio(runs: dict[Key, list[float]], case: Key, reference: Key) -> float:
    typical = median if reference in MEETING else min
    return min(runs[case]) / typical(runs[reference])


def pairs() -> list[tuple[Key, Key]]:
    return [((reference[0], name), reference) for reference, names in REFERENCES.items() for name in names]


def measure(table: dict[Key, Case], wanted: set[Key], rounds: int, packets: int) -> None:
    for turn in range(rounds):
        for key in sorted(wanted):
            note(f"round {turn + 1} of {rounds}: {' '.join(key)}")
            table[key].runs.append(table[key].run(packets))
    note("")


def losses(table: dict[Key, Case], before: dict[Key, list[float]]) -> list[tuple[Key, Key]]:
    now = {key: case.runs for key, case in table.items() if case.runs}
    return [
        (case, reference)
        for case, reference in pairs()
        if case in now and ratio(now, case, reference) > ratio(before, case, reference) * (1 + TOLERANCE)
    ]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (%(default)s)")
    parser.add_argument("--packets", type=int, default=200_000, help="packets per run (%(default)s)")
    parser.add_argument("--against", type=Path, help="results to compare with (the newest committed ones)")
    args = parser.parse_args(argv)
    core = build_core()
    about = machine(core)
    against = args.against or newest(about)
    if core is None or against is None:
        sys.exit("There is nothing to compare: no cmake, or no results (make bench-docs).")
    document = json.loads(against.read_text(encoding="utf-8"))
    before = {(r["language"], r["name"]): r["runs"] for r in document["results"]}
    table = {(case.language, case.name): case for case in all_cases(core)}
    wanted = {key for pair in pairs() for key in pair}
    if missing := sorted(wanted - before.keys()):
        sys.exit(f"{against} has no {missing}: it is older than these cases (make bench-docs).")
    measure(table, wanted, args.rounds, args.packets)
    for attempt in range(1, TRIES):
        if lost := losses(table, before):
            measure(table, {key for pair in lost for key in pair}, args.rounds * 2**attempt, args.packets)
    lost = losses(table, before)
    now = {key: case.runs for key, case in table.items()}
    for case, reference in pairs():
        then, this = ratio(before, case, reference), ratio(now, case, reference)
        label = f"{' '.join(case):<30} {this:>9.3f} of {reference[1]:<24} {then:>9.3f} before {this / then - 1:>+7.1%}"
        print(label, "SLOWER" if (case, reference) in lost else "")
    there = document["machine"]
    differs = [f"{key}: {there[key]}, here {about[key]}" for key in SAME if there[key] != about[key]]
    if differs:
        print(f"{against.name} is of another machine; nothing fails.", *differs, sep="\n  ")
        return 0
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
