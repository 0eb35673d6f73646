# SPDX-License-Identifier: Apache-2.0
"""``ssm record``: the packets of a ring into a file."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm.captures.recording import FORMATS, LINKTYPE_ETHERNET, Record, format_of, writer
from ssm.commands.completion import completed_by, ring_names
from ssm.commands.output import add_json, add_pool, print_json
from ssm.errors import SSMError, StaleHandle
from ssm.terminal import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Generator
    from types import FrameType

    from ssm import Packet, PacketBatch, Ring

BATCH = 64
LOOK_S = 0.1  # so often is the time looked at
FULL_S = 0.005  # and so often the next ring, while it is full
GIVE_BACK_S = 5.0  # others may have filled the ring meanwhile
# What ends a process by default, can be caught, and is no fault of its own. Python makes errors of SIGPIPE and SIGXFSZ.
ENDING = [
    number
    for number in signal.Signals
    if number.name.removeprefix("SIG")
    in {"HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "ALRM", "VTALRM", "PROF", "XCPU", "IO", "PWR", "STKFLT"}
]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm record``."""
    add_pool(parser)
    add = parser.add_argument
    ring = add(
        "ring", metavar="RING", help="the ring; what is recorded is taken out of it, as by any consumer"
    )
    completed_by(ring_names, ring)
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="*.pcapng for that format, any other name for records with a length",
    )
    to = add("--to", metavar="RING", help="then put each packet into this ring, without copying it")
    completed_by(ring_names, to)
    add("--count", type=int, metavar="N", help="stop after so many packets")
    add("--seconds", type=float, metavar="S", help="stop after so long")
    add("--format", choices=FORMATS, help="instead of judging by the file's name")
    add(
        "--link-type",
        type=int,
        default=LINKTYPE_ETHERNET,
        help="of the frames, for pcapng (%(default)s: Ethernet)",
    )
    add_json(parser)


class _Stop:
    """True once a signal came that would end this process. It is looked at between two batches, and not before.

    An exception out of a signal handler might come when packets were taken out and nobody knows of them yet. The second
    signal raises in any case: its sender does not wait for a file or a ring that is stuck.
    """

    def __init__(self) -> None:
        self._asked = False

    def __bool__(self) -> bool:
        return self._asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise SystemExit(128 + number)
        self._asked = True

    @contextmanager
    def listening(self) -> Generator[None]:
        """Take the signals over, but for those that are ignored, as nohup leaves SIGHUP."""
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            before = {number: signal.getsignal(number) for number in ENDING}
        try:
            for number, handler in before.items():
                if handler is not signal.SIG_IGN and handler is not None:
                    signal.signal(number, self._ask)
            yield
        finally:
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


class _Recorder:
    """Takes packets out of a ring, a batch at a time; each of them is in the file, or in the ring again."""

    def __init__(self, source: Ring, onward: Ring | None, write: Callable[..., None], stop: _Stop) -> None:
        self._source, self._onward, self._write, self._stop = source, onward, write, stop
        self.packets = self.bytes = 0

    def run(self, count: int | None, seconds: float | None) -> None:
        """Record until told to stop, or until the ring is shut down and drained."""
        from ssm import RingEmpty, RingShutDown

        until = time.monotonic() + (seconds if seconds is not None else float("inf"))
        while not self._stop and time.monotonic() < until:
            left = BATCH if count is None else count - self.packets
            if left <= 0:
                break
            room = self._room()
            if room <= 0:
                time.sleep(FULL_S)
                continue
            try:
                batch = self._source.get_many(min(left, room), timeout=LOOK_S)
            except RingEmpty:
                continue
            except RingShutDown:
                break
            try:
                self._record(batch)
            except BaseException as error:
                self._give_back(batch, error)
                raise

    def _room(self) -> int:
        """Return how many packets may be taken out: what the next ring takes now, a batch at most."""
        if self._onward is None:
            return BATCH
        queued = len(self._onward) if self._onward.overflow == "block" else 0
        return min(BATCH, self._onward.capacity - queued)

    def _record(self, batch: PacketBatch) -> None:
        now_ns = time.time_ns()
        records = [record for packet in batch for record in _records(packet, now_ns)]
        self._write(*records)
        self.packets += len(batch)
        self.bytes += sum(len(record.data) for record in records)
        if self._onward is None:
            batch.free()
        else:
            self._pass_on(self._onward, batch)

    def _pass_on(self, onward: Ring, batch: PacketBatch) -> None:
        from ssm import RingFull

        while not self._stop:  # others may have filled the ring meanwhile
            try:
                onward.put_many(batch, timeout=LOOK_S)
            except RingFull:
                continue
            return
        self._give_back(batch, None)

    def _give_back(self, batch: PacketBatch, error: BaseException | None) -> None:
        """Put what was taken out into its ring again, at the end. What was passed on already is not the batch's."""
        count = len(batch)
        try:
            self._source.put_many(batch, timeout=GIVE_BACK_S)
        except StaleHandle:
            return  # freed, or in the next ring
        except (OSError, ValueError, SSMError) as failed:
            raise ValueError(
                f"{count:,} packets that were taken out of ring {self._source.name!r} could not be put back ({failed})"
                + (f", after: {error}" if error is not None else "; they are in the file")
            ) from error


def _records(packet: Packet, now_ns: int) -> list[Record]:
    """Return a packet as it goes into the file: itself, then the segments that are chained to it."""
    packets = [packet, *packet.chain]
    return [Record(now_ns, p.tag, bytes(p), p is not packets[-1]) for p in packets]


def run(args: argparse.Namespace) -> int:
    """Record, until the ring is shut down, the limit is reached, or a signal comes."""
    from ssm import Pool

    with Pool.attach(args.pool, label="ssm record") as pool:
        for name in filter(None, (args.ring, args.to)):
            if name not in pool.rings():
                rings = ", ".join(map(repr, pool.rings())) or "none"
                raise FileNotFoundError(f"pool {pool.name!r} has no ring {name!r} (it has {rings})")
        stop = _Stop()
        form = args.format or format_of(args.file)
        with stop.listening(), writer(args.file, form, args.link_type) as write:
            recorder = _Recorder(pool.ring(args.ring), pool.ring(args.to) if args.to else None, write, stop)
            recorder.run(args.count, args.seconds)
    if args.json:
        print_json({"packets": recorder.packets, "bytes": recorder.bytes})
    else:
        say(f"{recorder.packets:,} packets, {recorder.bytes:,} bytes", error=True)
    return 0
