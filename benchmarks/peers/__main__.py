# SPDX-License-Identifier: Apache-2.0
"""Asks every peer every question and keeps the answers.

    python -m benchmarks.peers [--quick] [--rounds N] [--seconds S] [--only NAME,...] [--record | --output FILE]

`make bench-peers` runs it in an environment that has them all. The peers come in turn, round after round, so that a
slow minute of the machine falls on all of them; the table shows medians. What disturbed a run, and is therefore thrown
away: benchmarks/reference.py.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from benchmarks.bench import add_output, machine, note, save
from benchmarks.peers.crew import alone, rate, round_trip
from benchmarks.peers.ways import DEPTH, PEERS, NotPossibleError, Peer
from benchmarks.reference import TRIES, Runs

if TYPE_CHECKING:
    from collections.abc import Callable

PACKAGES = ("ssm-pool", "faster-fifo", "iceoryx2", "eclipse-zenoh", "posix_ipc", "pyzmq")
SIZES = (64, 1500, 1 << 20)
SMALL = 64
RATE, TIME = "messages/s", "ns"


@dataclass
class Question:
    """One column of the table."""

    name: str
    unit: str
    ask: Callable[[type[Peer], float], float]  # peer, seconds
    concerns: Callable[[type[Peer]], bool] = lambda kind: True
    answers: dict[str, Runs] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def questions() -> list[Question]:
    def lends(kind: type[Peer]) -> bool:
        return kind.lends

    def polls(kind: type[Peer]) -> bool:
        return kind.polls and kind.batch == 1

    def sleeps(kind: type[Peer]) -> bool:
        return not kind.polls and kind.batch == 1

    def single(kind: type[Peer]) -> bool:
        return kind.batch == 1

    def ask_rate(size: int, fill: bool, kind: type[Peer], seconds: float) -> float:
        return rate(kind, size, seconds, fill=fill)

    def ask_trip(size: int, kind: type[Peer], seconds: float) -> float:
        return round_trip(kind, size, seconds)

    return [
        *(Question(f"{size:,} B", RATE, partial(ask_rate, size, False)) for size in SIZES),
        # Those that copy write all anyway: their answers above hold here, too.
        *(
            Question(f"{size:,} B, all written", RATE, partial(ask_rate, size, True), lends)
            for size in SIZES[1:]
        ),
        Question("round trip, polling", TIME, partial(ask_trip, SMALL), polls),
        Question("round trip, sleeping", TIME, partial(ask_trip, SMALL), sleeps),
        Question(f"round trip of {SIZES[2]:,} B, sleeping", TIME, partial(ask_trip, SIZES[2]), sleeps),
        Question("in one process", TIME, lambda kind, seconds: alone(kind, SMALL, seconds), single),
    ]


def answer(question: Question, kind: type[Peer], seconds: float, tries: int) -> None:
    runs = question.answers.get(kind.name) or Runs()
    try:
        runs.add(lambda: question.ask(kind, seconds), tries=tries)
    except NotPossibleError as error:
        question.reasons[kind.name] = str(error)
        return
    question.answers[kind.name] = runs


def of_reference(result: dict[str, Any]) -> float:
    """One message, in turns of the reference loop of the same runs."""
    ns = 1e9 / result["median"] if result["unit"] == RATE else result["median"]
    return float(ns / result["reference_ns"])


def versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def as_document(asked: list[Question], about: dict[str, str | float]) -> dict[str, Any]:
    results = [
        {"question": q.name, "peer": peer, "unit": q.unit, **runs.as_fields()}
        for q in asked
        for peer, runs in q.answers.items()
    ]
    missing = [
        {"question": q.name, "peer": p, "reason": reason} for q in asked for p, reason in q.reasons.items()
    ]
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": about,
        "depth": DEPTH,
        "versions": versions(),
        "results": results,
        "missing": missing,
    }


def print_table(document: dict[str, Any]) -> None:
    """Each with its lowest and highest run, and how many turns of the reference loop one message takes."""
    about = " | ".join(f"{key} {value}" for key, value in document["machine"].items())
    print(f"{about} | depth {document['depth']}")
    for result in document["results"]:
        low, high = min(result["runs"]), max(result["runs"])
        figures = f"{result['median']:>14,.0f} {low:>14,.0f} {high:>14,.0f} {result['unit']:<10}"
        print(f"{result['question']:<36} {result['peer']:<38} {figures} {of_reference(result):>10,.1f} x")
    print(f"Thrown away: {sum(result['thrown_away'] for result in document['results'])} runs.")
    for each in document["missing"]:
        print(f"{each['question']:<36} {each['peer']:<30} {each['reason']}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="does it run? One short run of each, none repeated"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=0.3, help="that a run takes, about (%(default)s)")
    parser.add_argument("--only", help="peers whose names contain one of these, comma-separated")
    add_output(parser)
    args = parser.parse_args(argv)
    rounds, seconds, tries = (1, 0.001, 1) if args.quick else (args.rounds, args.seconds, TRIES)
    wanted = args.only.split(",") if args.only else [""]
    kinds = [kind for kind in PEERS if kind.is_there() and any(part in kind.name for part in wanted)]
    about, asked = machine(None), questions()
    for turn in range(rounds):
        for question in asked:
            for kind in filter(question.concerns, kinds):
                note(f"round {turn + 1} of {rounds}: {question.name}, {kind.name}")
                answer(question, kind, seconds, tries)
    note("")
    document = as_document(asked, about)
    print_table(document)
    save(document, args, "peers")
    return 0


if __name__ == "__main__":
    sys.exit(main())
