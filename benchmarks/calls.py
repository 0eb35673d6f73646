# SPDX-License-Identifier: Apache-2.0
"""What a call of a service takes, beside the same exchange by hand over two rings.

    python -m benchmarks.calls [--rounds N] [--calls N] [--record | --output FILE]

One worker in another process answers with the packet that it got. By hand, the caller puts a packet into one ring and
takes the answer out of another: what is beyond that is the price of finding the caller, of time-outs and of redelivery.
Medians of several rounds, in turn.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ssm
from benchmarks.bench import add_output, machine, note, save

if TYPE_CHECKING:
    from collections.abc import Callable

SIZE = 1500
AT_ONCE = 8  # threads, or calls of an event loop
CONTEXT = multiprocessing.get_context("forkserver")


def answer(pool: ssm.Pool) -> None:
    """The worker: requests by hand, and as a service, until both are shut down."""
    there, back = pool.ring("there"), pool.ring("back")
    for packet in there:
        back.put(packet)
    pool.rpc("echo").serve(lambda packet: packet)


def by_hand(pool: ssm.Pool, calls: int) -> None:
    there, back = pool.ring("there"), pool.ring("back")
    for _ in range(calls):
        there.put(pool.alloc(SIZE))
        back.get().free()


def in_a_row(pool: ssm.Pool, calls: int) -> None:
    rpc = pool.rpc("echo")
    for _ in range(calls):
        rpc.call(pool.alloc(SIZE)).free()


def in_threads(pool: ssm.Pool, calls: int) -> None:
    rpc = pool.rpc("echo")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for _ in range(AT_ONCE):
            threads.submit(_some, rpc, calls // AT_ONCE)


def _some(rpc: ssm.Rpc, calls: int) -> None:
    for _ in range(calls):
        rpc.call(rpc.pool.alloc(SIZE)).free()


def in_asyncio(pool: ssm.Pool, calls: int) -> None:
    async def some(rpc: ssm.Rpc) -> None:
        for _ in range(calls // AT_ONCE):
            (await rpc.acall(pool.alloc(SIZE))).free()

    async def run() -> None:
        rpc = pool.rpc("echo")
        await asyncio.gather(*(some(rpc) for _ in range(AT_ONCE)))

    asyncio.run(run())


CASES: dict[str, Callable[[ssm.Pool, int], None]] = {
    "two rings, by hand": by_hand,
    "rpc.call, one after the other": in_a_row,
    f"rpc.call, {AT_ONCE} threads": in_threads,
    f"rpc.acall, {AT_ONCE} at once": in_asyncio,
}


def measure(rounds: int, calls: int) -> dict[str, list[float]]:
    """Microseconds for each call."""
    times: dict[str, list[float]] = {name: [] for name in CASES}
    with ssm.Pool.create(f"calls-{uuid.uuid4().hex}", sizes={SIZE: 256}, ephemeral=True) as pool:
        for turn in range(rounds):
            worker = CONTEXT.Process(target=answer, args=(pool,))
            worker.start()
            for name, case in CASES.items():
                note(f"round {turn + 1} of {rounds}: {name}")
                if case is in_a_row:
                    pool.ring("there").shutdown()
                case(pool, max(1, calls // 10))
                start = time.perf_counter_ns()
                case(pool, calls)
                times[name].append((time.perf_counter_ns() - start) / calls / 1e3)
            pool.rpc("echo").shutdown()
            worker.join()
            pool.ring("there").acl = pool.ring("echo?").acl = ssm.Acl.RDWR
    note("")
    return times


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (%(default)s)")
    parser.add_argument("--calls", type=int, default=20_000, help="calls per run (%(default)s)")
    add_output(parser)
    args = parser.parse_args(argv)
    about = machine(None)
    times = measure(args.rounds, args.calls)
    results: list[dict[str, Any]] = []
    for name, runs in times.items():
        results.append({"what": name, "unit": "us", "runs": runs, "median": statistics.median(runs)})
        print(f"{name:<36} {statistics.median(runs):>10.1f} {min(runs):>10.1f} {max(runs):>10.1f} us")
    when = datetime.now(UTC).isoformat(timespec="seconds")
    save({"when": when, "machine": about, "calls": args.calls, "results": results}, args, "calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
