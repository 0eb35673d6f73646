# SPDX-License-Identifier: Apache-2.0
"""How long do alloc, free, put and get take, and how many packets pass from one process to another?

Each case runs several times, the cases in turn, so that a slow minute of the machine falls on all of them;
the table shows the median and the range of those runs. Payload of 1,500 bytes, not touched; batches of 64.
Python numbers include the loop around the calls, as a user has it.

    python benchmarks/bench.py [--rounds N] [--packets N] [--output FILE] [--python-only]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "bench"
RESULTS = HERE / "results"

BLOCK_BYTES, BLOCKS = 2048, 4096
PAYLOAD = 1500
RING = 1024
BATCH = 64
NS = 1e9
PATIENCE_S = 120  # far above what a run takes


@dataclass
class Case:
    """One line of the table."""

    name: str
    what: str
    language: str
    run: Callable[[int], float]  # packets -> nanoseconds per packet
    runs: list[float] = field(default_factory=list)


# ---- Python, one process -----------------------------------------------------------------------------


def create_pool() -> ssm.Pool:
    name = f"ssm-bench-{os.getpid()}"
    return ssm.Pool.create(name, classes={BLOCK_BYTES: BLOCKS}, ephemeral=True)


def timed(loop: Callable[[ssm.Pool, int], float], packets: int) -> float:
    with create_pool() as pool:
        return loop(pool, packets) / packets


def alloc_free(pool: ssm.Pool, packets: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(packets):
        pool.alloc(PAYLOAD).free()
    return time.perf_counter_ns() - start


def alloc_free_batch(pool: ssm.Pool, packets: int) -> float:
    start = time.perf_counter_ns()
    for _ in range(packets // BATCH):
        pool.alloc_many(BATCH, PAYLOAD).free()
    return time.perf_counter_ns() - start


def put_get(pool: ssm.Pool, packets: int) -> float:
    ring = pool.ring("bench", capacity=RING)
    packet = pool.alloc(PAYLOAD)
    start = time.perf_counter_ns()
    for _ in range(packets):
        ring.put(packet)
        packet = ring.get()
    return time.perf_counter_ns() - start


def put_get_batch(pool: ssm.Pool, packets: int) -> float:
    ring = pool.ring("bench", capacity=RING)
    batch = pool.alloc_many(BATCH, PAYLOAD)
    start = time.perf_counter_ns()
    for _ in range(packets // BATCH):
        ring.put_many(batch)
        batch = ring.get_many(BATCH)
    return time.perf_counter_ns() - start


# ---- Python, two processes ---------------------------------------------------------------------------


def stream(pool: ssm.Pool, packets: int, *, batch: int) -> float:
    """Return the time from the first alloc here to the last free there."""
    ring = pool.ring("bench", capacity=RING)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    with ours:
        consumer = context.Process(target=consume, args=(pool, packets, batch, theirs), daemon=True)
        consumer.start()
        theirs.close()
        ours.recv()  # ready
        start = time.monotonic_ns()
        if batch == 1:
            for _ in range(packets):
                ring.put(pool.alloc(PAYLOAD, timeout=None))
        else:
            for _ in range(packets // batch):
                ring.put_many(pool.alloc_many(batch, PAYLOAD, timeout=None))
        end = ours.recv()
        consumer.join()
    return end - start


def consume(pool: ssm.Pool, packets: int, batch: int, pipe: Connection) -> None:
    ring = pool.ring("bench")
    pipe.send(None)
    left = packets
    while left:
        if batch == 1:
            ring.get().free()
            left -= 1
        else:
            got = ring.get_many(batch)
            left -= len(got)
            got.free()
    pipe.send(time.monotonic_ns())
    pipe.close()
    pool.close()


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


def run_core(core: Path, case: str, packets: int) -> float:
    command = [core, case, str(packets)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return float(done.stdout)


# ---- the table ---------------------------------------------------------------------------------------

CASES = (
    ("alloc_free", "alloc + free", timed, alloc_free),
    ("alloc_free_batch", f"alloc + free, by {BATCH}", timed, alloc_free_batch),
    ("put_get", "put + get", timed, put_get),
    ("put_get_batch", f"put + get, by {BATCH}", timed, put_get_batch),
    ("stream", "process to process", timed, partial(stream, batch=1)),
    ("stream_batch", f"process to process, by {BATCH}", timed, partial(stream, batch=BATCH)),
)


def cases(core: Path | None) -> list[Case]:
    table = []
    for name, what, python, loop in CASES:
        table.append(Case(name, what, "Python", partial(python, loop)))
        if core is not None:
            table.append(Case(name, what, "C", partial(run_core, core, name)))
    return table


def note(text: str) -> None:
    """Show what is going on, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r{text:<60}\r", end="", file=sys.stderr, flush=True)


def print_table(table: list[Case]) -> None:
    print(f"{'':<33} {'ns per packet':>13}  {'from':>8} {'to':>8}  {'packets/s':>12}")
    for case in table:
        median, low, high = statistics.median(case.runs), min(case.runs), max(case.runs)
        label = f"{case.what:<26} {case.language:<6}"
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
    }


def as_document(table: list[Case], about: dict[str, str | float], packets: int) -> dict[str, object]:
    results = []
    for case in table:
        result = {key: value for key, value in asdict(case).items() if key != "run"}
        result["unit"] = "ns per packet"
        result["median"] = statistics.median(case.runs)
        results.append(result)
    when = datetime.now(UTC).isoformat(timespec="seconds")
    return {"when": when, "machine": about, "packets": packets, "payload": PAYLOAD, "results": results}


def results_file(folder: Path, about: dict[str, str | float]) -> Path:
    slug = re.sub(r"[^a-z0-9]+", "-", str(about["cpu"]).lower()).strip("-")
    return folder / f"{datetime.now(UTC):%Y-%m-%d}-{slug}.json"


def write(document: dict[str, object], output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    print(f"written to {os.path.relpath(output)}")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7, help="runs of each case (%(default)s)")
    parser.add_argument("--packets", type=int, default=1_000_000, help="packets per run (%(default)s)")
    parser.add_argument("--output", type=Path, help="where the JSON goes (benchmarks/results/DATE-CPU.json)")
    parser.add_argument("--python-only", action="store_true", help="do not build and measure the C core")
    args = parser.parse_args(argv)

    core = None if args.python_only else build_core()
    about = machine(core)
    packets = max(args.packets // BATCH, 1) * BATCH
    table = cases(core)
    for turn in range(args.rounds):
        for case in table:
            note(f"round {turn + 1} of {args.rounds}: {case.language} {case.what}")
            case.runs.append(case.run(packets))
    note("")

    print(" | ".join(f"{key} {value}" for key, value in about.items()))
    print_table(table)
    write(as_document(table, about, packets), args.output or results_file(RESULTS, about))
    return 0


if __name__ == "__main__":
    sys.exit(main())
