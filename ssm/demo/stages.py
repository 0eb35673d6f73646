# SPDX-License-Identifier: Apache-2.0
"""The three kinds of processes: each works on packets where they lie and hands them to the next.

What stands in front of a frame on its way is told in mark.py.

The packets that iterating over a batch yields are references too, and a block is free when all are gone. So
each loop over a batch is in a function of its own: its last packet goes when the function returns.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import ssm
from ssm.captures.capture import Capture
from ssm.captures.flow import KEY
from ssm.captures.headers import flow_of
from ssm.demo.mark import HEADROOM, MARK, TIME, frame_of, tag_of
from ssm.demo.survey import DIGEST_MASK, frame_digest
from ssm.demo.table import FlowTable, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from ssm.captures.admission import Admission
    from ssm.captures.capture import Frame

FRAMES = "frames"  # the ring from the reader to the parsers
PARSED = "parsed"  # the ring from the parsers to the flow table
CLASS_PART = 4  # a batch takes at most this part of a class: the others need blocks on their way


@dataclass(frozen=True)
class ReaderReport:
    """What the reader did."""

    packets: int
    batches: int
    started_ns: int  # CLOCK_MONOTONIC, which all processes share


@dataclass(frozen=True)
class ParserReport:
    """What one parser did."""

    packets: int
    batches: int


@dataclass(frozen=True)
class TableReport:
    """What arrived at the end of the line."""

    packets: int
    bytes: int
    digest: int  # sum of frame_digest() over what arrived
    once: int  # frames that were seen exactly once
    repeated: int  # frames that were seen more often
    strangers: int  # packets with a number that the file does not have
    by_parser: tuple[int, ...]  # packets that carried each parser's mark, up to the last one that came
    flows: int
    flow_packets: int  # the packets of all rows added up
    flow_bytes: int
    talkers: tuple[Row, ...]  # the rows with the most bytes
    ended_ns: int  # CLOCK_MONOTONIC


def read(pool: ssm.Pool, path: Path, admission: Admission, batch_max: int) -> ReaderReport:
    """Copy each frame of the file into a packet, once, and send it off."""
    frames = pool.ring(FRAMES)
    packets = batches = 0
    started_ns = time.monotonic_ns()
    with Capture(path) as capture:
        admitted = filter(None, map(admission.admit, capture))
        for run in _runs(admitted, pool.classes, batch_max):
            longest = max(len(frame.data) for frame in run)
            batch = pool.alloc_many(len(run), TIME.size + longest, timeout=None)
            _fill(batch, run)
            frames.put_many(batch)
            packets += len(run)
            batches += 1
    frames.shutdown()
    return ReaderReport(packets, batches, started_ns)


def _runs(frames: Iterable[Frame], classes: Mapping[int, int], batch_max: int) -> Iterator[list[Frame]]:
    """Split frames, in order, into runs that are at home in one size class and take a part of it only."""
    run: list[Frame] = []
    run_class = run_max = 0
    for frame in frames:
        need = HEADROOM + TIME.size + len(frame.data)
        size_class = min(block_size for block_size in classes if block_size >= need)
        if run and (size_class != run_class or len(run) == run_max):
            yield run
            run = []
        run_class, run_max = size_class, max(1, min(batch_max, classes[size_class] // CLASS_PART))
        run.append(frame)
    if run:
        yield run


def _fill(batch: ssm.PacketBatch, run: list[Frame]) -> None:
    batch.lengths = [TIME.size + len(frame.data) for frame in run]
    batch.tags = [tag_of(frame.number, len(frame.data)) for frame in run]
    for packet, frame in zip(batch, run, strict=True):
        packet[: TIME.size] = TIME.pack(frame.time_ns)
        packet[TIME.size :] = frame.data


def parse(pool: ssm.Pool, number: int, link_type: int, batch_max: int, fatal: frozenset[int]) -> ParserReport:
    """Decode headers in place and leave what they say in front of the frame.

    The ring redelivers: what this process has when it is killed comes out once more, and somebody else does it again.
    A batch that has gone into the next ring does not. `fatal` are frames at which it kills itself, so that this is
    seen; not when they come the second time.
    """
    frames, parsed = pool.ring(FRAMES), pool.ring(PARSED)
    packets = batches = 0
    for batch in _batches(frames, batch_max):
        _mark(batch, number, link_type, fatal)
        packets += len(batch)
        batches += 1
        parsed.put_many(batch)
    return ParserReport(packets, batches)


def _mark(batch: ssm.PacketBatch, number: int, link_type: int, fatal: frozenset[int]) -> None:
    for packet in batch:
        frame_number, length = frame_of(packet.tag)
        if packet.redelivered and packet.headroom != HEADROOM:
            _mend(packet, length)
        else:
            packet.prepend(MARK.size)
        with memoryview(packet) as view, view[MARK.size + TIME.size :] as frame:
            MARK.pack_into(view, 0, number, KEY.pack(*flow_of(frame, link_type)))
        if frame_number in fatal and not packet.redelivered:
            os.kill(os.getpid(), signal.SIGKILL)


def _mend(packet: ssm.Packet, length: int) -> None:
    """Make the packet reach to the end of its frame: whoever was killed in prepend() had moved its front only."""
    missing = MARK.size + TIME.size + length - len(packet)
    if missing:
        packet.append(missing)


def tabulate(pool: ssm.Pool, file_packets: int, batch_max: int, top: int) -> TableReport:
    """Build the flow table and count what arrives."""
    count = _Count(file_packets)
    for batch in _batches(pool.ring(PARSED), batch_max):
        count.add(batch)
        batch.free()
    return count.report(top)


class _Count:
    """The flow table, and how often each frame of the file was seen."""

    def __init__(self, file_packets: int) -> None:
        self._table = FlowTable()
        self._seen = bytearray(file_packets)  # 0, 1, or 2 for more
        self._by_parser: Counter[int] = Counter()
        self._bytes = self._digest = self._strangers = 0

    def add(self, batch: ssm.PacketBatch) -> None:
        for packet in batch:
            frame_number, _ = frame_of(packet.tag)
            with memoryview(packet) as view, view[MARK.size + TIME.size :] as frame:
                number, key = MARK.unpack_from(view)
                (time_ns,) = TIME.unpack_from(view, MARK.size)
                self._table.add(key, len(frame), time_ns)
                self._bytes += len(frame)
                self._digest += frame_digest(frame_number, frame)
            self._by_parser[number] += 1
            self._see(frame_number)

    def _see(self, frame_number: int) -> None:
        if frame_number < len(self._seen):
            self._seen[frame_number] = min(self._seen[frame_number] + 1, 2)
        else:
            self._strangers += 1

    def report(self, top: int) -> TableReport:
        rows = self._table.rows()
        return TableReport(
            packets=self._by_parser.total(),
            bytes=self._bytes,
            digest=self._digest & DIGEST_MASK,
            once=self._seen.count(1),
            repeated=self._seen.count(2),
            strangers=self._strangers,
            by_parser=tuple(
                self._by_parser[number] for number in range(max(self._by_parser, default=-1) + 1)
            ),
            flows=len(rows),
            flow_packets=sum(row.packets for row in rows),
            flow_bytes=sum(row.bytes for row in rows),
            talkers=tuple(rows[:top] if top else rows),
            ended_ns=time.monotonic_ns(),
        )


def _batches(ring: ssm.Ring, batch_max: int) -> Iterator[ssm.PacketBatch]:
    """Yield what comes, until the ring is shut down and drained."""
    while True:
        try:
            yield ring.get_many(batch_max)
        except ssm.RingShutDown:
            return
