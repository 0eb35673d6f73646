# SPDX-License-Identifier: Apache-2.0
"""Fills the tables of docs/performance.md and docs/goals.md from the newest recorded results.

    python -m benchmarks.performance

Measures nothing: `make bench-docs` measures everything and then calls this. What the goals are, and what others were
measured to take, is data here.
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks import calls, in_place, pipelines
from benchmarks.bench import HERE, RESULTS
from benchmarks.topics import __main__ as topics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DOCS = HERE.parent / "docs"
PAGES = {
    DOCS / "performance.md": (
        "c",
        "python",
        "peers",
        "topics",
        "calls",
        "in_place",
        "pipelines",
        "growth",
        "profile",
    ),
    DOCS / "goals.md": ("c-goals", "python-goals"),
}
PROFILE = RESULTS / "profile" / "callgrind.json"
PEERS_PICTURES = """\
![Messages per second of each peer](images/peers-rate.svg)

![Round trips of each peer](images/peers-round-trip.svg)

"""
GROWTH_PICTURE = "![Nanoseconds against how many there are](images/growth.svg)\n\n"
NOT_YET = "Not measured yet: `make bench-docs`.\n"


class Row(NamedTuple):
    """One figure with its goal. `given`: measured elsewhere, on the same kind of machine. `limit`: what ours stays
    below, in ns, or where `of_floor`, as a multiple of the floor measured in the same run.
    """

    what: str
    given: str
    result: str
    limit: float
    goal: str
    floor: str = ""  # a case of this run
    of_floor: bool = False
    show: str = "ns"
    times: float = 1  # packets in one figure


C = (
    Row("alloc + free", "private cache over a list 1.6; DPDK mempool 5.0; mimalloc 9; locked list 9.4; Boost 125; "
        "Ouroboros 330 ns", "alloc_free", 5, "<= 5 ns", "floor_malloc"),
    Row("alloc + free in bulk of 32, per block", "DPDK 0.5 ns", "alloc_free_batch", 1, "<= 1 ns", "floor_malloc_batch"),
    Row("two processes, alloc + free, same shard", "private caches 1, Ouroboros 7,500 ns", "alloc_free_two", 15,
        "<= 15 ns"),
    Row("hand-off: alloc, write 8 B, ring, read, free", "no holder sets 16, Ouroboros 2,300-4,400 ns", "hand_over", 60,
        "<= 60 ns", "floor_ring"),
    Row("the same in batches of 32", "no holder sets 6 ns", "hand_over_batch", 20, "<= 20 ns", "floor_ring"),
    Row("hand-off, 1,500 B copied in and out", "205 ns", "hand_over_1500", 267, "<= 1.3 x 205 ns", "floor_ring"),
    Row("the same in batches of 32", "150 ns", "hand_over_1500_batch", 195, "<= 1.3 x 150 ns", "floor_ring"),
    Row("ring alone, one to one", "bare 6, rigtorp 8.6, DPDK 9.9 ns", "ring_one", 8, "<= 8 ns", "floor_ring"),
    Row("the same in batches of 32", "DPDK 1.6, bare 1.9 ns", "ring_one_batch", 2, "<= 2 ns", "floor_ring"),
    Row("ring alone, many to many", "DPDK 60 ns", "ring_many", 60, "<= 60 ns", "floor_ring"),
    Row("the same in batches of 32", "DPDK 2.1 ns", "ring_many_batch", 4, "<= 4 ns", "floor_ring"),
    Row("round trip, spinning", "bare 168, Ouroboros 300 ns", "round_trip_spin", 400, "<= 400 ns",
        "floor_round_trip_spin"),
    Row("round trip, blocking", "bare futex 5-25, Ouroboros 39 us", "round_trip_block", 1.3, "<= 1.3 x the bare futex",
        "floor_round_trip_futex", of_floor=True, show="us"),
    Row("the same, either side asleep for a millisecond", "", "round_trip_asleep", 1.3, "<= 1.3 x the bare futex",
        "floor_round_trip_futex_asleep", of_floor=True, show="us"),
)  # fmt: skip
PYTHON = (
    Row("alloc and drop", "25 ns", "alloc_drop", 40, "<= 40 ns", "floor_alloc_drop"),
    Row("alloc, free()", "31 ns", "alloc_free", 50, "<= 50 ns", "floor_alloc_free"),
    Row("put + get in one process", "33 ns", "put_get", 70, "<= 70 ns", "floor_put_get"),
    Row('pkt[:8] = b"..."', "26 ns", "write_slice", 35, "<= 35 ns", "floor_write_slice"),
    Row("alloc_many(64) + free", "171 ns", "alloc_free_batch", 350, "<= 350 ns", times=64),
    Row("an exhausted alloc, caught", "104 ns", "exhausted", 160, "<= 160 ns", "floor_exhausted"),
    Row("process to process, one packet per call, first and last byte touched", "hand-made ring 4.3, pyzmq 1.07, "
        "iceoryx2 0.67, faster-fifo 0.17-0.8, multiprocessing.Queue 0.14 M/s", "stream", 200, ">= 5 M/s", show="M/s"),
    Row("the same in batches of 64", "", "stream_batch", 40, ">= 25 M/s", show="M/s"),
    Row("producer writes all 1,500 B", "iceoryx2 0.39 M/s", "stream_written", 400, ">= 2.5 M/s", show="M/s"),
    Row("producer writes all of 1 MiB", "iceoryx2 35 k/s", "stream_large", 26_316, ">= 38 k/s", show="k/s"),
    Row("round trip, polling", "hand-made ring 0.9, iceoryx2 3.9, faster-fifo 11, Pipe 13, pyzmq 36 us",
        "round_trip_polling", 1500, "p50 <= 1.5 us", show="us"),
    Row("round trip, blocking", "posix_ipc 45, Pipe 53-59, iceoryx2 62, faster-fifo 65-92, pyzmq 114, Queue 121 us",
        "round_trip_blocking", 15_000, "p50 <= 15 us", show="us"),
    Row("the same without the short spin: either side asleep for a millisecond", "", "round_trip_asleep", 40_000,
        "p50 <= 40 us", show="us"),
    Row("send + receive + release in one process", "posix_ipc 2.2, iceoryx2 2.5, Pipe 3.5, faster-fifo 5.7-9 us",
        "send_get", 200, "<= 0.2 us", show="us"),
)  # fmt: skip


def newest(folder: Path) -> dict[str, Any] | None:
    documents = [json.loads(file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return max(documents, key=lambda d: d["when"], default=None)


def measured_on(document: dict[str, Any], command: str) -> str:
    about = document["machine"]
    compiler = "" if about["compiler"] == "not measured" else f"{about['compiler']}, "
    build = f" ({about['python_build']})" if "python_build" in about else ""
    depth = f", at most {document['depth']} messages under way" if "depth" in document else ""
    return (
        f"Measured {document['when'][:10]} on {about['cpu']}, {about['cores']} cores, load {about['load']}, Linux "
        f"{about['kernel']}, {about['libc']},\n{compiler}{about['python']}{build}: `{command}`{depth}.\n"
    )


def in_words(ns: float, show: str) -> str:
    value, digits = {"ns": (ns, 1), "us": (ns / 1e3, 2), "M/s": (1e3 / ns, 2), "k/s": (1e6 / ns, 1)}[show]
    return f"{value:,.{digits if value < 100 else 0}f} {show}"


class Figures(NamedTuple):
    """A row with what was measured, in words."""

    row: Row
    bare: str
    ours: str
    fastest: str
    slowest: str
    missed: bool


def figures(document: dict[str, Any], rows: tuple[Row, ...], language: str) -> Iterator[Figures]:
    runs = {r["name"]: r["runs"] for r in document["results"] if r["language"] == language}
    for row in rows:
        floor = statistics.median(runs[row.floor]) if row.floor else 0
        ours = [ns * row.times for ns in runs[row.result]]
        median = statistics.median(ours)
        yield Figures(
            row,
            in_words(floor, row.show) if row.floor else "",
            *(in_words(ns, row.show) for ns in (median, min(ours), max(ours))),
            missed=median > row.limit * (floor if row.of_floor else 1),
        )


def measured(document: dict[str, Any], rows: tuple[Row, ...], language: str) -> str:
    lines = ["| | elsewhere | bare, same run | ours | from | to |", "|---|---|--:|--:|--:|--:|"]
    lines += [
        f"| {each.row.what} | {each.row.given} | {each.bare} | {each.ours} | {each.fastest} | {each.slowest} |"
        for each in figures(document, rows, language)
    ]
    return "\n".join(lines) + "\n"


def against_goals(document: dict[str, Any], rows: tuple[Row, ...], language: str) -> str:
    lines = ["| | goal | ours | from | to | |", "|---|--:|--:|--:|--:|---|"]
    lines += [
        f"| {each.row.what} | {each.row.goal} | {each.ours} | {each.fastest} | {each.slowest} "
        f"| {'**missed**' * each.missed} |"
        for each in figures(document, rows, language)
    ]
    return "\n".join(lines) + "\n"


def answered(result: dict[str, Any]) -> str:
    """A figure, and what it is in turns of the reference loop of the same runs."""
    median, is_rate = result["median"], result["unit"] == "messages/s"
    text = f"{median:,.0f}/s" if is_rate else in_words(median, "us")
    if "reference_ns" not in result:
        return text
    turns = (1e9 / median if is_rate else median) / result["reference_ns"]
    return f"{text} ({turns:,.{1 if turns < 100 else 0}f})"


def peers_table(document: dict[str, Any]) -> str:
    questions = list(dict.fromkeys(r["question"] for r in document["results"]))
    peers = list(dict.fromkeys(r["peer"] for r in document["results"]))
    cell = {(r["question"], r["peer"]): r for r in document["results"]}
    lines = ["| | " + " | ".join(questions) + " |", "|---" + "|--:" * len(questions) + "|"]
    for peer in peers:
        # Who copies writes all of it either way.
        answers = [
            cell.get((q, peer)) or cell.get((q.removesuffix(", all written"), peer)) for q in questions
        ]
        cells = [answered(each) if each else "" for each in answers]
        lines.append(f"| {peer} | {' | '.join(cells)} |")
    packages = ", ".join(f"{name} {version}" for name, version in document["versions"].items())
    lines += ["", f"With {packages}."]
    if thrown := [r["thrown_away"] for r in document["results"] if "thrown_away" in r]:
        unsteady = sum(r["unsteady"] for r in document["results"])
        lines += [
            "In brackets: turns of a loop of the interpreter's own that one message takes, in the same runs. Thrown "
            f"away, since that loop's time moved: {sum(thrown)} runs; {unsteady} of those shown were no steadier."
        ]
    lines += [f"- {m['peer']}, {m['question']}: {m['reason']}" for m in document["missing"]]
    return "\n".join(lines) + "\n"


def growth_table(document: dict[str, Any]) -> str:
    grouped: dict[tuple[str, str, str], dict[int, float]] = {}
    for r in document["results"]:
        grouped.setdefault((r["of"], r["what"], r["unit"]), {})[r["at"]] = r["median"]
    lines = ["| more | what | how many: how long |", "|---|---|---|"]
    for (of, what, unit), figures in grouped.items():
        shown = ", ".join(
            f"{at:,}: **{value:,.{1 if value < 100 else 0}f}**" for at, value in figures.items()
        )
        lines.append(f"| {of} | {what} | {shown} {unit} |")
    return "\n".join(lines) + "\n"


def profile_table(document: dict[str, Any]) -> str:
    lines = [f"By {document['compiler']}.\n", "| | instructions per packet | of these in |", "|---|--:|---|"]
    for name, operation in document["operations"].items():
        functions = ", ".join(
            f"{function} {count:,.0f}" for function, count in operation["functions"].items()
        )
        lines.append(f"| {name} | {operation['instructions']:,.0f} | {re.sub(r'@@[^ ,]*', '', functions)} |")
    return "\n".join(lines) + "\n"


# Folder of results, and name of the section -> what prints its tables
PRINTED: dict[str, Callable[[dict[str, Any]], str]] = {
    "topics": topics.markdown,
    "calls": calls.markdown,
    "in_place": in_place.markdown,
    "pipelines": pipelines.markdown,
}


def printed(name: str) -> str:
    document = newest(RESULTS / name)
    return f"{PRINTED[name](document)}\n" if document else NOT_YET


def sections() -> dict[str, str]:
    """Name -> what stands between its marks."""
    ours, peers, growth = newest(RESULTS), newest(RESULTS / "peers"), newest(RESULTS / "growth")
    profile = json.loads(PROFILE.read_text(encoding="utf-8")) if PROFILE.exists() else None
    return {
        "c": f"{measured_on(ours, 'make bench')}\n{measured(ours, C, 'C')}" if ours else NOT_YET,
        "python": measured(ours, PYTHON, "Python") if ours else NOT_YET,
        "c-goals": f"{measured_on(ours, 'make bench')}\n{against_goals(ours, C, 'C')}" if ours else NOT_YET,
        "python-goals": against_goals(ours, PYTHON, "Python") if ours else NOT_YET,
        "peers": f"{measured_on(peers, 'make bench-peers')}\n{PEERS_PICTURES}{peers_table(peers)}"
        if peers
        else NOT_YET,
        "growth": f"{measured_on(growth, 'make bench')}\n{GROWTH_PICTURE}{growth_table(growth)}"
        if growth
        else NOT_YET,
        "profile": profile_table(profile) if profile else NOT_YET,
        **{name: printed(name) for name in PRINTED},
    }


def filled(page: Path) -> str:
    """Return the text of a page with its tables as they are now."""
    text, now = page.read_text(encoding="utf-8"), sections()
    for name in PAGES[page]:
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, found, rest = text.partition(begin)
        _, found_end, after = rest.partition(end)
        if not (found and found_end):
            sys.exit(f"{page} has no place for {name}: {begin}{end}")
        text = f"{before}{begin}{now[name]}{end}{after}"
    return text


def main() -> int:
    for page in PAGES:
        page.write_text(filled(page), encoding="utf-8")
        print(f"filled {page.relative_to(HERE.parent)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
