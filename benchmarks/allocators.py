# SPDX-License-Identifier: Apache-2.0
"""How long do the allocators take, in C and through Python? Nanoseconds per operation, the best of several runs.

    python benchmarks/allocators.py [--short] [--output FILE]

C: benchmarks/allocators.c, built here with the C compiler and run. Python: the same states and operations; the
numbers include the loop around the calls, as a user has it. `allocate` leaves its result in a list.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__" and sys.path and Path(sys.path[0]).name == "benchmarks":
    sys.path.pop(0)  # this file is called as the package it measures

import ssm
from allocators import AddressAllocator, AllocPolicy, IdAllocator, PidAllocator, RmidAllocator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

HERE = Path(__file__).resolve().parent
CORE = HERE.parent / "allocators" / "src"
RUNS = 7
SHORT_RUNS = 2
BATCH = 1000
ROOM = 1 << 40


@dataclass
class Result:
    """One line of the table."""

    language: str
    allocator: str
    state: str
    operation: str
    ns: float


runs = RUNS
levels = 3  # of each allocator's three sizes, how many


def best(batch: int, operation: Callable[[], object], undo: Callable[[], object] = lambda: None) -> float:
    """Nanoseconds for one of the `batch` things the operation does; `undo` is not timed."""
    least = float("inf")
    for _ in range(runs):
        start = time.perf_counter_ns()
        operation()
        least = min(least, (time.perf_counter_ns() - start) / batch)
        undo()
    return least


# ---- Python ------------------------------------------------------------------------------------------


def ids() -> Iterator[tuple[str, str, str, float]]:
    for in_use in (1_000, 100_000, 1_000_000)[:levels]:
        allocator = IdAllocator(0, 2**32 - 1)
        for _ in range(in_use):
            allocator.allocate_id()
        some = random.sample(range(in_use), BATCH)
        allocate, free = allocator.allocate_id, allocator.free_id

        def all_free(some: list[int] = some, free: Callable[[int], int] = free) -> None:
            for i in some:
                free(i)

        def all_allocate(some: list[int] = some, allocate: Callable[[], int] = allocate) -> None:
            for _ in some:
                allocate()

        def pairs(
            some: list[int] = some,
            free: Callable[[int], int] = free,
            allocate: Callable[[], int] = allocate,
        ) -> None:
            for _ in some:
                free(allocate())

        state = f"{in_use} in use"
        yield "ids", state, "free, a random one", best(BATCH, all_free, all_allocate)
        all_free()
        yield "ids", state, "allocate", best(BATCH, all_allocate, all_free)
        all_allocate()
        yield "ids", state, "allocate + free", best(BATCH, pairs)


def pids() -> Iterator[tuple[str, str, str, float]]:
    for order in (8, 64, 4096)[:levels]:
        for percent in (0, 50, 99):
            allocator = PidAllocator(order)
            every = [allocator.allocate() for _ in range(allocator.capacity)]
            kept = random.sample(every, allocator.capacity * percent // 100)
            del every
            allocate = allocator.allocate

            def pairs(allocate: Callable[[], object] = allocate) -> None:
                for _ in range(BATCH):
                    allocate()  # dropped at once, and so recycled

            yield "pids", f"order {order}, {percent} % in use", "allocate + recycle", best(BATCH, pairs)
            del kept


def ranges() -> Iterator[tuple[str, str, str, float]]:
    for live in (100, 10_000, 100_000)[:levels]:
        space = AddressAllocator(0, ROOM)
        blocked = space.allocate(ROOM // 2, 1)  # the lower half: searches from below meet the holes first
        every = [space.allocate(16 * random.randint(1, 16), 1) for _ in range(2 * live)]
        random.shuffle(every)
        for r in every[live:]:
            space.free(r)
        batch = min(BATCH, live // 2)
        some = every[:batch]
        sizes = [16 * random.randint(1, 16) for _ in some]
        taken: list[object] = []
        state = f"{live} live ranges, holes"

        def free_some() -> None:
            for r in some:  # noqa: B023
                space.free(r)  # noqa: B023

        exact = [(r.length, 1, AllocPolicy.exact(r.start)) for r in some]

        def take_back() -> None:
            for arguments in exact:  # noqa: B023
                space.allocate(*arguments)  # noqa: B023

        yield "ranges", state, "free, a random range", best(batch, free_some, take_back)
        free_some()
        yield "ranges", state, "ExactMatch, a random hole", best(batch, take_back, free_some)
        take_back()

        def give_back() -> None:
            for r in taken:  # noqa: B023
                space.free(r)  # type: ignore[arg-type]  # noqa: B023
            taken.clear()  # noqa: B023

        for name, policy, wanted, align in (
            ("FirstMatch, into holes", AllocPolicy.FIRST_MATCH, sizes, 1),
            ("LastMatch", AllocPolicy.LAST_MATCH, sizes, 1),
            ("FirstMatch, no hole is large enough", AllocPolicy.FIRST_MATCH, [2048] * batch, 1),
            ("FirstMatch, alignment 4096", AllocPolicy.FIRST_MATCH, [16] * batch, 4096),
        ):

            def allocate(
                wanted: list[int] = wanted, align: int = align, policy: AllocPolicy = policy
            ) -> None:
                for size in wanted:
                    taken.append(space.allocate(size, align, policy))  # noqa: B023

            yield "ranges", state, name, best(batch, allocate, give_back)
        space.free(blocked)


def rmids() -> Iterator[tuple[str, str, str, float]]:
    for max_rmid in (4, 1024):
        allocator = RmidAllocator(max_rmid, 0)
        alloc, free = allocator.alloc, allocator.free

        def pairs(alloc: Callable[[int], int] = alloc, free: Callable[[int, int], None] = free) -> None:
            for _ in range(BATCH):
                free(alloc(5), 5)

        def clocked(alloc: Callable[[], int] = alloc, free: Callable[[int], None] = free) -> None:
            for _ in range(BATCH):
                free(alloc())

        yield "rmids", f"of {max_rmid}", "alloc + free", best(BATCH, pairs)
        allocator = RmidAllocator(max_rmid, 0)
        alloc, free = allocator.alloc, allocator.free
        clock = best(BATCH, partial(clocked, alloc, free))
        yield "rmids", f"of {max_rmid}", "alloc + free, by the clock", clock


def hosted() -> Iterator[tuple[str, str, str, float]]:
    """The same in a pool, one process at work."""
    pool = ssm.Pool.create(f"ssm-bench-{os.getpid()}", classes={512: 8}, metadata=16 << 20, ephemeral=True)
    with pool:
        ids, pids = pool.ids("ids", 0, 2**20), pool.pids("pids", order=64)
        rmids, space = pool.rmids("rmids", 4, 0), pool.addresses("space", 0, ROOM)

        def pairs_of_ids() -> None:
            for _ in range(BATCH):
                ids.free_id(ids.allocate_id())

        def pairs_of_pids() -> None:
            for _ in range(BATCH):
                pids.allocate()

        def pairs_of_rmids() -> None:
            for _ in range(BATCH):
                rmids.free(rmids.alloc(5), 5)

        def pairs_of_ranges() -> None:
            for _ in range(BATCH):
                space.free(space.allocate(16))

        yield "ids", "hosted", "allocate + free", best(BATCH, pairs_of_ids)
        yield "pids", "hosted, order 64", "allocate + recycle", best(BATCH, pairs_of_pids)
        yield "rmids", "hosted, of 4", "alloc + free", best(BATCH, pairs_of_rmids)
        yield "ranges", "hosted", "FirstMatch + free", best(BATCH, pairs_of_ranges)


# ---- C -----------------------------------------------------------------------------------------------


def core() -> Iterator[tuple[str, str, str, float]]:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        print("No C compiler: the cores are not measured.", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "allocators"
        sources = [HERE / "allocators.c", *sorted(CORE.glob("*.c"))]
        subprocess.run([compiler, "-O2", "-std=gnu11", f"-I{CORE}", *sources, "-o", program], check=True)
        output = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    for line in output.splitlines():
        if not line.startswith("#"):
            allocator, state, operation, ns = line.split("\t")
            yield allocator, state, operation, float(ns)


# ---- the table ---------------------------------------------------------------------------------------


def machine() -> dict[str, str]:
    model = re.search(
        r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE
    )
    return {
        "cpu": model[1] if model else platform.machine(),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, help="write the results there too, as JSON")
    parser.add_argument("--short", action="store_true", help="small states, few runs, Python only")
    arguments = parser.parse_args(argv)
    if arguments.short:
        global runs, levels
        runs, levels = SHORT_RUNS, 1
    random.seed(1)
    about = machine()
    print(" | ".join(f"{key} {value}" for key, value in about.items()))
    results = []
    for language, measure in (
        ("C", core if not arguments.short else tuple),
        ("Python", ids),
        ("Python", pids),
        ("Python", ranges),
        ("Python", rmids),
        ("Python", hosted),
    ):
        for line in measure():
            results.append(Result(language, *line))
            result = results[-1]
            print(
                f"{language:<7}{result.allocator:<7}{result.state:<32}{result.operation:<38}{result.ns:>10,.1f}"
            )
    if arguments.output:
        when = datetime.now(UTC).isoformat(timespec="seconds")
        document = {"when": when, "machine": about, "unit": "ns", "results": [asdict(r) for r in results]}
        arguments.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
