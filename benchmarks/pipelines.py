# SPDX-License-Identifier: Apache-2.0
"""What a pipeline costs beyond raw calls of its rings, and how it compares with pools of processes.

    python -m benchmarks.pipelines [--rounds N] [--quick] [--record | --output FILE]

Two questions. First, in one process: packets through a stage that does nothing, beside a loop of get and put. Second:
three tasks (pools.py) by a pipeline, multiprocessing.Pool and concurrent.futures, and by mpire and joblib where they
are installed, with the lines of code of each program. Start and end of the processes count. All come in turn, round
after round; the table shows medians, the best, and how many times as fast ours is.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssm
from benchmarks import pools
from benchmarks.bench import add_output, machine, measured_on, note, save
from ssm.pipeline import board
from ssm.pipeline.declared import RingSpec, StageSpec
from ssm.pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable

PACKETS = 1000  # of the first question: all are in the processor's cache
ROUND_TRIPS = 50
BATCH = 64


# ---- a stage that does nothing ------------------------------------------------------------------------------


def same(given: Any) -> Any:
    return given


def raw_singly(source: ssm.Ring, target: ssm.Ring) -> None:
    get, put = source.get_nowait, target.put
    while True:
        try:
            packet = get()
        except ssm.RingShutDown:
            return
        put(packet)


def raw_batches(source: ssm.Ring, target: ssm.Ring) -> None:
    while True:
        try:
            packets = source.get_many(BATCH)
        except ssm.RingShutDown:
            return
        target.put_many(packets)


def stage(pool: ssm.Pool, batch: int) -> Callable[[], None]:
    """Return what is measured: a worker does not open its rings for each packet."""
    rings = [RingSpec(name, None, None, None, False, True, "block") for name in ("source", "target")]
    spec = StageSpec("same", "stage", same, (rings[0],), (rings[1],), batch=batch)
    words = memoryview(bytearray(8 * board.size(1))).cast("Q")
    worker = Worker(
        spec,
        0,
        pool,
        pool.ring("dead", capacity=1),
        words[: board.WORDS],
        words[board.WORDS :],
        words[:0],
        lambda *_: None,
    )
    worker.begin()
    return worker.consume


def overhead(rounds: int, trips: int) -> dict[str, list[float]]:
    """Nanoseconds for each packet, by what carries it."""
    name = f"ssm-bench-pipelines-{os.getpid()}"
    taken: dict[str, list[float]] = {}
    with ssm.Pool.create(name, classes={512: PACKETS + 24}, headroom=0, tailroom=0, ephemeral=True) as pool:
        source, target = (
            pool.ring(each, capacity=1024, redeliver=True, peers=False) for each in ("source", "target")
        )
        target.put_many(pool.alloc_many(PACKETS, 64))
        ways: dict[str, Callable[[], Callable[[], None]]] = {
            "raw, singly": lambda: partial(raw_singly, source, target),
            "stage, singly": lambda: stage(pool, 0),
            f"raw, batches of {BATCH}": lambda: partial(raw_batches, source, target),
            f"stage, batches of {BATCH}": lambda: stage(pool, BATCH),
        }
        for _ in range(rounds * trips):
            for what, way in ways.items():
                taken.setdefault(what, []).append(once(source, target, way()))
    return taken


def once(source: ssm.Ring, target: ssm.Ring, way: Callable[[], None]) -> float:
    source.acl = ssm.Acl.RDWR
    while target.qsize():
        source.put_many(target.get_many(BATCH))
    source.shutdown()
    began = time.perf_counter_ns()
    way()
    return (time.perf_counter_ns() - began) / PACKETS


# ---- three tasks, beside pools of processes -----------------------------------------------------------------


def tasks(rounds: int, part: int) -> list[dict[str, Any]]:
    """Items a second, by task and by what runs it; each finds what the first one finds."""
    runs: dict[tuple[pools.Task, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for task in pools.TASKS:
                count = task.count // part
                given = task.prepare(count, Path(folder)) if task.there else None
                wanted = None
                for name, way in task.there.items():
                    note(f"round {turn + 1} of {rounds}: {task.what}, {name}")
                    began = time.perf_counter()
                    found = way.run(given)
                    runs.setdefault((task, name), []).append(count / (time.perf_counter() - began))
                    pools.after_a_run()
                    wanted = found if wanted is None else wanted
                    assert found == wanted, f"{name}: {found}, not {wanted}"
    note("")
    return [
        {
            "what": task.what,
            "with": name,
            "unit": task.unit,
            "lines": task.there[name].lines,
            "runs": rates,
            "median": statistics.median(rates),
        }
        for (task, name), rates in runs.items()
    ]


# ---- the program --------------------------------------------------------------------------------------------


def measure(rounds: int, quick: bool) -> dict[str, Any]:
    nanoseconds = overhead(rounds, 2 if quick else ROUND_TRIPS)
    return {
        "overhead": [
            {"what": what, "unit": "ns/packet", "runs": runs, "median": statistics.median(runs)}
            for what, runs in nanoseconds.items()
        ],
        "tasks": tasks(rounds, 20 if quick else 1),
        "workers": pools.WORKERS,
    }


def markdown(document: dict[str, Any]) -> str:
    """Return the tables of docs/performance.md."""
    lines = [
        measured_on(document, "make bench-pipelines"),
        "",
        "| | ns a packet | least |",
        "|---|--:|--:|",
        *(
            f"| {each['what']} | {each['median']:,.0f} | {min(each['runs']):,.0f} |"
            for each in document["overhead"]
        ),
        *(
            f"| **{what}, beyond the raw calls** | {more:,.0f} | |"
            for what, more in own_cost(document["overhead"]).items()
        ),
        "",
        f"| with {document['workers']} workers | by | lines of code | a second | from | to | ours is |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    ours = _ours(document)
    for each in document["tasks"]:
        low, high, median = min(each["runs"]), max(each["runs"]), each["median"]
        ratio = f"{ours[each['what']] / median:.2f} x" if each["with"] != pools.OURS else ""
        unit = each["unit"].partition("/")[0]
        lines.append(
            f"| {each['what']} | {each['with']} | {each['lines']} | {median:,.0f} {unit} | {low:,.0f} | {high:,.0f} "
            f"| {ratio} |"
        )
    return "\n".join(lines)


def _ours(document: dict[str, Any]) -> dict[str, float]:
    return {each["what"]: each["median"] for each in document["tasks"] if each["with"] == pools.OURS}


def print_table(document: dict[str, Any]) -> None:
    for each in document["overhead"]:
        print(f"{each['what']:<28} {each['median']:>12,.0f} {min(each['runs']):>12,.0f} {each['unit']}")
    for what, more in own_cost(document["overhead"]).items():
        print(f"{what:<28} {more:>12,.0f} {'':12} ns/packet beyond the raw calls")
    ours = _ours(document)
    for each in document["tasks"]:
        median, best = f"{each['median']:>9,.0f}", f"{max(each['runs']):>9,.0f}"
        ratio = f"{ours[each['what']] / each['median']:>6.2f} x" if each["with"] != pools.OURS else ""
        print(
            f"{each['what']:<46} {each['with']:<22} {each['lines']:>3} lines {median} {best} {each['unit']:<9}{ratio}"
        )


def own_cost(overhead: list[dict[str, Any]]) -> dict[str, float]:
    """Return what a stage adds to the raw calls, nanoseconds for each packet: by how it takes packets."""
    medians = {each["what"]: each["median"] for each in overhead}
    return {
        what: median - medians[what.replace("stage", "raw")]
        for what, median in medians.items()
        if what.startswith("stage")
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the work in each run")
    add_output(parser)
    args = parser.parse_args(argv)
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(None),
        **measure(args.rounds, args.quick),
    }
    print_table(document)
    save(document, args, "pipelines")
    return 0


if __name__ == "__main__":
    sys.exit(main())
