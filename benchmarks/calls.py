# SPDX-License-Identifier: Apache-2.0
"""What a call of a service takes, beside the same exchange by hand over two rings.

    python -m benchmarks.calls [--quick] [--rounds N] [--calls N] [--record | --output FILE]

One worker in another process answers with the packet that it got. By hand, the caller puts a packet into one ring and
takes the answer out of another: what is beyond that is the price of finding the caller, of time-outs and of redelivery.
One call under way, and eight: by hand, eight packets are put, and one more for each that comes back. Each call is
timed, from before its packet is allocated until the answer is there. The ways come in turn, round after round; the
table shows medians of the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import sys
import time
import uuid
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import ssm
from benchmarks.bench import add_output, machine, measured_on, note, rounds_within, save

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = Callable[[ssm.Pool, int], list[int]]  # pool, calls -> nanoseconds of each

SIZE = 1500
AT_ONCE = 8  # threads, or calls of an event loop, or packets under way
LIMIT_S = 60  # for all rounds: on a slow machine there are fewer
PATIENCE_S = 10  # for one answer: then the benchmark fails
CONTEXT = multiprocessing.get_context("forkserver")


# ---- the workers, each in a process of its own -------------------------------------------------------


def answer_by_hand(pool: ssm.Pool) -> None:
    there, back = pool.ring("there"), pool.ring("back")
    for packet in there:
        back.put(packet)


def answer(pool: ssm.Pool) -> None:
    pool.rpc("echo").serve(lambda packet: packet)


# ---- the cases ---------------------------------------------------------------------------------------


def by_hand(pool: ssm.Pool, calls: int) -> list[int]:
    return _by_hand(pool, calls, 1)


def by_hand_at_once(pool: ssm.Pool, calls: int) -> list[int]:
    return _by_hand(pool, calls, AT_ONCE)


def _by_hand(pool: ssm.Pool, calls: int, at_once: int) -> list[int]:
    put, get, alloc, now = pool.ring("there").put, pool.ring("back").get, pool.alloc, time.perf_counter_ns
    begun: deque[int] = deque()  # one worker and two rings: answers come in the order of the requests
    times = []
    for _ in range(at_once - 1):
        begun.append(now())
        put(alloc(SIZE))
    for _ in range(calls):
        begun.append(now())
        put(alloc(SIZE))
        get(True, PATIENCE_S).free()
        times.append(now() - begun.popleft())
    for _ in begun:
        get(True, PATIENCE_S).free()
    return times


def in_a_row(pool: ssm.Pool, calls: int) -> list[int]:
    return _in_a_row(pool.rpc("echo"), calls)


def _in_a_row(rpc: ssm.Rpc, calls: int) -> list[int]:
    call, alloc, now = rpc.call, rpc.pool.alloc, time.perf_counter_ns
    times = []
    for _ in range(calls):
        begun = now()
        call(alloc(SIZE), PATIENCE_S).free()
        times.append(now() - begun)
    return times


def in_threads(pool: ssm.Pool, calls: int) -> list[int]:
    rpc = pool.rpc("echo")
    with ThreadPoolExecutor(AT_ONCE) as threads:
        parts = [threads.submit(_in_a_row, rpc, calls // AT_ONCE) for _ in range(AT_ONCE)]
        return [each for part in parts for each in part.result()]


def in_asyncio(pool: ssm.Pool, calls: int) -> list[int]:
    async def some(rpc: ssm.Rpc) -> list[int]:
        times = []
        for _ in range(calls // AT_ONCE):
            begun = time.perf_counter_ns()
            (await rpc.acall(rpc.pool.alloc(SIZE), PATIENCE_S)).free()
            times.append(time.perf_counter_ns() - begun)
        return times

    async def run() -> list[int]:
        rpc = pool.rpc("echo")
        parts = await asyncio.gather(*(some(rpc) for _ in range(AT_ONCE)))
        return [each for part in parts for each in part]

    return asyncio.run(run(), debug=False)  # also where PYTHONDEVMODE is set


CASES: dict[str, tuple[int, Case]] = {
    "two rings, by hand": (1, by_hand),
    "rpc.call, one after the other": (1, in_a_row),
    f"two rings, by hand, {AT_ONCE} packets": (AT_ONCE, by_hand_at_once),
    f"rpc.call, {AT_ONCE} threads": (AT_ONCE, in_threads),
    f"rpc.acall, {AT_ONCE} at once": (AT_ONCE, in_asyncio),
}


# ---- the program -------------------------------------------------------------------------------------


def once(case: Case, pool: ssm.Pool, calls: int) -> dict[str, float]:
    case(pool, max(AT_ONCE, calls // 10))
    start = time.perf_counter_ns()
    times = case(pool, calls)
    took = time.perf_counter_ns() - start
    cut = statistics.quantiles(times, n=100, method="inclusive")
    return {"per_s": len(times) / took * 1e9, "median_us": cut[49] / 1e3, "p99_us": cut[98] / 1e3}


def measure(rounds: int, calls: int) -> dict[str, list[dict[str, float]]]:
    """Calls a second, and microseconds for each call."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CASES}
    with ssm.Pool.create(f"calls-{uuid.uuid4().hex}", sizes={SIZE: 256}, ephemeral=True) as pool:
        there = pool.ring("there")
        workers = [
            CONTEXT.Process(target=each, args=(pool,), daemon=True) for each in (answer_by_hand, answer)
        ]
        for worker in workers:
            worker.start()
        try:
            for turn in rounds_within(rounds, LIMIT_S):
                for name, (_, case) in CASES.items():
                    note(f"round {turn + 1} of {rounds}: {name}")
                    found[name].append(once(case, pool, calls))
            note("")
            there.shutdown()
            pool.rpc("echo").shutdown()
            for worker in workers:
                worker.join(PATIENCE_S)
            if any(worker.exitcode != 0 for worker in workers):
                raise RuntimeError(f"workers ended with {[worker.exitcode for worker in workers]}")
        finally:
            for worker in workers:
                worker.kill()  # nothing to those that ended by themselves
                worker.join()
    return found


