# SPDX-License-Identifier: Apache-2.0
"""Two questions: subscribers that come, go and are killed all the time; and video to several consumers.

    python -m benchmarks.topics [--quick] [--rounds N] [--seconds S] [--only NAME,...] [--record | --output FILE]

`make bench-topics` runs it where iceoryx2 is installed; elsewhere ours run alone, and multiprocessing's. The ways come
in turn, round after round, so that a slow minute of the machine falls on all of them; the tables show medians, sums of
what was missed, and the longest pause. Published and delivered are packets a second, delivered those of all subscribers
together. Missed are numbers that a subscriber did not get between the first and the last that it got; what waited for
one that was killed is not in them. Left behind are, of ours, blocks and rings; of iceoryx2, files in /dev/shm. What
ours may not do ends the program with 1; what others do is in the table.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.bench import add_output, machine, measured_on, note, rounds_within, save
from benchmarks.peers.__main__ import versions
from benchmarks.topics.crowd import Outcome, run
from benchmarks.topics.ways import CHURN, VIDEO, Way

if TYPE_CHECKING:
    from collections.abc import Sequence

SUBSCRIBERS, CONSUMERS = 20, 4
SHAPE = (1080, 1920, 3)
LIMIT_S = 170  # for all rounds: on a slow machine there are fewer
CHANGE_S = 0.1  # one goes, another comes


@dataclass(frozen=True)
class Question:
    """One table."""

    name: str
    kinds: Sequence[type[Way]]
    size: int
    depth: int  # packets that may wait for a subscriber
    subscribers: int
    change_s: float  # between two that go; 0: nobody does
    video: bool = False

    def answer(self, kind: type[Way], seconds: float) -> Outcome:
        frame = picture() if self.video else None
        return run(kind, self.size, self.depth, self.subscribers, frame, seconds, self.change_s)


def picture() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, SHAPE, dtype="u1")


def questions(quick: bool) -> list[Question]:
    """With `quick` there are fewer subscribers, for most of the time is their start, and more haste."""
    count, change_s = (4, CHANGE_S / 2) if quick else (SUBSCRIBERS, CHANGE_S)
    come_and_go = f"{count} subscribers that come, go and are killed"
    height, width, colours = SHAPE
    return [
        Question(f"{come_and_go}, 64 B", CHURN, 64, 64, count, change_s),
        Question(f"{come_and_go}, 1 MiB", CHURN, 1 << 20, 8, count, change_s),
        Question(
            f"Video to {CONSUMERS} consumers, {width} x {height} RGB, all written",
            VIDEO, height * width * colours, 8, CONSUMERS, 0, video=True,
        ),
    ]  # fmt: skip


def wrong_with(question: Question, kind: type[Way], outcomes: list[Outcome]) -> list[str]:
    """What ends the program with 1: what ours may not do, and runs that say nothing."""
    faults = [fault for each in outcomes for fault in each.faults if kind.ours]
    faults += [f"{each.remains} blocks and rings are left" for each in outcomes if kind.ours and each.remains]
    if not any(each.delivered for each in outcomes):
        faults.append("nothing was delivered")
    if question.change_s and not all(each.killed and each.left for each in outcomes):
        faults.append("nobody was killed, or nobody left")
    return [f"{question.name}: {kind.name}: {fault}" for fault in faults]


def measure(quick: bool, rounds: int, seconds: float, only: str | None) -> dict[str, Any]:
    parts = only.split(",") if only else [""]
    found: dict[tuple[Question, type[Way]], list[Outcome]] = {
        (question, kind): []
        for question in questions(quick)
        for kind in question.kinds
        if kind.is_there() and any(part in kind.name for part in parts)
    }
    for turn in rounds_within(rounds, LIMIT_S):
        for (question, kind), outcomes in found.items():
            note(f"round {turn + 1} of {rounds}: {question.name}, {kind.name}")
            outcomes.append(question.answer(kind, seconds))
    note("")
    results, wrong = [], []
    for (question, kind), outcomes in found.items():
        wrong += wrong_with(question, kind, outcomes)
        about = {"question": question.name, "with": kind.name, "depth": question.depth}
        results.append({**about, **figures(outcomes)})
    return {"results": results, "wrong": wrong}


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    def median(name: str) -> float:
        return statistics.median(getattr(each, name) for each in outcomes)

    def total(name: str) -> int:
        return sum(getattr(each, name) for each in outcomes)

    return {
        **{name: median(name) for name in ("published", "delivered", "cpu_us")},
        **{name: total(name) for name in ("received", "missed", "killed", "left", "remains")},
        "pause_ms": max(each.pause_ms for each in outcomes),
        "faults": sorted({fault for each in outcomes for fault in each.faults}),
        "runs": [asdict(each) for each in outcomes],
    }


def markdown(document: dict[str, Any]) -> str:
    lines = [measured_on(document, "make bench-topics"), f"Versions: {document['versions']}."]
    for name in dict.fromkeys(result["question"] for result in document["results"]):
        rows = [result for result in document["results"] if result["question"] == name]
        lines += ["", f"{name}; {rows[0]['depth']} may wait for each; {len(rows[0]['runs'])} rounds:", ""]
        killed = any(row["killed"] for row in rows)
        heads = ["published/s", "delivered/s", "missed", "longest pause"]
        heads += ["killed", "left by themselves", "left behind"] if killed else ["processor time a frame"]
        lines += [f"| | {' | '.join([*heads, 'what went wrong'])} |", f"|---|{'--:|' * len(heads)}---|"]
        lines += [f"| {' | '.join(cells(row, killed))} |" for row in rows]
    return "\n".join(lines)


def cells(row: dict[str, Any], killed: bool) -> list[str]:
    of_all = row["missed"] / max(1, row["missed"] + row["received"])
    missed = f"{row['missed']:,} ({of_all:.1%})" if row["missed"] else "0"
    found = [row["with"], f"{row['published']:,.0f}", f"{row['delivered']:,.0f}", missed]
    found.append(f"{row['pause_ms']:,.0f} ms")
    if killed:
        found += [f"{row[name]:,}" for name in ("killed", "left", "remains")]
    else:
        found.append(f"{row['cpu_us']:,.0f} us")
    return [*found, "; ".join(row["faults"])]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--quick", action="store_true", help="does it run? One short run of each, fewer subscribers"
    )
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--seconds", type=float, default=1, help="that a run takes, about (%(default)s)")
    parser.add_argument("--only", help="ways whose names contain one of these, comma-separated")
    add_output(parser)
    args = parser.parse_args(argv)
    rounds, seconds = (1, 0.1) if args.quick else (args.rounds, args.seconds)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(None),
        "versions": ", ".join(f"{name} {versions()[name]}" for name in ("ssm-pool", "iceoryx2")),
        **measure(args.quick, rounds, seconds, args.only),
    }
    print(markdown(document))
    save(document, args, "topics")
    for complaint in document["wrong"]:
        print(complaint, file=sys.stderr)
    return 1 if document["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
