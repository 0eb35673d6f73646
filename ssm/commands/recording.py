# SPDX-License-Identifier: Apache-2.0
"""Packets in a file: pcapng, or records with a length in front, which keep nanoseconds and the tag as well.

A file of records is ``MAGIC`` and then, for each packet, time in nanoseconds since the epoch, tag and length as
little-endian 64-bit numbers, and the bytes.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator
    from pathlib import Path
    from typing import BinaryIO

MAGIC = b"ssm-rec1"
HEAD = struct.Struct("<QQQ")  # time_ns, tag, length
LENGTH_MAX = 1 << 40  # of one packet: what claims more is damaged
FORMATS = ("records", "pcapng")
LINKTYPE_ETHERNET = 1


class Record(NamedTuple):
    """One packet of a recording."""

    time_ns: int
    """When it was taken from its ring, since the epoch."""
    tag: int
    """The packet's tag; 0 from a pcapng file, which has none."""
    data: bytes
    """Its payload."""


class RecordingError(ValueError):
    """The file is none, or is damaged."""


def format_of(path: Path) -> str:
    """Return the format that the file's name asks for."""
    return "pcapng" if path.suffix in {".pcapng", ".pcap", ".cap"} else "records"


@contextmanager
def writer(path: Path, form: str, link_type: int = LINKTYPE_ETHERNET) -> Generator[Callable[[Record], None]]:
    """Open a file for writing; yields the function that appends a record."""
    with path.open("wb") as file:
        yield _pcapng_writer(file, link_type) if form == "pcapng" else _record_writer(file)


def _record_writer(file: BinaryIO) -> Callable[[Record], None]:
    file.write(MAGIC)

    def write(record: Record) -> None:
        file.write(HEAD.pack(record.time_ns, record.tag, len(record.data)))
        file.write(record.data)

    return write


def _pcapng_writer(file: BinaryIO, link_type: int) -> Callable[[Record], None]:
    from ssm.demo.library import dpkt

    pcapng = dpkt.pcapng.Writer(file, snaplen=0, linktype=link_type)

    def write(record: Record) -> None:
        pcapng.writepkts([(record.time_ns / 1e9, record.data)])

    return write


def read(path: Path) -> Iterator[Record]:
    """Yield the records of a file, whichever of the formats it has. RecordingError where it is damaged."""
    with path.open("rb") as file:
        if file.read(len(MAGIC)) == MAGIC:
            yield from _read_records(file, path)
            return
    from ssm.demo.capture import Capture
    from ssm.demo.errors import DemoError

    try:
        with Capture(path) as capture:
            for frame in capture:
                yield Record(frame.time_ns, 0, frame.data)
    except DemoError as error:
        raise RecordingError(str(error)) from error


def _read_records(file: BinaryIO, path: Path) -> Iterator[Record]:
    number = 0
    while head := file.read(HEAD.size):
        time_ns, tag, length = HEAD.unpack(head) if len(head) == HEAD.size else (0, 0, LENGTH_MAX)
        data = file.read(length) if length < LENGTH_MAX else b""
        if len(data) != length:
            raise RecordingError(f"{path} is cut short or damaged after packet {number:,}")
        number += 1
        yield Record(time_ns, tag, data)