def markdown(document: dict[str, Any]) -> str:
    rounds = len(document["results"][0]["runs"]) if document["results"] else 0
    lines = [
        measured_on(document, "python -m benchmarks.calls"),
        f"{rounds} rounds, {document['calls']:,} calls a run, packets of {SIZE:,} bytes.",
        "",
        "| | under way | calls/s | from | to | median | 99 % |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for each in document["results"]:
        rates = f"{each['median']:,.0f} | {min(each['runs']):,.0f} | {max(each['runs']):,.0f}"
        times = f"{each['median_us']:,.1f} us | {each['p99_us']:,.1f} us"
        lines.append(f"| {each['what']} | {each['at_once']} | {rates} | {times} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="does it run? One short run of each")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (%(default)s)")
    parser.add_argument("--calls", type=int, default=20_000, help="calls per run (%(default)s)")
    add_output(parser)
    args = parser.parse_args(argv)
    rounds, calls = (1, 80) if args.quick else (args.rounds, max(args.calls, 2 * AT_ONCE))
    about = machine(None)
    results: list[dict[str, Any]] = []
    for name, runs in measure(rounds, calls).items():
        rates = [run["per_s"] for run in runs]
        medians = {key: statistics.median(run[key] for run in runs) for key in ("median_us", "p99_us")}
        what = {"what": name, "at_once": CASES[name][0], "unit": "calls/s"}
        results.append({**what, "runs": rates, "median": statistics.median(rates), **medians})
    when = datetime.now(UTC).isoformat(timespec="seconds")
    document = {"when": when, "machine": about, "calls": calls, "results": results}
    print(markdown(document))
    save(document, args, "calls")
    return 0


if __name__ == "__main__":
    sys.exit(main())
