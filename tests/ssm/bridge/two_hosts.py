# SPDX-License-Identifier: Apache-2.0
"""Two network namespaces as two hosts, with a bridge between their pools, and what goes wrong between them.

    python -m tests.ssm.bridge.two_hosts --markdown       make bridge-faults

Each run counts what arrived, what was lost, and what came twice. Needs root, for the namespaces.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PATIENCE_S = 60.0
ADDRESSES = ("10.77.0.1", "10.77.0.2")
PORT = 7400
CLASSES = {512: 2048}


class NotPermitted(Exception):
    """No namespaces can be made here."""


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


class Hosts:
    """Two namespaces, a link between them, and the bridges that run there."""

    def __init__(self) -> None:
        self.names = tuple(f"ssm{os.getpid()}{end}" for end in "ab")
        self.devices = tuple(f"s{os.getpid()}{end}" for end in "ab")
        self.folder = tempfile.TemporaryDirectory()
        self.bridges: list[subprocess.Popen[bytes] | None] = [None, None]
        self.told = Path(self.folder.name, "told")

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                ip("netns", "add", name)
            ip("link", "add", self.devices[0], "type", "veth", "peer", "name", self.devices[1])
            for name, device, address in zip(self.names, self.devices, ADDRESSES, strict=True):
                ip("link", "set", device, "netns", name)
                ip("-n", name, "addr", "add", f"{address}/24", "dev", device)
                ip("-n", name, "link", "set", "lo", "up")
                ip("-n", name, "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            self.__exit__()
            raise NotPermitted(f"no network namespaces here: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        for host in (0, 1):
            self.kill(host)
        for name in self.names:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                ip("netns", "del", name)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            ip("link", "del", self.devices[0])  # if it had not come into its namespace yet
        self.folder.cleanup()

    def link(self, up: bool) -> None:
        ip("-n", self.names[0], "link", "set", self.devices[0], "up" if up else "down")

    def start(self, host: int, pool: str, *arguments: str) -> None:
        """Run `ssm bridge` there; the first host listens."""
        inside = ["ip", "netns", "exec", self.names[host], sys.executable, "-m"]
        where = f"{ADDRESSES[0]}:{PORT}"
        with self.told.open("ab") as told:
            self.bridges[host] = subprocess.Popen(
                [*inside, "ssm", "bridge", pool, "--connect" if host else "--listen", where, *arguments],
                stdout=told,
                stderr=told,
            )

    def kill(self, host: int) -> None:
        bridge, self.bridges[host] = self.bridges[host], None
        if bridge is not None:
            bridge.kill()
            bridge.wait(PATIENCE_S)

    def said(self) -> str:
        return self.told.read_text() if self.told.exists() else ""

    def make_key(self, name: str) -> str:
        """Make a pair of keys; return where, without the ending."""
        path = str(Path(self.folder.name, name))
        subprocess.run(
            [sys.executable, "-m", "ssm", "bridge", "--make-key", path],
            check=True,
            capture_output=True,
            timeout=PATIENCE_S,
        )
        return path


@contextlib.contextmanager
def two_pools(names: tuple[str, str]) -> Iterator[tuple[ssm.Pool, ssm.Pool]]:
    """Pools with a ring to export, and one to import."""
    with contextlib.ExitStack() as stack:
        pools = [
            stack.enter_context(ssm.Pool.create(name, classes=CLASSES, ephemeral=True)) for name in names
        ]
        pools[0].ring("out", capacity=256, redeliver=True, consumers="one", peers=False)
        pools[1].ring("in", capacity=256)
        yield pools[0], pools[1]


class Flow:
    """Packets from one pool to the other, counted by their tags."""

    def __init__(self, pools: tuple[ssm.Pool, ssm.Pool], pause_s: float = 0.002) -> None:
        self.pools, self.pause_s = pools, pause_s
        self.put = self.got = self.lost = self.twice = 0
        self.stands = self.ends = False
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._produce, self._consume)]
        for thread in self.threads:
            thread.start()

    def _produce(self) -> None:
        ring = self.pools[0].ring("out")
        while not self.ends:
            batch = self.pools[0].alloc_many(16, 200, timeout=None)
            batch.tags = range(self.put, self.put + 16)
            while not self.ends:
                with contextlib.suppress(ssm.RingFull):
                    ring.put_many(batch, timeout=0.2)
                    self.put += 16
                    break
            time.sleep(self.pause_s)
        ring.shutdown()

    def _consume(self) -> None:
        ring, expected = self.pools[1].ring("in"), 0
        while True:
            try:
                batch = ring.get_many(64, timeout=PATIENCE_S)
            except (ssm.RingEmpty, ssm.RingShutDown):
                return
            tags = batch.tags
            if not (tags == np.arange(expected, expected + len(tags), dtype="u8")).all():
                for tag in tags.tolist():
                    self.twice += tag < expected
                    self.lost += max(0, tag - expected)
                    expected = max(expected, tag + 1)
            else:
                expected += len(tags)
            self.got += len(tags)
            batch.free()
            while self.stands:
                time.sleep(0.01)

    def progress(self, packets: int) -> None:
        """Wait until so many more have arrived."""
        goal, until = self.got + packets, time.monotonic() + PATIENCE_S
        while self.got < goal:
            if time.monotonic() > until:
                raise TimeoutError(f"{self.got} of {self.put} arrived, and then nothing for {PATIENCE_S:g} s")
            time.sleep(0.005)

    def end(self) -> tuple[int, int, int]:
        """Wait until the shutdown has crossed; return what was put, lost, and came twice."""
        self.ends = True
        for thread in self.threads:
            thread.join(2 * PATIENCE_S)
        return self.put, self.lost + self.put - self.got, self.twice


def run(
    kind: str, names: tuple[str, str], fault: Callable[[Hosts, Flow, Any], int]
) -> tuple[int, int, int, int]:
    """Let packets flow, and a fault happen; return how often it did, and what was put, lost, and came twice."""
    with two_pools(names) as pools, Hosts() as hosts:
        common = ["--carrier", kind]
        if kind == "zmq":
            keys = [hosts.make_key(end) for end in "ab"]
        rings = (["--export", "out:frames"], ["--import", "frames:in"])

        def restart(host: int) -> None:
            hosts.kill(host)
            safe = ["--insecure"]
            if kind == "zmq":
                safe = ["--key", f"{keys[host]}.key_secret", "--peer-key", f"{keys[1 - host]}.key"]
            hosts.start(host, pools[host].name, *common, *safe, *rings[host])

        for host in (0, 1):
            restart(host)
        flow = Flow(pools)
        try:
            flow.progress(200)
            times = fault(hosts, flow, restart)
            flow.progress(200)
            return times, *flow.end()
        except TimeoutError as error:
            raise TimeoutError(f"{error}\n{hosts.said()}") from None
        finally:
            flow.ends = True


def cut(seconds: float, times: int) -> Callable[[Hosts, Flow, Any], int]:
    def fault(hosts: Hosts, flow: Flow, _restart: Any) -> int:
        for _ in range(times):
            hosts.link(up=False)
            time.sleep(seconds)
            hosts.link(up=True)
            flow.progress(200)
        return times

    return fault


def kills(times: int, hosts_killed: tuple[int, ...], seed: int = 1) -> Callable[[Hosts, Flow, Any], int]:
    def fault(_hosts: Hosts, flow: Flow, restart: Any) -> int:
        rng = random.Random(seed)
        for _ in range(times):
            flow.progress(rng.randrange(1, 500))
            restart(rng.choice(hosts_killed))
        return times

    return fault


def stand_still(seconds: float) -> Callable[[Hosts, Flow, Any], int]:
    def fault(_hosts: Hosts, flow: Flow, _restart: Any) -> int:
        flow.stands = True
        time.sleep(seconds)
        flow.stands = False
        return 1

    return fault


FAULTS = {
    "link down for 4 s": cut(4, 3),
    "link down for 15 s": cut(15, 1),
    "sending bridge killed": kills(15, (0,)),
    "receiving bridge killed": kills(15, (1,)),
    "now this one killed, now that one": kills(30, (0, 1)),
    "consumer stands still for 13 s": stand_still(13),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Faults between two hosts, and what they lost.")
    parser.add_argument("--carrier", action="append", choices=("zmq", "zenoh"))
    parser.add_argument("--only", default="", help="faults whose name has this in it")
    args = parser.parse_args()
    print(
        "| carrier | fault | times | packets | lost | twice | seconds |\n|---|---|---:|---:|---:|---:|---:|",
        flush=True,
    )
    bad = 0
    for kind in args.carrier or ("zmq", "zenoh"):
        for name, fault in FAULTS.items():
            if args.only not in name:
                continue
            since = time.monotonic()
            names = tuple(f"ssm-faults-{os.getpid()}-{end}" for end in "ab")
            times, put, lost, twice = run(kind, names, fault)  # type: ignore[arg-type]
            bad += lost + twice
            took = time.monotonic() - since
            print(f"| {kind} | {name} | {times} | {put:,} | {lost} | {twice} | {took:.0f} |", flush=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
