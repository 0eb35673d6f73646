# SPDX-License-Identifier: Apache-2.0
"""What does a call of a hosted allocator take, beside the same call of one that stands alone? Valgrind counts.

    python -m benchmarks.hosted

Fails when a hosted call takes over twice as many instructions. Both are called from Python, and the loop around the
calls is part of the count; among few values and among many, since the work grows with the depth of the structures. How
long a call waits for memory is not counted: benchmarks/allocators.py shows that, on a machine with nothing else to do.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ssm
from allocators import AllocPolicy, Constraint
from benchmarks.allocators import HOSTED_GOAL, Alone, Hosted
from benchmarks.bench import HERE
from benchmarks.cases import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.allocators import Maker

    Loop = Callable[[int], None]  # does it so many times

FEW, MANY, MANY_RANGES, MOST_RMIDS = 1_000, 1_000_000, 100_000, 1_024
CALLS = 1_000
METADATA = 128 << 20
PROBE = """
#include <valgrind/callgrind.h>
void begin(void) { CALLGRIND_START_INSTRUMENTATION; CALLGRIND_ZERO_STATS; }
void end(const char *what) { CALLGRIND_DUMP_STATS_AT(what); CALLGRIND_STOP_INSTRUMENTATION; }
"""
COUNTED = re.compile(
    r"^desc: Trigger: Client Request: (.*?)$.*?^(?:summary|totals): (\d+)", re.MULTILINE | re.DOTALL
)


# ---- in the program that is counted: each operation, and what does it -----------------------------------


def ids(make: Maker, in_use: int) -> Iterator[tuple[str, Loop]]:
    allocator = make.ids(2 * in_use)
    allocate, free = allocator.allocate_id, allocator.free_id
    live = [allocate() for _ in range(in_use)]
    chosen = random.sample(live, CALLS)

    def pairs(count: int) -> None:
        for i in range(count):
            free(chosen[i])
            allocate()

    yield f"ids, {in_use:,} in use: free + allocate", pairs


def pids(make: Maker, in_use: int) -> Iterator[tuple[str, Loop]]:
    allocate = make.pids(in_use // 64 + 1).allocate
    live = [allocate() for _ in range(in_use)]

    def lowest(count: int) -> None:
        for _ in range(count):
            allocate()

    yield f"pids, {len(live):,} in use: allocate + recycle", lowest


def rmids(make: Maker, max_rmid: int) -> Iterator[tuple[str, Loop]]:
    allocator = make.rmids(max_rmid)
    alloc, free = allocator.alloc, allocator.free

    def pairs(count: int) -> None:
        for _ in range(count):
            free(alloc(5), 5)

    yield f"RMIDs, of {max_rmid:,}: alloc + free", pairs


def addresses(make: Maker, live: int) -> Iterator[tuple[str, Loop]]:
    """Ranges of 16 with holes of 16 between; what is allocated is longer, and goes behind or in front of them."""
    space = make.addresses(1 << 40, 2 * live + 8)
    allocate, allocate_constraint, free = space.allocate, space.allocate_constraint, space.free
    for i in range(live):
        allocate(16, 1, AllocPolicy.exact((1 << 39) + 32 * i))
    exact = AllocPolicy.exact((1 << 39) + 16)
    constraint = Constraint(64, 64, AllocPolicy.FIRST_MATCH, min=1 << 39)

    def with_arguments(*arguments: Any) -> Loop:
        def pairs(count: int) -> None:
            for _ in range(count):
                free(allocate(*arguments))

        return pairs

    def with_constraint(count: int) -> None:
        for _ in range(count):
            free(allocate_constraint(constraint))

    state = f"ranges, {live:,} live"
    yield f"{state}: FirstMatch + free", with_arguments(64, 4096)
    yield f"{state}: LastMatch + free", with_arguments(64, 1, AllocPolicy.LAST_MATCH)
    yield f"{state}: ExactMatch + free", with_arguments(16, 1, exact)
    yield f"{state}: Constraint + free", with_constraint


def operations(make: Maker) -> Iterator[tuple[str, Loop]]:
    for kind, sizes in ((ids, (FEW, MANY)), (pids, (FEW, MANY)), (rmids, (4, MOST_RMIDS))):
        for size in sizes:
            yield from kind(make, size)
    for live in (FEW, MANY_RANGES):
        yield from addresses(make, live)


def be_counted(probe: ctypes.CDLL) -> None:
    with ssm.Pool.create(
        f"ssm-bench-{os.getpid()}", classes={512: 8}, metadata=METADATA, ephemeral=True
    ) as pool:
        for form, make in (("alone", Alone()), ("hosted", Hosted(pool))):
            for what, loop in operations(make):
                loop(CALLS)  # alignments are learnt, caches filled
                probe.begin()
                loop(CALLS)
                probe.end(f"{form}/{what}".encode())


# ---- in front of it -------------------------------------------------------------------------------------


def build_probe(folder: Path) -> Path:
    source, library = folder / "probe.c", folder / "probe.so"
    source.write_text(PROBE, encoding="utf-8")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    return library


def count() -> dict[str, dict[str, float]]:
    """Operation -> form -> instructions per call."""
    counts: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        command = ["valgrind", "--tool=callgrind", "--instr-atstart=no", f"--callgrind-out-file={folder}/out"]
        command += [sys.executable, "-m", "benchmarks.hosted", "--counted", build_probe(folder)]
        done = subprocess.run(
            command, cwd=HERE.parent, check=False, capture_output=True, text=True, timeout=5 * PATIENCE_S
        )
        if done.returncode:
            sys.exit(f"callgrind failed:\n{done.stderr}")
        for file in folder.glob("out.*"):
            for where, instructions in COUNTED.findall(file.read_text(encoding="utf-8")):
                form, what = where.split("/")
                counts.setdefault(what, {})[form] = int(instructions) / CALLS
    return counts


def compare(counts: dict[str, dict[str, float]]) -> list[str]:
    """Print each operation's counts; return those that take too many when hosted."""
    complaints = []
    for what, forms in sorted(counts.items()):
        times = forms["hosted"] / forms["alone"]
        print(f"{what:<50} {forms['alone']:>8,.0f} alone {forms['hosted']:>8,.0f} hosted, {times:.2f} times")
        if times > HOSTED_GOAL:
            complaints.append(what)
    return complaints


def main() -> int:
    if sys.argv[1:2] == ["--counted"]:
        be_counted(ctypes.CDLL(sys.argv[2]))
        return 0
    if shutil.which("valgrind") is None:
        sys.exit("valgrind is not there (Debian: apt-get install valgrind).")
    complaints = compare(count())
    if complaints:
        print(f"\nOver {HOSTED_GOAL} times what stands alone takes:", *complaints, sep="\n  ")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
