# SPDX-License-Identifier: Apache-2.0
"""``ssm replay``: the packets of a file into a ring."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from ssm.commands.output import add_json, add_pool, print_json
from ssm.commands.recording import Record, RecordingError, read


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm replay``."""
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="what `ssm record` wrote, or any pcap or pcapng file")
    add_pool(parser)
    add("ring", metavar="RING", help="the ring; created when it is not there")
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
        if (early := due - time.monotonic()) > 0:
            time.sleep(early)


def run(args: argparse.Namespace) -> int:
    """Replay the file."""
    from ssm import Pool

    count = size = 0
    try:
        with Pool.attach(args.pool) as pool:
            ring = pool.ring(args.ring)
            for _ in range(args.repeat):
                clock = _Clock(args.speed)
                for record in read(args.file):
                    clock.wait_for(record)
                    packet = pool.alloc(len(record.data), timeout=None)
                    packet[:] = record.data
                    packet.tag = record.tag
                    ring.put(packet)
                    count += 1
                    size += len(record.data)
            if args.shutdown:
                ring.shutdown()
    except RecordingError as error:
        print(f"ssm replay: {error}; {count:,} packets were put", file=sys.stderr)
        return 2
    if args.json:
        print_json({"packets": count, "bytes": size})
    else:
        print(f"{count:,} packets, {size:,} bytes", file=sys.stderr)
    return 0
