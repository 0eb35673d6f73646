# SPDX-License-Identifier: Apache-2.0
"""``ssm bench``: what the calls take on this machine, in a few seconds. `make bench` measures more."""

from __future__ import annotations

import os
import statistics
import time
from typing import TYPE_CHECKING

from ssm.commands.output import add_json, print_json, print_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ssm import Pool, Ring

PAYLOAD = 1500
BATCH = 64
ROUNDS = 7
CALLS = 20_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm bench``."""
    add_json(parser)


def _alloc_free(pool: Pool, ring: Ring, count: int) -> None:
    for _ in range(count):
        pool.alloc(PAYLOAD).free()


def _alloc_free_many(pool: Pool, ring: Ring, count: int) -> None:
    for _ in range(count // BATCH):
        pool.alloc_many(BATCH, PAYLOAD).free()


def _put_get(pool: Pool, ring: Ring, count: int) -> None:
    packet = pool.alloc(PAYLOAD)
    for _ in range(count):
        ring.put(packet)
        packet = ring.get()


def _put_get_many(pool: Pool, ring: Ring, count: int) -> None:
    batch = pool.alloc_many(BATCH, PAYLOAD)
    for _ in range(count // BATCH):
        ring.put_many(batch)
        batch = ring.get_many(BATCH)


def _send_get(pool: Pool, ring: Ring, count: int) -> None:
    data = bytes(PAYLOAD)
    for _ in range(count):
        ring.send(data)
        ring.get().free()


CASES: dict[str, Callable[[Pool, Ring, int], None]] = {
    "alloc, free": _alloc_free,
    f"alloc_many({BATCH}), free": _alloc_free_many,
    "put, get": _put_get,
    f"put_many, get_many({BATCH})": _put_get_many,
    f"send {PAYLOAD} bytes, get, free": _send_get,
}


def run(args: argparse.Namespace) -> int:
    """Run the cases in turn, several times; print medians."""
    from ssm import Pool

    runs: dict[str, list[float]] = {name: [] for name in CASES}
    with Pool.create(f"ssm-bench-{os.getpid()}", classes={2048: 1024}, ephemeral=True) as pool:
        ring = pool.ring("bench")
        for _ in range(ROUNDS):
            for name, case in CASES.items():
                start = time.perf_counter_ns()
                case(pool, ring, CALLS)
                runs[name].append((time.perf_counter_ns() - start) / CALLS)
    if args.json:
        print_json(
            {name: {"median_ns": statistics.median(times), "runs_ns": times} for name, times in runs.items()}
        )
        return 0
    print_table(
        ["ns per packet", "median", "from", "to"],
        [[name, *(round(f(times)) for f in (statistics.median, min, max))] for name, times in runs.items()],
    )
    return 0
