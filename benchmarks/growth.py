# SPDX-License-Identifier: Apache-2.0
"""What becomes slower when there is more of something: processes, blocks, rings, shards, memory?

    python -m benchmarks.growth [--rounds N] [--short] [--record | --output FILE]

The calls by the C core, what takes as long as a pool is large through Python. Medians of several rounds, in turn.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import ssm
from benchmarks.bench import add_output, build_core, machine, note, run_core, save

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BLOCK = 128  # bytes; small, for there are a million
PACKETS, WORKER_PACKETS, SHORT_PACKETS = 200_000, 50_000, 640
ATTACHED = (1, 4, 16, 64)
BLOCKS = (1_000, 10_000, 100_000, 1_000_000)
RINGS = (1, 8, 64)
SHARDS = (1, 2, 4, 16)
GIB = 1 << 30
LARGE_BLOCK = 1 << 16


class Case(NamedTuple):
    """One figure: `what` takes so long with so many of `of`."""

    of: str
    what: str
    at: int
    unit: str
    run: Callable[[], float]


# ---- as large as the pool ----------------------------------------------------------------------------


def name() -> str:
    return f"ssm-growth-{os.getpid()}"


def since(start: int) -> float:
    return (time.perf_counter_ns() - start) / 1e6


def create_ms(size: int) -> float:
    start = time.perf_counter_ns()
    pool = ssm.Pool.create(name(), classes={LARGE_BLOCK: size // LARGE_BLOCK}, ephemeral=True)
    took = since(start)
    pool.close()
    return took


def attach_ms(size: int) -> float:
    with ssm.Pool.create(name(), classes={LARGE_BLOCK: size // LARGE_BLOCK}, ephemeral=True) as pool:
        start = time.perf_counter_ns()
        other = ssm.Pool.attach(pool.name)
        took = since(start)
        other.close()
    return took


def small_pool(blocks: int) -> ssm.Pool:
    return ssm.Pool.create(name(), classes={BLOCK: blocks}, headroom=0, tailroom=0, ephemeral=True)


def check_ms(blocks: int) -> float:
    with small_pool(blocks) as pool:
        start = time.perf_counter_ns()
        pool.check()
        return since(start)


def reap_ms(blocks: int) -> float:
    """After a process was killed that had half of them."""
    with small_pool(blocks) as pool:
        child = os.fork()
        if child == 0:
            kept = pool.alloc_many(blocks // 2, 1)
            os.kill(os.getpid(), signal.SIGKILL * bool(kept))
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            raise RuntimeError(f"the process that was to die with {blocks // 2} blocks ended with {status}")
        start = time.perf_counter_ns()
        reaped = pool.reap()
        took = since(start)
        if reaped.processes != 1 or reaped.blocks < blocks // 2:
            raise RuntimeError(f"one process with {blocks // 2} blocks died, {reaped} came back")
        return took


# ---- the cases ---------------------------------------------------------------------------------------


def core_cases(core: Path, short: bool) -> list[Case]:
    packets = SHORT_PACKETS if short else PACKETS
    each = SHORT_PACKETS if short else WORKER_PACKETS
    workers = 2 * len(os.sched_getaffinity(0))

    def case(of: str, what: str, at: int, name: str, packets: int, *options: str) -> Case:
        return Case(of, what, at, "ns", partial(run_core, core, name, packets, *options))

    table = []
    for at in ATTACHED:
        table.append(
            case("attached processes", "alloc, free", at, "alloc_free", packets, f"attached={at - 1}")
        )
        table.append(case("attached processes", "put, get", at, "put_get", packets, f"attached={at - 1}"))
    for at in BLOCKS[:2] if short else BLOCKS:
        table.append(case("blocks", "alloc, free", at, "alloc_free", packets, f"blocks={at}"))
        table.append(case("blocks", "free, alloc; every block in turn", at, "churn", packets, f"blocks={at}"))
    for at in RINGS:
        table.append(case("rings", "put, get; every ring in turn", at, "put_get", packets, f"rings={at}"))
    for at in SHARDS:
        for cache in ((), ("cache=0",)):
            what = f"alloc, free; {workers} processes at once" + (", no caches" if cache else "")
            options = (f"workers={workers}", f"shards={at}", *cache)
            table.append(case("shards", what, at, "alloc_free_workers", each, *options))
    return table


def pool_cases(short: bool) -> list[Case]:
    sizes = (GIB >> 8,) if short else (GIB >> 6, GIB >> 3, GIB)
    table = []
    for size in sizes:
        table.append(Case("MiB", "create", size >> 20, "ms", partial(create_ms, size)))
        table.append(Case("MiB", "attach", size >> 20, "ms", partial(attach_ms, size)))
    for at in BLOCKS[:2] if short else BLOCKS:
        table.append(Case("blocks", "check()", at, "ms", partial(check_ms, at)))
        table.append(Case("blocks", "reap(), half of them held", at, "ms", partial(reap_ms, at)))
    return table


def as_document(runs: dict[Case, list[float]], about: dict[str, str | float]) -> dict[str, Any]:
    results = [
        {
            "of": c.of,
            "what": c.what,
            "at": c.at,
            "unit": c.unit,
            "runs": times,
            "median": statistics.median(times),
        }
        for c, times in runs.items()
    ]
    return {"when": datetime.now(UTC).isoformat(timespec="seconds"), "machine": about, "results": results}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case (%(default)s)")
    parser.add_argument("--short", action="store_true", help="one round of the smallest")
    parser.add_argument("--python-only", action="store_true", help="do not build and measure the C core")
    add_output(parser)
    args = parser.parse_args(argv)
    core = None if args.python_only else build_core()
    about = machine(core)
    table = (core_cases(core, args.short) if core else []) + pool_cases(args.short)
    runs: dict[Case, list[float]] = {case: [] for case in table}
    rounds = 1 if args.short else args.rounds
    for turn in range(rounds):
        for case in table:
            note(f"round {turn + 1} of {rounds}: {case.at} {case.of}, {case.what}")
            runs[case].append(case.run())
    note("")
    for case, times in runs.items():
        print(f"{case.at:>9,} {case.of:<20} {case.what:<50} {statistics.median(times):>12,.2f} {case.unit}")
    save(as_document(runs, about), args, "growth")
    return 0


if __name__ == "__main__":
    sys.exit(main())
