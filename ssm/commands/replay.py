# SPDX-License-Identifier: Apache-2.0
"""``ssm replay``: the packets of a file into a ring."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ssm.captures.errors import CaptureError
from ssm.captures.recording import Record, read
from ssm.commands.completion import completed_by, ring_names
from ssm.commands.output import add_json, add_pool, print_json
from ssm.terminal import say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm import Packet, Pool

PAUSE_MAX_S = 86_400.0  # a longer one is no pause, but a time that is damaged


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm replay``."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what `ssm record` wrote, or any pcap or pcapng file")
    add_pool(parser)
    completed_by(ring_names, add("ring", metavar="RING", help="the ring; created when it is not there"))
    add(
        "--speed",
        type=_speed,
        default=1.0,
        metavar="X",
        help="1 is the original timing, 2 twice as fast, 0 no waiting",
    )
    add("--repeat", type=int, default=1, metavar="N", help="so many times (%(default)s)")
    add("--shutdown", action="store_true", help="shut the ring down afterwards")
    add_json(parser)


def _speed(text: str) -> float:
    speed = float(text)
    if not 0 <= speed < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is no speed: 0, or how many times as fast as it was")
    return speed


class _Clock:
    """Waits until a record is due; counted from the first one."""

    def __init__(self, speed: float) -> None:
        self._speed = speed
        self._start: tuple[float, int] | None = None

    def wait_for(self, record: Record) -> None:
        if self._speed == 0:
            return
        if self._start is None:
            self._start = time.monotonic(), record.time_ns
        begun, first_ns = self._start
        due = begun + (record.time_ns - first_ns) / 1e9 / self._speed
        early = due - time.monotonic()
        if early > PAUSE_MAX_S:
            raise CaptureError(
                f"the next packet is due in {early / PAUSE_MAX_S:,.0f} days, so that its time is damaged, or the speed "
                "is too low: --speed 0 does not wait"
            )
        if early > 0:
            time.sleep(early)


def _messages(file: Path) -> Iterator[list[Record]]:
    """Yield each packet with its segments."""
    message: list[Record] = []
    for record in read(file):
        message.append(record)
        if not record.more:
            yield message
            message = []


def _packet(pool: Pool, message: list[Record]) -> Packet:
    """Return a packet of the pool that holds it, with its segments."""
    packets = [_filled(pool, record) for record in message]
    if len(packets) > 1:
        packets[0].chain = tuple(packets[1:])
    return packets[0]


def _filled(pool: Pool, record: Record) -> Packet:
    packet = pool.alloc(max(1, len(record.data)), timeout=None)
    packet.truncate(len(record.data))
    packet[:] = record.data
    packet.tag = record.tag
    return packet


def run(args: argparse.Namespace) -> int:
    """Replay the file."""
    from ssm import Pool

    count = size = 0
    try:
        with Pool.attach(args.pool, label="ssm replay") as pool:
            ring = pool.ring(args.ring)
            for _ in range(args.repeat):
                clock = _Clock(args.speed)
                for message in _messages(args.file):
                    clock.wait_for(message[0])
                    ring.put(_packet(pool, message))
                    count += 1
                    size += sum(len(record.data) for record in message)
            if args.shutdown:
                ring.shutdown()
    except CaptureError as error:
        say(f"ssm replay: {error}; {count:,} packets were put", error=True)
        return 2
    if args.json:
        print_json({"packets": count, "bytes": size})
    else:
        say(f"{count:,} packets, {size:,} bytes", error=True)
    return 0
