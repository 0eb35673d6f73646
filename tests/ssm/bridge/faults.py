# SPDX-License-Identifier: Apache-2.0
"""What goes wrong between hosts, and what it cost: the table of docs/guide/hosts.md.

    python -m tests.ssm.bridge.faults            make bridge-faults ARGS="--only killed --carrier zmq --kills 1000"

Each row is one run: packets flow, the fault happens, packets flow again, the ring is shut down, and the books are
closed: packets lost, come twice, come late. Each row has bounds, 0 unless it says otherwise. The exit status is 1 if a
bound is exceeded. Needs root, for the namespaces.

Loss and delay are made by iptables (statistic) and tc (tbf): these need less of a kernel than netem.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import random
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm.bridge import wire
from tests.processes import wait_until
from tests.ssm.bridge import two_hosts
from tests.ssm.bridge.two_hosts import PORT, Flow, Hosts, NotPermitted, command, pools

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import ssm

CARRIERS = ("zmq", "zenoh")
SETTLE = 200  # packets that have to arrive before a fault and behind it
FAKETIME = "*/faketime/libfaketime.so.1"


@dataclass
class Scene:
    """Hosts, their pools, the bridges between them, and the flow of packets."""

    kind: str
    hosts: Hosts
    pools: list[ssm.Pool]
    flow: Flow = field(init=False)
    kills: int = 100
    keys: list[Path] = field(default_factory=list[Path])

    def arguments(self, host: int, other: int, key: Path | None = None) -> list[str]:
        """Return the arguments of `ssm bridge` on one end of a link; with `key`, that one instead of its own."""
        where = f"{self.hosts.address(0, other)}:{PORT}"
        rings = ["--import", "frames:in"] if host else ["--export", "out:frames"]
        safe = ["--insecure"]
        if self.kind == "zmq":
            own = key or self.keys[min(host, 1)]
            safe = ["--key", f"{own}.key_secret", "--peer-key", f"{self.keys[int(host == 0)]}.key"]
        elif self.keys:
            safe, where = ["--zenoh-config", str(key or self.keys[min(host, 1)])], f"tls/{where}"
        ends = ["--connect" if host else "--listen", where]
        return [self.pools[host].name, "--carrier", self.kind, *ends, *rings, *safe]

    def restart(self, host: int, other: int = 1, *, key: Path | None = None, **how: Any) -> None:
        """Kill a bridge, if it runs, and start it."""
        self.hosts.bridges[host, other].start(self.arguments(host, other, key), **how)

    def begin(self, others: Sequence[int] = (1,)) -> None:
        """Start bridges and flow."""
        for other in others:
            for host in (0, other):
                self.restart(host, other)
        self.flow = Flow(self.pools)
        self.flow.progress(SETTLE)


@dataclass(frozen=True)
class Told:
    """What a fault says of itself, and what it may cost."""

    times: int
    note: str = ""
    lost: int = 0
    twice: int = 0
    ordered: bool = True


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    name: str
    happens: Callable[[Scene], Told]
    consumers: str = "one"
    hosts: int = 2
    secure: bool = False
    """Whether zenoh has certificates, too; zmq always has keys."""
    missing: Callable[[], str] = lambda: ""
    """Why it cannot run here; empty: it can."""


# ---- the network --------------------------------------------------------------------------------------


def cut(seconds: float, times: int) -> Callable[[Scene], Told]:
    """Take the link down."""

    def happens(scene: Scene) -> Told:
        for _ in range(times):
            scene.hosts.link(up=False)
            time.sleep(seconds)
            scene.hosts.link(up=True)
            scene.flow.progress(SETTLE)
        return Told(times)

    return happens


def lose(percent: float, seconds: float) -> Callable[[Scene], Told]:
    """Drop some of what arrives, on both sides."""

    def happens(scene: Scene) -> Told:
        chance = ["-m", "statistic", "--mode", "random", "--probability", f"{percent / 100:g}"]
        for host in (0, 1):
            scene.hosts.on(
                host, "iptables", "-A", "INPUT", "-i", scene.hosts.device(host, 1), *chance, "-j", "DROP"
            )
        time.sleep(seconds)
        dropped = 0
        for host in (0, 1):
            rules = scene.hosts.on(host, "iptables", "-nvxL", "INPUT")
            dropped += sum(int(line.split()[0]) for line in rules.splitlines() if " DROP " in line)
            scene.hosts.on(host, "iptables", "-F", "INPUT")
        assert dropped > 0, "nothing was dropped"
        return Told(1, f"{dropped:,} frames dropped")

    return happens


def delay(seconds: float) -> Callable[[Scene], Told]:
    """Let what is sent wait in a queue that is emptied slowly, and drop what finds no room in it, on both sides."""

    def happens(scene: Scene) -> Told:
        shape = ["tbf", "rate", "4mbit", "burst", "16kb", "latency", "300ms"]
        for host in (0, 1):
            scene.hosts.on(host, "tc", "qdisc", "add", "dev", scene.hosts.device(host, 1), "root", *shape)
        time.sleep(seconds)
        dropped = waited = 0
        for host in (0, 1):
            device = scene.hosts.device(host, 1)
            shown = scene.hosts.on(host, "tc", "-s", "qdisc", "show", "dev", device)
            for what, count in re.findall(r"(dropped|overlimits) (\d+)", shown):
                dropped += int(count) * (what == "dropped")
                waited += int(count) * (what == "overlimits")
            scene.hosts.on(host, "tc", "qdisc", "del", "dev", device, "root")
        assert waited > 0, "nothing had to wait"
        return Told(1, f"{waited:,} frames had to wait, {dropped:,} were dropped")

    return happens


# ---- processes ----------------------------------------------------------------------------------------


def kills(*hosts: int) -> Callable[[Scene], Told]:
    """Kill bridges after observed progress."""

    def happens(scene: Scene) -> Told:
        rng = random.Random(scene.kills)
        for _ in range(scene.kills):
            scene.flow.progress(rng.randrange(1, 300))
            time.sleep(rng.random() * 0.05)
            scene.restart(rng.choice(hosts))
        return Told(scene.kills)

    return happens


def stand_still(seconds: float) -> Callable[[Scene], Told]:
    """Let the consumer there take nothing."""

    def happens(scene: Scene) -> Told:
        scene.flow.stands = True
        time.sleep(seconds)
        scene.flow.stands = False
        return Told(1)

    return happens


def fill(times: int) -> Callable[[Scene], Told]:
    """Let the ring there fill until the producer here waits."""

    def happens(scene: Scene) -> Told:
        for _ in range(times):
            scene.flow.stands = True
            goal = scene.flow.waited + 5
            wait_until(lambda goal=goal: scene.flow.waited >= goal, "a producer that waits")
            scene.flow.stands = False
            scene.flow.progress(2000)
        return Told(times, f"the producer found its ring full {scene.flow.waited} times")

    return happens


def reboot(times: int) -> Callable[[Scene], Told]:
    """Lose the pool there with all that is in it, and make it anew."""

    def happens(scene: Scene) -> Told:
        gone = 0
        for number in range(times):
            old = scene.pools[1]
            scene.flow.progress(500)
            scene.flow.stands, ring = True, old.ring("in")
            wait_until(lambda ring=ring: ring.qsize() > two_hosts.CAPACITY // 2, "packets in that pool")
            scene.hosts.bridges[1, 1].kill()
            scene.flow.leave(old)
            scene.flow.stands = False
            old.reap()  # what the bridge had in hand goes back
            gone += sum(ring.depth for ring in old.stats().rings)
            old.close()
            scene.pools[1] = two_hosts.new_pool(f"{old.name}-{number}")
            scene.flow.join(scene.pools[1])
            scene.restart(1)
            scene.flow.progress(SETTLE)
        said = scene.hosts.said()
        assert said.count("a new stream begins") == 1 + times, said
        assert said.count("the other host's pool is new") == times, said
        # What had arrived and was not acknowledged comes again: at most what the bridge there may have taken.
        window = 2 * two_hosts.CAPACITY
        return Told(
            times, f"{gone:,} packets were in the lost pools; both sides say so", gone, times * window
        )

    return happens


# ---- those that do not belong together ----------------------------------------------------------------


def _stands(scene: Scene, seconds: float) -> None:
    """Nothing crosses for so long."""
    time.sleep(1)  # what had arrived before
    before = scene.flow.books.got
    time.sleep(seconds)
    assert scene.flow.books.got == before, "packets crossed"


def wrong_key(scene: Scene) -> Told:
    """Come with another key, or a certificate of another authority."""
    if scene.kind == "zmq":
        key = scene.hosts.make_key("other")
    else:
        key = scene.hosts.make_certificate("other", scene.hosts.make_authority("nobody"), 1)
    for _ in range(3):
        scene.hosts.bridges[1, 1].kill()
        scene.restart(1, key=key)
        _stands(scene, 3)
    scene.restart(1)
    return Told(3, "nothing crossed meanwhile")


def old_version(scene: Scene) -> Told:
    """Come with another version of the protocol."""
    for version in (0, wire.VERSION + 1, 255):
        scene.restart(1, code=f"from ssm.bridge import wire; wire.VERSION = {version}")
        wait_until(
            lambda version=version: f"speaks version {version}" in scene.hosts.said(),
            f"version {version} is told",
        )
        _stands(scene, 2)
    scene.restart(1)
    return Told(3, "nothing crossed meanwhile; both sides say so")


def clocks(scene: Scene) -> Told:
    """Start bridges whose monotonic clock is years on, and then back again."""
    rng, times = random.Random(5), 8
    for number in range(times):
        host, offset = number % 2, rng.randrange(3600, 10**9) * (number % 4 < 2)
        namespace = ["unshare", "--time", "--monotonic", str(offset), "--boottime", str(offset)]
        scene.restart(host, before=namespace)
        scene.flow.progress(SETTLE)
    return Told(times, "up to 31 years")


def faketime() -> Path | None:
    """Return the library that makes clocks jump."""
    return next(iter(Path("/usr/lib").glob(FAKETIME)), None)


def jumps(scene: Scene) -> Told:
    """Let the wall clock of running bridges jump."""
    clock = scene.hosts.folder / "clock"
    clock.write_text("+0")
    env = [f"LD_PRELOAD={faketime()}", f"FAKETIME_TIMESTAMP_FILE={clock}", "FAKETIME_NO_CACHE=1"]
    for host in (0, 1):
        scene.restart(host, before=["env", *env, "FAKETIME_DONT_FAKE_MONOTONIC=1"])
    offsets = ("+1h", "-1h", "+400d", "-400d", "+0", "+10y", "+0", "-5s")
    for offset in offsets:
        scene.flow.progress(SETTLE)
        fresh = clock.with_suffix(".new")
        fresh.write_text(offset)
        fresh.replace(clock)
    for host in (0, 1):
        bridge = scene.hosts.bridges[host, 1]
        pid = bridge.alone.pid if bridge.alone is not None else 0
        scene.restart(host)
        for left in (f"faketime_shm_{pid}", f"sem.faketime_sem_{pid}"):
            Path("/dev/shm", left).unlink(missing_ok=True)
    return Told(len(offsets), "up to ten years, on and back")


def one_of_three(scene: Scene) -> Told:
    """Kill the bridge of one host of a work queue; it comes back when the other one has taken its packets."""
    times = 2
    for number in range(times):
        scene.flow.progress(1000)
        other = 1 + number % 2
        scene.hosts.bridges[other, other].kill()
        time.sleep(8)  # after 5 s of silence its packets go to the other host
        scene.flow.progress(1000)
        scene.restart(other, other)
    window = 2 * two_hosts.CAPACITY + 512
    return Told(
        times, "each host has a part; at least once, in no order", twice=times * window, ordered=False
    )


ROWS = (
    Row("link down for 4 s", cut(4, 3)),
    Row("link down for 15 s", cut(15, 1)),
    Row("5 % of all frames lost, for 20 s", lose(5, 20)),
    Row("a slow link that delays and drops, for 20 s", delay(20)),
    Row("sending bridge killed", kills(0)),
    Row("receiving bridge killed", kills(1)),
    Row("now this bridge killed, now that one", kills(0, 1)),
    Row("consumer stands still for 13 s", stand_still(13)),
    Row("ring there full", fill(5)),
    Row("pool there lost and made anew", reboot(3)),
    Row("wrong key", wrong_key, secure=True),
    Row("another version of the protocol", old_version),
    Row("monotonic clock jumps between restarts", clocks),
    Row("wall clock jumps", jumps, missing=lambda: "" if faketime() else "libfaketime is not installed"),
    Row("work queue over three hosts, one killed", one_of_three, consumers="many", hosts=3),
)


# ---- running ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """A row that has run."""

    told: Told
    put: int
    lost: int
    twice: int
    late: int

    @property
    def good(self) -> bool:
        """Whether it kept its bounds."""
        late = 0 if self.told.ordered else self.late
        return self.lost <= self.told.lost and self.twice <= self.told.twice and self.late <= late


def run(kind: str, row: Row, names: Sequence[str], kill_count: int = 100) -> Result:
    """Run one row. NotPermitted: namespaces cannot be made here."""
    with pools(names, row.consumers) as made, Hosts(row.hosts) as hosts:
        scene = Scene(kind, hosts, made, kills=kill_count)
        if kind == "zmq":
            scene.keys = [hosts.make_key(end) for end in "ab"]
        elif row.secure:
            authority = hosts.make_authority("lab")
            scene.keys = [hosts.make_certificate(end, authority, host) for host, end in enumerate("ab")]
        try:
            scene.begin(hosts.others)
            told = row.happens(scene)
            scene.flow.progress(SETTLE)
            scene.flow.end()
        except (TimeoutError, AssertionError) as error:
            raise type(error)(f"{kind}, {row.name}: {error}\n{hosts.said()[-4000:]}") from error
        finally:
            if hasattr(scene, "flow"):
                scene.flow.stop()
        books = scene.flow.books
        return Result(told, scene.flow.put, books.lost(scene.flow.put), books.twice, books.late)


def _head() -> str:
    commit = ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        commit = f", commit {command('git', 'rev-parse', '--short', 'HEAD').strip()}"
        commit += " and changes" * bool(command("git", "status", "--porcelain", "--untracked-files=no"))
    return f"{datetime.now(UTC):%Y-%m-%d}{commit}, Linux {platform.release()}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Faults between hosts, and what they cost.")
    parser.add_argument("--carrier", action="append", choices=CARRIERS)
    parser.add_argument("--only", action="append", metavar="ROW", help="rows whose name has this in it")
    parser.add_argument(
        "--kills", type=int, default=100, metavar="N", help="in each row of kills (%(default)s)"
    )
    args = parser.parse_args()
    print(f"{_head()}\n\n| carrier | fault | times | packets | lost | twice | late | allowed | seconds | |")
    print("|---|---|---:|---:|---:|---:|---:|---|---:|---|", flush=True)
    bad = 0
    for row in ROWS:
        for kind in args.carrier or CARRIERS:
            if args.only and not any(text in row.name for text in args.only):
                continue
            if why := row.missing():
                print(f"| {kind} | {row.name} | 0 | | | | | | | not run: {why} |", flush=True)
                continue
            since, names = time.monotonic(), [f"ssm-faults-{os.getpid()}-{host}" for host in range(row.hosts)]
            try:
                result = run(kind, row, names, args.kills)
            except NotPermitted as error:
                sys.exit(str(error))
            except (TimeoutError, AssertionError, subprocess.SubprocessError) as error:
                print(f"| {kind} | {row.name} | FAILED |", flush=True)
                print(error, file=sys.stderr, flush=True)
                bad += 1
                continue
            bad += not result.good
            told = result.told
            allowed = ", ".join(
                [f"{told.lost:,} lost"] * bool(told.lost) + [f"{told.twice:,} twice"] * bool(told.twice)
            )
            late = f"{result.late:,}" if told.ordered else "-"
            print(
                f"| {kind} | {row.name} | {told.times:,} | {result.put:,} | {result.lost:,} | {result.twice:,} "
                f"| {late} | {allowed or 'none'} | {time.monotonic() - since:.0f} | {told.note} |",
                flush=True,
            )
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
