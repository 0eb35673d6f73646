# SPDX-License-Identifier: Apache-2.0
"""Network namespaces as hosts, with bridges between their pools, and packets from one to the others that are counted.

Host 0 is in the middle: each other host has a link to it, and a bridge there that talks with its own one. Needs root,
for the namespaces. faults.py says what goes wrong between them.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PATIENCE_S = 60.0
PORT = 7400
CLASSES = {512: 4096}
CAPACITY = 256
BATCH = 16

_CERTIFICATES = """{{
  transport: {{ link: {{ tls: {{
    root_ca_certificate: "{ca}", enable_mtls: true,
    listen_private_key: "{own}.key", listen_certificate: "{own}.pem",
    connect_private_key: "{own}.key", connect_certificate: "{own}.pem",
  }} }} }},
}}
"""


class NotPermitted(Exception):
    """No namespaces can be made here."""


def command(*arguments: str) -> str:
    """Run something that has to succeed; return what it printed."""
    done = subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return done.stdout


@dataclass
class Bridge:
    """One end of a bridge: a process that can be killed and started again."""

    inside: Sequence[str]
    """What runs a command on its host."""
    told: Path
    """What it and its successors print goes there."""
    nursery: subprocess.Popen[str] | None = None
    pid: int = 0
    alone: subprocess.Popen[bytes] | None = None

    def start(self, arguments: Sequence[str], before: Sequence[str] = (), code: str = "") -> None:
        """Run ``ssm bridge`` there; with `before`, by that command, with `code`, after that Python code."""
        self.kill()
        if before or code:
            run = f"{code}\nimport sys\nfrom ssm import cli\nsys.exit(cli.main(['bridge', *sys.argv[1:]]))"
            with self.told.open("ab") as told:
                self.alone = subprocess.Popen(
                    [*self.inside, *before, sys.executable, "-c", run, *arguments], stdout=told, stderr=told
                )
            return
        if self.nursery is None:
            with self.told.open("ab") as told:
                self.nursery = subprocess.Popen(
                    [*self.inside, sys.executable, "-m", "tests.ssm.bridge.nursery"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=told,
                    text=True,
                )
        assert self.nursery.stdin is not None
        assert self.nursery.stdout is not None
        self.nursery.stdin.write(json.dumps(list(arguments)) + "\n")
        self.nursery.stdin.flush()
        self.pid = int(self.nursery.stdout.readline())

    def kill(self) -> None:
        """SIGKILL; wait until it is gone."""
        alone, self.alone = self.alone, None
        if alone is not None:
            alone.kill()
            alone.wait(PATIENCE_S)
        pid, self.pid = self.pid, 0
        if pid and self.nursery is not None and self.nursery.stdout is not None:
            with contextlib.suppress(
                ProcessLookupError
            ):  # its parent, which keeps its pid, has not reaped it
                os.kill(pid, signal.SIGKILL)
            self.nursery.stdout.readline()

    def close(self) -> None:
        """End it, and what starts it."""
        self.kill()
        if self.nursery is not None:
            self.nursery.communicate(timeout=PATIENCE_S)  # its input ends
            self.nursery = None


class Hosts:
    """Namespaces, the links between them, and the bridges that run there."""

    def __init__(self, count: int = 2) -> None:
        self.names = [f"ssm{os.getpid()}h{host}" for host in range(count)]
        self.others = range(1, count)
        self._folder = tempfile.TemporaryDirectory()
        self.folder = Path(self._folder.name)
        self.told = self.folder / "told"
        self.bridges = {
            (host, other): Bridge(self.inside(host), self.told)
            for other in self.others
            for host in (0, other)
        }

    def inside(self, host: int) -> list[str]:
        """Return what runs a command there."""
        return ["ip", "netns", "exec", self.names[host]]

    def on(self, host: int, *arguments: str) -> str:
        """Run a command there."""
        return command(*self.inside(host), *arguments)

    @staticmethod
    def address(host: int, other: int) -> str:
        """Return the address of a host on the link between host 0 and that other one."""
        return f"10.77.{other}.{1 if host == 0 else 2}"

    @staticmethod
    def device(host: int, other: int) -> str:
        """Return the network device of a host on that link."""
        return f"s{os.getpid()}l{other}{'ab'[host > 0]}"

    def __enter__(self) -> Self:
        try:
            for name in self.names:
                command("ip", "netns", "add", name)
                command("ip", "-n", name, "link", "set", "lo", "up")
            for other in self.others:
                ends = [(host, self.device(host, other)) for host in (0, other)]
                command("ip", "link", "add", ends[0][1], "type", "veth", "peer", "name", ends[1][1])
                for host, device in ends:
                    command("ip", "link", "set", device, "netns", self.names[host])
                    where = f"{self.address(host, other)}/24"
                    command("ip", "-n", self.names[host], "addr", "add", where, "dev", device)
                    command("ip", "-n", self.names[host], "link", "set", device, "up")
        except (OSError, subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            self.__exit__()
            raise NotPermitted(f"no network namespaces here: {error}") from None
        return self

    def __exit__(self, *_: object) -> None:
        for bridge in self.bridges.values():
            bridge.close()
        for name in self.names:
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                command("ip", "netns", "del", name)
        for other in self.others:  # if it had not come into its namespace yet
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                command("ip", "link", "del", self.device(0, other))
        self._folder.cleanup()

    def link(self, up: bool, other: int = 1) -> None:
        """Take a link down, or up again."""
        device = self.device(0, other)
        command("ip", "-n", self.names[0], "link", "set", device, "up" if up else "down")

    def said(self) -> str:
        """Return what the bridges have printed."""
        return self.told.read_text() if self.told.exists() else ""

    # ---- keys -----------------------------------------------------------------------------------------

    def make_key(self, name: str) -> Path:
        """Make a pair of keys for zmq; return where, without the ending."""
        command(sys.executable, "-m", "ssm", "bridge", "--make-key", str(self.folder / name))
        return self.folder / name

    def make_authority(self, name: str) -> Path:
        """Make an authority for certificates; return where, without the ending."""
        path = self.folder / name
        new = [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            f"/CN={name}",
        ]
        command(*new, "-keyout", f"{path}.key", "-out", f"{path}.pem")
        return path

    def make_certificate(self, name: str, authority: Path, host: int) -> Path:
        """Make a certificate for a host, and a configuration of zenoh that uses it; return where that is."""
        own, ext = self.folder / name, self.folder / f"{name}.ext"
        ext.write_text(f"subjectAltName=IP:{self.address(host, 1)}\n")
        request = ["openssl", "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        command(*request, "-keyout", f"{own}.key", "-out", f"{own}.csr")
        sign = ["openssl", "x509", "-req", "-in", f"{own}.csr", "-days", "2", "-CAcreateserial"]
        sign += ["-CA", f"{authority}.pem", "-CAkey", f"{authority}.key"]
        command(*sign, "-extfile", str(ext), "-out", f"{own}.pem")
        config = self.folder / f"{name}.json5"
        config.write_text(_CERTIFICATES.format(ca=f"{authority}.pem", own=own))
        return config


# ---- packets ------------------------------------------------------------------------------------------


class Books:
    """Which packets arrived, by their tags 0, 1, 2, ..."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seen = np.zeros(1 << 16, dtype="?")
        self._next = 0  # behind the highest one
        self.got = self.twice = self.late = 0

    def write(self, tags: np.ndarray[Any, Any]) -> None:
        """Note packets in the order of their arrival."""
        with self._lock:
            while int(tags.max()) >= len(self._seen):
                self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
            self.got += len(tags)
            if (tags == np.arange(self._next, self._next + len(tags), dtype="u8")).all():
                self._seen[self._next : self._next + len(tags)] = True
                self._next += len(tags)
                return
            for tag in tags.tolist():
                self.twice += int(self._seen[tag])
                self.late += int(tag < self._next and not self._seen[tag])
                self._seen[tag] = True
                self._next = max(self._next, tag + 1)

    def lost(self, put: int) -> int:
        """Return how many of the first `put` never came."""
        return put - int(self._seen[:put].sum())


