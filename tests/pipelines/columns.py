# SPDX-License-Identifier: Apache-2.0
"""The pipelines that are killed and interrupted, and the books that their sinks keep.

Each packet has its number, and behind it a seal that the stages write; each sink counts how often each number came,
in memory of its own. So these books know nothing of what the pipeline counts, and both are compared.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

import ssm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORD = 8
KEY = 0x5EA1_0F_C0DE
BATCH = 16
MANY = 64  # packets that a sink takes at once


def numbers(limit: int | None = None, start: int = 0) -> Iterator[bytes]:
    """Yield packets without a seal: `limit` of them, or until the run is stopped."""
    for number in itertools.count(start) if limit is None else range(start, limit):
        yield number.to_bytes(WORD, "little") + bytes(WORD)


# ---- stages -------------------------------------------------------------------------------------------------


def sealed(packet: Any) -> bytes:
    """Return the packet's number and its seal: a new packet."""
    number = bytes(packet[:WORD])
    return number + (int.from_bytes(number, "little") ^ KEY).to_bytes(WORD, "little")


def seal(packet: Any) -> Any:
    """Seal the packet where it lies: twice is as good as once."""
    packet[WORD : 2 * WORD] = sealed(packet)[WORD:]
    return packet


def as_it_is(packet: Any) -> Any:
    return packet


def either(packet: Any) -> Any:
    """Return the packet, or a new one in its place, in turn."""
    return seal(packet) if packet.tag % 2 else sealed(packet)


def seal_all(batch: Any) -> Any:
    for packet in batch:
        seal(packet)
    return batch


def all_sealed(batch: Any) -> list[bytes]:
    return [sealed(packet) for packet in batch]


# ---- books --------------------------------------------------------------------------------------------------


class Book:
    """A sink: how often each number came, and how many packets were not what was sent."""

    def __init__(self) -> None:
        self.times = bytearray(1 << 16)
        self.torn = 0

    def __call__(self, batch: Any) -> None:
        for packet in batch:
            number = int.from_bytes(packet[:WORD], "little")
            if len(packet) != 2 * WORD or packet.tag != number or bytes(packet) != sealed(packet):
                self.torn += 1
                continue
            while number >= len(self.times):
                self.times += bytes(len(self.times))
            self.times[number] = min(self.times[number] + 1, 255)

    def close(self) -> tuple[bytes, int]:
        return bytes(self.times), self.torn


class OrderedBook(Book):
    """A book to which packets must come in the order of their numbers; one that does not counts as torn."""

    def __init__(self) -> None:
        super().__init__()
        self.next = 0

    def __call__(self, batch: Any) -> None:
        super().__call__(batch)
        for packet in batch:
            self.torn += packet.tag != self.next
            self.next = packet.tag + 1


@dataclass(frozen=True)
class Page:
    """What the book of one sink says, beside how many packets were sent."""

    lost: int
    twice: int
    unsent: int
    """Numbers that no source sent."""
    torn: int

    @property
    def exact(self) -> bool:
        return not (self.lost or self.twice or self.unsent or self.torn)


def page(times: bytes, torn: int, sent: int) -> Page:
    counts = np.frombuffer(times, np.uint8)
    came = counts[:sent]
    return Page(
        lost=max(0, sent - len(counts)) + int((came == 0).sum()),
        twice=int((came > 1).sum()),
        unsent=int(counts[sent:].astype(bool).sum()),
        torn=torn,
    )


def pages(report: ssm.pipeline.Report, sinks: list[str]) -> dict[str, Page]:
    """Return what the books of a run that has ended say; the first ring knows how many packets were sent."""
    return {sink: page(*report.results[sink][0], report.rings["first"].put) for sink in sinks}


# ---- columns ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column:
    """One column of the table."""

    declare: Callable[[ssm.Pipeline, ssm.pipeline.RingSpec], None]
    """Declares all that comes behind the ring of the source."""
    sinks: tuple[str, ...] = ("Book",)
    repeated: tuple[str, ...] = ()
    """Sinks to which a packet may come twice, as docs/guide/pipelines.md says."""


def _two_stages(first: Callable[..., Any], second: Callable[..., Any], batch: int = 0) -> Any:
    def declare(pipe: ssm.Pipeline, ring: ssm.pipeline.RingSpec) -> None:
        between, last = pipe.ring("second", 64, size=64), pipe.ring("last", 64, size=64)
        pipe.stage(ring, between, workers=2, batch=batch, name="one")(first)
        pipe.stage(between, last, workers=2, batch=batch, name="two")(second)
        pipe.sink(last, batch=MANY)(Book)

    return declare


def _fan_out(pipe: ssm.Pipeline, ring: ssm.pipeline.RingSpec) -> None:
    left, right = pipe.ring("left", 64, size=64), pipe.ring("right", 64, size=64)
    pipe.stage(ring, (left, right), workers=2, name="one")(either)
    pipe.sink(left, batch=MANY, name="left")(Book)
    pipe.sink(right, batch=MANY, name="right")(Book)


def _ordered(pipe: ssm.Pipeline, ring: ssm.pipeline.RingSpec) -> None:
    between, last = pipe.ring("second", 64, size=64), pipe.ring("last", 64, size=64)
    pipe.stage(ring, between, workers=2, ordered=True, name="one")(either)
    pipe.stage(between, last, workers=2, ordered=True, batch=BATCH, name="two")(all_sealed)
    pipe.sink(last, batch=MANY, name="Book")(OrderedBook)


COLUMNS = {
    "same packet": Column(_two_stages(seal, as_it_is)),
    "new packet": Column(_two_stages(sealed, sealed)),
    "fan-out": Column(_fan_out, ("left", "right"), repeated=("left",)),
    "batch": Column(_two_stages(seal_all, all_sealed, BATCH)),
    "ordered": Column(_ordered),
}


def pipeline(column: str, name: str, start: Any, limit: int | None = None) -> ssm.Pipeline:
    """Return the pipeline of a column; without a limit it goes on until it is stopped."""
    pipe = ssm.Pipeline(name, start=start)
    ring = pipe.ring("first", 64, size=64)
    pipe.source(ring, name="source")(numbers)
    COLUMNS[column].declare(pipe, ring)
    return pipe
