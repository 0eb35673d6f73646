# SPDX-License-Identifier: Apache-2.0
"""What went in, what came out, what was left, and what does not agree."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ssm.demo.settings import Settings
    from ssm.demo.stages import ParserReport, ReaderReport, TableReport
    from ssm.demo.survey import Survey


@dataclass(frozen=True)
class ClassLeft:
    """One size class after the run."""

    block_size: int  # bytes
    blocks: int
    free: int  # those in private caches included


@dataclass(frozen=True)
class RingLeft:
    """One ring after the run."""

    name: str
    capacity: int  # packets
    high_water: int  # the most packets it ever held
    puts: int
    gets: int
    depth: int  # packets still in it
    redelivered: int = 0  # of `gets`: packets that somebody had before who was killed


@dataclass(frozen=True)
class LeftOver:
    """What the run left behind, looked at when all its processes were gone."""

    classes: tuple[ClassLeft, ...]
    rings: tuple[RingLeft, ...]
    check: tuple[str, ...]  # of pool.check()
    in_shm: bool  # whether the pool's file outlived its last process

    @property
    def blocks_missing(self) -> int:
        """Blocks that did not come back."""
        return sum(each.blocks - each.free for each in self.classes)


@dataclass(frozen=True)
class Result:
    """One run."""

    pool: str  # its name
    settings: Settings
    file: Survey
    reader: ReaderReport
    parsers: tuple[ParserReport | None, ...]  # None: killed
    table: TableReport
    left: LeftOver

    @property
    def seconds(self) -> float:
        """From the reader's start to the last free."""
        return (self.table.ended_ns - self.reader.started_ns) / 1e9

    @property
    def killed(self) -> int:
        """Parsers that were killed."""
        return self.parsers.count(None)

    @property
    def redelivered(self) -> int:
        """Packets that somebody had before who was killed."""
        return sum(ring.redelivered for ring in self.left.rings)

    @property
    def handled(self) -> tuple[int, ...]:
        """Packets that each parser handed on: what it says, or what carries its mark where it cannot say any more."""
        marked = self.table.by_parser + (0,) * (len(self.parsers) - len(self.table.by_parser))
        return tuple(
            mark if each is None else each.packets
            for each, mark in zip(self.parsers, marked[: len(self.parsers)], strict=True)
        )

    @property
    def findings(self) -> tuple[str, ...]:
        """One sentence for each thing that is not as it must be."""
        return (*_wrong_counts(self), *_wrong_leftovers(self.left))

    @property
    def exact(self) -> bool:
        """Whether exactly what the file holds came out, and nothing was left."""
        return not self.findings


def _wrong_counts(result: Result) -> Iterator[str]:
    file, table = result.file, result.table
    lost = file.expected_packets - table.once - table.repeated
    if lost > 0:
        yield f"{lost:,} packets were lost"
    if table.repeated:
        yield f"{table.repeated:,} packets arrived more than once"
    if table.strangers or lost < 0:
        yield f"{table.strangers + max(-lost, 0):,} packets arrived that should not have"
    if table.digest != file.digest:
        yield "the contents of the packets are not those of the file"
    for what, is_now, must_be in (
        ("packets at the reader", result.reader.packets, file.expected_packets),
        ("packets at the parsers", sum(result.handled), file.expected_packets),
        ("packets at the flow table", table.packets, file.expected_packets),
        ("bytes at the flow table", table.bytes, file.expected_bytes),
        ("packets in the rows of the flow table", table.flow_packets, file.expected_packets),
        ("bytes in the rows of the flow table", table.flow_bytes, file.expected_bytes),
    ):
        if is_now != must_be:
            yield f"{what}: {is_now:,} instead of {must_be:,}"
    for number, (marked, handled) in enumerate(
        zip_longest(table.by_parser, result.handled, fillvalue=0), start=1
    ):
        if marked != handled:
            yield f"parser {number} handled {handled:,} packets, {marked:,} carry its mark"
    for ring in result.left.rings:
        # A get that was killed before it counted is not in `gets`: then only what was put and what is left is exact.
        gets = ring.puts if result.killed else ring.gets
        if not ring.puts == gets == file.expected_packets or ring.depth:
            yield f"ring {ring.name!r}: {ring.puts:,} packets put, {ring.gets:,} got, {ring.depth:,} left"


def _wrong_leftovers(left: LeftOver) -> Iterator[str]:
    if left.blocks_missing:
        yield f"{left.blocks_missing:,} blocks did not come back to the pool"
    for sentence in left.check:
        yield f"check: {sentence}"
    if left.in_shm:
        yield "the pool is still in /dev/shm"