class Flow:
    """Packets from the pool of host 0 to the others, counted by their tags."""

    def __init__(self, pools: Sequence[ssm.Pool], pause_s: float = 0.002) -> None:
        self.source, self.pause_s, self.books = pools[0], pause_s, Books()
        self.put = self.waited = 0
        self.stands = self._ends = False
        self._leaves: set[str] = set()
        self.errors: list[BaseException] = []
        self._producer = self._thread(self._produce)
        self._consumers = {pool.name: self._thread(self._consume, pool) for pool in pools[1:]}

    def _thread(self, work: Callable[..., None], *args: object) -> threading.Thread:
        def run() -> None:
            try:
                work(*args)
            except BaseException as error:  # raised where somebody waits for progress
                self.errors.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def _produce(self) -> None:
        ring = self.source.ring("out")
        while not self._ends:
            batch = self.source.alloc_many(BATCH, 200, timeout=None)
            batch.tags = range(self.put, self.put + BATCH)
            while not self._ends:
                try:
                    ring.put_many(batch, timeout=0.2)
                except ssm.RingFull:
                    self.waited += 1
                    continue
                except ValueError as error:
                    raise AssertionError(f"{error}: {_who_has(self.source, batch)}") from error
                self.put += BATCH
                break
            time.sleep(self.pause_s)
        ring.shutdown()

    def _consume(self, pool: ssm.Pool) -> None:
        ring = pool.ring("in")
        while pool.name not in self._leaves:
            try:
                batch = ring.get_many(64, timeout=0.1)
            except ssm.RingEmpty:
                continue
            except ssm.RingShutDown:
                return
            self.books.write(batch.tags)
            batch.free()
            while self.stands and pool.name not in self._leaves:
                time.sleep(0.01)

    def leave(self, pool: ssm.Pool) -> None:
        """Take no more out of that pool."""
        self._leaves.add(pool.name)
        self._consumers.pop(pool.name).join(PATIENCE_S)

    def join(self, pool: ssm.Pool) -> None:
        """Take packets out of that pool, too."""
        self._consumers[pool.name] = self._thread(self._consume, pool)

    def _check(self) -> None:
        for error in self.errors:
            raise error

    def progress(self, packets: int) -> None:
        """Wait until so many more have arrived."""
        goal, until = self.books.got + packets, time.monotonic() + PATIENCE_S
        while self.books.got < goal:
            self._check()
            if time.monotonic() > until:
                raise TimeoutError(
                    f"{self.books.got} of {self.put} arrived, and then nothing for {PATIENCE_S:g} s"
                )
            time.sleep(0.005)

    def stop(self) -> None:
        """Put no more."""
        self._ends = True

    def end(self) -> None:
        """Wait until the shutdown has crossed."""
        self.stop()
        for thread in (self._producer, *self._consumers.values()):
            thread.join(2 * PATIENCE_S)
        self._check()


def _who_has(pool: ssm.Pool, batch: ssm.PacketBatch) -> str:
    """Return what is known of packets that a ring refused."""
    handles: list[int] = [packet.handle for packet in batch]
    holders = {handle: pool._packet_holders(handle) for handle in handles}
    return f"{len(handles)} packets, {len(set(handles))} handles, held by {holders}"


@contextlib.contextmanager
def pools(names: Sequence[str], consumers: str = "one") -> Iterator[list[ssm.Pool]]:
    """Pools with a ring to export, and one to import in each of the others; those in the list at the end are closed."""
    made: list[ssm.Pool] = []
    try:
        for name in names:
            made.append(new_pool(name, consumers if not made else None))
        yield made
    finally:
        for pool in made:
            pool.close()


def new_pool(name: str, consumers: Any = None) -> ssm.Pool:
    """Return a pool, with a ring to export for so many consumers; None: with a ring to import."""
    pool = ssm.Pool.create(name, classes=CLASSES, ephemeral=True)
    if consumers is None:
        pool.ring("in", capacity=CAPACITY)
    else:
        pool.ring("out", capacity=CAPACITY, redeliver=True, consumers=consumers, peers=False)
    return pool
