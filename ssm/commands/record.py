# SPDX-License-Identifier: Apache-2.0
"""``ssm record``: the packets of a ring into a file."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ssm.commands.output import add_json, add_pool, print_json
from ssm.commands.recording import FORMATS, LINKTYPE_ETHERNET, Record, format_of, writer

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ssm import Ring

BATCH = 64
LOOK_S = 0.1  # so often is the time looked at


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of ``ssm record``."""
    add_pool(parser)
    add = parser.add_argument
    add("ring", metavar="RING", help="the ring; what is recorded is taken out of it, as by any consumer")
    add(
        "file",
        type=Path,
        metavar="FILE",
        help="*.pcapng for that format, any other name for records with a length",
    )
    add("--to", metavar="RING", help="then put each packet into this ring, without copying it")
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


def _packets(
    ring: Ring, onward: Ring | None, write: Callable[[Record], None], args: argparse.Namespace
) -> tuple[int, int]:
    """Record until told to stop; returns packets and bytes."""
    from ssm import RingEmpty, RingShutDown

    count = size = 0
    until = time.monotonic() + (args.seconds if args.seconds is not None else float("inf"))
    try:
        while (left := BATCH if args.count is None else args.count - count) > 0 and time.monotonic() < until:
            try:
                batch = ring.get_many(min(left, BATCH), timeout=LOOK_S)
            except RingEmpty:
                continue
            now_ns = time.time_ns()
            for packet in batch:
                write(Record(now_ns, packet.tag, bytes(packet)))
                size += len(packet)
            count += len(batch)
            if onward is not None:
                onward.put_many(batch)
            else:
                batch.free()
    except (KeyboardInterrupt, RingShutDown):
        pass
    return count, size


def run(args: argparse.Namespace) -> int:
    """Record, until the ring is shut down, the limit is reached, or Ctrl-C."""
    from ssm import Pool

    with Pool.attach(args.pool) as pool:
        for name in filter(None, (args.ring, args.to)):
            if name not in pool.rings():
                rings = ", ".join(map(repr, pool.rings())) or "none"
                raise FileNotFoundError(f"pool {pool.name!r} has no ring {name!r} (it has {rings})")
        with writer(args.file, args.format or format_of(args.file), args.link_type) as write:
            onward = pool.ring(args.to) if args.to else None
            count, size = _packets(pool.ring(args.ring), onward, write, args)
    if args.json:
        print_json({"packets": count, "bytes": size})
    else:
        print(f"{count:,} packets, {size:,} bytes", file=sys.stderr)
    return 0
