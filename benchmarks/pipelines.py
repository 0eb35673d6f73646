# SPDX-License-Identifier: Apache-2.0
"""What a pipeline costs beyond raw calls of its rings, and how it compares with pools of processes.

    python -m benchmarks.pipelines [--rounds N] [--quick] [--record | --output FILE]

Two questions. First, in one process: packets through a stage that does nothing, beside a loop of get and put. Second:
three tasks by a pipeline, multiprocessing.Pool and concurrent.futures, and by mpire and joblib where they are
installed, with the lines of each program. Start and end of the processes count. All come in turn, round after round;
the table shows medians.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import ssm
from benchmarks.bench import add_output, machine, note, save
from ssm.pipeline import board
from ssm.pipeline.declared import RingSpec, StageSpec
from ssm.pipeline.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

PACKETS = 1000  # of the first question: all are in the processor's cache
ROUND_TRIPS = 50
BATCH = 64
WORKERS = 2


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


# ---- three tasks, and programs for them ---------------------------------------------------------------------


def square(number: int) -> int:
    return number * number


def checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def digests(data: bytes) -> bytes:
    for _ in range(20):
        data = hashlib.sha256(data).digest() * 64
    return data[:32]


TASKS: dict[str, tuple[Callable[[Any], Any], int, Callable[[int], Iterable[Any]]]] = {
    "numbers, next to no work": (square, 20_000, range),
    "64 KiB each, a checksum": (checksum, 4_000, lambda count: (bytes(65536) for _ in range(count))),
    "1 KiB each, much work": (digests, 20_000, lambda count: (bytes(1024) for _ in range(count))),
}


def items(task: str, count: int) -> Iterator[Any]:
    yield from TASKS[task][2](count)


class Count:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, results: list[Any]) -> None:
        self.count += len(results)

    def close(self) -> int:
        return self.count


def with_pipeline(task: str, count: int) -> int:
    pipe = ssm.Pipeline("ssm-bench").chain(items, (TASKS[task][0], WORKERS), (Count, {"batch": 64}))
    report = pipe.run(task, count)
    assert report.exact, report
    return int(report.results["Count"][0])


def with_multiprocessing(task: str, count: int) -> int:
    with multiprocessing.get_context("forkserver").Pool(WORKERS) as pool:
        return sum(1 for _ in pool.imap(TASKS[task][0], items(task, count), chunksize=16))


def with_futures(task: str, count: int) -> int:
    with ProcessPoolExecutor(WORKERS, multiprocessing.get_context("forkserver")) as pool:
        return sum(1 for _ in pool.map(TASKS[task][0], items(task, count), chunksize=16))


def with_mpire(task: str, count: int) -> int:
    with importlib.import_module("mpire").WorkerPool(WORKERS, start_method="forkserver") as pool:
        return sum(
            1 for _ in pool.imap(TASKS[task][0], items(task, count), iterable_len=count, chunk_size=16)
        )


def with_joblib(task: str, count: int) -> int:
    joblib: Any = importlib.import_module("joblib")
    return len(
        joblib.Parallel(WORKERS, batch_size=16)(map(joblib.delayed(TASKS[task][0]), items(task, count)))
    )


WAYS: dict[str, tuple[Callable[[str, int], int], str]] = {
    "ssm.Pipeline": (with_pipeline, "ssm"),
    "multiprocessing.Pool": (with_multiprocessing, "multiprocessing"),
    "concurrent.futures": (with_futures, "concurrent"),
    "mpire": (with_mpire, "mpire"),
    "joblib": (with_joblib, "joblib"),
}


def tasks(rounds: int, part: int) -> list[dict[str, Any]]:
    """Items a second, by task and by what runs it."""
    there = {way: run for way, (run, package) in WAYS.items() if importlib.util.find_spec(package)}
    runs: dict[tuple[str, str], list[float]] = {}
    for turn in range(rounds):
        for task, (_, full, _) in TASKS.items():
            count = full // part
            for way, run in there.items():
                note(f"round {turn + 1} of {rounds}: {task}, {way}")
                began = time.perf_counter()
                done = run(task, count)
                assert done == count, f"{way}: {done} of {count}"
                runs.setdefault((task, way), []).append(count / (time.perf_counter() - began))
    note("")
    return [
        {
            "what": task,
            "with": way,
            "unit": "items/s",
            "lines": len(inspect.getsource(there[way]).splitlines()) - 1,
            "runs": rates,
            "median": statistics.median(rates),
        }
        for (task, way), rates in runs.items()
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
        "workers": WORKERS,
    }


def print_table(document: dict[str, Any]) -> None:
    for each in document["overhead"]:
        print(f"{each['what']:<28} {each['median']:>12,.0f} {min(each['runs']):>12,.0f} {each['unit']}")
    for each in document["tasks"]:
        figures = (
            f"{each['median']:>12,.0f} {max(each['runs']):>12,.0f} {each['unit']}, {each['lines']} lines"
        )
        print(f"{each['what']:<28} {each['with']:<22} {figures}")


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
