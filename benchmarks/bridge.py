# SPDX-License-Identifier: Apache-2.0
"""Bridges beside the bare engine that moves their messages: packets a second, latency of one packet, and idle bridges.

    python -m benchmarks.bridge [--rounds N] [--quick] [--carrier zmq] [--record | --output FILE]

All over loopback, in one run, bare and bridged in turn, round after round, so that a slow minute of the machine falls
on both; the table shows medians. The bare engine is two processes with the same packets to a message as the bridge. The
bridge is four: a producer that puts batches into a ring, two bridges, and a consumer that takes batches out and frees
them.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import multiprocessing as mp
import os
import socket
import statistics
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import ssm
from benchmarks.bench import add_output, machine, measured_on, note, save
from ssm.bridge import Bridge, config
from ssm.bridge.sender import BATCH, BATCH_BYTES

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

SIZES = {64: 1_500_000, 1500: 300_000, 1 << 20: 1500}  # bytes of a packet, and packets of a run
GOALS = {64: "1 M/s", 1500: "0.9 x", 1 << 20: "0.8 x"}
CARRIERS = {"zmq": "zmq", "zenoh": "zenoh"}  # and their modules
HEAD = bytes(60)  # about what a bridge puts in front of a message
WARM = 0.1  # of the packets come before the clock starts
SINGLE = 64  # bytes of a packet whose latency is measured
APART_S = 0.002  # between two of them
PATIENCE_S = 120.0
SPAWN: Any = mp.get_context("spawn")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def per_message(size: int) -> int:
    return max(1, min(BATCH, BATCH_BYTES // size))


class Clock:
    """Counts packets at the receiver: the first ones do not count."""

    def __init__(self, count: int) -> None:
        self._warm, self._count, self.seen, self._began, self._from = int(count * WARM), count, 0, 0.0, 0

    def saw(self, packets: int) -> bool:
        """Note packets; return whether these were the last ones."""
        self.seen += packets
        if not self._began and self.seen >= self._warm:
            self._began, self._from = time.perf_counter(), self.seen
        return self.seen >= self._count

    @property
    def rate(self) -> float:
        return (self.seen - self._from) / (time.perf_counter() - self._began)


# ---- the bare engines -----------------------------------------------------------------------------------


class Zmq:
    """One end: PUSH or PULL."""

    def __init__(self, port: int, *, sends: bool) -> None:
        import zmq

        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.PUSH if sends else zmq.PULL)
        self._socket.setsockopt(zmq.SNDHWM, 64)
        self._socket.setsockopt(zmq.RCVHWM, 64)
        where = f"tcp://127.0.0.1:{port}"
        self._socket.connect(where) if sends else self._socket.bind(where)

    def send(self, payload: Any) -> None:
        self._socket.send_multipart([HEAD, payload], copy=False)

    def recv(self) -> memoryview:
        return memoryview(self._socket.recv_multipart(copy=False)[1].buffer)

    def close(self) -> None:
        self._context.destroy(linger=1000)


class Zenoh:
    """One end: a publisher, or a subscriber."""

    def __init__(self, port: int, *, sends: bool) -> None:
        import zenoh

        settings = zenoh.Config()
        where = f'["tcp/127.0.0.1:{port}"]'
        settings.insert_json5("connect/endpoints" if sends else "listen/endpoints", where)
        settings.insert_json5("listen/endpoints" if sends else "connect/endpoints", "[]")
        settings.insert_json5("scouting/multicast/enabled", "false")
        settings.insert_json5("transport/shared_memory/enabled", "false")
        self._session = zenoh.open(settings)
        if sends:
            control = zenoh.CongestionControl.BLOCK
            self._publisher = self._session.declare_publisher(
                "bench", congestion_control=control, express=True
            )
            while not self._publisher.matching_status.matching:
                time.sleep(0.01)
        else:
            self._samples = self._session.declare_subscriber("bench", zenoh.handlers.FifoChannel(64))

    def send(self, payload: Any) -> None:
        self._publisher.put(b"".join([HEAD, payload]))

    def recv(self) -> memoryview:
        return memoryview(self._samples.recv().payload.to_bytes())[len(HEAD) :]

    def close(self) -> None:
        self._session.close()


def engine(kind: str, port: int, *, sends: bool) -> Zmq | Zenoh:
    return Zmq(port, sends=sends) if kind == "zmq" else Zenoh(port, sends=sends)


def bare_sender(kind: str, port: int, size: int, count: int, latency: bool) -> None:
    end = engine(kind, port, sends=True)
    if latency:
        for _ in range(count):
            time.sleep(APART_S)
            end.send(time.monotonic_ns().to_bytes(8, "little") + bytes(size - 8))
    else:
        many = per_message(size)
        for _ in range(-(-count // many)):
            end.send(bytes(many * size))
    time.sleep(1)
    end.close()


def bare_receiver(talk: Connection, kind: str, port: int, size: int, count: int, latency: bool) -> None:
    end = engine(kind, port, sends=False)
    talk.send("ready")
    if latency:
        talk.send(statistics.median([age_us(end.recv()) for _ in range(count)]))
    else:
        clock = Clock(count)
        while not clock.saw(end.recv().nbytes // size):
            pass
        talk.send(clock.rate)
    end.close()


def age_us(packet: Any) -> float:
    """The same clock counts in all processes of the machine."""
    return (time.monotonic_ns() - int.from_bytes(packet[:8], "little")) / 1000


# ---- the bridge -----------------------------------------------------------------------------------------


def run_bridge(pool_name: str, kind: str, port: int, exports: bool) -> None:
    where = f"127.0.0.1:{port}"
    ends: dict[str, Any] = {"listen": where} if exports else {"connect": where}
    rings: dict[str, Any] = {"exports": {"out": "out"}} if exports else {"imports": {"out": "in"}}
    with ssm.Pool.attach(pool_name) as pool:
        settings = config.Settings(pool=pool_name, carrier=kind, link=str(port), **ends)
        with Bridge(pool, config.open_carrier(settings, -1), window_bytes=64 << 20, **rings) as bridge:
            bridge.run()


def producer(pool_name: str, size: int, count: int, latency: bool) -> None:
    ssm.slow_wait(None)  # others start meanwhile
    with ssm.Pool.attach(pool_name) as pool:
        ring, many = pool.ring("out"), 1 if latency else min(256, per_message(size))
        for _ in range(-(-count // many)):
            batch = pool.alloc_many(many, size, timeout=None)
            if latency:
                time.sleep(APART_S)
                memoryview(batch[0])[:8] = time.monotonic_ns().to_bytes(8, "little")
            ring.put_many(batch)


def consumer(talk: Connection, pool_name: str, count: int, latency: bool) -> None:
    ssm.slow_wait(None)
    with ssm.Pool.attach(pool_name) as pool:
        ring = pool.ring("in")
        talk.send("ready")
        if latency:
            ages = []
            for _ in range(count):
                with ring.get() as packet:
                    ages.append(age_us(packet))
            talk.send(statistics.median(ages))
            return
        clock, over = Clock(count), False
        while not over:
            batch = ring.get_many(BATCH)
            over = clock.saw(len(batch))
            batch.free()
        talk.send(clock.rate)


class Bridged:
    """Two pools, and the bridges between them."""

    def __init__(self, kind: str, size: int) -> None:
        blocks = 8192 if size < 1 << 16 else 256
        self.capacity = 2048 if size < 1 << 16 else 64
        names = [f"bench-{os.getpid()}-{time.monotonic_ns() % 10**8}{end}" for end in "ab"]
        self.pools = [ssm.Pool.create(name, sizes={size: blocks}, ephemeral=True) for name in names]
        self.pools[0].ring("out", capacity=self.capacity, redeliver=True, consumers="one", peers=False)
        self.pools[1].ring("in", capacity=self.capacity)
        port = free_port()
        self.bridges = [
            SPAWN.Process(target=run_bridge, args=(pool.name, kind, port, end == 0), daemon=True)
            for end, pool in enumerate(self.pools)
        ]
        for bridge in self.bridges:
            bridge.start()
        try:
            self.meet(size)
        except BaseException:
            self.close()
            raise

    def meet(self, size: int) -> None:
        """Wait until a first packet has crossed."""
        ssm.slow_wait(None)
        self.pools[0].ring("out").send(bytes(size))
        self.pools[1].ring("in").get(timeout=PATIENCE_S).free()

    def close(self) -> None:
        for bridge in self.bridges:
            bridge.terminate()
            bridge.join()
        for pool in self.pools:
            pool.close()


# ---- measuring ------------------------------------------------------------------------------------------


def between(receiver: Any, sender: Any, to_receiver: tuple[Any, ...], to_sender: tuple[Any, ...]) -> float:
    """Run both in processes of their own; return what the receiver says."""
    here, there = SPAWN.Pipe()
    processes = [
        SPAWN.Process(target=receiver, args=(there, *to_receiver), daemon=True),
        SPAWN.Process(target=sender, args=to_sender, daemon=True),
    ]
    try:
        for process in processes:
            process.start()
            if process is processes[0] and not (here.poll(PATIENCE_S) and here.recv() == "ready"):
                raise TimeoutError("the receiver does not come up")
        if not here.poll(PATIENCE_S):
            raise TimeoutError(f"nothing was received in {PATIENCE_S:g} s")
        return float(here.recv())
    finally:
        for process in processes:
            process.join(5)
            process.kill()
            process.join()


def once(kind: str, how: str, size: int, count: int, *, latency: bool = False) -> float:
    if how == "bare":
        port = free_port()
        what = (kind, port, size, count, latency)
        return between(bare_receiver, bare_sender, what, what)
    bridged = Bridged(kind, size)
    try:
        names = [pool.name for pool in bridged.pools]
        return between(consumer, producer, (names[1], count, latency), (names[0], size, count, latency))
    finally:
        bridged.close()


def spent_ns(pid: int) -> tuple[int, int]:
    """Nanoseconds on a processor, and sleeps, of all threads of a process."""
    spent = woken = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        spent += int((task / "schedstat").read_text().split()[0])
        status = (task / "status").read_text()
        woken += int(status.partition("voluntary_ctxt_switches:")[2].split()[0])
    return spent, woken


def idle(kind: str, seconds: float) -> dict[str, float]:
    """Let bridges be idle, after some packets; return their share of a processor in %, and wake-ups a second."""
    bridged = Bridged(kind, SINGLE)
    try:
        names = [pool.name for pool in bridged.pools]
        between(consumer, producer, (names[1], 1000, False), (names[0], SINGLE, 1000, False))
        time.sleep(2)
        before = [spent_ns(bridge.pid) for bridge in bridged.bridges]
        time.sleep(seconds)
        after = [spent_ns(bridge.pid) for bridge in bridged.bridges]
    finally:
        bridged.close()
    spent, woken = (
        max(later[column] - earlier[column] for earlier, later in zip(before, after, strict=True))
        for column in (0, 1)
    )
    return {"percent": spent / seconds / 1e7, "wakes": woken / seconds}


def measure(kinds: list[str], rounds: int, quick: bool) -> list[dict[str, Any]]:
    part, results = 10 if quick else 1, []
    rows = [("rate", size, count // part) for size, count in SIZES.items()]
    for what, size, count in [*rows, ("latency", SINGLE, 1000 // part)]:
        for kind in kinds:
            runs: dict[str, list[float]] = {"bare": [], "bridge": []}
            for turn, how in itertools.product(range(rounds), runs):
                note(f"round {turn + 1} of {rounds}: {what}, {kind}, {size} bytes, {how}")
                runs[how].append(once(kind, how, size, count, latency=what == "latency"))
            medians = {how: statistics.median(values) for how, values in runs.items()}
            results.append({"what": what, "carrier": kind, "size": size, "runs": runs, "median": medians})
    for kind in kinds:
        note(f"idle: {kind}")
        results.append({"what": "idle", "carrier": kind, **idle(kind, 3 if quick else 20)})
    note("")
    return results


def markdown(document: dict[str, Any]) -> str:
    lines = [measured_on(document, "make bench-bridge"), ""]
    lines += ["| carrier | packets | bare | bridge | bridge / bare | goal |", "|---|---|--:|--:|--:|---|"]
    for result in document["results"]:
        if result["what"] == "idle":
            continue
        bare, bridge = result["median"]["bare"], result["median"]["bridge"]
        if result["what"] == "rate":
            figures = f"{result['size']:,} bytes | {bare:,.0f}/s | {bridge:,.0f}/s | {bridge / bare:.2f}"
            lines.append(f"| {result['carrier']} | {figures} | {GOALS[result['size']]} |")
        else:
            figures = (
                f"one, {result['size']} bytes | {bare:,.0f} us | {bridge:,.0f} us | {bridge - bare:+,.0f} us"
            )
            lines.append(f"| {result['carrier']} | {figures} | +100 us |")
    lines += ["", "| carrier | of a processor when idle | wake-ups | goal |", "|---|--:|--:|---|"]
    lines += [
        f"| {result['carrier']} | {result['percent']:.2f} % | {result['wakes']:.0f}/s | 0.5 % |"
        for result in document["results"]
        if result["what"] == "idle"
    ]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5, help="runs of each (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one round, of a tenth of the packets")
    parser.add_argument("--carrier", action="append", choices=list(CARRIERS))
    add_output(parser)
    args = parser.parse_args(argv)
    kinds = args.carrier or list(CARRIERS)
    if absent := [CARRIERS[kind] for kind in kinds if importlib.util.find_spec(CARRIERS[kind]) is None]:
        parser.error(f"{absent[0]} is not installed; choose by --carrier")
    document = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(None) | {"numpy": np.__version__},
        "results": measure(kinds, 1 if args.quick else args.rounds, args.quick),
    }
    print(markdown(document))
    save(document, args, "bridge")
    return 0


if __name__ == "__main__":
    sys.exit(main())
